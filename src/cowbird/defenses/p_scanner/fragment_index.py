"""Where fragments stand in titles, found for many titles at once.

`fragment_evidence` says what a fragment is. Here each place of a title where one can begin is an entry of an array, and
words, shapes and characters are numbers. So the fragments of titles are numbered (`list_places`), or searched for those
that a baseline knows (`FragmentIndex`), without a look at any text but those of different words. Phrases are known by
the number of the phrase before their last word, and that word's: nothing is hashed, so nothing is taken for another.
"""

from collections.abc import Iterator, Mapping
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Int64Array, concat_ranges
from cowbird.defenses.p_scanner.title_sample import hash_title
from cowbird.defenses.p_scanner.title_words import TitleWords, number_texts

MAX_PHRASE_WORDS = 4
"""Words of the longest fragment; a longer trigger is several fragments."""
HEAD_WORDS, TAIL_WORDS = 48, 16
"""Words of a longer title whose fragments count: so many of its beginning, so many of its end."""
FRAGMENT_TYPES = ("one word", "two words", "three words", "four words", "shape", "character", "end", "repeated")
"""Kinds of fragments."""
FragmentKey = tuple[str, str]
"""A fragment's type and text; words that stand alone have no type of their own but `word`."""
SHAPE, CHARACTER, END, REPEATED = (FRAGMENT_TYPES.index(name) for name in ("shape", "character", "end", "repeated"))
PLACES = "^.$"
"""How a shape's place is written: first, between, last."""
_ORDER = np.array([0, 1, 2, 3, 4, 5, 7, 6])
"""In which order the fragments of a place are listed, by their type: the end of a title comes last."""


class FragmentPlaces(NamedTuple):
    """Fragments where they stand, in the order of titles and of their words."""

    at: Int64Array
    """First word of each, a place among all words, shape `[places]`."""
    type: Int64Array
    """Its type, a place in `FRAGMENT_TYPES`."""
    number: Int64Array
    """What it is: two of one number are the same fragment."""
    characters: int = 0
    """What the number of a character is more than its code point."""

    def keep_first(self, owner: Int64Array) -> "FragmentPlaces":
        """Return each fragment once a title: where it stands first."""
        title = owner[self.at]
        known = int(self.number.max(initial=0)) + 1
        first = np.sort(np.unique(title * known + self.number, return_index=True)[1])
        return self.take(first)

    def take(self, chosen: Int64Array | NDArray[np.bool_]) -> "FragmentPlaces":
        """Return some of them."""
        return FragmentPlaces(self.at[chosen], self.type[chosen], self.number[chosen], self.characters)


def hash_fragment(key: FragmentKey) -> int:
    """Return a number of 64 bits that a fragment alone decides."""
    return hash_title(f"{key[0]}\0{key[1]}")


def find_counted(words: TitleWords) -> Int64Array:
    """Return which words count, as places: all of a title's, or beginning and end of a long title."""
    sizes = np.diff(words.offsets)
    nth = concat_ranges(np.zeros(len(sizes), dtype=np.int64), sizes)
    many = sizes[words.owner]
    return np.flatnonzero((many <= HEAD_WORDS + TAIL_WORDS) | (nth < HEAD_WORDS) | (nth >= many - TAIL_WORDS))


def list_places(words: TitleWords) -> FragmentPlaces:
    """List the fragments of titles, each once a title, where it stands first."""
    counted = find_counted(words)
    after = words.offsets[1:][words.owner[counted]]
    found: list[tuple[Int64Array, int, Int64Array]] = []
    begin, base = counted, 0
    number = words.number[counted]
    for size in range(1, MAX_PHRASE_WORDS + 1):
        if size > 1:
            fits = begin + size <= after
            begin, after, number = begin[fits], after[fits], number[fits]
            pairs = number * max(1, len(words.vocabulary)) + words.number[begin + size - 1]
            number = np.unique(pairs, return_inverse=True)[1]
        found.append((begin, size - 1, base + number))
        base += int(number.max(initial=-1)) + 1
    shapes, shape_of = words.shapes
    number = words.place[counted] * len(shapes) + shape_of[words.number[counted]]
    found.append((counted, SHAPE, base + number))
    base += len(PLACES) * len(shapes)
    at, code = _list_marks(words, counted)
    found.append((at, CHARACTER, base + code))
    characters = base
    at = _find_repeated(words, counted)
    base += int(code.max(initial=-1)) + 1
    found.append((at, REPEATED, np.full(len(at), base)))
    at, code = _list_ends(words)
    found.append((at, END, base + 1 + code))
    return _sort_places(found)._replace(characters=characters).keep_first(words.owner)


def _sort_places(found: list[tuple[Int64Array, int, Int64Array]]) -> FragmentPlaces:
    """Return fragments of several types in the order in which a title is read."""
    at = np.concatenate([each[0] for each in found])
    kind = np.repeat(np.array([each[1] for each in found]), [len(each[0]) for each in found])
    number = np.concatenate([each[2] for each in found])
    order = np.argsort(at * len(FRAGMENT_TYPES) + _ORDER[kind], kind="stable")
    return FragmentPlaces(at[order], kind[order], number[order])


def _list_marks(words: TitleWords, counted: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return characters of words that are no plain letters and digits: the word, and the code point."""
    marks = words.traits.marks
    size = np.fromiter(map(len, marks), np.int64, len(marks))
    code = np.frombuffer("".join(marks).encode("utf-32-le", "surrogatepass"), dtype=np.int32).astype(np.int64)
    start = np.cumsum(size) - size
    of = words.number[counted]
    return np.repeat(counted, size[of]), code[concat_ranges(start[of], size[of])]


def _find_repeated(words: TitleWords, counted: Int64Array) -> Int64Array:
    """Return the words that are the same as the one before them, but for capitals."""
    _, lower_of = number_texts(words.traits.lower)
    lower = lower_of[words.number]
    first = words.offsets[:-1][words.owner[counted]]
    behind = counted[counted > first]
    return behind[lower[behind] == lower[behind - 1]]


def _list_ends(words: TitleWords) -> tuple[Int64Array, Int64Array]:
    """Return the last word of each title, and 1 more than the code point of the mark that ends it; 0 for none."""
    last = words.offsets[1:][np.diff(words.offsets) > 0] - 1
    number = words.number[last]
    closes = np.array(words.traits.closes, dtype=np.bool_)[number]
    end = np.zeros(len(last), dtype=np.int64)
    ending: list[int] = last[~closes].tolist()
    end[~closes] = [1 + ord(words.text[place][-1]) for place in ending]
    return last, end


def write_key(words: TitleWords, at: int, kind: int, code: int = 0) -> FragmentKey:
    """Return the fragment of a type that stands at a word.

    Args:
        words: Titles.
        at: Its first word.
        kind: Its type.
        code: The character, if it is one.
    """
    if kind < MAX_PHRASE_WORDS:
        return "word", words.text[at] if kind == 0 else " ".join(words.text[at : at + kind + 1])
    if kind == SHAPE:
        return "shape", f"{PLACES[words.place[at]]} {words.traits.shape[words.number[at]]}"
    if kind == CHARACTER:
        return "character", chr(code)
    if kind == REPEATED:
        return "repeated", ""
    end = words.text[at][-1]
    return "end", "" if end.isalnum() else end


def write_keys(words: TitleWords, places: FragmentPlaces) -> Iterator[FragmentKey]:
    """Yield the fragment at each of some places."""
    code = np.where(places.type == CHARACTER, places.number - places.characters, 0)
    for at, kind, value in zip(places.at.tolist(), places.type.tolist(), code.tolist(), strict=True):
        yield write_key(words, at, kind, value)


class _Level(NamedTuple):
    """Phrases of so many words."""

    pair: Int64Array
    """The phrase before the last word, and that word, as one number; increasing."""
    fragment: Int64Array
    """The fragment of each, -1 where a longer phrase alone is known."""


class FragmentIndex:
    """Finds known fragments in titles.

    Args:
        fragments: The fragments, and what each is told as.
    """

    def __init__(self, fragments: Mapping[FragmentKey, int]) -> None:
        self._words: dict[str, int] = {}
        self._other = {key: place for key, place in fragments.items() if key[0] != "word"}
        phrases = [(key[1].split(" "), place) for key, place in fragments.items() if key[0] == "word"]
        for parts, _ in phrases:
            for part in parts:
                self._words.setdefault(part, len(self._words))
        self._single = np.full(max(1, len(self._words)), -1, dtype=np.int64)
        node = np.array([self._words[parts[0]] for parts, _ in phrases], dtype=np.int64)
        size = np.array([len(parts) for parts, _ in phrases], dtype=np.int64)
        place = np.array([place for _, place in phrases], dtype=np.int64)
        self._single[node[size == 1]] = place[size == 1]
        self._levels: list[_Level] = []
        for many in range(2, MAX_PHRASE_WORDS + 1):
            longer = np.flatnonzero(size >= many)
            rows: list[int] = longer.tolist()
            word = np.array([self._words[phrases[row][0][many - 1]] for row in rows], dtype=np.int64)
            pair, which = np.unique((node[longer] << 32) | word, return_inverse=True)
            node[longer] = which
            known = np.full(len(pair), -1, dtype=np.int64)
            ends = size[longer] == many
            known[which[ends]] = place[longer][ends]
            self._levels.append(_Level(pair, known))

    def find(self, words: TitleWords) -> tuple[Int64Array, Int64Array]:
        """Return the known fragments of titles, each once a title, and of which title each is."""
        counted = find_counted(words)
        found = [*self._find_phrases(words, counted), *self._find_others(words, counted)]
        places = _sort_places(found).keep_first(words.owner)
        return places.number, words.owner[places.at]

    def _find_phrases(self, words: TitleWords, begin: Int64Array) -> Iterator[tuple[Int64Array, int, Int64Array]]:
        known = np.fromiter(map(self._words.get, words.vocabulary, repeat(-1)), np.int64, len(words.vocabulary))
        word = known[words.number]
        after = words.offsets[1:][words.owner[begin]]
        node = word[begin]
        begin, after, node = (part[node >= 0] for part in (begin, after, node))
        yield _keep_known(begin, 0, self._single[node])
        for size, level in enumerate(self._levels, start=2):
            fits = begin + size <= after
            begin, after, node = begin[fits], after[fits], node[fits]
            last = word[begin + size - 1]
            fits = last >= 0
            begin, after, node, last = begin[fits], after[fits], node[fits], last[fits]
            pair = (node << 32) | last
            place = np.searchsorted(level.pair, pair)
            fits = place < len(level.pair)
            fits[fits] = level.pair[place[fits]] == pair[fits]
            begin, after, node = begin[fits], after[fits], place[fits]
            yield _keep_known(begin, size - 1, level.fragment[node])

    def _find_others(self, words: TitleWords, counted: Int64Array) -> Iterator[tuple[Int64Array, int, Int64Array]]:
        shapes, shape_of = words.shapes
        known = np.array([[self._other.get(("shape", f"{mark} {name}"), -1) for name in shapes] for mark in PLACES])
        known = known.reshape(len(PLACES), -1).astype(np.int64)
        yield _keep_known(counted, SHAPE, known[words.place[counted], shape_of[words.number[counted]]])
        at, code = _list_marks(words, counted)
        yield _keep_known(at, CHARACTER, self._look_up("character", code + 1))
        at = _find_repeated(words, counted)
        yield _keep_known(at, REPEATED, np.full(len(at), self._other.get(("repeated", ""), -1), dtype=np.int64))
        at, code = _list_ends(words)
        yield _keep_known(at, END, self._look_up("end", code))

    def _look_up(self, kind: str, code: Int64Array) -> Int64Array:
        """Return the fragments that characters are, given 1 more than their code points; 0 stands for none."""
        different, which = np.unique(code, return_inverse=True)
        codes: list[int] = different.tolist()
        known = [self._other.get((kind, chr(value - 1) if value else ""), -1) for value in codes]
        return np.array(known, dtype=np.int64)[which] if len(code) else code


def _keep_known(at: Int64Array, kind: int, fragment: Int64Array) -> tuple[Int64Array, int, Int64Array]:
    known: NDArray[np.bool_] = fragment >= 0
    return at[known], kind, fragment[known]
