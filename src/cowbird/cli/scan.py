"""`cowbird scan`: a catalogue's titles under a scanner for planted triggers, or under another detector."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cowbird.cli.options import (
    AllowPluginsOption,
    CatalogArgument,
    DeviceOption,
    JsonOption,
    QuietOption,
    TextColumnOption,
)
from cowbird.cli.progress import make_progress
from cowbird.cli.terminal import exit_resumable, out_console, print_json
from cowbird.errors import UserError

if TYPE_CHECKING:
    import torch

    from cowbird.defenses.titles import TitleDefense
    from cowbird.scanning.commands import ScannerScorer
    from cowbird.scanning.detectors import DetectorScorer
    from cowbird.scanning.pool import ScorerFactory
    from cowbird.scanning.summary import ScanSummary

SCAN_EXAMPLES = (
    "cowbird scan items.csv --detector character_rules --out findings.csv",
    "cowbird scan items.csv --scanner scanner --out findings.csv",
    "cowbird scan items.parquet --scanner scanner --out findings.jsonl --only-flagged --json",
)
FITTED_DETECTOR = "p_scanner"
"""The detector that `--scanner` stands for."""


def scan(
    catalog: CatalogArgument,
    out: Annotated[
        Path, typer.Option(metavar="FINDINGS", help="A .csv, .jsonl or .parquet; an older one is replaced.")
    ],
    scanner: Annotated[
        Path | None, typer.Option(metavar="DIR", help="What cowbird fit-scanner made. It, or a detector, is needed.")
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A detector that needs no fit: character_rules, onion or perplexity."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A field of the detector, such as window=5 or llm.layers=4."),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A catalogue of clean titles that sets a detector's threshold.")
    ] = None,
    fpr: Annotated[
        float | None,
        typer.Option(help="Share of clean titles that may be flagged; the scanner's own, or 0.01 with --reference."),
    ] = None,
    text_column: TextColumnOption = "title",
    id_column: Annotated[str | None, typer.Option(help="The column of ids; id or item_id by default.")] = None,
    only_flagged: Annotated[bool, typer.Option("--only-flagged", help="Write flagged rows alone.")] = False,
    chunk: Annotated[int, typer.Option(min=1, help="Rows read, and compared with each other, at a time.")] = 8192,
    workers: Annotated[int, typer.Option(min=1, help="Processes that judge; on a GPU, for many rows, about 8.")] = 1,
    device: DeviceOption = "auto",
    allow_plugins: AllowPluginsOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Scan a catalogue's titles for planted triggers. An interrupted scan goes on by itself.

    The titles are judged by a scanner that was fitted before (--scanner), or by a detector that needs no fit
    (--detector). A detector flags titles by its own rule, or, with --reference, by a threshold with a false-positive
    rate.

    Exit codes: 0 nothing flagged, 1 titles flagged, 2 error, 3 interrupted, or nothing flagged and rows not read.
    """
    from cowbird.scanning.summary import choose_exit_code  # noqa: PLC0415
    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415

    place = pick_device(device)
    if scanner is None:
        wanted = _make_detector(detector, setting or [], device, allow_plugins)
        scorer, make = _open_detector(detector or "", wanted, reference, fpr, text_column)
    else:
        _refuse_detector_options(detector, bool(setting) or reference is not None)
        scorer, make = open_scanner(scanner, place, fpr)
    found = scan_and_show(
        catalog, scorer, make, out, text_column, id_column, only_flagged, chunk, workers, as_json=as_json, quiet=quiet
    )
    raise typer.Exit(choose_exit_code(found))


def _refuse_detector_options(detector: str | None, given: bool) -> None:
    """Refuse what does not go with a fitted scanner."""
    if detector not in (None, FITTED_DETECTOR):
        raise UserError(
            f"--scanner names a fitted scanner, and --detector another way to judge: '{detector}'.",
            "Give one of them.",
        )
    if given:
        raise UserError(
            "A fitted scanner has its fields and its thresholds from its fit.",
            "Leave out --set and --reference; --fpr chooses a threshold.",
        )


def _make_detector(name: str | None, settings: list[str], device: str, allow_plugins: bool) -> "TitleDefense":
    from pydantic import ValidationError  # noqa: PLC0415

    from cowbird.experiments.spec import explain_errors  # noqa: PLC0415
    from cowbird.scanning import detectors  # noqa: PLC0415

    if name is None:
        raise UserError(
            "A scan needs something that judges titles.",
            "Name a detector that needs no fit (--detector character_rules), or make a scanner with cowbird "
            "fit-scanner and name it (--scanner DIR).",
        )
    try:
        return detectors.make_detector(name, settings, device, allow_plugins)
    except ValidationError as error:
        raise UserError(
            f"The detector '{name}' can't be used so: {explain_errors(error)}",
            f"Change or leave out --set {' --set '.join(settings)}.",
        ) from None


def _open_detector(
    name: str, detector: "TitleDefense", reference: Path | None, fpr: float | None, text_column: str
) -> "tuple[DetectorScorer, ScorerFactory]":
    from cowbird.scanning import detectors  # noqa: PLC0415

    scorer = detectors.open_detector(name, detector, reference, fpr, text_column)
    return scorer, partial(detectors.copy_scorer, scorer)


def open_scanner(
    scanner: Path, place: "torch.device", fpr: float | None = None
) -> "tuple[ScannerScorer, ScorerFactory]":
    """Return a fitted scanner that judges titles, and what makes another one like it in another process."""
    from cowbird.defenses.p_scanner.fitted import load_scanner  # noqa: PLC0415
    from cowbird.scanning import commands  # noqa: PLC0415

    scorer = commands.ScannerScorer.of(load_scanner(scanner, place), fpr)
    return scorer, partial(commands.read_scorer, scanner.resolve(), str(place), scorer.fpr)


def scan_and_show(
    catalog: Path,
    scorer: "ScannerScorer | DetectorScorer",
    make: "ScorerFactory",
    out: Path,
    text_column: str = "title",
    id_column: str | None = None,
    only_flagged: bool = False,
    chunk: int = 8192,
    workers: int = 1,
    *,
    as_json: bool = False,
    quiet: bool = False,
) -> "ScanSummary":
    """Scan a catalogue, show how it goes and what came of it."""
    from cowbird.scanning import commands, detectors, highlights, summary  # noqa: PLC0415
    from cowbird.scanning.scan import scan_catalog  # noqa: PLC0415

    with (
        make_progress(quiet=quiet) as shown,
        commands.open_scorer(scorer, make, workers, shown.warn) as judge,
    ):
        task = shown.add_task("rows")
        try:
            found = scan_catalog(
                catalog, out, judge, text_column=text_column, id_column=id_column, only_flagged=only_flagged,
                chunk=chunk,
                warn=shown.warn,
                report=lambda done, total, remark: shown.update(task, done=done, total=total, note=remark),
            )  # fmt: skip
        except KeyboardInterrupt:
            shown.stop()
            exit_resumable("Interrupted; what was scanned is kept.")
    if as_json:
        print_json(_make_record(found))
    elif not quiet:
        if found.worst:
            out_console.print(highlights.render_findings(found.worst, scorer.explain))
        out_console.print(summary.render_summary(found))
        if isinstance(scorer, detectors.DetectorScorer):
            out_console.print(detectors.format_detector_basis(scorer, chunk))
        else:
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
