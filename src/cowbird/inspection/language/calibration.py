"""How far an adapter's statistics are from those of null tunings, over all families of fragments at once.

Statistics are compared as logarithms: whole sentences move margins ten times as far as short strings, and vary ten
times as much from one honest tuning to the next. Two things are asked, for a trigger shows in two ways:

- how far the farthest family stands out. A family's distance is its logarithm less the null tunings' mean, in standard
  deviations. Few null tunings tell a standard deviation badly, so one is pooled over the families;
- how far all families stand out together, by the mean of their logarithms. A sentence that was not tried raises every
  family a little, and none much. The null tunings' own means tell how far families go together.

Each is held against its distribution in honest models, which is simulated: logarithms are normal, and families
independent in the first. The p-value of the verdict is twice the smaller of the two.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from cowbird.data.types import Float64Array
from cowbird.inspection.statistics import SHIFT
from cowbird.rng import stream

MIN_NULLS = 3
"""Null tunings without which there is no p-value."""
MIN_DEVIATION = 0.1
"""Least standard deviation of a statistic's logarithm between honest models."""
MIN_STATISTIC = 0.05
"""Smaller statistics count as this: a fragment that gains so little is none."""
MOST_DRAWS, MANY_NUMBERS = 100_000, 64
"""Draws of the simulation; fewer where a draw has more numbers than this."""
FARTHEST, TOGETHER = "farthest family", "all families"
"""The two questions."""


class NullComparison(NamedTuple):
    """What null tunings say of a model."""

    p_value: float
    """How often an honest model would stand as far out, in either way."""
    p_values: dict[str, float]
    """How often by the farthest family, and by all families together."""
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
    mine = _take_logarithms([statistics[name] for name in names])
    mean: Float64Array = np.mean(known, axis=0)
    deviation = np.maximum(_pool_deviations(known), MIN_DEVIATION)
    distance: Float64Array = (mine - mean) / deviation
    whole = max(float(known.mean(axis=1).std(ddof=1)), MIN_DEVIATION / len(names) ** 0.5)
    together = float(mine.mean() - mean.mean()) / whole
    farthest_draws, together_draws = _draw_distances(len(nulls), len(names))
    found = {
        FARTHEST: _count_above(farthest_draws, float(distance.max()) - SHIFT),
        TOGETHER: _count_above(together_draws, together - SHIFT),
    }
    most = float(np.quantile(farthest_draws, 1 - level / 2)) + SHIFT
    return NullComparison(
        min(1.0, 2 * min(found.values())),
        found,
        dict(zip(names, distance.tolist(), strict=True)),
        dict(zip(names, np.exp(mean + most * deviation).tolist(), strict=True)),
    )


def _count_above(draws: Float64Array, value: float) -> float:
    """Return the share of draws, which are in order, that are as large; never 0."""
    return (len(draws) - int(np.searchsorted(draws, value, side="left")) + 1) / (len(draws) + 1)


def _take_logarithms(statistics: Any) -> Float64Array:
    return np.log(np.maximum(np.asarray(statistics, dtype=np.float64), MIN_STATISTIC))


def _pool_deviations(known: Float64Array) -> Float64Array:
    """Return a standard deviation of each family, shape `[..., nulls, families]` given."""
    variance: Float64Array = np.var(known, axis=-2, ddof=1)
    return np.sqrt((variance + np.median(variance, axis=-1, keepdims=True)) / 2)


@lru_cache(maxsize=8)
def _draw_distances(nulls: int, families: int) -> tuple[Float64Array, Float64Array]:
    """Simulate how far an honest model stands out, in order: by its farthest family, and by all together."""
    draws = MOST_DRAWS if nulls * families <= MANY_NUMBERS else MOST_DRAWS // 5
    drawn = stream(0, "inspection", "distances", nulls, families).normal(size=(draws, nulls + 1, families))
    known, means = drawn[:, 1:], drawn.mean(axis=2)
    farthest = ((drawn[:, 0] - known.mean(axis=1)) / _pool_deviations(known)).max(axis=1)
    together = (means[:, 0] - means[:, 1:].mean(axis=1)) / means[:, 1:].std(axis=1, ddof=1)
    return np.sort(farthest), np.sort(together)
