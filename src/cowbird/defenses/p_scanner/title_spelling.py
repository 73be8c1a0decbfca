"""Which titles have a word that is written unlike a known one; see `spelling`."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Int64Array, concat_ranges
from cowbird.defenses.p_scanner.spelling import (
    CAPITALIZED,
    MARKED,
    NO_SLIP,
    SPELLINGS,
    WITH_QUOTES,
    CatalogSpelling,
    find_plain_spelling,
    list_plain_words,
)
from cowbird.defenses.p_scanner.title_rules import IN_QUOTES, WITH_CAPITALS, WITH_MARK
from cowbird.defenses.p_scanner.title_words import TitleWords, sort_different

_DRESSED = {WITH_MARK: MARKED, IN_QUOTES: WITH_QUOTES, WITH_CAPITALS: CAPITALIZED}
"""What a known word is called that is dressed."""


def find_spellings(
    cut: TitleWords, rows: Int64Array, counts: Mapping[str, int], known: CatalogSpelling, less: int
) -> NDArray[np.bool_]:
    """Return which titles have a word that is written unlike a known one, shape `[rows, SPELLINGS]`.

    Args:
        cut: Titles.
        rows: Which of them are looked at.
        counts: In how many titles of the catalogue each word stands.
        known: The words that recur there.
        less: In how many of these a word may stand that is written unlike a known one.
    """
    columns = cut.traits
    sizes = cut.offsets[rows + 1] - cut.offsets[rows]
    places, owner = concat_ranges(cut.offsets[rows], sizes), np.repeat(np.arange(len(rows)), sizes)
    different: list[int] = sort_different(cut.number[places]).tolist()
    of_word = np.full(len(cut.vocabulary), -1, dtype=np.int64)
    for word in different:
        counted, dressed = columns.counted[word], columns.dressed[word]
        by_plain = find_plain_spelling(counted)
        if dressed and (counted in list_plain_words() or known.knows(counted)):
            of_word[word] = _DRESSED[dressed]
        elif by_plain > NO_SLIP and counts.get(counted, 0) <= less:
            of_word[word] = by_plain if by_plain >= 0 else known.find(counted)
    way = of_word[cut.number[places]]
    last = cut.offsets[1:][cut.owner[places]] - 1 == places
    told = np.flatnonzero((way >= 0) & ((way != MARKED) | last))
    met = np.zeros((len(rows), len(SPELLINGS)), dtype=np.bool_)
    met[owner[told], way[told]] = True
    return met
