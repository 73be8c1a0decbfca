"""Ranks over many runs that respect intervals: each entry has a range of ranks, not one.

Entries of a board are compared in pairs, as `cowbird.report.comparison` does: on the seeds that both have. One is ahead
of another if the interval of their difference leaves out zero. An entry's best rank is one more than how many are
surely ahead of it; its worst is the number of entries less those that are surely behind. Entries whose ranges overlap
are not told apart. The 95 % hold for each pair, not for the whole board.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from cowbird.errors import UserError
from cowbird.experiments.measures import MEASURES, OVER_SEEDS, Measure
from cowbird.experiments.results import NO_K, Row
from cowbird.experiments.shipped_measures import NO_ATTACK
from cowbird.metrics.intervals import Interval, measure_spread
from cowbird.report.comparison import MeasurePlace, RowsBySeed, choose_cutoff, group_by_place, subtract_rows
from cowbird.report.run_files import RunFiles
from cowbird.report.selection import list_summaries

RankedPart = Literal["defense", "attack", "victim"]
"""What a board ranks."""
RankOrder = Literal["low", "high"]
"""Which values come first."""
LOW_FIRST = frozenset({"false_positive_rate", "flagged", "lost_clean_items", "lost_clean_events"})
"""Measures of detectors of which less is better."""
LOW_SUFFIXES = ("_excess", "_lost")
"""How measures end of which less is better."""


@dataclass(frozen=True, slots=True)
class BoardEntry:
    """One line of a board."""

    name: str
    """Label of what is ranked, with its run where several have it."""
    best: int
    """Best rank that the intervals allow, from 1."""
    worst: int
    """Worst rank that they allow."""
    found: Interval
    """Its value: the mean over seeds with a t interval, or that of the only seed."""
    basis: str
    """What the value rests on."""


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Entries that were measured in the same place."""

    title: str
    """The place, in words."""
    measure: Measure
    """What ranks them."""
    k: int
    """Cut-off."""
    entries: tuple[BoardEntry, ...]
    """The entries, the first one first."""


def rank_runs(
    runs: Sequence[RunFiles],
    by: RankedPart = "defense",
    metric: str = "",
    order: RankOrder | None = None,
    k: int | None = None,
) -> list[Leaderboard]:
    """Rank what runs have in common, a board a place.

    Args:
        runs: The runs.
        by: What is ranked; all else is the same within a board.
        metric: The measure; empty stands for the attack's measure of each task.
        order: Which values come first; by default the better ones, as `find_order` has it.
        k: Cut-off; 10 by default.

    Raises:
        UserError: If no place has two entries, or no row has the measure or the cut-off.
    """
    if by not in get_args(RankedPart):
        raise UserError(f"'{by}' can't be ranked.", f"Rank one of: {', '.join(get_args(RankedPart))}.")
    rows = [row for run in runs for row in run.rows]
    cutoff, groups = choose_cutoff(rows, k), _choose_groups(metric, rows)
    boards: dict[tuple[str, ...], dict[tuple[str, str], RowsBySeed]] = {}
    for run in runs:
        data = ", ".join(sorted({row.dataset for row in run.rows}))
        for place, known in group_by_place(run.rows).items():
            if place.metric not in groups or place.k not in (cutoff, NO_K) or place.attack == NO_ATTACK:
                continue
            if place.group in groups[place.metric]:
                fixed = _name_board(place, by, data)
                boards.setdefault(fixed, {})[getattr(place, by), run.label] = known
    made = [
        _make_board(fixed, entries, by, order)
        for fixed, entries in _pick_groups(boards, groups).items()
        if len(entries) > 1
    ]
    if not made:
        raise UserError(
            f"No place has two {by}s to rank.", f"Give more runs, or rank something else with --by: {by} is fixed here."
        )
    return made


def find_order(measure: Measure, by: RankedPart) -> RankOrder:
    """Return which values are better: what a defense leaves of an attack is little, what an attack reaches is much."""
    attacks = {each.name for summary in list_summaries() for each in summary.attack}
    if measure.name in attacks:
        return "high" if by == "attack" else "low"
    low = measure.name in LOW_FIRST or measure.name.endswith(LOW_SUFFIXES)
    return "low" if low else "high"


def _choose_groups(metric: str, rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """Return the measures that rank, each with the groups of which the first that there is counts."""
    found = {summary.attack[0].name: summary.groups for summary in list_summaries(rows)}
    if not metric:
        return found
    known = {row.metric for row in rows if not row.metric.endswith(OVER_SEEDS.suffix)}
    if metric not in known or metric not in MEASURES:
        raise UserError(f"No row measures '{metric}'.", f"The rows have: {', '.join(sorted(known))}.")
    return {metric: found.get(metric, ("all", "target", "trigger"))}


def _name_board(place: MeasurePlace, by: RankedPart, data: str) -> tuple[str, ...]:
    """Return what all entries of a board share; the group comes last but two."""
    fixed = [f"{kind} {getattr(place, kind)}" for kind in ("victim", "attack", "defense", "scenario") if kind != by]
    return (data, *fixed, place.group, place.metric, str(place.k))


def _pick_groups(
    boards: dict[tuple[str, ...], dict[tuple[str, str], RowsBySeed]], groups: dict[str, tuple[str, ...]]
) -> dict[tuple[str, ...], dict[tuple[str, str], RowsBySeed]]:
    """Keep, of boards that differ in the group alone, the one whose group comes first."""
    best: dict[tuple[str, ...], tuple[str, ...]] = {}
    for key in boards:
        *fixed, group, metric, k = key
        short = (*fixed, metric, k)
        order = groups[metric]
        if short not in best or order.index(group) < order.index(best[short][-3]):
            best[short] = key
    return {key: boards[key] for key in best.values()}


def _make_board(
    key: tuple[str, ...], entries: dict[tuple[str, str], RowsBySeed], by: RankedPart, order: RankOrder | None
) -> Leaderboard:
    *fixed, group, metric, k = key
    measure = MEASURES[metric]
    sign = 1 if (order or find_order(measure, by)) == "low" else -1
    labels = [label for label, _ in entries]
    lines: list[tuple[float, BoardEntry]] = []
    for (label, run), rows in entries.items():
        others = [each for name, each in entries.items() if name != (label, run)]
        gaps = [gap * sign for gap in _list_gaps(rows, others, measure)]
        best, worst = 1 + sum(gap < 0 for gap in gaps), len(entries) - sum(gap > 0 for gap in gaps)
        found, basis = _summarize_entry(rows)
        name = label if labels.count(label) == 1 else f"{label} ({run})"
        lines.append(((found.value or 0.0) * sign, BoardEntry(name, best, worst, found, basis)))
    lines.sort(key=lambda line: (line[0], line[1].name))
    title = ", ".join([*fixed, f"group {group}"])
    return Leaderboard(title, measure, int(k), tuple(entry for _, entry in lines))


def _list_gaps(mine: RowsBySeed, others: Iterable[RowsBySeed], measure: Measure) -> list[float]:
    """Return each other entry's value less this one's where that is sure; 0 where it is not."""
    gaps: list[float] = []
    for other in others:
        pair = subtract_rows(mine, other, measure.unit)
        low, high = (None, None) if pair is None else (pair[0].low, pair[0].high)
        sure = low is not None and high is not None and (low > 0 or high < 0)
        gaps.append((pair[0].value or 0.0) if sure and pair is not None else 0.0)
    return gaps


def _summarize_entry(rows: RowsBySeed) -> tuple[Interval, str]:
    single = [row for seed, row in rows.items() if seed is not None]
    if len(single) > 1:
        spread = measure_spread([row.value or 0.0 for row in single])
        unit = MEASURES[single[0].metric]
        low, high = unit.clip_interval(spread.low, spread.high)
        return Interval(spread.value, low, high, len(single)), f"{len(single)} seeds"
    row = single[0] if single else rows[None]
    basis = "all seeds pooled" if row.seed is None else f"seed {row.seed}"
    return Interval(row.value, row.low, row.high, row.n), f"{basis}, n {row.n:,}"
