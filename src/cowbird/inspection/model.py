"""What inspection asks of a model that ranks a catalogue, whoever made it.

`RankingModel` is all that a verdict needs. `TunableModel` is what `cowbird sanitize` and replayed fine-tuning need on
top: scores with gradients, the rows of the item table, and writing the file anew. `OpenedModel` is a model with what
its file tells about it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from cowbird.data.types import IntArray, Users
from cowbird.victims.sequential.base import SequentialRecommender


class RankingModel(Protocol):
    """Scores every item of a catalogue after a history."""

    @property
    def items(self) -> int:
        """Size of the catalogue; items are 0 … items - 1."""
        ...

    def score(self, histories: Sequence[IntArray]) -> NDArray[np.float32]:
        """Score all items for each history.

        Args:
            histories: Items of each history, oldest first, each of shape `[events]`. A model that has an answer to an
                empty history gives it; another raises `UserError`.

        Returns:
            Scores, shape `[histories, items]`, float32; larger is better. They are finite.
        """
        ...


@runtime_checkable
class ProfiledModel(RankingModel, Protocol):
    """A model that reads users' profiles as well, such as one with prompts. `score` asks it without them."""

    @property
    def profile_labels(self) -> Mapping[str, tuple[str, ...]]:
        """The attributes that it reads, and the values that it knows of each; empty if it reads none."""
        ...

    def score_profiled(self, histories: Sequence[IntArray], users: Users) -> NDArray[np.float32]:
        """Score all items for each history with a user's profile; see `score`."""
        ...


@runtime_checkable
class TunableModel(RankingModel, Protocol):
    """A model whose weights are here, so that it can be tuned and written anew."""

    @property
    def module(self) -> nn.Module:
        """The network with its weights; in evaluation mode, on its device."""
        ...

    def compute_scores(self, histories: Sequence[IntArray]) -> Tensor:
        """Return what `score` returns as a tensor with gradients, shape `[histories, items]`, on the model's device."""
        ...

    def list_item_tables(self) -> list[Tensor]:
        """Return the weights that belong to items: views of shape `[items, …]`, row i of item i.

        Writing to them (under `torch.no_grad`) changes the model. A model with tied embeddings has one.
        """
        ...

    def save(self, path: Path) -> None:
        """Write the weights as they are now, in the format that the model came in, atomically."""
        ...


@dataclass(frozen=True)
class OpenedModel:
    """A model, and what its file tells about it."""

    model: RankingModel
    """What answers. A `TunableModel` if its weights are here."""
    kind: str
    """What it is, in words, such as `Cowbird SASRec`."""
    sha256: str
    """SHA-256 of the file; empty for a model that is no file."""
    item_ids: tuple[str, ...] | None = None
    """The id of each item, if the file has them, shape `[items]`."""
    shape: SequentialRecommender | None = None
    """A recommender of the same shape, as which null models are fitted; `None` if none is known."""
