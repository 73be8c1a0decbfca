"""Where titles that are flagged or put up for review are suspicious, why, and what can be taken out.

What nobody sees says most of a title, then what it shares with others, then the title by itself (`trick_reasons`,
`verdict_reasons`). Behind that stands what else moved its score: a shape that jumped, a second look, a slip.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from cowbird.data.types import Float32Array, Int64Array
from cowbird.defenses.p_scanner.baseline import SURE_LOG_ODDS, Baseline
from cowbird.defenses.p_scanner.second_look import SecondLook
from cowbird.defenses.p_scanner.shape_drift import WeighedShapes
from cowbird.defenses.p_scanner.spelling import Slip
from cowbird.defenses.p_scanner.title_traits import TitleTraits
from cowbird.defenses.p_scanner.trick_reasons import find_trick
from cowbird.defenses.p_scanner.verdict_reasons import (
    SAME_SHAPE,
    explain_fragment,
    explain_jump,
    explain_slip,
    explain_title,
    find_highest,
    find_shared,
    leaves_words_whole,
    list_as_suspicious,
    show_place,
)

_NOWHERE = (-1, -1)


class TitleExplanation(NamedTuple):
    """Why one title is suspicious; fields as in `ReadyVerdicts`."""

    start: int
    end: int
    reason: str
    sure: bool


@dataclass(frozen=True, eq=False)
class ScoredTitles:
    """Titles that were scored beside a baseline, and what their scores are made of."""

    baseline: Baseline
    """What is usual."""
    traits: TitleTraits
    """The titles."""
    worst: Int64Array
    """The most suspicious fragment of each, a place in the evidence, or -1."""
    shared: tuple[Int64Array, Int64Array]
    """All fragments that the baseline knows, as `FragmentIndex.find` returns them."""
    shapes: WeighedShapes
    """What shapes add that have jumped."""
    second: SecondLook | None = None
    """What looked again at open titles; `None` for nothing."""
    looks: Float32Array | None = None
    """What it said of each, NaN where it did not look."""
    slips: Mapping[int, Slip] = field(default_factory=dict[int, Slip])
    """Slips that add to scores, by title."""

    def explain(self, row: int) -> TitleExplanation:
        """Return where a title is suspicious, why, and whether that can be taken out and leaves honest text whole."""
        place, pointed = int(self.worst[row]), _NOWHERE
        trick = find_trick(self.baseline, self.traits, row, place)
        if trick is not None:
            found = TitleExplanation(trick.start, trick.end, trick.reason, trick.alone)
        elif place >= 0 and self.baseline.by_fragment[place] > 0:
            found = self._explain_shared(row, place)
        else:
            found, pointed = self._explain_alone(row)
        if self.shapes.shape[row] >= 0 and SAME_SHAPE not in found.reason:
            found = self._add_jump(row, found, shown=trick is not None or found.sure)
        title, reason = self.traits.words.titles[row], found.reason
        if self.looks is not None and not np.isnan(self.looks[row]):
            reason += f"; language model {self.looks[row]:.1f}{show_place(title, *pointed)}"
        if row in self.slips:
            reason += explain_slip(self.slips[row])
        sure = found.sure and leaves_words_whole(title, found.start, found.end)
        return TitleExplanation(found.start, found.end, reason, sure)

    def _explain_shared(self, row: int, place: int) -> TitleExplanation:
        """Say what a title shares with others, of which a fragment is the most suspicious."""
        baseline, title = self.baseline, self.traits.words.titles[row]
        places, of = self.shared
        alike = list_as_suspicious(baseline, places[of == row], place)
        found = find_shared(title, self.traits, row, baseline, [baseline.keys[each] for each in alike])
        shown = title[found.start : found.end] if found.start >= 0 else ""
        start, end = (found.start, found.end) if shown else find_highest(self.traits, row)
        certain = found.exact and bool(baseline.by_fragment[found.place] > SURE_LOG_ODDS)
        return TitleExplanation(
            start, end, explain_fragment(baseline, baseline.keys[found.place], found.place, shown), certain
        )

    def _explain_alone(self, row: int) -> tuple[TitleExplanation, tuple[int, int]]:
        """Say what is suspicious in the title by itself, and where the second look points; -1 and -1 if nowhere."""
        start, end = find_highest(self.traits, row)
        certain, pointed = bool(self.traits.highest[row] > SURE_LOG_ODDS), _NOWHERE
        if self.second is not None and self.looks is not None and self.looks[row] > max(self.traits.highest[row], 0):
            pointed = self.second.point(self.traits.words.titles[row])
            certain = certain and pointed == (start, end)
        if pointed[0] >= 0:
            start, end = pointed
        return TitleExplanation(start, end, explain_title(self.baseline, self.traits, row), certain), pointed

    def _add_jump(self, row: int, found: TitleExplanation, *, shown: bool) -> TitleExplanation:
        """Say that a word has a shape that jumped, and show it unless something is shown that says more."""
        jump = list(self.baseline.drift.jumps)[int(self.shapes.shape[row])]
        said, first, after = explain_jump(self.baseline.drift, jump, self.traits, row)
        found = found._replace(reason=f"{found.reason}; {said}")
        if not shown and after > first and self.traits.highest[row] <= 0:
            found = found._replace(start=first, end=after)
        return found
