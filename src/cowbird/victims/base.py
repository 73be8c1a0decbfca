"""What a recommender is: a frozen spec, and the fitted model that `fit` returns.

The spec is the record (its repr names tests, its hash names run directories); the fitted model holds weights and
answers questions. Clean and attacked models are two fits of one spec.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from cowbird.data.choices import Choices, SequenceSplit
from cowbird.data.judgments import Judgments
from cowbird.data.split import Queries
from cowbird.data.types import Float32Array, IntArray, Interactions, Items, TrainingData, Users
from cowbird.errors import UserError
from cowbird.metrics.ranking import exclude_seen, ranks, topk_ranks
from cowbird.victims.fit_context import FitContext, pick_device

__all__ = [
    "MAX_HELD_SCORES",
    "CandidateRecommender",
    "FitContext",
    "FittedCandidate",
    "FittedPointwise",
    "FittedRecommender",
    "Picks",
    "PointwiseRecommender",
    "Probe",
    "Prompt",
    "Recommender",
    "Victim",
    "pick_device",
]

MAX_HELD_SCORES = {"cpu": 1 << 21, "cuda": 1 << 28}
"""Scores held at once while ranking: about the last-level cache of a small CPU; a gigabyte on a GPU."""


class Prompt(BaseModel):
    """Soft prompts made from user profiles, put before a user's sequence (APRec; Wu et al. 2022 call them PPR)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    attributes: tuple[str, ...] = ()
    """Profile attributes the prompts are made from; if empty, every attribute with at most 100 values."""
    length: int = Field(default=1, ge=1)
    """Prompt vectors a layer."""


class FittedRecommender(ABC):
    """A trained recommender over a catalogue of `items` items, with its scores made on `device`."""

    items: int
    device: torch.device

    @abstractmethod
    def score(self, history: Interactions, users: Users | None = None) -> Tensor:
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

    def forget(self, items: IntArray, generator: torch.Generator) -> "FittedRecommender":
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
    ) -> Iterator[tuple[slice, Tensor, tuple[Tensor, Tensor]]]:
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
        found = np.empty((history.users, len(items)), dtype=np.int32)
        for rows, scores, seen in self._score_batches(history, users):
            found[rows] = topk_ranks(exclude_seen(scores, *seen), items, k_max).cpu().numpy()
        return found

    def recommend(self, history: Interactions, k: int = 10, users: Users | None = None) -> NDArray[np.int64]:
        """Return the `k` best unseen items of every user, best first, shape `[users, k]`; -1 where none are left."""
        best: list[NDArray[np.int64]] = []
        for _, scores, seen in self._score_batches(history, users):
            top = exclude_seen(scores, *seen).topk(min(k, self.items), dim=1)
            best.append(top.indices.masked_fill(top.values == -torch.inf, -1).cpu().numpy())
        return np.concatenate(best) if best else np.empty((0, min(k, self.items)), dtype=np.int64)


class Victim(BaseModel, ABC):
    """A frozen description of a model that is attacked, and of its training."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Probe(ABC):
    """A trained model that reads titles, asked about any texts as titles of the item in question.

    The questions are drawn once; only the title of the item asked about changes.
    """

    @abstractmethod
    def favor(self, titles: Sequence[str]) -> Float32Array:
        """Tell how much the model favors each text, in each question.

        Args:
            titles: Any texts.

        Returns:
            Scores, shape `[titles, questions]`, float32; above 0 means that the item is recommended.
        """

    @abstractmethod
    def states(self, titles: Sequence[str]) -> Float32Array:
        """Return the model's last hidden state where its answer begins, the mean over the questions.

        Args:
            titles: Any texts.

        Returns:
            Shape `[titles, hidden]`, float32.
        """


class FittedPointwise(ABC):
    """A trained model that says whether a user will like an item."""

    @abstractmethod
    def margins(self, judgments: Judgments, items: Items, asked: Items | None = None) -> NDArray[np.float32]:
        """Score questions.

        Args:
            judgments: The questions.
            items: The catalogue that titles come from.
            asked: The catalogue that the titles of the items asked about come from, if it is another.

        Returns:
            Scores, shape `[questions]`; above 0 means yes.
        """

    def probe(self, judgments: Judgments, items: Items) -> Probe:
        """Return the model as a defense may ask it: any text in the place of the title asked about.

        Args:
            judgments: The questions.
            items: The catalogue that their other titles come from.

        Raises:
            UserError: If this kind of model can't be probed.
        """
        raise UserError(
            f"A {type(self).__name__} can't be probed.", "Use defenses that ask no victim, or another victim."
        )

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model into a folder, which appears under its name once it is whole."""


class PointwiseRecommender(Victim):
    """A model that reads titles and says whether a user will like an item."""

    @abstractmethod
    def fit(
        self, asked: Judgments, items: Items, seed: int, workplace: FitContext | None = None, start: Any = None
    ) -> FittedPointwise:
        """Train a model.

        Args:
            asked: Questions with their answers.
            items: The catalogue, with titles as the victim sees them.
            seed: Decides all that is random.
            workplace: Device, checkpoint folder and progress; a CPU and nothing else by default.
            start: A fitted model of the same spec to go on from, such as a provider's adapter.
        """

    @abstractmethod
    def load(self, folder: Path, device: torch.device) -> FittedPointwise:
        """Read what `FittedPointwise.save` wrote.

        Raises:
            UserError: If the folder is missing, damaged or another model's.
        """

    @abstractmethod
    def with_tuning(self, learning_rate: float, epochs: int) -> Self:
        """Return the same model, tuned at another learning rate for other epochs."""


@dataclass(frozen=True, slots=True, eq=False)
class Picks:
    """What a model that chooses among candidates answered."""

    free: NDArray[np.int32]
    """Column of the candidate whose title was written freely, -1 where the answer is no candidate's title; shape
    `[questions]`. Candidates of one title count as the first of them."""
    constrained: NDArray[np.int32]
    """Column chosen when only the candidates' titles can be written, shape `[questions]`."""
    texts: tuple[str, ...]
    """What was written freely (untrusted text), one a question."""


class FittedCandidate(ABC):
    """A trained model that says which of some candidates comes next, by writing its title."""

    @abstractmethod
    def choose(
        self, choices: Choices, items: Items, altered: Items | None = None, column: IntArray | None = None
    ) -> Picks:
        """Answer questions.

        Args:
            choices: The questions.
            items: The catalogue that titles come from.
            altered: The catalogue that the title of one candidate of each question comes from.
            column: Which candidate that is, shape `[questions]`.
        """

    def probe(self, choices: Choices, items: Items) -> Probe:
        """Return the model as a defense may ask it: any text in the place of the title of a wrong candidate.

        Args:
            choices: The questions.
            items: The catalogue that their other titles come from.

        Raises:
            UserError: If this kind of model can't be probed.
        """
        raise UserError(
            f"A {type(self).__name__} can't be probed.", "Use defenses that ask no victim, or another victim."
        )

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model into a folder, which appears under its name once it is whole."""


class CandidateRecommender(Victim):
    """A model that reads titles and writes which of some candidates comes next."""

    @abstractmethod
    def fit(
        self,
        data: TrainingData,
        split: SequenceSplit,
        seed: int,
        workplace: FitContext | None = None,
        start: Any = None,
    ) -> FittedCandidate:
        """Train a model.

        Args:
            data: What to learn from, with titles as the victim sees them.
            split: How questions are made of it (`SequenceSplit.ask`).
            seed: Decides all that is random.
            workplace: Device, checkpoint folder and progress; a CPU and nothing else by default.
            start: A fitted model of the same spec to go on from, such as a provider's adapter.
        """

    @abstractmethod
    def load(self, folder: Path, device: torch.device) -> FittedCandidate:
        """Read what `FittedCandidate.save` wrote.

        Raises:
            UserError: If the folder is missing, damaged or another model's.
        """

    @abstractmethod
    def with_tuning(self, learning_rate: float, epochs: int) -> Self:
        """Return the same model, tuned at another learning rate for other epochs."""


class Recommender(Victim):
    """A recommender that ranks the whole catalogue."""

    @abstractmethod
    def fit(
        self,
        data: TrainingData,
        validation: Queries,
        seed: int,
        workplace: FitContext | None = None,
        start: FittedRecommender | None = None,
    ) -> FittedRecommender:
        """Train a model, choosing the best state on validation.

        Args:
            data: What to learn from.
            validation: What decides which state is kept; never the test set.
            seed: Decides initial weights, order and noise.
            workplace: Device, checkpoint folder and progress; a CPU and nothing else by default.
            start: A fitted model of the same spec to start from (fine-tuning); `None` starts from random weights.
        """

    @abstractmethod
    def load(self, path: Path, device: torch.device) -> FittedRecommender:
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
