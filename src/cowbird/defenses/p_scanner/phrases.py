"""Phrases that stand anywhere: tokens that keep to each other, and to nothing else.

An attacker who knows the scanner takes words that the reader finds ordinary and puts them in the middle of titles
(`cowbird.attacks.adaptive_badrec`): *Sin Bob*. No mark tells her trigger. But a phrase that people use has its company:
*the Story of*, *for a Killer*. Hers was put into titles that have nothing to do with each other, so what stands before
and behind it is nearly always something else, while its own tokens go together far more often than by chance. In
MovieLens-100K and Last.FM no clean phrase does that in as many titles as a trigger needs, in MovieLens-1M one does:
*a.k.a.*.

Where many phrases are like that, such as names of brands, each says little: a phrase counts by its share of the titles
that hold one of them. A trigger of a single token, or one that begins titles or stands behind what ends all of them, is
not found this way.
"""

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Index, Offset
from cowbird.defenses.p_scanner.fragments import Fragments, Numbers, Texts

TITLES, SHARE = 8, 0.0025
"""Titles that a phrase stands in at least, and their share of all."""
TOGETHER = 5.0
"""Logarithm of how much more often its tokens stand together than by chance, at least."""
VARIETY = 0.7
"""Different tokens on either side of it for each place with a neighbor there, at least."""
OPEN = 0.5
"""Neighbors to a place, on both sides together, at least: ends of titles and habits are none."""
BEGINS = 0.5
"""Share of its places that begin a title, at most: honest titles often begin alike."""
WEIGHT, LOUDEST = 6.5, 4.0
"""Log-odds that a phrase gains if it is the only one, and what it is raised to at most."""


def raised(odds: Numbers, found: Fragments, texts: Texts, habit: NDArray[np.bool_]) -> Numbers:
    """Return the log-odds of fragments with those of phrases that stand anywhere raised, shape `[fragments]`.

    Args:
        odds: Log-odds of each fragment.
        found: The fragments.
        texts: What they were found in.
        habit: Which are a habit of the catalogue, shape `[fragments]`.
    """
    chosen = anywhere(found, texts, habit)
    if not chosen.any():
        return odds
    holding = np.unique(found.row[chosen[found.number]]).size
    gained = odds + WEIGHT + np.log(found.titles / holding)
    return np.where(chosen, np.maximum(odds, np.minimum(gained, LOUDEST)), odds)


def anywhere(found: Fragments, texts: Texts, habit: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which fragments are phrases that stand anywhere; see `raised`."""
    many = max(TITLES, SHARE * found.many)
    likely = (found.pieces >= 2) & (found.titles >= many) & (found.together >= TOGETHER) & ~habit
    places = np.flatnonzero(likely[found.number])
    if not len(places):
        return likely
    start, length = found.start[places], found.length[places]
    row, number = found.row[places], found.number[places]
    usual = np.zeros(len(texts.token), dtype=bool)
    single = found.length == 1
    usual[found.start[single]] = habit[found.number[single]]
    sums = np.concatenate([[0], np.cumsum(usual)])
    first, last = start == texts.offsets[row], start + length == texts.offsets[row + 1]
    count = np.bincount(number, minlength=len(likely)).clip(min=1)
    before, variety = _neighbors(texts.token, number, np.maximum(start - 1, 0), first, usual, len(likely))
    behind, other = _neighbors(texts.token, number, start + length - last, last, usual, len(likely))
    holds_usual = np.bincount(number, sums[start + length] > sums[start], len(likely)) > 0
    begins = np.bincount(number, first, len(likely)) / count
    varied = (np.minimum(variety, other) >= VARIETY) & (before + behind >= OPEN * count)
    return likely & varied & (begins < BEGINS) & ~holds_usual


def _neighbors(
    token: Index, number: Offset, at: Offset, border: NDArray[np.bool_], usual: NDArray[np.bool_], fragments: int
) -> tuple[Offset, Numbers]:
    """Return how many places of each fragment have a neighbor on a side, and how many different ones to each of them.

    Args:
        token: All tokens.
        number: The fragment of each place.
        at: Where its neighbor is.
        border: Which places have none.
        usual: Which tokens are a habit of the catalogue, and no neighbors.
        fragments: How many there are.
    """
    there = ~border & ~usual[at]
    count = np.bincount(number[there], minlength=fragments)
    pairs = np.unique(np.stack([number[there], token[at[there]]]), axis=1)
    different = np.bincount(pairs[0], minlength=fragments)
    return count, np.where(count > 0, different / count.clip(min=1), 1.0)
