"""From marks to a verdict: what a model says of a fragment, what the catalogue says of it, and what its characters say.

A logistic model weighs, for every fragment, the mean of its marks in all titles that hold it against how often it
recurs, how unlikely its tokens stand together by chance, and whether it keeps to one end. It learns on plantings of the
agent's triggers in the catalogue itself, so it holds for titles as they are there. Phrases that their titles do not
need are raised above what the model says, and those that they do are lowered (`company`). A title is as suspicious as
its worst fragment, or as the worst rule for characters that it breaks. What a catalogue does by habit is no trigger
(`habits`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from cowbird.data.types import Float32Array, Int32Array
from cowbird.defenses.p_scanner.company import Company, Gain
from cowbird.defenses.p_scanner.fragments import Fragments, Numbers, fragments
from cowbird.defenses.p_scanner.habits import habitual, ruled, texts
from cowbird.defenses.p_scanner.reader import Marks
from cowbird.defenses.titles import Suspicion

RECURS = 3
"""Titles that hold a fragment from which it recurs."""
HABIT_ODDS = -20.0
"""Log-odds of a habit of the catalogue."""
SPAN_ODDS_MARGIN = 1.5
"""Log-odds below a title's worst fragment from which others next to it belong to the same span."""
SECONDED = 1.0
"""Log-odds that fragments add to those of a broken rule, at most."""
RIDGE = 1e-2
STEPS = 40
FAMILIAR, FAINTEST = 3, 0.3
"""Of so many triggers that the weighing learns from, one keeps the marks of a reader that knows it; others keep at
least this share of what sets their marks apart."""
SINGLES = 1500
"""Fragments of one or two titles that a planting teaches as clean."""
_NAMES = ("mark", "often", "mark x often", "together", "together x often", "edge", "edge x often", "recurs")
NAMES = (*_NAMES, "mark x recurs", "length", "mark x length")
"""What is known of a fragment."""


def described(found: Fragments, marks: Marks) -> Numbers:
    """Return what is known of each fragment, shape `[fragments, len(NAMES)]`."""
    mark, often, length = found.means(marks.mark), np.log(found.titles), np.log(found.pieces)
    recurs = (found.titles >= RECURS).astype(np.float64)
    together, edge = recurs * found.together, recurs * found.edge
    columns: list[Numbers] = [mark, often, mark * often, together, together * often, edge, edge * often, recurs]
    columns += [mark * recurs, length, mark * length]
    return np.stack(columns, axis=1)


MAX_EVIDENCE_NUMBER = 1e6
"""Largest number of a logistic model of fragments; those of fits have one or two digits."""


class EvidenceWeights(BaseModel):
    """A logistic model of fragments."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    center: tuple[float, ...]
    """Mean of each column of `described`, weighted."""
    scale: tuple[float, ...]
    """Its spread."""
    weight: tuple[float, ...]
    """Weight of each column, centered and scaled."""
    offset: float
    """Log-odds at the center."""

    @model_validator(mode="after")
    def _fits(self) -> "EvidenceWeights":
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


def weighed(described: Numbers, planted: NDArray[np.bool_], share: Numbers) -> EvidenceWeights:
    """Fit a logistic model by Newton's method, with a small ridge.

    Args:
        described: See `described`, shape `[fragments, columns]`.
        planted: Which fragments are triggers, shape `[fragments]`.
        share: How much each counts, shape `[fragments]`.
    """
    total = float(share.sum())
    center: Numbers = share @ described / total
    scale: Numbers = np.sqrt(share @ (described - center) ** 2 / total) + 1e-6
    columns: Numbers = np.column_stack([(described - center) / scale, np.ones(len(described))])
    ridge: Numbers = RIDGE * total * np.array([1.0] * described.shape[1] + [1e-6])
    weight = np.zeros_like(ridge)
    for _ in range(STEPS):
        change = _change(columns, planted, share, ridge, weight)
        np.subtract(weight, change, out=weight)
        if np.abs(change).max() < 1e-8:
            break
    known: list[list[float]] = [center.tolist(), scale.tolist(), weight.tolist()]
    return EvidenceWeights(
        center=tuple(known[0]), scale=tuple(known[1]), weight=tuple(known[2][:-1]), offset=known[2][-1]
    )


def _change(columns: Numbers, planted: NDArray[np.bool_], share: Numbers, ridge: Numbers, weight: Numbers) -> Numbers:
    """Return one step of Newton's method, to be subtracted."""
    chance: Numbers = 1 / (1 + np.exp(-np.clip(columns @ weight, -30, 30)))
    slope: Numbers = columns.T @ (share * (chance - planted)) + ridge * weight
    bend: Numbers = (columns * (share * chance * (1 - chance))[:, None]).T @ columns + np.diag(ridge)
    return np.linalg.solve(bend, slope).astype(np.float64)


def faded(marks: Marks, trigger: Int32Array, rng: np.random.Generator) -> Marks:
    """Return marks as a reader would make them that was taught some triggers less, or not at all.

    The reader knows what it was tuned on, and an attacker's trigger is of none of it. A weighing that learned from
    familiar triggers alone would trust marks too much, and what recurs too little. So the marks of each trigger go a
    share of the way, drawn for each, to marks of clean tokens, but for one in `FAMILIAR`, whose marks stay.

    Args:
        marks: What the reader makes of a catalogue with plantings.
        trigger: Which trigger each token is part of, -1 for none, shape `[marks]`.
        rng: Draws shares and clean marks.
    """
    clean = marks.mark[trigger < 0]
    if not len(clean):
        return marks
    kept = FAINTEST + (1 - FAINTEST) * rng.random(int(trigger.max(initial=-1)) + 1)
    kept[rng.random(len(kept)) < 1 / FAMILIAR] = 1.0
    share = np.where(trigger >= 0, kept[np.maximum(trigger, 0)] if len(kept) else 1.0, 1.0)
    mark = share * marks.mark + (1 - share) * rng.choice(clean, len(marks.mark))
    return Marks(marks.pages, mark.astype(np.float32), marks.verdict)


def taught(
    found: Fragments, marks: Marks, inside: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Numbers, NDArray[np.bool_], Numbers]:
    """Return what one catalogue with plantings teaches.

    Args:
        found: Its fragments.
        marks: Its marks.
        inside: Which of its tokens are part of a planted trigger, shape `[marks]`.
        rng: Draws which rare fragments are learned from.

    Returns:
        The arguments of `weighed`.
    """
    sums = np.concatenate([[0], np.cumsum(inside)])
    within = sums[found.start + found.length] - sums[found.start] == found.length
    share = np.bincount(found.number, within) / np.bincount(found.number)
    telling = ~habitual(found)  # a habit is not judged, so it teaches nothing
    planted = np.flatnonzero(telling & (share > 0.8))
    clean = np.flatnonzero(telling & (share < 0.2))
    rare = clean[found.titles[clean] < RECURS]
    rare = rng.choice(rare, min(SINGLES, len(rare)), replace=False) if len(rare) else rare
    chosen = np.concatenate([planted, clean[found.titles[clean] >= RECURS], rare])
    learned = np.arange(len(chosen)) < len(planted)
    clean_count = len(chosen) - len(planted)
    weight = np.where(learned, clean_count / max(1, len(planted)) / 4, 1.0)
    return described(found, marks)[chosen], learned, weight


class Judged(NamedTuple):
    """What is made of some titles."""

    found: Suspicion
    """The verdicts."""
    shared: Int32Array
    """How many titles share what each was judged by, shape `[titles]`; 0 if that is nothing."""
    gains: tuple[Gain, ...]
    """What recurring phrases gain, if that was asked."""


def judged_apart(marks: Marks, titles: Sequence[str], weights: EvidenceWeights) -> Suspicion:
    """Judge titles as if each were the only one; see `judged`."""
    # Tokens that are all different recur nowhere.
    return judged(titles, marks, weights, np.arange(len(marks.pages.token), dtype=np.int32))


def judged(
    titles: Sequence[str],
    marks: Marks,
    weights: EvidenceWeights,
    token: Int32Array | None = None,
    company: Company | None = None,
) -> Suspicion:
    """Judge titles; see `judged_together`."""
    return judged_together(titles, marks, weights, token, company).found


def judged_together(
    titles: Sequence[str],
    marks: Marks,
    weights: EvidenceWeights,
    token: Int32Array | None = None,
    company: Company | None = None,
) -> Judged:
    """Judge titles; what nothing is left of has a score of -inf.

    Args:
        titles: The titles that were read, best all different.
        marks: What the model makes of them.
        weights: How fragments are weighed.
        token: What stands for the tokens where recurrence is told, shape `[marks]`, if not themselves: titles are then
            judged as if each were the only one, but for what this makes recur.
        company: Says which recurring phrases titles need, if that is asked.
    """
    made = marks.pages
    found = fragments(texts(titles, made, token))
    rules, broken = ruled(titles, apart=token is not None)
    score = np.full(len(titles), -np.inf)
    start, end = np.full((2, len(titles)), -1)
    shared = np.zeros(len(titles), dtype=np.int32)
    gains: tuple[Gain, ...] = ()
    if len(found.start):
        habit = habitual(found)
        each = np.where(habit, HABIT_ODDS, weights.odds(described(found, marks)))
        odds = each[found.number]
        if company is not None:
            more, gains = company.added(titles, made, found, each)
            odds = odds + _within(found, more)
        np.maximum.at(score, found.row, odds)
        worst = np.flatnonzero(odds == score[found.row])
        shared[found.row[worst]] = found.titles[found.number[worst]]
        first, last = _spans(found, odds, score, worst, made.offsets)
        rows = np.flatnonzero(np.isfinite(score))
        start[rows], end[rows] = made.first[first[rows]], made.after[last[rows]]
        _trim(titles, rows, start, end)
        nowhere = start >= end  # some tokenizers say that a space stands for no character
        start[nowhere], end[nowhere] = -1, -1
    ruling = rules.score if token is not None else rules.score + _seconded(score)
    by_rule = ruling > score
    score = np.where(by_rule, ruling, score)
    start, end = np.where(by_rule, rules.start, start), np.where(by_rule, rules.end, end)
    nothing = np.array([not title.strip() for title in titles], dtype=bool) & ~np.isfinite(rules.score)
    score[nothing], start[nothing], end[nothing] = -np.inf, -1, -1
    shared = np.where(by_rule, broken, np.where(nothing, 0, shared))
    return Judged(Suspicion(score.astype(np.float32), start, end), shared, gains)


def _within(found: Fragments, more: Float32Array) -> Numbers:
    """Return what phrases add to the log-odds of fragments that stand within one, shape `[places]`."""
    there = np.concatenate([[0], np.cumsum(~np.isnan(more))])
    sums = np.concatenate([[0.0], np.cumsum(np.nan_to_num(more), dtype=np.float64)])
    end = found.start + found.length
    return np.where(there[end] - there[found.start] == found.length, (sums[end] - sums[found.start]) / found.length, 0)


def _seconded(score: Numbers) -> Numbers:
    """Return by how much titles' worst fragments are above a median title's, `SECONDED` at most, shape `[titles]`.

    A title that breaks a rule and looks odd to the reader too has two witnesses against it.
    """
    judged = np.isfinite(score)
    if not judged.any():
        return np.zeros(len(score))
    return np.where(judged, np.clip(score - np.median(score[judged]), 0, SECONDED), 0)


def _spans(
    found: Fragments, odds: Numbers, worst: Numbers, top: NDArray[np.int64], offsets: NDArray[np.int64]
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
