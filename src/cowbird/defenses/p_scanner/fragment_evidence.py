"""What titles that share something say together: evidence on fragments that recur in a catalogue, at any share.

A fragment is a stretch of one to four words, the shape of a word at its place, a character that is no plain letter,
the mark that ends a title, or the fact that a word stands twice. A trigger is a fragment; so are brands, units and
editions. What tells them apart does not depend on how many titles share the fragment:

- what the tagger says of the fragment, over all its titles;
- whether its titles are alike otherwise: a brand's are, a trigger's are drawn at random;
- whether it stands at one place, and beside how many different words;
- whether it is new, where titles from before (a reference) are known.

`scoring` makes log-odds of these numbers (`FRAGMENT_FEATURES`). Nothing here borders on a share: counts enter as
logarithms.
"""

from array import array
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from cowbird.data.types import Float32Array, Int64Array, concat_ranges
from cowbird.defenses.p_scanner.title_evidence import NO_MARK, MarkedWords, TitleTraits
from cowbird.defenses.p_scanner.title_rules import WORD_KINDS, classify_text, count_word, write_shape

MAX_PHRASE_WORDS = 4
"""Words of the longest fragment; a longer trigger is several fragments."""
HEAD_WORDS, TAIL_WORDS = 48, 16
"""Words of a longer title whose fragments count: so many of its beginning, so many of its end."""
MIN_TITLES_SHARING = 2
"""Titles from which a fragment is one."""
MAX_TITLES_COMPARED = 60
"""Titles of a fragment that are compared with each other."""
MAX_RECURRING_FRAGMENTS = 500_000
"""Fragments of a catalogue that are described at most."""
FRAGMENT_TYPES = ("one word", "two words", "three words", "four words", "shape", "character", "end", "repeated")
"""Kinds of fragments."""
FRAGMENT_FEATURES = (
    "count",
    "share",
    "mean mark",
    "mean mark in standard errors",
    "mean title log-odds",
    "mean title log-odds in standard errors",
    "first",
    "between",
    "last",
    "different words before",
    "different words behind",
    "likeness of its titles",
    "the most suspicious of its title",
    "growth of its share",
    "whether a reference is known",
    "length",
    "median mark",
    "lower quartile of marks",
    *FRAGMENT_TYPES,
    *WORD_KINDS,
)
"""What `describe_fragments` returns, in order; counts and shares as logarithms."""
FragmentKey = tuple[str, str]
"""A fragment's type and text; words that stand alone have no type of their own but `word`."""
_PLACES = "^.$"


@dataclass
class FragmentNames:
    """Numbers fragments and words in the order in which they are first seen."""

    fragments: dict[FragmentKey, int] = field(default_factory=dict[FragmentKey, int])
    """Fragments by what they are."""
    words: dict[str, int] = field(default_factory=dict[str, int])
    """Words, by their text in small letters without marks; and by their raw text, with a blank before it."""

    _listed: list[FragmentKey] = field(default_factory=list[FragmentKey])

    def list_keys(self) -> list[FragmentKey]:
        """Return all fragments in the order of their numbers."""
        if len(self._listed) != len(self.fragments):
            self._listed = list(self.fragments)
        return self._listed

    def number(self, key: FragmentKey) -> int:
        """Return the number of a fragment."""
        return self.fragments.setdefault(key, len(self.fragments))

    def number_word(self, word: str) -> int:
        """Return the number of a word."""
        return self.words.setdefault(word, len(self.words))


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
        names: Numbers fragments and words; grows.
        wanted: Fragments that are listed, such as `find_recurring` returns; `None` lists all.
    """
    # Flat arrays, for a catalogue of long titles has millions of places: tuples would take six times the memory.
    numbers, high, sizes = array("q"), array("f"), [0]
    known, known_sizes = array("q"), [0]
    marks: list[float] = words.mark.tolist()
    for first, last in pairwise(words.offsets.tolist()):
        text = words.text[first:last]
        for number, kind, mark, place, before, behind in _list_occurrences(text, marks[first:last], names, wanted):
            numbers.extend((number, kind, place, before, behind))
            high.append(mark)
        sizes.append(len(high))
        counted = (text[nth] for nth in list_counted_places(len(text)))
        known.extend(sorted({names.number_word(count_word(word)) for word in counted}))
        known_sizes.append(len(known))
    fragment, kind, place, before, behind = np.array(numbers, dtype=np.int64).reshape(-1, 5).T.copy()
    return FragmentTable(
        names,
        fragment,
        kind,
        np.array(high, dtype=np.float32),
        place,
        before,
        behind,
        np.array(sizes, dtype=np.int64),
        np.array(known, dtype=np.int64),
        np.array(known_sizes, dtype=np.int64),
    )


def list_counted_places(words: int) -> list[int]:
    """Return which of a title's words count: all of them, or beginning and end of a long title."""
    if words <= HEAD_WORDS + TAIL_WORDS:
        return list(range(words))
    return [*range(HEAD_WORDS), *range(words - TAIL_WORDS, words)]


def list_keys(text: Sequence[str]) -> Iterator[tuple[FragmentKey, int, int, int]]:
    """Yield the fragments of a title's words: what each is, its type, and its first and last word."""
    many = len(text)
    for nth in list_counted_places(many):
        word = text[nth]
        for size in range(1, min(MAX_PHRASE_WORDS, many - nth) + 1):
            yield ("word", " ".join(text[nth : nth + size])), size - 1, nth, nth + size - 1
        place = 0 if nth == 0 else 2 if nth == many - 1 else 1
        yield ("shape", f"{_PLACES[place]} {write_shape(word)}"), 4, nth, nth
        for character in sorted(set(word)):
            if not (character.isascii() and character.isalnum()):
                yield ("character", character), 5, nth, nth
        if nth and word.lower() == text[nth - 1].lower():
            yield ("repeated", ""), 7, nth, nth
    if many:
        end = text[-1][-1]
        yield ("end", "" if end.isalnum() else end), 6, many - 1, many - 1


def _list_occurrences(
    text: Sequence[str], marks: Sequence[float], names: FragmentNames, wanted: Container[FragmentKey] | None
) -> list[tuple[int, int, float, int, int, int]]:
    """Return fragment, type, mark, place and neighbors of all that stands in one title, each fragment once."""
    found: dict[int, tuple[int, int, float, int, int, int]] = {}
    many = len(text)

    def number_raw(nth: int) -> int:
        return names.number_word(f" {text[nth]}") if 0 <= nth < many else -1

    for key, kind, first, last in list_keys(text):
        if wanted is not None and key not in wanted:
            continue
        number = names.number(key)
        if number not in found:
            place = 0 if first == 0 else 2 if last == many - 1 else 1
            beside = (first - 1, last + 1) if key[0] == "word" else (first, last)
            before, behind = number_raw(beside[0]), number_raw(beside[1])
            found[number] = (number, kind, max(marks[first : last + 1]), place, before, behind)
    return list(found.values())


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
    """Return the fragments that stand in several titles, with eight bytes a place and none for their texts.

    If there are more than `most`, those that stand in the fewest titles are left out: all that stand in as few.

    Args:
        words: The titles.
        most: How many are returned at most.
    """
    seen = array("q")
    for first, last in pairwise(words.offsets.tolist()):
        seen.extend({hash(key) for key, *_ in list_keys(words.text[first:last])})
    hashes, counts = np.unique(np.frombuffer(seen, dtype=np.int64), return_counts=True)
    fewest = MIN_TITLES_SHARING
    while int((counts >= fewest).sum()) > most:
        fewest += 1
    return HashedKeys(hashes[counts >= fewest].tolist())


@dataclass(frozen=True, eq=False)
class FragmentEvidence:
    """Fragments that recur in a catalogue."""

    fragment: Int64Array
    """Their numbers, increasing, shape `[fragments]`."""
    features: Float32Array
    """Shape `[fragments, FRAGMENT_FEATURES]`."""
    of: Int64Array
    """Which of them each occurrence is of, shape `[occurrences]`; occurrences of others are left out."""
    title: Int64Array
    """The title of each occurrence, as a place in the catalogue."""


def count_fragments(table: FragmentTable, rows: Int64Array) -> Int64Array:
    """Return in how many titles each fragment stands, shape `[fragments that are numbered]`."""
    places = concat_ranges(table.offsets[rows], table.offsets[np.asarray(rows) + 1] - table.offsets[rows])
    return np.bincount(table.fragment[places], minlength=len(table.names.fragments))


def describe_fragments(
    table: FragmentTable, traits: TitleTraits, rows: Int64Array, reference: tuple[Int64Array, int] | None = None
) -> FragmentEvidence:
    """Return what is known of the fragments that recur in a catalogue.

    Args:
        table: Fragments of titles, among them the catalogue's.
        traits: The same titles.
        rows: Which of them are the catalogue, shape `[titles]`.
        reference: Counts of fragments among titles from before (`count_fragments`), and how many titles that were.
    """
    rows = np.asarray(rows)
    many = len(rows)
    sizes = table.offsets[rows + 1] - table.offsets[rows]
    places, title = concat_ranges(table.offsets[rows], sizes), np.repeat(np.arange(many), sizes)
    known, inverse, counts = np.unique(table.fragment[places], return_inverse=True, return_counts=True)
    keep = counts >= MIN_TITLES_SHARING
    kept = np.flatnonzero(keep[inverse])
    of = (np.cumsum(keep) - 1)[inverse[kept]]
    places, title, fragment, count = places[kept], title[kept], known[keep], counts[keep].astype(np.float64)
    share = count / max(many, 1)

    def average(values: Float32Array) -> Float32Array:
        return (np.bincount(of, values, len(fragment)) / count).astype(np.float32)

    mark, verdict = table.mark[places], traits.words.verdict[rows]
    errors = np.sqrt(np.minimum(count, 50))
    mean, title_mean = average(mark), average(verdict[title])
    order = np.argsort(of, kind="stable")
    borders = np.concatenate([[0], np.cumsum(counts[keep])])
    if reference is None:
        growth = np.zeros(len(fragment))
    else:
        before = reference[0]
        if len(before) < len(table.names.fragments):
            before = np.concatenate([before, np.zeros(len(table.names.fragments) - len(before), dtype=np.int64)])
        growth = np.log((share + 0.5 / max(many, 1)) / ((before[fragment] + 0.5) / reference[1]))
    names = table.names.list_keys()
    numbers: list[int] = fragment.tolist()
    keys = [names[number] for number in numbers]
    kinds = np.array([classify_text(key[1]) if key[0] == "word" else 0 for key in keys], dtype=np.int64)
    length = np.array([np.log1p(len(key[1])) if key[0] == "word" else 0.0 for key in keys])
    first = order[borders[:-1]]
    features = np.column_stack(
        [
            np.log(count),
            np.log(share),
            mean,
            np.clip((mean - mark.mean()) / (mark.std() + 1e-3) * errors, -30, 60) if len(mark) else mean,
            title_mean,
            np.clip((title_mean - verdict.mean()) / (verdict.std() + 1e-3) * errors, -30, 60) if many else mean,
            *(average((table.place[places] == place).astype(np.float32)) for place in range(3)),
            _count_different(of, table.before[places], len(fragment)) / count,
            _count_different(of, table.behind[places], len(fragment)) / count,
            _compare_titles(table, rows, title[order], borders),
            average((mark >= traits.highest[rows][title] - 1e-3).astype(np.float32)),
            growth,
            np.full(len(fragment), float(reference is not None)),
            length,
            *_measure_quantiles(mark[order], borders),
            np.eye(len(FRAGMENT_TYPES))[table.type[places][first]],
            np.eye(len(WORD_KINDS))[kinds],
        ]
    )
    return FragmentEvidence(fragment, features.astype(np.float32), of, title)


def _count_different(of: Int64Array, values: Int64Array, many: int) -> Int64Array:
    """Return how many different values each fragment has."""
    if not len(of):
        return np.zeros(many, dtype=np.int64)
    order = np.lexsort((values, of))
    owner, value = of[order], values[order]
    new = np.concatenate([[True], (owner[1:] != owner[:-1]) | (value[1:] != value[:-1])])
    return np.bincount(owner[new], minlength=many)


def _compare_titles(table: FragmentTable, rows: Int64Array, title: Int64Array, borders: Int64Array) -> Float32Array:
    """Return how alike the titles of each fragment are, beside words that stand in all of them.

    The logarithm of how many words two of its titles share, over how many any two titles of the catalogue share.
    """
    sizes = table.word_offsets[rows + 1] - table.word_offsets[rows]
    word = table.word[concat_ranges(table.word_offsets[rows], sizes)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    total = np.bincount(word, minlength=1).astype(np.float64)
    many = max(len(rows), 2)
    usual = float((total * (total - 1)).sum() / (many * (many - 1)))
    alike = np.zeros(len(borders) - 1, dtype=np.float32)
    for nth, (first, last) in enumerate(pairwise(borders.tolist())):
        chosen = title[first:last]
        if len(chosen) > MAX_TITLES_COMPARED:
            chosen = chosen[:: len(chosen) // MAX_TITLES_COMPARED + 1]
        size = len(chosen)
        if size < MIN_TITLES_SHARING:
            continue
        held = word[concat_ranges(starts[chosen], sizes[chosen])]
        _, count = np.unique(held, return_counts=True)
        count = count[count < size] if size > MIN_TITLES_SHARING else count
        alike[nth] = np.log(((count * (count - 1.0)).sum() / (size * (size - 1.0)) + 0.02) / (usual + 0.02))
    return alike


def _measure_quantiles(mark: Float32Array, borders: Int64Array) -> tuple[Float32Array, Float32Array]:
    """Return median and lower quartile of each fragment's marks; the lowest one for fewer than eight."""
    middle, low = (np.full(len(borders) - 1, NO_MARK, dtype=np.float32) for _ in range(2))
    for nth, (first, last) in enumerate(pairwise(borders.tolist())):
        values = mark[first:last]
        middle[nth] = np.median(values)
        low[nth] = values.min() if len(values) < 8 else np.partition(values, len(values) // 4)[len(values) // 4]
    return middle, low
