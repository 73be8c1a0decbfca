"""A catalogue under the scanner that needs no fit: one pass that learns what is usual, one that judges.

The first pass reads all rows and keeps a sample of the titles in bounded memory. It makes the baseline: what is usual,
what recurs, and the thresholds. The second pass is an ordinary scan. A verdict depends on the title and the baseline
alone, so neither the size of chunks, nor an interruption, nor the number of processes changes the findings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Group
from rich.text import Text

from cowbird.defenses.p_scanner.baseline import (
    DEFAULT_FPR,
    DEFAULT_REVIEW_FPR,
    MAX_TITLES_SAMPLED,
    Baseline,
    check_baseline,
    count_titles_to_flag,
)
from cowbird.defenses.p_scanner.calibrated import CalibratedScanner
from cowbird.defenses.p_scanner.catalog_judge import CatalogJudge, TitleVerdict, look_at_whole, read_catalog
from cowbird.defenses.p_scanner.inventory import MIN_BATCH_TITLES
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.reference_role import choose_role, count_reference_needed
from cowbird.defenses.p_scanner.small_tagger import TaggerSource, skip_logits
from cowbird.errors import UserError
from cowbird.notices import collect_notices
from cowbird.scanning.first_pass import NOTHING_KEPT, FirstPass
from cowbird.scanning.pool import ScorerFactory
from cowbird.scanning.title_columns import NO_COLUMNS, ColumnNames, list_other_columns, read_catalog_columns
from cowbird.scanning.unread import UnreadRows
from cowbird.scanning.verdicts import ExplainedSuspicion, shorten_score
from cowbird.text import escape_terminal
from cowbird.victims.fit_context import ProgressCallback, report_nothing

UNSEEN_CATALOGS_NOTE = (
    "Of fresh titles of 19 catalogues and lists that it had never seen, 0.8 to 2.6 % were flagged where 1 % was asked "
    "for; of made-up products that share brands up to 13 %."
)
"""What is known of false alarms at `MEASURED_FPR`, from docs/measured/ready_scanner_clean.md; printed beside what is
expected there."""
CASCADE_ALONE_NOTE = (
    "Without a reference, titles that follow one template, as a shop's often do, hide what is planted: the cascade "
    "flagged 65 to 81 % of the planted ones, of a code such as 5v 26 to 47 %, and in one such template 12 % of the "
    "clean ones. With {reference} it flagged all of the planted ones."
)
"""What is known of the cascade without a reference, from docs/measured/ready_scanner_sellers.md (catalogues from a
template, shares of 2, 5 and 20 %)."""
MEASURED_FPR = 0.01
COARSE_BELOW, COARSE_ABOVE = 0.7, 1.25
"""Times the rate asked for; where batches of clean titles lie below or above, a scan says so."""
MAX_COLUMNS_NAMED = 6
"""Columns of a catalogue that are named where they could be asked about."""


@dataclass(frozen=True, eq=False)
class ReadyScorer:
    """The ready scanner with the baseline of a catalogue: what `scan_catalog` asks."""

    judge: CatalogJudge
    """Judges titles of the catalogue."""
    label: str
    """Name of the scanner and hash of its weights."""
    place: str
    """Where the tagger runs."""
    complete: bool
    """Whether the sample holds all titles of the catalogue."""
    tagger: TaggerSource = "llm"
    """Which tagger the scanner has."""
    unused: tuple[str, ...] = ()
    """Other columns of the catalogue, if none of them was asked about."""
    reference_unread: tuple[UnreadRows, ...] = ()
    """Rows of the reference that could not be read."""

    @property
    def key(self) -> str:
        """What the scanner and the baseline are."""
        return f"{self.label} on {self.place}, {self.judge.baseline.key}"

    def scan(self, titles: Sequence[str]) -> ExplainedSuspicion:
        """Judge titles; see `Scorer.scan`."""
        found = self.judge.judge(titles)
        bar = self.judge.baseline.thresholds[0]
        return ExplainedSuspicion(
            found.score, found.start, found.end, found.flagged, found.review, tuple(found.reason), found.sure,
            bar if np.isfinite(bar) else None, self.label,
        )  # fmt: skip

    def make_factory(self) -> ScorerFactory:
        """Return what makes a copy in another process; nothing of the sample is read again there."""
        return partial(
            copy_ready_scorer, self.judge.baseline, dict(self.judge.known), self.label, self.place, self.complete,
            self.tagger,
        )  # fmt: skip


def copy_ready_scorer(
    baseline: Baseline,
    known: dict[str, TitleVerdict],
    label: str,
    place: str,
    complete: bool,
    tagger: TaggerSource = "llm",
) -> ReadyScorer:
    """Return a scorer in a process with others beside it, so it takes one thread. Weights are read when first asked."""
    torch.set_num_threads(1)
    judge = CatalogJudge(cache(partial(ReadyScanner.load, place, tagger)), baseline, known)
    return ReadyScorer(judge, label, place, complete, tagger)


@dataclass(frozen=True)
class ReadySettings:
    """What a ready scan is asked to do."""

    reference: Path | None = None
    """A catalogue of titles of the same source that are taken for clean; a calibration has its own."""
    fpr: float | None = None
    """Share of clean titles that may be flagged; `None` takes `DEFAULT_FPR`, or the calibration's."""
    review_fpr: float | None = None
    """Share that may be flagged or put up for review; `None` takes `DEFAULT_REVIEW_FPR` or the calibration's, or `fpr`
    if that is more."""
    text_column: str = "title"
    """The column of titles in all catalogues."""
    columns: ColumnNames = NO_COLUMNS
    """Other columns of the catalogue that explain what titles share."""


def open_ready_scanner(
    scanner: ReadyScanner | CalibratedScanner,
    catalog: Path,
    place: str,
    settings: ReadySettings | None = None,
    kept: FirstPass = NOTHING_KEPT,
    report_rows: ProgressCallback = report_nothing,
    report_titles: ProgressCallback = report_nothing,
) -> ReadyScorer:
    """Make the first pass: learn what is usual in a catalogue; beside a calibration, what recurs and is new there.

    Args:
        scanner: The scanner.
        catalog: The catalogue, beside a calibration of one title or more; see
            `cowbird.scanning.reading.open_catalog`.
        place: Where the tagger runs, for other processes.
        settings: What is asked; `None` takes the defaults.
        kept: Where the pass is kept while it goes on.
        report_rows: Told of rows read and rows in all.
        report_titles: Told of titles that the tagger has read and all of them.

    Raises:
        UserError: If a file can't be read, a rate is no share, or there are too few titles.
    """
    asked = settings or ReadySettings()
    calibrated = scanner if isinstance(scanner, CalibratedScanner) else None
    reader = scanner.scanner if isinstance(scanner, CalibratedScanner) else scanner
    rates = choose_rates(asked.fpr, asked.review_fpr, calibrated)
    check_rates(*rates)
    reference, text_column = asked.reference, asked.text_column
    before = [] if reference is None else kept.sample(reference, text_column, report_rows).list_titles()
    with collect_notices():  # the scan reads it once more, and tells how
        sample = kept.sample(catalog, text_column, report_rows)
    titles = sample.list_titles()
    if calibrated is None:
        check_baseline(len(titles), len(before), *rates)
    more = read_catalog_columns(catalog, text_column, asked.columns, frozenset(titles))
    if calibrated is None:
        marks, context = read_catalog(reader, titles, before, read=kept.read, columns=more, report=report_titles)
    else:
        context = calibrated.inventory.context
        marks = kept.read(reader, titles, report_titles, context)
    count, read = partial(kept.count, catalog, text_column, report=report_rows), partial(kept.read, context=context)
    with collect_notices():
        whole = look_at_whole(reader, sample, skip_logits(marks, len(before)), count, read)
    if calibrated is None:
        judge = CatalogJudge.learn(
            reader, titles, before, *rates, columns=more, marks=marks, whole=whole, context=context
        )
    else:
        judge = calibrated.make_judge(titles, *rates, columns=more, marks=marks, whole=whole)
    unused = () if asked.columns else list_other_columns(catalog, text_column)
    label = f"{'ready' if calibrated is None else 'calibrated'} {scanner.key[:12]}"
    unread = () if reference is None else kept.unread[reference]
    return ReadyScorer(judge, label, place, sample.complete, reader.tagger_source, unused, unread)


def choose_rates(
    fpr: float | None, review_fpr: float | None, calibrated: CalibratedScanner | None = None
) -> tuple[float, float]:
    """Return the rates for flags and for review, with defaults or those of a calibration; see `ReadySettings`."""
    known = (DEFAULT_FPR, DEFAULT_REVIEW_FPR)
    if calibrated is not None:
        known = (calibrated.record.fpr, calibrated.record.review_fpr)
    rate = known[0] if fpr is None else fpr
    return rate, max(known[1], rate) if review_fpr is None else review_fpr


def check_rates(fpr: float, review_fpr: float) -> None:
    """Look before a catalogue is read whether rates can be used.

    Raises:
        UserError: If one is no share, or the second is below the first.
    """
    check_baseline(MAX_TITLES_SAMPLED, 0, fpr, review_fpr)
    if review_fpr < fpr:
        raise UserError(
            f"--review-fpr counts flagged titles too, so {review_fpr:g} can't be below --fpr {fpr:g}.",
            "Raise --review-fpr, or lower --fpr.",
        )


def format_ready_basis(scorer: ReadyScorer, judged: int | None = None) -> Group:
    """Return what a scan's verdicts rest on, and what they do not promise.

    Args:
        scorer: The scorer.
        judged: Titles that were judged; `None` for those of the sample.
    """
    baseline = scorer.judge.baseline
    many = baseline.sampled if judged is None else judged
    columns = [Text(_advise_columns(scorer.unused))] if scorer.unused else []
    shown = [Text(_describe_context(baseline, scorer.tagger))] if baseline.context else []
    if scorer.label.startswith("calibrated "):
        return Group(Text(_describe_calibration(baseline)), *shown, *columns, Text(_describe_threshold(baseline, many)))
    said = f"No fit: what is usual comes from {baseline.sampled:,} different titles of this catalogue"
    said += "." if scorer.complete else ", a sample."
    if baseline.counted:
        said += f" {baseline.counted:,} phrases that look suspicious there were counted in all rows."
    if baseline.reference:
        said += f" A reference of {baseline.reference:,} titles, taken for clean, says what is new"
        said += f". {_describe_own_thresholds(baseline)}" if baseline.own_thresholds else " and sets thresholds."
        parts = [Text(said)]
    elif baseline.too_small:
        parts = [Text(said), Text(_describe_small_reference(baseline), style="yellow")]
    else:
        parts = [
            Text(said),
            Text(
                "No reference was given: a trigger in many titles is found only by what these titles share. With "
                "titles from before, taken for clean, what is new is seen: --reference FILE."
            ),
        ]
    if scorer.tagger == "cascade" and not baseline.reference:
        lacking = "a reference as large as the catalogue" if baseline.too_small else "--reference FILE"
        parts.append(Text(CASCADE_ALONE_NOTE.format(reference=lacking)))
    parts += [*shown, *columns]
    said = _describe_threshold(baseline, many)
    if baseline.flaggable == 0:
        parts += [Text(said), Text(_describe_few_titles(baseline), style="yellow")]
    else:
        known = baseline.promised is not None and baseline.fprs[0] == MEASURED_FPR
        parts.append(Text(f"{said} {UNSEEN_CATALOGS_NOTE}" if known else said))
    return Group(*parts)


def _advise_columns(unused: Sequence[str]) -> str:
    """Say what other columns of a catalogue can be asked about."""
    named = ", ".join(escape_terminal(name) for name in unused[:MAX_COLUMNS_NAMED])
    more = ", …" if len(unused) > MAX_COLUMNS_NAMED else ""
    return (
        f"Other columns were not asked about ({named}{more}). Who sells a title tells of a flood that titles alone "
        "hide: --seller-column COLUMN. A brand, a category or a language explains what titles share: --explain COLUMN."
    )


def describe_reading(tagger: TaggerSource) -> str:
    """Say what read the titles."""
    if isinstance(tagger, Path):
        return "Titles were read by a tagger of your own."
    return {
        "llm": "Titles were read by the language model (tagger llm).",
        "small": "Titles were read by the small tagger alone, which finds less than the language model does.",
        "cascade": "Titles were read by the small tagger, and those that its score left open by the language model, "
        "too (tagger cascade).",
    }[tagger]


def _describe_small_reference(baseline: Baseline, what: str = "reference", how: str = "--reference FILE") -> str:
    """Say that a reference, or a calibration, is too small beside a catalogue, and how many titles it takes."""
    return (
        f"The {what} is too small: {baseline.too_small:,} titles beside {baseline.sampled:,} of this catalogue. "
        "No rate can be promised by it, and what is new is not seen. So titles were judged as without it, and set "
        f"their own thresholds. It takes {count_reference_needed(baseline.sampled):,} titles or more: {how}."
    )


def _describe_own_thresholds(baseline: Baseline) -> str:
    """Say that a catalogue's own titles set its thresholds beside a reference, and how many titles would set them."""
    return (
        f"It is too small to set thresholds for {baseline.sampled:,} titles, so they set their own. That takes "
        f"{count_reference_needed(baseline.sampled):,} titles or more."
    )


def _describe_calibration(baseline: Baseline) -> str:
    """Say what a calibrated scanner compared titles with."""
    if baseline.too_small:
        return _describe_small_reference(baseline, "calibration", "cowbird calibrate CATALOG")
    said = f"What is usual comes from the {baseline.reference:,} titles of the calibration, taken for clean. "
    if baseline.sampled < MIN_BATCH_TITLES:
        return said + (
            f"Each title was judged by itself: what titles share counts from {MIN_BATCH_TITLES} different ones on."
        )
    return (
        said
        + f"What recurs and is new was looked for among {baseline.sampled:,} different titles of this catalogue."
        + (f" {_describe_own_thresholds(baseline)}" if baseline.own_thresholds else "")
    )


def _describe_context(baseline: Baseline, tagger: TaggerSource) -> str:
    """Say which titles the language model was shown; of long ones it has room for fewer."""
    many = f"up to {len(baseline.context.first):,} titles"
    if baseline.reference or (baseline.too_small and tagger != "cascade"):
        return f"Before it judged, the language model was shown {many} of those that are taken for clean."
    return f"Before it judged, the language model was shown {many} of this catalogue in which little looked suspicious."


def _describe_few_titles(baseline: Baseline) -> str:
    """Say that so few titles set the threshold that none of them can lie above it."""
    fpr = baseline.fprs[0]
    some = f" but the {baseline.left_out:,} that look poisoned" if baseline.left_out else ""
    return (
        f"Too few titles to flag any{some} at {fpr:g}: {baseline.calibrated_on:,} set the threshold, and it takes "
        f"{count_titles_to_flag(fpr):,}. Give titles from before (--reference FILE), or raise --fpr."
    )


def _describe_threshold(baseline: Baseline, judged: int) -> str:
    """Say what the threshold rests on, and how many false alarms are expected."""
    rests = f"It rests on {baseline.calibrated_on:,} titles"
    if baseline.left_out:
        rests += f"; {baseline.left_out:,} more look poisoned and were left out"
    if baseline.promised is None:
        return (
            f"No false-positive rate can be promised, and nothing is flagged: no title was left to set a threshold by. "
            f"{rests}. Give clean titles: --reference FILE."
        )
    said = f"Threshold {baseline.thresholds[0]:.2f} for flags, {baseline.thresholds[1]:.2f} for review. {rests}."
    if baseline.flaggable == 0:
        return said
    if baseline.rate > baseline.fprs[0]:
        said += f" So few titles can't tell {baseline.fprs[0]:g} from {baseline.rate:.2g}."
    said += f" At {baseline.rate:.2g}, about {baseline.rate * judged:,.0f} of {judged:,} clean titles are flagged"
    said += f", {baseline.promised * judged:,.0f} if those left out are clean." if baseline.left_out else "."
    if baseline.spread is not None and is_coarse(baseline.fprs[0], baseline.spread):
        said += f" {describe_spread(baseline.spread)}"
    return said


def is_coarse(fpr: float, spread: tuple[float, float]) -> bool:
    """Tell whether single batches of clean titles are so far from a rate that it has to be said."""
    return spread[0] < COARSE_BELOW * fpr or spread[1] > COARSE_ABOVE * fpr


def describe_spread(spread: tuple[float, float]) -> str:
    """Say how far single batches of clean titles are from the rate."""
    low, high = spread
    return (
        "That is a mean: titles that share something pass the threshold together or not at all. In batches of clean "
        f"titles that the scanner knows, {100 * low:.2g} to {100 * high:.2g} % were above it."
    )


def describe_role(baseline: Baseline) -> str | None:
    """Return what the reference does (`ReferenceRole`); `None` without one."""
    given = baseline.reference or baseline.too_small
    return choose_role(given, baseline.sampled).value if given else None


def describe_basis(scorer: ReadyScorer) -> dict[str, object]:
    """Return what a scan's verdicts rest on, as plain JSON values."""
    baseline = scorer.judge.baseline
    flags, review = (shorten_score(bar) for bar in baseline.thresholds)
    return {
        "scanner": scorer.label,
        "tagger": scorer.tagger if isinstance(scorer.tagger, str) else "own",
        "sampled": baseline.sampled,
        "sample_complete": scorer.complete,
        "counted": baseline.counted,
        "shown_at_most": len(baseline.context.first),
        "reference": baseline.reference or baseline.too_small,
        "reference_role": describe_role(baseline),
        "calibrated_on": baseline.calibrated_on,
        "left_out": baseline.left_out,
        "fpr": baseline.fprs[0],
        "review_fpr": baseline.fprs[1],
        "threshold": flags,
        "review_threshold": review,
        "promised": baseline.promised,
        "batches_flagged": None if baseline.spread is None else [round(share, 5) for share in baseline.spread],
        "flaggable": baseline.flaggable,
    }
