"""Titles by themselves: their words, what a tagger says of each, and which of them are the most suspicious."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Float32Array, Int32Array, Int64Array
from cowbird.defenses.p_scanner.title_rules import WORD_KINDS, classify_text
from cowbird.defenses.p_scanner.title_words import (
    NumberedSets,
    TitleWords,
    apply_rules,
    reduce_runs,
    split_titles,
)
from cowbird.defenses.p_scanner.token_logits import TokenLogits
from cowbird.defenses.p_scanner.word_shapes import list_shapes

NO_MARK = -30.0
"""Log-odds where there is no token."""


@dataclass(frozen=True, eq=False)
class MarkedWords:
    """Titles cut into words, and what a tagger says of each."""

    cut: TitleWords
    """The titles, cut into words."""
    mark: Float32Array
    """Highest log-odds of the tokens in each word, shape `[words]`."""
    verdict: Float32Array
    """Log-odds of each title, shape `[titles]`."""

    def __len__(self) -> int:
        return len(self.cut)

    @property
    def titles(self) -> Sequence[str]:
        """The titles."""
        return self.cut.titles

    @property
    def text(self) -> list[str]:
        """All words, in order."""
        return self.cut.text

    @property
    def start(self) -> Int32Array:
        """First character of each word in its title, shape `[words]`."""
        return self.cut.start

    @property
    def end(self) -> Int32Array:
        """The character after its last one."""
        return self.cut.end

    @property
    def offsets(self) -> Int64Array:
        """Where each title's words begin, shape `[titles + 1]`."""
        return self.cut.offsets


def mark_words(titles: Sequence[str], marks: TokenLogits) -> MarkedWords:
    """Cut titles into words, each with the highest log-odds of its tokens.

    Args:
        titles: Any texts.
        marks: What a tagger says of them.
    """
    words = split_titles(titles)
    mark = np.full(len(words.text), NO_MARK, dtype=np.float32)
    base = words.begins[:-1] + np.arange(len(titles))  # with a place between titles, which no word has
    first, last = words.start + base[words.owner], words.end + base[words.owner]
    token_base = base[marks.rows]
    low = np.searchsorted(last, marks.tokenized.first + token_base, side="right")
    high = np.searchsorted(first, marks.tokenized.after + token_base, side="left")
    for step in range(int((high - low).max(initial=0))):  # a token covers one word, hardly ever two
        inside = low + step < high
        np.maximum.at(mark, (low + step)[inside], marks.mark[inside])
    return MarkedWords(words, mark, marks.verdict)


@dataclass(frozen=True, eq=False)
class TitleTraits:
    """What is known of some titles without their catalogue."""

    words: MarkedWords
    """The titles and their words."""
    highest: Float32Array
    """Highest mark, shape `[titles]`."""
    start: Int32Array
    """First character of the most suspicious words; 0 with an `end` of 0 for a title without words."""
    end: Int32Array
    """The character after them."""
    low: Int64Array
    """The first of these words, a place among all words."""
    high: Int64Array
    """The last of them; one before the first for a title without words."""
    kind: Int32Array
    """What these words are, a place in `WORD_KINDS`."""
    by_kind: Float32Array
    """Highest mark of the words of each kind, shape `[titles, WORD_KINDS]`."""
    rules: NDArray[np.bool_]
    """Rules that are met, shape `[titles, RULES]`."""

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def shapes(self) -> NumberedSets:
        """Their shapes; see `word_shapes`."""
        return list_shapes(self.words.cut, self.rules)


def describe_traits(words: MarkedWords) -> TitleTraits:
    """Find the most suspicious words of titles, and the rules that they meet."""
    cut, many = words.cut, len(words)
    sizes = np.diff(words.offsets)
    start, end, kind = (np.zeros(many, dtype=np.int32) for _ in range(3))
    by_kind = np.full((many, len(WORD_KINDS)), NO_MARK, dtype=np.float32)
    kinds = np.array(cut.traits.kind, dtype=np.int64)[cut.number]
    np.maximum.at(by_kind, (cut.owner, kinds), words.mark)
    highest = reduce_runs(np.maximum.reduceat, words.mark, words.offsets[:-1], sizes, NO_MARK)
    low, high = find_spans(words, highest)
    some = np.flatnonzero(sizes > 0)
    span = np.zeros(many, dtype=np.int64), np.full(many, -1, dtype=np.int64)
    span[0][some], span[1][some] = low, high
    start[some], end[some] = words.start[low], words.end[high]
    kind[some] = kinds[low]
    wide: list[int] = some[high > low].tolist()
    for row in wide:
        kind[row] = classify_text(words.titles[row][start[row] : end[row]])
    return TitleTraits(words, highest, start, end, *span, kind, by_kind, apply_rules(cut))


def find_spans(words: MarkedWords, highest: Float32Array) -> tuple[Int64Array, Int64Array]:
    """Return the first and the last of the words around the one with the highest mark whose marks are above 0.

    Args:
        words: Titles.
        highest: The highest mark of each title.

    Returns:
        Places among all words, of each title that has words.
    """
    owner, many = words.cut.owner, len(words.text)
    place = np.arange(many)
    peaks = np.flatnonzero(words.mark == highest[owner])
    peak = peaks[np.unique(owner[peaks], return_index=True)[1]]
    above = words.mark > 0
    joined = np.zeros(many + 1, dtype=np.bool_)  # whether a word and the one before it are above 0, in one title
    joined[1:many] = above[1:] & above[:-1] & (owner[1:] == owner[:-1])
    run_start = np.maximum.accumulate(np.where(joined[:-1], 0, place))
    run_end = np.minimum.accumulate(np.where(joined[1:], many, place)[::-1])[::-1]
    return np.where(above[peak], run_start[peak], peak), np.where(above[peak], run_end[peak], peak)
