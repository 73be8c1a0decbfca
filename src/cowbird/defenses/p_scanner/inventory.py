"""What is usual among titles that are taken for clean, and how such titles score when they are fresh.

An `Inventory` is counted once from a reference. It knows what titles look like (`CatalogProfile`), in how many of them
each fragment stands, and scores: the titles are cut into folds, and each fold is judged beside the others as titles are
that nobody saw before (cross-conformal prediction, Vovk 2015, Annals of Mathematics and Artificial Intelligence 74). So
a threshold that comes from these scores holds for fresh titles, and not only for those that made the inventory.

Titles that are judged together share fragments, and more of them share more. So there are scores for batches of several
sizes, from one title on. No fold can be as large as the whole inventory. So scores for such a batch are extrapolated:
from quarters beside quarters to halves beside halves they rise by so much, and as much again is added. Fragments are
kept as hashes of 64 bits. A language model that takes contexts reads titles behind some of the inventory's
(`title_context`), so these are kept as they are; otherwise the inventory holds no title.

A cascade looks again at the titles that their scores leave open (`second_look`), in each fold and for each size of
batches; then thresholds come from the joined scores.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from cowbird.data.types import Float32Array, Int64Array
from cowbird.defenses.p_scanner.baseline import rank_threshold
from cowbird.defenses.p_scanner.clean_scores import extrapolate_scores, set_threshold, thin_scores
from cowbird.defenses.p_scanner.fragment_evidence import describe_fragments
from cowbird.defenses.p_scanner.fragment_table import (
    FragmentTable,
    count_fragments,
)
from cowbird.defenses.p_scanner.fragment_verdicts import judge_fragments
from cowbird.defenses.p_scanner.scoring import ScoringModel, weigh_tricks
from cowbird.defenses.p_scanner.second_look import OpenBand, SecondLook
from cowbird.defenses.p_scanner.shape_drift import count_shapes, find_drift
from cowbird.defenses.p_scanner.slip_evidence import (
    OPEN_TO_SLIPS,
    OPEN_TO_SLIPS_AFTER_LOOKS,
    SlipFinder,
    SlipHabits,
    find_lowest_open,
)
from cowbird.defenses.p_scanner.spelling import Slip
from cowbird.defenses.p_scanner.title_context import NO_CONTEXT, TitleContext
from cowbird.defenses.p_scanner.title_evidence import CatalogProfile, describe_titles, find_tricks
from cowbird.defenses.p_scanner.title_sample import hash_title
from cowbird.defenses.p_scanner.title_traits import TitleTraits
from cowbird.files import hash_texts
from cowbird.rng import stream

FOLDS, SINGLE_FOLDS = 5, 10
"""Folds of small batches, larger ones are halves; and of single titles, which need no batch within a fold."""
SPLITS = 4
"""How often titles are cut into halves. Titles that share a brand pass a threshold together or not at all, so one cut
says little of how many do."""
MIN_BATCH_TITLES = 64
"""Titles from which it counts what they share; fewer are judged each by itself."""
BATCH_SIZES = (1, MIN_BATCH_TITLES, 512, 4096)
"""Sizes of batches that a calibration knows, beside half of its titles."""
MAX_RATE_SPREAD = 0.1
"""Rate up to which an inventory knows how far single batches are from it."""


@dataclass(frozen=True, eq=False)
class Inventory:
    """What is usual among titles that are taken for clean."""

    profile: CatalogProfile
    """What they look like."""
    members: frozenset[int]
    """Which titles they are (`hash_title`)."""
    fragments: Mapping[int, int]
    """In how many of them each fragment stands, by `hash_fragment`."""
    shapes: Mapping[int, int]
    """In how many of them each shape stands, by `hash_title` of its name."""
    scores: Mapping[int, Float32Array]
    """Scores of the same titles, highest first, as fresh ones in batches of so many titles."""
    bands: Mapping[int, OpenBand] = field(default_factory=dict[int, OpenBand])
    """Which scores a second look was taken at, by the same sizes; empty if none was."""
    spread: Mapping[int, Float32Array] = field(default_factory=dict[int, Float32Array])
    """The lowest and the highest share of a batch of each size that passes the first, the second and each further
    score, shape `[ranks, 2]`. Titles that share a brand pass together, so batches differ by more than chance
    explains."""
    slips: SlipHabits | None = None
    """How often titles have slips, if a plain language model was asked."""
    context: TitleContext = NO_CONTEXT
    """Some of the titles, which a language model is shown before it reads others."""

    @property
    def size(self) -> int:
        """How many titles they are."""
        return self.profile.size

    @cached_property
    def key(self) -> str:
        """Tells this inventory from others."""
        scores = [str(size) + self.scores[size].tobytes().hex() for size in sorted(self.scores)]
        bands = [repr((size, self.bands[size])) for size in sorted(self.bands)]
        slips: list[str] = []
        if self.slips is not None:
            gains = (each.tobytes().hex() for each in self.slips.gains)
            slips = [repr((self.slips.low, sorted(self.slips.names.items()))), *gains]
        shown = [self.context.key] if self.context else []
        return hash_texts([*map(str, sorted(self.members)), *scores, *bands, *slips, *shown])

    def count_known(self, table: FragmentTable) -> Int64Array:
        """Return in how many titles of the inventory each fragment of others stands, shape `[fragments]`."""
        found = (self.fragments.get(number, 0) for number in table.names.list_hashes())
        return np.fromiter(found, dtype=np.int64, count=len(table.names.fragments))

    def set_threshold(self, fpr: float, together: int) -> float:
        """Return the score that a fresh clean title passes with a probability of about `fpr` at most.

        Between the sizes of batches that are known the threshold is interpolated, by the logarithm of the size.

        Args:
            fpr: The rate.
            together: Titles that are judged together.
        """
        sizes = sorted(self.scores)
        bars = [set_threshold(self.scores[size], fpr) for size in sizes]
        if not all(math.isfinite(bar) for bar in bars):
            return math.inf
        if together < MIN_BATCH_TITLES:
            return bars[0]
        return float(np.interp(math.log(together), np.log(sizes[1:] or sizes), bars[1:] or bars))

    def tell_spread(self, fpr: float, together: int) -> tuple[float, float] | None:
        """Return the lowest and the highest share of a batch that passes a threshold; `None` if that is not known.

        Args:
            fpr: The rate of the threshold.
            together: Titles that are judged together.
        """
        if together < MIN_BATCH_TITLES or not self.spread:
            return None
        size = min(self.spread, key=lambda known: (abs(math.log(known / together)), known))
        rank = rank_threshold(self.size, fpr)
        if rank > len(self.spread[size]):
            return None
        low, high = self.spread[size][rank - 1].tolist()
        return low, high

    def choose_band(self, together: int) -> OpenBand:
        """Return which scores a second look is taken at if so many titles are judged together; see `set_threshold`."""
        sizes = sorted(self.bands)
        if together < MIN_BATCH_TITLES or len(sizes) == 1:
            return self.bands[sizes[0]]
        low, high = (
            float(
                np.interp(math.log(together), np.log(sizes[1:]), [getattr(self.bands[size], end) for size in sizes[1:]])
            )
            for end in ("low", "high")
        )
        return OpenBand(low, high)


def hash_rows(traits: TitleTraits, rows: Int64Array) -> list[int]:
    """Return the hash of each of some titles; see `hash_title`."""
    chosen: list[int] = rows.tolist()
    return [hash_title(traits.words.titles[row]) for row in chosen]


def choose_batch_sizes(titles: int) -> tuple[int, ...]:
    """Return the sizes of batches that so many titles can calibrate."""
    return tuple(sorted({*(size for size in BATCH_SIZES if size <= titles // FOLDS), titles // 2, titles}))


@dataclass(eq=False)
class FoldScores:
    """Scores of titles as fresh ones, fold by fold."""

    rows: list[Int64Array] = field(default_factory=list[Int64Array])
    """The titles of each fold."""
    score: list[Float32Array] = field(default_factory=list[Float32Array])
    """Their scores."""

    def list_open(self, titles: Sequence[str], band: OpenBand) -> list[str]:
        """Return the titles that a band leaves open, in any fold."""
        chosen: list[list[int]] = [
            rows[band.covers(score)].tolist() for rows, score in zip(self.rows, self.score, strict=True)
        ]
        return [titles[row] for rows in chosen for row in rows]

    def look_again(self, second: SecondLook, titles: Sequence[str], band: OpenBand) -> None:
        """Join what a second look says to the scores."""
        chosen: list[list[int]] = [rows.tolist() for rows in self.rows]
        self.score = [
            second.join([titles[row] for row in rows], score, band)
            for rows, score in zip(chosen, self.score, strict=True)
        ]

    def add_slips(
        self, found: Mapping[int, tuple[Slip, ...]], words: Mapping[str, int], low: float, size: int, together: bool
    ) -> None:
        """Add what slips say, each title by those of other folds.

        Args:
            found: Slips of the titles that are open in any fold.
            words: In how many of all titles each word stands.
            low: The lowest score that leaves a title open.
            size: How many titles there are.
            together: Whether the titles of a fold are judged together.
        """
        for rows, score in zip(self.rows, self.score, strict=True):
            own: list[int] = rows.tolist()
            here, opened = set(own), {row: nth for nth, row in enumerate(own) if score[nth] >= low and row in found}
            others = [slips for row, slips in found.items() if row not in here]
            habits = SlipHabits.measure(low, others, words, size - len(own))
            if together:
                habits = habits.compare([found[row] for row in opened], words, len(own), less=1)
            for row, nth in opened.items():
                score[nth] += np.float32(habits.weigh(found[row], words, less=1, counted=0)[0])


def take_inventory(
    scoring: ScoringModel,
    traits: TitleTraits,
    table: FragmentTable,
    rows: Int64Array,
    batch_sizes: Sequence[int],
    second: SecondLook | None = None,
    finder: SlipFinder | None = None,
    context: TitleContext = NO_CONTEXT,
) -> Inventory:
    """Count what is usual among titles, and score each as if it were fresh.

    Args:
        scoring: Makes scores of evidence.
        traits: Titles, among them those that are taken for clean.
        table: Their fragments.
        rows: Which are taken for clean.
        batch_sizes: Sizes of batches that scores are wanted for. More than half of the titles is half of them and,
            extrapolated, all of them. Single titles are always among them.
        second: What looks again at titles that their score leaves open; `None` for nothing.
        finder: What finds slips in such titles; `None` for nothing.
        context: What titles were read behind, and are looked at behind.
    """
    half = len(rows) // 2
    sizes = sorted({1, *(min(size, half) for size in batch_sizes if size >= MIN_BATCH_TITLES)})
    hashes = np.array(hash_rows(traits, rows), dtype=np.uint64)
    order = rows[np.argsort(hashes, kind="stable")]  # that of the rows must not count
    rng = stream(0, "inventory folds")
    orders = [order[rng.permutation(len(order))] for _ in range(SPLITS)]
    scores, quarters = {size: FoldScores() for size in sizes}, {half: FoldScores()}
    small = [size for size in sizes[1:] if size <= len(rows) // FOLDS]
    large = sizes[1 + len(small) :]
    for many, wanted in ((SINGLE_FOLDS, [1]), (FOLDS, small)):
        for fold in np.array_split(orders[0], many) if wanted else ():
            _score_fold(scoring, traits, table, np.setdiff1d(order, fold), fold, wanted, scores)
    whole = max(batch_sizes, default=0) > half >= 2 * MIN_BATCH_TITLES
    for order in orders if large else ():
        for part in np.array_split(order, 2):
            _score_fold(scoring, traits, table, np.setdiff1d(order, part), part, large, scores)
            for fold in np.array_split(part, 2) if whole else ():
                _score_fold(scoring, traits, table, np.setdiff1d(part, fold), fold, [half], quarters)
    bands: dict[int, OpenBand] = {}
    if second is not None:
        bands = _look_again(second.beside(context), traits.words.titles, scores, quarters if whole else {}, len(rows))
    profile, habits = CatalogProfile.measure(traits, rows), None
    if finder is not None:
        folds = [*scores.items(), *(quarters.items() if whole else ())]
        habits = _find_slips(finder, traits.words.titles, folds, profile, choose_open_share(second))
    known = {size: thin_scores(found.score, len(rows)) for size, found in scores.items()}
    spread = {size: measure_spread(scores[size].score, known[size]) for size in sizes[1:]}
    if whole:
        known[len(rows)] = extrapolate_scores(thin_scores(quarters[half].score, len(rows)), known[half])
        spread[len(rows)] = spread[half]
    counts = count_fragments(table, rows)
    hashes_of = table.names.list_hashes()
    numbers: list[int] = np.flatnonzero(counts).tolist()
    of_shape = count_shapes(traits.shapes, rows).tolist()
    return Inventory(
        profile,
        frozenset(hashes.tolist()),
        {hashes_of[number]: int(counts[number]) for number in numbers},
        {hash_title(name): count for name, count in zip(traits.shapes.names, of_shape, strict=True) if count},
        known,
        bands,
        spread,
        habits,
        context,
    )


def _look_again(
    second: SecondLook,
    titles: Sequence[str],
    scores: Mapping[int, FoldScores],
    quarters: Mapping[int, FoldScores],
    many: int,
) -> dict[int, OpenBand]:
    """Join what a second look says to all scores, and return the band of each size; all titles have that of halves."""
    folds = [*scores.values(), *quarters.values()]
    bands = [OpenBand.choose(thin_scores(found.score, many)) for found in folds]
    opened = (found.list_open(titles, band) for found, band in zip(folds, bands, strict=True))
    second.look([title for part in opened for title in part])  # at once, which is faster
    for found, band in zip(folds, bands, strict=True):
        found.look_again(second, titles, band)
    known = dict(zip(scores, bands, strict=False))
    known.update((many, known[half]) for half in quarters)
    return known


def choose_open_share(second: SecondLook | None) -> float:
    """Return which share of the titles is open to slips."""
    return OPEN_TO_SLIPS if second is None else OPEN_TO_SLIPS_AFTER_LOOKS


def _find_slips(
    finder: SlipFinder,
    titles: Sequence[str],
    scores: Sequence[tuple[int, FoldScores]],
    profile: CatalogProfile,
    share: float,
) -> SlipHabits:
    """Add what slips say to all scores, and return how often titles have them.

    Args:
        finder: Finds slips.
        titles: All titles.
        scores: Sizes of batches, and the scores of each.
        profile: What is usual among the titles that are scored.
        share: How many of the titles are open.
    """
    low = min(find_lowest_open(np.concatenate(found.score), share) for _, found in scores)
    parts = ((rows, score) for _, found in scores for rows, score in zip(found.rows, found.score, strict=True))
    opened: list[int] = np.unique(np.concatenate([rows[score >= low] for rows, score in parts])).tolist()
    slips = finder.find([titles[row] for row in opened])
    known = {row: each for row, each in zip(opened, slips, strict=True) if each}
    for size, found in scores:
        found.add_slips(known, profile.words, low, profile.size, size >= MIN_BATCH_TITLES)
    return SlipHabits.measure(low, slips, profile.words, profile.size)


def measure_spread(parts: Sequence[Float32Array], clean: Float32Array) -> Float32Array:
    """Return the lowest and the highest share of single batches that passes a threshold, shape `[ranks, 2]`.

    Args:
        parts: Scores of each batch; one that is less than half as long as the longest is left out.
        clean: The scores that set thresholds, highest first.
    """
    bars = clean[: max(1, int(MAX_RATE_SPREAD * (len(clean) + 1)))]
    longest = max(map(len, parts))
    whole = [np.sort(part) for part in parts if 2 * len(part) > longest]
    passed = np.array([1 - np.searchsorted(part, bars, side="right") / len(part) for part in whole])
    return np.stack([passed.min(axis=0), passed.max(axis=0)], axis=1).astype(np.float32)


def _score_fold(
    scoring: ScoringModel,
    traits: TitleTraits,
    table: FragmentTable,
    others: Int64Array,
    fold: Int64Array,
    batch_sizes: Sequence[int],
    scores: Mapping[int, FoldScores],
) -> None:
    """Add the scores of a fold's titles, in batches of each size, beside the other folds."""
    profile = CatalogProfile.measure(traits, others)
    features = describe_titles(traits, fold, profile, rare=scoring.weighs_rare)
    added = weigh_tricks(find_tricks(traits, fold, profile))
    known = (count_fragments(table, others), len(others))
    usual = count_shapes(traits.shapes, others)
    for size in batch_sizes:
        if size < MIN_BATCH_TITLES:
            nothing = describe_fragments(table, traits, fold[:0], known)
            scores[size].rows.append(fold)
            scores[size].score.append(scoring.score_titles(features, nothing).score + added)
            continue
        for first in range(0, len(fold), size):
            here = slice(first, first + size)
            judged = judge_fragments(scoring, table, traits, fold[here], known)
            more = added[here]
            if scoring.weighs_shapes:
                drift = find_drift(traits, fold[here], profile, usual)
                more = more + drift.weigh(traits, fold[here], profile).added
            scores[size].rows.append(fold[here])
            scores[size].score.append(scoring.score_titles(features[here], *judged).score + more)
