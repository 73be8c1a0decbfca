"""What other columns of a catalogue say of fragments that recur: brands explain them, and so do sellers.

Titles of a brand share its name, and titles in a language its words: such a fragment is *explained* by a column if
nearly all its titles have one value there, and most titles with that value have the fragment. A fragment that as many
sellers use as titles drawn at random would have is *spread*: no single seller planted it. Both are cleared: they count
as usual, and the words as well. A fragment of few sellers among many is *narrow*, which is evidence. It is *alien* if
nearly all its titles are one seller's, and no brand and no category holds half of them: she has put it on goods that
have nothing else in common. Honest sellers do that as well ("free shipping"), so a scan asks for a look at such titles.

Sellers write most columns themselves. So a value that stands with one seller alone explains nothing where sellers are
known, and whoever has many accounts is spread, too. The bars below are set by hand.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cowbird.data.tables import read_texts
from cowbird.data.types import Float32Array, Int64Array
from cowbird.defenses.p_scanner.fragment_evidence import FragmentEvidence, describe_fragments
from cowbird.defenses.p_scanner.fragment_index import MAX_PHRASE_WORDS, FragmentKey
from cowbird.defenses.p_scanner.fragment_table import FragmentTable
from cowbird.defenses.p_scanner.title_traits import MarkedWords, TitleTraits

MIN_TITLES_EXPLAINED, MIN_SELLERS_SPREAD = 5, 5
"""Titles with a fragment, and sellers of them, from which columns can clear it."""
MIN_PURITY, MIN_COVERAGE = 0.9, 0.5
"""Share of a fragment's titles that have the value; share of the titles with the value that have the fragment."""
MIN_SPREAD, MAX_DEVIATIONS, MAX_NARROW, MIN_SELLERS_EXPECTED = 0.8, 2.0, 0.34, 3.0
"""Sellers of a fragment, over those that as many titles drawn at random would have: spread from; or from so many
standard deviations below, since where a few sellers have most titles, chance draws fewer; narrow up to; and how many
would be expected for a fragment to be narrow."""
MAX_ALIEN_PURITY, MIN_ALIEN_HELD = 0.5, 0.9
"""For an alien fragment: share of its titles that one brand or category may have; share that one seller must have."""
CLEARED_LOG_ODDS, NARROW_LOG_ODDS, ALIEN_LOG_ODDS = -8.0, 2.0, 6.0
"""What a cleared fragment has at most; what a narrow one is given more; what an alien one has at least."""


@dataclass(frozen=True, eq=False)
class TitleColumns:
    """Other columns of a catalogue, by its titles."""

    names: tuple[str, ...]
    """Columns that may explain a fragment, such as brand, category and language."""
    values: Mapping[str, tuple[str, ...]]
    """Of each title, its value in each of them; empty where it has none."""
    sellers: Mapping[str, str] | None = None
    """The seller of each title; `None` where sellers are not known."""


class SellerShare(NamedTuple):
    """The seller who has most of the titles with a fragment."""

    seller: str
    """Who that is."""
    held: int
    """How many of these titles are of that seller."""
    titles: int
    """How many titles have the fragment."""


@dataclass(frozen=True, eq=False)
class ColumnVerdicts:
    """What columns say of fragments; arrays of the shape `[fragments]`."""

    cleared: NDArray[np.bool_]
    """Which are usual."""
    narrow: NDArray[np.bool_]
    """Which keep to few sellers."""
    alien: NDArray[np.bool_]
    """Which of these stand on goods of all kinds."""
    shares: Mapping[int, SellerShare]
    """Who has most of the titles of each that keeps to few sellers, by its place."""


@dataclass(frozen=True)
class ClearedWords:
    """Words that columns explain, so that the tagger's marks on them do not count."""

    phrases: frozenset[str] = frozenset()
    """One to four words each."""
    mark: float = 0.0
    """What their marks are at most."""

    def quiet(self, words: MarkedWords) -> MarkedWords:
        """Return titles with lower marks where such words stand, and verdicts no higher than what is left of them."""
        if not self.phrases:
            return words
        mark, verdict = words.mark.copy(), words.verdict.copy()
        borders: list[int] = words.offsets.tolist()
        for row, (first, last) in enumerate(pairwise(borders)):
            for nth in range(first, last):
                for end in range(nth + 1, min(nth + MAX_PHRASE_WORDS, last) + 1):
                    if " ".join(words.text[nth:end]) in self.phrases:
                        mark[nth:end] = np.minimum(mark[nth:end], np.float32(self.mark))
            if (mark[first:last] < words.mark[first:last]).any():
                verdict[row] = min(verdict[row], mark[first:last].max())
        return replace(words, mark=mark, verdict=verdict)


NOTHING_CLEARED = ClearedWords()
"""No words."""


def read_title_columns(
    table: object, text_column: str, explain: Sequence[str], seller: str | None = None
) -> TitleColumns:
    """Return other columns of a frame; of titles that stand in several rows, what the first says.

    Args:
        table: A polars or pandas frame.
        text_column: Its column of titles.
        explain: Columns that may explain fragments.
        seller: The column of sellers; `None` for none.

    Raises:
        UserError: If a column is missing or holds no text.
    """
    titles = read_texts(table, text_column)
    columns = [read_texts(table, name) for name in explain]
    values: dict[str, tuple[str, ...]] = {}
    for title, *row in zip(titles, *columns, strict=True):
        values.setdefault(title or "", tuple(value or "" for value in row))
    if seller is None:
        return TitleColumns(tuple(explain), values)
    sellers: dict[str, str] = {}
    for title, name in zip(titles, read_texts(table, seller), strict=True):
        sellers.setdefault(title or "", name or "")
    return TitleColumns(tuple(explain), values, sellers)


def judge_columns(titles: Sequence[str], evidence: FragmentEvidence, columns: TitleColumns) -> ColumnVerdicts:
    """Say which fragments other columns explain, which keep to few sellers, and which of these stand on any goods.

    Args:
        titles: The titles that the evidence is of, in its order.
        evidence: Fragments that recur among them.
        columns: Their other columns.
    """
    many = len(evidence.fragment)
    cleared, narrow, alien = (np.zeros(many, dtype=bool) for _ in range(3))
    shares: dict[int, SellerShare] = {}
    order = np.argsort(evidence.of, kind="stable")
    borders = np.searchsorted(evidence.of[order], np.arange(many + 1))
    values = [_list_values(titles, columns, nth) for nth in range(len(columns.names))]
    sizes = [Counter(value for value in column if value) for column in values]
    sellers = None if columns.sellers is None else [columns.sellers.get(title, "") for title in titles]
    expected = None if sellers is None else _SellerCount(sellers)
    for fragment in range(many):
        rows: list[int] = evidence.title[order[borders[fragment] : borders[fragment + 1]]].tolist()
        if len(rows) < MIN_TITLES_EXPLAINED:
            continue
        who = set[str]() if sellers is None else {sellers[row] for row in rows} - {""}
        counts = [Counter(column[row] for row in rows) for column in values]
        explained = any(_explains(count, size) for count, size in zip(counts, sizes, strict=True))
        if expected is None:
            cleared[fragment] = explained
            continue
        chance, deviation = expected.expect(len(rows))
        fewest = min(MIN_SPREAD * chance, chance - MAX_DEVIATIONS * deviation)
        spread = len(who) >= max(MIN_SELLERS_SPREAD, fewest)
        cleared[fragment] = spread or (explained and len(who) > 1)
        narrow[fragment] = chance >= MIN_SELLERS_EXPECTED and 0 < len(who) <= MAX_NARROW * chance
        if narrow[fragment] and sellers:
            of_each = Counter(sellers[row] for row in rows)
            held = of_each.most_common(1)[0][1] / len(rows)
            alien[fragment] = held >= MIN_ALIEN_HELD and bool(counts) and all(map(_is_mixed, counts))
            named = {seller: count for seller, count in of_each.items() if seller}
            most = min(named, key=lambda seller: (-named[seller], seller))
            shares[fragment] = SellerShare(most, named[most], len(rows))
    narrow &= ~cleared
    return ColumnVerdicts(cleared, narrow, alien & narrow, shares)


def _list_values(titles: Sequence[str], columns: TitleColumns, nth: int) -> list[str]:
    nothing = ("",) * len(columns.names)
    return [columns.values.get(title, nothing)[nth] for title in titles]


def _explains(counts: Counter[str], size: Counter[str]) -> bool:
    """Tell whether the most common value of a column explains why some titles share a fragment."""
    value, count = counts.most_common(1)[0]
    return bool(value) and count >= MIN_PURITY * counts.total() and count >= MIN_COVERAGE * size[value]


def _is_mixed(counts: Counter[str]) -> bool:
    """Tell whether values are known of half of the titles with a fragment, and none stands with more than half."""
    most = max((count for value, count in counts.items() if value), default=0)
    known = counts.total() - counts[""]
    return known >= counts.total() / 2 and most <= MAX_ALIEN_PURITY * counts.total()


class _SellerCount:
    """How many sellers so many titles have that are drawn at random.

    Args:
        sellers: The seller of each title of the catalogue; those without one are left out.
    """

    def __init__(self, sellers: Sequence[str]) -> None:
        sizes = np.array(list(Counter(seller for seller in sellers if seller).values()), dtype=np.float64)
        size, self.many = np.unique(sizes, return_counts=True)  # few, so sums are over pairs of these
        self.share = size / max(1.0, sizes.sum())
        self.known: dict[int, tuple[float, float]] = {}

    def expect(self, titles: int) -> tuple[float, float]:
        """Return the expected number, and its standard deviation."""
        if titles not in self.known:
            absent = (1 - self.share) ** titles
            both = np.maximum(1 - np.add.outer(self.share, self.share), 0) ** titles - np.outer(absent, absent)
            alone = self.many @ (absent * (1 - absent) - np.diagonal(both))
            variance = max(0.0, float(alone + self.many @ both @ self.many))
            self.known[titles] = float(self.many @ (1 - absent)), math.sqrt(variance)
        return self.known[titles]


@dataclass(frozen=True, eq=False)
class ColumnFindings:
    """What other columns change in a baseline."""

    words: ClearedWords = NOTHING_CLEARED
    """Words that are usual."""
    cleared: frozenset[int] = frozenset()
    """Numbers of the fragments that are usual."""
    narrow: frozenset[int] = frozenset()
    """Numbers of those that keep to few sellers."""
    alien: frozenset[int] = frozenset()
    """Numbers of those of few sellers that stand on goods of all kinds."""
    shares: Mapping[int, SellerShare] = field(default_factory=dict[int, SellerShare])
    """Who has most of the titles of each that keeps to few sellers, by its number."""

    def describe(self) -> list[str]:
        """Return what tells these findings from others."""
        return [str(sorted(part)) for part in (self.cleared, self.narrow, self.alien)]

    def list_sellers(self, fragment: Int64Array, narrow: bool) -> dict[int, SellerShare]:
        """Return whom the log-odds of fragments are about, by their places; arguments as in `adjust`."""
        counted = self.alien | self.narrow if narrow else self.alien
        numbers: list[int] = fragment.tolist()
        return {place: self.shares[number] for place, number in enumerate(numbers) if number in counted}

    def adjust(self, fragment: Int64Array, by_fragment: Float32Array, narrow: bool) -> Float32Array:
        """Return the log-odds of fragments as columns change them.

        Args:
            fragment: Their numbers, shape `[fragments]`.
            by_fragment: Their log-odds, shape `[fragments]`.
            narrow: Whether few sellers alone count as evidence: not where thresholds come from titles without sellers.
        """
        made, numbers = by_fragment.copy(), fragment.tolist()
        for place, number in enumerate(numbers):
            if number in self.cleared:
                made[place] = min(made[place], CLEARED_LOG_ODDS)
            elif narrow and number in self.narrow:
                made[place] += NARROW_LOG_ODDS
            if number in self.alien:
                made[place] = max(made[place], ALIEN_LOG_ODDS)
        return made


def ask_columns(
    titles: Sequence[str], traits: TitleTraits, table: FragmentTable, rows: Int64Array, columns: TitleColumns
) -> ColumnFindings:
    """Return what other columns say of the fragments among titles; see `find_in_columns`.

    Args:
        titles: The titles.
        traits: These and perhaps others.
        table: Their fragments.
        rows: Where the titles stand among them.
        columns: Other columns of the titles.
    """
    evidence = describe_fragments(table, traits, rows)
    return find_in_columns(titles, table.names.list_keys(), evidence, traits.words.mark, columns)


def find_in_columns(
    titles: Sequence[str],
    keys: Sequence[FragmentKey],
    evidence: FragmentEvidence,
    marks: Float32Array,
    columns: TitleColumns,
) -> ColumnFindings:
    """Say what other columns change in the baseline of a catalogue.

    Args:
        titles: Its titles.
        keys: All fragments, by number.
        evidence: Fragments that recur among the titles.
        marks: Marks of all words; the median is usual.
        columns: The other columns.
    """
    verdicts = judge_columns(titles, evidence, columns)
    cleared: list[int] = evidence.fragment[verdicts.cleared].tolist()
    narrow: list[int] = evidence.fragment[verdicts.narrow].tolist()
    alien: list[int] = evidence.fragment[verdicts.alien].tolist()
    phrases = frozenset(keys[number][1] for number in cleared if keys[number][0] == "word")
    words = ClearedWords(phrases, float(np.median(marks)) if len(marks) else 0.0)
    kept, numbers = frozenset(narrow), evidence.fragment.tolist()
    shares = {numbers[place]: share for place, share in verdicts.shares.items() if numbers[place] in kept}
    return ColumnFindings(words, frozenset(cleared), kept, frozenset(alien), shares)
