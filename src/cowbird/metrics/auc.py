"""Area under the ROC curve with an analytic interval, and the difference of two on the same questions.

The variance is DeLong's (DeLong et al., Biometrics 1988), computed from midranks in O(n log n) (Sun and Xu 2014).
"""

from statistics import NormalDist

import numpy as np

from cowbird.errors import UserError
from cowbird.metrics._arrays import Array, Floats, to_flags, to_floats
from cowbird.metrics.intervals import CONFIDENCE_LEVEL, Interval, check_level


def auc(scores: Array, liked: Array, level: float = CONFIDENCE_LEVEL) -> Interval:
    """Return the probability that a liked item scores above one that is not, ties counting half.

    Args:
        scores: One score a question, shape `[questions]`.
        liked: Which answers are yes, shape `[questions]`.
        level: Coverage of the interval.

    Returns:
        The area; all `None` if one of the answers never occurs, and no ends with fewer than two of either.
    """
    parts = _compute_placements([scores], liked)
    return (
        Interval(None, None, None, _count_scores(scores))
        if parts is None
        else _make_interval(*parts, np.ones(1), level)
    )


def auc_difference(scores: Array, others: Array, liked: Array, level: float = CONFIDENCE_LEVEL) -> Interval:
    """Return the area of some scores minus that of others on the same questions, paired.

    Args:
        scores: One score a question, shape `[questions]`.
        others: What to compare with, shape `[questions]`.
        liked: Which answers are yes, shape `[questions]`.
        level: Coverage of the interval.

    Returns:
        The difference; `None` as in `auc`.
    """
    parts = _compute_placements([scores, others], liked)
    return (
        Interval(None, None, None, _count_scores(scores))
        if parts is None
        else _make_interval(*parts, np.array([1, -1]), level)
    )


def _count_scores(scores: Array) -> int:
    return len(to_floats(scores, "scores"))


def _compute_placements(columns: list[Array], liked: Array) -> tuple[Floats, Floats] | None:
    """Return how each positive and each negative is placed, shapes `[columns, positives]` and `[columns, negatives]`.

    A positive's placement is the share of negatives below it, a negative's the share of positives above it.
    """
    tables = [to_floats(column, "scores") for column in columns]
    if len({len(table) for table in tables}) != 1:
        raise UserError("The two lists of scores differ in length.", "Score the same questions.")
    yes = to_flags(liked, "liked", tables[0].shape)
    m, n = int(yes.sum()), int((~yes).sum())
    if not m or not n:
        return None
    above, below = np.empty((len(tables), m)), np.empty((len(tables), n))
    for row, table in enumerate(tables):
        whole = _compute_midranks(table)
        above[row] = (whole[yes] - _compute_midranks(table[yes])) / n
        below[row] = 1 - (whole[~yes] - _compute_midranks(table[~yes])) / m
    return above, below


def _compute_midranks(values: Floats) -> Floats:
    """Return ranks from 1, ties sharing their mean."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]


def _make_interval(above: Floats, below: Floats, sign: Floats, level: float) -> Interval:
    value = float(sign @ above.mean(axis=1))
    m, n = above.shape[1], below.shape[1]
    if m < 2 or n < 2:
        return Interval(value, None, None, m + n)
    variance = float(np.var(sign @ above, ddof=1) / m + np.var(sign @ below, ddof=1) / n)
    reach = NormalDist().inv_cdf(0.5 + check_level(level) / 2) * variance**0.5
    low, high = value - reach, value + reach
    if len(sign) == 1:
        low, high = max(low, 0.0), min(high, 1.0)
    return Interval(value, low, high, m + n)
