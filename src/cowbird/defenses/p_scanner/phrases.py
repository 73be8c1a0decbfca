"""Phrases that stand anywhere: tokens that keep to each other, and to nothing else.

An attacker who knows the scanner takes words that the reader finds ordinary and puts them in the middle of titles
(`cowbird.attacks.adaptive_badrec`): *Sin Bob*. No mark tells her trigger. But a phrase that people use has its company:
*the Story of*, *for a Killer*. Hers was put into titles that have nothing to do with each other, so what stands before
and behind it is nearly always something else, while its own tokens go together far more often than by chance. In
MovieLens-100K and Last.FM no clean phrase does that in as many titles as a trigger needs, in MovieLens-1M one does:
*a.k.a.*. Nor does it help her to take a word that stands everywhere with one that stands nowhere else, *of Orlando*:
people who write the second in many titles do not always write the first before it.

Where many phrases are like that, such as names of brands, each says little: a phrase counts by its share of the titles
that hold one of them. Signs have habits of their own (*, La* behind a name), so a phrase with a habitual one is none. A
trigger of a single token, or one that begins titles or stands behind what ends all of them, is not found this way.
"""

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Index, Offset
from cowbird.defenses.p_scanner.fragments import Fragments, Numbers, Texts

TITLES, SHARE = 8, 0.0025
"""Titles that a phrase stands in at least, and their share of all."""
TOGETHER = 5.0
"""Logarithm of how much more often its tokens stand together than by chance, at least."""
ALONE = 1.1
"""Titles with one of its tokens for each with the phrase, at most: then that token stands nowhere else, and the others
may be as usual as they like."""
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
    likely = (found.pieces >= 2) & (found.titles >= many) & ~habit
    likely &= _keeps(found, texts, habit, likely)
    places = np.flatnonzero(likely[found.number])
    if not len(places):
        return likely
    start, length = found.start[places], found.length[places]
    row, number = found.row[places], found.number[places]
    usual = _usual(found, texts, habit)
    first, last = start == texts.offsets[row], start + length == texts.offsets[row + 1]
    count = np.bincount(number, minlength=len(likely)).clip(min=1)
    before, variety = _neighbors(texts.token, number, np.maximum(start - 1, 0), first, usual, len(likely))
    behind, other = _neighbors(texts.token, number, start + length - last, last, usual, len(likely))
    begins = np.bincount(number, first, len(likely)) / count
    varied = (np.minimum(variety, other) >= VARIETY) & (before + behind >= OPEN * count)
    return likely & varied & (begins < BEGINS)


def _usual(found: Fragments, texts: Texts, habit: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which tokens are a habit of the catalogue, shape `[marks]`."""
    usual, single = np.zeros(len(texts.token), dtype=bool), found.length == 1
    usual[found.start[single]] = habit[found.number[single]]
    return usual


def _keeps(found: Fragments, texts: Texts, habit: NDArray[np.bool_], likely: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which of the likely fragments' tokens keep to each other, shape `[fragments]`."""
    keeps = np.zeros(len(likely), dtype=bool)
    places = np.flatnonzero(likely[found.number])
    number, first = np.unique(found.number[places], return_index=True)
    if not len(number):
        return keeps
    place = places[first]
    reach = np.arange(int(found.length[place].max()))
    inside = reach < found.length[place][:, None]
    at = np.where(inside, found.start[place][:, None] + reach, found.start[place][:, None])
    usual, single = _usual(found, texts, habit), found.length == 1
    often = np.zeros(len(usual), dtype=np.int64)
    often[found.start[single]] = found.titles[found.number[single]]
    sign = np.zeros_like(usual) if texts.signs is None else usual & texts.signs
    alone = (~usual[at] & (often[at] <= ALONE * found.titles[number][:, None]) & inside).any(axis=1)
    plain = ~(usual[at] & inside).any(axis=1)
    keeps[number] = (plain & (found.together[number] >= TOGETHER)) | (alone & ~(sign[at] & inside).any(axis=1))
    return keeps


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
