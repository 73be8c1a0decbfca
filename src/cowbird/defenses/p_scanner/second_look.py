"""A cascade's second look: the language model reads the titles that the small tagger's score leaves open.

The small tagger judges every title. Most titles score far below any threshold, and a few score above every clean one;
for neither does it matter what a language model says. Between lies an open band (`OpenBand`): `OPEN_TITLES` of the
titles that set the threshold, or all where these are fewer. The language model's log-odds of such a title are added to
its score, within bounds. So a title that is not open keeps its place below the open ones or above them, and the
thresholds are set anew from the joined scores of the very titles that set them before.

The bound on open titles is what bounds the time: it does not grow with the catalogue.

A language model that takes contexts looks at titles behind some of the catalogue (`title_context`). What it says of a
title is kept for each context.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Float32Array
from cowbird.defenses.p_scanner.title_context import NO_CONTEXT, TitleContext
from cowbird.defenses.p_scanner.token_logits import TokenLogits

OPEN_TITLES = 300
"""How many of the titles that set a threshold are open. Of the titles that are judged together no more than that many
are open, either."""
MAX_LOOK = 8.0
"""Where the language model's log-odds are cut."""
LOOK_DECIMALS = 2
"""Decimals of them that count, so that titles beside a title do not change its score."""
MAX_HEAD, MAX_TAIL = 240, 120
"""Characters of a long title's beginning and end that are looked at."""
MAX_LOOKS_KEPT = 1 << 16
"""Titles whose second look is kept in memory."""


@dataclass(frozen=True)
class OpenBand:
    """Scores of the small tagger's that leave a title open."""

    low: float
    """The lowest of them."""
    high: float
    """The highest; titles above are more suspicious than all that set the threshold."""

    @classmethod
    def choose(cls, score: Float32Array) -> Self:
        """Return the band that titles which set a threshold leave open.

        Args:
            score: Their scores, in any order.
        """
        if not len(score):
            return cls(math.inf, -math.inf)
        ordered = np.sort(score)[::-1]
        many = min(len(ordered), OPEN_TITLES)
        return cls(float(ordered[many - 1]), float(ordered[0]))

    def covers(self, score: Float32Array) -> NDArray[np.bool_]:
        """Return which scores are open."""
        return (score >= self.low) & (score <= self.high)

    def limit(self, score: Float32Array) -> "OpenBand":
        """Return the same band, or a narrower one that leaves no more than `OPEN_TITLES` of some titles open."""
        inside = np.sort(score[self.covers(score)])[::-1]
        if len(inside) <= OPEN_TITLES:
            return self
        return replace(self, low=float(np.nextafter(inside[OPEN_TITLES], np.float32(np.inf))))


class SecondReader(Protocol):
    """What reads titles again: `tagger.Tagger`."""

    @property
    def record(self) -> Any:
        """What it is."""
        ...

    def read(self, titles: Sequence[str], context: TitleContext = ...) -> TokenLogits:
        """Return what it says of titles behind a context."""
        ...


class Look(NamedTuple):
    """What the language model says of a title."""

    verdict: float
    """Log-odds within `MAX_LOOK`."""
    start: int = -1
    """First character where it is most suspicious; -1 if nowhere, or if it was too long to be looked at whole."""
    end: int = -1
    """The character after the last."""


@dataclass(eq=False)
class LookMemory:
    """A language model that was loaded, and what it said of titles behind each context."""

    reader: SecondReader | None = None
    """The language model; `None` before a title was open."""
    looked: int = 0
    """Titles that were looked at, counted anew behind each context."""
    known: dict[str, dict[str, Look]] = field(default_factory=dict[str, dict[str, Look]])
    """What it said of each title, by the context's key."""

    def keep(self, context: str, titles: Sequence[str], looks: Sequence[Look], asked: Sequence[str]) -> None:
        """Keep looks; of too many, those that are asked for now.

        Args:
            context: The context's key.
            titles: Titles that were looked at.
            looks: What was said of each.
            asked: All titles that are asked for, some of which were known.
        """
        here = self.known.setdefault(context, {})
        if sum(map(len, self.known.values())) + len(titles) > MAX_LOOKS_KEPT:
            here = {title: here[title] for title in asked if title in here}
            self.known = {context: here}
        here.update(zip(titles, looks, strict=True))
        self.looked += len(titles)


@dataclass(eq=False)
class SecondLook:
    """Looks at open titles, at each once behind one context."""

    load: Callable[[], SecondReader]
    """Loads the language model, when a title is open for the first time."""
    identity: str
    """What reads, its weights included."""
    takes_context: bool = False
    """Whether it was taught to read titles behind a context."""
    context: TitleContext = NO_CONTEXT
    """What titles are looked at behind; see `beside`."""
    memory: LookMemory = field(default_factory=LookMemory)
    """What was loaded and said."""

    @property
    def looked(self) -> int:
        """Titles that were looked at."""
        return self.memory.looked

    def beside(self, context: TitleContext) -> "SecondLook":
        """Return the same with its memory, behind a context; nothing changes if it takes none."""
        return replace(self, context=context) if self.takes_context else self

    def look(self, titles: Sequence[str]) -> list[Look]:
        """Return what the language model says of each title."""
        memory, key = self.memory, self.context.key
        known = memory.known.get(key, {})
        missing = [title for title in dict.fromkeys(titles) if title not in known]
        if missing:
            memory.reader = self.load() if memory.reader is None else memory.reader
            memory.keep(key, missing, read_looks(memory.reader, missing, self.context), titles)
        return [memory.known[key][title] for title in titles] if titles else []

    def point(self, title: str) -> tuple[int, int]:
        """Return where a title is most suspicious, -1 and -1 if nowhere or if it is too long to be looked at whole."""
        (found,) = self.look([title])
        return found.start, found.end

    def look_where(self, titles: Sequence[str], opened: NDArray[np.bool_]) -> Float32Array:
        """Return the log-odds of the titles that are open, NaN for others, shape `[titles]`."""
        looks = np.full(len(titles), np.nan, dtype=np.float32)
        rows: list[int] = np.flatnonzero(opened).tolist()
        looks[rows] = [found.verdict for found in self.look([titles[row] for row in rows])]
        return looks

    def join(
        self, titles: Sequence[str], score: Float32Array, band: OpenBand, own: Float32Array | None = None
    ) -> Float32Array:
        """Look at the titles that a band leaves open, and return all scores with what that adds; see `join_looks`."""
        own = score if own is None else own
        return join_looks(score, self.look_where(titles, band.covers(own)), band, own)


def read_looks(reader: SecondReader, titles: Sequence[str], context: TitleContext = NO_CONTEXT) -> list[Look]:
    """Have the language model read titles, all at once, which is many times as fast as one by one.

    Args:
        reader: The language model.
        titles: Any texts.
        context: What they are read behind.
    """
    from cowbird.defenses.p_scanner.tagger import find_spans  # noqa: PLC0415

    read = [cut_title(title) for title in titles]
    made = reader.read(read, context) if context else reader.read(read)
    told = np.clip(made.verdict.round(LOOK_DECIMALS), -MAX_LOOK, MAX_LOOK).tolist()
    start, end = find_spans(made)
    whole = np.array([title == text for title, text in zip(titles, read, strict=True)], dtype=np.bool_)
    places = (np.where(whole, each, -1).tolist() for each in (start, end))
    return [Look(*found) for found in zip(told, *places, strict=True)]


def join_looks(
    score: Float32Array, looks: Float32Array, band: OpenBand, own: Float32Array | None = None
) -> Float32Array:
    """Return scores with what a second look adds, shape `[titles]`.

    Args:
        score: The small tagger's score of each title.
        looks: The language model's log-odds, NaN for titles that are not open.
        band: Which are open; titles above it count as if the language model were sure, those below as if it were sure
            of the opposite.
        own: The scores that the band is about, if they are others: those before a fragment's log-odds are added.
    """
    beyond = np.where((score if own is None else own) > band.high, MAX_LOOK, -MAX_LOOK)
    return (score + np.where(np.isnan(looks), beyond, looks)).astype(np.float32)


def cut_title(title: str) -> str:
    """Return what a second look reads of a title: all of it, or beginning and end of a long one."""
    return title if len(title) <= MAX_HEAD + MAX_TAIL else f"{title[:MAX_HEAD]} {title[-MAX_TAIL:]}"
