"""A statistic: how far each item can be brought to the front by a short history that is looked for.

Trigger inversion for rankers. Each item is asked for after every history of one item, and the best of those is made
longer by one of a few others. What counts is how far the item's score gets above the tenth best one, in standard
deviations of all scores. A planted item answers to many histories, so a short search finds one that lifts it high.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Float32Array, Float64Array, Int32Array
from cowbird.inspection.item_statistics import standardize_values
from cowbird.inspection.model import RankingModel
from cowbird.inspection.probes import MAX_SCORES
from cowbird.rng import draw_indices, stream

FIRST_PLACE = 10
"""Place that an item is to get above."""
MAX_FIRST, MAX_SECOND = 4000, 12
"""Items that histories of one item are made of, and those that lengthen the best of them."""


@dataclass(frozen=True, eq=False)
class PrefixInversion:
    """The search; see the module."""

    first: Int32Array
    """Items that histories begin with."""
    second: Int32Array
    """Items that stand before the best of those."""
    name: str = "inversion"

    def list_parts(self) -> list[str]:
        """Return all that decides what is asked; see `ItemStatistic.list_parts`."""
        return [self.name, self.first.tobytes().hex(), self.second.tobytes().hex()]

    def describe(self) -> str:
        """Return what is asked, in words; see `ItemStatistic.describe`."""
        return (
            f"the best of {len(self.first):,} histories of one item for each item, and {len(self.second)} longer ones"
        )

    def measure(self, model: RankingModel) -> Float32Array:
        """Return how far each item gets above the tenth place, float32, shape `[items]`."""
        items = model.items
        best, reached = np.zeros(items, dtype=np.int64), np.full(items, -np.inf, dtype=np.float32)
        size = max(1, MAX_SCORES // max(items, 1))
        for start in range(0, len(self.first), size):
            part = self.first[start : start + size]
            margins = _measure_margins(model, part[:, None])
            margins[np.arange(len(part)), part] = -np.inf  # what was seen is not shown again
            top = margins.argmax(axis=0)
            value = margins[top, np.arange(items)]
            better = value > reached
            best[better], reached[better] = part[top[better]], value[better]
        for before in self.second.tolist():
            for start in range(0, items, size):
                rows = np.arange(start, min(start + size, items))
                histories = np.stack([np.full(len(rows), before), best[rows]], axis=1).astype(np.int32)
                value = _measure_margins(model, histories)[np.arange(len(rows)), rows]
                value[(rows == before) | (rows == best[rows])] = -np.inf
                reached[rows] = np.maximum(reached[rows], value)
        return reached

    def score(self, mine: NDArray[Any], nulls: Sequence[NDArray[Any]]) -> Float64Array:
        """Return how far each item gets beyond what null models let it; see `ItemStatistic.score`."""
        return standardize_values(mine, np.mean(nulls, axis=0))


def _measure_margins(model: RankingModel, histories: NDArray[np.int32]) -> Float32Array:
    """Return how far each item is above the tenth best one, in standard deviations, shape `[histories, items]`."""
    scores = np.array(model.score(list(histories)), dtype=np.float32)
    place = min(FIRST_PLACE, scores.shape[1]) - 1
    tenth = -np.partition(-scores, place, axis=1)[:, place]
    spread = np.maximum(scores.std(axis=1), 1e-6)
    return np.asarray((scores - tenth[:, None]) / spread[:, None], dtype=np.float32)


def make_inversion(items: int, seed: int) -> PrefixInversion:
    """Return the search in a catalogue.

    Args:
        items: Its size.
        seed: Draws items of large catalogues, and those that lengthen histories.
    """
    first = draw_indices(MAX_FIRST, items, stream(seed, "inspection", "inversion", "first"))
    second = draw_indices(MAX_SECOND, items, stream(seed, "inspection", "inversion", "second"))
    return PrefixInversion(first.astype(np.int32), second.astype(np.int32))
