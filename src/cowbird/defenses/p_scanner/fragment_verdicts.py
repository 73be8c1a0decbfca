"""Log-odds of the fragments that recur among titles, each by the titles that no stronger one explains.

A trigger is made of many fragments, and some of them are honest elsewhere. A sentence that is planted in twenty titles
ends in a period. So do nine honest titles, and the period looks planted, for twenty of its 29 titles are. It is not:
in those twenty the sentence explains what the tagger says. `judge_fragments` finds the fragments of which some titles
have a stronger, suspicious one, and judges them again by their other titles alone. Where no other title is left, or the
tagger takes the fragment for part of a trigger there, too, it keeps its log-odds. Where one is left, it recurs nowhere.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Float32Array, Int64Array
from cowbird.defenses.p_scanner.column_evidence import ColumnFindings
from cowbird.defenses.p_scanner.fragment_evidence import (
    NOTHING_COUNTED,
    CountedFragments,
    FragmentEvidence,
    describe_fragments,
)
from cowbird.defenses.p_scanner.fragment_table import (
    FragmentTable,
)
from cowbird.defenses.p_scanner.scoring import (
    LEAST_FRAGMENT,
    NO_FRAGMENT,
    SUSPECTED_LOG_ODDS,
    ScoringModel,
    find_worst,
)
from cowbird.defenses.p_scanner.title_traits import TitleTraits

HONEST_MARK = 0.0
"""Mean log-odds of the tagger at a fragment up to which the titles that nothing explains may be honest."""
FRAGMENT_ROUNDS = 3
"""How often fragments are judged again: what explains another one may itself be explained."""


class JudgedFragments(NamedTuple):
    """Fragments that recur among titles."""

    evidence: FragmentEvidence
    """What is known of them."""
    by_fragment: Float32Array
    """Their log-odds, shape `[fragments]`."""


def judge_fragments(
    scoring: ScoringModel,
    table: FragmentTable,
    traits: TitleTraits,
    rows: Int64Array,
    reference: tuple[Int64Array, int] | None = None,
    counted: CountedFragments = NOTHING_COUNTED,
    columns: ColumnFindings | None = None,
    *,
    narrow: bool = False,
) -> JudgedFragments:
    """Return the log-odds of the fragments that recur among titles.

    Args:
        scoring: Makes log-odds of evidence.
        table: Fragments of titles, among them those that are judged together.
        traits: The same titles.
        rows: Which are judged together.
        reference: See `describe_fragments`.
        counted: Fragments that were counted in the whole catalogue.
        columns: What other columns say of the fragments.
        narrow: See `ColumnFindings.adjust`.
    """
    columns = columns or ColumnFindings()
    first = describe_fragments(table, traits, rows, reference, counted)
    alone = columns.adjust(first.fragment, scoring.fragment.score(first.features), narrow=narrow)
    evidence, by_fragment = first, alone
    before: Int64Array | None = None
    for _ in range(FRAGMENT_ROUNDS):
        explained = find_explained(first, alone, by_fragment, len(rows))
        if counted.fragment.size:  # their counts are of the whole catalogue, and their titles are not at hand
            explained &= ~np.isin(first.fragment, counted.fragment)[first.of]
        places = np.flatnonzero(explained)
        if not len(places) or (before is not None and np.array_equal(places, before)):
            break
        before = places
        again = describe_fragments(
            table, traits, rows, reference, without=(first.fragment[first.of[places]], first.title[places])
        )
        features, by_fragment = first.features.copy(), alone.copy()
        touched = np.unique(first.of[places])
        by_fragment[touched] = NO_FRAGMENT
        kept = np.searchsorted(first.fragment, again.fragment)
        features[kept] = again.features
        by_fragment[kept] = np.minimum(
            alone[kept], columns.adjust(again.fragment, scoring.fragment.score(again.features), narrow=narrow)
        )
        evidence = replace(first, features=features)
    return JudgedFragments(evidence, by_fragment)


def find_explained(
    evidence: FragmentEvidence, alone: Float32Array, by_fragment: Float32Array, titles: int
) -> NDArray[np.bool_]:
    """Return which occurrences of fragments a stronger one of the same title explains, shape `[occurrences]`.

    Those of a fragment whose titles are all explained are not among them; nor are those of a fragment that the tagger
    takes for part of a trigger in its other titles, too.

    Args:
        evidence: Fragments.
        alone: Their log-odds, each by all of its titles.
        by_fragment: The same, by the titles that are not explained, as far as is known.
        titles: How many titles there are.
    """
    worst = find_worst(by_fragment, evidence, titles)
    strongest = np.where(worst >= 0, by_fragment[worst] if len(by_fragment) else NO_FRAGMENT, NO_FRAGMENT)
    bar = np.maximum(alone[evidence.of], SUSPECTED_LOG_ODDS)
    explained = (strongest[evidence.title] > bar) & (alone[evidence.of] > LEAST_FRAGMENT)
    others = evidence.of[~explained]
    left = np.bincount(others, minlength=len(alone))
    mark = np.bincount(others, evidence.mark[~explained], len(alone)) / np.maximum(left, 1)
    return explained & ((left > 0) & (mark <= HONEST_MARK))[evidence.of]
