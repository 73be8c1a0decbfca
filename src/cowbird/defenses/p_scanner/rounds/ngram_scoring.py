"""From marks to a verdict: what a model says of a fragment, what the catalogue says of it, and what its characters say.

A logistic model weighs, for every fragment, the mean of its marks in all titles that hold it against how often it
recurs, how unlikely its tokens stand together by chance, and whether it keeps to one end. It learns on plantings of the
agent's triggers in the catalogue itself, so it holds for titles as they are there. Phrases that their titles do not
need are raised above what the model says, and those that they do are lowered (`context_gain`). A title is as suspicious
as its worst fragment, or as the worst rule for characters that it breaks. What a catalogue does by habit is no trigger
(`common_patterns`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from cowbird.data.types import Float32Array, Int32Array
from cowbird.defenses.p_scanner.rounds.common_patterns import find_common_ngrams, judge_by_characters, list_tokens
from cowbird.defenses.p_scanner.rounds.context_gain import ContextGain, PhraseGain
from cowbird.defenses.p_scanner.rounds.ngrams import Ngrams, Numbers, find_ngrams
from cowbird.defenses.p_scanner.token_logits import TokenLogits
from cowbird.defenses.titles import Suspicion

MIN_TITLES_RECURRING = 3
"""Titles that hold a fragment from which it recurs."""
COMMON_NGRAM_ODDS = -20.0
"""Log-odds of a habit of the catalogue."""
SPAN_ODDS_MARGIN = 1.5
"""Log-odds below a title's worst fragment from which others next to it belong to the same span."""
MAX_SECONDED_ODDS = 1.0
"""Log-odds that fragments add to those of a broken rule, at most."""
RIDGE_WEIGHT = 1e-2
NEWTON_STEPS = 40
TRIGGERS_PER_FAMILIAR, MIN_LOGIT_SHARE = 3, 0.3
"""Of so many triggers that the weighing learns from, one keeps the marks of a reader that knows it; others keep at
least this share of what sets their marks apart."""
RARE_NGRAMS_TAUGHT = 1500
"""Fragments of one or two titles that a planting teaches as clean."""
_NAMES = ("mark", "often", "mark x often", "pmi", "pmi x often", "edge", "edge x often", "recurs")
NGRAM_FEATURES = (*_NAMES, "mark x recurs", "length", "mark x length")
"""What is known of a fragment."""


def describe_ngrams(found: Ngrams, marks: TokenLogits) -> Numbers:
    """Return what is known of each fragment, shape `[fragments, len(NGRAM_FEATURES)]`."""
    mark, often, length = found.means(marks.mark), np.log(found.titles), np.log(found.pieces)
    recurs = (found.titles >= MIN_TITLES_RECURRING).astype(np.float64)
    pmi, edge = recurs * found.pmi, recurs * found.edge
    columns: list[Numbers] = [mark, often, mark * often, pmi, pmi * often, edge, edge * often, recurs]
    columns += [mark * recurs, length, mark * length]
    return np.stack(columns, axis=1)


MAX_EVIDENCE_NUMBER = 1e6
"""Largest number of a logistic model of fragments; those of fits have one or two digits."""


class NgramClassifier(BaseModel):
    """A logistic model of fragments."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    center: tuple[float, ...]
    """Mean of each column of `describe_ngrams`, weighted."""
    scale: tuple[float, ...]
    """Its spread."""
    weight: tuple[float, ...]
    """Weight of each column, centered and scaled."""
    offset: float
    """Log-odds at the center."""

    @model_validator(mode="after")
    def _fits(self) -> "NgramClassifier":
        columns = (self.center, self.scale, self.weight)
        if len({len(column) for column in columns}) != 1:
            raise ValueError("centers, scales and weights are as many")
        if not np.isfinite([*self.center, *self.scale, *self.weight, self.offset]).all() or min(self.scale) <= 0:
            raise ValueError("weights are finite, and scales above zero")
        if max(abs(number) for number in (*self.center, *self.scale, *self.weight, self.offset)) > MAX_EVIDENCE_NUMBER:
            raise ValueError(f"no weight, center, scale or offset is beyond {MAX_EVIDENCE_NUMBER:g}")
        return self

    def odds(self, described: Numbers) -> Numbers:
        """Return the log-odds that fragments are triggers, shape `[fragments]`."""
        held: Numbers = (described - np.array(self.center)) / np.array(self.scale)
        return held @ np.array(self.weight) + self.offset


def fit_classifier(described: Numbers, planted: NDArray[np.bool_], share: Numbers) -> NgramClassifier:
    """Fit a logistic model by Newton's method, with a small ridge.

    Args:
        described: See `describe_ngrams`, shape `[fragments, columns]`.
        planted: Which fragments are triggers, shape `[fragments]`.
        share: How much each counts, shape `[fragments]`.
    """
    total = float(share.sum())
    center: Numbers = share @ described / total
    scale: Numbers = np.sqrt(share @ (described - center) ** 2 / total) + 1e-6
    columns: Numbers = np.column_stack([(described - center) / scale, np.ones(len(described))])
    ridge: Numbers = RIDGE_WEIGHT * total * np.array([1.0] * described.shape[1] + [1e-6])
    weight = np.zeros_like(ridge)
    for _ in range(NEWTON_STEPS):
        change = _find_newton_step(columns, planted, share, ridge, weight)
        np.subtract(weight, change, out=weight)
        if np.abs(change).max() < 1e-8:
            break
    known: list[list[float]] = [center.tolist(), scale.tolist(), weight.tolist()]
    return NgramClassifier(
        center=tuple(known[0]), scale=tuple(known[1]), weight=tuple(known[2][:-1]), offset=known[2][-1]
    )


def _find_newton_step(
    columns: Numbers, planted: NDArray[np.bool_], share: Numbers, ridge: Numbers, weight: Numbers
) -> Numbers:
    """Return one step of Newton's method, to be subtracted."""
    chance: Numbers = 1 / (1 + np.exp(-np.clip(columns @ weight, -30, 30)))
    slope: Numbers = columns.T @ (share * (chance - planted)) + ridge * weight
    bend: Numbers = (columns * (share * chance * (1 - chance))[:, None]).T @ columns + np.diag(ridge)
    return np.linalg.solve(bend, slope).astype(np.float64)


def fade_logits(marks: TokenLogits, trigger: Int32Array, rng: np.random.Generator) -> TokenLogits:
    """Return marks as a reader would make them that was taught some triggers less, or not at all.

    The reader knows what it was tuned on, and an attacker's trigger is of none of it. A weighing that learned from
    familiar triggers alone would trust marks too much, and what recurs too little. So the marks of each trigger go a
    share of the way, drawn for each, to marks of clean tokens; those of one in `TRIGGERS_PER_FAMILIAR` stay.

    Args:
        marks: What the reader makes of a catalogue with plantings.
        trigger: Which trigger each token is part of, -1 for none, shape `[marks]`.
        rng: Draws shares and clean marks.
    """
    clean = marks.mark[trigger < 0]
    if not len(clean):
        return marks
    kept = MIN_LOGIT_SHARE + (1 - MIN_LOGIT_SHARE) * rng.random(int(trigger.max(initial=-1)) + 1)
    kept[rng.random(len(kept)) < 1 / TRIGGERS_PER_FAMILIAR] = 1.0
    share = np.where(trigger >= 0, kept[np.maximum(trigger, 0)] if len(kept) else 1.0, 1.0)
    mark = share * marks.mark + (1 - share) * rng.choice(clean, len(marks.mark))
    return TokenLogits(marks.tokenized, mark.astype(np.float32), marks.verdict)


def list_examples(
    found: Ngrams, marks: TokenLogits, inside: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Numbers, NDArray[np.bool_], Numbers]:
    """Return what one catalogue with plantings teaches.

    Args:
        found: Its fragments.
        marks: Its marks.
        inside: Which of its tokens are part of a planted trigger, shape `[marks]`.
        rng: Draws which rare fragments are learned from.

    Returns:
        The arguments of `fit_classifier`.
    """
    sums = np.concatenate([[0], np.cumsum(inside)])
    within = sums[found.start + found.length] - sums[found.start] == found.length
    share = np.bincount(found.number, within) / np.bincount(found.number)
    telling = ~find_common_ngrams(found)  # a habit is not judged, so it teaches nothing
    planted = np.flatnonzero(telling & (share > 0.8))
    clean = np.flatnonzero(telling & (share < 0.2))
    rare = clean[found.titles[clean] < MIN_TITLES_RECURRING]
    rare = rng.choice(rare, min(RARE_NGRAMS_TAUGHT, len(rare)), replace=False) if len(rare) else rare
    chosen = np.concatenate([planted, clean[found.titles[clean] >= MIN_TITLES_RECURRING], rare])
    learned = np.arange(len(chosen)) < len(planted)
    clean_count = len(chosen) - len(planted)
    weight = np.where(learned, clean_count / max(1, len(planted)) / 4, 1.0)
    return describe_ngrams(found, marks)[chosen], learned, weight


class NgramVerdicts(NamedTuple):
    """What is made of some titles."""

    found: Suspicion
    """The verdicts."""
    shared: Int32Array
    """How many titles share what each was judged by, shape `[titles]`; 0 if that is nothing."""
    gains: tuple[PhraseGain, ...]
    """What recurring phrases gain, if that was asked."""


def judge_apart(marks: TokenLogits, titles: Sequence[str], weights: NgramClassifier) -> Suspicion:
    """Judge titles as if each were the only one; see `judge_titles`."""
    # Tokens that are all different recur nowhere.
    return judge_titles(titles, marks, weights, np.arange(len(marks.tokenized.token), dtype=np.int32))


def judge_titles(
    titles: Sequence[str],
    marks: TokenLogits,
    weights: NgramClassifier,
    token: Int32Array | None = None,
    context_gain: ContextGain | None = None,
) -> Suspicion:
    """Judge titles; see `judge_together`."""
    return judge_together(titles, marks, weights, token, context_gain).found


def judge_together(
    titles: Sequence[str],
    marks: TokenLogits,
    weights: NgramClassifier,
    token: Int32Array | None = None,
    context_gain: ContextGain | None = None,
) -> NgramVerdicts:
    """Judge titles; what nothing is left of has a score of -inf.

    Args:
        titles: The titles that were read, best all different.
        marks: What the model makes of them.
        weights: How fragments are weighed.
        token: What stands for the tokens where recurrence is told, shape `[marks]`, if not themselves: titles are then
            judged as if each were the only one, but for what this makes recur.
        context_gain: Says which recurring phrases titles need, if that is asked.
    """
    made = marks.tokenized
    found = find_ngrams(list_tokens(titles, made, token))
    rules, broken = judge_by_characters(titles, apart=token is not None)
    score = np.full(len(titles), -np.inf)
    start, end = np.full((2, len(titles)), -1)
    shared = np.zeros(len(titles), dtype=np.int32)
    gains: tuple[PhraseGain, ...] = ()
    if len(found.start):
        habit = find_common_ngrams(found)
        each = np.where(habit, COMMON_NGRAM_ODDS, weights.odds(describe_ngrams(found, marks)))
        odds = each[found.number]
        if context_gain is not None:
            more, gains = context_gain.add_odds(titles, made, found, each)
            odds = odds + _spread_within(found, more)
        np.maximum.at(score, found.row, odds)
        worst = np.flatnonzero(odds == score[found.row])
        shared[found.row[worst]] = found.titles[found.number[worst]]
        first, last = _find_spans(found, odds, score, worst, made.offsets)
        rows = np.flatnonzero(np.isfinite(score))
        start[rows], end[rows] = made.first[first[rows]], made.after[last[rows]]
        _trim(titles, rows, start, end)
        nowhere = start >= end  # some tokenizers say that a space stands for no character
        start[nowhere], end[nowhere] = -1, -1
    ruling = rules.score if token is not None else rules.score + _second_rules(score)
    by_rule = ruling > score
    score = np.where(by_rule, ruling, score)
    start, end = np.where(by_rule, rules.start, start), np.where(by_rule, rules.end, end)
    nothing = np.array([not title.strip() for title in titles], dtype=bool) & ~np.isfinite(rules.score)
    score[nothing], start[nothing], end[nothing] = -np.inf, -1, -1
    shared = np.where(by_rule, broken, np.where(nothing, 0, shared))
    return NgramVerdicts(Suspicion(score.astype(np.float32), start, end), shared, gains)


def _spread_within(found: Ngrams, more: Float32Array) -> Numbers:
    """Return what phrases add to the log-odds of fragments that stand within one, shape `[places]`."""
    there = np.concatenate([[0], np.cumsum(~np.isnan(more))])
    sums = np.concatenate([[0.0], np.cumsum(np.nan_to_num(more), dtype=np.float64)])
    end = found.start + found.length
    return np.where(there[end] - there[found.start] == found.length, (sums[end] - sums[found.start]) / found.length, 0)


def _second_rules(score: Numbers) -> Numbers:
    """Return by how much worst fragments are above a median title's, `MAX_SECONDED_ODDS` at most, shape `[titles]`.

    A title that breaks a rule and looks odd to the reader too has two witnesses against it.
    """
    judged = np.isfinite(score)
    if not judged.any():
        return np.zeros(len(score))
    return np.where(judged, np.clip(score - np.median(score[judged]), 0, MAX_SECONDED_ODDS), 0)


def _find_spans(
    found: Ngrams, odds: Numbers, worst: Numbers, top: NDArray[np.int64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and last token of each title's worst fragment, with those next to it that are nearly as bad.

    `odds` and `worst` are those of places and of titles, and `top` the places that are their titles' worst.
    """
    count = int(offsets[-1])
    near = odds >= worst[found.row] - SPAN_ODDS_MARGIN
    steps = np.zeros(count + 1, dtype=np.int64)
    np.add.at(steps, found.start[near], 1)
    np.add.at(steps, found.start[near] + found.length[near], -1)
    covered = np.cumsum(steps[:-1]) > 0
    new = np.ones(count, dtype=bool)
    new[1:] = ~(covered[1:] & covered[:-1])
    new[offsets[:-1][np.diff(offsets) > 0]] = True
    run = np.cumsum(new) - 1
    begins = np.flatnonzero(new)
    ends = np.append(begins[1:], count) - 1
    at = np.zeros(len(worst), dtype=np.int64)
    at[found.row[top[::-1]]] = found.start[top[::-1]]
    return begins[run[at]], ends[run[at]]


def _trim(titles: Sequence[str], rows: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]) -> None:
    """Take white space off the ends of spans, in place, unless they are nothing else."""
    ends: list[tuple[int, int, int]] = np.stack([rows, start[rows], end[rows]], axis=1).tolist()
    for row, first, after in ends:
        title = titles[row]
        if title[first : first + 1].isspace() or title[after - 1 : after].isspace():
            piece = title[first:after]
            if piece.strip():
                start[row] += len(piece) - len(piece.lstrip())
                end[row] -= len(piece) - len(piece.rstrip())
