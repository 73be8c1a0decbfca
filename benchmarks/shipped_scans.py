"""Many scans of titles that were read and cut once, judged by the package's own functions.

A benchmark asks about a catalogue again and again, each time with other titles in it. `ShippedScans` describes all of
these titles once. `ask_beside` and `ask_itself` then judge some of them as `ReadyScanner` does, with a reference and
without: the same baseline, the same scores, the same thresholds.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Float32Array, Int64Array
from cowbird.defenses.p_scanner.baseline import Baseline
from cowbird.defenses.p_scanner.baseline_learning import (
    BaselineInputs,
    find_known,
    find_members,
    learn_beside,
    learn_by_itself,
    score_rows,
    take_log_odds,
    take_own_scores,
)
from cowbird.defenses.p_scanner.fragment_table import (
    FragmentNames,
    FragmentTable,
    index_fragments,
)
from cowbird.defenses.p_scanner.inventory import Inventory, choose_batch_sizes, take_inventory
from cowbird.defenses.p_scanner.reference_role import choose_role
from cowbird.defenses.p_scanner.scoring import ScoringModel
from cowbird.defenses.p_scanner.second_look import SecondLook
from cowbird.defenses.p_scanner.slip_evidence import SlipFinder
from cowbird.defenses.p_scanner.title_context import NO_CONTEXT, TitleContext
from cowbird.defenses.p_scanner.title_traits import MarkedWords, TitleTraits, describe_traits, mark_words
from cowbird.defenses.p_scanner.token_logits import TokenLogits

Scores = NDArray[np.floating]
FPRS = (0.01, 0.05)
"""Rates for flags, and for flags and reviews."""
NOTHING_KNOWN = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


class Found(NamedTuple):
    """What a detector makes of some titles; arrays of the shape `[titles]`, `None` where it has no threshold."""

    score: Scores
    flagged: NDArray[np.bool_] | None = None
    review: NDArray[np.bool_] | None = None
    baseline: Baseline | None = None
    worst: Int64Array | None = None
    """The most suspicious fragment of each title, a place in the baseline's evidence, or -1."""


@dataclass(frozen=True, eq=False)
class ShippedScans:
    """Titles that were read and cut once; see the module."""

    traits: TitleTraits
    """All titles."""
    table: FragmentTable
    """Their fragments."""
    second: SecondLook | None = None
    """What looks again at titles that their score leaves open; `None` for nothing."""
    slips: SlipFinder | None = None
    """What finds slips in such titles; `None` for nothing."""

    @classmethod
    def describe(cls, words: MarkedWords, second: SecondLook | None = None) -> "ShippedScans":
        """Describe titles."""
        return cls(describe_traits(words), index_fragments(words, FragmentNames()), second)

    def silence(self) -> "ShippedScans":
        """Return the same titles with taggers that say nothing."""
        words = self.traits.words
        quiet = MarkedWords(words.cut, np.zeros_like(words.mark), np.zeros_like(words.verdict))
        return ShippedScans.describe(quiet)

    def calibrate(self, scoring: ScoringModel, rows: Int64Array, together: int | None = None) -> Inventory:
        """Count what is usual in rows, as `cowbird calibrate` does.

        Args:
            scoring: Makes scores of evidence.
            rows: Titles that are taken for clean.
            together: How many will be judged together, as a scan with a reference knows; `None` for any number.
        """
        sizes = choose_batch_sizes(len(rows)) if together is None else (together,)
        context = NO_CONTEXT
        if self.second is not None and self.second.takes_context:
            context = TitleContext.choose([self.traits.words.titles[row] for row in rows.tolist()])
        return take_inventory(scoring, self.traits, self.table, rows, sizes, self.second, self.slips, context)

    def ask_beside(self, scoring: ScoringModel, inventory: Inventory, rows: Int64Array, apart: bool = False) -> Found:
        """Judge rows beside an inventory, together or each alone."""
        asked = rows[:0] if apart else rows
        inputs = self._take_inputs(scoring, asked)
        baseline = learn_beside(inputs, inventory, choose_role(inventory.size, len(asked)))
        return self._judge(scoring, baseline, rows)

    def ask_itself(self, scoring: ScoringModel, rows: Int64Array) -> Found:
        """Judge rows by what is usual among themselves."""
        return self._judge(scoring, learn_by_itself(self._take_inputs(scoring, rows)), rows)

    def score_alone(self, scoring: ScoringModel, found: Found, rows: Int64Array) -> Float32Array:
        """Return the scores of rows beside the baseline of a scan as if no fragment recurred."""
        assert found.baseline is not None
        return score_rows(scoring, found.baseline, self.traits, rows, NOTHING_KNOWN).score

    def _take_inputs(self, scoring: ScoringModel, rows: Int64Array) -> BaselineInputs:
        return BaselineInputs(scoring, self.traits, self.table, rows, FPRS, "", second=self.second, slips=self.slips)

    def _judge(self, scoring: ScoringModel, baseline: Baseline, rows: Int64Array) -> Found:
        known = find_known(baseline, self.table, rows)
        score, worst, *_ = score_rows(scoring, baseline, self.traits, rows, known)
        titles = [self.traits.words.titles[row] for row in rows.tolist()]
        if self.second is not None and baseline.band is not None:
            own = take_own_scores(baseline, score, worst)
            score = self.second.beside(baseline.context).join(titles, score, baseline.band, own)
        if self.slips is not None and baseline.slips is not None:
            members = find_members(self.traits, rows, baseline)
            score, _ = baseline.slips.add(self.slips, titles, score, baseline.profile.words, members)
        return Found(score, score > baseline.thresholds[0], score > baseline.thresholds[1], baseline, worst)


def take_fragment_scores(found: Found) -> Float32Array:
    """Return the log-odds of each title's most suspicious fragment."""
    assert found.baseline is not None and found.worst is not None
    return take_log_odds(found.baseline, found.worst)


def take_network_scores(found: Found) -> Float32Array:
    """Return the scores of titles before the log-odds of their fragments are added."""
    assert found.baseline is not None and found.worst is not None
    return take_own_scores(found.baseline, np.asarray(found.score, dtype=np.float32), found.worst)


def describe_marks(titles: list[str], marks: TokenLogits, second: SecondLook | None = None) -> ShippedScans:
    """Describe titles by what a tagger says of them."""
    return ShippedScans.describe(mark_words(titles, marks), second)
