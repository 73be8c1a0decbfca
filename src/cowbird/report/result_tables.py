"""Outcomes, comparisons, boards and rows as tables of text, for terminals and files."""

from collections.abc import Collection, Sequence
from dataclasses import astuple

from rich.table import Table
from rich.text import Text

from cowbird.experiments.measures import Measure
from cowbird.experiments.results import NO_K, Row
from cowbird.metrics.intervals import Interval
from cowbird.report.comparison import Comparison
from cowbird.report.formats import ReportTable, make_report_table
from cowbird.report.leaderboard import Leaderboard
from cowbird.report.outcomes import Outcome
from cowbird.report.rates import NOT_MEASURED
from cowbird.report.run_files import RunFiles
from cowbird.report.terminal import sanitize_text


def name_measure(measure: Measure, k: int) -> str:
    """Return the title of a measure, with its cut-off if it has one."""
    return measure.title if k == NO_K else f"{measure.title}@{k}"


def format_interval(found: Interval | Row | None, measure: Measure, signed: bool = False) -> str:
    """Return a value with its interval, such as `0.912 [0.889, 0.931]`.

    Args:
        found: The value; `None` stands for nothing measured.
        measure: Whose it is.
        signed: Whether it is a difference, which has a sign.
    """
    if found is None or found.value is None:
        return NOT_MEASURED
    text = f"{found.value:+.{measure.digits}f}" if signed else measure.format_value(found.value)
    if found.low is None and found.high is None:
        return text
    form = f"{'+' if signed else ''}.{measure.digits}f"
    low, high = ("∞" if end is None else format(end, form) for end in (found.low, found.high))
    return f"{text} [{low}, {high}]"


def _spread_cells(found: Interval | Row | None) -> list[str]:
    """Return value, ends and count as cells of their own; empty where there is none."""
    if found is None:
        return ["", "", "", ""]
    return [*("" if each is None else f"{each:.6g}" for each in (found.value, found.low, found.high)), str(found.n)]


def make_outcome_table(outcomes: Sequence[Outcome], several_runs: bool = False, brief: bool = False) -> ReportTable:
    """Return a line an outcome for people, values and intervals in one cell.

    Args:
        outcomes: The outcomes.
        several_runs: Whether the run is named in each line.
        brief: Whether columns are left out that narrow terminals have no room for.
    """
    names = ("run",) * several_runs + ("victim", "attack", "scenario", "defense", "measure")
    parts = {"clean": True, "attacked": not brief, "under defense": True, "n": not brief}
    parts |= {"accuracy": True, "clean accuracy": not brief, "accuracy lost": True}
    rows: list[list[str]] = []
    for each in outcomes:
        labels = [each.run] * several_runs + [each.victim, each.attack, each.scenario, each.defense]
        clean, attacked, value = (format_interval(row, each.measure) for row in (each.clean, each.attacked, each.value))
        accuracy, before = (format_interval(row, each.accuracy) for row in (each.accuracy_value, each.accuracy_clean))
        cost = format_interval(each.cost, each.accuracy, signed=True)
        accuracy = f"{name_measure(each.accuracy, each.k)} {accuracy}"
        cells = [clean, attacked, value, _format_count(each.value), accuracy, before, cost]
        rows.append(
            [*labels, f"{name_measure(each.measure, each.k)}, {each.group}"]
            + [cell for cell, shown in zip(cells, parts.values(), strict=True) if shown]
        )
    header = (*names, *(name for name, shown in parts.items() if shown))
    return make_report_table(header, rows, range(len(names), len(header)))


def _format_count(row: Row) -> str:
    """Return what a row rests on: seeds, or so many questions, pairs or users."""
    return f"{row.n:,} seeds" if row.metric.endswith("_over_seeds") else f"{row.n:,}"


def make_wide_table(outcomes: Sequence[Outcome]) -> ReportTable:
    """Return a line an outcome for programs, each number in a cell of its own."""
    labels = ("run", "victim", "attack", "scenario", "defense", "group", "measure", "accuracy_measure", "k")
    parts = ("clean", "attacked", "defended", "accuracy_clean", "accuracy", "accuracy_lost")
    ends = ("", "_low", "_high", "_n")
    header = (*labels, *(part + end for part in parts for end in ends))
    rows: list[list[str]] = []
    for each in outcomes:
        start = [each.run, each.victim, each.attack, each.scenario, each.defense, each.group]
        start += [each.measure.name, each.accuracy.name, str(each.k)]
        found = (each.clean, each.attacked, each.value, each.accuracy_clean, each.accuracy_value, each.cost)
        rows.append(start + [cell for one in found for cell in _spread_cells(one)])
    return make_report_table(header, rows, range(len(labels) - 1, len(header)))


def make_row_table(runs: Sequence[RunFiles]) -> ReportTable:
    """Return every row of some runs."""
    header = ("run", *Row.model_fields)
    rows = [
        [run.label, *("" if value is None else str(value) for value in row.model_dump().values())]
        for run in runs
        for row in run.rows
    ]
    return make_report_table(header, rows, range(header.index("k"), len(header)))


def make_comparison_table(found: Comparison, one: str, other: str) -> ReportTable:
    """Return a line a place that both runs have.

    Args:
        found: The comparison.
        one: Label of the first run.
        other: Label of the second.
    """
    header = ("victim", "attack", "defense", "scenario", "group", "measure", one, other, "difference", "how")
    rows: list[list[str]] = []
    for each in found.differences:
        place, measure = each.place, each.measure
        values = [
            f"{value:.4g}" if measure is None else measure.format_value(value) for value in (each.one, each.other)
        ]
        digits = 4 if measure is None else measure.digits
        gap = f"{each.found.value or 0.0:+.{digits}f}"
        if each.found.low is not None and each.found.high is not None:
            gap += f" [{each.found.low:+.{digits}f}, {each.found.high:+.{digits}f}]"
        name = place.metric if measure is None else name_measure(measure, place.k)
        labels = [place.victim, place.attack, place.defense, place.scenario, place.group, name]
        rows.append([*labels, *values, f"{gap}{' *' * each.differs}", each.method])
    return make_report_table(header, rows, (6, 7, 8))


def make_board_table(board: Leaderboard, part: str) -> ReportTable:
    """Return a line an entry, its range of ranks first.

    Args:
        board: The board.
        part: What is ranked.
    """
    header = ("rank", part, name_measure(board.measure, board.k), "rests on")
    rows = [
        [_format_ranks(entry.best, entry.worst), entry.name, format_interval(entry.found, board.measure), entry.basis]
        for entry in board.entries
    ]
    return make_report_table(header, rows, (2,))


def _format_ranks(best: int, worst: int) -> str:
    return str(best) if best == worst else f"{best}–{worst}"


def make_flat_board_table(boards: Sequence[Leaderboard], part: str) -> ReportTable:
    """Return all boards as one table for programs, each number in a cell of its own."""
    header = ("board", "measure", "k", part, "best_rank", "worst_rank", "value", "low", "high", "n", "rests_on")
    rows = [
        [board.title, board.measure.name, str(board.k), entry.name, str(entry.best), str(entry.worst)]
        + ["" if value is None else f"{value:.6g}" for value in astuple(entry.found)[:3]]
        + [str(entry.found.n), entry.basis]
        for board in boards
        for entry in board.entries
    ]
    return make_report_table(header, rows, (2, *range(4, 10)))


def render_report_table(table: ReportTable, title: str = "", keep: Collection[str] = ()) -> Table:
    """Return a table of text for a terminal; columns that are the same in every line are left out.

    Args:
        table: The table.
        title: What stands above it.
        keep: Names of columns that are never left out.
    """
    shown = [
        nth
        for nth in range(len(table.header))
        if nth in table.numeric
        or table.header[nth] in keep
        or len(table.rows) < 2
        or len({row[nth] for row in table.rows}) > 1
    ]
    made = Table(
        title=sanitize_text(title, 200) if title else None,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for nth in shown:
        right = nth in table.numeric
        made.add_column(
            sanitize_text(table.header[nth], 40), justify="right" if right else "left", overflow="fold", min_width=4
        )
    for row in table.rows:
        made.add_row(*(Text() if not row[nth] else sanitize_text(row[nth], 120) for nth in shown))
    return made
