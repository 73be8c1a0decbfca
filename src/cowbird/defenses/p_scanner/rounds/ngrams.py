"""What recurs: runs of tokens that stand in several titles, and how a language model marks them wherever they stand.

A trigger works only if it stands in several titles, and those are otherwise unrelated: evidence that no single title
holds. So marks are pooled by fragment, and a fragment says how often it recurs, how unlikely its tokens are to stand
together by chance, and whether it keeps to one end of the titles.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Int32Array, Int64Array

NGRAM_LENGTHS = (1, 2, 3, 4, 6)
"""Tokens of a fragment. Of a longer trigger some run of six recurs as the whole does."""
_MIX, _ADD = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
Numbers = NDArray[np.float64]


class TokenSequences(NamedTuple):
    """Titles as tokens."""

    token: Int32Array
    """Tokens of all titles, shape `[marks]`."""
    offsets: Int64Array
    """Where each title's begin, shape `[titles + 1]`."""
    digits: NDArray[np.bool_] | None = None
    """Which tokens are nothing but digits, shape `[marks]`; `None` stands for none."""


@dataclass(frozen=True, slots=True, eq=False)
class Ngrams:
    """All runs of tokens of some titles: each place where one stands, and what is known of each different one."""

    start: Int64Array
    """First token of each place, as an index into all marks, shape `[places]`."""
    length: Int32Array
    """Its tokens, shape `[places]`."""
    row: Int64Array
    """Its title, shape `[places]`."""
    number: Int64Array
    """Which of the different fragments stands there, shape `[places]`."""
    many: int
    """How many titles there are."""
    titles: Int64Array
    """In how many of them each fragment stands, shape `[fragments]`."""
    alike: Int64Array
    """In how many the same stands with any digits in place of its own, shape `[fragments]`."""
    pieces: Int32Array
    """Tokens of each fragment, shape `[fragments]`."""
    pmi: Numbers
    """Logarithm of how much more often its tokens stand together than by chance, shape `[fragments]`."""
    edge: Numbers
    """Share of its places that are at the beginning of a title, or at the end, whichever is larger; `[fragments]`."""

    def means(self, mark: NDArray[np.floating]) -> Numbers:
        """Return the mean mark of each fragment's tokens wherever it stands, shape `[fragments]`."""
        sums = np.concatenate([[0.0], np.cumsum(mark, dtype=np.float64)])
        held = (sums[self.start + self.length] - sums[self.start]) / self.length
        return np.bincount(self.number, held) / np.bincount(self.number)


def find_ngrams(texts: TokenSequences) -> Ngrams:
    """Find all runs of tokens.

    Args:
        texts: Titles, best all different: a title that is there twice counts twice.
    """
    token, offsets, digits = texts
    count, many = len(token), len(offsets) - 1
    rows = np.repeat(np.arange(many), np.diff(offsets))
    if not count:
        none, real = np.zeros(0, dtype=np.int64), np.zeros(0)
        few = none.astype(np.int32)
        return Ngrams(none, few, none, none, many, none, none, few, real, real)
    often = np.bincount(token, minlength=1)[token]
    rarity = np.concatenate([[0.0], np.cumsum(np.log(count / np.maximum(often, 1)))])
    start, length, key = _list_runs(token, rows)
    first, number = _number_keys(key)
    row = rows[start]
    places = np.bincount(number)
    begin, end = start == offsets[row], start + length == offsets[row + 1]
    edge = np.maximum(np.bincount(number, begin), np.bincount(number, end)) / places
    pieces = length[first]
    chance = rarity[start[first] + pieces] - rarity[start[first]]
    together = np.log(places) + chance - np.log(count)
    titles = _count_titles(number, row, many)
    alike = titles.copy()
    if digits is not None and digits.any():
        sums = np.concatenate([[0], np.cumsum(digits)])
        some = np.flatnonzero(sums[start + length] > sums[start])
        shape = np.where(digits, token.max() + 1, token)
        _, kind = _number_keys(_list_runs(shape, rows)[2][some])
        alike[number[some]] = _count_titles(kind, row[some], many)[kind]
    return Ngrams(start, length, row, number, many, titles, alike, pieces, together, edge)


def _list_runs(token: Int32Array, rows: Int64Array) -> tuple[Int64Array, Int32Array, NDArray[np.uint64]]:
    """Return where each run of tokens within a title begins, how long it is, and a hash of it."""
    starts: list[Int64Array] = []
    keys: list[NDArray[np.uint64]] = []
    rolling = np.zeros(len(token), dtype=np.uint64)
    for length in range(1, max(NGRAM_LENGTHS) + 1):
        rolling = rolling[: len(token) - length + 1] if length > 1 else rolling
        if not len(rolling):
            break
        added = token[length - 1 :].astype(np.uint64) + np.uint64(1)
        rolling = rolling * _MIX ^ added * _ADD
        rolling ^= rolling >> np.uint64(29)
        whole = np.flatnonzero(rows[: len(rolling)] == rows[length - 1 :])
        if length in NGRAM_LENGTHS:
            starts.append(whole)
            keys.append(rolling[whole] ^ np.uint64(length))
    lengths = [length for length, _ in zip(NGRAM_LENGTHS, starts, strict=False)]
    held = np.repeat(lengths, [len(part) for part in starts]).astype(np.int32)
    return np.concatenate(starts), held, np.concatenate(keys)


def _count_titles(number: Int64Array, row: Int64Array, many: int) -> Int64Array:
    """Return in how many titles each of some things stands that are numbered from 0, each place with its title."""
    pairs = np.sort(number * (many + 1) + row)
    pairs = pairs[np.diff(pairs, prepend=-1) != 0]
    return np.bincount(pairs // (many + 1), minlength=int(number.max(initial=-1)) + 1)


def _number_keys(keys: NDArray[np.uint64]) -> tuple[Int64Array, Int64Array]:
    """Return where each different key stands first, in order, and the number of each; like `np.unique`, but faster."""
    order = np.argsort(keys)
    new = np.ones(len(keys), dtype=bool)
    new[1:] = np.diff(keys[order]) != 0
    number = np.empty(len(keys), dtype=np.int64)
    number[order] = np.cumsum(new) - 1
    return np.minimum.reduceat(order, np.flatnonzero(new)), number
