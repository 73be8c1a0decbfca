"""Which fragments stand in which titles: each has a number, and a table lists where it stands.

A fragment is a stretch of one to four words, the shape of a word at its place, a character that is no plain letter, the
mark that ends a title, or the fact that a word stands twice (`fragment_index`). `fragment_evidence` says what a
fragment's titles tell of it.
"""

from collections.abc import Container, Iterable
from dataclasses import dataclass, field

import numpy as np

from cowbird.data.types import Float32Array, Int64Array, concat_ranges
from cowbird.defenses.p_scanner.fragment_index import (
    MAX_PHRASE_WORDS,
    FragmentKey,
    FragmentPlaces,
    find_counted,
    hash_fragment,
    list_places,
    write_keys,
)
from cowbird.defenses.p_scanner.title_traits import MarkedWords
from cowbird.defenses.p_scanner.title_words import TitleWords, sort_different

MIN_TITLES_SHARING = 2
"""Titles from which a fragment is one."""
MAX_RECURRING_FRAGMENTS = 500_000
"""Fragments of a catalogue that are described at most."""


@dataclass
class FragmentNames:
    """Numbers fragments in the order in which they are first seen."""

    fragments: dict[FragmentKey, int] = field(default_factory=dict[FragmentKey, int])
    """Fragments by what they are."""
    _listed: list[FragmentKey] = field(default_factory=list[FragmentKey])
    _hashed: list[int] = field(default_factory=list[int])

    def list_keys(self) -> list[FragmentKey]:
        """Return all fragments in the order of their numbers."""
        if len(self._listed) != len(self.fragments):
            self._listed = list(self.fragments)
        return self._listed

    def list_hashes(self) -> list[int]:
        """Return the hash of each fragment in the order of their numbers (`hash_fragment`)."""
        if len(self._hashed) != len(self.fragments):
            self._hashed = [hash_fragment(key) for key in self.fragments]
        return self._hashed

    def number(self, key: FragmentKey) -> int:
        """Return the number of a fragment."""
        return self.fragments.setdefault(key, len(self.fragments))


@dataclass(frozen=True, eq=False)
class FragmentTable:
    """Which fragments stand in which titles."""

    names: FragmentNames
    """What the numbers stand for."""
    fragment: Int64Array
    """Of each occurrence, shape `[occurrences]`, in the order of the titles; once a title."""
    type: Int64Array
    """Its type, a place in `FRAGMENT_TYPES`."""
    mark: Float32Array
    """Highest mark of its words."""
    place: Int64Array
    """0 for the first words of the title, 2 for the last, 1 between."""
    before: Int64Array
    """The word before it, -1 where there is none."""
    behind: Int64Array
    """The word behind it."""
    offsets: Int64Array
    """Where each title's occurrences begin, shape `[titles + 1]`."""
    word: Int64Array
    """The different words of all titles."""
    word_offsets: Int64Array
    """Where each title's words begin, shape `[titles + 1]`."""


def index_fragments(
    words: MarkedWords, names: FragmentNames, wanted: Container[FragmentKey] | None = None
) -> FragmentTable:
    """List the fragments of titles.

    Args:
        words: The titles.
        names: Numbers fragments; grows.
        wanted: Fragments that are listed, such as `find_recurring` returns; `None` lists all.
    """
    cut = words.cut
    places, fragment = _number_places(cut, list_places(cut), names, wanted)
    at, kind, owner = places.at, places.type, cut.owner
    last = at + np.where(kind < MAX_PHRASE_WORDS, kind, 0)
    mark = words.mark[at]
    for more in range(1, MAX_PHRASE_WORDS):
        longer = at + more <= last
        mark[longer] = np.maximum(mark[longer], words.mark[at[longer] + more])
    begin, end = cut.offsets[owner[at]], cut.offsets[owner[at] + 1]
    whole = (kind < MAX_PHRASE_WORDS).astype(np.int64)  # of other fragments the word itself is beside them
    before, behind = at - whole, last + whole
    number = np.append(cut.number, -1)
    _, counted_of = cut.counted
    held = find_counted(cut)
    many = max(1, len(cut.vocabulary))
    title, word = np.divmod(sort_different(owner[held] * many + counted_of[cut.number[held]]), many)
    rows = np.arange(len(cut) + 1)
    return FragmentTable(
        names,
        fragment,
        kind,
        mark,
        np.where(at == begin, 0, np.where(last == end - 1, 2, 1)),
        number[np.where(before >= begin, before, -1)],
        number[np.where(behind < end, behind, -1)],
        np.searchsorted(owner[at], rows).astype(np.int64),
        word,
        np.searchsorted(title, rows).astype(np.int64),
    )


def _number_places(
    cut: TitleWords, places: FragmentPlaces, names: FragmentNames, wanted: Container[FragmentKey] | None
) -> tuple[FragmentPlaces, Int64Array]:
    """Return the wanted of some fragments, and their numbers; new ones are numbered in the order of their places."""
    _, first, which = np.unique(places.number, return_index=True, return_inverse=True)
    order = np.argsort(first)
    known = places.take(first[order])
    number = np.empty(len(first), dtype=np.int64)
    number[order] = np.fromiter(
        (-1 if wanted is not None and key not in wanted else names.number(key) for key in write_keys(cut, known)),
        np.int64,
        len(first),
    )
    fragment = number[which]
    if wanted is None:
        return places, fragment
    kept = fragment >= 0
    return places.take(kept), fragment[kept]


class HashedKeys:
    """Fragments by their hashes; one of another may be taken for one of them, which does no harm.

    Args:
        hashes: What `hash` returns for them.
    """

    def __init__(self, hashes: Iterable[int]) -> None:
        self._hashes = frozenset(hashes)

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, key: object) -> bool:
        return hash(key) in self._hashes


def find_recurring(words: MarkedWords, most: int = MAX_RECURRING_FRAGMENTS) -> HashedKeys:
    """Return the fragments that stand in several titles; of others no text is written.

    If there are more than `most`, those that stand in the fewest titles are left out: all that stand in as few.

    Args:
        words: The titles.
        most: How many are returned at most.
    """
    places = list_places(words.cut)
    _, first, counts = np.unique(places.number, return_index=True, return_counts=True)
    fewest = MIN_TITLES_SHARING
    while int((counts >= fewest).sum()) > most:
        fewest += 1
    kept = first[counts >= fewest]
    return HashedKeys(map(hash, write_keys(words.cut, places.take(kept))))


def count_fragments(table: FragmentTable, rows: Int64Array) -> Int64Array:
    """Return in how many titles each fragment stands, shape `[fragments that are numbered]`."""
    places = concat_ranges(table.offsets[rows], table.offsets[np.asarray(rows) + 1] - table.offsets[rows])
    return np.bincount(table.fragment[places], minlength=len(table.names.fragments))
