"""`cowbird scan`: a catalogue's titles under a scanner for planted triggers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cowbird.cli.options import CatalogArgument, DeviceOption, JsonOption, QuietOption, TextColumnOption
from cowbird.cli.progress import make_progress
from cowbird.cli.terminal import exit_resumable, out_console, print_json

if TYPE_CHECKING:
    import torch

    from cowbird.scanning.summary import ScanSummary

EXAMPLES = (
    "cowbird scan items.csv --scanner scanner --out findings.csv",
    "cowbird scan items.parquet --scanner scanner --out findings.jsonl --only-flagged --json",
)


def scan(
    catalog: CatalogArgument,
    scanner: Annotated[Path, typer.Option(metavar="DIR", help="What cowbird fit-scanner made.")],
    out: Annotated[
        Path, typer.Option(metavar="FINDINGS", help="A .csv, .jsonl or .parquet; an older one is replaced.")
    ],
    fpr: Annotated[
        float | None, typer.Option(help="Share of clean titles that may be flagged; the scanner's own by default.")
    ] = None,
    text_column: TextColumnOption = "title",
    id_column: Annotated[str | None, typer.Option(help="The column of ids; id or item_id by default.")] = None,
    only_flagged: Annotated[bool, typer.Option("--only-flagged", help="Write flagged rows alone.")] = False,
    chunk: Annotated[int, typer.Option(min=1, help="Rows read, and compared with each other, at a time.")] = 8192,
    workers: Annotated[int, typer.Option(min=1, help="Processes that judge; on a GPU, for many rows, about 8.")] = 1,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Scan a catalogue's titles for planted triggers. An interrupted scan goes on by itself.

    Exit codes: 0 nothing flagged, 1 titles flagged, 2 error, 3 interrupted, or nothing flagged and rows not read.
    """
    from cowbird.scanning.summary import choose_exit_code  # noqa: PLC0415
    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415

    place = pick_device(device)
    found = scan_and_show(
        catalog, scanner, out, place, fpr, text_column, id_column, only_flagged, chunk, workers, as_json, quiet
    )
    raise typer.Exit(choose_exit_code(found))


def scan_and_show(
    catalog: Path,
    scanner: Path,
    out: Path,
    place: "torch.device",
    fpr: float | None = None,
    text_column: str = "title",
    id_column: str | None = None,
    only_flagged: bool = False,
    chunk: int = 8192,
    workers: int = 1,
    as_json: bool = False,
    quiet: bool = False,
) -> "ScanSummary":
    """Scan a catalogue, show how it goes and what came of it."""
    from cowbird.defenses.p_scanner.fitted import load_scanner  # noqa: PLC0415
    from cowbird.scanning import commands, summary  # noqa: PLC0415
    from cowbird.scanning.scan import scan_catalog  # noqa: PLC0415

    scorer = commands.ScannerScorer.of(load_scanner(scanner, place), fpr)
    with commands.open_scorer(scorer, scanner, place, workers) as judge, make_progress(quiet=quiet) as shown:
        task = shown.add_task("rows")
        try:
            found = scan_catalog(
                catalog, out, judge, text_column=text_column, id_column=id_column, only_flagged=only_flagged,
                chunk=chunk,
                report=lambda done, total, remark: shown.update(task, phase=remark, done=done, total=total),
            )  # fmt: skip
        except KeyboardInterrupt:
            shown.stop()
            exit_resumable("Interrupted; what was scanned is kept.")
    if as_json:
        print_json(_make_record(found))
    elif not quiet:
        out_console.print(summary.render_summary(found))
        out_console.print(commands.format_scan_basis(scorer, chunk, found))
    return found


def _make_record(found: "ScanSummary") -> dict[str, Any]:
    """Return what a scan came to, as plain JSON values."""
    return {
        "findings": str(found.out),
        "rows": found.rows,
        "judged": found.judged,
        "flagged": found.flagged,
        "without_title": found.empty,
        "unread": [{"reason": each.reason, "count": each.count, "rows": list(each.rows)} for each in found.unread],
        "unread_file": None if found.skipped_file is None else str(found.skipped_file),
        "fragments": [
            {"text": each.text, "count": each.count, "examples": list(each.examples)} for each in found.fragments
        ],
        "seconds": found.seconds,
    }
