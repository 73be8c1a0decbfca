"""A fitted scanner under `cowbird scan`: the threshold of a rate, and what is said of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from rich.console import Group
from rich.text import Text

from cowbird.defenses.p_scanner.rounds.calibration import POISONED, Calibration
from cowbird.defenses.p_scanner.rounds.fitted_scanner import (
    SCANNER_NAME,
    SCANNER_VERSION,
    FittedScanner,
    load_fitted_scanner,
)
from cowbird.errors import UserError
from cowbird.files import hash_texts
from cowbird.scanning.summary import ScanSummary
from cowbird.scanning.unread import UnreadRows
from cowbird.scanning.verdicts import ExplainedSuspicion, explain_verdicts

MIN_TITLES_COMPARED = 100
"""Titles from which a scan says whether they are like those of the fit."""
FRESH_TITLES_NOTE = (
    "Clean titles that the fit never saw can be flagged more often: 3.7 to 13.7 % of them were, where 1 % was asked "
    "for, with scanners fitted to one half of a catalogue and asked about the other."
)
"""What thresholds do not promise; printed wherever one is."""


@dataclass(frozen=True)
class ScannerScorer:
    """A scanner with the threshold of a false-positive rate: what `scan_catalog` asks."""

    fitted: FittedScanner
    """The scanner."""
    fpr: float
    """The rate."""

    @staticmethod
    def of(fitted: FittedScanner, fpr: float | None) -> "ScannerScorer":
        """Return a scanner with a threshold; `None` takes its own.

        Raises:
            UserError: If the rate is no share.
        """
        if fpr is not None and not 0 < fpr < 1:
            raise UserError(f"A false-positive rate lies between 0 and 1, not at {fpr:g}.", "0.01 stands for 1 %.")
        return ScannerScorer(fitted, fitted.record.fpr if fpr is None else fpr)

    @property
    def key(self) -> str:
        """What the scanner is, the rate included."""
        return f"{self.fitted.key} at {self.fpr!r}"

    @property
    def complete(self) -> bool:
        """Whether all verdicts are known, which they never are; see `CatalogScorer`."""
        return False

    @property
    def reference_unread(self) -> tuple[UnreadRows, ...]:
        """Rows of a reference that could not be read: its thresholds come from the fit, so there is none."""
        return ()

    @cached_property
    def label(self) -> str:
        """Its name, version and a hash of its weights."""
        return f"{SCANNER_NAME} {SCANNER_VERSION} {hash_texts([self.fitted.key])[:12]}"

    def scan(self, titles: Sequence[str]) -> ExplainedSuspicion:
        """Judge titles; see `FittedScanner.judge_titles`."""
        found = self.fitted.judge_titles(titles, self.fpr)
        bar = self.fitted.threshold(self.fpr)
        return explain_verdicts(titles, found, self.explain, bar, self.label, found.review)

    def scan_apart(self, titles: Sequence[str]) -> ExplainedSuspicion:
        """Judge titles, each as if it were the only one; see `FittedScanner.judge_apart`."""
        found, bar = self.fitted.judge_apart(titles, self.fpr), self.fitted.threshold(self.fpr, alone=True)
        explain = partial(self.explain, bar=bar)
        return explain_verdicts(titles, found, explain, bar, self.label, found.review)

    def explain(self, title: str, score: float, bar: float | None = None) -> str:
        """Say why a title is flagged, in a few words."""
        bar = self.fitted.threshold(self.fpr) if bar is None else bar
        return f"the scanner takes this for a trigger: suspicion {score:.1f}, threshold {bar:.1f}"


def read_scorer(folder: Path, device: str, fpr: float) -> ScannerScorer:
    """Read a scanner, in a process with others beside it, so it takes one thread."""
    torch.set_num_threads(1)
    return ScannerScorer.of(load_fitted_scanner(folder, torch.device(device)), fpr)


def format_scan_basis(scorer: ScannerScorer, chunk: int, found: ScanSummary) -> Group:
    """Return what a scan's verdicts rest on: the threshold, and how many titles are compared with each other.

    Where more titles are flagged than false alarms and the largest poisoned share that calibration reckons with come
    to, they are hardly like those that the scanner was fitted to, and this says so first.
    """
    held, parts = scorer.fitted.record.calibration, list[Text]()
    if found.flagged > (scorer.fpr + POISONED) * found.judged and found.judged >= MIN_TITLES_COMPARED:
        parts.append(
            Text(
                "So many titles are flagged that they are hardly like those that this scanner was fitted to. Fit one "
                "to this catalogue (cowbird fit-scanner) before you act on it.",
                style="yellow",
            )
        )
    return Group(
        *parts,
        Text(f"Threshold for {scorer.fpr:g}: ").append_text(format_threshold(held, scorer.fpr)),
        Text(FRESH_TITLES_NOTE),
        format_calibration_basis(held),
        Text(
            f"What recurs was looked for among {chunk:,} rows at a time (--chunk); when the threshold was set, among "
            "all titles of the fit."
        ),
    )


def format_calibration_basis(held: Calibration) -> Text:
    """Return what thresholds rest on, and what they leave out."""
    said = f"Thresholds rest on {held.titles:,} titles that were not learned from."
    if held.left_out:
        said += (
            f" {held.left_out:,} more look poisoned and were left out; clean ones like them are flagged beyond that."
        )
    return Text(said)


def format_threshold(held: Calibration, fpr: float) -> Text:
    """Return the threshold for a false-positive rate, and what was measured of it on the fit's own titles."""
    threshold, stands = held.threshold(fpr), held.promise_rate(fpr)
    above = sum(score > threshold for score in held.highest)
    few = f" So few titles can't tell {fpr:g} from {stands:.2g}." if stands > fpr else ""
    return Text(f"{threshold:.3g}. Of the {held.titles:,} titles that set it, {above:,} score above it.{few}")
