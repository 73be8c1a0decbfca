"""The scanner of a service: how it is named, how it is opened, and how it judges each title by itself.

Titles of many sellers wait beside each other. Nobody's verdict may depend on what somebody else uploads at the same
moment, so a title is judged as if it were the only one: by the title, the scanner and its baseline alone. A detector
that compares titles with each other is refused.

A scanner is opened in a process of its own, so that a service goes on answering while the next one is opened.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cowbird.defenses.p_scanner.calibrated import CalibratedScanner, load_calibrated_scanner
from cowbird.defenses.p_scanner.calibration_file import is_calibrated
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.rounds.fitted_scanner import load_fitted_scanner
from cowbird.defenses.p_scanner.small_tagger import TaggerSource
from cowbird.errors import UserError
from cowbird.files import hash_texts
from cowbird.ingest.options import replace_option_hints
from cowbird.scanning import detectors, fitted_scorer, ready_scorer
from cowbird.scanning.allow_list import AllowList, read_allow_list
from cowbird.scanning.calibrating import read_clean_titles
from cowbird.scanning.findings import Finding
from cowbird.scanning.pool import ScorerFactory
from cowbird.scanning.scan import allow_finding
from cowbird.scanning.unread import UnreadRows, describe_unread
from cowbird.scanning.verdicts import Scorer, ScorerVerdicts, complete_verdicts, make_finding
from cowbird.victims.fit_context import pick_device

UNJUDGED_TIER = "unjudged"
"""The tier of a title that the scanner failed on: a person should look."""
REFERENCE_FORM_HINT = (
    "Save the file of --reference as CSV in UTF-8 with column names in its first line, and name the column of titles: "
    "--text-column. Or calibrate before, for that command takes options about a file's form: cowbird calibrate --help."
)
"""What to do where a reference is not read as it is meant; a service takes no such options but the last."""
EMPTY_REASON = "there is no text to judge"
PROBE_TITLES = ("Blue ceramic mug, 350 ml", "Blue\u200b mug\u202e 5v", "", "x" * 1000, "\ud83d\ude00 \u0645\u0627")
"""What a scanner must judge before it is used."""


@dataclass(frozen=True)
class ScannerSource:
    """How a service's scanner is named."""

    scanner: Path | None = None
    """A scanner that was made before; `None` for the ready scanner, or a detector."""
    detector: str | None = None
    """Name of a detector that needs no fit."""
    settings: tuple[str, ...] = ()
    """Fields of the detector, as TOML."""
    reference: Path | None = None
    """A catalogue of titles that are taken for clean."""
    fpr: float | None = None
    """Share of clean titles that may be flagged; `None` for the scanner's own."""
    review_fpr: float | None = None
    """Share of clean titles that may be flagged or put up for review."""
    allow: Path | None = None
    """Texts that must not be flagged."""
    text_column: str = "title"
    """The reference's column of titles."""
    device: str = "auto"
    """Where a model runs."""
    tagger: TaggerSource = "llm"
    """What reads titles where a reference is calibrated: a language model, or the small one."""
    allow_plugins: bool = False
    """Whether a detector may be a stranger's plug-in."""


@dataclass(frozen=True)
class ServedScanner:
    """A scanner that was opened; it travels to the processes that judge."""

    make: ScorerFactory
    """Makes the scorer in a process."""
    allow: AllowList
    """Texts that must not be flagged."""
    label: str
    """Its name, and its version or a hash."""
    sha256: str
    """Hash of all that decides verdicts: weights, baseline, thresholds, allowed texts."""
    threshold: float | None
    """Score above which titles are flagged; `None` if all are that have a score."""
    basis: dict[str, Any]
    """What verdicts rest on, as plain JSON values."""
    unread: tuple[UnreadRows, ...] = ()
    """Rows of the reference that could not be read; no verdict rests on them."""


class TitleJudgment(NamedTuple):
    """The verdict on one title."""

    tier: str
    """`flagged`, `review`, `allowed`, `unjudged` or `none`."""
    score: float | None
    """How suspicious it is; `None` where there was nothing to judge."""
    start: int | None
    """First character of the most suspicious span."""
    end: int | None
    """The character after its last one."""
    reason: str
    """Why, in words; what can't be seen stands as its code."""
    threshold: float | None
    """Score above which titles are flagged; `None` if all are that have a score."""


def open_source(source: ScannerSource) -> ServedScanner:
    """Open a scanner, and see that it judges.

    Raises:
        UserError: If it can't be opened, compares titles with each other, or has no threshold.
    """
    if source.scanner is not None and (source.detector is not None or source.settings or source.reference is not None):
        raise UserError(
            "A scanner that was made before has its fields, titles and thresholds from then.",
            "Leave out --detector, --set and --reference; --fpr chooses a threshold.",
        )
    if source.detector is None and source.settings:
        raise UserError(
            "--set changes a field of a detector, and none is named.", "Name it (--detector), or leave it out."
        )
    calibrated = source.scanner is not None and is_calibrated(source.scanner)
    if source.review_fpr is not None and not calibrated and (source.scanner or source.detector):
        raise UserError("--review-fpr is for the ready scanner.", "Leave it out, or leave out --detector.")
    allow = read_allow_list(source.allow)
    if allow.names_ids:
        raise UserError(
            f"'{source.allow}' names rows by their ids, and a service judges titles alone.", "Leave the ids out."
        )
    if source.scanner is not None:
        return (_open_calibrated if calibrated else _open_fitted)(source, source.scanner, allow)
    with replace_option_hints(REFERENCE_FORM_HINT):
        return _open_ready(source, allow) if source.detector is None else _open_detector(source, source.detector, allow)


def _open_fitted(source: ScannerSource, folder: Path, allow: AllowList) -> ServedScanner:
    place = pick_device(source.device)
    scorer = fitted_scorer.ScannerScorer.of(load_fitted_scanner(folder, place), source.fpr)
    make = partial(_make_fitted, folder.resolve(), str(place), scorer.fpr)
    bar = scorer.fitted.threshold(scorer.fpr, alone=True)
    basis = {"kind": "fitted", "fpr": scorer.fpr, "calibrated_on": scorer.fitted.record.alone.titles}
    return _finish(FittedApartScorer(scorer), make, allow, scorer.label, scorer.key, bar, basis)


def _make_fitted(folder: Path, device: str, fpr: float) -> "FittedApartScorer":
    return FittedApartScorer(fitted_scorer.read_scorer(folder, device, fpr))


@dataclass(frozen=True)
class FittedApartScorer:
    """A fitted scanner that judges each title as if it were the only one."""

    scorer: fitted_scorer.ScannerScorer
    """The scanner and its false-positive rate."""

    @property
    def key(self) -> str:
        """What the scanner is."""
        return self.scorer.key

    def scan(self, titles: Sequence[str]) -> ScorerVerdicts:
        """Judge titles, each by itself; see `Scorer.scan`."""
        return self.scorer.scan_apart(titles)


def _open_calibrated(source: ScannerSource, path: Path, allow: AllowList) -> ServedScanner:
    """Open what `cowbird calibrate` wrote."""
    place = str(pick_device(source.device))
    return _finish_calibrated(source, load_calibrated_scanner(path, place), place, allow)


def _open_ready(source: ScannerSource, allow: AllowList) -> ServedScanner:
    """Open the ready scanner, calibrated now on titles that are taken for clean."""
    if source.reference is None:
        raise UserError(
            "The ready scanner has no threshold for single titles by itself.",
            "Calibrate it on clean titles of your own (cowbird calibrate) and name the file (--scanner), or name the "
            "titles (--reference FILE), or take --detector character_rules.",
        )
    rates = ready_scorer.choose_rates(source.fpr, source.review_fpr)
    ready_scorer.check_rates(*rates)
    advice = "Give a file with more titles: --reference FILE."
    read = read_clean_titles(source.reference, source.text_column, rates, advice=advice)
    place = str(pick_device(source.device))
    made = CalibratedScanner.calibrate(ReadyScanner.load(place, source.tagger), read.titles, *rates)
    return _tell_unread(_finish_calibrated(source, made, place, allow), read.unread)


def _tell_unread(scanner: ServedScanner, unread: tuple[UnreadRows, ...]) -> ServedScanner:
    """Return a scanner that tells which rows of its reference could not be read; its hash stays."""
    if not unread:
        return scanner
    return replace(scanner, basis=scanner.basis | {"reference_unread": describe_unread(unread)}, unread=unread)


def _finish_calibrated(
    source: ScannerSource, calibrated: CalibratedScanner, place: str, allow: AllowList
) -> ServedScanner:
    record = calibrated.record
    rate = record.fpr if source.fpr is None else source.fpr
    second = max(record.review_fpr, rate) if source.review_fpr is None else source.review_fpr
    ready_scorer.check_rates(rate, second)
    judge = calibrated.make_judge([], rate, second)
    scorer = ready_scorer.ReadyScorer(
        judge, f"calibrated {calibrated.key[:12]}", place, complete=False, tagger=calibrated.scanner.tagger_source
    )
    bars = judge.baseline.thresholds
    basis = {
        "kind": "calibrated",
        "calibrated_on": record.titles,
        "titles_sha256": record.titles_sha256,
        "fpr": rate,
        "review_fpr": second,
        "review_threshold": _drop_infinite(bars[1]),
    }
    return _finish(scorer, scorer.make_factory(), allow, scorer.label, f"{calibrated.key} {scorer.key}", bars[0], basis)


def _open_detector(source: ScannerSource, name: str, allow: AllowList) -> ServedScanner:
    detector = _make_detector(source, name)
    own = {
        field: value
        for field, value in detector.scan_settings.items()
        if field not in ("threshold", *detector.model_fields_set)
    }
    if detector.compares_titles and own:  # so that it compares nothing
        detector = detector.model_copy(update=own)
    if detector.compares_titles:
        raise UserError(
            f"The detector '{name}' compares titles with each other, so it can't judge single ones.",
            "Take another: character_rules, or the ready scanner with --reference.",
        )
    if source.reference is None and "threshold" in detector.scan_settings and detector.threshold is None:
        detector = detector.model_copy(update={"threshold": detector.scan_settings["threshold"]})
    if source.reference is None and detector.threshold is None:
        raise UserError(
            f"The detector '{name}' flags the most suspicious share of a catalogue, and single titles are none.",
            "Give clean titles to set a threshold by: --reference FILE.",
        )
    scorer = detectors.open_detector(name, detector, source.reference, source.fpr, source.text_column)
    reference = scorer.reference
    basis = {
        "kind": "detector",
        "reference": 0 if reference is None else reference.titles,
        "fpr": None if reference is None else reference.fpr,
    }
    make, bar = partial(detectors.copy_scorer, scorer), scorer.detector.threshold
    found = _finish(scorer, make, allow, scorer.label, scorer.key, bar, basis)
    return found if reference is None else _tell_unread(found, reference.unread)


def _make_detector(source: ScannerSource, name: str) -> Any:
    """Return the detector that a source names."""
    from pydantic import ValidationError  # noqa: PLC0415

    try:
        return detectors.make_detector(name, source.settings, source.device, source.allow_plugins)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"The detector '{name}' can't be used so: {'.'.join(map(str, first['loc']))}: {first['msg']}.",
            f"See cowbird describe defense {name}.",
        ) from None


def _finish(
    scorer: Scorer,
    make: ScorerFactory,
    allow: AllowList,
    label: str,
    key: str,
    bar: float | None,
    basis: dict[str, Any],
) -> ServedScanner:
    if bar is None or bar == math.inf:
        raise UserError(
            "This scanner has no threshold, so that it would flag nothing.", "Give more clean titles: --reference FILE."
        )
    judge_titles(scorer, allow, PROBE_TITLES)
    seal = hash_texts([key, allow.key, json.dumps(basis, sort_keys=True, default=str)])
    return ServedScanner(make, allow, label, seal, _drop_infinite(bar), basis)


def judge_titles(scorer: Scorer, allow: AllowList, titles: Sequence[str]) -> list[TitleJudgment]:
    """Judge titles, in order. Those without any text are not judged.

    Args:
        scorer: Judges each title by itself.
        allow: Texts that must not be flagged.
        titles: Any texts.
    """
    texts = [title for title in dict.fromkeys(titles) if title.strip()]
    known: dict[str, TitleJudgment] = {}
    if texts:
        found = complete_verdicts(scorer.scan(texts))
        if len(found) != len(texts) or (np.asarray(found.end) > [len(text) for text in texts]).any():
            raise ValueError("a scorer gives a verdict on each title, and spans end within them")
        for nth, text in enumerate(texts):
            known[text] = _describe(allow_finding(make_finding(text, found, nth), text, allow))
    nothing = TitleJudgment("none", None, None, None, EMPTY_REASON, None)
    return [known.get(title, nothing) for title in titles]


def _describe(finding: Finding) -> TitleJudgment:
    bar = _drop_infinite(finding.threshold)
    return TitleJudgment(finding.tier or "none", finding.score, finding.start, finding.end, finding.reason, bar)


def _drop_infinite(bar: float | None) -> float | None:
    """Return a threshold; `None` for minus infinity, above which all lies that has a score."""
    return bar if bar is not None and math.isfinite(bar) else None
