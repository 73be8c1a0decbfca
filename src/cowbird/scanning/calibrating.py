"""Calibrating the ready scanner on a catalogue of clean titles, and what is said of it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Group
from rich.text import Text

from cowbird.defenses.p_scanner.baseline import check_baseline
from cowbird.defenses.p_scanner.calibrated import CalibratedScanner
from cowbird.defenses.p_scanner.calibration_file import CalibrationRecord, read_calibration
from cowbird.defenses.p_scanner.inventory import Inventory
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.small_tagger import TaggerSource
from cowbird.errors import UserError
from cowbird.faults import explain_write_errors
from cowbird.scanning.first_pass import NOTHING_KEPT
from cowbird.scanning.ready_scorer import check_rates, choose_rates, describe_spread, is_coarse
from cowbird.scanning.unread import UnreadRows, count_unread, describe_unread, format_unread
from cowbird.text import count_things
from cowbird.victims.fit_context import ProgressCallback, report_nothing


class Calibrated(NamedTuple):
    """What was calibrated."""

    path: Path
    """The file."""
    sha256: str
    """Its hash."""
    record: CalibrationRecord
    """What it says."""
    inventory: Inventory
    """What is usual, and how clean titles score."""
    complete: bool
    """Whether all titles of the catalogue were used, and not a sample."""
    unread: tuple[UnreadRows, ...] = ()
    """Rows of the catalogue that could not be read, of which nothing was learned."""


class CleanTitles(NamedTuple):
    """Titles that are taken for clean, all different; of very many a sample."""

    titles: list[str]
    """The titles."""
    complete: bool
    """Whether these are all titles of the catalogue."""
    unread: tuple[UnreadRows, ...]
    """Rows of the catalogue that could not be read."""


def read_clean_titles(
    catalog: Path,
    text_column: str,
    rates: tuple[float, float],
    report: ProgressCallback = report_nothing,
    advice: str = "Give a catalogue with more titles.",
) -> CleanTitles:
    """Read what the ready scanner is calibrated on.

    Args:
        catalog: The catalogue; see `cowbird.scanning.reading.open_catalog`.
        text_column: The column of titles.
        rates: Share of clean titles that may be flagged; share that may be flagged or put up for review.
        report: Told of rows read and rows in all.
        advice: What to do where all rows were read and there are too few titles.

    Raises:
        UserError: If the file can't be read, or there are too few titles.
    """
    sample = NOTHING_KEPT.sample(catalog, text_column, report)
    titles, unread = sample.list_titles(), NOTHING_KEPT.unread[catalog]
    if unread:
        rows = count_things(count_unread(unread), "row")
        advice = f"{rows} can't be read, such as {unread[0]}: see how the file is read (cowbird peek), and mend it."
    check_baseline(0, len(titles), *rates, advice)
    return CleanTitles(titles, sample.complete, unread)


def calibrate_catalog(
    catalog: Path,
    out: Path,
    place: str,
    fpr: float | None = None,
    review_fpr: float | None = None,
    text_column: str = "title",
    report_rows: ProgressCallback = report_nothing,
    report_titles: ProgressCallback = report_nothing,
    scanner: ReadyScanner | None = None,
    tagger: TaggerSource = "llm",
) -> Calibrated:
    """Calibrate the ready scanner on a catalogue, and write the file.

    Args:
        catalog: The catalogue; see `cowbird.scanning.reading.open_catalog`.
        out: The file; an older calibration is replaced, and nothing else is.
        place: Where the tagger runs.
        fpr: Share of clean titles that may be flagged; `None` takes the default.
        review_fpr: Share that may be flagged or put up for review; likewise.
        text_column: The column of titles.
        report_rows: Told of rows read and rows in all.
        report_titles: Told of titles that the tagger has read and all of them.
        scanner: The ready scanner, if it is loaded already.
        tagger: Which tagger it has; see `ReadyScanner.load`.

    Raises:
        UserError: If a file can't be read or written, a rate is no share, or there are too few titles.
    """
    rate, second = choose_rates(fpr, review_fpr)
    check_rates(rate, second)
    _check_out(out)
    read = read_clean_titles(catalog, text_column, (rate, second), report_rows)
    scanner = ReadyScanner.load(place, tagger) if scanner is None else scanner
    made = CalibratedScanner.calibrate(scanner, read.titles, rate, second, report_titles)
    with explain_write_errors(out):
        digest = made.save(out)
    return Calibrated(out, digest, made.record, made.inventory, read.complete, read.unread)


def _check_out(out: Path) -> None:
    """Check before minutes of work that what would be replaced is a calibration, if anything."""
    if not out.exists():
        return
    try:
        read_calibration(out)
    except UserError:
        raise UserError(
            f"'{out}' is there and is no calibrated scanner, so it is not replaced.", "Choose a new name: --out FILE."
        ) from None


def format_calibrated(made: Calibrated, tuned_on: int = 0) -> Group:
    """Return what is shown of a calibration.

    Args:
        made: The calibration.
        tuned_on: Titles of the catalogue that its tagger was tuned on instead.
    """
    record = made.record
    rows = "the rows that could be read" if made.unread else "the catalogue"
    share = "half of the" if tuned_on else "all"
    used = f"{share} different titles of {rows}" if made.complete else f"a sample of {rows}"
    parts = [
        Text(f"Calibrated on {record.titles:,} titles that are taken for clean ({used})."),
        Text(f"SHA-256 {made.sha256}."),
    ]
    if shown := describe_shown(record):
        parts.append(Text(shown))
    for name, rate in (("flags", record.fpr), ("review", record.review_fpr)):
        bar = made.inventory.set_threshold(rate, 1)
        parts.append(Text(f"Threshold for {name}, at a rate of {rate:g}: {bar:.2f} for a title that is judged alone."))
    if len(sizes := sorted(made.inventory.scores)[1:]):
        bars = ", ".join(f"{made.inventory.set_threshold(record.fpr, size):.2f} among {size:,}" for size in sizes)
        parts.append(Text(f"Titles that are scanned together share fragments. Their thresholds for flags: {bars}."))
        spread = made.inventory.tell_spread(record.fpr, record.titles)
        if spread is not None and is_coarse(record.fpr, spread):
            parts.append(Text(f"Their rate is {record.fpr:g} on average. {describe_spread(spread)}", style="yellow"))
    least = 1 / (record.titles + 1)
    if least > record.fpr:
        parts.append(
            Text(f"So few titles can't tell {record.fpr:g} from {least:.2g}: calibrate on more.", style="yellow")
        )
    parts.append(
        Text(
            "A clean title of the same source is flagged at about that rate, if it is like these. Nothing here says "
            "that the titles of the calibration are clean."
        )
    )
    return Group(*parts, *format_unread(made.unread, "Not learned from, because they can't be read"))


def describe_shown(record: CalibrationRecord) -> str:
    """Say which titles a calibration's file holds; nothing if it holds none."""
    many = len(record.shown) + len(record.shown_to_those)
    if not many:
        return ""
    return (
        f"The file holds {many} of these titles, as they are written: the language model reads them before it judges "
        "others. Who may not see these titles must not get the file; a calibration with --tagger small holds none."
    )


def describe_calibrated(made: Calibrated) -> dict[str, object]:
    """Return what was calibrated, as plain JSON values."""
    record = made.record
    bars = {size: made.inventory.set_threshold(record.fpr, size) for size in sorted(made.inventory.scores)}
    spread = made.inventory.tell_spread(record.fpr, record.titles)
    return {
        "scanner": str(made.path),
        "sha256": made.sha256,
        "titles": record.titles,
        "titles_in_file": len(record.shown) + len(record.shown_to_those),
        "sample_complete": made.complete,
        "unread": describe_unread(made.unread),
        "fpr": record.fpr,
        "review_fpr": record.review_fpr,
        "thresholds": {str(size): bar if np.isfinite(bar) else None for size, bar in bars.items()},
        "batches_flagged": None if spread is None else [round(share, 5) for share in spread],
    }
