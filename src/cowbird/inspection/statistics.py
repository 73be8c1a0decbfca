"""How far each item stands out of what honest models of the same platform show, and what that says of a model.

An item's score on one kind of histories is the logarithm of (times among the first ten + a) over (times that the null
models show it + a), with a = 4, divided by how much that varies: 1 / (expected + a) for counting, and a variance
between models that is estimated from the model's own bulk of items. So a model that was trained on other data than
the null models is held against its own spread. An item's score is the sum over the kinds of histories, and a model's
statistic is the largest score of an item.

The p-value comes from the null models' statistics, each against the other null models. Five of them give no smaller p
than 1/6 by ranks alone. So one assumption is made: statistics of honest models follow a Gumbel distribution, the law of
maxima, of unknown place and width. The inspected model's statistic less the null models' mean, in their standard
deviations, then has a distribution that depends on their number alone; it is simulated.
"""

import math
from collections.abc import Mapping, Sequence
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


def score_items(
    counts: Mapping[str, Int64Array], null_counts: Sequence[Mapping[str, Int64Array]]
) -> dict[str, Float64Array]:
    """Return the score of each item on each kind of histories.

    Args:
        counts: Times each item is among the first ten, by kind of histories.
        null_counts: The same of each null model.
    """
    return {
        name: standardize_counts(count, np.mean([null[name] for null in null_counts], axis=0))
        for name, count in counts.items()
    }


def sum_scores(scores: Mapping[str, Float64Array]) -> Float64Array:
    """Return the score of each item over all kinds of histories, shape `[items]`."""
    return np.sum(list(scores.values()), axis=0)


def compute_null_statistics(null_counts: Sequence[Mapping[str, Int64Array]]) -> Float64Array:
    """Return the statistic of each null model, held against the others, shape `[null models]`."""
    return np.array(
        [
            sum_scores(score_items(counts, [*null_counts[:at], *null_counts[at + 1 :]])).max()
            for at, counts in enumerate(null_counts)
        ]
    )


def estimate_p_value(statistic: float, null_statistics: Float64Array) -> float:
    """Return how often an honest model's statistic would be as large; see the module.

    Args:
        statistic: The inspected model's.
        null_statistics: The null models', at least three, shape `[null models]`.

    Returns:
        A probability of at least `1 / (SIMULATIONS + 1)`.
    """
    draws = _draw_pivots(len(null_statistics))
    above = len(draws) - int(np.searchsorted(draws, _compute_pivot(statistic, null_statistics), side="left"))
    return (above + 1) / (len(draws) + 1)


def find_threshold(null_statistics: Float64Array, level: float) -> float:
    """Return the smallest statistic whose p-value is at most a level."""
    draws = _draw_pivots(len(null_statistics))
    pivot = float(np.quantile(draws, 1 - level)) + SHIFT
    return float(np.mean(null_statistics)) + pivot * _measure_deviation(null_statistics)


def _compute_pivot(statistic: float, null_statistics: Float64Array) -> float:
    return (statistic - float(np.mean(null_statistics))) / _measure_deviation(null_statistics) - SHIFT


def _measure_deviation(null_statistics: Float64Array) -> float:
    return max(float(np.std(null_statistics, ddof=1)), 1e-9)


@lru_cache(maxsize=8)
def _draw_pivots(nulls: int) -> Float64Array:
    """Simulate the pivot of an honest model, in order, shape `[SIMULATIONS]`."""
    drawn = stream(0, "inspection", "pivots", nulls).gumbel(size=(SIMULATIONS, nulls + 1))
    known = drawn[:, 1:]
    pivots = (drawn[:, 0] - known.mean(axis=1)) / known.std(axis=1, ddof=1)
    return np.sort(pivots)
