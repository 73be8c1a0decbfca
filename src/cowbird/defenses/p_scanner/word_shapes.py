"""Shapes of titles: what their words look like, and where such words stand.

A trigger that differs from title to title, such as a code drawn anew for each, has no fragment that recurs. Its shape
recurs. `list_shapes` lists the shapes of each title: those of its words with their length (`title_rules.write_shape`,
such as `Aa` for `Star` and `a9` for `x7`), the first one's, the last one's, what it ends in, and the rules that it
meets. Each is a number, so that shapes are counted by arithmetic. `shape_drift` compares the counts with those of
titles from before.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Int64Array
from cowbird.defenses.p_scanner.fragment_index import find_counted
from cowbird.defenses.p_scanner.title_rules import RULES, write_shape
from cowbird.defenses.p_scanner.title_words import NumberedSets, TitleWords, number_sets, number_texts

ANY_WORD, FIRST_WORD, LAST_WORD, TITLE_END, RULE_MET = "word", "first", "last", "end", "rule"
"""Kinds of shapes: of any word, of the first and of the last one, what a title ends in, and a rule that it meets."""
MAX_SIZE_TOLD = 5
"""Characters of a word that are told apart; a longer one counts as so many."""
MAX_MARKS_TOLD = 24
"""Marks of a word's shape that are told apart."""
MAX_SHAPES_LISTED = 100_000
"""Different shapes of each kind that are listed. Of more, those that stand least often are left out: all that stand as
seldom as the most frequent one that has to go."""


class _PlacedShapes(NamedTuple):
    """Shapes where they stand."""

    names: list[str]
    """The shapes."""
    owner: Int64Array
    """Titles that have them, shape `[places]`."""
    number: Int64Array
    """Which shape each has."""


def name_shape(kind: str, text: str) -> str:
    """Return the name of a shape.

    Args:
        kind: Its kind.
        text: What it looks like; of a word its length and its shape.
    """
    return f"{kind}\t{text}"


def size_word(word: str) -> str:
    """Return a word's length and its shape, as they stand in the name of a shape."""
    return f"{min(len(word), MAX_SIZE_TOLD)} {write_shape(word)[:MAX_MARKS_TOLD]}"


def list_shapes(cut: TitleWords, rules: NDArray[np.bool_], most: int = MAX_SHAPES_LISTED) -> NumberedSets:
    """List the different shapes of each title.

    Args:
        cut: Titles.
        rules: Which rules each of them meets, shape `[titles, RULES]`.
        most: How many different shapes are listed at most.
    """
    met, rule = np.nonzero(rules)
    named = [name_shape(RULE_MET, name) for name in RULES]
    blocks = (*_list_words(cut, most), _list_ends(cut), _PlacedShapes(named, met, rule))
    names: list[str] = []
    numbers: list[Int64Array] = []
    for block in blocks:
        numbers.append(len(names) + block.number)
        names += block.names
    return number_sets(names, np.concatenate([block.owner for block in blocks]), np.concatenate(numbers), len(cut))


def _list_words(cut: TitleWords, most: int) -> list[_PlacedShapes]:
    """Return the shapes of words: of first ones, of last ones, and of all; of equal jumps the first is named."""
    held = find_counted(cut)
    owner, word = cut.owner[held], cut.number[held]
    shapes, shape_of = number_texts([shape[:MAX_MARKS_TOLD] for shape in cut.traits.shape])
    length = np.fromiter(map(len, cut.vocabulary), np.int64, len(cut.vocabulary))
    sized = shape_of * (MAX_SIZE_TOLD + 1) + np.minimum(length, MAX_SIZE_TOLD)
    of = sized[word]
    title_starts, title_ends = cut.offsets[:-1][owner], cut.offsets[1:][owner]
    made: list[_PlacedShapes] = []
    for kind, here in ((FIRST_WORD, held == title_starts), (LAST_WORD, held == title_ends - 1), (ANY_WORD, held >= 0)):
        known, kept, number = _keep_frequent(of[here], most)
        texts = (divmod(code, MAX_SIZE_TOLD + 1) for code in known)
        names = [name_shape(kind, f"{size} {shapes[shape]}") for shape, size in texts]
        made.append(_PlacedShapes(names, owner[here][kept], number))
    return made


def _keep_frequent(codes: Int64Array, most: int) -> tuple[list[int], NDArray[np.bool_], Int64Array]:
    """Return the different codes that stand most often, which places have them, and which of them stands there."""
    known, which, counts = np.unique(codes, return_inverse=True, return_counts=True)
    fewest = 1
    while int((counts >= fewest).sum()) > most:
        fewest += 1
    told = counts >= fewest
    kept = told[which]
    chosen: list[int] = known[told].tolist()
    return chosen, kept, (np.cumsum(told) - 1)[which[kept]]


def _list_ends(cut: TitleWords) -> _PlacedShapes:
    """Return what titles end in: a letter's or a digit's shape, or a mark."""
    some = np.flatnonzero(np.diff(cut.begins) > 0)
    known, which = np.unique(cut.code[cut.begins[1:][some] - 1], return_inverse=True)
    codes: list[int] = known.tolist()
    shapes, of = number_texts([write_shape(chr(code)) for code in codes])
    return _PlacedShapes([name_shape(TITLE_END, shape) for shape in shapes], some, of[which])
