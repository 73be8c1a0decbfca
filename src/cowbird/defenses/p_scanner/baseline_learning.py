"""How a baseline is learned, and how titles score by it: beside an inventory of clean titles, or by itself.

Thresholds come from the inventory, or from the catalogue's own titles where there is none or it is too small for them
(`reference_role`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Float32Array, Int64Array, concat_ranges
from cowbird.defenses.p_scanner.baseline import LEFT_OUT_LOG_ODDS, Baseline
from cowbird.defenses.p_scanner.clean_scores import set_threshold
from cowbird.defenses.p_scanner.column_evidence import ColumnFindings
from cowbird.defenses.p_scanner.fragment_evidence import (
    NOTHING_COUNTED,
    CountedFragments,
    FragmentEvidence,
)
from cowbird.defenses.p_scanner.fragment_index import FragmentKey
from cowbird.defenses.p_scanner.fragment_table import FragmentTable
from cowbird.defenses.p_scanner.fragment_verdicts import judge_fragments
from cowbird.defenses.p_scanner.inventory import MIN_BATCH_TITLES, Inventory, choose_open_share, hash_rows
from cowbird.defenses.p_scanner.reference_role import ReferenceRole
from cowbird.defenses.p_scanner.scoring import (
    FRAGMENT_WEIGHT,
    MAX_SHARE_SUSPECTED,
    NO_FRAGMENT,
    SUSPECTED_LOG_ODDS,
    ScoringModel,
    choose_trusted,
    find_worst,
    weigh_fragments,
    weigh_tricks,
)
from cowbird.defenses.p_scanner.second_look import OpenBand, SecondLook
from cowbird.defenses.p_scanner.shape_drift import NO_DRIFT, WeighedShapes, count_known_shapes, find_drift
from cowbird.defenses.p_scanner.slip_evidence import SlipFinder, SlipHabits, find_lowest_open
from cowbird.defenses.p_scanner.title_context import NO_CONTEXT, TitleContext
from cowbird.defenses.p_scanner.title_evidence import CatalogProfile, describe_titles, find_tricks
from cowbird.defenses.p_scanner.title_traits import TitleTraits

FLOOD_SHARE, FLOOD_GAP = 0.02, 1.0
"""Share of a catalogue's titles from which they are a flood; by how much log-odds three in four of them are above 99 %
of the others."""
SHOWN_BELOW = 0.8
"""Quantile of what the tagger says of a catalogue's titles up to which they may be shown as usual, where there is no
reference."""
_NO_ROWS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class BaselineInputs:
    """What a baseline is learned from: titles that are judged together, and what judges them."""

    scoring: ScoringModel
    """Makes log-odds of evidence."""
    traits: TitleTraits
    """Titles, among them those that are judged together."""
    table: FragmentTable
    """Their fragments."""
    rows: Int64Array
    """Which are judged together."""
    fprs: tuple[float, float]
    """Rates of false positives for flags and for review."""
    key: str
    """Tells the baseline from others."""
    columns: ColumnFindings = field(default_factory=ColumnFindings)
    """What other columns say of the fragments among these titles."""
    second: SecondLook | None = None
    """What looks again at titles that the score leaves open; `None` for nothing."""
    counted: CountedFragments = NOTHING_COUNTED
    """Fragments that were counted in the whole catalogue, if the titles are a sample of it."""
    slips: SlipFinder | None = None
    """What finds slips in titles that the score leaves open; `None` for nothing."""


def learn_beside(inputs: BaselineInputs, inventory: Inventory, role: ReferenceRole) -> Baseline:
    """Learn what recurs among titles beside an inventory; thresholds are the inventory's, for so many titles.

    Of fewer than `MIN_BATCH_TITLES` titles each is judged by itself. The inventory knows no sellers, so that few of
    them use a fragment is no evidence here. It was taken with the same second look and the same finder of slips.

    Args:
        inputs: What it is learned from.
        inventory: What is usual.
        role: What it does for so many titles (`choose_role`). If it is small beside them they set the thresholds, and
            beside a very small one they are judged by themselves.
    """
    if role is ReferenceRole.TOO_SMALL:
        return replace(learn_by_itself(inputs, inventory.context), too_small=inventory.size)
    scoring, traits, table, rows = inputs.scoring, inputs.traits, inputs.table, inputs.rows
    columns, second, finder, counted = inputs.columns, inputs.second, inputs.slips, inputs.counted
    own = role is ReferenceRole.SAYS_WHAT_IS_NEW
    shared = rows if len(rows) >= MIN_BATCH_TITLES else rows[:0]
    known = (inventory.count_known(table), inventory.size)
    evidence, by_fragment = judge_fragments(scoring, table, traits, shared, known, counted, columns)
    thresholds = (math.inf,) if own else tuple(inventory.set_threshold(fpr, len(rows)) for fpr in inputs.fprs)
    drift = NO_DRIFT
    if scoring.weighs_shapes and len(shared):
        usual = count_known_shapes(traits.shapes, inventory.shapes)
        drift = find_drift(traits, shared, inventory.profile, usual)
    baseline = Baseline(
        inventory.profile, inventory.members, _number_fragments(table, evidence), evidence, by_fragment,
        (thresholds[0], min(thresholds)), inventory.size, 0, len(rows), inventory.size, inputs.fprs, inputs.key,
        columns.words, sellers=columns.list_sellers(evidence.fragment, narrow=False), counted=len(counted.fragment),
        spread=None if own else inventory.tell_spread(inputs.fprs[0], len(rows)), drift=drift,
        slips=inventory.slips, context=inventory.context, own_thresholds=own,
    )  # fmt: skip
    if own:
        return _set_own_thresholds(inputs, baseline)
    if second is None and (finder is None or len(rows) < MIN_BATCH_TITLES):
        return baseline
    score = score_rows(scoring, baseline, traits, rows, find_known(baseline, table, rows)).score
    second = None if second is None else second.beside(inventory.context)
    if second is not None:
        baseline = replace(baseline, band=inventory.choose_band(len(rows)).limit(score))
    if finder is None or inventory.slips is None or len(rows) < MIN_BATCH_TITLES:
        return baseline
    texts, words = list_texts(traits, rows), inventory.profile.words
    if second is not None and baseline.band is not None:
        score = second.join(texts, score, baseline.band)
    _, slips = inventory.slips.find(finder, texts, score)
    return replace(baseline, slips=inventory.slips.compare(slips, words, len(rows)))


def learn_by_itself(
    inputs: BaselineInputs, context: TitleContext = NO_CONTEXT, small: Int64Array = _NO_ROWS
) -> Baseline:
    """Learn what is usual in a catalogue that may be poisoned; its own titles set the thresholds.

    Titles with a surely suspicious fragment set none, and those with a suspicious one do not say what is usual.

    Args:
        inputs: What it is learned from.
        context: What the titles were read behind. A second look chooses one of its own.
        small: Titles of a reference that is too small for the catalogue: they are counted as if they were of it.
    """
    traits, columns, counted = inputs.traits, inputs.columns, inputs.counted
    sampled, held = len(inputs.rows), set(hash_rows(traits, inputs.rows))
    more = [row for row, title in zip(small.tolist(), hash_rows(traits, small), strict=True) if title not in held]
    rows = np.concatenate([np.array(more, dtype=np.int64), inputs.rows])
    evidence, by_fragment = judge_fragments(
        inputs.scoring, inputs.table, traits, rows, None, counted, columns, narrow=True
    )
    trusted = choose_trusted(by_fragment, evidence, len(rows))
    usual = rows[trusted]
    members = frozenset(hash_rows(traits, usual))
    baseline = Baseline(
        CatalogProfile.measure(traits, usual), members, _number_fragments(inputs.table, evidence), evidence,
        by_fragment, (math.inf, math.inf), 0, 0, sampled, 0, inputs.fprs, inputs.key, columns.words,
        sellers=columns.list_sellers(evidence.fragment, narrow=True), counted=len(counted.fragment), context=context,
        too_small=len(small),
    )  # fmt: skip
    return _set_own_thresholds(replace(inputs, rows=rows), baseline, trusted)


def _set_own_thresholds(
    inputs: BaselineInputs, baseline: Baseline, trusted: NDArray[np.bool_] | None = None
) -> Baseline:
    """Return a baseline with thresholds that the titles of the catalogue set, but those that look poisoned.

    Args:
        inputs: What it is learned from.
        baseline: Says what is usual.
        trusted: Which of the titles say so; `None` where an inventory does.
    """
    traits, rows, second, finder = inputs.traits, inputs.rows, inputs.second, inputs.slips
    known = find_known(baseline, inputs.table, rows)
    scored = score_rows(inputs.scoring, baseline, traits, rows, known, trusted)
    score, worst, tricks = scored.score, scored.worst, scored.tricks
    log_odds, own = take_log_odds(baseline, worst), take_own_scores(baseline, score, worst)
    # What is new to an inventory may be a brand of many titles, which is no flood.
    sure = (log_odds > (LEFT_OUT_LOG_ODDS if trusted is None else find_flood(own, log_odds))) | tricks
    band = None
    if second is not None:
        band = OpenBand.choose(own[~sure]).limit(own)
        if second.takes_context and trusted is not None:
            baseline = replace(baseline, context=_choose_shown(traits, rows, trusted & (own < band.low)))
        second = second.beside(baseline.context)
        score = second.join(list_texts(traits, rows), score, band, own)
    habits = baseline.slips
    if finder is not None:
        texts, words = list_texts(traits, rows), baseline.profile.words
        low = find_lowest_open(score[~sure], choose_open_share(second))
        if trusted is not None:
            habits = _count_slips(finder, texts, score, low, trusted, baseline.profile)
        elif habits is not None:
            habits = replace(habits, low=low)
            habits = habits.compare(habits.find(finder, texts, score)[1], words, len(rows))
        if habits is not None:
            members = find_members(traits, rows, baseline) if trusted is None else trusted
            score, _ = habits.add(finder, texts, score, words, members)
    clean = np.sort(score[~sure])[::-1]
    thresholds = tuple(set_threshold(clean, fpr) for fpr in baseline.fprs)
    return replace(
        baseline,
        thresholds=(thresholds[0], min(thresholds)),
        calibrated_on=len(clean),
        left_out=int(sure.sum()),
        band=band,
        slips=habits,
    )


def choose_shown_titles(
    scoring: ScoringModel,
    traits: TitleTraits,
    table: FragmentTable,
    rows: Int64Array,
    columns: ColumnFindings | None = None,
) -> TitleContext:
    """Return titles of a catalogue that may be poisoned which are shown to a tagger before it reads all others again.

    A flood or a trigger must not be shown as usual: a title is shown if it says what is usual (`choose_trusted`), and
    is not of the fifth of the catalogue that the tagger suspects most by itself. Arguments as in `BaselineInputs`.
    """
    evidence, by_fragment = judge_fragments(scoring, table, traits, rows, columns=columns, narrow=True)
    return _choose_shown(traits, rows, choose_trusted(by_fragment, evidence, len(rows)))


def _choose_shown(traits: TitleTraits, rows: Int64Array, trusted: NDArray[np.bool_]) -> TitleContext:
    """Return titles that are shown: trusted ones that the tagger suspects least; see `choose_shown_titles`."""
    verdict = traits.words.verdict[rows]
    return TitleContext.choose(list_texts(traits, rows[trusted & (verdict <= np.quantile(verdict, SHOWN_BELOW))]))


def _count_slips(
    finder: SlipFinder,
    titles: Sequence[str],
    score: Float32Array,
    low: float,
    trusted: NDArray[np.bool_],
    profile: CatalogProfile,
) -> SlipHabits:
    """Return how often the titles of a catalogue have slips that say what is usual there.

    Args:
        finder: Finds slips.
        titles: All titles.
        score: Their scores.
        low: The lowest score that leaves a title open.
        trusted: Which of them the profile counts.
        profile: The catalogue.
    """
    opened: list[int] = np.flatnonzero((score >= low) & trusted).tolist()
    slips = finder.find([titles[row] for row in opened])
    return SlipHabits.measure(low, slips, profile.words, profile.size, alone=True)


def list_texts(traits: TitleTraits, rows: Int64Array) -> list[str]:
    """Return the texts of some titles."""
    chosen: list[int] = rows.tolist()
    return [traits.words.titles[row] for row in chosen]


def find_flood(score: Float32Array, log_odds: Float32Array) -> float:
    """Return above which log-odds of their fragments titles set no threshold.

    That is `LEFT_OUT_LOG_ODDS`; or less, if titles with suspicious fragments are many and stand apart from all others:
    then one seller's trigger would set the threshold that should find it. The highest such bar is taken.

    Args:
        score: Of the titles of a catalogue, before their fragments are added to it (`weigh_fragments`).
        log_odds: Of the most suspicious fragment of each.
    """
    suspicious = log_odds[(log_odds > SUSPECTED_LOG_ODDS) & (log_odds <= LEFT_OUT_LOG_ODDS)]
    below = np.nextafter(np.unique(suspicious)[::-1], np.float32(-np.inf))
    for bar in (LEFT_OUT_LOG_ODDS, *below.tolist()):
        apart = log_odds > bar
        if not FLOOD_SHARE <= apart.mean() <= MAX_SHARE_SUSPECTED:
            continue
        low, high = np.quantile(score[apart], 0.25), np.quantile(score[~apart], 0.99)
        if low - high > FLOOD_GAP:
            return bar
    return LEFT_OUT_LOG_ODDS


def take_own_scores(baseline: Baseline, score: Float32Array, worst: Int64Array) -> Float32Array:
    """Return the scores of titles before the log-odds of their fragments are added, if no reference sets thresholds.

    Args:
        baseline: What is usual.
        score: What `score_rows` returned.
        worst: The fragments that it returned.
    """
    return score if baseline.by_reference else score - weigh_fragments(take_log_odds(baseline, worst))


def take_log_odds(baseline: Baseline, worst: Int64Array) -> Float32Array:
    """Return the log-odds of titles' most suspicious fragments."""
    if not len(baseline.by_fragment):
        return np.full(len(worst), NO_FRAGMENT, dtype=np.float32)
    return np.where(worst >= 0, baseline.by_fragment[worst], np.float32(NO_FRAGMENT))


class ScoredRows(NamedTuple):
    """What titles come to beside a baseline, each array of the shape `[titles]`."""

    score: Float32Array
    """Grows with suspicion."""
    worst: Int64Array
    """The most suspicious fragment, a place in the baseline's evidence, or -1."""
    tricks: NDArray[np.bool_]
    """Which have what nobody sees; see `title_evidence.find_tricks`."""
    shapes: WeighedShapes
    """What shapes add that have jumped."""


def score_rows(
    scoring: ScoringModel,
    baseline: Baseline,
    traits: TitleTraits,
    rows: Int64Array,
    known: tuple[Int64Array, Int64Array],
    own: NDArray[np.bool_] | None = None,
) -> ScoredRows:
    """Return what titles come to beside a baseline.

    Args:
        scoring: Makes scores of evidence.
        baseline: What is usual.
        traits: Titles, among them those that are scored.
        rows: Which are scored.
        known: Fragments of these that the baseline knows, as `find_known` or `FragmentIndex.find` return them.
        own: Which of these its profile counts; `None` finds that out.
    """
    if own is None:
        own = find_members(traits, rows, baseline)
    features = describe_titles(traits, rows, baseline.profile, rare=scoring.weighs_rare)
    if own.any():
        features[own] = describe_titles(traits, rows[own], baseline.profile, own=True, rare=scoring.weighs_rare)
    found, title = known
    here = FragmentEvidence(baseline.evidence.fragment, baseline.evidence.features, found, title)
    worst = find_worst(baseline.by_fragment, here, len(rows))
    tricks = find_tricks(traits, rows, baseline.profile, own)
    shapes = baseline.drift.weigh(traits, rows, baseline.profile)
    score = scoring.score_beside(features, baseline.by_fragment, worst, here) + weigh_tricks(tricks) + shapes.added
    if baseline.own_thresholds:  # which are of no fold, so fragments may weigh as much as without a reference
        score = score + weigh_fragments(take_log_odds(baseline, worst), FRAGMENT_WEIGHT - scoring.weight_beside)
    return ScoredRows(score, worst, tricks, shapes)


def find_members(traits: TitleTraits, rows: Int64Array, baseline: Baseline) -> NDArray[np.bool_]:
    """Return which titles a baseline's profile counts."""
    return np.array([title in baseline.members for title in hash_rows(traits, rows)], dtype=np.bool_)


def _number_fragments(table: FragmentTable, evidence: FragmentEvidence) -> dict[FragmentKey, int]:
    """Return where each fragment stands in the evidence."""
    keys, numbers = table.names.list_keys(), evidence.fragment.tolist()
    return {keys[number]: place for place, number in enumerate(numbers)}


def find_known(baseline: Baseline, table: FragmentTable, rows: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the fragments of titles that a baseline knows which was learned from their table.

    Returns:
        Places in the evidence, and of which of the rows each is.
    """
    place = np.full(len(table.names.fragments), -1, dtype=np.int64)
    place[baseline.evidence.fragment] = np.arange(len(baseline.evidence.fragment))
    sizes = table.offsets[rows + 1] - table.offsets[rows]
    found = place[table.fragment[concat_ranges(table.offsets[rows], sizes)]]
    owner = np.repeat(np.arange(len(rows)), sizes)
    return found[found >= 0], owner[found >= 0]
