"""Catalogues under the detectors of `cowbird.defenses`: those that read titles, and need neither a victim nor a fit.

A detector says how suspicious titles are; a scan also needs a threshold. With titles that are known to be clean it is
set so that a false-positive rate can be promised. Without them the detector's own rule holds, and the scan says what
that rule is worth.
"""

import math
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.text import Text

from cowbird import plugins
from cowbird.defenses.titles import TitleDefense
from cowbird.errors import UserError
from cowbird.files import hash_texts
from cowbird.ingest.addresses import show_name
from cowbird.scanning.scan import load_table_titles
from cowbird.scanning.unread import UnreadRows
from cowbird.scanning.verdicts import ExplainedSuspicion, FlaggedSuspicion, explain_verdicts
from cowbird.text import escape_terminal


@dataclass(frozen=True)
class CleanReference:
    """Titles that are taken for clean, and the threshold that they set."""

    name: str
    """Their file's name."""
    titles: int
    """How many different ones there are."""
    fpr: float
    """Share of clean titles that may be flagged."""
    threshold: float
    """The score above which a title is flagged."""
    unread: tuple[UnreadRows, ...] = ()
    """Rows of the file that could not be read."""


@dataclass(frozen=True)
class DetectorScorer:
    """A detector with a threshold: what `scan_catalog` asks."""

    name: str
    """Name of the detector."""
    detector: TitleDefense
    """The detector, its threshold included."""
    reference: CleanReference | None = None
    """What the threshold comes from; `None` for the detector's own rule."""

    @property
    def label(self) -> str:
        """Its name, and a hash of its fields."""
        return f"{self.name} {hash_texts([self.key])[:12]}"

    @property
    def key(self) -> str:
        """What the detector is, all its fields included."""
        return f"{self.name} {self.detector!r}"

    @property
    def complete(self) -> bool:
        """Whether all verdicts are known, which they never are; see `CatalogScorer`."""
        return False

    @property
    def reference_unread(self) -> tuple[UnreadRows, ...]:
        """Rows of the reference that could not be read."""
        return () if self.reference is None else self.reference.unread

    def scan(self, titles: Sequence[str]) -> ExplainedSuspicion:
        """Judge titles among each other, and flag those above the threshold; see `Scorer.scan`."""
        found = self.detector.suspect(titles)
        judged = FlaggedSuspicion(found.score, found.start, found.end, self.detector.flag(found.score))
        return explain_verdicts(titles, judged, self.explain, self.detector.threshold, self.label)

    def explain(self, title: str, score: float) -> str:
        """Say why a title has its score; see `TitleDefense.explain`."""
        return self.detector.explain(title, score)


def list_detectors() -> dict[str, type[TitleDefense]]:
    """Return the shipped detectors that need no victim, by name; `p_scanner`, which is fitted first, is one of them."""
    found = {name: plugins.find_plugin("defense", name) for name in plugins.list_plugins("defense")}
    return {name: cls for name, cls in found.items() if issubclass(cls, TitleDefense) and not cls.asks_victim}


def _find_detector(name: str, known: str, allow_plugins: bool) -> type[Any]:
    shipped = name in plugins.list_plugins("defense")
    if not shipped and "." not in name and not allow_plugins:
        raise UserError(
            f"There is no detector named '{name}'.",
            f"A scan takes one of {known}. For a file of yours in this folder, add --allow-plugins.",
        )
    return plugins.find_plugin("defense", name, allow_plugins)


def make_detector(
    name: str, settings: Sequence[str] = (), device: str = "auto", allow_plugins: bool = False
) -> TitleDefense:
    """Return a detector by its name.

    Args:
        name: One of `list_detectors`, or a stranger's dotted path.
        settings: Its fields as TOML, such as `window=5` or `llm.layers=4`.
        device: Where its model runs, if it has one.
        allow_plugins: Whether a dotted path may be imported, which runs its code.

    Raises:
        UserError: If there is no such detector, it can't scan a catalogue alone, or a setting is no TOML.
        ValidationError: If a setting does not fit.
    """
    known = ", ".join(list_detectors())
    cls: type[Any] = _find_detector(name, known, allow_plugins)
    if not issubclass(cls, TitleDefense):
        raise UserError(f"The defense '{name}' does not judge titles.", f"A scan takes one of {known}.")
    if cls.asks_victim:
        raise UserError(
            f"The defense '{name}' asks the platform's model, so it can't scan a catalogue alone.",
            f"A scan takes one of {known}; cowbird run measures the others.",
        )
    if cls.needs_fit:
        raise UserError(
            f"The detector '{name}' learns from a whole catalogue first, and --detector judges rows as they come.",
            cls.fit_hint,
        )
    try:
        fields = tomllib.loads("\n".join(settings))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"A setting is written as TOML, and this is not: {error}.", "Such as window=5.") from None
    return cls.model_validate({"device": device} | fields)


def open_detector(
    name: str, detector: TitleDefense, reference: Path | None, fpr: float | None, text_column: str = "title"
) -> DetectorScorer:
    """Return a detector with a threshold.

    Args:
        name: Its name.
        detector: The detector.
        reference: A catalogue of titles that are taken for clean; `None` for the own rule.
        fpr: Share of clean titles that may be flagged; 0.01 by default.
        text_column: The reference's column of titles.

    Raises:
        UserError: If a rate is given without such titles or can't be promised by so few, or they can't be read.
    """
    if fpr is not None and not 0 < fpr < 1:
        raise UserError(f"A false-positive rate lies between 0 and 1, not at {fpr:g}.", "0.01 stands for 1 %.")
    if reference is None:
        if fpr is not None:
            raise UserError(
                f"The detector '{name}' knows no false-positive rate by itself.",
                "Give clean titles to set the threshold by: --reference FILE. Or leave --fpr out.",
            )
        own = detector.scan_settings
        if own and not (own.keys() | {"share"}) & detector.model_fields_set:
            detector = detector.model_copy(update=dict(own))
        return DetectorScorer(name, detector)
    found = set_threshold(detector, reference, 0.01 if fpr is None else fpr, text_column)
    return DetectorScorer(name, detector.model_copy(update={"threshold": found.threshold}), found)


def set_threshold(detector: TitleDefense, reference: Path, fpr: float, text_column: str = "title") -> CleanReference:
    """Set a threshold by titles that are taken for clean (split conformal prediction, Vovk et al. 2005, chapter 2).

    Raises:
        UserError: If there are too few of them for the rate, or they can't be read.
    """
    read, unread = load_table_titles(reference, text_column)
    titles = list(dict.fromkeys(title for title in read if title))
    allowed = math.floor(fpr * (len(titles) + 1) + 1e-9)
    if allowed < 1:
        raise UserError(
            f"A false-positive rate of {fpr:g} needs {math.ceil(1 / fpr) - 1:,} clean titles or more, and "
            f"{show_name(reference)} has {len(titles):,} different ones.",
            "Give more of them, or raise --fpr.",
        )
    scores = np.concatenate([detector.suspect(part).score for part in _cut(titles, 8192)])
    return CleanReference(show_name(reference), len(titles), fpr, float(np.sort(scores)[::-1][allowed - 1]), unread)


def _cut(titles: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    return (titles[first : first + most] for first in range(0, len(titles), most))


def copy_scorer(scorer: DetectorScorer) -> DetectorScorer:
    """Return a scorer, in a process with others beside it, so it takes one thread."""
    torch.set_num_threads(1)
    return scorer


def format_detector_basis(scorer: DetectorScorer, chunk: int) -> Text:
    """Return what a scan's verdicts rest on: where the threshold comes from, and what it promises."""
    reference, detector = scorer.reference, scorer.detector
    if reference is not None:
        return Text(
            f"Threshold {reference.threshold:.4g}, set by {reference.titles:,} titles of "
            f"{escape_terminal(reference.name)} that are taken for clean. Of clean titles of the same "
            f"source, about {reference.fpr:.2%} score above it."
        )
    if detector.threshold is not None:
        own = all(getattr(detector, name) == value for name, value in detector.scan_settings.items())
        basis = detector.scan_basis if own and detector.scan_settings else "It was set by hand."
        return Text(f"Threshold {detector.threshold:g}. {basis} {_ADVICE}")
    return Text(
        f"The most suspicious {detector.share:.2%} of each {chunk:,} rows are flagged, whether or not a trigger is "
        f"among them; flagged titles are places to look at first. {_ADVICE}"
    )


_ADVICE = "For a threshold that stands for a false-positive rate, give clean titles: --reference FILE --fpr 0.01."
