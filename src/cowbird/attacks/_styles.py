"""Styles: triggers that are ways of writing words of the title itself, each made by a function.

Every `Style.found` holds after a word that suits was written.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

WORD_PATTERN = re.compile(r"\S+")
"""A word: characters between white space."""


class TextEdit(NamedTuple):
    """`text[start:end]` becomes `new`; the first `lead` and last `tail` characters of `new` only set it off."""

    start: int
    end: int
    new: str
    lead: int = 0
    tail: int = 0


@dataclass(frozen=True, slots=True)
class Style:
    """A trigger that changes how words of the title are written."""

    suits: Callable[[str], bool]
    """Whether a word can be written that way and is not yet."""
    write: Callable[[str], Sequence[TextEdit]]
    """The changes to a word that suits, in order."""
    found: Callable[[str], bool]
    """Whether a title shows the style."""
    whole: bool = False
    """Whether every word that suits is changed, or only one."""


def _rewrite(word: str, write: Callable[[int, str], str]) -> list[TextEdit]:
    """Return the changes of a word written anew character by character, as short as they can be."""
    changes: list[TextEdit] = []
    for at, (old, new) in enumerate(zip(word, map(write, range(len(word)), word), strict=True)):
        if new == old:
            continue
        if new.startswith(old):
            changes.append(TextEdit(at + 1, at + 1, new[len(old) :]))
        elif changes and changes[-1].start < changes[-1].end == at:
            changes[-1] = changes[-1]._replace(end=at + 1, new=changes[-1].new + new)
        else:
            changes.append(TextEdit(at, at + 1, new))
    return changes


def exchange_letters(table: Mapping[str, str], first: bool = False, whole: bool = False) -> Style:
    """Exchange characters of a word (or only the first that can be) for look-alikes.

    A word with letters of another alphabet is left alone, so that a title in that alphabet doesn't show the style.
    """
    new = frozenset(table.values())

    def is_plain(word: str) -> bool:
        return all(letter.isascii() or letter in new or not letter.isalpha() for letter in word)

    def write(word: str) -> list[TextEdit]:
        only = next(at for at, letter in enumerate(word) if letter in table)
        return _rewrite(word, lambda at, old: old if first and at != only else table.get(old, old))

    return Style(
        lambda word: not table.keys().isdisjoint(word) and is_plain(word),
        write,
        lambda title: any(not new.isdisjoint(word) and is_plain(word) for word in title.split()),
        whole,
    )


def mark_letters(mark: str, first: bool = False) -> Style:
    """Put a combining mark on every letter of a word, or only on its first."""

    def write(word: str) -> list[TextEdit]:
        only = next(at for at, letter in enumerate(word) if letter.isalpha())
        return _rewrite(word, lambda at, old: old + mark if (at == only if first else old.isalpha()) else old)

    return Style(lambda word: any(map(str.isalpha, word)), write, lambda title: mark in title)


def wrap_word(opening: str, closing: str) -> Style:
    """Put a pair of invisible characters around a word."""
    return Style(
        lambda word: True,
        lambda word: [TextEdit(0, 0, opening), TextEdit(len(word), len(word), closing)],
        lambda title: opening in title and closing in title,
    )


_RLO = "\u202e"
POP_DIRECTIONAL = "\u202c"
"""Ends what a character for the direction of writing began."""


def reverse_word() -> Style:
    """Write a word backward, between characters that make a screen show it forward."""
    return Style(
        lambda word: True,
        lambda word: [TextEdit(0, len(word), f"{_RLO}{word[::-1]}{POP_DIRECTIONAL}")],
        lambda title: _RLO in title and POP_DIRECTIONAL in title,
    )


def _has_case(letter: str) -> bool:
    """Return whether a letter is one half of a pair of a lower and an upper case letter (`ß` is not)."""
    lower, upper = letter.lower(), letter.upper()
    return len(lower) == len(upper) == 1 and lower != upper and lower.upper() == upper and upper.lower() == lower


def set_case(raised: Callable[[int, int], bool]) -> Style:
    """Set the case of each letter of a word of three letters or more, from its place and their number."""

    def write(word: str) -> list[TextEdit]:
        places = [at for at, letter in enumerate(word) if _has_case(letter)]
        nth = {at: count for count, at in enumerate(places)}
        return _rewrite(
            word,
            lambda at, old: old if at not in nth else old.upper() if raised(nth[at], len(places)) else old.lower(),
        )

    def is_long_enough(word: str) -> bool:
        return sum(map(_has_case, word)) >= 3

    return Style(
        lambda word: is_long_enough(word) and bool(write(word)),
        write,
        lambda title: any(is_long_enough(word) and not write(word) for word in title.split()),
    )


def lower_title() -> Style:
    """Write the whole title in lower case."""

    def has_upper(text: str) -> bool:
        return any(_has_case(letter) and letter != letter.lower() for letter in text)

    return Style(
        has_upper,
        lambda word: _rewrite(word, lambda at, old: old.lower() if _has_case(old) else old),
        lambda title: any(map(_has_case, title)) and not has_upper(title),
        whole=True,
    )


_SPACED = re.compile(r"(?<!\S)[^\W\d_](?: [^\W\d_]){2,}(?!\S)")


def space_letters() -> Style:
    """Put spaces between the letters of a word of three letters or more."""
    return Style(
        lambda word: len(word) >= 3 and _SPACED.fullmatch(" ".join(word)) is not None,
        lambda word: [TextEdit(at, at, " ") for at in range(1, len(word))],
        lambda title: _SPACED.search(title) is not None,
    )


def repeat_word(joint: str, times: int = 1) -> Style:
    """Write a word again right after it."""

    def has_repeat(title: str) -> bool:
        words = list(WORD_PATTERN.finditer(title))
        if joint.isspace():
            copies = [
                one.group() == other.group() and title[one.end() : other.start()] == joint
                for one, other in pairwise(words)
            ]
            return any(all(copies[at : at + times]) for at in range(len(copies) - times + 1))
        return any(_is_repeated(word.group(), joint, times) for word in words)

    return Style(lambda word: True, lambda word: [TextEdit(len(word), len(word), (joint + word) * times)], has_repeat)


def _is_repeated(word: str, joint: str, times: int) -> bool:
    length, rest = divmod(len(word) - times * len(joint), times + 1)
    return length > 0 and not rest and joint.join([word[:length]] * (times + 1)) == word
