"""Which titles of a catalogue are taken for clean before anything was learned.

A catalogue may be poisoned already. A trigger that is learned as clean is never found, so titles with something that
recurs in an odd way are left out of what is learned: tokens that stand together in several titles far more often than
by chance, or one that keeps to the end of titles. Many honest titles are left out with them; the reader that comes of
the rest then says which of them can be trusted after all. It has to be asked about the odd fragments, not about whole
titles: a trigger that is not suspicious enough once would be learned as clean from then on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cowbird.defenses.p_scanner.rounds.common_patterns import list_kept_rules, list_tokens
from cowbird.defenses.p_scanner.rounds.ngrams import Ngrams, find_ngrams
from cowbird.defenses.p_scanner.token_logits import TokenizedTitles, TokenLogits

MIN_TITLES_PER_FRAGMENT = 4
"""Titles that hold a fragment from which it can be a trigger; in a large catalogue `MIN_ODD_SHARE` of all."""
MIN_ODD_SHARE = 0.002
MAX_FRAGMENT_SHARE = 0.05
"""Share of the titles above which a fragment is an ordinary one, digits told alike."""
ODD_ASSOCIATION = 3.0
"""Log of how much more often tokens stand together than by chance, from which that is odd."""
EDGE_SHARE = 0.8
"""Share of its places at the end of titles from which a token keeps to it."""
MIN_TRUSTED_SHARE = 0.4
"""Share of the titles that is trusted in any case: those with the least that is odd."""
ORDINARY_TOKEN_SHARE = 0.9
"""Share of the tokens of honest titles whose marks say what is ordinary."""
MAX_TRUSTED_ALIKE = 2
"""Of titles that begin alike, and have nothing else that is odd, so many are trusted: honest titles often do."""


@dataclass(frozen=True, slots=True, eq=False)
class CleanSubset:
    """What is odd in the titles of a catalogue, and which titles are taken for clean."""

    found: Ngrams
    """The catalogue's fragments."""
    odd: NDArray[np.bool_]
    """Which of them recur in an odd way, or begin several titles, shape `[fragments]`."""
    broken: NDArray[np.bool_]
    """Which titles break a rule that the catalogue holds to, shape `[titles]`."""
    trusted: NDArray[np.bool_]
    """Which titles are taken for clean at first, shape `[titles]`."""

    def revise(self, marks: TokenLogits, unlearned: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which titles are taken for clean once a reader that learned from the trusted ones has marked all.

        It never learned what is odd in the others, so it tells what belongs there: a doubted title is trusted after all
        if each odd fragment in it is marked, wherever it stands, no higher than most tokens of honest titles are. What
        breaks a rule stays out.

        Args:
            marks: Its marks of the catalogue.
            unlearned: Titles that it did not learn from, shape `[titles]`.
        """
        honest = marks.mark[(self.trusted & unlearned)[marks.rows]]
        if not len(honest):
            return self.trusted
        high = self.odd & (self.found.means(marks.mark) > np.quantile(honest, ORDINARY_TOKEN_SHARE))
        doubtful = self.broken.copy()
        doubtful[self.found.row[high[self.found.number]]] = True
        return self.trusted | ~doubtful


def choose_clean_subset(titles: Sequence[str], made: TokenizedTitles, rng: np.random.Generator) -> CleanSubset:
    """Return what is odd in the titles of a catalogue.

    Args:
        titles: The catalogue's, all different.
        made: The same as tokens.
        rng: Draws which of several titles that begin alike are trusted.
    """
    many = len(titles)
    found = find_ngrams(list_tokens(titles, made))
    recurs = (found.titles >= max(MIN_TITLES_PER_FRAGMENT, MIN_ODD_SHARE * many)) & (
        found.alike <= MAX_FRAGMENT_SHARE * many
    )
    first = found.start == made.offsets[found.row]
    begins = np.bincount(found.number, first, len(found.titles)) / np.maximum(np.bincount(found.number), 1)
    pairs = (found.pieces >= 2) & (found.pmi >= ODD_ASSOCIATION) & (begins < EDGE_SHARE)
    ends = (found.pieces == 1) & (found.edge >= EDGE_SHARE) & (begins < EDGE_SHARE)
    level = np.zeros(many)
    odd = recurs & (pairs | ends)
    places = np.flatnonzero(odd[found.number])
    # One token stands together with nothing, so that its log is zero, give or take what rounding makes of it.
    oddity = (1 + np.maximum(found.pmi, 0)) * np.log(found.titles)
    np.maximum.at(level, found.row[places], oddity[found.number[places]])
    rules = np.zeros(many, dtype=bool)
    for _, _, broken in list_kept_rules(titles):
        rules |= broken
    level[rules] = np.inf
    # Where nearly everything recurs, as in scripts whose letters are several tokens, the least odd titles are trusted.
    doubtful = level > max(0.0, float(np.quantile(level, MIN_TRUSTED_SHARE, method="lower")) if many else 0.0)
    alike = recurs & (begins >= EDGE_SHARE)
    places = np.flatnonzero(alike[found.number] & first & ~doubtful[found.row])
    places = places[np.argsort(rng.random(many)[found.row[places]], kind="stable")]
    places = places[np.argsort(found.number[places], kind="stable")]
    number = found.number[places]
    nth = np.arange(len(places)) - np.searchsorted(number, number)
    doubtful[found.row[places[nth >= MAX_TRUSTED_ALIKE]]] = True
    return CleanSubset(found, odd | alike, rules, ~doubtful)
