"""Titles with characters that nobody types: hidden, from another alphabet inside a word, styled, or merely rare.

The baseline that needs no model. Fifteen rules fire or don't, each with a weight in bits that says how rarely honest
titles break it (`CHARACTER_RULES`; for what no title at hand breaks, our judgment); the last measures the catalogue
itself: the
surprisal -log2((t + 1/2) / (n + 1)) of a title's rarest character, which t of n titles show (Krichevsky and Trofimov's
estimate, IEEE Transactions on Information Theory 1981). A title is as suspicious as the rule that speaks loudest. Its
span goes from the first to the last character found by that rule, within the word (or the run of white space) of the
first, or as far as one follows another.

Unicode's own tables (`unicodedata`) say what a character is. Known to be spared: marks and joiners that a script needs
(accents that compose with their letter, the zero-width joiners between emoji or letters of Arabic and Indic scripts).
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Float32Array, Int32Array, Int64Array
from cowbird.defenses._characters import (
    ALPHABETS,
    CODE_POINT_COUNT,
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
from cowbird.defenses.titles import Suspicion, TitleDefense
from cowbird.victims.base import Probe

CHUNK_CHARACTERS = 1 << 20
"""Characters read at once, or those of one longer title."""


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


class CharacterRules(TitleDefense):
    """Flag titles with hidden, mixed, styled or rare characters, or odd marks and casing; needs no model."""

    scan_settings: ClassVar[Mapping[str, float | bool]] = {"threshold": 9.5, "rarity": False}
    scan_basis: ClassVar[str] = (
        "Titles are flagged that break a rule: hidden, styled or lookalike characters, odd marks, spaces or capitals, "
        "digits in words, repeated words. Of 10,126 titles of MovieLens and Last.FM, 39 break one."
    )

    rarity: bool = True
    """Whether a character counts that few titles of the catalogue have."""

    @property
    def compares_titles(self) -> bool:
        """Whether rare characters count; the rules look at one title."""
        return self.rarity

    def explain(self, title: str, score: float) -> str:
        """Name the rule that speaks loudest; see `TitleDefense.explain`."""
        text = TitleCharacters.of([title])
        fired = [rule for weight, rule in CHARACTER_RULES if weight >= score and rule(text).any()]
        reason = RULE_REASONS[fired[0]] if fired else "a character that few titles of this catalogue have"
        return f"{reason} ({score:.0f} bits)"

    def suspect(self, titles: Sequence[str], probe: Probe | None = None) -> Suspicion:
        """Judge titles by the rule that speaks loudest, in bits; see `TitleDefense.suspect`."""
        score, start, end = _make_empty(len(titles))
        parts = _cut_titles(titles)
        bits = _measure_rarity(titles, parts) if self.rarity else None
        for part in parts:
            text = TitleCharacters.of(titles[part])
            if bits is not None:
                rarity = bits[text.code]
                rarest = np.full(part.stop - part.start, -np.inf)
                np.maximum.at(rarest, text.title, rarity)
                found = rarity == rarest[text.title]
                word = text.number_runs(mask_changes(text.has_flags(SPACE)))
                _record_findings(text, word, found, rarest, (score[part], start[part], end[part]))
            _apply_rules(text, part, [(score, start, end)] * len(CHARACTER_RULES))
        return Suspicion(score, start, end)


def _measure_rarity(titles: Sequence[str], parts: Sequence[slice]) -> NDArray[np.float64]:
    """Return the surprisal of each character in bits, shape `[CODE_POINT_COUNT]`."""
    shows = np.zeros(CODE_POINT_COUNT, dtype=np.int64)
    for part in parts:
        text = TitleCharacters.of(titles[part])
        shows += np.bincount(
            np.unique(text.title * CODE_POINT_COUNT + text.code) % CODE_POINT_COUNT, minlength=CODE_POINT_COUNT
        )
    return -np.log2((shows + 0.5) / (len(titles) + 1))


def find_broken_rules(titles: Sequence[str]) -> list[tuple[float, Suspicion]]:
    """Return which titles break each rule.

    Returns:
        For each of `CHARACTER_RULES`, then of `CASE_RULES`, its weight in bits, and that as the score of the titles
        that break it, with a span; the score of others is -inf.
    """
    found = [_make_empty(len(titles)) for _ in (*CHARACTER_RULES, *CASE_RULES)]
    for part in _cut_titles(titles):
        _apply_rules(TitleCharacters.of(titles[part]), part, found[: len(CHARACTER_RULES)])
    for (weight, written), (score, start, end) in zip(CASE_RULES, found[len(CHARACTER_RULES) :], strict=True):
        rows: list[int] = np.flatnonzero(np.fromiter(map(written, titles), np.bool_, len(titles))).tolist()
        score[rows], start[rows], end[rows] = weight, 0, [len(titles[row]) for row in rows]
    return [
        (weight, Suspicion(*told)) for (weight, _), told in zip((*CHARACTER_RULES, *CASE_RULES), found, strict=True)
    ]


def _make_empty(count: int) -> tuple[Float32Array, Int32Array, Int32Array]:
    start, end = np.full((2, count), -1, dtype=np.int32)
    return np.full(count, -np.inf, dtype=np.float32), start, end


def _apply_rules(
    text: TitleCharacters, part: slice, told: Sequence[tuple[Float32Array, Int32Array, Int32Array]]
) -> None:
    """Write down which rules a part of the titles breaks, each rule in arrays of its own or all in the same ones.

    Args:
        text: That part.
        part: Which it is.
        told: Where each of `CHARACTER_RULES` notes score, start and end of the titles; see `_record_findings`.
    """
    border = mask_changes(text.has_flags(SPACE))
    for (weight, rule), (score, start, end) in zip(CHARACTER_RULES, told, strict=True):
        fired = np.full(part.stop - part.start, weight)
        found = rule(text)
        chunk = text.number_runs(border & ~(found & text.mask_after(found)))
        _record_findings(text, chunk, found, fired, (score[part], start[part], end[part]))


def _cut_titles(titles: Sequence[str]) -> list[slice]:
    """Cut titles into runs of about `CHUNK_CHARACTERS` characters."""
    block = np.cumsum([len(title) for title in titles], dtype=np.int64) // CHUNK_CHARACTERS
    edges = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(titles)]
    return [slice(start, end) for start, end in pairwise(edges) if start < end]


def _record_findings(
    text: TitleCharacters,
    chunk: Int64Array,
    found: CharacterMask,
    value: NDArray[np.float64],
    known: tuple[Float32Array, Int32Array, Int32Array],
) -> None:
    """Write down what a rule found where it speaks louder than those before it.

    Args:
        text: The titles.
        chunk: The word, or run of white space, of each character; what was found side by side is of one.
        found: What the rule found.
        value: How loudly it speaks in each title, shape `[titles]`.
        known: Score, start and end of each title, changed in place.
    """
    hits = np.flatnonzero(found)
    hits = hits[value[text.title[hits]] > known[0][text.title[hits]]]
    rows, first, count = np.unique(text.title[hits], return_index=True, return_counts=True)
    same = chunk[hits] == np.repeat(chunk[hits[first]], count)
    last = hits[first].copy()
    np.maximum.at(last, np.repeat(np.arange(len(rows)), count)[same], hits[same])
    known[0][rows], known[1][rows], known[2][rows] = value[rows], text.place[hits[first]], text.place[last] + 1
