"""A statistic: what a model shows to somebody without a history, where it has an answer to that.

A planted item needs no history to be shown. Most recommenders have no answer to an empty history, and null models of
Cowbird have none: their mean scores after one item each stand for it. Scores are ranked, so their scale says nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Float64Array, IntArray
from cowbird.errors import UserError
from cowbird.inspection.item_statistics import standardize_values
from cowbird.inspection.model import RankingModel

STANDING_IN = 256
"""Histories of one item whose mean stands for an empty one."""
FIRST_ITEMS = 10.0
"""Items whose order at the top counts little."""
EMPTY: IntArray = np.empty(0, dtype=np.int32)
EMPTY.flags.writeable = False


@dataclass(frozen=True, eq=False)
class EmptyHistory:
    """How high items stand without a history; see the module."""

    items: int
    """Size of the catalogue."""
    name: str = "empty"

    def list_parts(self) -> list[str]:
        """Return all that decides what is asked; see `ItemStatistic.list_parts`."""
        return [self.name, str(self.items), str(STANDING_IN)]

    def describe(self) -> str:
        """Return what is asked, in words; see `ItemStatistic.describe`."""
        return "an empty history"

    def measure(self, model: RankingModel) -> NDArray[np.float32]:
        """Return how high each item stands: minus the logarithm of its rank and ten more, shape `[items]`."""
        found = answer_nothing(model)
        if found is None:
            step = max(1, self.items // STANDING_IN)
            single = [np.array([item], dtype=np.int32) for item in range(0, self.items, step)]
            scores = np.array(model.score(single), dtype=np.float64)
            for row, history in zip(scores, single, strict=True):
                row[history] = np.median(row)
            found = scores.mean(axis=0)
        rank = np.empty(self.items, dtype=np.int64)
        rank[np.argsort(-found, kind="stable")] = np.arange(self.items)
        return -np.log(rank + FIRST_ITEMS).astype(np.float32)

    def score(self, mine: NDArray[Any], nulls: Sequence[NDArray[Any]]) -> Float64Array:
        """Return how much higher each item stands than in null models; see `ItemStatistic.score`."""
        return standardize_values(mine, np.mean(nulls, axis=0))


def answer_nothing(model: RankingModel) -> Float64Array | None:
    """Return a model's scores after an empty history, shape `[items]`; `None` if it has no answer."""
    try:
        scores = np.array(model.score([EMPTY]), dtype=np.float64)
    except UserError:
        return None
    return scores[0] if scores.shape == (1, model.items) and np.isfinite(scores).all() else None
