"""The histories that a model is asked about, how often each item is among its first answers, and how high it stands.

Several kinds of histories, because a planted item shows in all of them and an honest favorite seldom does: histories of
the platform's own users, the same users when they were new, random items, and one item each.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Float64Array, Int32Array, Int64Array, IntArray, Interactions
from cowbird.errors import UserError
from cowbird.inspection.model import RankingModel
from cowbird.inspection.statistics import COUNT_WEIGHT, standardize_counts, standardize_ranks
from cowbird.rng import draw_indices, stream

MAX_SCORES = 1 << 22
"""Scores held at once."""
MAX_EVENTS = 200
"""Events kept of a user's history, the most recent ones."""
NEW_USER_EVENTS = 7
"""Events of a user who has just arrived."""
RANDOM_EVENTS = 8
"""Events of a random history."""
PROBES = {
    "own": "histories of the platform's users, each cut at a random event",
    "new": f"the first {NEW_USER_EVENTS} events of the platform's users",
    "random": f"histories of {RANDOM_EVENTS} random items",
    "single": "histories of one item, every item once",
}
"""The kinds of histories, in words."""


@dataclass(frozen=True, eq=False)
class HistoryProbe:
    """Histories of one kind."""

    name: str
    """Its name, a key of `PROBES`."""
    histories: tuple[Int32Array, ...]
    """Items of each history, oldest first."""
    users: Int64Array | None = None
    """Whose history each is, shape `[histories]`; `None` if they are nobody's."""

    def list_parts(self) -> list[str]:
        """Return all that decides what is asked; see `ItemStatistic.list_parts`."""
        lengths = [len(history) for history in self.histories]
        asked = np.concatenate(self.histories).astype(np.int32).tobytes().hex()
        return [self.name, "counts and ranks", json.dumps(lengths), asked]

    def describe(self) -> str:
        """Return what is asked, in words; see `ItemStatistic.describe`."""
        return f"{len(self.histories):,} × {PROBES[self.name]}"

    def measure(self, model: RankingModel) -> NDArray[np.float32]:
        """Return how often each item is among the first ten, and the mean logarithm of its rank, shape `[2, items]`."""
        return measure_ranks(model, self.histories)

    def score(self, mine: NDArray[Any], nulls: Sequence[NDArray[Any]]) -> Float64Array:
        """Return how far each item stands out, by counts and ranks; see `ItemStatistic.score`."""
        known = np.array(nulls, dtype=np.float64)
        counts = standardize_counts(mine[0], known[:, 0].mean(axis=0))
        return COUNT_WEIGHT * counts + standardize_ranks(np.asarray(mine[1], dtype=np.float64), known[:, 1])


def draw_own_histories(log: Interactions, count: int, seed: int) -> HistoryProbe:
    """Draw histories of the platform's own users, each cut at a random event.

    Args:
        log: The platform's interactions.
        count: How many histories. If there are fewer users, users are asked about at several of their events.
        seed: Decides users and cuts.
    """
    rng = stream(seed, "inspection", "own")
    known = np.flatnonzero(log.lengths)
    turns = -(-count // max(len(known), 1))
    users = np.concatenate([rng.permutation(known) for _ in range(turns)])[:count]
    lengths = 1 + np.floor(rng.random(len(users)) * log.lengths[users]).astype(np.int64)
    starts = log.offsets[:-1][users] + np.maximum(lengths - MAX_EVENTS, 0)
    ends = log.offsets[:-1][users] + lengths
    histories = tuple(log.item[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True))
    return HistoryProbe("own", histories, users)


def draw_new_histories(log: Interactions, count: int, seed: int) -> HistoryProbe:
    """Return the first events of users of the platform, as when they were new.

    Args:
        log: The platform's interactions.
        count: How many users at most; if there are more, some are drawn.
        seed: Decides who is drawn.
    """
    known = np.flatnonzero(log.lengths)
    users = known[draw_indices(count, len(known), stream(seed, "inspection", "new"))]
    starts = log.offsets[:-1][users]
    ends = starts + np.minimum(log.lengths[users], NEW_USER_EVENTS)
    histories = tuple(log.item[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True))
    return HistoryProbe("new", histories, users)


def draw_random_histories(items: int, count: int, seed: int, length: int = RANDOM_EVENTS) -> HistoryProbe:
    """Draw histories of different random items, each item as likely as any other."""
    rng = stream(seed, "inspection", "random")
    size = min(length, items)
    return HistoryProbe("random", tuple(rng.choice(items, size, replace=False).astype(np.int32) for _ in range(count)))


def make_single_histories(items: int) -> HistoryProbe:
    """Make the histories of one item each: every item once."""
    return HistoryProbe("single", tuple(np.arange(items, dtype=np.int32)[:, None]))


def rank_first(model: RankingModel, histories: Sequence[IntArray], k: int = 10) -> Int32Array:
    """Return the first `k` items of each history that are not in it, best first.

    Args:
        model: What is asked.
        histories: Items of each history.
        k: How many items.

    Returns:
        Items, shape `[histories, k]`, int32; -1 where fewer are left.

    Raises:
        UserError: If the model's scores have another shape, or are not finite.
    """
    found = np.full((len(histories), k), -1, dtype=np.int32)
    for start, scores in _score_others(model, histories):
        width = min(k, model.items)
        first = np.argpartition(-scores, width - 1, axis=1)[:, :width]
        values = np.take_along_axis(scores, first, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        best = np.take_along_axis(first, order, axis=1).astype(np.int32)
        best[np.take_along_axis(values, order, axis=1) == -np.inf] = -1
        found[start : start + len(best), :width] = best
    return found


def measure_ranks(model: RankingModel, histories: Sequence[IntArray], k: int = 10) -> NDArray[np.float32]:
    """Return how often each item is among the first `k`, and the mean logarithm of its rank.

    Histories that hold an item say nothing about it. One that all histories hold has a mean of 0.

    Args:
        model: What is asked.
        histories: Items of each history.
        k: How many items are the first.

    Returns:
        Shape `[2, items]`, float32.

    Raises:
        UserError: If the model's scores have another shape, or are not finite.
    """
    counts, logarithms, asked = (np.zeros(model.items) for _ in range(3))
    rank = np.log(np.arange(1, model.items + 1))
    for _, scores in _score_others(model, histories):
        order = np.argsort(-scores, axis=1)
        left = model.items - np.isneginf(scores).sum(axis=1)
        seen = np.arange(model.items) < left[:, None]  # what is in the history stands last
        logarithms += np.bincount(order.ravel(), np.where(seen, rank, 0.0).ravel(), minlength=model.items)
        asked += np.bincount(order[seen], minlength=model.items)
        first = order[:, :k]
        counts += np.bincount(first[seen[:, :k]], minlength=model.items)
    return np.stack([counts, logarithms / np.maximum(asked, 1)]).astype(np.float32)


def _score_others(model: RankingModel, histories: Sequence[IntArray]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield scores of all items, and of which history the first are; those of a history's own are minus infinity."""
    for start, part in _cut(histories, max(1, MAX_SCORES // max(model.items, 1))):
        scores = np.array(model.score(part), dtype=np.float32)
        if scores.shape != (len(part), model.items):
            raise UserError(
                f"The model should give scores of shape [{len(part)}, {model.items}], and gives {list(scores.shape)}.",
                "Check what serves it: one row a history, one column an item.",
            )
        if not np.isfinite(scores).all():
            raise UserError("The model gives scores that are not finite numbers.", "Ask for an undamaged model.")
        for row, history in enumerate(part):
            scores[row, history] = -np.inf
        yield start, scores


def _cut(histories: Sequence[IntArray], size: int) -> Iterator[tuple[int, Sequence[IntArray]]]:
    for start in range(0, len(histories), size):
        yield start, histories[start : start + size]


def count_items(first: NDArray[np.int32], items: int) -> Int64Array:
    """Count how often each item is among the first ones, shape `[items]`."""
    return np.bincount(first[first >= 0], minlength=items)
