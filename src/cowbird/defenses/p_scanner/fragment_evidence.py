"""What titles that share something say together: evidence on fragments that recur in a catalogue, at any share.

A fragment is a stretch of one to four words, the shape of a word at its place, a character that is no plain letter,
the mark that ends a title, or the fact that a word stands twice. A trigger is a fragment; so are brands, units and
editions. What tells them apart does not depend on how many titles share the fragment:

- what the tagger says of the fragment, over all its titles;
- whether its titles are alike otherwise: a brand's are, a trigger's are drawn at random;
- whether it stands at one place, and beside how many different words;
- whether it is new, where titles from before (a reference) are known.

`scoring` makes log-odds of these numbers (`FRAGMENT_FEATURES`). Nothing here borders on a share: counts enter as
logarithms.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cowbird.data.types import Float32Array, Int64Array, concat_ranges
from cowbird.defenses.p_scanner.fragment_index import (
    FRAGMENT_TYPES,
)
from cowbird.defenses.p_scanner.fragment_table import MIN_TITLES_SHARING, FragmentTable
from cowbird.defenses.p_scanner.title_rules import WORD_KINDS, classify_text
from cowbird.defenses.p_scanner.title_traits import TitleTraits

MAX_TITLES_COMPARED = 60
"""Titles of a fragment that are compared with each other."""
FRAGMENT_FEATURES = (
    "count",
    "share",
    "mean mark",
    "mean mark in standard errors",
    "mean title log-odds",
    "mean title log-odds in standard errors",
    "first",
    "between",
    "last",
    "different words before",
    "different words behind",
    "likeness of its titles",
    "the most suspicious of its title",
    "growth of its share",
    "whether a reference is known",
    "length",
    "median mark",
    "lower quartile of marks",
    *FRAGMENT_TYPES,
    *WORD_KINDS,
)
"""What `describe_fragments` returns, in order; counts and shares as logarithms."""
MAX_PAIRS_COMPARED = 1 << 22
"""Words of titles that are compared at once."""


@dataclass(frozen=True, eq=False)
class FragmentEvidence:
    """Fragments that recur in a catalogue."""

    fragment: Int64Array
    """Their numbers, increasing, shape `[fragments]`."""
    features: Float32Array
    """Shape `[fragments, FRAGMENT_FEATURES]`."""
    of: Int64Array
    """Which of them each occurrence is of, shape `[occurrences]`; occurrences of others are left out."""
    title: Int64Array
    """The title of each occurrence, as a place in the catalogue."""
    mark: Float32Array = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    """The tagger's log-odds at each occurrence."""
    counts: Mapping[int, int] = field(default_factory=dict[int, int])
    """In how many titles of the whole catalogue fragments stand that were counted there, by their places here."""
    titles: int = 0
    """How many titles that has."""


@dataclass(frozen=True, eq=False)
class CountedFragments:
    """Fragments that were counted in a whole catalogue, of which the titles at hand are a sample."""

    fragment: Int64Array
    """Their numbers, increasing, shape `[counted]`."""
    count: Int64Array
    """In how many titles of the whole catalogue each stands, shape `[counted]`."""
    titles: int
    """How many titles that has."""
    rows: Int64Array
    """Titles that have such fragments and are not in the sample."""


_NONE = np.zeros(0, dtype=np.int64)
NOTHING_COUNTED = CountedFragments(_NONE, _NONE, 0, _NONE)
"""No fragments."""


def describe_fragments(
    table: FragmentTable,
    traits: TitleTraits,
    rows: Int64Array,
    reference: tuple[Int64Array, int] | None = None,
    counted: CountedFragments = NOTHING_COUNTED,
    without: tuple[Int64Array, Int64Array] | None = None,
) -> FragmentEvidence:
    """Return what is known of the fragments that recur in a catalogue.

    Args:
        table: Fragments of titles, among them the catalogue's.
        traits: The same titles.
        rows: Which of them are the catalogue, or a sample of it, shape `[titles]`.
        reference: Counts of fragments among titles from before (`count_fragments`), and how many titles that were.
        counted: Fragments that were counted in the whole catalogue. They are described as if all titles at hand that
            have them stood in the sample; how much their share has grown comes from their counts.
        without: Occurrences that don't count: numbers of fragments, and the title of each as a place among the rows.
            Then these fragments alone are described, as far as they still recur.
    """
    many, rows = len(rows), np.concatenate([np.asarray(rows), counted.rows])
    sizes = table.offsets[rows + 1] - table.offsets[rows]
    places, title = concat_ranges(table.offsets[rows], sizes), np.repeat(np.arange(len(rows)), sizes)
    sampled = title < many
    known, inverse = np.unique(table.fragment[places], return_inverse=True)
    whole = np.isin(known, counted.fragment)
    keep = (np.bincount(inverse[sampled], minlength=len(known)) >= MIN_TITLES_SHARING) | whole
    kept = np.flatnonzero(keep[inverse] & (sampled | whole[inverse]))
    of = (np.cumsum(keep) - 1)[inverse[kept]]
    places, title, fragment, sampled = places[kept], title[kept], known[keep], sampled[kept]
    verdict = traits.words.verdict[rows]
    usual, usual_verdict = table.mark[places[sampled]], verdict[:many]
    if without is not None:
        left = _leave_out(of, title, fragment, without)
        again = np.bincount(of[left], minlength=len(fragment)) >= MIN_TITLES_SHARING
        left = left[again[of[left]]]
        of, fragment = (np.cumsum(again) - 1)[of[left]], fragment[again]
        places, title, sampled = places[left], title[left], sampled[left]
        whole, keep = whole[keep][again], np.ones(len(fragment), dtype=np.bool_)
    looked = np.bincount(of, minlength=len(fragment))  # titles that were looked at
    share, least = looked / max(many, 1), np.full(len(fragment), 0.5 / max(many, 1))
    places_counted = np.flatnonzero(whole[keep])
    counts = counted.count[np.searchsorted(counted.fragment, fragment[places_counted])]
    real = share.copy()
    real[places_counted], least[places_counted] = counts / max(counted.titles, 1), 0.5 / max(counted.titles, 1)

    def average(values: Float32Array) -> Float32Array:
        return (np.bincount(of, values, len(fragment)) / looked).astype(np.float32)

    mark = table.mark[places]
    errors = np.sqrt(np.minimum(looked, 50))
    mean, title_mean = average(mark), average(verdict[title])
    order = np.argsort(of, kind="stable")
    borders = np.concatenate([[0], np.cumsum(looked)])
    if reference is None:
        growth = np.zeros(len(fragment))
    else:
        before = reference[0]
        if len(before) < len(table.names.fragments):
            before = np.concatenate([before, np.zeros(len(table.names.fragments) - len(before), dtype=np.int64)])
        growth = np.log((real + least) / ((before[fragment] + 0.5) / reference[1]))
    names = table.names.list_keys()
    numbers: list[int] = fragment.tolist()
    keys = [names[number] for number in numbers]
    kinds = np.array([classify_text(key[1]) if key[0] == "word" else 0 for key in keys], dtype=np.int64)
    length = np.log1p(np.array([len(key[1]) if key[0] == "word" else 0 for key in keys], dtype=np.float64))
    first = order[borders[:-1]]
    features = np.column_stack(
        [
            np.log(looked),
            np.log(share),
            mean,
            np.clip((mean - usual.mean()) / (usual.std() + 1e-3) * errors, -30, 60) if len(usual) else mean,
            title_mean,
            np.clip((title_mean - usual_verdict.mean()) / (usual_verdict.std() + 1e-3) * errors, -30, 60)
            if many
            else mean,
            *(average((table.place[places] == place).astype(np.float32)) for place in range(3)),
            _count_different(of, table.before[places], len(fragment)) / looked,
            _count_different(of, table.behind[places], len(fragment)) / looked,
            _compare_titles(table, rows, many, title[order], borders),
            average((mark >= traits.highest[rows][title] - 1e-3).astype(np.float32)),
            growth,
            np.full(len(fragment), float(reference is not None)),
            length,
            *_measure_quantiles(mark[order], borders),
            np.eye(len(FRAGMENT_TYPES))[table.type[places][first]],
            np.eye(len(WORD_KINDS))[kinds],
        ]
    )
    known_counts = dict(zip(places_counted.tolist(), counts.tolist(), strict=True))
    return FragmentEvidence(
        fragment, features.astype(np.float32), of[sampled], title[sampled], mark[sampled], known_counts, counted.titles
    )


def _leave_out(
    of: Int64Array, title: Int64Array, fragment: Int64Array, without: tuple[Int64Array, Int64Array]
) -> Int64Array:
    """Return the places of occurrences that count, of fragments of which others don't."""
    place, many = np.searchsorted(fragment, without[0]), int(title.max(initial=0)) + 1
    touched = np.zeros(len(fragment), dtype=np.bool_)
    touched[place] = True
    here = np.flatnonzero(touched[of])
    return here[~np.isin(of[here] * many + title[here], place * many + without[1])]


def _count_different(of: Int64Array, values: Int64Array, many: int) -> Int64Array:
    """Return how many different values each fragment has."""
    if not len(of):
        return np.zeros(many, dtype=np.int64)
    order = np.lexsort((values, of))
    owner, value = of[order], values[order]
    new = np.concatenate([[True], (owner[1:] != owner[:-1]) | (value[1:] != value[:-1])])
    return np.bincount(owner[new], minlength=many)


def _compare_titles(
    table: FragmentTable, rows: Int64Array, many: int, title: Int64Array, borders: Int64Array
) -> Float32Array:
    """Return how alike the titles of each fragment are, beside words that stand in all of them.

    The logarithm of how many words two of its titles share, over how many any two of the first `many` titles share.
    """
    sizes = table.word_offsets[rows + 1] - table.word_offsets[rows]
    word = table.word[concat_ranges(table.word_offsets[rows], sizes)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    total = np.bincount(word[: starts[many]], minlength=int(word.max(initial=0)) + 1).astype(np.float64)
    many = max(many, 2)
    usual = float((total * (total - 1)).sum() / (many * (many - 1)))
    chosen, owner = _choose_compared(title, borders)
    size = np.bincount(owner, minlength=len(borders) - 1).astype(np.float64)
    shared = np.zeros(len(borders) - 1)
    ends = np.searchsorted(owner, np.arange(len(borders)))
    words_before = np.concatenate([[0], np.cumsum(sizes[chosen])])
    first = 0
    while first < len(borders) - 1:
        full = (
            int(np.searchsorted(words_before[ends], words_before[ends[first]] + MAX_PAIRS_COMPARED, side="right")) - 1
        )
        after = min(len(borders) - 1, max(first + 1, full))
        here = slice(int(ends[first]), int(ends[after]))
        rows_here, of = chosen[here], owner[here] - first
        held = word[concat_ranges(starts[rows_here], sizes[rows_here])]
        pair, count = np.unique(np.repeat(of, sizes[rows_here]) * len(total) + held, return_counts=True)
        of = pair // len(total)
        told = (count < size[first + of]) | (size[first + of] <= MIN_TITLES_SHARING)
        shared[first:after] = np.bincount(of[told], (count * (count - 1.0))[told], after - first)
        first = after
    some = size >= MIN_TITLES_SHARING
    alike = np.zeros(len(borders) - 1, dtype=np.float32)
    pairs = size[some] * (size[some] - 1.0)
    alike[some] = np.log((shared[some] / pairs + 0.02) / (usual + 0.02))
    return alike


def _choose_compared(title: Int64Array, borders: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the titles of each fragment that are compared, and the fragment of each."""
    many = np.diff(borders)
    step = np.where(many > MAX_TITLES_COMPARED, many // MAX_TITLES_COMPARED + 1, 1)
    owner = np.repeat(np.arange(len(many)), many)
    chosen = (np.arange(len(title)) - borders[:-1][owner]) % step[owner] == 0
    return title[chosen], owner[chosen]


def _measure_quantiles(mark: Float32Array, borders: Int64Array) -> tuple[Float32Array, Float32Array]:
    """Return median and lower quartile of each fragment's marks; the lowest one for fewer than eight."""
    many = np.diff(borders)
    owner = np.repeat(np.arange(len(many)), many)
    ordered = mark[np.lexsort((mark, owner))]
    first = borders[:-1]
    low = ordered[first + np.where(many < 8, 0, many // 4)]
    upper, lower = ordered[first + many // 2], ordered[first + (many - 1) // 2]
    return np.where(many % 2 == 1, upper, (lower + upper) / np.float32(2)).astype(np.float32), low
