"""Defenses that read titles: how suspicious each is and where, which are flagged, and what becomes of those.

A subclass says how suspicious titles are (`suspect`); what follows from that is the same for all of them, so that they
are compared on detection alone. Suspicion is a matter of the catalogue: all its titles are judged, used or not.

`clean` is `judge`, which reads, and `apply`, which acts: an experiment keeps what lies between them as evidence.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from cowbird.data.types import Float32Array, Int32Array, Interactions, TrainingData, freeze
from cowbird.defenses.base import Defense
from cowbird.errors import UserError
from cowbird.notices import NoticeRank, note

if TYPE_CHECKING:
    from cowbird.victims.base import Probe


@dataclass(frozen=True, slots=True, eq=False)
class Suspicion:
    """What a defense makes of some titles."""

    score: Float32Array
    """Grows with suspicion, shape `[titles]`, float32; -inf where there is nothing to judge, never NaN."""
    start: Int32Array
    """First character of each raw title's most suspicious span, shape `[titles]`, int32; -1 where there is none."""
    end: Int32Array
    """The character after its last one, shape `[titles]`, int32; -1 where there is none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "score", freeze(self.score, np.float32))
        object.__setattr__(self, "start", freeze(self.start, np.int32))
        object.__setattr__(self, "end", freeze(self.end, np.int32))
        if self.score.ndim != 1 or not self.score.shape == self.start.shape == self.end.shape:
            raise ValueError("scores, starts and ends are arrays of one length")
        if np.isnan(self.score).any():
            raise ValueError("a score is not a number")
        none = (self.start == -1) & (self.end == -1)
        if not (none | ((self.start >= 0) & (self.start < self.end))).all():
            raise ValueError("a span is 0 <= start < end, or -1 and -1")

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What becomes of the titles of a catalogue."""

    found: Suspicion
    """How suspicious they are."""
    flagged: NDArray[np.bool_]
    """Which are flagged, shape `[titles]`."""
    dropped: NDArray[np.bool_]
    """Which of those take their item's interactions with them, shape `[titles]`: all, unless titles are stripped."""
    titles: tuple[str, ...]
    """The titles, mended where they are stripped."""


class TitleDefense(Defense, ABC):
    """Judges the catalogue's titles, and takes the most suspicious ones, or a part of each, out of the training data.

    The catalogue keeps its length and its ids, so item numbers stay what they are.
    """

    needs_fit: ClassVar[bool] = False
    """Whether it learns from a whole catalogue before it judges, so that `cowbird scan --detector` can't take it."""
    fit_hint: ClassVar[str] = "Make one with cowbird fit-scanner --p-scanner, then name it with --scanner."
    """How a scan uses it then."""
    scan_settings: ClassVar[Mapping[str, float | bool]] = {}
    """Fields that a scan sets where no clean titles set a threshold, that threshold among them; with none the most
    suspicious share is flagged."""
    scan_basis: ClassVar[str] = ""
    """What that threshold rests on, in whole sentences."""

    share: float = Field(default=0.01, ge=0, le=1)
    """Share of the catalogue's titles that are flagged at most: the most suspicious ones."""
    threshold: float | None = Field(default=None, allow_inf_nan=False)
    """Suspicion above which a title is flagged, in the unit of the scores, instead of a share."""
    action: Literal["drop", "strip"] = "drop"
    """What becomes of flagged items: their interactions leave the training data, or the suspicious span leaves the
    title."""
    device: str = "auto"
    """Where a model runs, if the defense has one: auto, cpu, cuda or cuda:N."""

    @abstractmethod
    def suspect(self, titles: Sequence[str], probe: "Probe | None" = None) -> Suspicion:
        """Judge titles.

        Args:
            titles: All titles of a catalogue: any texts, empty and hostile ones too.
            probe: The victim trained on the data as it came, if the class `asks_victim`.

        Returns:
            One score and span a title, in order.
        """

    @property
    def compares_titles(self) -> bool:
        """Whether a title's suspicion depends on the titles that are judged beside it."""
        return True

    def explain(self, title: str, score: float) -> str:
        """Say in a few words why a title has its score, for a person who looks at it.

        Args:
            title: The raw title.
            score: Its suspicion among the titles of its catalogue.
        """
        return f"suspicion {score:.3g}"

    def make_adversary_copy(self, titles: Sequence[str], seed: int) -> Callable[[Sequence[str]], Suspicion]:
        """Return the copy of the defense that an attacker has who knows how it works: it judges catalogues.

        By default that is `suspect`. A defense that is fitted to the catalogue overrides it: the copy is fitted once,
        to the clean catalogue, and with a seed that is not the defender's.

        Args:
            titles: All titles of the clean catalogue.
            seed: Decides what is random in the copy.

        Raises:
            UserError: If the defense asks the platform's victim, which an attacker does not have.
        """
        if self.asks_victim:
            raise UserError(
                "An attacker can't have a copy of a defense that asks the platform's model.",
                "Let the attack know one that reads titles alone.",
            )
        return self.suspect

    def flag(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Tell which titles are flagged: those above the threshold, as everywhere in `cowbird.metrics.detection`.

        Where scores tie at the threshold none of them is flagged, so that a share may be lower than asked for, never
        higher. What has a score of -inf is never flagged.

        Args:
            scores: Suspicion of all titles, shape `[titles]`.

        Returns:
            A mask, shape `[titles]`.
        """
        values = np.asarray(scores, dtype=np.float64)
        bar = self.threshold
        if bar is None:
            allowed = int(self.share * len(values) + 1e-9)  # 0.29 * 100 is 28.999… in floating point
            bar = np.sort(values)[::-1][allowed] if allowed < len(values) else -np.inf
            name, why = type(self).__name__, "than its share allows: scores tie at the threshold."
            tied = min(allowed, int((values > -np.inf).sum())) - int((values > bar).sum())
            note(NoticeRank.CHANGE, f"{name} flags {{n}} fewer titles {why}", tied, f"{name} flags 1 title fewer {why}")
        return values > bar

    @final
    def clean(self, data: TrainingData, probe: "Probe | None" = None) -> TrainingData:
        """Return the training data without what looks planted: `judge`, then `apply`."""
        return self.apply(data, self.judge(data.items.titles, probe))

    @final
    def judge(self, titles: Sequence[str], probe: "Probe | None" = None) -> Verdict:
        """Judge the titles of a catalogue, and say what becomes of them; see `suspect` and `decide`."""
        return self.decide(titles, self.suspect(titles, probe) if self.asks_victim else self.suspect(titles))

    @final
    def decide(self, titles: Sequence[str], found: Suspicion) -> Verdict:
        """Say what becomes of titles.

        Stripping never empties a title: where it would, and where no span is known, the title stays as it is and the
        item is dropped, since a title that can't be mended is no better than one that was not.

        Args:
            titles: All titles of a catalogue.
            found: How suspicious each is.
        """
        if len(found) != len(titles):
            raise ValueError(f"{len(found)} scores for {len(titles)} titles")
        flagged = self.flag(found.score)
        dropped, mended = flagged.copy(), list(titles)
        rows: list[int] = np.flatnonzero(flagged).tolist() if self.action == "strip" else []
        for row in rows:
            start, end = int(found.start[row]), int(found.end[row])
            rest = strip_span(titles[row], start, end) if start >= 0 else ""
            if rest:
                mended[row], dropped[row] = rest, False
        return Verdict(found, flagged, dropped, tuple(mended))

    @final
    def apply(self, data: TrainingData, verdict: Verdict) -> TrainingData:
        """Return training data as a verdict about its catalogue leaves it.

        Dropped items leave all lessons: events that show one or whose label is one go, with their ratings and times,
        and where one is a negative there is none instead. Users stay, perhaps without events.
        """
        if not verdict.flagged.any():
            return data
        if verdict.titles != data.items.titles:
            data = dataclasses.replace(data, items=dataclasses.replace(data.items, titles=verdict.titles))
        return drop_items(data, verdict.dropped) if verdict.dropped.any() else data


def drop_items(data: TrainingData, items: NDArray[np.bool_]) -> TrainingData:
    """Return training data without the lessons about some items; see `TitleDefense.apply`.

    Args:
        data: The training data, left as it is.
        items: Which items, shape `[items]`.
    """
    known = data.interactions
    kept = ~(items[known.item] | items[data.label])
    events = np.concatenate([[0], np.cumsum(kept)])
    negative = data.negative
    if negative is not None:
        negative = np.where((negative >= 0) & items[negative], -1, negative)[kept]
    interactions = Interactions(
        known.item[kept],
        events[known.offsets],
        None if known.rating is None else known.rating[kept],
        None if known.timestamp is None else known.timestamp[kept],
    )
    return TrainingData(interactions, data.users, data.items, data.label[kept], negative)


def strip_span(title: str, start: int, end: int) -> str:
    """Return a title without `title[start:end]`, with one space where white space was beside or at the ends of it.

    White space elsewhere stays, but for the title's ends.
    """
    before, after = title[:start], title[end:]
    edges = (before[-1:], title[start : start + 1], title[end - 1 : end], after[:1])
    joint = " " if any(edge.isspace() for edge in edges) else ""
    if joint:
        before, after = before.rstrip(), after.lstrip()
    return f"{before}{joint}{after}".strip()
