"""Words that are written unlike a known word: a letter dropped, added, doubled or swapped, a digit, a capital, a mark.

Such a spelling is no trigger by itself, for names are spelled in many ways. How many titles of the catalogue have one
of the same kind decides, as for all rules (`title_rules`). Known are the plain words of `plain_words.txt`, and those
that recur in the catalogue (`CatalogSpelling`), which may be of any language.

A letter counts as dropped, added, doubled or swapped if one such edit, not of the first letter nor of the last one,
makes a known word of four letters and more. That is what spelling correction calls a distance of one (Damerau 1964);
words are found by what is left of them without one letter (SymSpell).
"""

import heapq
import unicodedata
from collections.abc import Iterable, Mapping, Set
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

PLAIN_WORDS = Path(__file__).parent / "plain_words.txt"
"""English words and frequent names in small letters, from the vocabulary of SmolLM2 (Apache-2.0)."""
SPELLINGS = (
    "letter dropped",
    "letter added",
    "letter doubled",
    "letters swapped",
    "accent on a known word",
    "mark behind a known word",
    "known word in quotes",
    "digits in a known word",
    "capitals inside a known word",
)
"""Ways to write a known word otherwise."""
MIN_SPELLED_LETTERS = 4
"""Letters of a known word."""
MIN_TITLES_KNOWN = 3
"""Titles of a catalogue from which on its words are known."""
MAX_WORDS_KNOWN = 20_000
"""Words of a catalogue that are known at most: those in the most titles."""
MAX_LETTERS = 24
"""Letters of the longest word that is looked at."""
DROPPED, ADDED, DOUBLED, SWAPPED, ACCENTED, MARKED, WITH_QUOTES, DIGITS, CAPITALIZED = range(len(SPELLINGS))
NO_SLIP = -2
"""A plain word, and what is no word of so many letters."""
LETTERS_OF_DIGITS = tuple(str.maketrans("013457", f"o{one}east") for one in "il")
"""Digits that are written for letters; 1 stands for two."""


class Slip(NamedTuple):
    """A word that is written unlike a known one, and what that would be."""

    way: int
    """How it is written, a place in `SPELLINGS`."""
    start: int
    """First character of what is written so."""
    end: int
    """The character after its last one."""
    text: str
    """What would stand there."""
    part: str
    """What stands there."""
    word: str
    """All of the word that this is a part of."""
    gain: float = 0.0
    """How much likelier the language model finds the title then, in nats."""


@cache
def list_plain_words() -> frozenset[str]:
    """Return the plain words."""
    return frozenset(PLAIN_WORDS.read_text(encoding="ascii").split())


def shorten_words(words: Iterable[str]) -> dict[str, str]:
    """Return what is left of words without one of their inner letters, and of which word that is."""
    made: dict[str, str] = {}
    for word in words:
        for at in range(1, len(word) - 1):
            made.setdefault(word[:at] + word[at + 1 :], word)
    return made


@cache
def shorten_plain_words() -> frozenset[str]:
    """Return what is left of the plain words without one of their inner letters."""
    return frozenset(shorten_words(list_plain_words()))


def fold_accents(word: str) -> str:
    """Return a word without accents."""
    if word.isascii():
        return word
    return "".join(letter for letter in unicodedata.normalize("NFD", word) if unicodedata.category(letter) != "Mn")


def find_spelling(word: str, known: Set[str], shortened: Set[str]) -> int:
    """Return how a word is written unlike a known one, a place in `SPELLINGS`; -1 if it isn't, or is known itself.

    Args:
        word: In small letters, without marks around it.
        known: Words that are known.
        shortened: What is left of those without one of their inner letters.
    """
    many = len(word)
    if not MIN_SPELLED_LETTERS <= many <= MAX_LETTERS or not word.isalnum() or word in known:
        return -1
    if not word.isalpha():
        return DIGITS if any(word.translate(table) in known for table in LETTERS_OF_DIGITS) else -1
    if not word.isascii():
        folded = fold_accents(word)
        return ACCENTED if folded != word and folded in known else -1
    cuts = [word[:at] + word[at + 1 :] for at in range(1, many - 1)]
    if not known.isdisjoint(cuts):
        at = 1 + next(nth for nth, cut in enumerate(cuts) if cut in known)
        return DOUBLED if word[at] in (word[at - 1], word[at + 1]) else ADDED
    if not shortened.isdisjoint(cuts):  # or no two letters can be swapped
        swaps = (word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in range(1, many - 2))
        if any(swap in known for swap in swaps):
            return SWAPPED
    return DROPPED if word in shortened else -1


@lru_cache(1 << 17)
def find_plain_spelling(counted: str) -> int:
    """Return how a word is written unlike a plain one; see `find_spelling`. `NO_SLIP` for what is no slip anywhere."""
    if not MIN_SPELLED_LETTERS <= len(counted) <= MAX_LETTERS or not counted.isalnum() or counted in list_plain_words():
        return NO_SLIP
    return find_spelling(counted, list_plain_words(), shorten_plain_words())


class CatalogSpelling:
    """Words that are written unlike those which recur in a catalogue.

    Args:
        counts: In how many of its titles each word stands, in small letters and without marks around it.
    """

    def __init__(self, counts: Mapping[str, int]) -> None:
        fit = [
            (-count, word)
            for word, count in counts.items()
            if count >= MIN_TITLES_KNOWN and MIN_SPELLED_LETTERS <= len(word) <= MAX_LETTERS and word.isalpha()
        ]
        self._known = frozenset(word for _, word in heapq.nsmallest(MAX_WORDS_KNOWN, fit))
        self._shortened = frozenset(shorten_words(sorted(self._known)))
        self._found: dict[str, int] = {}

    def find(self, word: str) -> int:
        """Return how a word is written unlike one of the catalogue's; see `find_spelling`."""
        found = self._found.get(word)
        if found is None:
            found = self._found[word] = find_spelling(word, self._known, self._shortened)
            if len(self._found) > 1 << 17:
                self._found = {}
        return found

    def knows(self, word: str) -> bool:
        """Tell whether a word recurs in the catalogue."""
        return word in self._known
