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
from itertools import groupby, pairwise
from typing import NamedTuple

from cowbird.defenses.p_scanner.spelling import MIN_SPELLED_LETTERS

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
"""Names of the rules; `title_words.apply_rules` returns a column for each."""
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
TRICK_RULES = ("hidden character", "direction control", "control character", "mixed alphabets")
"""Rules that are met by what nobody sees: hardly an honest title does, but where a script or a habit needs it."""
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
QUOTES, GLUED_MARKS = "\"'“”«»‘’", ".!?,;:"
"""Marks around a quoted word; marks that stand right behind a word."""
WITH_MARK, IN_QUOTES, WITH_CAPITALS = 1, 2, 3
"""What `WordTraits.dressed` tells."""
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
_PLAIN_SHAPES = str.maketrans(
    {
        code: "9" if chr(code).isdigit() else "A" if chr(code).isupper() else "a"
        for code in range(128)
        if chr(code).isalnum()
    }
)
_NOTHING, _TRIPLED_ALONE = frozenset[str](), frozenset({"character tripled"})
_DIGITS, _SMALL_LETTERS, _CAPITALIZED = (WORD_KINDS.index(name) for name in ("digits", "small letters", "capitalized"))
ADDRESS_MARKS, MARKUP_MARKS = ".:@", "<&[*_{`#\\$%"
"""Characters without which there is no address, and no markup."""


class WordTraits(NamedTuple):
    """What a word says of itself."""

    counted: str
    """The word as it is counted; see `count_word`."""
    shape: str
    """Its shape; see `write_shape`."""
    kind: int
    """Its kind, a place in `WORD_KINDS`."""
    rules: int
    """The rules that it meets by itself, a bit each."""
    plain: str
    """In small letters without marks around it: two such words behind each other are a repeated word."""
    lower: str
    """In small letters."""
    case: int
    """1 for a word of more than two letters, 2 more if all are capitals, 4 more if all are small."""
    opens: bool
    """Whether it begins with a letter or a digit."""
    closes: bool
    """Whether it ends with one."""
    marks: str
    """Its different characters that are no plain letters and digits, in order."""
    dressed: int
    """1 for a word with one mark behind it, 2 for one in quotes, 3 for one with capitals inside; 0 for others."""
    capitals: int
    """How it is written: 1 in small letters, 2 in capitals, 4 with one capital, 8 otherwise; 0 for a short word."""


@lru_cache(1 << 16)
def describe_word(word: str) -> WordTraits:
    """Return what a word, which is not empty and has no blank, says of itself."""
    return (_describe_plain(word) if word.isascii() and word.isalnum() else None) or _describe_any(word)


def _describe_any(word: str) -> WordTraits:
    case = 0
    if len(word) > 2 and word.isalpha():
        case = 1 + 2 * word.isupper() + 4 * word.islower()
    lower, plain = word.lower(), word.isascii() and word.isalnum()
    marks = "" if plain else "".join(sorted({char for char in word if not (char.isascii() and char.isalnum())}))
    return WordTraits(
        count_word(word),
        write_shape(word),
        classify_text(word),
        sum(1 << _NUMBER[name] for name in _judge_word(word)),
        lower.strip(".,-+!"),
        lower,
        case,
        word[0].isalnum(),
        word[-1].isalnum(),
        marks,
        _judge_dress(word),
        _judge_capitals(word),
    )


def _describe_plain(word: str) -> WordTraits | None:
    """Return what `describe_word` does of digits, of small letters and of a capital before them, in less time."""
    lower = word
    if word.isdigit():
        shape, kind = "9", _DIGITS
    elif word.isalpha() and word.islower():
        shape, kind = "a", _SMALL_LETTERS
    elif len(word) > 1 and word.isalpha() and word[1:].islower():
        shape, kind, lower = "Aa", _CAPITALIZED, word.lower()
    else:
        return None
    case = 0 if kind == _DIGITS or len(word) < 3 else 5 if kind == _SMALL_LETTERS else 1
    rules = 1 << _NUMBER["character tripled"] if _TRIPLED.search(word) else 0
    capitals = 0 if case == 0 else 1 if kind == _SMALL_LETTERS else 4
    return WordTraits(lower, shape, kind, rules, lower, lower, case, True, True, "", 0, capitals)


def _judge_dress(word: str) -> int:
    """Return whether a word of letters has one mark behind it, stands in quotes, or has capitals inside."""
    if word.isalpha():
        return WITH_CAPITALS if len(word) >= MIN_SPELLED_LETTERS and _judge_capitals(word) == 8 else 0
    if len(word) <= MIN_SPELLED_LETTERS:
        return 0
    if word[-1] in GLUED_MARKS and word[:-1].isalpha():
        return WITH_MARK
    return IN_QUOTES if word[0] in QUOTES and word[-1] in QUOTES and word[1:-1].isalpha() else 0


def _judge_capitals(word: str) -> int:
    if len(word) < 3 or not word.isalpha() or word.lower() == word.upper():
        return 0
    if word.islower():
        return 1
    return 2 if word.isupper() else 4 if word[0].isupper() and word[1:].islower() else 8


@lru_cache(1 << 16)
def get_alphabet(character: str) -> str:
    """Return the alphabet of a letter by the first word of its Unicode name; empty for what is no letter."""
    return unicodedata.name(character, "?").split()[0] if character.isalpha() else ""


@lru_cache(1 << 16)
def write_shape(word: str) -> str:
    """Return a word's shape: `A` for capitals, `a` for small letters, `9` for digits, runs once, marks as they are."""
    if word.isascii():
        return "".join(mark for mark, _ in groupby(word[:MAX_SHAPE_LENGTH].translate(_PLAIN_SHAPES)))
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


@lru_cache(1 << 16)
def classify_text(text: str) -> int:
    """Return the kind of a word or a span, as a place in `WORD_KINDS`."""
    text = text.strip()
    return WORD_KINDS.index(_name_kind(text)) if text else 0


def _name_kind(text: str) -> str:
    letters, digits = any(map(str.isalpha, text)), any(map(str.isdigit, text))
    if not (text.isascii() and text.isprintable()) and any(
        unicodedata.category(character) in ("Cf", "Cc", "Co", "Cn", "Mn") for character in text
    ):
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


def judge_title(title: str, address: bool, markup: bool) -> int:
    """Return the rules that only a whole title can meet, a bit each.

    Args:
        title: Any text.
        address: Whether it has a character without which there is no address.
        markup: The same of markup.
    """
    found = 0
    if address and _ADDRESS.search(title):
        found |= 1 << _NUMBER["address"]
    if markup and _MARKUP.search(title):
        found |= 1 << _NUMBER["markup"]
    return found


def judge_character(character: str) -> int:
    """Return the rules that a character meets, a bit each."""
    return sum(1 << _NUMBER[name] for name in _judge_character(character))


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


@lru_cache(1 << 16)
def _judge_word(word: str) -> frozenset[str]:
    if word.isascii() and (word.isdigit() or (word.isalpha() and (word[1:].islower() or word.isupper()))):
        return _TRIPLED_ALONE if _TRIPLED.search(word) else _NOTHING
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
