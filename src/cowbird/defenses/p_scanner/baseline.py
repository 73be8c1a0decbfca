"""What is usual in a catalogue, the thresholds that follow, and verdicts that rest on both; see `ready`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Float32Array, Int32Array
from cowbird.defenses.p_scanner.column_evidence import NOTHING_CLEARED, ClearedWords, SellerShare
from cowbird.defenses.p_scanner.fragment_evidence import FragmentEvidence
from cowbird.defenses.p_scanner.fragment_index import FragmentIndex, FragmentKey
from cowbird.defenses.p_scanner.second_look import OpenBand
from cowbird.defenses.p_scanner.shape_drift import NO_DRIFT, ShapeDrift
from cowbird.defenses.p_scanner.slip_evidence import SlipHabits
from cowbird.defenses.p_scanner.title_context import NO_CONTEXT, TitleContext
from cowbird.defenses.p_scanner.title_evidence import CatalogProfile
from cowbird.errors import UserError

MIN_TITLES_PER_BASELINE = 50
"""Different titles that thresholds can come from."""
MAX_TITLES_SAMPLED = 20_000
"""Titles of a catalogue that stand for all of it."""
LEFT_OUT_LOG_ODDS = 3.0
"""Titles with a fragment above these log-odds set no threshold, unless a reference does. In five catalogues no clean
title has one; of a template's 300 titles 7 % had."""
SURE_LOG_ODDS = 4.0
"""Below these log-odds no span is taken out of a title."""
SCAN_ADVICE = "Give more titles. A scan also learns from others of the same source, taken for clean: --reference FILE."
"""What to do where a scan has too few titles."""
DEFAULT_FPR, DEFAULT_REVIEW_FPR = 0.01, 0.05
"""Share of clean titles that may be flagged; share that may be flagged or put up for review."""


class ReadyVerdicts(NamedTuple):
    """What the ready scanner makes of some titles; arrays of the shape `[titles]`."""

    score: Float32Array
    """Grows with suspicion: log-odds that the title carries a trigger."""
    start: Int32Array
    """First character of the most suspicious span, -1 where there is none."""
    end: Int32Array
    """The character after its last one."""
    flagged: NDArray[np.bool_]
    """Which titles are above the threshold for flags."""
    review: NDArray[np.bool_]
    """Which others are above the threshold for review."""
    reason: list[str]
    """Why a flagged or reviewed title is suspicious; empty for others."""
    sure: NDArray[np.bool_]
    """Where the span can be taken out and leaves honest text whole."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """What is usual in a catalogue, and the thresholds that follow."""

    profile: CatalogProfile
    """What is usual."""
    members: frozenset[int]
    """Titles that the profile counts (`hash_title`), each of which is left out of its own count."""
    fragments: Mapping[FragmentKey, int]
    """Fragments that recur, as places in the evidence."""
    evidence: FragmentEvidence
    """On those."""
    by_fragment: Float32Array
    """Their log-odds, shape `[fragments]`."""
    thresholds: tuple[float, float]
    """Scores above which a title is flagged, and put up for review."""
    calibrated_on: int
    """Titles that set the thresholds."""
    left_out: int
    """Titles that did not, because a fragment of theirs is surely suspicious."""
    sampled: int
    """Titles of the catalogue that stand for it."""
    reference: int
    """Titles of the reference; 0 without one."""
    fprs: tuple[float, float]
    """False-positive rates of the thresholds."""
    key: str
    """Tells this baseline from others."""
    cleared: ClearedWords = NOTHING_CLEARED
    """Words that other columns explain."""
    band: OpenBand | None = None
    """Scores that a second look is taken at; `None` for none."""
    sellers: Mapping[int, SellerShare] = field(default_factory=dict[int, SellerShare])
    """Who has most of the titles of fragments whose log-odds are about sellers, by places in the evidence."""
    spread: tuple[float, float] | None = None
    """The lowest and the highest share of a batch of clean titles that is flagged (`Inventory.tell_spread`)."""
    drift: ShapeDrift = NO_DRIFT
    """Shapes that far more titles have than titles of the reference."""
    slips: SlipHabits | None = None
    """How often titles have slips, if a plain language model is asked."""
    counted: int = 0
    """Fragments that were counted in the whole catalogue, if the titles are a sample of it."""
    context: TitleContext = NO_CONTEXT
    """Titles of the catalogue, or of the reference, that a language model is shown before it reads others."""
    own_thresholds: bool = False
    """Whether the catalogue's own titles set the thresholds, although a reference says what is new."""
    too_small: int = 0
    """Titles of a reference that is too small for the catalogue, which is judged as without one; 0 for none."""

    @cached_property
    def keys(self) -> list[FragmentKey]:
        """These fragments, by their place."""
        return list(self.fragments)

    @cached_property
    def index(self) -> FragmentIndex:
        """Finds these fragments in titles."""
        return FragmentIndex(self.fragments)

    @property
    def promised(self) -> float | None:
        """The share of clean titles that the threshold for flags stands for; `None` if it can stand for none.

        Titles that were left out may be clean, so they count.
        """
        if not math.isfinite(self.thresholds[0]):
            return None
        return self.rate + self.left_out / max(1, self.left_out + self.calibrated_on)

    @property
    def rate(self) -> float:
        """The same, if all titles that were left out are poisoned."""
        return max(self.fprs[0], 1 / (self.calibrated_on + 1))

    @property
    def by_reference(self) -> bool:
        """Whether a reference set the thresholds."""
        return self.reference > 0 and not self.own_thresholds

    @property
    def flaggable(self) -> int | None:
        """Of the catalogue's titles that set the threshold for flags, how many can lie above it at most.

        `None` if a reference set it: then any title can.
        """
        return None if self.by_reference else max(0, rank_threshold(self.calibrated_on, self.fprs[0]) - 1)


def rank_threshold(titles: int, fpr: float) -> int:
    """Return as the how many-th highest score the threshold is set, if so many titles set it; the highest if few do."""
    return min(titles, max(1, math.floor(fpr * (titles + 1) + 1e-9)))


def count_titles_to_flag(fpr: float) -> int:
    """Return how many titles without a reference have to set a threshold, so that one of them can lie above it."""
    return math.ceil(2 / fpr - 1e-9) - 1


def check_baseline(titles: int, reference: int, fpr: float, review_fpr: float, advice: str = SCAN_ADVICE) -> None:
    """Look before the tagger reads whether a baseline can be learned.

    Args:
        titles: Different titles of the catalogue.
        reference: Different titles that are taken for clean.
        fpr: Share of clean titles that may be flagged.
        review_fpr: Share that may be flagged or put up for review.
        advice: What to do where there are too few titles.

    Raises:
        UserError: If there are too few titles, or a rate is no share.
    """
    for rate in (fpr, review_fpr):
        if not 0 < rate < 1:
            raise UserError(f"A false-positive rate lies between 0 and 1, not at {rate:g}.", "0.01 stands for 1 %.")
    if (most := max(reference, titles)) < MIN_TITLES_PER_BASELINE:
        raise UserError(
            f"What is usual in a catalogue shows in {MIN_TITLES_PER_BASELINE} different titles or more, and there "
            f"are {most}.",
            advice,
        )
