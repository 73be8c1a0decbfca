"""What a run came to, a line a place: clean → attacked → defended, and what it cost, each with its interval.

An outcome is one attack against one victim in one scenario under one defense. It is read off the rows; only where no
row tells the cost in accuracy is it made of the accuracies, as `cowbird.report.comparison` pairs them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cowbird.experiments.measures import CLEAN, DIFFERENCE, LOST, Measure, TaskSummary
from cowbird.experiments.results import NO_K, Row
from cowbird.experiments.shipped_measures import NO_ATTACK, NO_SCENARIO
from cowbird.metrics.intervals import Interval
from cowbird.report.comparison import MeasurePlace, RowsBySeed, choose_cutoff, group_by_place, subtract_rows
from cowbird.report.run_files import RunFiles, add_spreads
from cowbird.report.selection import PlaceLabels, assign_victims, select_overall

OverallRows = Mapping[tuple[PlaceLabels, str, str, int], Row]
"""One row a measurement, as `select_overall` returns them."""


class Effect(StrEnum):
    """What the intervals of two values say."""

    above = "above"
    """The second lies above the first, and the intervals are apart."""
    below = "below"
    """The second lies below the first, and the intervals are apart."""
    overlap = "overlap"
    """The intervals overlap."""
    unknown = "unknown"
    """A value or an interval is missing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attack against one victim in one scenario, under one defense or none."""

    run: str
    """Label of the run."""
    victim: str
    """Label of the victim."""
    attack: str
    """Label of the attack."""
    scenario: str
    """Label of the scenario."""
    defense: str
    """Label of the defense."""
    bare: bool
    """Whether that is the defense that does nothing."""
    group: str
    """Whose measurement it is."""
    measure: Measure
    """What the attack is measured by."""
    k: int
    """Cut-off."""
    clean: Row | None
    """The clean model without a defense, or with this one if there is no other."""
    attacked: Row | None
    """The attacked model without a defense."""
    value: Row
    """The attacked model under the defense."""
    accuracy: Measure
    """What accuracy is measured by."""
    accuracy_clean: Row | None
    """Accuracy of the clean model."""
    accuracy_value: Row | None
    """Accuracy of the attacked model under the defense."""
    cost: Interval | None
    """Accuracy of the clean model less that of the attacked one under the defense; `None` if not measured."""

    clean_seeds: tuple[float, ...]
    """The clean model's value of each seed, if there are several."""
    value_seeds: tuple[float, ...]
    """The same of the attacked model under the defense."""

    @property
    def place(self) -> tuple[str, str, str, str]:
        """Run, victim, attack and scenario: what outcomes of several defenses share."""
        return self.run, self.victim, self.attack, self.scenario


def judge_effect(before: Row | None, after: Row | None) -> Effect:
    """Return what the intervals of two values say."""
    if before is None or after is None:
        return Effect.unknown
    low, high, bottom, top = after.low, after.high, before.low, before.high
    if low is None or high is None or bottom is None or top is None:
        return Effect.unknown
    if low > top:
        return Effect.above
    return Effect.below if high < bottom else Effect.overlap


def list_outcomes(run: RunFiles, k: int | None = None) -> list[Outcome]:
    """Return the outcomes of a run, the attack that reaches most first, its undefended model before the defended ones.

    Args:
        run: The run.
        k: Cut-off of victims that rank; 10 by default.

    Raises:
        UserError: If no row has the cut-off that is asked for.
    """
    cutoff = choose_cutoff(run.rows, k)
    known, seeds = select_overall(add_spreads(run.rows)), group_by_place(run.rows)
    found: list[Outcome] = []
    for summary, victims in assign_victims(run.rows):
        found += _list_task_outcomes(run, summary, victims, known, seeds, cutoff)
    worst: dict[tuple[str, str, str, str], float] = {}
    for each in found:
        worst[each.place] = max(worst.get(each.place, 0.0), each.value.value or 0.0)
    return sorted(found, key=lambda each: (-worst[each.place], each.place, not each.bare, -(each.value.value or 0.0)))


def _list_task_outcomes(
    run: RunFiles,
    summary: TaskSummary,
    victims: set[str],
    known: OverallRows,
    seeds: Mapping[MeasurePlace, RowsBySeed],
    cutoff: int,
) -> list[Outcome]:
    k, attack, accuracy, undefended = cutoff if summary.by_cutoff else NO_K, *_pick_main(summary), run.find_undefended()
    found: list[Outcome] = []
    for victim, label, defense, scenario in dict.fromkeys(place for place, *_ in known):
        if victim not in victims or label == NO_ATTACK or scenario == NO_SCENARIO:
            continue
        here, plain = (victim, label, defense, scenario), (victim, label, undefended, scenario)
        group = next((each for each in summary.groups if (here, each, attack.name, k) in known), None)
        if group is None:
            continue
        clean = known.get((plain, group, attack[CLEAN].name, k)) or known.get((here, group, attack[CLEAN].name, k))
        found.append(
            Outcome(
                *(run.label, victim, label, scenario, defense, defense == undefended, group, attack, k),
                clean,
                known.get((plain, group, attack.name, k)),
                known[here, group, attack.name, k],
                accuracy,
                _find_clean_accuracy(here, plain, accuracy, k, known),
                known.get((here, "all", accuracy.name, k)),
                _find_cost(here, plain, accuracy, k, known, seeds),
                _list_seeds(seeds, plain, group, attack[CLEAN].name, k)
                or _list_seeds(seeds, here, group, attack[CLEAN].name, k),
                _list_seeds(seeds, here, group, attack.name, k),
            )
        )
    return found


def _find_clean_accuracy(
    here: PlaceLabels, plain: PlaceLabels, accuracy: Measure, k: int, known: OverallRows
) -> Row | None:
    """Return the clean model's accuracy without a defense, or with this one if there is no other."""
    for victim, attack, defense, scenario in (plain, here):
        beside = known.get(((victim, attack, defense, scenario), "all", accuracy[CLEAN].name, k))
        alone = known.get(((victim, NO_ATTACK, defense, scenario), "all", accuracy.name, k))
        if beside is not None or alone is not None:
            return beside or alone
    return None


def _pick_main(summary: TaskSummary) -> tuple[Measure, Measure]:
    """Return the measure of attacks and that of accuracy which stand for a task."""
    return summary.attack[0], summary.accuracy[0]


def _list_seeds(
    seeds: Mapping[MeasurePlace, RowsBySeed], place: PlaceLabels, group: str, metric: str, k: int
) -> tuple[float, ...]:
    """Return the values of single seeds; nothing if there is one only."""
    rows = seeds.get(MeasurePlace(*place, group, metric, k), {})
    values = tuple(row.value for seed, row in rows.items() if seed is not None and row.value is not None)
    return values if len(values) > 1 else ()


def _find_cost(
    here: PlaceLabels,
    plain: PlaceLabels,
    accuracy: Measure,
    k: int,
    known: OverallRows,
    seeds: Mapping[MeasurePlace, RowsBySeed],
) -> Interval | None:
    """Return the accuracy that was lost: the row that tells it, or else the clean model's less this one's."""
    for variant, sign in ((LOST, 1), (DIFFERENCE, -1)):
        row = known.get((here, "all", accuracy.name + variant.suffix, k))
        if row is not None and row.value is not None and (variant is LOST or here == plain):
            low, high = (None if end is None else end * sign for end in (row.low, row.high)[::sign])
            return Interval(row.value * sign, low, high, row.n)
    victim, attack, defense, scenario = here
    after = seeds.get(MeasurePlace(victim, attack, defense, scenario, "all", accuracy.name, k), {})
    before = seeds.get(MeasurePlace(victim, attack, plain[2], scenario, "all", accuracy[CLEAN].name, k)) or seeds.get(
        MeasurePlace(victim, attack, defense, scenario, "all", accuracy[CLEAN].name, k), {}
    )
    pair = subtract_rows(after, before, accuracy.unit)
    return None if pair is None else pair[0]
