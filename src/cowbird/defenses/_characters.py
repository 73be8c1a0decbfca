"""The characters of titles, one after another, and what Unicode says of each: what rules for characters are made of."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Int64Array

CharacterMask = NDArray[np.bool_]
"""Which characters a rule found, shape `[characters]`."""

CODE_POINT_COUNT = 0x110000
HIDDEN, JOINER, SPACE, ODD_SPACE, LETTER, UPPER, LOWER, DIGIT, MARK, SIGN, STYLED, LOOKALIKE = (
    1 << bit for bit in range(12)
)
ALPHABETS = {"LATIN": 1, "CYRILLIC": 2, "GREEK": 4, "ARMENIAN": 8, "CHEROKEE": 16, "COPTIC": 32}
"""Alphabets with letters that look alike, by the first word of the letters' names."""
_BLANK_CODES = frozenset({0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0})
"""Letters and signs that show nothing."""
_LOOKALIKES = frozenset(
    "\u0405\u0406\u0408\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0430"  # Cyrillic
    "\u0435\u043e\u0440\u0441\u0443\u0445\u0455\u0456\u0458\u04ae\u04af\u04ba\u04bb\u04c0\u04cf\u0501"
    "\u050c\u051a\u051b\u051c\u051d"
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03b1\u03b9"  # Greek
    "\u03ba\u03bd\u03bf\u03c1\u03c5"
    "\u0570\u0578\u057d\u0581\u0585"  # Armenian
    "\u13a0\u13a1\u13a2\u13aa\u13ab\u13ac\u13b3\u13b7\u13bb\u13c0\u13c3\u13cf\u13d2\u13d4\u13d5\u13d9"  # Cherokee
    "\u13da\u13de\u13df\u13e2\u13e6\u13f4"
    "\u2c82\u2c8e\u2c92\u2c94\u2c98\u2c9a\u2c9e\u2c9f\u2ca2\u2ca3\u2ca4\u2ca5\u2ca6\u2cac"  # Coptic
)
"""Letters of other alphabets that look like Latin ones (Unicode's technical standard 39 has them and more)."""
_STYLED_NAME = re.compile(
    "FULLWIDTH|MATHEMATICAL|CIRCLED|PARENTHESIZED|SQUARED|DOUBLE-STRUCK|SCRIPT |BLACK-LETTER"
    "|LATIN LETTER SMALL CAPITAL|REGIONAL INDICATOR"
)


@lru_cache(maxsize=1 << 16)
def _classify_character(code: int) -> tuple[int, int]:
    """Return what a character is, and its alphabet."""
    letter = chr(code)
    kind, name = unicodedata.category(letter), unicodedata.name(letter, "")
    flags = 0
    if letter.isspace():
        flags |= SPACE if letter == " " else SPACE | ODD_SPACE
    elif kind in ("Cc", "Cf", "Cs", "Co", "Cn") or code in _BLANK_CODES:
        flags |= HIDDEN | (JOINER if code in (0x200C, 0x200D) else 0)
    elif kind[0] == "L":
        flags |= (
            LETTER | {"Lu": UPPER, "Lt": UPPER, "Ll": LOWER}.get(kind, 0) | (LOOKALIKE if letter in _LOOKALIKES else 0)
        )
    elif kind[0] == "M":
        flags |= MARK
    elif kind == "Nd":
        flags |= DIGIT
    elif kind[0] in "PS":
        flags |= SIGN
    if code > 127 and _STYLED_NAME.match(name):
        plain = unicodedata.normalize("NFKC", letter).strip("()")
        if (plain.isascii() and plain.isalnum()) or name.startswith(("LATIN LETTER SMALL CAPITAL", "REGIONAL")):
            flags |= STYLED
    return flags, ALPHABETS.get(name.partition(" ")[0], 0) if flags & LETTER else 0


MANY_CHARACTERS = 1 << 16
"""Characters from which counting all code points is faster than sorting those at hand."""


def to_code_points(titles: Sequence[str]) -> tuple[NDArray[np.uint32], Int64Array]:
    """Return the code points of some titles, one after another, and how many each has."""
    code = np.frombuffer("".join(titles).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint32)
    return code, np.array([len(title) for title in titles], dtype=np.int64)


def _list_present(code: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], Int64Array]:
    """Return the different code points, and which of them each character is; few are sorted, many are counted."""
    if len(code) < MANY_CHARACTERS:
        return np.unique(code, return_inverse=True)
    present = np.flatnonzero(np.bincount(code, minlength=CODE_POINT_COUNT))
    number = np.zeros(CODE_POINT_COUNT, dtype=np.int64)
    number[present] = np.arange(len(present))
    return present.astype(np.uint32), number[code]


@dataclass(frozen=True, slots=True, eq=False)
class TitleCharacters:
    """The characters of some titles, one after another; all arrays have the shape `[characters]`."""

    code: NDArray[np.uint32]
    """Code points."""
    title: Int64Array
    """Which title each stands in."""
    place: Int64Array
    """Where in it."""
    flags: NDArray[np.uint16]
    """What each is."""
    alphabet: NDArray[np.uint8]
    """Whose letter each is, 0 if of none that looks like another."""

    @staticmethod
    def of(titles: Sequence[str]) -> "TitleCharacters":
        """Lay titles out."""
        code, lengths = to_code_points(titles)
        begin = np.cumsum(lengths) - lengths
        present, which = _list_present(code)
        told = np.array([_classify_character(each) for each in present.tolist()], dtype=np.uint16).reshape(-1, 2)
        place = np.arange(len(code)) - np.repeat(begin, lengths)
        owner = np.repeat(np.arange(len(titles)), lengths)
        return TitleCharacters(code, owner, place, told[which, 0], told[which, 1].astype(np.uint8))

    def has_flags(self, flags: int) -> CharacterMask:
        """Return which characters have one of some flags."""
        return (self.flags & flags) > 0

    def mask_after(self, found: CharacterMask) -> CharacterMask:
        """Return which characters stand right after one that was found, in the same title."""
        shifted = np.zeros_like(found)
        shifted[1:] = found[:-1]
        return shifted & (self.place > 0)

    def mask_before(self, found: CharacterMask) -> CharacterMask:
        """Return which characters stand right before one that was found, in the same title."""
        shifted = np.zeros_like(found)
        shifted[:-1] = found[1:] & (self.place[1:] > 0)
        return shifted

    def number_runs(self, new: CharacterMask) -> Int64Array:
        """Number runs, of which one begins where told and with each title; shape `[characters]`, from 0."""
        return np.cumsum(new | (self.place == 0)) - 1


def mask_changes(values: NDArray[np.uint32] | CharacterMask) -> CharacterMask:
    """Return which values are not the one before."""
    new = np.ones(len(values), dtype=bool)
    new[1:] = values[1:] != values[:-1]
    return new


def count_in_runs(run: Int64Array, found: CharacterMask) -> Int64Array:
    """Return how many were found in the run of each character."""
    return np.bincount(run, found)[run].astype(np.int64) if len(run) else run
