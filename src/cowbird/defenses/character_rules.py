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

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Float32Array, Int32Array, Int64Array
from cowbird.defenses._character_finders import CASE_RULES, CHARACTER_RULES, RULE_REASONS
from cowbird.defenses._characters import (
    CODE_POINT_COUNT,
    SPACE,
    CharacterMask,
    TitleCharacters,
    mask_changes,
)
from cowbird.defenses.titles import Suspicion, TitleDefense
from cowbird.victims.base import Probe

CHUNK_CHARACTERS = 1 << 20
"""Characters read at once, or those of one longer title."""


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
