"""A scan that `cowbird scan` and `cowbird demo` ask for: done, shown while it goes on, and told at the end."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cowbird.cli.progress import ProgressDisplay, make_progress
from cowbird.cli.terminal import exit_resumable, out_console, print_json
from cowbird.errors import OutageError, UserError

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

    from cowbird.defenses.p_scanner.small_tagger import TaggerSource
    from cowbird.scanning.detectors import DetectorScorer
    from cowbird.scanning.first_pass import FirstPass
    from cowbird.scanning.fitted_scorer import ScannerScorer
    from cowbird.scanning.pool import ScorerFactory
    from cowbird.scanning.ready_scorer import ReadyScorer, ReadySettings
    from cowbird.scanning.scan import ScanForm
    from cowbird.scanning.summary import ScanSummary
    from cowbird.scanning.verdicts import CatalogScorer


@dataclass(frozen=True)
class ScanRequest:
    """What is scanned, where its findings go, and what is shown."""

    catalog: Path
    """The catalogue."""
    out: Path
    """A file of findings, or a folder of parts."""
    form: "ScanForm"
    """What of the catalogue is judged, and what is written."""
    workers: int = 1
    """Processes that judge."""
    begun: float | None = None
    """When the command began, by `time.perf_counter`."""
    as_json: bool = False
    """Whether a summary for programs is printed."""
    quiet: bool = False
    """Whether nothing is shown but warnings."""


@dataclass(frozen=True)
class ReadyRequest:
    """How the scanner judges that needs no fit."""

    place: str
    """Where the tagger runs."""
    tagger: "TaggerSource" = "llm"
    """Which tagger reads."""
    calibration: Path | None = None
    """What `cowbird calibrate` wrote; then what is usual comes from there, and the tagger is its own."""
    settings: "ReadySettings | None" = None
    """What else is asked; `None` takes the defaults."""


def scan_ready_and_show(request: ScanRequest, ready: ReadyRequest) -> "ScanSummary":
    """Learn what is usual in a catalogue, scan it with the scanner that needs no fit, and show what came of it."""
    from cowbird.scanning import ready_scorer  # noqa: PLC0415
    from cowbird.scanning.first_pass import FirstPass  # noqa: PLC0415
    from cowbird.scanning.sharing import find_shared  # noqa: PLC0415

    shared, kept = find_shared(), FirstPass(request.out)
    if shared is not None:
        from cowbird.scanning.shared_first_pass import SharedFirstPass  # noqa: PLC0415

        kept = SharedFirstPass(request.out, shared)
    asked = ready.settings or ready_scorer.ReadySettings()
    ready_scorer.check_rates(*ready_scorer.choose_rates(asked.fpr, asked.review_fpr))
    with make_progress(quiet=request.quiet) as shown:
        try:
            scorer = _learn_catalog(request, ready, kept, shown)
        except KeyboardInterrupt:
            shown.stop()
            exit_resumable("Interrupted before a title was judged; what was read is kept.")
        except UserError as error:
            if not isinstance(error, OutageError):  # the same command would end alike
                kept.clear()
            raise
    found = scan_and_show(request, scorer, scorer.make_factory(), kept)
    kept.clear()
    return found


def _learn_catalog(
    request: ScanRequest, ready: ReadyRequest, kept: "FirstPass", shown: ProgressDisplay
) -> "ReadyScorer":
    """Make the first pass of a ready scan, and show how it goes."""
    from cowbird.defenses.p_scanner.calibrated import load_calibrated_scanner  # noqa: PLC0415
    from cowbird.defenses.p_scanner.ready import ReadyScanner  # noqa: PLC0415
    from cowbird.scanning import ready_scorer  # noqa: PLC0415

    waiting = [shown.add_task("loading the scanner")]
    shown.update(waiting[0])
    rows, titles = shown.add_task("rows read"), shown.add_task("titles learned")

    def report_rows(done: int, total: int, remark: str) -> None:
        if waiting:
            shown.remove_task(waiting.pop())
        shown.update(rows, done=done, total=total, note=remark)

    def report_titles(done: int, total: int, remark: str) -> None:
        shown.update(titles, done=done, total=total, note=remark)

    if ready.calibration is None:
        scanner = ReadyScanner.load(ready.place, ready.tagger)
    else:
        scanner = load_calibrated_scanner(ready.calibration, ready.place)
    return ready_scorer.open_ready_scanner(
        scanner, request.catalog, ready.place, ready.settings, kept, report_rows, report_titles
    )


def scan_and_show(
    request: ScanRequest,
    scorer: "ScannerScorer | DetectorScorer | ReadyScorer",
    make: "ScorerFactory",
    kept: "FirstPass | None" = None,
) -> "ScanSummary":
    """Scan a catalogue, show how it goes and what came of it.

    Args:
        request: What is scanned.
        scorer: What judges titles.
        make: Makes another one like it in a process.
        kept: The first pass in which it learned the catalogue, if it did.
    """
    with make_progress(quiet=request.quiet) as shown:
        try:
            found = _scan(request, scorer, make, kept, shown)
        except KeyboardInterrupt:
            shown.stop()
            exit_resumable("Interrupted; what was scanned is kept.")
    found = replace(found, reference_unread=scorer.reference_unread)
    _show_found(request, scorer, found)
    return found


def _scan(
    request: ScanRequest,
    scorer: "CatalogScorer",
    make: "ScorerFactory",
    kept: "FirstPass | None",
    shown: ProgressDisplay,
) -> "ScanSummary":
    """Scan a catalogue by this process, by several, or by workers that are shared."""
    from cowbird.scanning.scan import scan_catalog  # noqa: PLC0415
    from cowbird.scanning.scorers import open_scorer  # noqa: PLC0415
    from cowbird.scanning.sharing import find_shared  # noqa: PLC0415

    catalog, out, shared = request.catalog, request.out, find_shared()
    seal = None if kept is None else kept.seals.get(catalog)
    with ExitStack() as stack:
        if shared is None:
            many = 1 if scorer.complete else request.workers
            judge = stack.enter_context(open_scorer(scorer, make, many, shown.warn))
            start = partial(scan_catalog, catalog, out, judge)
        else:
            from cowbird.scanning.scan_parts import scan_in_parts  # noqa: PLC0415

            rows = () if kept is None else kept.file_rows.get(catalog, ())
            start = partial(scan_in_parts, catalog, out, scorer, make, shared, file_rows=rows)
        task = shown.add_task("rows")
        return start(
            form=request.form, begun=request.begun, warn=shown.warn, seal=seal,
            report=lambda done, total, remark: shown.update(task, done=done, total=total, note=remark),
        )  # fmt: skip


def _show_found(
    request: ScanRequest, scorer: "ScannerScorer | DetectorScorer | ReadyScorer", found: "ScanSummary"
) -> None:
    """Show what a scan came to."""
    from cowbird.scanning import highlights, summary  # noqa: PLC0415

    if request.as_json:
        print_json(_make_record(found) | _describe_basis(scorer))
    elif not request.quiet:
        if found.worst:
            out_console.print(highlights.render_findings(found.worst))
        if found.doubtful:
            out_console.print(highlights.render_findings(found.doubtful, "for review, the most suspicious first"))
        out_console.print(summary.render_summary(found, _describe_reading(scorer)))
        out_console.print(_format_basis(scorer, request.form.chunk, found))


def _describe_reading(scorer: "ScannerScorer | DetectorScorer | ReadyScorer") -> str:
    """Say what read the titles of a ready scan; nothing of other scans."""
    from cowbird.scanning import ready_scorer  # noqa: PLC0415

    return ready_scorer.describe_reading(scorer.tagger) if isinstance(scorer, ready_scorer.ReadyScorer) else ""


def _format_basis(
    scorer: "ScannerScorer | DetectorScorer | ReadyScorer", chunk: int, found: "ScanSummary"
) -> "Group | Text":
    """Return what a scan's verdicts rest on."""
    from cowbird.scanning import ready_scorer  # noqa: PLC0415

    if isinstance(scorer, ready_scorer.ReadyScorer):
        return ready_scorer.format_ready_basis(scorer, found.judged)
    from cowbird.scanning import detectors, fitted_scorer  # noqa: PLC0415

    if isinstance(scorer, detectors.DetectorScorer):
        return detectors.format_detector_basis(scorer, chunk)
    return fitted_scorer.format_scan_basis(scorer, chunk, found)


def _describe_basis(scorer: "ScannerScorer | DetectorScorer | ReadyScorer") -> dict[str, Any]:
    """Return what the verdicts of the ready scanner rest on, as plain JSON values; nothing for others."""
    from cowbird.scanning import ready_scorer  # noqa: PLC0415

    return {"basis": ready_scorer.describe_basis(scorer)} if isinstance(scorer, ready_scorer.ReadyScorer) else {}


def _make_record(found: "ScanSummary") -> dict[str, Any]:
    """Return what a scan came to, as plain JSON values."""
    from cowbird.scanning.unread import describe_unread  # noqa: PLC0415

    return {
        "findings": str(found.out),
        "rows": found.rows,
        "judged": found.judged,
        "flagged": found.flagged,
        "review": found.review,
        "allowed": found.allowed,
        "without_title": found.empty,
        "unread": describe_unread(found.unread),
        "unread_file": None if found.skipped_file is None else str(found.skipped_file),
        "reference_unread": describe_unread(found.reference_unread),
        "fragments": [
            {"text": each.text, "count": each.count, "review": each.review, "examples": list(each.examples)}
            for each in found.fragments
        ],
        "ids": found.ids,
        "notes": list(found.notes),
        "seconds": found.seconds,
        "titles_per_second": found.rate,
    }
