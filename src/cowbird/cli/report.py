"""`cowbird report`: one page about runs, scans and inspections, to open in a browser or to send."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from cowbird.cli.table import CutoffOption, RunsArgument
from cowbird.cli.terminal import out_console, sanitize_line
from cowbird.errors import UserError

REPORT_EXAMPLES = (
    "cowbird report runs/demo --out report.html",
    "cowbird report runs/a runs/b --findings findings.csv --out report.html",
)


def report(
    runs: RunsArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.html", help="The page; an older one is replaced.")] = Path(
        "report.html"
    ),
    findings: Annotated[
        list[Path] | None, typer.Option("--findings", metavar="FILE", help="What a scan found; repeat for more.")
    ] = None,
    inspection: Annotated[
        list[Path] | None,
        typer.Option("--inspection", metavar="FILE", help="What `cowbird inspect` found, as JSON; repeat for more."),
    ] = None,
    k: CutoffOption = None,
) -> None:
    """Write one page about runs: the verdict, numbers with intervals, charts, titles, and how it was made.

    The page is one file that loads nothing. Exit codes: 0 done, 2 error.
    """
    from cowbird.report.page import write_report  # noqa: PLC0415

    if out.is_dir():
        raise UserError(f"'{out}' is a folder.", "Name a file, such as report.html.")
    inputs = [*runs, *(findings or ()), *(inspection or ())]
    if any(out.exists() and path.exists() and out.samefile(path) for path in inputs):
        raise UserError(f"'{out}' is one of the files that the report is about.", "Choose another file with --out.")
    rows = write_report(runs, out, findings or (), inspection or (), k)
    size = out.stat().st_size / 1e6
    out_console.print(Text("Report: ") + sanitize_line(f"{out} ({rows:,} rows, {size:.1f} MB)"), soft_wrap=True)
