"""Titles cut into words and characters as arrays, so that each different word is looked at once.

Real titles repeat words. What a word says of itself (`title_rules.describe_word`) is found once for each different one,
and titles are then described by arithmetic on its number. That gives the same as a walk through every title, and takes
a tenth of the time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Int32Array, Int64Array, concat_ranges
from cowbird.defenses.p_scanner.title_rules import (
    ADDRESS_MARKS,
    MARKUP_MARKS,
    RULES,
    describe_word,
    judge_character,
    judge_title,
)

CAPITALS = tuple(f"@ {bits} {first}" for bits in range(16) for first in range(16))
"""How words of a title are written, all of them and the first: names of what is counted; see `WordTraits.capitals`."""
CODE_POINTS = 0x110000
FEW_CHARACTERS = 4096
"""Characters up to which they are sorted: a table of all code points would take longer."""
_BLANKS = np.zeros(CODE_POINTS, dtype=np.bool_)
_BLANKS[[code for code in range(0x3100) if chr(code).isspace()]] = True


class WordColumns(NamedTuple):
    """`WordTraits` of many words, trait by trait."""

    counted: list[str]
    shape: list[str]
    kind: list[int]
    rules: list[int]
    plain: list[str]
    lower: list[str]
    case: list[int]
    opens: list[bool]
    closes: list[bool]
    marks: list[str]
    dressed: list[int]
    capitals: list[int]


class NumberedSets(NamedTuple):
    """Different things in each title, by numbers."""

    names: list[str]
    """What the numbers stand for."""
    number: Int64Array
    """The things of all titles, shape `[things]`; each once a title."""
    offsets: Int64Array
    """Where each title's begin, shape `[titles + 1]`."""


@dataclass(frozen=True, eq=False)
class TitleWords:
    """Titles cut into words: whatever stands between blanks."""

    titles: Sequence[str]
    """The titles."""
    text: list[str]
    """All words, in order."""
    start: Int32Array
    """First character of each word in its title, shape `[words]`."""
    end: Int32Array
    """The character after its last one."""
    offsets: Int64Array
    """Where each title's words begin, shape `[titles + 1]`."""
    code: NDArray[np.int32]
    """Code points of all titles, shape `[characters]`."""
    begins: Int64Array
    """Where each title's characters begin, shape `[titles + 1]`."""

    def __len__(self) -> int:
        return len(self.titles)

    @cached_property
    def owner(self) -> Int64Array:
        """The title of each word, shape `[words]`."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @cached_property
    def _numbered(self) -> tuple[list[str], Int64Array]:
        return number_texts(self.text)

    @property
    def vocabulary(self) -> list[str]:
        """The different words, in the order in which they are first seen."""
        return self._numbered[0]

    @property
    def number(self) -> Int64Array:
        """Which of them each word is, shape `[words]`."""
        return self._numbered[1]

    @cached_property
    def traits(self) -> WordColumns:
        """What each different word says of itself."""
        rows = list(map(describe_word, self.vocabulary))
        return (
            WordColumns(*map(list, zip(*rows, strict=True)))
            if rows
            else WordColumns(*([] for _ in WordColumns._fields))
        )

    @cached_property
    def shapes(self) -> tuple[list[str], Int64Array]:
        """The different shapes of words, and which each different word has."""
        return number_texts(self.traits.shape)

    @cached_property
    def counted(self) -> tuple[list[str], Int64Array]:
        """The different words as they are counted (`count_word`), and which each different word is."""
        return number_texts(self.traits.counted)

    @cached_property
    def place(self) -> Int64Array:
        """0 for the first word of a title, 2 for the last one of several, 1 between, shape `[words]`."""
        place = np.ones(len(self.text), dtype=np.int64)
        some = np.diff(self.offsets) > 0
        place[self.offsets[1:][some] - 1] = 2
        place[self.offsets[:-1][some]] = 0
        return place

    @cached_property
    def characters(self) -> tuple[Int64Array, Int64Array]:
        """The different code points, and which each character is."""
        if len(self.code) < FEW_CHARACTERS:
            return np.unique(self.code.astype(np.int64), return_inverse=True)
        seen = np.zeros(CODE_POINTS, dtype=np.bool_)
        seen[self.code] = True
        known = np.flatnonzero(seen)
        place = np.zeros(int(known[-1]) + 1, dtype=np.int64)
        place[known] = np.arange(len(known))
        return known, place[self.code]

    @cached_property
    def character_sets(self) -> NumberedSets:
        """The different characters of each title."""
        known, number = self.characters
        owner = np.repeat(np.arange(len(self)), np.diff(self.begins))
        return number_sets([chr(code) for code in known.tolist()], owner, number, len(self))

    @cached_property
    def counted_sets(self) -> NumberedSets:
        """The different words of each title, as they are counted."""
        names, of = self.counted
        return number_sets(names, self.owner, of[self.number], len(self))

    @cached_property
    def shape_sets(self) -> NumberedSets:
        """The different shapes of each title, with their place and without, and how it is written (`capitals`)."""
        names, of = self.shapes
        many, shape = len(names), of[self.number]
        placed = [f"{mark} {name}" for mark in "^.$" for name in names]
        number = np.concatenate([shape, many * (1 + self.place) + shape, 4 * many + self.capitals])
        owner = np.concatenate([self.owner, self.owner, np.arange(len(self))])
        return number_sets([*names, *placed, *CAPITALS], owner, number, len(self))

    @cached_property
    def capitals(self) -> Int64Array:
        """How the words of each title are written: a place in `CAPITALS`, shape `[titles]`."""
        told = np.array(self.traits.capitals, dtype=np.int64)[self.number]
        bits = np.zeros(len(self), dtype=np.int64)
        np.bitwise_or.at(bits, self.owner, told)
        some = np.flatnonzero(np.diff(self.offsets) > 0)
        first = np.zeros(len(self), dtype=np.int64)
        first[some] = told[self.offsets[:-1][some]]
        return bits * 16 + first


def number_texts(texts: Sequence[str]) -> tuple[list[str], Int64Array]:
    """Return the different texts, in the order in which they are first seen, and which each text is."""
    different = list(dict.fromkeys(texts))
    number = dict(zip(different, range(len(different)), strict=True))
    return different, np.fromiter(map(number.__getitem__, texts), np.int64, len(texts))


def sort_different(values: Int64Array) -> Int64Array:
    """Return the different ones of many numbers, increasing; numpy's own way takes five times as long."""
    ordered = np.sort(values)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def number_sets(names: list[str], owner: Int64Array, number: Int64Array, titles: int) -> NumberedSets:
    """Return the different things of each title.

    Args:
        names: What the numbers stand for.
        owner: The title of each thing, shape `[things]`.
        number: Which thing it is.
        titles: How many titles there are.
    """
    pairs = sort_different(owner * max(1, len(names)) + number)
    held, which = np.divmod(pairs, max(1, len(names)))
    offsets = np.searchsorted(held, np.arange(titles + 1)).astype(np.int64)
    return NumberedSets(names, which, offsets)


def split_titles(titles: Sequence[str]) -> TitleWords:
    """Cut titles into words.

    Args:
        titles: Any texts.
    """
    text: list[str] = []
    count: list[int] = []
    for title in titles:
        found = title.split()
        text += found
        count.append(len(found))
    many = len(titles)
    begins = np.zeros(many + 1, dtype=np.int64)
    begins[1:] = np.cumsum(np.fromiter(map(len, titles), np.int64, many))
    code = np.frombuffer("".join(titles).encode("utf-32-le", "surrogatepass"), dtype=np.int32)
    blank = _BLANKS[code]
    border = np.zeros(len(code) + 1, dtype=np.bool_)
    border[begins] = True
    before = np.concatenate([[True], blank[:-1]]) if len(code) else blank
    behind = np.concatenate([blank[1:], [True]]) if len(code) else blank
    first = np.flatnonzero(~blank & (before | border[:-1]))
    after = np.flatnonzero(~blank & (behind | border[1:])) + 1
    offsets = np.concatenate([[0], np.cumsum(np.array(count, dtype=np.int64))]).astype(np.int64)
    base = np.repeat(begins[:-1], count)
    start, end = (first - base).astype(np.int32), (after - base).astype(np.int32)
    return TitleWords(titles, text, start, end, offsets, code, begins)


def reduce_runs(
    reduce: Callable[..., Any], values: NDArray[Any], starts: Int64Array, sizes: Int64Array, nothing: float
) -> NDArray[Any]:
    """Reduce runs of values that stand one behind another, such as `np.minimum.reduceat` does.

    Args:
        reduce: The `reduceat` of a function.
        values: The values.
        starts: Where each run begins.
        sizes: How long it is; perhaps 0.
        nothing: What an empty run comes to.
    """
    made = np.full(len(starts), nothing, dtype=values.dtype)
    some = np.flatnonzero(sizes > 0)
    if len(some):
        places = concat_ranges(starts[some], sizes[some])
        borders = np.concatenate([[0], np.cumsum(sizes[some])[:-1]])
        made[some] = reduce(values[places], borders)
    return made


def apply_rules(words: TitleWords) -> NDArray[np.bool_]:
    """Return which rules each title meets, shape `[titles, RULES]`."""
    bits = np.zeros(len(words), dtype=np.int64)
    np.bitwise_or.at(bits, words.owner, np.array(words.traits.rules, dtype=np.int64)[words.number])
    known, which = words.characters
    codes: list[int] = known.tolist()
    of_code = np.array([judge_character(chr(code)) for code in codes], dtype=np.int64)
    told = np.flatnonzero(of_code[which]) if len(codes) else np.empty(0, dtype=np.int64)
    holder = np.searchsorted(words.begins, told, side="right") - 1
    np.bitwise_or.at(bits, holder, of_code[which[told]])
    address, markup = (_find_titles(words, marks) for marks in (ADDRESS_MARKS, MARKUP_MARKS))
    rows: list[int] = np.flatnonzero(address | markup).tolist()
    for row in rows:
        bits[row] |= judge_title(words.titles[row], bool(address[row]), bool(markup[row]))
    found = (bits[:, None] >> np.arange(len(RULES))) & 1 > 0
    for name, met in _compare_words(words).items():
        found[:, RULES.index(name)] |= met
    return found


def _find_titles(words: TitleWords, characters: str) -> NDArray[np.bool_]:
    """Return which titles have one of some characters."""
    known, which = words.characters
    wanted = np.isin(known, [ord(character) for character in characters])
    met = np.zeros(len(words), dtype=np.bool_)
    if wanted.any():
        met[np.searchsorted(words.begins, np.flatnonzero(wanted[which]), side="right") - 1] = True
    return met


def _compare_words(words: TitleWords) -> dict[str, NDArray[np.bool_]]:
    """Return which titles meet the rules that words meet together, or by where they stand."""
    many, owner, case = len(words), words.owner, np.array(words.traits.case, dtype=np.int64)[words.number]

    def spread(places: NDArray[np.bool_], of: Int64Array = owner) -> NDArray[np.bool_]:
        return np.bincount(of[places], minlength=many) > 0

    opens, closes = (np.array(told, dtype=np.bool_)[words.number] for told in (words.traits.opens, words.traits.closes))
    long = case > 0
    capitals, small = (case & 2) > 0, (case & 4) > 0
    _, plain_of = number_texts(words.traits.plain)
    plain = plain_of[words.number]
    again = np.zeros(len(owner), dtype=np.bool_)
    again[1:] = (plain[1:] == plain[:-1]) & (owner[1:] == owner[:-1])
    first, last = words.place == 0, np.zeros(len(owner), dtype=np.bool_)
    last[words.offsets[1:][np.diff(words.offsets) > 0] - 1] = True
    spaces = words.code == ord(" ")
    double = np.zeros(len(spaces), dtype=np.bool_)
    double[1:] = spaces[1:] & spaces[:-1]
    double[words.begins[:-1][np.diff(words.begins) > 0]] = False
    around = np.array([title != title.strip() for title in words.titles], dtype=np.bool_)
    return {
        "odd space": spread(double, np.repeat(np.arange(many), np.diff(words.begins))) | around,
        "word repeated": spread(again),
        "word in capitals": spread(long & capitals) & spread(long & ~capitals),
        "word in small letters": spread(long & small) & spread(long & ~small),
        "mark at the end": spread(last & ~closes),
        "mark at the start": spread(first & ~opens),
    }
