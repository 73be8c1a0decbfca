"""Rules for characters that nobody types: what each finds in titles, and how rarely honest titles break it.

A rule has a weight in bits (`CHARACTER_RULES`). Unicode's own tables (`unicodedata`) say what a character is.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from cowbird.defenses._characters import (
    ALPHABETS,
    DIGIT,
    HIDDEN,
    JOINER,
    LETTER,
    LOOKALIKE,
    LOWER,
    MARK,
    ODD_SPACE,
    SIGN,
    SPACE,
    STYLED,
    UPPER,
    CharacterMask,
    TitleCharacters,
    count_in_runs,
    mask_changes,
)


def find_hidden(text: TitleCharacters) -> CharacterMask:
    """Find control and format characters (zero-width and bidirectional ones, soft hyphens), fillers, and no characters.

    Zero-width joiners are spared between characters that may need them: neither ASCII nor of an alphabet like Latin.
    """
    needs = (text.code > 127) & (text.alphabet == 0) & ~text.has_flags(HIDDEN | SPACE)
    return text.has_flags(HIDDEN) & ~(text.has_flags(JOINER) & text.mask_after(needs) & text.mask_before(needs))


def find_mixed(text: TitleCharacters) -> CharacterMask:
    """Find letters of other alphabets in words with letters of the first: Cyrillic or Greek ones in a Latin word."""
    inside = text.has_flags(LETTER | MARK)
    run = text.number_runs(mask_changes(inside))
    mask = np.zeros_like(text.alphabet)
    for bit in ALPHABETS.values():
        mask |= np.where(count_in_runs(run, (text.alphabet & bit) > 0) > 0, bit, 0).astype(np.uint8)
    first = mask & (~mask + 1)
    return (text.alphabet > 0) & (text.alphabet != first)


def find_disguised(text: TitleCharacters) -> CharacterMask:
    """Find letters of other alphabets in titles with Latin ones, if all of them look like Latin ones: `Red Воу`."""
    latin, other = text.alphabet == ALPHABETS["LATIN"], text.alphabet > ALPHABETS["LATIN"]
    title = text.title - text.title[0] if len(text.title) else text.title
    return other & (count_in_runs(title, latin) > 0) & (count_in_runs(title, other & ~text.has_flags(LOOKALIKE)) == 0)


def find_styled(text: TitleCharacters) -> CharacterMask:
    """Find letters and digits in fancy dress: full-width, mathematical, circled."""
    return text.has_flags(STYLED)


def find_marks(text: TitleCharacters) -> CharacterMask:
    """Find combining marks that compose with no letter of an alphabet like Latin, and runs of four and more."""
    mark = text.has_flags(MARK)
    found = np.zeros_like(mark)
    begins: list[int] = np.flatnonzero(mark & ~text.mask_after(mark)).tolist()
    ends: list[int] = np.flatnonzero(mark & ~text.mask_before(mark)).tolist()
    for begin, end in zip(begins, ends, strict=True):
        length, bare = end + 1 - begin, text.place[begin] == 0
        if length < 4 and not bare:
            base = begin - 1
            if text.alphabet[base]:
                bare = not _composes(bytes(text.code[base : end + 1]))
            else:
                bare = bool(text.flags[base] & SPACE)
        found[begin : end + 1] = length >= 4 or bare
    return found


@lru_cache(maxsize=1 << 16)
def _composes(cluster: bytes) -> bool:
    text = "".join(map(chr, np.frombuffer(cluster, dtype=np.uint32).tolist()))
    return len(unicodedata.normalize("NFC", text)) == 1


def find_odd_spaces(text: TitleCharacters) -> CharacterMask:
    """Find white space that is no plain space: tabs, line breaks, no-break and other wide or thin spaces."""
    return text.has_flags(ODD_SPACE)


def find_odd_case(text: TitleCharacters) -> CharacterMask:
    """Find capitals inside words cased like `hArBoR`, `harboR` or `hARBOR`; `McCabe`, `iPhone` and `USA` are spared."""
    letter, upper, lower = text.has_flags(LETTER), text.has_flags(UPPER), text.has_flags(LOWER)
    new = mask_changes(letter)
    run = text.number_runs(new)
    first = new | (text.place == 0)
    rises, falls = (
        count_in_runs(run, upper & text.mask_after(lower) & ~first),
        count_in_runs(run, lower & text.mask_after(upper) & ~first),
    )
    length, small = count_in_runs(run, letter), count_in_runs(run, first & lower) > 0
    odd = (rises >= 2) | ((rises == 1) & small & (length >= 3) & ((falls == 0) | (length == 3)))
    return upper & ~first & odd


def find_digits(text: TitleCharacters) -> CharacterMask:
    """Find single digits between letters, one of them small: `h4rbor`."""
    letter, lower = text.has_flags(LETTER), text.has_flags(LOWER)
    between = text.mask_after(letter) & text.mask_before(letter)
    return text.has_flags(DIGIT) & between & (text.mask_after(lower) | text.mask_before(lower))


def find_repeated_signs(text: TitleCharacters) -> CharacterMask:
    """Find the same mark or sign three times and more in a row, dots from five times on."""
    run = text.number_runs(mask_changes(text.code))
    length = count_in_runs(run, np.ones(len(run), dtype=bool))
    return text.has_flags(SIGN) & (length >= np.where(text.code == ord("."), 5, 3))


def find_repeated_spaces(text: TitleCharacters) -> CharacterMask:
    """Find spaces right behind a space."""
    plain = text.code == ord(" ")
    return plain & text.mask_after(plain)


def find_spelled(text: TitleCharacters) -> CharacterMask:
    """Find three letters and more that stand alone in a row, with the spaces between them: `h a r b o r`.

    Some of them must be small: `S W A T` is spared.
    """
    letter, gap = text.has_flags(LETTER), text.code == ord(" ")
    first = (text.place == 0) | text.mask_after(gap)
    last = text.mask_before(gap) | ~text.mask_before(np.ones_like(letter))
    alone = letter & first & last
    run = text.number_runs(mask_changes(alone | gap))
    odd = alone & (count_in_runs(run, alone) >= 3) & (count_in_runs(run, alone & text.has_flags(LOWER)) > 0)
    done, total = np.cumsum(odd), count_in_runs(run, odd)
    done -= np.append(0, done)[np.searchsorted(run, run)]
    return odd | (gap & (done > 0) & (done < total))


_WORD = r"(?<!\w)(\(?(?:[^\W\d_]{2,}|\d{4,})\)?)([ /_.&+~-]{1,3})\1((?:\2\1)*)(?!\w)"
_TOKEN = r"(?<!\S)((?=\S{0,38}[^\W\d_])\S{2,40})([ /_.&+~-]{1,3})\4((?:\5\4)*)(?!\S)"
_REPEATED_WORD = re.compile(f"{_WORD}|{_TOKEN}", re.IGNORECASE)
"""A word or year behind itself, or anything between white space that has a letter (`Hi-Fi Hi-Fi`); then what joins
them, and more of the same."""


class RepeatedWord(NamedTuple):
    """A word or year that stands right behind itself."""

    place: slice
    """The characters of all but the first."""
    later: bool
    """Whether it does not begin its title."""
    again: bool
    """Whether it stands there three times or more."""
    joined: bool
    """Whether more than spaces and hyphens join them."""


@lru_cache(maxsize=1)
def list_repeated_words(text: TitleCharacters) -> tuple[RepeatedWord, ...]:
    """Return the words and years that stand right behind themselves; four rules ask for those of the same text."""
    begins = np.flatnonzero(text.place == 0)
    lines = np.insert(text.code, begins, ord("\n"))
    found: list[RepeatedWord] = []
    for match in _REPEATED_WORD.finditer(lines.tobytes().decode("utf-32-le", "surrogatepass")):
        before = int(np.searchsorted(begins + np.arange(len(begins)), match.start()))
        first = 1 if match.group(1) else 4
        joint = match.group(first + 1)
        start = match.end(first) + len(joint) - len(joint.lstrip(" "))
        later, again = match.string[match.start() - 1] != "\n", bool(match.group(first + 2))
        found.append(RepeatedWord(slice(start - before, match.end() - before), later, again, bool(joint.strip(" -"))))
    return tuple(found)


def _mask_repeated_words(text: TitleCharacters, counts: Callable[[RepeatedWord], bool]) -> CharacterMask:
    found = np.zeros(len(text.code), dtype=bool)
    for echo in list_repeated_words(text):
        found[echo.place] |= counts(echo)
    return found


def find_repeated_words(text: TitleCharacters) -> CharacterMask:
    """Find words and years right behind themselves: `harbor harbor`, `(1995)/(1995)`; of some honest titles, too."""
    return _mask_repeated_words(text, lambda echo: True)


def find_repeated_later(text: TitleCharacters) -> CharacterMask:
    """Find those that do not begin their title: `Red harbor harbor`, but not `Harbor harbor red`."""
    return _mask_repeated_words(text, lambda echo: echo.later)


def find_repeated_often(text: TitleCharacters) -> CharacterMask:
    """Find those that stand three times and more: `harbor harbor harbor`."""
    return _mask_repeated_words(text, lambda echo: echo.again)


def find_repeated_joined(text: TitleCharacters) -> CharacterMask:
    """Find those joined by more than spaces and hyphens: `harbor/harbor`."""
    return _mask_repeated_words(text, lambda echo: echo.joined)


CHARACTER_RULES: tuple[tuple[float, Callable[[TitleCharacters], CharacterMask]], ...] = (
    (60.0, find_hidden),
    (11.0, find_mixed),
    (12.0, find_disguised),
    (45.0, find_styled),
    (45.0, find_marks),
    (30.0, find_odd_spaces),
    (10.0, find_odd_case),
    (10.0, find_digits),
    (10.0, find_repeated_signs),
    (30.0, find_spelled),
    (20.0, find_repeated_spaces),
    (8.0, find_repeated_words),
    (10.0, find_repeated_later),
    (12.0, find_repeated_often),
    (12.0, find_repeated_joined),
)
"""The rules that fire or don't, with their weights in bits; a character seen in one of a million titles has 20.

Of 10,126 different titles of MovieLens-100K, MovieLens-1M and Last.FM's artists 45 break `find_repeated_words`, 12
`find_repeated_later`, 9
`find_odd_case`, 5 `find_mixed` (`KoЯn` and four more artists), 4 `find_digits` and `find_repeated_joined`, 3
`find_repeated_signs`, 2 `find_repeated_often` and 1 `find_disguised`: between 8 and 13 bits. None breaks another."""


def is_all_lower(title: str) -> bool:
    """Return whether a title is in small letters throughout that has several words, or numbers, of two characters."""
    return title.islower() and sum(len(word) > 1 for word in title.split()) > 1


CASE_RULES: tuple[tuple[float, Callable[[str], bool]], ...] = (
    (8.0, str.islower),
    (12.0, is_all_lower),
    (6.0, str.isupper),
)
"""Ways in which a whole title can be written that are odd where they are rare, with weights in bits;
`find_broken_rules` alone tells them. Of the same titles 29 break the first, none the second, and 112 the third."""


RULE_REASONS: dict[Callable[[TitleCharacters], CharacterMask], str] = {
    find_hidden: "hidden characters",
    find_mixed: "letters of several alphabets in one word",
    find_disguised: "letters that look like Latin ones and are not",
    find_styled: "styled letters or digits",
    find_marks: "marks that belong to no letter",
    find_odd_spaces: "white space that is no plain space",
    find_odd_case: "capitals inside a word",
    find_digits: "digits inside a word",
    find_repeated_signs: "repeated signs",
    find_spelled: "a word spelled out letter by letter",
    find_repeated_spaces: "repeated spaces",
    find_repeated_words: "a repeated word",
    find_repeated_later: "a repeated word",
    find_repeated_often: "a word three times and more",
    find_repeated_joined: "a repeated word, joined by signs",
}
"""What each of `CHARACTER_RULES` finds, in words."""
