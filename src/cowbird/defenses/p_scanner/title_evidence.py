"""What a single title says against itself, beside the catalogue that it stands in.

A tagger's log-odds mean different things in different catalogues: a model number is a trigger among film titles and
honest among printers. So `describe_titles` compares each mark with the marks of the catalogue's other titles, of the
whole title and of words of the same kind, and tells how rare the title's characters, words, shapes and rules are there.
All of it is a handful of numbers a title (`TITLE_FEATURES`), most of them logarithms of shares, so that what is learned
of them in one catalogue holds in another. `scoring` makes log-odds of them.

P-Scanner (arXiv 2504.11182) asks a language model about a title and takes its answer. The comparison is ours.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Float32Array, Int32Array, Int64Array, concat_ranges
from cowbird.defenses.p_scanner.spelling import CatalogSpelling
from cowbird.defenses.p_scanner.title_rules import HARD_RULES, RULES, TRICK_RULES, WORD_KINDS, classify_text
from cowbird.defenses.p_scanner.title_spelling import find_spellings
from cowbird.defenses.p_scanner.title_words import (
    CAPITALS,
    NumberedSets,
    TitleWords,
    apply_rules,
    reduce_runs,
    split_titles,
)
from cowbird.defenses.p_scanner.token_logits import TokenLogits
from cowbird.defenses.p_scanner.word_shapes import list_shapes

NO_MARK = -30.0
"""Log-odds where there is no token."""
LEARNED_FEATURES = (
    "title log-odds",
    "highest mark",
    "rarity of title log-odds",
    "rarity of highest mark",
    "rarity of marks by kind",
    "rarity of the span's mark by kind",
    "rarest character",
    "rarest character in the span",
    "rarest shape",
    "rarest shape at its place",
    "rarest shape in the span",
    "rarest word in the span",
    "share of new words",
    "words",
    "length of the span",
    "rarest rule",
    "rarest hard rule",
)
"""What a network judges (`scoring`)."""
RARE_FEATURES = ("rarest spelling", "rarity of its capitals")
"""What counts by its rarity alone, for most ways to write a word otherwise are never taught."""
TITLE_FEATURES = (*LEARNED_FEATURES, *RARE_FEATURES)
"""What `describe_titles` returns, in order; a rarity is minus the logarithm of a share of the catalogue's titles."""
MAX_FEATURE = 15.0
"""Values are cut there."""
MAX_TRICK_SHARE, MAX_TRICK_TITLES = 0.01, 2
"""Share of a catalogue's titles up to which a character that nobody sees is a trick, and no habit; other titles that
may have it, however few there are."""
_HARD = [RULES.index(name) for name in HARD_RULES]
_TRICKS = [RULES.index(name) for name in TRICK_RULES]


@dataclass(frozen=True, eq=False)
class MarkedWords:
    """Titles cut into words, and what a tagger says of each."""

    cut: TitleWords
    """The titles, cut into words."""
    mark: Float32Array
    """Highest log-odds of the tokens in each word, shape `[words]`."""
    verdict: Float32Array
    """Log-odds of each title, shape `[titles]`."""

    def __len__(self) -> int:
        return len(self.cut)

    @property
    def titles(self) -> Sequence[str]:
        """The titles."""
        return self.cut.titles

    @property
    def text(self) -> list[str]:
        """All words, in order."""
        return self.cut.text

    @property
    def start(self) -> Int32Array:
        """First character of each word in its title, shape `[words]`."""
        return self.cut.start

    @property
    def end(self) -> Int32Array:
        """The character after its last one."""
        return self.cut.end

    @property
    def offsets(self) -> Int64Array:
        """Where each title's words begin, shape `[titles + 1]`."""
        return self.cut.offsets


def mark_words(titles: Sequence[str], marks: TokenLogits) -> MarkedWords:
    """Cut titles into words, each with the highest log-odds of its tokens.

    Args:
        titles: Any texts.
        marks: What a tagger says of them.
    """
    words = split_titles(titles)
    mark = np.full(len(words.text), NO_MARK, dtype=np.float32)
    base = words.begins[:-1] + np.arange(len(titles))  # with a place between titles, which no word has
    first, last = words.start + base[words.owner], words.end + base[words.owner]
    token_base = base[marks.rows]
    low = np.searchsorted(last, marks.tokenized.first + token_base, side="right")
    high = np.searchsorted(first, marks.tokenized.after + token_base, side="left")
    for step in range(int((high - low).max(initial=0))):  # a token covers one word, hardly ever two
        inside = low + step < high
        np.maximum.at(mark, (low + step)[inside], marks.mark[inside])
    return MarkedWords(words, mark, marks.verdict)


@dataclass(frozen=True, eq=False)
class TitleTraits:
    """What is known of some titles without their catalogue."""

    words: MarkedWords
    """The titles and their words."""
    highest: Float32Array
    """Highest mark, shape `[titles]`."""
    start: Int32Array
    """First character of the most suspicious words; 0 with an `end` of 0 for a title without words."""
    end: Int32Array
    """The character after them."""
    low: Int64Array
    """The first of these words, a place among all words."""
    high: Int64Array
    """The last of them; one before the first for a title without words."""
    kind: Int32Array
    """What these words are, a place in `WORD_KINDS`."""
    by_kind: Float32Array
    """Highest mark of the words of each kind, shape `[titles, WORD_KINDS]`."""
    rules: NDArray[np.bool_]
    """Rules that are met, shape `[titles, RULES]`."""

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def shapes(self) -> NumberedSets:
        """Their shapes; see `word_shapes`."""
        return list_shapes(self.words.cut, self.rules)


def describe_traits(words: MarkedWords) -> TitleTraits:
    """Find the most suspicious words of titles, and the rules that they meet."""
    cut, many = words.cut, len(words)
    sizes = np.diff(words.offsets)
    start, end, kind = (np.zeros(many, dtype=np.int32) for _ in range(3))
    by_kind = np.full((many, len(WORD_KINDS)), NO_MARK, dtype=np.float32)
    kinds = np.array(cut.traits.kind, dtype=np.int64)[cut.number]
    np.maximum.at(by_kind, (cut.owner, kinds), words.mark)
    highest = reduce_runs(np.maximum.reduceat, words.mark, words.offsets[:-1], sizes, NO_MARK)
    low, high = find_spans(words, highest)
    some = np.flatnonzero(sizes > 0)
    span = np.zeros(many, dtype=np.int64), np.full(many, -1, dtype=np.int64)
    span[0][some], span[1][some] = low, high
    start[some], end[some] = words.start[low], words.end[high]
    kind[some] = kinds[low]
    wide: list[int] = some[high > low].tolist()
    for row in wide:
        kind[row] = classify_text(words.titles[row][start[row] : end[row]])
    return TitleTraits(words, highest, start, end, *span, kind, by_kind, apply_rules(cut))


def find_spans(words: MarkedWords, highest: Float32Array) -> tuple[Int64Array, Int64Array]:
    """Return the first and the last of the words around the one with the highest mark whose marks are above 0.

    Args:
        words: Titles.
        highest: The highest mark of each title.

    Returns:
        Places among all words, of each title that has words.
    """
    owner, many = words.cut.owner, len(words.text)
    place = np.arange(many)
    peaks = np.flatnonzero(words.mark == highest[owner])
    peak = peaks[np.unique(owner[peaks], return_index=True)[1]]
    above = words.mark > 0
    joined = np.zeros(many + 1, dtype=np.bool_)  # whether a word and the one before it are above 0, in one title
    joined[1:many] = above[1:] & above[:-1] & (owner[1:] == owner[:-1])
    run_start = np.maximum.accumulate(np.where(joined[:-1], 0, place))
    run_end = np.minimum.accumulate(np.where(joined[1:], many, place)[::-1])[::-1]
    return np.where(above[peak], run_start[peak], peak), np.where(above[peak], run_end[peak], peak)


class SpellingCounts:
    """In how many titles of a catalogue a word of each of `SPELLINGS` stands; counted when somebody asks.

    Args:
        words: In how many titles each word stands.
        counts: The counts, if they are known.
        titles: Otherwise what is counted: titles, and which of them.
    """

    def __init__(
        self,
        words: Mapping[str, int],
        counts: Int64Array | None = None,
        titles: tuple[TitleWords, Int64Array] | None = None,
    ) -> None:
        self._words, self._counts, self._titles = words, counts, titles

    @cached_property
    def catalog(self) -> CatalogSpelling:
        """Words that are written unlike those which recur."""
        return CatalogSpelling(self._words)

    def count(self) -> Int64Array:
        """Return the counts, shape `[SPELLINGS]`."""
        if self._counts is None:
            assert self._titles is not None
            met = find_spellings(*self._titles, self._words, self.catalog, 1)
            self._counts, self._titles = met.sum(axis=0).astype(np.int64), None
        return self._counts

    def __reduce__(self) -> tuple[Any, ...]:
        return SpellingCounts, (self._words, self.count())


@dataclass(frozen=True, eq=False)
class CatalogProfile:
    """What is usual in a catalogue: counts and marks of titles that stand for it."""

    size: int
    """Titles that it counts."""
    characters: Counter[str]
    """In how many titles each character stands."""
    words: Counter[str]
    """The same of words, as `count_word` writes them."""
    shapes: Counter[str]
    """The same of shapes; each also with `^` before it for the first word, `$` for the last, `.` between."""
    rules: Int64Array
    """How many titles meet each rule, shape `[RULES]`."""
    verdict: Float32Array
    """The tagger's log-odds of the titles, increasing, shape `[size]`."""
    highest: Float32Array
    """Highest marks, increasing, shape `[size]`."""
    by_kind: Float32Array
    """Highest marks of the words of each kind, each kind increasing, shape `[size, WORD_KINDS]`."""
    span_marks: tuple[Float32Array, ...]
    """Highest marks of the titles whose most suspicious words are of each kind, increasing."""
    spelled: SpellingCounts
    """How many titles have a word of each of `SPELLINGS`."""

    @property
    def spellings(self) -> Int64Array:
        """The same, counted, shape `[SPELLINGS]`."""
        return self.spelled.count()

    @property
    def spelling(self) -> CatalogSpelling:
        """Words that are written unlike those which recur."""
        return self.spelled.catalog

    @classmethod
    def measure(cls, traits: TitleTraits, rows: Int64Array) -> "CatalogProfile":
        """Count what stands in titles.

        Args:
            traits: Titles, among them those that are counted.
            rows: Which are.
        """
        words, cut = traits.words, traits.words.cut
        characters, known, shapes = (
            _count_sets(sets, rows) for sets in (cut.character_sets, cut.counted_sets, cut.shape_sets)
        )
        kinds, highest = traits.kind[rows], traits.highest[rows]
        return cls(
            len(rows),
            characters,
            known,
            shapes,
            traits.rules[rows].sum(axis=0).astype(np.int64),
            np.sort(words.verdict[rows]),
            np.sort(highest),
            np.sort(traits.by_kind[rows], axis=0),
            tuple(np.sort(highest[kinds == kind]) for kind in range(len(WORD_KINDS))),
            SpellingCounts(known, titles=(cut, rows)),
        )

    def measure_rarity(self, count: Int64Array, less: int) -> NDArray[np.float64]:
        """Return minus the logarithm of shares of titles; `less` of those that count are the title itself."""
        return -np.log((np.maximum(count - less, 0) + 0.5) / (self.size + 1))

    def rank(self, known: Float32Array, values: Float32Array) -> Float32Array:
        """Return minus the logarithm of the share of titles with a value as high."""
        above = len(known) - np.searchsorted(known, values, side="left")
        return -np.log((above + 0.5) / (self.size + 1)).astype(np.float32)


def _count_sets(sets: NumberedSets, rows: Int64Array) -> Counter[str]:
    """Return in how many of some titles each thing stands."""
    places = concat_ranges(sets.offsets[rows], sets.offsets[rows + 1] - sets.offsets[rows])
    count = np.bincount(sets.number[places], minlength=len(sets.names))
    found: list[int] = np.flatnonzero(count).tolist()
    return Counter(dict(zip([sets.names[number] for number in found], count[found].tolist(), strict=True)))


def describe_titles(
    traits: TitleTraits, rows: Int64Array, profile: CatalogProfile, own: bool = False, rare: bool = True
) -> Float32Array:
    """Return the features of titles beside a catalogue, shape `[rows, TITLE_FEATURES]`.

    Args:
        traits: Titles, among them those that are described.
        rows: Which are described.
        profile: The catalogue.
        own: Whether the profile counts these titles, so that each is left out of its own count.
        rare: Whether `RARE_FEATURES` are wanted; they are 0 otherwise.
    """
    less = int(own)
    by_kind = traits.by_kind[rows]
    kinds = np.stack([profile.rank(profile.by_kind[:, kind], by_kind[:, kind]) for kind in range(len(WORD_KINDS))], 1)
    span = np.zeros(len(rows), dtype=np.float32)
    for kind in range(len(WORD_KINDS)):
        here = traits.kind[rows] == kind
        span[here] = profile.rank(profile.span_marks[kind], traits.highest[rows][here])
    rule = -np.log((np.maximum(profile.rules - less, 0) + 0.5) / (profile.size + 1)) * traits.rules[rows]
    features = np.column_stack(
        [
            traits.words.verdict[rows],
            traits.highest[rows],
            profile.rank(profile.verdict, traits.words.verdict[rows]),
            profile.rank(profile.highest, traits.highest[rows]),
            np.where(by_kind > NO_MARK, kinds, 0).max(axis=1, initial=0),
            span,
            _describe_texts(traits, rows, profile, less),
            rule.max(axis=1, initial=0),
            rule[:, _HARD].max(axis=1, initial=0),
            _describe_rare(traits, rows, profile, less) if rare else np.zeros((len(rows), len(RARE_FEATURES))),
        ]
    )
    return np.clip(features, -MAX_FEATURE, MAX_FEATURE).astype(np.float32)


def _describe_rare(traits: TitleTraits, rows: Int64Array, profile: CatalogProfile, less: int) -> NDArray[np.float64]:
    """Return how rare the spelling of a word and the use of capitals are, shape `[rows, RARE_FEATURES]`."""
    capitals = _look_up(profile.shapes, CAPITALS)[traits.words.cut.capitals[rows]]
    return np.column_stack([_measure_spelling(traits, rows, profile, less), profile.measure_rarity(capitals, less)])


def find_tricks(
    traits: TitleTraits, rows: Int64Array, profile: CatalogProfile, own: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Return which titles have what nobody sees, such as a hidden character, where it is no habit; shape `[rows]`.

    Args:
        traits: Titles, among them those that are asked about.
        rows: Which are asked about.
        profile: The catalogue.
        own: Which of them the profile counts; each of these is left out of its own count. `None` for none.
    """
    met = traits.rules[rows][:, _TRICKS]
    others = profile.rules[_TRICKS] - (met & own[:, None] if own is not None else 0)
    return np.any(met & (others <= max(MAX_TRICK_TITLES, MAX_TRICK_SHARE * profile.size)), axis=1)


def _measure_spelling(traits: TitleTraits, rows: Int64Array, profile: CatalogProfile, less: int) -> NDArray[np.float64]:
    """Return how rare the rarest spelling of each title is in the catalogue, 0 for none."""
    met = find_spellings(traits.words.cut, rows, profile.words, profile.spelling, less)
    return (profile.measure_rarity(profile.spellings, less) * met).max(axis=1, initial=0)


def _describe_texts(traits: TitleTraits, rows: Int64Array, profile: CatalogProfile, less: int) -> NDArray[np.float64]:
    """Return how rare what titles are written with is in the catalogue, shape `[rows, 9]`."""
    cut = traits.words.cut
    known, character = cut.characters
    shapes, shape_of = cut.shapes
    counted, counted_of = cut.counted
    codes: list[int] = known.tolist()
    of_character = _look_up(profile.characters, [chr(code) for code in codes])[character]
    shape = shape_of[cut.number]
    of_shape = _look_up(profile.shapes, shapes)[shape]
    placed = np.stack([_look_up(profile.shapes, [f"{mark} {name}" for name in shapes]) for mark in "^.$"])
    of_placed = placed[cut.place, shape]
    of_word = _look_up(profile.words, counted)[counted_of[cut.number]]
    starts, sizes = cut.begins[rows], cut.begins[rows + 1] - cut.begins[rows]
    first, many = cut.offsets[rows], cut.offsets[rows + 1] - cut.offsets[rows]
    span_first = traits.low[rows]
    span_many = traits.high[rows] + 1 - span_first
    length = (traits.end[rows] - traits.start[rows]).astype(np.int64)

    def rarest(count: Int64Array, begin: Int64Array, size: Int64Array) -> NDArray[np.float64]:
        lowest = reduce_runs(np.minimum.reduceat, count, begin, size, profile.size)
        return np.where(size > 0, profile.measure_rarity(lowest, less), 0.0)

    unknown = reduce_runs(np.add.reduceat, (of_word <= less).astype(np.int64), first, many, 0)
    return np.column_stack(
        [
            rarest(of_character, starts, sizes),
            rarest(of_character, starts + traits.start[rows], length),
            rarest(of_shape, first, many),
            rarest(of_placed, first, many),
            rarest(of_shape, span_first, span_many),
            rarest(of_word, span_first, span_many),
            unknown / np.maximum(1, many),
            np.log1p(many),
            np.log1p(length),
        ]
    )


def _look_up(counts: Counter[str], names: Sequence[str]) -> Int64Array:
    return np.fromiter(map(counts.get, names, repeat(0)), np.int64, len(names))
