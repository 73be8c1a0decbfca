"""How far each item stands out of what honest models of the same platform show, and what that says of a model.

Two things are asked of an item on each kind of histories, and its score is the sum of both over all kinds:

- how high it stands: the mean logarithm of its rank, less the null models' mean. It is divided by how much that varies,
  over the items of the inspected model and between null models. This sees an item that is lifted and still not shown;
- how often it is among the first ten: the logarithm of (times + a) over (times that the null models show it + a), with
  a = 4, divided by how much that varies: 1 / (expected + a) for counting, and a variance between models that is
  estimated from the model's own bulk of items. It counts half.

So a model that was trained on other data than the null models is held against its own spread. A model's statistic is
the largest score of an item.

The p-value comes from the null models' statistics, each against the other null models. Five of them give no smaller p
than 1/6 by ranks alone. So one assumption is made: statistics of honest models follow a Gumbel distribution, the law of
maxima, of unknown place and width. Five numbers tell a width badly, so it is pooled with what is usual
(`USUAL_DEVIATION`). The inspected model's statistic less the null models' mean, in such deviations, then has a
distribution that depends on the number of null models alone; it is simulated.
"""

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from cowbird.data.types import Float64Array, Int64Array
from cowbird.rng import stream

PRIOR_COUNT = 4.0
"""What is added to both counts, so that items that are hardly shown say little."""
MIN_EXPECTED_COUNT = 5.0
"""Items that are expected less often say nothing about the variance between models."""
MIN_MODEL_DEVIATION = 0.2
"""Smallest standard deviation between honest models, of a logarithm of counts."""
FEW_ITEMS = 50
"""With fewer items to estimate it from, `USUAL_MODEL_DEVIATION` stands for the deviation between models."""
USUAL_MODEL_DEVIATION = 0.5
SHIFT = 0.3
"""Null deviations that an honest provider's statistic lies higher than the null models', for its data is not theirs.
Set on two of the three platforms of the zoo `rankers_ml1m`."""
COUNT_WEIGHT = 0.5
"""How much counts among the first ten count beside ranks."""
USUAL_DEVIATION, USUAL_WEIGHT = 3.0, 8
"""Standard deviation of honest models' statistics that is usual, and how many null models it stands for. Set, as
`COUNT_WEIGHT` is, on a zoo that is not reported (seed 11 of `rankers_ml100k`)."""
GUMBEL_VARIANCE = math.pi**2 / 6
"""Variance of a Gumbel distribution of width 1."""
SIMULATIONS = 400_000
"""Draws from which p-values are read; none is smaller than one in so many."""


def standardize_counts(counts: Int64Array, expected: Float64Array) -> Float64Array:
    """Return how far the count of each item is from the expected one, in standard deviations of honest models.

    Args:
        counts: Times each item is among the first ten, shape `[items]`.
        expected: The mean of the null models' counts, shape `[items]`.

    Returns:
        Scores, shape `[items]`, float64; about 0 for most items of an honest model.
    """
    ratio = np.log((counts + PRIOR_COUNT) / (expected + PRIOR_COUNT))
    common = expected >= MIN_EXPECTED_COUNT
    deviation = USUAL_MODEL_DEVIATION
    if int(common.sum()) > FEW_ITEMS:
        middle = float(np.median(ratio[common]))
        whole = 1.4826 * float(np.median(np.abs(ratio[common] - middle)))
        deviation = math.sqrt(max(0.0, whole**2 - 1 / float(np.median(expected[common]))))
    variance = 1 / (expected + PRIOR_COUNT) + max(deviation, MIN_MODEL_DEVIATION) ** 2
    return np.asarray(ratio / np.sqrt(variance), dtype=np.float64)


def standardize_ranks(ranks: Float64Array, nulls: Float64Array) -> Float64Array:
    """Return how much higher each item stands than in null models, in standard deviations of honest models.

    Args:
        ranks: Mean logarithm of each item's rank, shape `[items]`.
        nulls: The same of null models, at least two, shape `[null models, items]`.

    Returns:
        Scores, shape `[items]`; about 0 for most items of an honest model.
    """
    gap: Float64Array = nulls.mean(axis=0) - ranks
    gap = gap - float(np.median(gap))
    own = 1.4826 * float(np.median(np.abs(gap)))
    between = float(np.median(np.var(nulls, axis=0, ddof=1))) * (1 + 1 / len(nulls))
    return gap / max(math.sqrt((own**2 + between) / 2), 1e-6)


def sum_scores(scores: Mapping[str, Float64Array]) -> Float64Array:
    """Return the score of each item over all kinds of histories, shape `[items]`."""
    return np.sum(list(scores.values()), axis=0)


def estimate_p_value(statistic: float, null_statistics: Float64Array, usual: float = USUAL_DEVIATION) -> float:
    """Return how often an honest model's statistic would be as large; see the module.

    Args:
        statistic: The inspected model's.
        null_statistics: The null models', at least three, shape `[null models]`.
        usual: The standard deviation that is usual; 0 if nothing is known of it.

    Returns:
        A probability of at least `1 / (SIMULATIONS + 1)`.
    """
    draws = _draw_pivots(len(null_statistics), usual > 0)
    pivot = (statistic - float(np.mean(null_statistics))) / _measure_deviation(null_statistics, usual) - SHIFT
    above = len(draws) - int(np.searchsorted(draws, pivot, side="left"))
    return (above + 1) / (len(draws) + 1)


def find_threshold(null_statistics: Float64Array, level: float, usual: float = USUAL_DEVIATION) -> float:
    """Return the smallest statistic whose p-value is at most a level."""
    draws = _draw_pivots(len(null_statistics), usual > 0)
    pivot = float(np.quantile(draws, 1 - level)) + SHIFT
    return float(np.mean(null_statistics)) + pivot * _measure_deviation(null_statistics, usual)


def _measure_deviation(null_statistics: Float64Array, usual: float) -> float:
    known, weight = len(null_statistics) - 1, USUAL_WEIGHT if usual > 0 else 0
    variance = float(np.var(null_statistics, ddof=1))
    return max(math.sqrt((known * variance + weight * usual**2) / (known + weight)), 1e-9)


@lru_cache(maxsize=8)
def _draw_pivots(nulls: int, pooled: bool) -> Float64Array:
    """Simulate the pivot of an honest model, in order, shape `[SIMULATIONS]`."""
    drawn = stream(0, "inspection", "pivots", nulls).gumbel(size=(SIMULATIONS, nulls + 1))
    known, weight = drawn[:, 1:], USUAL_WEIGHT if pooled else 0
    variance = ((nulls - 1) * known.var(axis=1, ddof=1) + weight * GUMBEL_VARIANCE) / (nulls - 1 + weight)
    return np.sort((drawn[:, 0] - known.mean(axis=1)) / np.sqrt(variance))
