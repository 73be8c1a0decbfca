"""What judges titles, and what comes of it: scorers, their verdicts, and the findings made of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cowbird.data.types import freeze
from cowbird.defenses.titles import Suspicion, strip_span
from cowbird.scanning.findings import FLAGGED_TIER, REVIEW_TIER, Finding
from cowbird.scanning.unread import UnreadRows
from cowbird.text import escape_terminal, replace_surrogates

MAX_REASON_LENGTH = 500
"""Characters of a reason that are kept."""


@dataclass(frozen=True, slots=True, eq=False)
class FlaggedSuspicion(Suspicion):
    """What a scorer makes of some titles, and which of them it flags."""

    flagged: NDArray[np.bool_]
    """Which titles are flagged, shape `[titles]`; none with a score of -inf."""

    def __post_init__(self) -> None:
        Suspicion.__post_init__(self)
        object.__setattr__(self, "flagged", freeze(self.flagged, np.bool_))
        if self.flagged.shape != self.score.shape:
            raise ValueError("scores and flags are arrays of one length")
        if (self.score == np.inf).any() or (self.flagged & (self.score == -np.inf)).any():
            raise ValueError("a score is finite, or -inf and not flagged")


@dataclass(frozen=True, slots=True, eq=False)
class ExplainedSuspicion(FlaggedSuspicion):
    """What a scorer makes of some titles, and why."""

    review: NDArray[np.bool_]
    """Which titles are not flagged, but a person should look, shape `[titles]`."""
    reason: tuple[str, ...]
    """Why each flagged or reviewed title is suspicious; empty for others."""
    sure: NDArray[np.bool_]
    """Where the span can be taken out and leaves honest text whole, shape `[titles]`."""
    threshold: float | None
    """Score above which titles are flagged; `None` where there is none."""
    scanner: str
    """Name of the scorer, and its version or hash."""

    def __post_init__(self) -> None:
        FlaggedSuspicion.__post_init__(self)
        for name in ("review", "sure"):
            object.__setattr__(self, name, freeze(getattr(self, name), np.bool_))
            if getattr(self, name).shape != self.score.shape:
                raise ValueError("there is a verdict on each title")
        if len(self.reason) != len(self.score) or (self.review & self.flagged).any():
            raise ValueError("there is a reason for each title, and none is both flagged and up for review")


class ScorerVerdicts(Protocol):
    """The arrays of `FlaggedSuspicion`; a scorer in a lower layer gives them in a class of its own."""

    @property
    def score(self) -> ArrayLike:
        """Grows with suspicion, shape `[titles]`; -inf where there is nothing to judge."""
        ...

    @property
    def start(self) -> ArrayLike:
        """First character of each raw title's most suspicious span, shape `[titles]`; -1 where there is none."""
        ...

    @property
    def end(self) -> ArrayLike:
        """The character after its last one, shape `[titles]`; -1 where there is none."""
        ...

    @property
    def flagged(self) -> ArrayLike:
        """Which titles are flagged, shape `[titles]`."""
        ...


class Scorer(Protocol):
    """What judges titles."""

    @property
    def key(self) -> str:
        """What the scorer is, threshold and weights included: the same key, the same verdicts."""
        ...

    def scan(self, titles: Sequence[str]) -> ScorerVerdicts:
        """Judge titles: distinct ones, none empty, but otherwise any text, half surrogates and megabytes too."""
        ...


class CatalogScorer(Scorer, Protocol):
    """A scorer that was opened for a catalogue, perhaps beside a reference."""

    @property
    def complete(self) -> bool:
        """Whether the verdicts on all titles of the catalogue are known already."""
        ...

    @property
    def reference_unread(self) -> tuple[UnreadRows, ...]:
        """Rows of the reference that could not be read; none without one."""
        ...


@runtime_checkable
class ConcurrentScorer(Scorer, Protocol):
    """A scorer that judges several chunks at a time."""

    @property
    def ahead(self) -> int:
        """Chunks that are given to it before the verdicts on the first are asked for."""
        ...

    def begin(self, titles: Sequence[str]) -> Callable[[], ScorerVerdicts]:
        """Have titles judged, and return what waits for the verdicts; arguments as in `scan`."""
        ...


def complete_verdicts(found: ScorerVerdicts) -> ExplainedSuspicion:
    """Return verdicts of any scorer with all that a finding tells; what it does not tell is empty."""
    if isinstance(found, ExplainedSuspicion):
        return found
    parts = FlaggedSuspicion(*(np.asarray(part) for part in (found.score, found.start, found.end, found.flagged)))
    none, many = np.zeros(len(parts), dtype=np.bool_), len(parts)
    return ExplainedSuspicion(
        parts.score, parts.start, parts.end, parts.flagged, none, ("",) * many, parts.start >= 0, None, ""
    )


def explain_verdicts(
    titles: Sequence[str],
    found: ScorerVerdicts,
    explain: Callable[[str, float], str],
    threshold: float | None,
    scanner: str,
    review: ArrayLike | None = None,
) -> ExplainedSuspicion:
    """Return the verdicts of a scorer with the reason for each flagged or reviewed title.

    Args:
        titles: The titles.
        found: The verdicts on them.
        explain: Says why a title has its score.
        threshold: Score above which titles are flagged.
        scanner: Name of the scorer, and its version or hash.
        review: Which titles are up for review; none by default.
    """
    parts = complete_verdicts(found)
    second = parts.review if review is None else np.asarray(review, dtype=np.bool_)
    rows = zip(titles, parts.score.tolist(), (parts.flagged | second).tolist(), strict=True)
    reason = tuple(explain(title, score) if told else "" for title, score, told in rows)
    return ExplainedSuspicion(
        parts.score, parts.start, parts.end, parts.flagged, second, reason, parts.start >= 0, threshold, scanner
    )


def make_finding(title: str, scanned: ExplainedSuspicion, at: int) -> Finding:
    """Return the verdict on one title.

    Args:
        title: The title.
        scanned: Verdicts on some titles.
        at: Which of them is this title's.
    """
    verdict = (scanned.score, scanned.flagged, scanned.review, scanned.start, scanned.end, scanned.sure)
    score, flagged, review, start, end, sure = (part[at].item() for part in verdict)
    return _make_finding(
        title, shorten_score(score), flagged, review, start, end, sure, scanned.reason[at],
        shorten_score(scanned.threshold), replace_surrogates(scanned.scanner),
    )  # fmt: skip


def make_findings(titles: Sequence[str], scanned: ExplainedSuspicion) -> list[Finding]:
    """Return the verdicts on all titles; see `make_finding`."""
    threshold, scanner = shorten_score(scanned.threshold), replace_surrogates(scanned.scanner)
    different, place = np.unique(np.asarray(scanned.score, dtype=np.float32), return_inverse=True)
    short = [shorten_score(score) for score in cast("list[float]", different.tolist())]
    scores = [short[at] for at in cast("list[int]", place.tolist())]
    return [
        _make_finding(title, score, flagged, review, start, end, sure, reason, threshold, scanner)
        for title, score, flagged, review, start, end, sure, reason in zip(
            titles, scores, scanned.flagged.tolist(), scanned.review.tolist(), scanned.start.tolist(),
            scanned.end.tolist(), scanned.sure.tolist(), scanned.reason, strict=True,
        )
    ]  # fmt: skip


def _make_finding(
    title: str,
    score: float | None,
    flagged: bool,
    review: bool,
    start: int,
    end: int,
    sure: bool,
    reason: str,
    threshold: float | None,
    scanner: str,
) -> Finding:
    """Return the verdict on one title; scores are shortened, and -1 is no place."""
    text = replace_surrogates(title)
    tier = FLAGGED_TIER if flagged else REVIEW_TIER if review else ""
    clean = text
    if flagged:
        clean = strip_span(text, start, end) if start >= 0 and sure else ""
    spanned = start >= 0
    reason = reason and escape_terminal(reason, MAX_REASON_LENGTH)
    return Finding(
        0, None, text, score, flagged, start if spanned else None, end if spanned else None, clean or None, tier,
        reason, threshold, scanner,
    )  # fmt: skip


def shorten_score(score: float | None) -> float | None:
    """Return a score or threshold in as few digits as float32 needs, the same for both; `None` if it is not finite."""
    if score is None or not math.isfinite(score):
        return None
    with np.errstate(over="ignore"):
        short = float(str(np.float32(score)))
    return short if math.isfinite(short) else None
