"""Two runs side by side, measurement by measurement: what the second has more, with an interval.

Cells are paired: the same victim, attack, defense, scenario, group, measure, cut-off and seed. Over two seeds or more
the interval is a t interval of the paired differences (Student, Biometrika 1908). Of a single seed there is one for
shares alone, Newcombe's (Statistics in Medicine 1998, method 10), as if the two rates were independent. Both runs ask
the same questions, so that one is rather too wide. Intervals hold for one measurement each: of a hundred that did not
change, about five seem to.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cowbird.errors import UserError
from cowbird.experiments.measures import MEASURES, OVER_SEEDS, Measure
from cowbird.experiments.results import NO_K, Row
from cowbird.experiments.shipped_measures import DETECTION_AUROC, FALSE_POSITIVE_RATE, RECALL
from cowbird.metrics.intervals import Interval, measure_spread, subtract_rates
from cowbird.report.run_files import RunFiles
from cowbird.report.selection import list_summaries

EVERY_MEASURE = "all"
"""What stands for every measure where measures are chosen."""
DEFAULT_K = 10
"""Cut-off that is shown unless another is asked for."""


class MeasurePlace(NamedTuple):
    """What a row measures, and where, whatever its seed."""

    victim: str
    """Label of the victim."""
    attack: str
    """Label of the attack."""
    defense: str
    """Label of the defense."""
    scenario: str
    """Label of the scenario."""
    group: str
    """Whose measurement."""
    metric: str
    """Name of the measure."""
    k: int
    """Cut-off."""


RowsBySeed = dict[int | None, Row]
"""The rows of one place that hold a value, by seed; `None` is all seeds together."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What a second run has more than a first one in one place."""

    place: MeasurePlace
    """Where."""
    one: float
    """The first run's value, over the seeds that both have."""
    other: float
    """The second run's."""
    found: Interval
    """The second less the first, and how many seeds or questions that rests on."""
    method: str
    """How the interval was made; `no interval` if there is none."""

    @property
    def measure(self) -> Measure | None:
        """The measure, if it is known."""
        return MEASURES.get(self.place.metric)

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out zero."""
        low, high = self.found.low, self.found.high
        return low is not None and high is not None and (low > 0 or high < 0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs, paired."""

    differences: tuple[Difference, ...]
    """Places that both have; those that differ come first, the largest first."""
    only_one: int
    """Places that the first run alone has."""
    only_other: int
    """Places that the second run alone has."""
    remarks: tuple[str, ...]
    """What a reader should know of the pair, in whole sentences."""


def group_by_place(rows: Iterable[Row]) -> dict[MeasurePlace, RowsBySeed]:
    """Return rows that hold a value by place and seed; means over seeds are left out, for they are made anew."""
    found: dict[MeasurePlace, RowsBySeed] = {}
    for row in rows:
        if row.value is not None and not row.metric.endswith(OVER_SEEDS.suffix):
            place = MeasurePlace(row.victim, row.attack, row.defense, row.scenario, row.group, row.metric, row.k)
            found.setdefault(place, {}).setdefault(row.seed, row)
    return found


def subtract_rows(one: RowsBySeed, other: RowsBySeed, unit: str) -> tuple[Interval, str, float, float] | None:
    """Return what the second of two measurements has more than the first, paired by seed.

    Args:
        one: The first, by seed.
        other: The second.
        unit: Unit of the measure.

    Returns:
        The difference, how its interval was made, and both values; `None` if they share no seed.
    """
    seeds = sorted(seed for seed in one if seed is not None and seed in other)
    firsts, seconds = ([rows[seed].value or 0.0 for seed in seeds] for rows in (one, other))
    if len(seeds) > 1:
        spread = measure_spread([second - first for first, second in zip(firsts, seconds, strict=True)])
        means = sum(firsts) / len(seeds), sum(seconds) / len(seeds)
        if spread.sd:
            found = Interval(spread.value, spread.low, spread.high, spread.n)
            return found, f"t, {len(seeds)} paired seeds", *means
        # Seeds that are all alike show no spread, so the interval is that of one.
        gap, method = _subtract_single(one[seeds[0]], other[seeds[0]], unit)
        return gap, f"{method}, {len(seeds)} seeds alike", *means
    shared = seeds[0] if seeds else None
    if shared not in one or shared not in other:
        return None
    gap, method = _subtract_single(one[shared], other[shared], unit)
    where = "all seeds pooled" if shared is None else f"seed {shared}"
    return gap, f"{method}, {where}", one[shared].value or 0.0, other[shared].value or 0.0


def _subtract_single(one: Row, other: Row, unit: str) -> tuple[Interval, str]:
    first, second = (Interval(row.value, row.low, row.high, row.n) for row in (one, other))
    if unit == "share":
        gap = subtract_rates(second, first)
        if gap.value is not None:
            return gap, "Newcombe"
    return Interval((other.value or 0.0) - (one.value or 0.0), None, None, min(one.n, other.n)), "no interval"


def list_main_measures() -> list[str]:
    """Return the names of the measures that reports are about: attacks, accuracies, and what detectors find."""
    names: list[str] = []
    for summary in list_summaries():
        names += [measure.name for measure in (*summary.attack, *summary.accuracy)]
    return list(dict.fromkeys([*names, RECALL.name, FALSE_POSITIVE_RATE.name, DETECTION_AUROC.name]))


def choose_measures(wanted: Sequence[str], known: Collection[str]) -> set[str]:
    """Return the names of the measures that are asked for.

    Args:
        wanted: Names, or `all`; nothing stands for the main ones.
        known: Names that the rows have.

    Raises:
        UserError: If no row has one of them.
    """
    if EVERY_MEASURE in wanted:
        return set(known)
    for name in wanted:
        if name not in known:
            have = ", ".join(sorted(known))
            raise UserError(f"No row measures '{name}'.", f"The rows have: {have}.")
    return set(wanted or list_main_measures())


def choose_cutoff(rows: Iterable[Row], k: int | None) -> int:
    """Return the cut-off to show: the one asked for, or else 10 if there are such rows, or the smallest.

    Raises:
        UserError: If no row has the one that is asked for.
    """
    known = sorted({row.k for row in rows} - {NO_K})
    if k is None:
        return DEFAULT_K if DEFAULT_K in known or not known else known[0]
    if k not in known:
        cutoffs = ", ".join(map(str, known)) or "none"
        raise UserError(f"No row has the cut-off {k}.", f"The rows have: {cutoffs}. Choose one with --k.")
    return k


def compare_runs(one: RunFiles, other: RunFiles, metrics: Sequence[str] = (), k: int | None = None) -> Comparison:
    """Compare two runs.

    Args:
        one: The first.
        other: The second, from which the first is taken away.
        metrics: Names of measures, or `all`; nothing stands for the main ones.
        k: Cut-off; 10 by default.

    Raises:
        UserError: If they have no place and seed in common, or no row has a measure or cut-off that is asked for.
    """
    cutoff = choose_cutoff([*one.rows, *other.rows], k)
    names = choose_measures(metrics, {row.metric for run in (one, other) for row in run.rows})
    sides = [
        {place: rows for place, rows in group_by_place(run.rows).items() if _is_shown(place, names, cutoff)}
        for run in (one, other)
    ]
    differences = _pair_places(*sides)
    if not differences:
        raise UserError(
            f"'{one.label}' and '{other.label}' have no measurement of the same cell and seed.",
            "Cells are paired by the labels of victim, attack, defense and scenario. See both with `cowbird table`.",
        )
    paired = {each.place for each in differences}
    only_one, only_other = (sum(place not in paired for place in side) for side in sides)
    ranked = tuple(sorted(differences, key=_rank_difference))
    return Comparison(ranked, only_one, only_other, tuple(_list_remarks(one, other)))


def _is_shown(place: MeasurePlace, names: Collection[str], k: int) -> bool:
    return place.metric in names and place.k in (k, NO_K)


def _pair_places(
    first: Mapping[MeasurePlace, RowsBySeed], second: Mapping[MeasurePlace, RowsBySeed]
) -> list[Difference]:
    found: list[Difference] = []
    for place, rows in first.items():
        measure = MEASURES.get(place.metric)
        pair = subtract_rows(rows, second.get(place, {}), measure.unit if measure else "")
        if pair is not None:
            gap, method, before, after = pair
            found.append(Difference(place, before, after, gap, method))
    return found


def _rank_difference(one: Difference) -> tuple[bool, float, MeasurePlace]:
    return not one.differs, -abs(one.found.value or 0.0), one.place


def _list_remarks(one: RunFiles, other: RunFiles) -> Iterable[str]:
    for kind in ("dataset", "experiment"):
        names = [sorted({str(getattr(row, kind)) for row in run.rows}) for run in (one, other)]
        if names[0] != names[1]:
            first, second = (", ".join(each) for each in names)
            yield f"The {kind}s differ: {first} and {second}."
    if one.sha256 == other.sha256:
        yield "Both are the same file."
