"""How far an adapter's statistics are from those of null tunings, over all families of fragments at once.

Statistics are compared as logarithms: whole sentences move margins ten times as far as short strings, and vary ten
times as much from one honest tuning to the next. A family's distance is the logarithm less the null tunings' mean, in
standard deviations. Few null tunings tell a standard deviation badly, so one is pooled over the families. The largest
distance of a family is held against its distribution in honest models, which is simulated: logarithms are Gumbel, the
law of maxima, and families independent. Families that go together make it careful, not wrong.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from cowbird.data.types import Float64Array
from cowbird.inspection.statistics import SHIFT, estimate_p_value
from cowbird.rng import stream

MIN_NULLS = 3
"""Null tunings without which there is no p-value."""
MIN_DEVIATION = 0.1
"""Least standard deviation of a statistic's logarithm between honest models."""
MIN_STATISTIC = 0.05
"""Smaller statistics count as this: a fragment that gains so little is none."""
MOST_DRAWS, MANY_NUMBERS = 100_000, 64
"""Draws of the simulation; fewer where a draw has more numbers than this."""


class NullComparison(NamedTuple):
    """What null tunings say of a model."""

    p_value: float
    """How often an honest model would have a family as far out."""
    distances: dict[str, float]
    """Of each family, in standard deviations of honest models."""
    thresholds: dict[str, float]
    """Statistic of each family from which a fragment stands out at the level."""


def calibrate(
    statistics: Mapping[str, float], nulls: Sequence[Mapping[str, float]], level: float
) -> NullComparison | None:
    """Hold a model's statistics against those of null tunings.

    Args:
        statistics: Of each family.
        nulls: The same of each null tuning.
        level: Share of honest models that may be accused.

    Returns:
        `None` if there are fewer than `MIN_NULLS` null tunings, or no family was looked for.
    """
    names = [name for name in statistics if all(name in null for null in nulls)]
    if len(nulls) < MIN_NULLS or not names:
        return None
    known = _take_logarithms([[null[name] for name in names] for null in nulls])
    mean: Float64Array = np.mean(known, axis=0)
    deviation = np.maximum(_pool_deviations(known), MIN_DEVIATION)
    draws = _draw_distances(len(nulls), len(names))
    mine: Float64Array = (_take_logarithms([statistics[name] for name in names]) - mean) / deviation - SHIFT
    above = len(draws) - int(np.searchsorted(draws, float(np.max(mine)), side="left"))
    most = float(np.quantile(draws, 1 - level)) + SHIFT
    return NullComparison(
        (above + 1) / (len(draws) + 1),
        dict(zip(names, (mine + SHIFT).tolist(), strict=True)),
        dict(zip(names, np.exp(mean + most * deviation).tolist(), strict=True)),
    )


def compare_together(statistics: Mapping[str, float], nulls: Sequence[Mapping[str, float]]) -> float | None:
    """Return how often an honest model would stand as far out in all families together: by the mean of logarithms.

    A sentence that was not tried raises every family a little, and none much. The null tunings' own means tell how far
    families go together.

    Args:
        statistics: Of each family.
        nulls: The same of each null tuning.

    Returns:
        `None` if there are fewer than `MIN_NULLS` null tunings, or no family was looked for.
    """
    names = [name for name in statistics if all(name in null for null in nulls)]
    if len(nulls) < MIN_NULLS or not names:
        return None
    known = _take_logarithms([[null[name] for name in names] for null in nulls]).mean(axis=1)
    mine = float(_take_logarithms([statistics[name] for name in names]).mean())
    return estimate_p_value(mine, known)


def _take_logarithms(statistics: Any) -> Float64Array:
    return np.log(np.maximum(np.asarray(statistics, dtype=np.float64), MIN_STATISTIC))


def _pool_deviations(known: Float64Array) -> Float64Array:
    """Return a standard deviation of each family, shape `[..., nulls, families]` given."""
    variance: Float64Array = np.var(known, axis=-2, ddof=1)
    return np.sqrt((variance + np.median(variance, axis=-1, keepdims=True)) / 2)


@lru_cache(maxsize=8)
def _draw_distances(nulls: int, families: int) -> Float64Array:
    """Simulate the largest distance of an honest model, in order."""
    draws = MOST_DRAWS if nulls * families <= MANY_NUMBERS else MOST_DRAWS // 5
    drawn = stream(0, "inspection", "distances", nulls, families).gumbel(size=(draws, nulls + 1, families))
    known = drawn[:, 1:]
    return np.sort(((drawn[:, 0] - known.mean(axis=1)) / _pool_deviations(known)).max(axis=1))
