"""Titles with characters that nobody types: hidden, from another alphabet inside a word, styled, or merely rare.

The baseline that needs no model. Eleven rules fire or don't, each with a weight in bits that says how rarely honest
titles break it (`RULES`; for what no title at hand breaks, our judgment); the last measures the catalogue itself: the
surprisal -log2((t + 1/2) / (n + 1)) of a title's rarest character, which t of n titles show (Krichevsky and Trofimov's
estimate, IEEE Transactions on Information Theory 1981). A title is as suspicious as the rule that speaks loudest. Its
span goes from the first to the last character found by that rule, within the word (or the run of white space) of the
first, or as far as one follows another.

Unicode's own tables (`unicodedata`) say what a character is. Known to be spared: marks and joiners that a script needs
(accents that compose with their letter, the zero-width joiners between emoji or letters of Arabic and Indic scripts).
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Index, Offset, Real
from cowbird.defenses.titles import Suspicion, TitleDefense
from cowbird.victims.base import Probe

Found = NDArray[np.bool_]
"""Which characters a rule found, shape `[characters]`."""

CODES = 0x110000
CHUNK = 1 << 20
"""Characters read at once, or those of one longer title."""
HIDDEN, JOINER, SPACE, ODD_SPACE, LETTER, UPPER, LOWER, DIGIT, MARK, SIGN, STYLED = (1 << bit for bit in range(11))
ALPHABETS = {"LATIN": 1, "CYRILLIC": 2, "GREEK": 4, "ARMENIAN": 8, "CHEROKEE": 16, "COPTIC": 32}
"""Alphabets with letters that look alike, by the first word of the letters' names."""
_BLANK = frozenset({0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0})
"""Letters and signs that show nothing."""
_STYLE = re.compile(
    "FULLWIDTH|MATHEMATICAL|CIRCLED|PARENTHESIZED|SQUARED|DOUBLE-STRUCK|SCRIPT |BLACK-LETTER"
    "|LATIN LETTER SMALL CAPITAL|REGIONAL INDICATOR"
)


@lru_cache(maxsize=1 << 16)
def _character(code: int) -> tuple[int, int]:
    """Return what a character is, and its alphabet."""
    letter = chr(code)
    kind, name = unicodedata.category(letter), unicodedata.name(letter, "")
    flags = 0
    if letter.isspace():
        flags |= SPACE if letter == " " else SPACE | ODD_SPACE
    elif kind in ("Cc", "Cf", "Cs", "Co", "Cn") or code in _BLANK:
        flags |= HIDDEN | (JOINER if code in (0x200C, 0x200D) else 0)
    elif kind[0] == "L":
        flags |= LETTER | {"Lu": UPPER, "Lt": UPPER, "Ll": LOWER}.get(kind, 0)
    elif kind[0] == "M":
        flags |= MARK
    elif kind == "Nd":
        flags |= DIGIT
    elif kind[0] in "PS":
        flags |= SIGN
    if code > 127 and _STYLE.match(name):
        plain = unicodedata.normalize("NFKC", letter).strip("()")
        if (plain.isascii() and plain.isalnum()) or name.startswith(("LATIN LETTER SMALL CAPITAL", "REGIONAL")):
            flags |= STYLED
    return flags, ALPHABETS.get(name.partition(" ")[0], 0) if flags & LETTER else 0


def code_points(titles: Sequence[str]) -> tuple[NDArray[np.uint32], Offset]:
    """Return the code points of some titles, one after another, and how many each has."""
    code = np.frombuffer("".join(titles).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint32)
    return code, np.array([len(title) for title in titles], dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """The characters of some titles, one after another; all arrays have the shape `[characters]`."""

    code: NDArray[np.uint32]
    """Code points."""
    title: Offset
    """Which title each stands in."""
    place: Offset
    """Where in it."""
    flags: NDArray[np.uint16]
    """What each is."""
    alphabet: NDArray[np.uint8]
    """Whose letter each is, 0 if of none that looks like another."""

    @staticmethod
    def of(titles: Sequence[str]) -> "Text":
        """Lay titles out."""
        code, lengths = code_points(titles)
        begin = np.cumsum(lengths) - lengths
        flags, alphabet = np.zeros(CODES, dtype=np.uint16), np.zeros(CODES, dtype=np.uint8)
        present: list[int] = np.flatnonzero(np.bincount(code, minlength=CODES)).tolist()
        for each in present:
            flags[each], alphabet[each] = _character(each)
        place = np.arange(len(code)) - np.repeat(begin, lengths)
        return Text(code, np.repeat(np.arange(len(titles)), lengths), place, flags[code], alphabet[code])

    def are(self, flags: int) -> Found:
        """Return which characters have one of some flags."""
        return (self.flags & flags) > 0

    def after(self, found: Found) -> Found:
        """Return which characters stand right after one that was found, in the same title."""
        shifted = np.zeros_like(found)
        shifted[1:] = found[:-1]
        return shifted & (self.place > 0)

    def before(self, found: Found) -> Found:
        """Return which characters stand right before one that was found, in the same title."""
        shifted = np.zeros_like(found)
        shifted[:-1] = found[1:] & (self.place[1:] > 0)
        return shifted

    def runs(self, new: Found) -> Offset:
        """Number runs, of which one begins where told and with each title; shape `[characters]`, from 0."""
        return np.cumsum(new | (self.place == 0)) - 1


def _differs(values: NDArray[np.uint32] | Found) -> Found:
    """Return which values are not the one before."""
    new = np.ones(len(values), dtype=bool)
    new[1:] = values[1:] != values[:-1]
    return new


def _count(run: Offset, found: Found) -> Offset:
    """Return how many were found in the run of each character."""
    return np.bincount(run, found)[run].astype(np.int64) if len(run) else run


def hidden(text: Text) -> Found:
    """Find control and format characters (zero-width and bidirectional ones, soft hyphens), fillers, and no characters.

    Zero-width joiners are spared between characters that may need them: neither ASCII nor of an alphabet like Latin.
    """
    needs = (text.code > 127) & (text.alphabet == 0) & ~text.are(HIDDEN | SPACE)
    return text.are(HIDDEN) & ~(text.are(JOINER) & text.after(needs) & text.before(needs))


def mixed(text: Text) -> Found:
    """Find letters of other alphabets in words with letters of the first: Cyrillic or Greek ones in a Latin word."""
    inside = text.are(LETTER | MARK)
    run = text.runs(_differs(inside))
    mask = np.zeros_like(text.alphabet)
    for bit in ALPHABETS.values():
        mask |= np.where(_count(run, (text.alphabet & bit) > 0) > 0, bit, 0).astype(np.uint8)
    first = mask & (~mask + 1)
    return (text.alphabet > 0) & (text.alphabet != first)


def styled(text: Text) -> Found:
    """Find letters and digits in fancy dress: full-width, mathematical, circled."""
    return text.are(STYLED)


def marks(text: Text) -> Found:
    """Find combining marks that compose with no letter of an alphabet like Latin, and runs of four and more."""
    mark = text.are(MARK)
    found = np.zeros_like(mark)
    begins: list[int] = np.flatnonzero(mark & ~text.after(mark)).tolist()
    ends: list[int] = np.flatnonzero(mark & ~text.before(mark)).tolist()
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


def spacing(text: Text) -> Found:
    """Find white space that is no plain space: tabs, line breaks, no-break and other wide or thin spaces."""
    return text.are(ODD_SPACE)


def casing(text: Text) -> Found:
    """Find capitals inside words cased like `hArBoR`, `harboR` or `hARBOR`; `McCabe`, `iPhone` and `USA` are spared."""
    letter, upper, lower = text.are(LETTER), text.are(UPPER), text.are(LOWER)
    new = _differs(letter)
    run = text.runs(new)
    first = new | (text.place == 0)
    rises, falls = _count(run, upper & text.after(lower) & ~first), _count(run, lower & text.after(upper) & ~first)
    length, small = _count(run, letter), _count(run, first & lower) > 0
    odd = (rises >= 2) | ((rises == 1) & small & (length >= 3) & ((falls == 0) | (length == 3)))
    return upper & ~first & odd


def digits(text: Text) -> Found:
    """Find single digits between letters, one of them small: `h4rbor`."""
    letter, lower = text.are(LETTER), text.are(LOWER)
    between = text.after(letter) & text.before(letter)
    return text.are(DIGIT) & between & (text.after(lower) | text.before(lower))


def repeats(text: Text) -> Found:
    """Find the same mark or sign three times and more in a row, dots from five times on."""
    run = text.runs(_differs(text.code))
    length = _count(run, np.ones(len(run), dtype=bool))
    return text.are(SIGN) & (length >= np.where(text.code == ord("."), 5, 3))


def doubled(text: Text) -> Found:
    """Find spaces right behind a space."""
    plain = text.code == ord(" ")
    return plain & text.after(plain)


def spelled(text: Text) -> Found:
    """Find three letters and more that stand alone in a row, with the spaces between them: `h a r b o r`.

    Some of them must be small: `S W A T` is spared.
    """
    letter, gap = text.are(LETTER), text.code == ord(" ")
    first = (text.place == 0) | text.after(gap)
    last = text.before(gap) | ~text.before(np.ones_like(letter))
    alone = letter & first & last
    run = text.runs(_differs(alone | gap))
    odd = alone & (_count(run, alone) >= 3) & (_count(run, alone & text.are(LOWER)) > 0)
    done, total = np.cumsum(odd), _count(run, odd)
    done -= np.append(0, done)[np.searchsorted(run, run)]
    return odd | (gap & (done > 0) & (done < total))


_ECHO = re.compile(r"(?<!\w)(\(?(?:[^\W\d_]{2,}|\d{4,})\)?)([ /_.&+~-]{1,3})\1(?!\w)", re.IGNORECASE)


def echoed(text: Text) -> Found:
    """Find words and years right behind themselves: `harbor harbor`, `(1995)/(1995)`; of some honest titles, too."""
    found = np.zeros(len(text.code), dtype=bool)
    begins = np.flatnonzero(text.place == 0)
    lines = np.insert(text.code, begins, ord("\n"))
    for match in _ECHO.finditer(lines.tobytes().decode("utf-32-le", "surrogatepass")):
        before = int(np.searchsorted(begins + np.arange(len(begins)), match.start()))
        gap = match.group(2)
        found[match.end() - before - len(match.group(1) + gap.lstrip(" ")) : match.end() - before] = True
    return found


RULES: tuple[tuple[float, Callable[[Text], Found]], ...] = (
    (60.0, hidden),
    (11.0, mixed),
    (45.0, styled),
    (45.0, marks),
    (30.0, spacing),
    (10.0, casing),
    (10.0, digits),
    (10.0, repeats),
    (30.0, spelled),
    (20.0, doubled),
    (8.0, echoed),
)
"""The rules that fire or don't, with their weights in bits; a character seen in one of a million titles has 20.

Of 10,148 different titles of MovieLens-100K, MovieLens-1M and Last.FM's artists 42 break `echoed`, 9 `casing`, 4
`digits`, 3 `repeats` and 5 `mixed` (`KoЯn` and four more artists): between 8 and 12 bits. None breaks another."""


WRITTEN: tuple[tuple[float, Callable[[str], bool]], ...] = ((8.0, str.islower), (6.0, str.isupper))
"""Ways in which a whole title can be written that are odd where they are rare, with weights in bits; `breaks` alone
tells them."""


class CharacterRules(TitleDefense):
    """Flag titles with hidden, mixed, styled or rare characters, or odd marks and casing; needs no model."""

    def suspect(self, titles: Sequence[str], probe: Probe | None = None) -> Suspicion:
        """Judge titles by the rule that speaks loudest, in bits; see `TitleDefense.suspect`."""
        score, start, end = _nothing(len(titles))
        shows = np.zeros(CODES, dtype=np.int64)
        parts = _parts(titles)
        for part in parts:
            text = Text.of(titles[part])
            shows += np.bincount(np.unique(text.title * CODES + text.code) % CODES, minlength=CODES)
        bits = -np.log2((shows + 0.5) / (len(titles) + 1))
        for part in parts:
            text = Text.of(titles[part])
            rarity = bits[text.code]
            rarest = np.full(part.stop - part.start, -np.inf)
            np.maximum.at(rarest, text.title, rarity)
            found = rarity == rarest[text.title]
            _note(text, text.runs(_differs(text.are(SPACE))), found, rarest, (score[part], start[part], end[part]))
            _break(text, part, [(score, start, end)] * len(RULES))
        return Suspicion(score, start, end)


def breaks(titles: Sequence[str]) -> list[tuple[float, Suspicion]]:
    """Return which titles break each rule.

    Returns:
        For each of `RULES`, then of `WRITTEN`, its weight in bits, and that as the score of the titles that break it,
        with a span; the score of others is -inf.
    """
    found = [_nothing(len(titles)) for _ in (*RULES, *WRITTEN)]
    for part in _parts(titles):
        _break(Text.of(titles[part]), part, found[: len(RULES)])
    for (weight, written), (score, start, end) in zip(WRITTEN, found[len(RULES) :], strict=True):
        rows: list[int] = np.flatnonzero(np.fromiter(map(written, titles), np.bool_, len(titles))).tolist()
        score[rows], start[rows], end[rows] = weight, 0, [len(titles[row]) for row in rows]
    return [(weight, Suspicion(*told)) for (weight, _), told in zip((*RULES, *WRITTEN), found, strict=True)]


def _nothing(count: int) -> tuple[Real, Index, Index]:
    start, end = np.full((2, count), -1, dtype=np.int32)
    return np.full(count, -np.inf, dtype=np.float32), start, end


def _break(text: Text, part: slice, told: Sequence[tuple[Real, Index, Index]]) -> None:
    """Write down which rules a part of the titles breaks, each rule in arrays of its own or all in the same ones.

    Args:
        text: That part.
        part: Which it is.
        told: Where each of `RULES` notes score, start and end of the titles; see `_note`.
    """
    border = _differs(text.are(SPACE))
    for (weight, rule), (score, start, end) in zip(RULES, told, strict=True):
        fired = np.full(part.stop - part.start, weight)
        found = rule(text)
        chunk = text.runs(border & ~(found & text.after(found)))
        _note(text, chunk, found, fired, (score[part], start[part], end[part]))


def _parts(titles: Sequence[str]) -> list[slice]:
    """Cut titles into runs of about `CHUNK` characters."""
    block = np.cumsum([len(title) for title in titles], dtype=np.int64) // CHUNK
    edges = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(titles)]
    return [slice(start, end) for start, end in pairwise(edges) if start < end]


def _note(
    text: Text,
    chunk: Offset,
    found: Found,
    value: NDArray[np.float64],
    known: tuple[Real, Index, Index],
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
