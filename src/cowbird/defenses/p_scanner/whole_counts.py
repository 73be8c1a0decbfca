"""Suspicious phrases of a sample, counted over the whole catalogue that the sample stands for.

A trigger in twenty titles of a hundred thousand stands in four titles of a sample of 20,000: too few to judge it by. So
phrases that the tagger finds suspicious in the sample, and that stand in few of its titles, are looked for in all rows
(`PhraseCounts`). Of each phrase the titles with the smallest hashes are kept, up to `MAX_WITNESSES`: the tagger reads
them, and how small their hashes are tells how many titles have the phrase (Bar-Yossef et al. 2002, "Counting distinct
elements in a data stream"). So neither the order of the rows nor repeated titles change a count, counts of parts can be
merged, and memory has a bound. Where the sample holds all titles nothing is counted.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cowbird.defenses.p_scanner.fragment_evidence import NOTHING_COUNTED, CountedFragments
from cowbird.defenses.p_scanner.fragment_index import HEAD_WORDS, MAX_PHRASE_WORDS, TAIL_WORDS
from cowbird.defenses.p_scanner.fragment_table import FragmentTable
from cowbird.defenses.p_scanner.small_tagger import join_logits
from cowbird.defenses.p_scanner.title_sample import HASHES, hash_title
from cowbird.defenses.p_scanner.title_traits import MarkedWords
from cowbird.defenses.p_scanner.token_logits import TokenLogits

MAX_WITNESSES = 16
"""Titles with a phrase that the tagger reads; a phrase of so many in the sample is judged by those, and not counted."""
MAX_PHRASES_COUNTED = 1024
"""Phrases that are counted over the whole catalogue: those with the highest marks."""
MIN_SUSPICIOUS_MARK = 0.0
"""The tagger's log-odds above which a word is suspicious."""
MAX_WITNESS_LENGTH = 1_000
"""Characters of a title that counts, which bounds the memory."""


class WholeCounts(NamedTuple):
    """How often phrases stand in a whole catalogue of which a sample is known."""

    phrases: Mapping[str, int]
    """In how many different titles each phrase stands; exact below `MAX_WITNESSES`, estimated from there on."""
    witnesses: tuple[str, ...]
    """Titles with these phrases that are not in the sample."""
    titles: int
    """Different titles of the whole catalogue, estimated."""


class WholeEvidence(NamedTuple):
    """What is known of phrases in a whole catalogue."""

    counts: WholeCounts
    """How often they stand there."""
    marks: TokenLogits
    """What the tagger says of the witnesses."""


def add_witnesses(
    texts: Sequence[str], marks: TokenLogits, whole: WholeEvidence | None
) -> tuple[Sequence[str], TokenLogits]:
    """Return titles, and behind them those with phrases that were counted in the whole catalogue."""
    if whole is None:
        return texts, marks
    return [*texts, *whole.counts.witnesses], join_logits([marks, whole.marks])


def number_counted(table: FragmentTable, first: int, whole: WholeEvidence | None) -> CountedFragments:
    """Return the fragments that were counted in the whole catalogue; witnesses stand from a row on."""
    if whole is None:
        return NOTHING_COUNTED
    known = table.names.fragments
    counts = {
        known["word", phrase]: count for phrase, count in whole.counts.phrases.items() if ("word", phrase) in known
    }
    numbers = np.array(sorted(counts), dtype=np.int64)
    rows = first + np.arange(len(whole.counts.witnesses), dtype=np.int64)
    count = np.array([counts[number] for number in numbers.tolist()], dtype=np.int64)
    return CountedFragments(numbers, count, whole.counts.titles, rows)


def describe_counts(whole: WholeEvidence | None) -> list[str]:
    """Return what tells counts from others."""
    return [] if whole is None else [repr((sorted(whole.counts.phrases.items()), whole.counts.titles))]


def find_suspicious_phrases(words: MarkedWords) -> list[str]:
    """Return runs of one to four words that the tagger finds suspicious and that stand in few titles.

    Args:
        words: The titles of a sample.
    """
    highest: dict[str, float] = {}
    held: dict[str, int] = defaultdict(int)
    borders: list[int] = words.offsets.tolist()
    marks: list[float] = words.mark.tolist()
    for row in range(len(words)):
        first, last = borders[row : row + 2]
        if max(marks[first:last], default=0.0) <= MIN_SUSPICIOUS_MARK:
            continue
        found = dict(_list_suspicious_runs(words.text[first:last], marks[first:last]))
        for phrase, mark in found.items():
            highest[phrase] = max(mark, highest.get(phrase, mark))
            held[phrase] += 1
    few = [phrase for phrase in highest if held[phrase] < MAX_WITNESSES]
    few.sort(key=lambda phrase: (-highest[phrase], hash_title(phrase)))
    return sorted(few[:MAX_PHRASES_COUNTED])


def _list_counted(words: int) -> Sequence[int]:
    """Return which of a title's words fragments begin at: see `fragment_index.find_counted`."""
    if words <= HEAD_WORDS + TAIL_WORDS:
        return range(words)
    return [*range(HEAD_WORDS), *range(words - TAIL_WORDS, words)]


def _list_suspicious_runs(text: Sequence[str], marks: Sequence[float]) -> Iterator[tuple[str, float]]:
    """Yield the phrases of a title all of whose words are suspicious, each with its highest mark."""
    for nth in _list_counted(len(text)):
        for end in range(nth + 1, min(nth + MAX_PHRASE_WORDS, len(text)) + 1):
            if marks[end - 1] <= MIN_SUSPICIOUS_MARK:
                break
            yield " ".join(text[nth:end]), max(marks[nth:end])


class PhraseCounts:
    """Of each phrase, the different titles with it that have the smallest hashes, in bounded memory.

    Args:
        phrases: One to four words each, with blanks between them.
    """

    def __init__(self, phrases: Iterable[str]) -> None:
        self._kept: dict[str, dict[str, int]] = {phrase: {} for phrase in phrases}
        self._by_first: dict[str, list[tuple[list[str], str]]] = defaultdict(list)
        for phrase in self._kept:
            first, *others = phrase.split(" ")
            self._by_first[first].append((others, phrase))
        self._bound = dict.fromkeys(self._kept, HASHES)

    def add(self, titles: Iterable[str]) -> None:
        """Show titles; which come twice does not matter, nor in which order they come."""
        first_words = self._by_first.keys()
        for title in titles:
            if len(title) <= MAX_WITNESS_LENGTH and not first_words.isdisjoint(words := title.split()):
                self._add_title(title, words)

    def _add_title(self, title: str, words: Sequence[str]) -> None:
        number = -1  # a title whose phrases are others needs none
        for nth in _list_counted(len(words)):
            for others, phrase in self._by_first.get(words[nth], ()):
                if others and words[nth + 1 : nth + 1 + len(others)] != others:
                    continue
                number = hash_title(title) if number < 0 else number
                if number < self._bound[phrase]:
                    self._keep(phrase, title, number)

    def _keep(self, phrase: str, title: str, number: int) -> None:
        kept = self._kept[phrase]
        kept[title] = number
        if len(kept) > MAX_WITNESSES:
            del kept[max(kept, key=lambda each: (kept[each], each))]
            self._bound[phrase] = max(kept.values()) + 1

    def merge(self, held: Mapping[str, Sequence[str]]) -> None:
        """Take in what was kept of a part of the catalogue; see `list_kept`."""
        for phrase, titles in held.items():
            for title in titles:
                number = hash_title(title)
                if number < self._bound[phrase]:
                    self._keep(phrase, title, number)

    def list_phrases(self) -> list[str]:
        """Return the phrases."""
        return list(self._kept)

    def list_kept(self) -> dict[str, list[str]]:
        """Return the titles that are kept of each phrase, smallest hash first; phrases without any are left out."""
        return {
            phrase: sorted(kept, key=lambda title: (kept[title], title)) for phrase, kept in self._kept.items() if kept
        }

    def finish(self, sample: Iterable[str], titles: int) -> WholeCounts:
        """Return what was counted of phrases that recur.

        Args:
            sample: Titles that the tagger has read.
            titles: Different titles of the whole catalogue.
        """
        counts: dict[str, int] = {}
        witnesses: dict[str, None] = {}
        for phrase, kept in self.list_kept().items():
            if len(kept) < 2:
                continue
            highest = hash_title(kept[-1])
            counts[phrase] = len(kept)
            if len(kept) >= MAX_WITNESSES:
                counts[phrase] = max(len(kept), round((len(kept) - 1) * HASHES / (highest + 1)))
            witnesses.update(dict.fromkeys(kept))
        known = set(sample)
        return WholeCounts(counts, tuple(title for title in witnesses if title not in known), titles)
