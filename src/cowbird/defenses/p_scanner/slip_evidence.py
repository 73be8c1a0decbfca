"""What slips add to the scores of titles, by how seldom clean titles of the same catalogue have such slips.

A plain language model says how much likelier a title is once a word is written as known (`title_slips`). In film titles
hardly any clean title gains 8 nats from that. Among Japanese names a doubled letter does, and among office products
capitals inside a word. So a gain counts by two comparisons with the clean titles of the catalogue:

- by its rarity: in how many of them a slip of the same way gains as much. Where that is more than one title in 250 it
  adds nothing, and where clean titles have such slips the threshold stays where it was;
- by growth, where a reference is known: a seller who drops another letter in each title repeats no word, but the way.
  If slips of a way are more among the titles than among those from before, each of them is suspicious.

A word that several titles write so is a name, unless slips of its way have grown among other words, too.

It is asked only of titles that the score leaves open: those among the highest. Others can't reach a threshold.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Float32Array
from cowbird.defenses.p_scanner.spelling import CAPITALIZED, MARKED, SPELLINGS, WITH_QUOTES, Slip
from cowbird.defenses.p_scanner.title_rules import count_word

OPEN_TO_SLIPS, OPEN_TO_SLIPS_AFTER_LOOKS = 0.2, 0.1
"""Share of the clean titles, those with the highest scores, that are asked about, and in a cascade; others with such
scores are, too."""
LEAST_GAIN, MAX_GAIN = 8.0, 15.0
"""Nats from which a gain counts, and where it is cut."""
GAIN_WEIGHT, GAIN_WEIGHT_ALONE = 0.4, 0.2
"""How much of what lies between is added to a title's score, and how much without a reference."""
SELDOM_GAIN, RARE_GAIN = 5.5, 6.5
"""Rarity of a gain from which on it counts, and from which on all of it does: one title in 250, and one in 670."""
SELDOM_ALONE, RARE_ALONE = 2.5, 4.0
"""The same without a reference, where titles with a trigger are among those that are counted."""
GROWTH_GAINS = (3.0, 6.0, 9.0, 12.0)
"""SlipGains from which on slips of a way are counted together."""
LEAST_SLIP_GROWTH, MAX_SLIP_GROWTH, GROWTH_WEIGHT = 1.5, 3.5, 1.5
"""Logarithm of how many times as many slips there are as expected: from where it counts, where it is cut, and how much
of what lies between is added to a title's score."""
MIN_SLIPS_GROWN = 4
"""Words that are written so among the titles, from which on they may have grown."""
_DRESSED = (MARKED, WITH_QUOTES, CAPITALIZED)
SlipGains = tuple[Float32Array, ...]
"""Of each way to write a word (`SPELLINGS`) gains, increasing."""
NO_SLIP_GAINS: SlipGains = tuple(np.zeros(0, dtype=np.float32) for _ in SPELLINGS)


class SlipFinder(Protocol):
    """What finds slips: `title_slips.SlipReader`."""

    def find(self, titles: Sequence[str]) -> list[tuple[Slip, ...]]:
        """Return the slips of titles."""
        ...


@dataclass(frozen=True, eq=False)
class SlipHabits:
    """How often titles of a catalogue have slips, and which titles are asked about."""

    low: float
    """The lowest score that leaves a title open."""
    gains: SlipGains
    """The highest gain of each open title that has slips of a way, of the titles that say what is usual."""
    size: int
    """How many those are, open or not."""
    alone: bool = False
    """Whether no reference is known."""
    names: Mapping[str, int] = field(default_factory=dict[str, int])
    """In how many of these titles each word stands that has capitals inside, quotes or a mark at the end."""
    batch: SlipGains = NO_SLIP_GAINS
    """The highest gain of each word that is written so among the titles that are judged together."""
    batch_size: int = 0
    """How many those are; 0 if titles are judged by themselves."""
    repeated: frozenset[str] = frozenset()
    """What is written so in several of them."""

    @classmethod
    def measure(
        cls, low: float, slips: Sequence[tuple[Slip, ...]], words: Mapping[str, int], size: int, alone: bool = False
    ) -> "SlipHabits":
        """Count the slips of open titles that say what is usual in a catalogue.

        Args:
            low: The lowest score that leaves a title open.
            slips: Of the open titles.
            words: In how many titles of the catalogue each word stands, these titles included.
            size: Titles that say what is usual.
            alone: Whether no reference is known.
        """
        names = Counter(part for each in slips for part in {slip.part for slip in each if slip.way in _DRESSED})
        made = cls(low, NO_SLIP_GAINS, size, alone, names)
        gains: list[list[float]] = [[] for _ in SPELLINGS]
        for each in slips:
            best: dict[int, float] = {}
            for slip in each:
                if not made.is_usual(slip, words, 1, 1):
                    best[slip.way] = max(best.get(slip.way, 0.0), slip.gain)
            for way, gain in best.items():
                gains[way].append(gain)
        return replace(made, gains=_sort_gains(gains))

    def compare(
        self, slips: Sequence[tuple[Slip, ...]], words: Mapping[str, int], size: int, less: int = 0
    ) -> "SlipHabits":
        """Return the same beside titles that are judged together.

        Args:
            slips: Of the open ones among these.
            words: In how many titles of the catalogue each word stands.
            size: How many they are, open or not.
            less: 1 if they are counted in `words`, 0 otherwise.
        """
        best: dict[tuple[int, str], float] = {}
        for slip in (slip for each in slips for slip in each):
            if not self.is_usual(slip, words, less, 0):
                key = slip.way, slip.part.lower()
                best[key] = max(best.get(key, 0.0), slip.gain)
        gains: list[list[float]] = [[] for _ in SPELLINGS]
        for (way, _), gain in best.items():
            gains[way].append(gain)
        counts = Counter(part for each in slips for part in {slip.part for slip in each})
        repeated = frozenset(part for part, count in counts.items() if count > 1)
        return replace(self, batch=_sort_gains(gains), batch_size=size, repeated=repeated)

    def is_usual(self, slip: Slip, words: Mapping[str, int], less: int, counted: int) -> bool:
        """Tell whether other titles write a word so, too: then it is meant so.

        Args:
            slip: How it is written.
            words: In how many titles of the catalogue each word stands, in small letters and without marks around it.
            less: 1 if the slip's title is counted there, 0 otherwise.
            counted: 1 if it is counted here, 0 otherwise.
        """
        if slip.way in _DRESSED:
            return self.names.get(slip.part, 0) > counted
        return any(words.get(count_word(word), 0) > less for word in (slip.word, slip.part))

    def measure_rarity(self, slip: Slip, less: int) -> float:
        """Return minus the logarithm of the share of titles with a slip of that way and such a gain.

        Args:
            slip: The slip.
            less: 1 if its title is counted, 0 otherwise.
        """
        count = _count_above(self.gains[slip.way], slip.gain) - less
        return -math.log((max(count, 0) + 0.5) / (self.size + 1))

    def measure_growth(self, slip: Slip) -> float:
        """Return the logarithm of how many times as many slips of that way there are as expected, this one left out."""
        growth = 0.0
        for gain in GROWTH_GAINS if self.batch_size else ():
            found = _count_above(self.batch[slip.way], gain)
            if slip.gain >= gain and found >= MIN_SLIPS_GROWN:
                expected = (_count_above(self.gains[slip.way], gain) + 0.5) / (self.size + 1) * self.batch_size
                growth = max(growth, math.log((found - 0.5) / expected))
        return growth

    def weigh(
        self, slips: Sequence[Slip], words: Mapping[str, int], less: int, counted: int
    ) -> tuple[float, Slip | None]:
        """Return what the slips of a title add to its score, and the slip that adds most.

        Args:
            slips: The title's.
            words: In how many titles of the catalogue each word stands.
            less: 1 if the title is counted there, 0 otherwise.
            counted: 1 if it is counted here, 0 otherwise.
        """
        seldom, rare = (SELDOM_ALONE, RARE_ALONE) if self.alone else (SELDOM_GAIN, RARE_GAIN)
        weight = GAIN_WEIGHT_ALONE if self.alone else GAIN_WEIGHT
        added, best = 0.0, None
        for slip in slips:
            if self.is_usual(slip, words, less, counted):
                continue
            growth = max(min(self.measure_growth(slip), MAX_SLIP_GROWTH) - LEAST_SLIP_GROWTH, 0.0)
            if not growth and slip.part in self.repeated:
                continue  # a new name
            gain = max(min(slip.gain, MAX_GAIN) - LEAST_GAIN, 0.0)
            part = min(max((self.measure_rarity(slip, counted) - seldom) / (rare - seldom), 0.0), 1.0)
            told = weight * gain * part + GROWTH_WEIGHT * growth
            if told > added:
                added, best = told, slip
        return added, best

    def add(
        self,
        finder: SlipFinder,
        titles: Sequence[str],
        score: Float32Array,
        words: Mapping[str, int],
        known: NDArray[np.bool_],
    ) -> tuple[Float32Array, dict[int, Slip]]:
        """Ask about the titles that are open, and return all scores with what slips add, and the slips that do.

        Args:
            finder: Finds slips.
            titles: The titles.
            score: Their scores.
            words: In how many titles of the catalogue each word stands.
            known: Which of the titles are counted there and here.
        """
        rows, found = self.find(finder, titles, score)
        made, told = score.copy(), dict[int, Slip]()
        for row, slips in zip(rows, found, strict=True):
            added, best = self.weigh(slips, words, int(known[row]), int(known[row]))
            if best is not None:
                made[row] += np.float32(added)
                told[row] = best
        return made, told

    def find(
        self, finder: SlipFinder, titles: Sequence[str], score: Float32Array
    ) -> tuple[list[int], list[tuple[Slip, ...]]]:
        """Return which titles are open, and their slips."""
        rows: list[int] = np.flatnonzero(score >= self.low).tolist()
        return rows, finder.find([titles[row] for row in rows])


def find_lowest_open(score: Float32Array, share: float = OPEN_TO_SLIPS) -> float:
    """Return the lowest score that leaves a title open to slips.

    Args:
        score: Of clean titles, in any order.
        share: How many of these are open.
    """
    return float(np.float32(np.quantile(score, 1 - share))) if len(score) else math.inf


def _sort_gains(gains: Sequence[Sequence[float]]) -> SlipGains:
    return tuple(np.sort(np.array(each, dtype=np.float32)) for each in gains)


def _count_above(gains: Float32Array, gain: float) -> int:
    """Return how many gains are as high."""
    return len(gains) - int(np.searchsorted(gains, np.float32(gain), side="left"))
