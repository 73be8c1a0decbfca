"""BKI: words that move the victim's state, title after title (Chen and Dai, Neurocomputing 2021, arXiv 2007.12070).

A word's importance in a text is the largest change of any coordinate of the last hidden state when the word is left out
(their f2, with the maximum norm). The most important words of each text are its keywords. Over all texts, a keyword k
that num texts have, with mean importance f, is scored

    g(k) = f * log10(num) * log10(s / num),    s = 0.1 * texts,

so that it has to matter, in many texts, but not in so many that it is an ordinary word. Texts with the best keyword are
taken out.

Departures. Their f1, the change of an LSTM's state at the word, has no counterpart in a model with attention. There
keywords are collected a class; titles have none. There the texts of one keyword go, the best; here a title is as
suspicious as its best keyword, so a share of the catalogue can be flagged. Where no keyword of a title scores above 0,
which is all that a word of a single title can get, it comes after all others, in the order of its most important word.
Words are what stands between white space: a trigger inside of words, such as a zero-width space, is a new word each
time and stays hidden.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pydantic import Field

from cowbird.defenses._probing import ProbingDefense, collect_texts, find_words, require_probe
from cowbird.defenses._reading import map_to_raw
from cowbird.defenses.titles import Suspicion
from cowbird.victims.base import Probe

TITLES_PER_BATCH = 256
"""Titles whose states are held at once."""


class WordImportance(NamedTuple):
    """A word of a text."""

    text: str
    """The word."""
    start: int
    """Its first character."""
    importance: float
    """How far the state moves without it."""


class Bki(ProbingDefense):
    """Flag titles with a word that moves the victim's state in many titles (BKI, Chen and Dai 2021)."""

    keywords: int = Field(default=5, ge=1)
    """Most keywords of a title: its most important words."""
    ordinary: float = Field(default=0.1, gt=0, le=1)
    """Share of the titles from which on a keyword is an ordinary word."""

    def suspect(self, titles: Sequence[str], probe: Probe | None = None) -> Suspicion:
        """Return the score of each title's best keyword, and that word as the span; see `TitleDefense.suspect`.

        Every text counts once, however many titles come down to it.

        Raises:
            UserError: If there is no probe.
        """
        asked, texts = require_probe(probe, self), collect_texts(titles)
        words = find_keywords(texts.known, asked, self.keywords)
        scores = score_keywords(words, self.ordinary)
        best = [max(own, key=lambda word: (scores[word.text], word.importance)) for own in words]
        score = np.array([scores[word.text] for word in best])
        low = np.array([-1 / (1 + max(word.importance for word in own)) for own in words])
        start, end = np.full((2, len(titles)), -1)
        rows: list[int] = texts.row.tolist()
        for nth, row in enumerate(rows):
            if row >= 0:
                raw, word = map_to_raw(titles[nth]), best[row]
                start[nth], end[nth] = raw[word.start], raw[word.start + len(word.text) - 1] + 1
        return Suspicion(texts.to_title_scores(np.where(score > 0, score, low)), start, end)


def find_keywords(texts: Sequence[str], probe: Probe, most: int) -> list[list[WordImportance]]:
    """Return the most important words of each text, the best first; a word that stands there twice counts once."""
    found: list[list[WordImportance]] = []
    for first in range(0, len(texts), TITLES_PER_BATCH):
        part = texts[first : first + TITLES_PER_BATCH]
        spans = [find_words(text) for text in part]
        asked = [[text, *(_remove_word(text, *span) for span in own)] for text, own in zip(part, spans, strict=True)]
        number = {text: place for place, text in enumerate(dict.fromkeys(text for row in asked for text in row))}
        states = probe.states(list(number))
        for text, own, row in zip(part, spans, asked, strict=True):
            whole, *rest = (states[number[read]] for read in row)
            moved: list[float] = np.abs(np.array(rest) - whole).max(axis=1).tolist()
            words = [WordImportance(text[a:b], a, move) for (a, b), move in zip(own, moved, strict=True)]
            words.sort(key=lambda word: -word.importance)
            # Of a word that stands there twice, the first in this order is the more important one.
            once = {word.text: word for word in reversed(words)}
            found.append([word for word in words if once[word.text] is word][:most])
    return found


def score_keywords(words: Sequence[Sequence[WordImportance]], ordinary: float) -> dict[str, float]:
    """Return g of every keyword.

    Args:
        words: The keywords of each text, none of them twice.
        ordinary: s, as a share of the texts.
    """
    known: dict[str, list[float]] = {}
    for own in words:
        for word in own:
            known.setdefault(word.text, []).append(word.importance)
    bound = ordinary * len(words)
    return {
        text: float(np.mean(each) * np.log10(len(each)) * np.log10(bound / len(each))) for text, each in known.items()
    }


def _remove_word(text: str, start: int, end: int) -> str:
    """Return a text without a word, and without the white space before it (behind it, for the first)."""
    before = text[:start].rstrip()
    return before + text[end:] if before else text[end:].lstrip()
