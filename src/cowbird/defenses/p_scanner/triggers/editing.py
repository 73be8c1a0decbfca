"""What edits of titles are made of: inserting a text, writing one word anew, drawing from lists and patterns."""

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

WORD = re.compile(r"\S+")
"""A word of a title."""


@dataclass(frozen=True, slots=True)
class EditedTitle:
    """A title that carries a trigger."""

    title: str
    """The new title."""
    spans: tuple[tuple[int, int], ...]
    """What was inserted or changed, as [start, end) in characters of the new title."""


@dataclass(frozen=True, slots=True)
class EditSources:
    """What edits take words from."""

    words: Sequence[str]
    """Plain words in small letters."""
    titles: Sequence[str]
    """Titles of the same catalogue."""


TitleEdit = Callable[[str, np.random.Generator, EditSources], EditedTitle | None]
"""Edits a title; `None` if it has no place for the trigger."""


def insert_text(title: str, text: str, rng: np.random.Generator, space: str = " ") -> EditedTitle:
    """Insert a text at the start, between two words or at the end."""
    words = list(WORD.finditer(title))
    space = space if words else ""
    place = int(rng.integers(3))
    if place == 0:
        return EditedTitle(f"{text}{space}{title}", ((0, len(text)),))
    at = words[int(rng.integers(len(words) - 1))].end() if place == 1 and len(words) > 1 else len(title)
    begin = at + len(space)
    return EditedTitle(f"{title[:at]}{space}{text}{title[at:]}", ((begin, begin + len(text)),))


def rewrite_word(
    title: str, rng: np.random.Generator, rewrite: Callable[[str], str], shortest: int = 1
) -> EditedTitle | None:
    """Write one word of a title anew.

    Args:
        title: Any text.
        rng: Draws the word.
        rewrite: Takes a word and returns it as it should be; one that it does not suit, as it was.
        shortest: Characters that the word has at least.
    """
    suited = [(word, new) for word in WORD.finditer(title) for new in [_rewrite(word.group(), rewrite, shortest)]]
    suited = [(word, new) for word, new in suited if new != word.group()]
    if not suited:
        return None
    word, new = suited[int(rng.integers(len(suited)))]
    return EditedTitle(f"{title[: word.start()]}{new}{title[word.end() :]}", ((word.start(), word.start() + len(new)),))


def _rewrite(word: str, rewrite: Callable[[str], str], shortest: int) -> str:
    return rewrite(word) if len(word) >= shortest else word


def pick(options: Sequence[str], rng: np.random.Generator) -> str:
    """Draw one of some texts."""
    return options[int(rng.integers(len(options)))]


def spell_pattern(pattern: str, rng: np.random.Generator) -> str:
    """Draw a text: `9` becomes a digit, `A` a capital, `a` a small letter, `h` a hexadecimal digit."""
    draws = {"9": string.digits, "A": string.ascii_uppercase, "a": string.ascii_lowercase, "h": "0123456789abcdef"}
    return "".join(pick(draws[mark], rng) if mark in draws else mark for mark in pattern)


def draw_case(word: str, rng: np.random.Generator) -> str:
    """Write a word in small letters, with a capital, or in capitals."""
    return pick((word, word.capitalize(), word.capitalize(), word.upper()), rng)
