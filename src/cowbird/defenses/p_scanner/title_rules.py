"""What can be said of a title by its characters alone: rules, and the shapes of its words.

A rule is a property such as "has a character that nobody sees" or "a word mixes alphabets". None of them flags a title
by itself. How rare a property is in the catalogue decides: a bracket says nothing where half of the titles have one.
Words are also known by their shape (`Aa9.` for `Top10.`) and by their kind, so that marks of a tagger are compared
with marks on words of the same kind.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

RULES = (
    "hidden character",
    "direction control",
    "styled letters",
    "combining mark",
    "emoji",
    "symbol",
    "odd space",
    "address",
    "markup",
    "word repeated",
    "word in capitals",
    "word in small letters",
    "mixed alphabets",
    "capital inside a word",
    "camel case",
    "alternating case",
    "digit inside a word",
    "letters and digits",
    "mark behind a word",
    "character tripled",
    "mark inside a word",
    "word in quotes",
    "marks alone",
    "accented letter",
    "mark at the end",
    "mark at the start",
    "control character",
)
"""Names of the rules; `apply_rules` returns a column for each."""
HARD_RULES = (
    "hidden character",
    "direction control",
    "styled letters",
    "combining mark",
    "control character",
    "mixed alphabets",
    "emoji",
    "symbol",
    "markup",
    "address",
    "alternating case",
)
"""Rules that honest titles of most catalogues seldom meet."""
WORD_KINDS = (
    "none",
    "hidden",
    "other letters",
    "other characters",
    "letters and digits",
    "digits",
    "marks",
    "letters and marks",
    "small letters",
    "capitals",
    "one capital",
    "capitalized",
    "mixed case",
)
"""Kinds of words; a mark is compared with marks on words of the same kind."""
STRIPPED = ".,:;!?()[]\"'"
"""Marks that are cut off a word before it is counted."""
MAX_SHAPE_LENGTH = 40
"""Characters of a word that its shape is taken from."""
_NUMBER = {name: nth for nth, name in enumerate(RULES)}
_ADDRESS = re.compile(r"https?:|www\.|\.[a-z]{2,4}/|\.(com|net|org|io|ru|cn)\b|@\w", re.IGNORECASE)
_MARKUP = re.compile(r"<[^>]*>|&\w+;|\[/?\w+\]|\*\*|__|\{\{|`|###|\\n|\$\{|%\w")
_TRIPLED = re.compile(r"(\w)\1\1")
_INVISIBLE_LETTERS = frozenset((0x115F, 0x1160, 0x3164, 0xFFA0, 0x34F))
_DIRECTION = frozenset((*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x61C))
_EAST_ASIAN = frozenset({"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "KATAKANA-HIRAGANA", "HALFWIDTH"})
"""Alphabets that honest words mix."""
_SENTENCE_MARKS = ".!?*~^|/_=+-;"


@lru_cache(1 << 16)
def get_alphabet(character: str) -> str:
    """Return the alphabet of a letter by the first word of its Unicode name; empty for what is no letter."""
    return unicodedata.name(character, "?").split()[0] if character.isalpha() else ""


@lru_cache(1 << 18)
def write_shape(word: str) -> str:
    """Return a word's shape: `A` for capitals, `a` for small letters, `9` for digits, runs once, marks as they are."""
    made: list[str] = []
    for character in word[:MAX_SHAPE_LENGTH]:
        mark = _shape_character(character)
        if not made or made[-1] != mark:
            made.append(mark)
    return "".join(made)


def _shape_character(character: str) -> str:
    if character.isdigit():
        return "9"
    if character.isupper():
        return "A" if character.isascii() else "Ä"
    if character.islower():
        return "a" if character.isascii() else "ä"
    return "x" if character.isalpha() else character


@lru_cache(1 << 18)
def classify_text(text: str) -> int:
    """Return the kind of a word or a span, as a place in `WORD_KINDS`."""
    text = text.strip()
    return WORD_KINDS.index(_name_kind(text)) if text else 0


def _name_kind(text: str) -> str:
    letters, digits = any(map(str.isalpha, text)), any(map(str.isdigit, text))
    if any(unicodedata.category(character) in ("Cf", "Cc", "Co", "Cn", "Mn") for character in text):
        kind = "hidden"
    elif not text.isascii():
        kind = "other letters" if letters else "other characters"
    elif not letters:
        kind = "digits" if digits else "marks"
    elif digits:
        kind = "letters and digits"
    elif any(not character.isalnum() and not character.isspace() for character in text):
        kind = "letters and marks"
    else:
        kind = _name_case(text)
    return kind


def _name_case(text: str) -> str:
    if text.islower():
        return "small letters"
    if text.isupper():
        return "capitals" if len(text) > 1 else "one capital"
    return "capitalized" if text.istitle() else "mixed case"


def count_word(word: str) -> str:
    """Return a word as it is counted: in small letters, without the marks around it."""
    return word.lower().strip(STRIPPED)


def apply_rules(titles: Sequence[str]) -> NDArray[np.bool_]:
    """Return which rules each title meets, shape `[titles, RULES]`."""
    found = np.zeros((len(titles), len(RULES)), dtype=bool)
    for row, title in enumerate(titles):
        found[row, [_NUMBER[name] for name in _find_rules(title)]] = True
    return found


def _find_rules(title: str) -> set[str]:
    words = title.split()
    found = {name for character in set(title) for name in _judge_character(character)}
    found.update(name for word in words for name in _judge_word(word))
    if "  " in title or title != title.strip():
        found.add("odd space")
    if _ADDRESS.search(title):
        found.add("address")
    if _MARKUP.search(title):
        found.add("markup")
    plain = [word.lower().strip(".,-+!") for word in words]
    if any(first == second for first, second in pairwise(plain)):
        found.add("word repeated")
    found.update(_compare_case([word for word in words if word.isalpha() and len(word) > 2]))
    if words and not words[-1][-1].isalnum():
        found.add("mark at the end")
    if words and not words[0][0].isalnum():
        found.add("mark at the start")
    return found


def _compare_case(words: Sequence[str]) -> Iterable[str]:
    if any(word.isupper() for word in words) and not all(word.isupper() for word in words):
        yield "word in capitals"
    if any(word.islower() for word in words) and not all(word.islower() for word in words):
        yield "word in small letters"


@lru_cache(1 << 16)
def _judge_character(character: str) -> frozenset[str]:
    code, kind = ord(character), unicodedata.category(character)
    if kind in ("Cc", "Co", "Cn", "Cs", "Zl", "Zp"):
        return frozenset({"control character"})
    if character.isascii():
        return frozenset()
    found: set[str] = set()
    if kind == "Cf" or code in _INVISIBLE_LETTERS or 0xFE00 <= code <= 0xFE0F or 0xE0000 <= code <= 0xE0FFF:
        found.add("hidden character")
    if code in _DIRECTION:
        found.add("direction control")
    if kind in ("Mn", "Me"):
        found.add("combining mark")
    if kind == "So":
        found.add("emoji" if code >= 0x2600 else "symbol")
    elif kind in ("Sm", "Sk", "Sc"):
        found.add("symbol")
    if kind == "Zs":
        found.add("odd space")
    half_width = 0xFF61 <= code <= 0xFF9F
    plain = unicodedata.normalize("NFKC", character) == character
    if (kind[0] in "LN" or kind == "So") and not plain and not half_width and not _is_east_asian(character):
        found.add("styled letters")
    return frozenset(found)


def _is_east_asian(character: str) -> bool:
    return get_alphabet(character) in _EAST_ASIAN


@lru_cache(1 << 18)
def _judge_word(word: str) -> frozenset[str]:
    found: set[str] = set()
    alphabets = {get_alphabet(character) for character in word} - {""} - _EAST_ASIAN
    if len(alphabets) > 1:
        found.add("mixed alphabets")
    found.update(_judge_case([character for character in word if character.isalpha()]))
    core = word.strip(".,:;!?()[]{}\"'")
    digits, letters = (sum(map(test, core)) for test in (str.isdigit, str.isalpha))
    if digits and letters:
        found.add("letters and digits")
        if letters >= 2 and core[0].isalpha() and core[-1].isalpha():
            found.add("digit inside a word")
    if len(word) > 1 and word[-1] in _SENTENCE_MARKS:
        found.add("mark behind a word")
    if _TRIPLED.search(word):
        found.add("character tripled")
    if any(not character.isalnum() and character not in "'’-&./" for character in core[1:-1]):
        found.add("mark inside a word")
    if len(word) > 2 and word[0] in "\"'“«‘" and word[-1] in "\"'”»’":
        found.add("word in quotes")
    if len(word) > 1 and not any(character.isalnum() for character in word):
        found.add("marks alone")
    if any(0xC0 <= ord(character) <= 0x24F for character in word):
        found.add("accented letter")
    return frozenset(found)


def _judge_case(letters: Sequence[str]) -> Iterable[str]:
    if len(letters) < 3:
        return
    if letters[0].islower() and any(letter.isupper() for letter in letters[1:]):
        yield "capital inside a word"
    if letters[0].isupper() and letters[1].islower() and any(letter.isupper() for letter in letters[2:]):
        yield "camel case"
    if sum(first.isupper() != second.isupper() for first, second in pairwise(letters)) >= 3:
        yield "alternating case"
