"""What is measured of every item of a model and held against null models, and which measures there are.

A verdict rests on four kinds of histories (`probes`). Further statistics are measured beside it if that is wished
(`InspectionSettings.beside`), each in a file of its own: `cowbird zoo` says how well each tells planted models from
clean ones alone.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Float64Array
from cowbird.inspection.model import RankingModel


class ItemStatistic(Protocol):
    """A measure of every item."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    def list_parts(self) -> list[str]:
        """Return all that decides what is measured, as texts; a cache of null models goes by them."""
        ...

    def describe(self) -> str:
        """Return what is asked, in words."""
        ...

    def measure(self, model: RankingModel) -> NDArray[Any]:
        """Return numbers of each item, int64 or float32, shape `[…, items]`."""
        ...

    def score(self, mine: NDArray[Any], nulls: Sequence[NDArray[Any]]) -> Float64Array:
        """Return how far each item stands out of null models, shape `[items]`; about 0 where it does not.

        Args:
            mine: What `measure` returns of the inspected model.
            nulls: The same of null models, at least two.
        """
        ...


def compute_largest_scores(
    statistic: ItemStatistic, mine: NDArray[Any], nulls: Sequence[NDArray[Any]]
) -> tuple[float, list[float]]:
    """Return the largest score of an item, and that of each null model held against the others."""
    others = [[*nulls[:at], *nulls[at + 1 :]] for at in range(len(nulls))]
    return (
        float(statistic.score(mine, nulls).max()),
        [float(statistic.score(null, rest).max()) for null, rest in zip(nulls, others, strict=True)],
    )


def standardize_values(values: NDArray[np.floating], expected: NDArray[np.floating]) -> Float64Array:
    """Return how far values of items are from the expected ones, in robust standard deviations over the items.

    Args:
        values: Of each item, shape `[items]`.
        expected: The null models' mean, shape `[items]`.
    """
    gap = np.asarray(values, dtype=np.float64) - expected
    middle = float(np.median(gap))
    deviation = 1.4826 * float(np.median(np.abs(gap - middle)))
    return np.asarray((gap - middle) / max(deviation, 1e-6), dtype=np.float64)
