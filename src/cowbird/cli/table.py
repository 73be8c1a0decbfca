"""`cowbird table`, `compare` and `leaderboard`: results of runs as tables, on the terminal or in a file."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cowbird.cli.terminal import out_console, print_json, print_plain, sanitize_line
from cowbird.errors import UserError
from cowbird.outputs import check_outputs
from cowbird.text import count_things

if TYPE_CHECKING:
    from cowbird.report.formats import ReportTable

TABLE_EXAMPLES = (
    "cowbird table runs/demo",
    "cowbird table runs/a runs/b --format latex --out results.tex",
    "cowbird table runs/demo --all-rows --out rows.csv",
)
COMPARE_EXAMPLES = (
    "cowbird compare runs/before runs/after",
    "cowbird compare runs/a runs/b --metric asr --out difference.md",
)
LEADERBOARD_EXAMPLES = (
    "cowbird leaderboard runs/a runs/b",
    "cowbird leaderboard runs/a --by attack",
    "cowbird leaderboard runs/a runs/b --metric recall",
)
SUFFIXES = {".csv": "csv", ".md": "markdown", ".markdown": "markdown", ".tex": "latex"}
"""The format of a file, by the end of its name."""


EXPORT_SUFFIXES = {*SUFFIXES, ".html"}
"""How the names of tables and pages end; a run writes none of these."""


class TableFormat(StrEnum):
    """Formats of tables."""

    csv = "csv"
    markdown = "markdown"
    latex = "latex"


class RankedLabel(StrEnum):
    """What `cowbird leaderboard` ranks."""

    defense = "defense"
    attack = "attack"
    victim = "victim"


class ValueOrder(StrEnum):
    """Which values come first."""

    low = "low"
    high = "high"


RunsArgument = Annotated[
    list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, or their results.jsonl, or CSV files of rows.")
]
FormatOption = Annotated[
    TableFormat | None, typer.Option("--format", help="csv, markdown or latex; by default as the name of --out ends.")
]
TableOutOption = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write here; an older file is replaced.")
]
CutoffOption = Annotated[int | None, typer.Option("--k", min=1, help="Cut-off of victims that rank; 10 by default.")]
MetricsOption = Annotated[
    list[str] | None,
    typer.Option("--metric", metavar="NAME", help="A measure (cowbird list metrics), or all; repeat for more."),
]


def choose_format(chosen: TableFormat | None, out: Path | None, runs: Sequence[Path]) -> str:
    """Return the format of a table; empty if it is for the terminal.

    Raises:
        UserError: If the file can't be written or is one of the runs' files, or its name does not tell.
    """
    if out is not None and out.is_dir():
        raise UserError(f"'{out}' is a folder.", "Name a file, such as results.md.")
    check_outputs({"--out": out}, {"RUN": list_run_files(runs)})
    if chosen is not None:
        return chosen.value
    if out is None:
        return ""
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"The name of '{out}' tells no format.", "Add --format csv, markdown or latex.")
    return SUFFIXES[out.suffix.lower()]


def list_run_files(runs: Sequence[Path]) -> list[Path]:
    """Return the files and folders of runs that nothing may replace. Pages and tables in their folders may be."""
    kept = list[Path]()
    for run in runs:
        inside = [path for path in run.iterdir() if path.suffix.lower() not in EXPORT_SUFFIXES] if run.is_dir() else []
        kept += inside if run.is_dir() else [run]
    return kept


def write_table(table: "ReportTable", form: str, out: Path | None) -> None:
    """Write a table in a format, into a file or on standard output."""
    from cowbird.files import write_text  # noqa: PLC0415
    from cowbird.report.formats import TABLE_FORMATS  # noqa: PLC0415

    text = TABLE_FORMATS[form](table)
    if out is None:
        print_plain(text)
        return
    write_text(out, text)
    size = count_things(len(table.rows), "line")
    out_console.print(Text("Table: ") + sanitize_line(f"{out} ({size})"), soft_wrap=True)


def table(
    runs: RunsArgument,
    form: FormatOption = None,
    out: TableOutOption = None,
    k: CutoffOption = None,
    all_rows: Annotated[bool, typer.Option("--all-rows", help="Every row of the results, not a summary.")] = False,
) -> None:
    """Show what runs came to, a line an attack and defense, or write that as CSV, Markdown or LaTeX.

    Exit codes: 0 done, 2 error.
    """
    from cowbird.report.outcomes import list_outcomes  # noqa: PLC0415
    from cowbird.report.result_tables import (  # noqa: PLC0415
        make_outcome_table,
        make_row_table,
        make_wide_table,
        render_report_table,
    )
    from cowbird.report.run_files import read_runs  # noqa: PLC0415

    chosen = choose_format(form, out, runs)
    read = read_runs(runs)
    if all_rows:
        made = make_row_table(read)
    else:
        outcomes = [each for run in read for each in list_outcomes(run, k)]
        if not outcomes:
            raise UserError("No attack was measured in these runs.", "See every row with --all-rows.")
        several = len(read) > 1
        made = make_wide_table(outcomes) if chosen == "csv" else make_outcome_table(outcomes, several, not chosen)
    if chosen:
        write_table(made, chosen, out)
    else:
        out_console.print(render_report_table(made))


def compare(
    one: Annotated[Path, typer.Argument(metavar="A", help="A run: its folder, results.jsonl, or a CSV file of rows.")],
    other: Annotated[Path, typer.Argument(metavar="B", help="Another; the differences are B less A.")],
    metric: MetricsOption = None,
    k: CutoffOption = None,
    form: FormatOption = None,
    out: TableOutOption = None,
) -> None:
    """Compare two runs: what B has more than A, cell by cell and seed by seed, with intervals.

    Exit codes: 0 done, 2 error.
    """
    from cowbird.report.comparison import compare_runs  # noqa: PLC0415
    from cowbird.report.result_tables import make_comparison_table, render_report_table  # noqa: PLC0415
    from cowbird.report.run_files import read_runs  # noqa: PLC0415

    chosen = choose_format(form, out, [one, other])
    first, second = read_runs([one, other])
    found = compare_runs(first, second, metric or (), k)
    made = make_comparison_table(found, first.label, second.label)
    if chosen:
        write_table(made, chosen, out)
        return
    out_console.print(render_report_table(made, keep=("how",)))
    sure = sum(each.differs for each in found.differences)
    remarks = [
        f"{len(found.differences)} measurements are in both, {found.only_one} in A and {found.only_other} in B alone.",
        f"* marks {sure} whose 95 % interval leaves out zero. Of many that did not change, about 5 % get a mark.",
        *found.remarks,
    ]
    for remark in remarks:
        out_console.print(sanitize_line(remark), soft_wrap=True)


def leaderboard(
    runs: RunsArgument,
    by: Annotated[RankedLabel, typer.Option("--by", help="What is ranked.")] = RankedLabel.defense,
    metric: Annotated[
        str, typer.Option("--metric", metavar="NAME", help="The measure; by default what attacks are measured by.")
    ] = "",
    order: Annotated[
        ValueOrder | None, typer.Option("--order", help="Which values come first; by default the better ones.")
    ] = None,
    k: CutoffOption = None,
    form: FormatOption = None,
    out: TableOutOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")] = False,
) -> None:
    """Rank defenses, attacks or victims over many runs. Ranks are ranges: what intervals can't tell apart overlaps.

    Exit codes: 0 done, 2 error.
    """
    from cowbird.report.leaderboard import rank_runs  # noqa: PLC0415
    from cowbird.report.result_tables import (  # noqa: PLC0415
        make_board_table,
        make_flat_board_table,
        render_report_table,
    )
    from cowbird.report.run_files import read_runs  # noqa: PLC0415

    chosen = choose_format(form, out, runs)
    boards = rank_runs(read_runs(runs), by.value, metric, order.value if order else None, k)
    flat = make_flat_board_table(boards, by.value)
    if as_json:
        print_json([dict(zip(flat.header, row, strict=True)) for row in flat.rows])
    elif chosen:
        write_table(flat, chosen, out)
    else:
        for board in boards:
            out_console.print(render_report_table(make_board_table(board, by.value), board.title, ("rank", by.value)))
        note = "Ranks are ranges: entries that share a rank are not told apart by 95 % intervals of their differences."
        out_console.print(Text(note, style="dim"))
