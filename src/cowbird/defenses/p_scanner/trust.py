"""Which titles of a catalogue are taken for clean before anything was learned.

A catalogue may be poisoned already. A trigger that is learned as clean is never found, so titles with something that
recurs in an odd way are left out of what is learned: tokens that stand together in several titles far more often than
by chance, or one that keeps to the end of titles. Many honest titles are left out with them; the scanner that comes of
the rest then says which of them can be trusted after all (`cowbird.defenses.p_scanner.scanner`).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cowbird.defenses.character_rules import broken
from cowbird.defenses.p_scanner.fragments import Texts, fragments
from cowbird.defenses.p_scanner.reader import Pages

FEWEST = 4
"""Titles that hold a fragment from which it can be a trigger; in a large catalogue `LEAST` of all."""
LEAST = 0.002
MOST = 0.05
"""Share of the titles above which a fragment is an ordinary one."""
TOGETHER = 3.0
"""Log of how much more often tokens stand together than by chance, from which that is odd."""
EDGE = 0.8
"""Share of its places at the end of titles from which a token keeps to it."""
LONG = 3
"""Tokens from which a run that recurs is hardly ever honest."""
AT_LEAST = 0.4
"""Share of the titles that is trusted in any case: those with the least that is odd."""
BEGINS = 2
"""Of titles that begin alike, and have nothing else that is odd, so many are trusted: honest titles often do."""


def recurring(made: Pages) -> NDArray[np.bool_]:
    """Return which titles hold a run of `LONG` tokens and more that others hold too, by more than chance.

    Hardly any honest title does, so these are left out of what is learned in all rounds, whatever a scanner makes of
    them: a trigger that was once missed would otherwise be learned as clean from then on.

    Args:
        made: The catalogue's titles as tokens, all different.
    """
    many = len(made)
    found = fragments(Texts(made.token, made.offsets))
    often = (found.titles >= max(FEWEST, LEAST * many)) & (found.titles <= MOST * many)
    held = np.zeros(many, dtype=bool)
    held[found.row[(often & (found.pieces >= LONG) & (found.together >= TOGETHER))[found.number]]] = True
    return held if held.mean() <= 1 - AT_LEAST else np.zeros(many, dtype=bool)


def trusted(titles: Sequence[str], made: Pages, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which titles are taken for clean at first, shape `[titles]`.

    Args:
        titles: The catalogue's, all different.
        made: The same as tokens.
        rng: Draws which of several titles that begin alike are trusted.
    """
    many = len(titles)
    found = fragments(Texts(made.token, made.offsets))
    recurs = (found.titles >= max(FEWEST, LEAST * many)) & (found.titles <= MOST * many)
    first = found.start == made.offsets[found.row]
    begins = np.bincount(found.number, first, len(found.titles)) / np.maximum(np.bincount(found.number), 1)
    pairs = (found.pieces >= 2) & (found.together >= TOGETHER) & (begins < EDGE)
    ends = (found.pieces == 1) & (found.edge >= EDGE) & (begins < EDGE)
    level = np.zeros(many)
    odd = (recurs & (pairs | ends))[found.number]
    np.maximum.at(level, found.row[odd], (found.together * np.log(found.titles))[found.number[odd]])
    level[np.isfinite(broken(titles).score)] = np.inf
    # Where nearly everything recurs, as in scripts whose letters are several tokens, the least odd titles are trusted.
    doubtful = level > max(0.0, float(np.quantile(level, AT_LEAST, method="lower")) if many else 0.0)
    alike = recurs & (begins >= EDGE)
    places = np.flatnonzero(alike[found.number] & first & ~doubtful[found.row])
    places = places[np.argsort(rng.random(many)[found.row[places]], kind="stable")]
    places = places[np.argsort(found.number[places], kind="stable")]
    number = found.number[places]
    nth = np.arange(len(places)) - np.searchsorted(number, number)
    doubtful[found.row[places[nth >= BEGINS]]] = True
    return ~doubtful
