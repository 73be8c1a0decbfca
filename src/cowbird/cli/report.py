"""`cowbird report`: one page about runs, scans and inspections, to open in a browser or to send."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from cowbird.cli.table import CutoffOption, RunsArgument, list_run_files
from cowbird.cli.terminal import out_console, sanitize_line
from cowbird.errors import UserError
from cowbird.outputs import check_outputs

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
    check_outputs({"--out": out}, {"RUN": list_run_files(runs), "--findings": findings, "--inspection": inspection})
    rows = write_report(runs, out, findings or (), inspection or (), k)
    size = out.stat().st_size
    shown = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
    out_console.print(Text("Report: ") + sanitize_line(f"{out} ({rows:,} rows, {shown})"), soft_wrap=True)
