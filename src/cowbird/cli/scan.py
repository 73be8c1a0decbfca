"""`cowbird scan`: a catalogue's titles under a scanner for planted triggers, or under another detector."""

import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cowbird.cli.engine import use_engine
from cowbird.cli.gate import conclude_scan, take_gate_options
from cowbird.cli.options import (
    AllowPluginsOption,
    CatalogArgument,
    DeviceOption,
    EngineChoice,
    EngineOption,
    JsonOption,
    QuietOption,
    RayAddressOption,
    TaggerOption,
    TextColumnOption,
    choose_tagger,
)
from cowbird.cli.progress import QuietDisplay, show_loading
from cowbird.cli.reading import take_read_options
from cowbird.cli.scan_work import ReadyRequest, ScanRequest, scan_and_show, scan_ready_and_show
from cowbird.cli.terminal import name_command_again
from cowbird.errors import UserError

if TYPE_CHECKING:
    import torch

    from cowbird.defenses.titles import TitleDefense
    from cowbird.scanning.detectors import DetectorScorer
    from cowbird.scanning.fitted_scorer import ScannerScorer
    from cowbird.scanning.pool import ScorerFactory

SCAN_EXAMPLES = (
    "cowbird scan items.csv --out findings.csv",
    "cowbird scan items.csv --reference last_month.csv --allow brands.txt --out findings.csv",
    "cowbird scan items.csv --detector character_rules --out findings.csv",
    "cowbird scan uploads.csv --scanner scanner.calibrated --out findings.csv",
    "cowbird scan items.csv --scanner scanner --out findings.csv",
    "cowbird scan items.parquet --scanner scanner --out findings.jsonl --only-flagged --json",
)
FITTED_DETECTOR = "p_scanner"
"""The detector that `--scanner` stands for."""


@name_command_again
@take_read_options
@take_gate_options
def scan(
    catalog: CatalogArgument,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FINDINGS",
            help="A .csv, .jsonl or .parquet; without an ending, a folder of parts. An older one is replaced.",
        ),
    ],
    scanner: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="What cowbird calibrate or fit-scanner made; the ready scanner by default."),
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
        Path | None,
        typer.Option(metavar="FILE", help="A catalogue of titles of the same source that are taken for clean."),
    ] = None,
    fpr: Annotated[
        float | None,
        typer.Option(help="Share of clean titles that may be flagged; 0.01, or a fitted scanner's own."),
    ] = None,
    review_fpr: Annotated[
        float | None,
        typer.Option(help="Share of clean titles that may be flagged or put up for review; 0.05 (ready scanner)."),
    ] = None,
    allow: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What must not be flagged: a text, one a line; or a table with fragment, title, brand or id.",
        ),
    ] = None,
    explain: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="A column that explains what titles share: brand, category, language."),
    ] = None,
    seller_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of sellers: what all sellers write is usual.")
    ] = None,
    text_column: TextColumnOption = "title",
    id_column: Annotated[str | None, typer.Option(help="The column of ids; id or item_id by default.")] = None,
    only_flagged: Annotated[bool, typer.Option("--only-flagged", help="Write flagged rows alone.")] = False,
    chunk: Annotated[
        int, typer.Option(min=1, help="Rows read at a time; a detector or fitted scanner compares them.")
    ] = 8192,
    workers: Annotated[int, typer.Option(min=1, help="Processes that judge; on a GPU, for many rows, about 8.")] = 1,
    engine: EngineOption = EngineChoice.LOCAL,
    ray_address: RayAddressOption = None,
    tagger: TaggerOption = None,
    device: DeviceOption = "auto",
    allow_plugins: AllowPluginsOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Scan a catalogue's titles for planted triggers. An interrupted scan goes on by itself.

    The scanner that comes with Cowbird needs no fit: it learns from the catalogue what is usual there. Titles from
    before, taken for clean, make it sharper (--reference). Instead a scanner that was fitted before (--scanner), or a
    detector with a rule of its own (--detector), can judge.

    Exit codes: 0 nothing flagged, 1 titles flagged, 2 error, 3 interrupted, or nothing flagged and rows not read (of
    the catalogue or of --reference).
    """
    begun = time.perf_counter()
    with ExitStack() as stack:
        if engine == EngineChoice.LOCAL:  # so that workers load libraries while this process does
            stack.enter_context(use_engine(engine, ray_address, workers, out))
        with show_loading("loading libraries", quiet=quiet):
            from cowbird.defenses.p_scanner.calibration_file import is_calibrated  # noqa: PLC0415
            from cowbird.scanning.allow_list import read_allow_list  # noqa: PLC0415
            from cowbird.scanning.partial_folder import hold_output  # noqa: PLC0415
            from cowbird.scanning.ready_scorer import ReadySettings  # noqa: PLC0415
            from cowbird.scanning.scan import ScanForm, check_scan  # noqa: PLC0415
            from cowbird.scanning.title_columns import ColumnNames  # noqa: PLC0415
            from cowbird.victims.fit_context import pick_device  # noqa: PLC0415

        place, allowed = pick_device(device), read_allow_list(allow)
        columns = ColumnNames(tuple(explain or ()), seller_column)
        form = ScanForm(text_column, id_column, only_flagged, chunk, allowed)
        request = ScanRequest(catalog, out, form, workers, begun, as_json, quiet)
        calibrated = scanner is not None and is_calibrated(scanner)
        if tagger is not None and (scanner is not None or detector is not None):
            raise UserError(
                "--tagger is for the scanner that comes with Cowbird; what --scanner or --detector names has its own.",
                "Leave it out, or calibrate with it: cowbird calibrate CATALOG --tagger small --out FILE.",
            )
        if scanner is not None:
            _refuse_detector_options(detector, bool(setting) or reference is not None)
        check_scan(catalog, out, form, reference)
        stack.enter_context(hold_output(out, QuietDisplay().warn))
        if engine != EngineChoice.LOCAL:
            stack.enter_context(use_engine(engine, ray_address, workers, out, on_gpu=place.type == "cuda"))
        if calibrated or (scanner is None and detector is None):
            _refuse_settings(setting)
            source = "llm" if calibrated else choose_tagger(tagger, place)
            settings = ReadySettings(reference, fpr, review_fpr, text_column, columns)
            ready = ReadyRequest(str(place), source, scanner, settings)
            found = scan_ready_and_show(request, ready)
            raise typer.Exit(conclude_scan(found, catalog, quiet or as_json))
        if columns:
            raise UserError(
                "--explain and --seller-column are for the scanner that needs no fit.",
                "Leave them out, or leave out --scanner and --detector.",
            )
        if review_fpr is not None:
            raise UserError(
                "--review-fpr is for the scanner that needs no fit.",
                "Leave it out, or leave out --scanner and --detector.",
            )
        if scanner is None:
            wanted = _make_detector(detector or "", setting or [], device, allow_plugins)
            scorer, make = _open_detector(detector or "", wanted, reference, fpr, text_column)
        else:
            scorer, make = open_scanner(scanner, place, fpr)
        found = scan_and_show(request, scorer, make)
        raise typer.Exit(conclude_scan(found, catalog, quiet or as_json))


def _refuse_detector_options(detector: str | None, given: bool) -> None:
    """Refuse what does not go with a fitted scanner."""
    if detector not in (None, FITTED_DETECTOR):
        raise UserError(
            f"--scanner names a scanner, and --detector another way to judge: '{detector}'.",
            "Give one of them.",
        )
    if given:
        raise UserError(
            "A scanner that --scanner names has its fields and its thresholds from its own fit or calibration.",
            "Leave out --set and --reference; --fpr chooses a threshold.",
        )


def _refuse_settings(setting: list[str] | None) -> None:
    """Refuse fields of a detector where none is named."""
    if setting:
        raise UserError(
            "--set changes a field of a detector, and none is named.", "Name it (--detector), or leave it out."
        )


def _make_detector(name: str, settings: list[str], device: str, allow_plugins: bool) -> "TitleDefense":
    from pydantic import ValidationError  # noqa: PLC0415

    from cowbird.experiments.field_errors import explain_errors  # noqa: PLC0415
    from cowbird.scanning import detectors  # noqa: PLC0415

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
    from cowbird.defenses.p_scanner.rounds.fitted_scanner import load_fitted_scanner  # noqa: PLC0415
    from cowbird.scanning import fitted_scorer  # noqa: PLC0415

    scorer = fitted_scorer.ScannerScorer.of(load_fitted_scanner(scanner, place), fpr)
    return scorer, partial(fitted_scorer.read_scorer, scanner.resolve(), str(place), scorer.fpr)
