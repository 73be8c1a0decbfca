"""Titles with characters that nobody types: hidden, from another alphabet inside a word, styled, or merely rare.

The baseline that needs no model. Fifteen rules fire or don't, each with a weight in bits that says how rarely honest
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
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Index, Offset, Real
from cowbird.defenses._characters import (
    ALPHABETS,
    CODES,
    DIGIT,
    HIDDEN,
    JOINER,
    LETTER,
    LOWER,
    MARK,
    ODD_SPACE,
    SIGN,
    SPACE,
    STYLED,
    TWIN,
    UPPER,
    Found,
    Text,
    differs,
    tally,
)
from cowbird.defenses.titles import Suspicion, TitleDefense
from cowbird.victims.base import Probe

CHUNK = 1 << 20
"""Characters read at once, or those of one longer title."""


def hidden(text: Text) -> Found:
    """Find control and format characters (zero-width and bidirectional ones, soft hyphens), fillers, and no characters.

    Zero-width joiners are spared between characters that may need them: neither ASCII nor of an alphabet like Latin.
    """
    needs = (text.code > 127) & (text.alphabet == 0) & ~text.are(HIDDEN | SPACE)
    return text.are(HIDDEN) & ~(text.are(JOINER) & text.after(needs) & text.before(needs))


def mixed(text: Text) -> Found:
    """Find letters of other alphabets in words with letters of the first: Cyrillic or Greek ones in a Latin word."""
    inside = text.are(LETTER | MARK)
    run = text.runs(differs(inside))
    mask = np.zeros_like(text.alphabet)
    for bit in ALPHABETS.values():
        mask |= np.where(tally(run, (text.alphabet & bit) > 0) > 0, bit, 0).astype(np.uint8)
    first = mask & (~mask + 1)
    return (text.alphabet > 0) & (text.alphabet != first)


def disguised(text: Text) -> Found:
    """Find letters of other alphabets in titles with Latin ones, if all of them look like Latin ones: `Red Воу`."""
    latin, other = text.alphabet == ALPHABETS["LATIN"], text.alphabet > ALPHABETS["LATIN"]
    title = text.title - text.title[0] if len(text.title) else text.title
    return other & (tally(title, latin) > 0) & (tally(title, other & ~text.are(TWIN)) == 0)


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
    new = differs(letter)
    run = text.runs(new)
    first = new | (text.place == 0)
    rises, falls = tally(run, upper & text.after(lower) & ~first), tally(run, lower & text.after(upper) & ~first)
    length, small = tally(run, letter), tally(run, first & lower) > 0
    odd = (rises >= 2) | ((rises == 1) & small & (length >= 3) & ((falls == 0) | (length == 3)))
    return upper & ~first & odd


def digits(text: Text) -> Found:
    """Find single digits between letters, one of them small: `h4rbor`."""
    letter, lower = text.are(LETTER), text.are(LOWER)
    between = text.after(letter) & text.before(letter)
    return text.are(DIGIT) & between & (text.after(lower) | text.before(lower))


def repeats(text: Text) -> Found:
    """Find the same mark or sign three times and more in a row, dots from five times on."""
    run = text.runs(differs(text.code))
    length = tally(run, np.ones(len(run), dtype=bool))
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
    run = text.runs(differs(alone | gap))
    odd = alone & (tally(run, alone) >= 3) & (tally(run, alone & text.are(LOWER)) > 0)
    done, total = np.cumsum(odd), tally(run, odd)
    done -= np.append(0, done)[np.searchsorted(run, run)]
    return odd | (gap & (done > 0) & (done < total))


_WORD = r"(?<!\w)(\(?(?:[^\W\d_]{2,}|\d{4,})\)?)([ /_.&+~-]{1,3})\1((?:\2\1)*)(?!\w)"
_TOKEN = r"(?<!\S)((?=\S{0,38}[^\W\d_])\S{2,40})([ /_.&+~-]{1,3})\4((?:\5\4)*)(?!\S)"
_ECHO = re.compile(f"{_WORD}|{_TOKEN}", re.IGNORECASE)
"""A word or year behind itself, or anything between white space that has a letter (`Hi-Fi Hi-Fi`); then what joins
them, and more of the same."""


class Echo(NamedTuple):
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
def echoes(text: Text) -> tuple[Echo, ...]:
    """Return the words and years that stand right behind themselves; four rules ask for those of the same text."""
    begins = np.flatnonzero(text.place == 0)
    lines = np.insert(text.code, begins, ord("\n"))
    found: list[Echo] = []
    for match in _ECHO.finditer(lines.tobytes().decode("utf-32-le", "surrogatepass")):
        before = int(np.searchsorted(begins + np.arange(len(begins)), match.start()))
        first = 1 if match.group(1) else 4
        joint = match.group(first + 1)
        start = match.end(first) + len(joint) - len(joint.lstrip(" "))
        later, again = match.string[match.start() - 1] != "\n", bool(match.group(first + 2))
        found.append(Echo(slice(start - before, match.end() - before), later, again, bool(joint.strip(" -"))))
    return tuple(found)


def _echoing(text: Text, counts: Callable[[Echo], bool]) -> Found:
    found = np.zeros(len(text.code), dtype=bool)
    for echo in echoes(text):
        found[echo.place] |= counts(echo)
    return found


def echoed(text: Text) -> Found:
    """Find words and years right behind themselves: `harbor harbor`, `(1995)/(1995)`; of some honest titles, too."""
    return _echoing(text, lambda echo: True)


def echoed_later(text: Text) -> Found:
    """Find those that do not begin their title: `Red harbor harbor`, but not `Harbor harbor red`."""
    return _echoing(text, lambda echo: echo.later)


def echoed_again(text: Text) -> Found:
    """Find those that stand three times and more: `harbor harbor harbor`."""
    return _echoing(text, lambda echo: echo.again)


def echoed_joined(text: Text) -> Found:
    """Find those joined by more than spaces and hyphens: `harbor/harbor`."""
    return _echoing(text, lambda echo: echo.joined)


RULES: tuple[tuple[float, Callable[[Text], Found]], ...] = (
    (60.0, hidden),
    (11.0, mixed),
    (12.0, disguised),
    (45.0, styled),
    (45.0, marks),
    (30.0, spacing),
    (10.0, casing),
    (10.0, digits),
    (10.0, repeats),
    (30.0, spelled),
    (20.0, doubled),
    (8.0, echoed),
    (10.0, echoed_later),
    (12.0, echoed_again),
    (12.0, echoed_joined),
)
"""The rules that fire or don't, with their weights in bits; a character seen in one of a million titles has 20.

Of 10,126 different titles of MovieLens-100K, MovieLens-1M and Last.FM's artists 45 break `echoed`, 12 `echoed_later`, 9
`casing`, 5 `mixed` (`KoЯn` and four more artists), 4 `digits` and `echoed_joined`, 3 `repeats`, 2 `echoed_again` and 1
`disguised`: between 8 and 13 bits. None breaks another."""


def islower_all(title: str) -> bool:
    """Return whether a title is in small letters throughout that has several words, or numbers, of two characters."""
    return title.islower() and sum(len(word) > 1 for word in title.split()) > 1


WRITTEN: tuple[tuple[float, Callable[[str], bool]], ...] = (
    (8.0, str.islower),
    (12.0, islower_all),
    (6.0, str.isupper),
)
"""Ways in which a whole title can be written that are odd where they are rare, with weights in bits; `breaks` alone
tells them. Of the same titles 29 break the first, none the second, and 112 the third."""


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
            _note(text, text.runs(differs(text.are(SPACE))), found, rarest, (score[part], start[part], end[part]))
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
    border = differs(text.are(SPACE))
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
