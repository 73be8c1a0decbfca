"""Recommenders that rank the whole catalogue: the kind of victim that pre-training attacks aim at."""

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cowbird.data.split import Queries
from cowbird.data.types import IntArray, Interactions, TrainingData, Users
from cowbird.errors import UserError
from cowbird.victims.fit_context import FitContext
from cowbird.victims.model import FittedModel, Victim

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_HELD_SCORES = {"cpu": 1 << 21, "cuda": 1 << 28}
"""Scores held at once while ranking: about the last-level cache of a small CPU; a gigabyte on a GPU."""


class Prompt(BaseModel):
    """Soft prompts made from user profiles, put before a user's sequence (APRec; Wu et al. 2022 call them PPR)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    attributes: tuple[str, ...] = ()
    """Profile attributes the prompts are made from; if empty, every attribute with at most 100 values."""
    length: int = Field(default=1, ge=1)
    """Prompt vectors a layer."""


class FittedRecommender(FittedModel):
    """A trained recommender over a catalogue of `items` items, with its scores made on `device`."""

    items: int
    device: "torch.device"

    @abstractmethod
    def score(self, history: Interactions, users: Users | None = None) -> "Tensor":
        """Score every item for every user of a batch.

        Args:
            history: What each user has done so far, at least one event each.
            users: Their profiles, one row a history; ignored by models that read none.

        Returns:
            Scores, shape `[users, items]`, float32, on `device`. The tensor is the caller's to change.

        Raises:
            UserError: If a history is empty, or the model reads profiles and none are given.
        """

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the model as one safetensors file with its spec in the header, replacing `path` atomically."""

    @property
    def prompt(self) -> Prompt | None:
        """What the model's prompts are; `None` if it has none."""
        return None

    def without_prompts(self) -> "FittedRecommender":
        """Return the model without its prompts; itself if it has none."""
        return self

    def forget(self, items: IntArray, generator: "torch.Generator") -> "FittedRecommender":
        """Return the model as it meets items that it was not trained on, in place of some that it was.

        Args:
            items: Items that the platform does not have; new ones stand in their places, shape `[m]`.
            generator: Where the new items' embeddings are drawn, on the CPU.

        Raises:
            UserError: If this kind of model can't take up new items.
        """
        raise UserError(f"A {type(self).__name__} can't take up new items.", "Leave item_overlap at 1 for this victim.")

    def _score_batches(
        self, history: Interactions, users: Users | None
    ) -> "Iterator[tuple[slice, Tensor, tuple[Tensor, Tensor]]]":
        import torch  # noqa: PLC0415

        size = max(16, MAX_HELD_SCORES.get(self.device.type, 1 << 24) // max(self.items, 1))
        for start in range(0, history.users, size):
            rows = slice(start, min(start + size, history.users))
            index = np.arange(rows.start, rows.stop)
            part = history.select(index)
            seen = torch.from_numpy(part.user_of_event()), torch.from_numpy(part.item.astype(np.int64))
            yield rows, self.score(part, None if users is None else users.take(index)), seen

    def rank_targets(self, queries: Queries) -> NDArray[np.int64]:
        """Rank each query's target in the whole catalogue, seen items excluded, ties against it.

        Returns:
            1-based ranks, shape `[queries]`.
        """
        from cowbird.metrics.ranking import ranks  # noqa: PLC0415

        found = np.empty(queries.history.users, dtype=np.int64)
        for rows, scores, seen in self._score_batches(queries.history, queries.users):
            found[rows] = ranks(scores, queries.target[rows], seen).cpu().numpy()
        return found

    def rank_items(
        self, history: Interactions, items: IntArray, k_max: int = 50, users: Users | None = None
    ) -> NDArray[np.int32]:
        """Rank the same items for every user, seen items excluded, ties against them.

        Args:
            history: What each user has done so far.
            items: Items to rank, shape `[m]`.
            k_max: Ranks are exact up to here and `k_max + 1` beyond; a seen item has `k_max + 1`.
            users: Profiles, for models that read them.

        Returns:
            Ranks, shape `[users, m]`.
        """
        from cowbird.metrics.ranking import exclude_seen, topk_ranks  # noqa: PLC0415

        found = np.empty((history.users, len(items)), dtype=np.int32)
        for rows, scores, seen in self._score_batches(history, users):
            found[rows] = topk_ranks(exclude_seen(scores, *seen), items, k_max).cpu().numpy()
        return found

    def recommend(self, history: Interactions, k: int = 10, users: Users | None = None) -> NDArray[np.int64]:
        """Return the `k` best unseen items of every user, best first, shape `[users, k]`; -1 where none are left."""
        from cowbird.metrics.ranking import exclude_seen  # noqa: PLC0415

        best: list[NDArray[np.int64]] = []
        for _, scores, seen in self._score_batches(history, users):
            top = exclude_seen(scores, *seen).topk(min(k, self.items), dim=1)
            best.append(top.indices.masked_fill(top.values == float("-inf"), -1).cpu().numpy())
        return np.concatenate(best) if best else np.empty((0, min(k, self.items)), dtype=np.int64)


class Recommender(Victim):
    """A recommender that ranks the whole catalogue."""

    task: ClassVar[str] = "ranking"

    @abstractmethod
    def fit(
        self,
        data: TrainingData,
        validation: Queries,
        seed: int,
        context: FitContext | None = None,
        start: FittedRecommender | None = None,
    ) -> FittedRecommender:
        """Train a model, choosing the best state on validation.

        Args:
            data: What to learn from.
            validation: What decides which state is kept; never the test set.
            seed: Decides initial weights, order and noise.
            context: Device, checkpoint folder and progress; a CPU and nothing else by default.
            start: A fitted model of the same spec to start from (fine-tuning); `None` starts from random weights.
        """

    @abstractmethod
    def load(self, path: Path, device: "torch.device") -> FittedRecommender:
        """Read what `FittedRecommender.save` wrote.

        Raises:
            UserError: If the file is missing, damaged or another recommender's.
        """

    def with_prompts(self, prompt: Prompt, **changes: Any) -> Self:
        """Return the same recommender with prompts made from user profiles, trained as `changes` say.

        Raises:
            UserError: If this recommender takes no prompts.
        """
        if "prompt" not in type(self).model_fields:
            raise UserError(
                f"{type(self).__name__} takes no prompts.", "Use scenarios without prompts, or another victim."
            )
        return self.with_training(prompt=prompt.model_dump(), **changes)

    def with_training(self, **changes: Any) -> Self:
        """Return the same recommender trained differently, such as `tuned(learning_rate=1e-4)` for fine-tuning.

        Raises:
            UserError: If this recommender has no such field.
        """
        unknown = sorted(changes.keys() - type(self).model_fields)
        if unknown:
            raise UserError(
                f"{type(self).__name__} can't be trained so: it has no {', '.join(unknown)}.",
                "Use the scenarios pretrain and direct, or another victim.",
            )
        return self.model_validate({**self.model_dump(), **changes})
