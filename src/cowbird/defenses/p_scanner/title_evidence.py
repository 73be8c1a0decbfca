"""What a single title says against itself, beside the catalogue that it stands in.

A tagger's log-odds mean different things in different catalogues: a model number is a trigger among film titles and
honest among printers. So `describe_titles` compares each mark with the marks of the catalogue's other titles, of the
whole title and of words of the same kind, and tells how rare the title's characters, words, shapes and rules are there.
All of it is a handful of numbers a title (`TITLE_FEATURES`), most of them logarithms of shares, so that what is learned
of them in one catalogue holds in another. `scoring` makes log-odds of them.

P-Scanner (arXiv 2504.11182) asks a language model about a title and takes its answer. The comparison is ours.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Float32Array, Int32Array, Int64Array
from cowbird.defenses.p_scanner.title_rules import (
    HARD_RULES,
    RULES,
    WORD_KINDS,
    apply_rules,
    classify_text,
    count_word,
    write_shape,
)
from cowbird.defenses.p_scanner.token_logits import TokenLogits

NO_MARK = -30.0
"""Log-odds where there is no token."""
TITLE_FEATURES = (
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
"""What `describe_titles` returns, in order; a rarity is minus the logarithm of a share of the catalogue's titles."""
MAX_FEATURE = 15.0
"""Values are cut there."""
_WORD = re.compile(r"\S+")
_HARD = [RULES.index(name) for name in HARD_RULES]


@dataclass(frozen=True, eq=False)
class MarkedWords:
    """Titles cut into words, and what a tagger says of each."""

    titles: Sequence[str]
    """The titles."""
    text: list[str]
    """All words, in order."""
    start: Int32Array
    """First character of each word in its title, shape `[words]`."""
    end: Int32Array
    """The character after its last one."""
    offsets: Int64Array
    """Where each title's words begin, shape `[titles + 1]`."""
    mark: Float32Array
    """Highest log-odds of the tokens in each word, shape `[words]`."""
    verdict: Float32Array
    """Log-odds of each title, shape `[titles]`."""

    def __len__(self) -> int:
        return len(self.titles)


def mark_words(titles: Sequence[str], marks: TokenLogits) -> MarkedWords:
    """Cut titles into words, each with the highest log-odds of its tokens.

    Args:
        titles: Any texts.
        marks: What a tagger says of them.
    """
    text: list[str] = []
    start: list[int] = []
    end: list[int] = []
    count: list[int] = []
    for title in titles:
        found = list(_WORD.finditer(title))
        count.append(len(found))
        for word in found:
            text.append(word.group())
            start.append(word.start())
            end.append(word.end())
    offsets = np.concatenate([[0], np.cumsum(np.array(count, dtype=np.int64))]).astype(np.int64)
    starts, ends = np.array(start, dtype=np.int32), np.array(end, dtype=np.int32)
    mark = np.full(len(text), NO_MARK, dtype=np.float32)
    length = np.array([len(title) + 1 for title in titles], dtype=np.int64)
    base = np.concatenate([[0], np.cumsum(length)])[:-1]
    owner = np.repeat(np.arange(len(titles)), count)
    first, last = starts + base[owner], ends + base[owner]
    token_base = base[marks.rows]
    low = np.searchsorted(last, marks.tokenized.first + token_base, side="right")
    high = np.searchsorted(first, marks.tokenized.after + token_base, side="left")
    for step in range(int((high - low).max(initial=0))):  # a token covers one word, hardly ever two
        inside = low + step < high
        np.maximum.at(mark, (low + step)[inside], marks.mark[inside])
    return MarkedWords(titles, text, starts, ends, offsets, mark, marks.verdict)


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
    kind: Int32Array
    """What these words are, a place in `WORD_KINDS`."""
    by_kind: Float32Array
    """Highest mark of the words of each kind, shape `[titles, WORD_KINDS]`."""
    rules: NDArray[np.bool_]
    """Rules that are met, shape `[titles, RULES]`."""

    def __len__(self) -> int:
        return len(self.words)


def describe_traits(words: MarkedWords) -> TitleTraits:
    """Find the most suspicious words of titles, and the rules that they meet."""
    many = len(words)
    highest = np.full(many, NO_MARK, dtype=np.float32)
    start, end, kind = (np.zeros(many, dtype=np.int32) for _ in range(3))
    by_kind = np.full((many, len(WORD_KINDS)), NO_MARK, dtype=np.float32)
    kinds = np.array([classify_text(text) for text in words.text], dtype=np.int64)
    owner = np.repeat(np.arange(many), np.diff(words.offsets))
    np.maximum.at(by_kind, (owner, kinds), words.mark)
    for row, (first, last) in enumerate(pairwise(words.offsets.tolist())):
        if first == last:
            continue
        low, high = widen_span(words.mark[first:last])
        highest[row] = words.mark[first:last].max()
        start[row], end[row] = words.start[first + low], words.end[first + high]
        kind[row] = classify_text(words.titles[row][start[row] : end[row]])
    return TitleTraits(words, highest, start, end, kind, by_kind, apply_rules(words.titles))


def widen_span(marks: Float32Array) -> tuple[int, int]:
    """Return the first and the last of the words around the one with the highest mark whose marks are above 0."""
    low = high = int(marks.argmax())
    while low > 0 and marks[low - 1] > 0:
        low -= 1
    while high + 1 < len(marks) and marks[high + 1] > 0:
        high += 1
    return low, high


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
    """The same of shapes; see `list_shapes`."""
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

    @classmethod
    def measure(cls, traits: TitleTraits, rows: Int64Array) -> "CatalogProfile":
        """Count what stands in titles.

        Args:
            traits: Titles, among them those that are counted.
            rows: Which are.
        """
        words = traits.words
        characters, known, shapes = Counter[str](), Counter[str](), Counter[str]()
        for row in rows.tolist():
            characters.update(set(words.titles[row]))
            text = words.text[words.offsets[row] : words.offsets[row + 1]]
            known.update({count_word(word) for word in text})
            shapes.update(set(list_shapes(text)))
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
        )

    def measure_rarity(self, count: float, less: int) -> float:
        """Return minus the logarithm of the share of titles; `less` of those that count are the title itself."""
        return float(-np.log((max(count - less, 0) + 0.5) / (self.size + 1)))

    def rank(self, known: Float32Array, values: Float32Array) -> Float32Array:
        """Return minus the logarithm of the share of titles with a value as high."""
        above = len(known) - np.searchsorted(known, values, side="left")
        return -np.log((above + 0.5) / (self.size + 1)).astype(np.float32)


def list_shapes(words: Sequence[str]) -> list[str]:
    """Return the shapes of a title's words, and the same with their place: `^` first, `$` last, `.` between."""
    shapes = [write_shape(word) for word in words]
    last = len(shapes) - 1
    placed = [("^" if nth == 0 else "$" if nth == last else ".") + " " + shape for nth, shape in enumerate(shapes)]
    return [*shapes, *placed]


def describe_titles(traits: TitleTraits, rows: Int64Array, profile: CatalogProfile, own: bool = False) -> Float32Array:
    """Return the features of titles beside a catalogue, shape `[rows, TITLE_FEATURES]`.

    Args:
        traits: Titles, among them those that are described.
        rows: Which are described.
        profile: The catalogue.
        own: Whether the profile counts these titles, so that each is left out of its own count.
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
            np.array([_describe_text(traits, row, profile, less) for row in rows.tolist()]).reshape(-1, 9),
            rule.max(axis=1, initial=0),
            rule[:, _HARD].max(axis=1, initial=0),
        ]
    )
    return np.clip(features, -MAX_FEATURE, MAX_FEATURE).astype(np.float32)


def _describe_text(traits: TitleTraits, row: int, profile: CatalogProfile, less: int) -> list[float]:
    """Return how rare what a title is written with is in the catalogue."""
    words, title = traits.words, traits.words.titles[row]
    text = words.text[words.offsets[row] : words.offsets[row + 1]]
    span = title[traits.start[row] : traits.end[row]]
    inside = span.split()
    shapes = list_shapes(text)
    unknown = sum(profile.words[count_word(word)] <= less for word in text)

    def rarest(counts: Counter[str], keys: Sequence[str] | set[str]) -> float:
        return profile.measure_rarity(min((counts[key] for key in keys), default=profile.size), less) if keys else 0.0

    return [
        rarest(profile.characters, set(title)),
        rarest(profile.characters, set(span)),
        rarest(profile.shapes, shapes[: len(text)]),
        rarest(profile.shapes, shapes[len(text) :]),
        rarest(profile.shapes, [write_shape(word) for word in inside]),
        rarest(profile.words, [count_word(word) for word in inside]),
        unknown / max(1, len(text)),
        float(np.log1p(len(text))),
        float(np.log1p(len(span))),
    ]
