"""A cascade's second look: the language model reads the titles that the small tagger's score leaves open.

The small tagger judges every title. Most titles score far below any threshold, and a few score above every clean one;
for neither does it matter what a language model says. Between lies an open band (`OpenBand`): `OPEN_SHARE` of the
titles that set the threshold, `MAX_OPEN_TITLES` at most. The language model's log-odds of such a title are added to its
score with a weight, within bounds. So a title that is not open keeps its place below the open ones or above them, and
the thresholds are set anew from the joined scores of the very titles that set them before.

The bound on open titles is what bounds the time: it does not grow with the catalogue.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Float32Array
from cowbird.defenses.p_scanner.token_logits import TokenLogits

OPEN_SHARE, MAX_OPEN_TITLES = 0.1, 300
"""Share of the titles that set a threshold which are open, and how many at most. Of the titles that are judged together
no more than that many are open, either."""
LOOK_WEIGHT, LOOK_WEIGHT_ALONE, MAX_LOOK = 0.5, 1.0, 8.0
"""What the language model's log-odds count beside a reference, and without one, where fragments add to the small
tagger's score (`scoring.weigh_fragments`); and where they are cut."""
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
    weight: float = LOOK_WEIGHT
    """What the language model's log-odds count."""

    @classmethod
    def choose(cls, score: Float32Array, weight: float = LOOK_WEIGHT) -> Self:
        """Return the band that titles which set a threshold leave open.

        Args:
            score: Their scores, in any order.
            weight: What the language model's log-odds count.
        """
        if not len(score):
            return cls(math.inf, -math.inf, weight)
        ordered = np.sort(score)[::-1]
        many = min(max(1, math.ceil(OPEN_SHARE * len(ordered))), MAX_OPEN_TITLES)
        return cls(float(ordered[many - 1]), float(ordered[0]), weight)

    def covers(self, score: Float32Array) -> NDArray[np.bool_]:
        """Return which scores are open."""
        return (score >= self.low) & (score <= self.high)

    def limit(self, score: Float32Array) -> "OpenBand":
        """Return the same band, or a narrower one that leaves no more than `MAX_OPEN_TITLES` of some titles open."""
        inside = np.sort(score[self.covers(score)])[::-1]
        if len(inside) <= MAX_OPEN_TITLES:
            return self
        return replace(self, low=float(np.nextafter(inside[MAX_OPEN_TITLES], np.float32(np.inf))))


class SecondReader(Protocol):
    """What reads titles again: `tagger.Tagger`."""

    @property
    def record(self) -> Any:
        """What it is."""
        ...

    def read(self, titles: Sequence[str]) -> TokenLogits:
        """Return what it says of titles."""
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
class SecondLook:
    """Looks at open titles, at each once."""

    load: Callable[[], SecondReader]
    """Loads the language model, when a title is open for the first time."""
    identity: str
    """What reads, its weights included."""
    looked: int = 0
    """Titles that were looked at."""
    _reader: SecondReader | None = None
    _known: dict[str, Look] = field(default_factory=dict[str, Look])

    def look(self, titles: Sequence[str]) -> list[Look]:
        """Return what the language model says of each title."""
        missing = [title for title in dict.fromkeys(titles) if title not in self._known]
        if missing:
            self._reader = self.load() if self._reader is None else self._reader
            if len(self._known) + len(missing) > MAX_LOOKS_KEPT:
                self._known = {title: self._known[title] for title in titles if title in self._known}
            self._known.update(zip(missing, read_looks(self._reader, missing), strict=True))
            self.looked += len(missing)
        return [self._known[title] for title in titles]

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


def read_looks(reader: SecondReader, titles: Sequence[str]) -> list[Look]:
    """Have the language model read titles, all at once, which is many times as fast as one by one."""
    from cowbird.defenses.p_scanner.tagger import find_spans  # noqa: PLC0415

    read = [cut_title(title) for title in titles]
    made = reader.read(read)
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
    return (score + band.weight * np.where(np.isnan(looks), beyond, looks)).astype(np.float32)


def cut_title(title: str) -> str:
    """Return what a second look reads of a title: all of it, or beginning and end of a long one."""
    return title if len(title) <= MAX_HEAD + MAX_TAIL else f"{title[:MAX_HEAD]} {title[-MAX_TAIL:]}"
