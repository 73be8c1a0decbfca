"""What every sequential recommender shares: training fields, the network's contract, and the fitted model.

A new model is one file: a subclass of `SequentialRecommender` with its fields and `build`, and an `nn.Module` derived
from `SequentialNetwork` with `forward`. Training, checkpoints, ranking and saving are here and in `training`.
"""

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from cowbird.data.split import Queries
from cowbird.data.types import Interactions, TrainingData
from cowbird.errors import UserError
from cowbird.rng import torch_stream
from cowbird.victims.base import FittedRecommender, Recommender, Workplace
from cowbird.victims.sequential.checkpoint import read_tensors, write_tensors
from cowbird.victims.sequential.noise import Noise
from cowbird.victims.sequential.training import Recipe, train


class SequentialNetwork(nn.Module, ABC):
    """A causal encoder of item sequences whose item embeddings are also the output layer.

    Args:
        items: Size of the catalogue. Row `items` of the embedding is padding and is never scored.
        hidden: Width of the embeddings and of the output.
    """

    def __init__(self, items: int, hidden: int) -> None:
        super().__init__()
        self.item = nn.Embedding(items + 1, hidden, padding_idx=items)

    @abstractmethod
    def forward(self, item: Tensor, noise: Noise) -> Tensor:
        """Encode sequences that start at column 0 and may end in padding.

        Args:
            item: Items, shape `[sequences, length]`, int64.
            noise: Applies dropout during training and nothing otherwise.

        Returns:
            Shape `[sequences, length, hidden]`; row `[s, t]` depends on `item[s, : t + 1]` alone.
        """

    def reset(self, generator: torch.Generator) -> None:
        """Draw initial weights: matrices from N(0, 0.02²), biases zero, scales one."""
        for name, parameter in self.named_parameters():
            with torch.no_grad():
                if parameter.dim() > 1:
                    parameter.normal_(0, 0.02, generator=generator)
                else:
                    parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)
        with torch.no_grad():
            self.item.weight[-1].zero_()


class SequentialRecommender(Recommender, Recipe):
    """The fields of every sequential recommender."""

    hidden: int = Field(default=64, ge=4)
    """Width of item embeddings and hidden states."""
    max_length: int = Field(default=50, ge=1)
    """Most recent events the model sees."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of values dropped in training, rounded to 1/256."""

    @abstractmethod
    def build(self, items: int) -> SequentialNetwork:
        """Make the network for a catalogue (initial weights are drawn elsewhere)."""

    def shape(self) -> dict[str, Any]:
        """Return what gives the weights their meaning: the class, and the fields that are not about training."""
        training = {*Recipe.model_fields, "dropout"}
        return {"victim": type(self).__name__, "spec": self.model_dump(mode="json", exclude=training)}

    def network(self, items: int) -> SequentialNetwork:
        """Make the network with memory but no weights yet, touching no global random state."""
        with torch.device("meta"):
            network = self.build(items)
        return network.to_empty(device="cpu")

    def fit(
        self,
        data: TrainingData,
        validation: Queries,
        seed: int,
        workplace: Workplace | None = None,
        start: FittedRecommender | None = None,
    ) -> "FittedSequential":
        """Train the network with `cowbird.victims.sequential.training.train`; see `Recommender.fit`."""
        place = workplace or Workplace()
        network = self.network(len(data.items))
        if start is None:
            network.reset(torch_stream(seed, "weights"))
        else:
            network.load_state_dict(self._weights_of(start, len(data.items)))
        network.to(place.device)
        fitted = FittedSequential(self, network, len(data.items), place.device)
        train(fitted, data, validation, seed, place)
        return fitted

    def _weights_of(self, start: FittedRecommender, items: int) -> dict[str, Tensor]:
        if not isinstance(start, FittedSequential) or start.spec.shape() != self.shape() or start.items != items:
            raise UserError(
                f"A {type(self).__name__} of {items} items can't start from that model.",
                "Start from a fit of the same recommender on the same catalogue.",
            )
        return start.network.state_dict()

    def load(self, path: Path, device: torch.device) -> "FittedSequential":
        """Read a saved model; see `Recommender.load`."""
        tensors, header = read_tensors(path)
        try:
            record = json.loads(header["cowbird"])
            items, shape = int(record["items"]), self.shape()
            given = {name: record["spec"].get(name) for name in shape["spec"]}
            if {"victim": record["victim"], "spec": given} != shape:
                raise ValueError(f"it was saved from {record['victim']} with {given}")
            if items < 1:
                raise ValueError(f"it has {items} items")
            network = self.network(items)
            network.load_state_dict(tensors)
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"'{path}' does not hold a {type(self).__name__}: {reason}.") from None
        return FittedSequential(self, network.to(device), items, device)


class FittedSequential(FittedRecommender):
    """A trained sequential recommender.

    Args:
        spec: The recommender it was fitted from.
        network: Its weights.
        items: Size of the catalogue.
        device: Where the weights are.
    """

    def __init__(
        self, spec: SequentialRecommender, network: SequentialNetwork, items: int, device: torch.device
    ) -> None:
        self.spec = spec
        self.network = network
        self.items = items
        self.device = device
        self.validations: list[tuple[int, float]] = []
        self._quiet = Noise(0.0, device)

    @torch.no_grad()  # inference mode would return a tensor that nobody may change
    def score(self, history: Interactions) -> Tensor:
        """Score every item after the most recent `max_length` events; see `FittedRecommender.score`."""
        size = np.minimum(history.lengths, self.spec.max_length)
        if not len(size) or size.min() < 1:
            raise UserError("A history to score is empty.", "Score users with one event or more.")
        width = int(size.max())
        recent = history.take(history.offsets[1:] - size, size)
        table = np.full((len(size), width), self.items, dtype=np.int64)
        table[np.arange(width) < size[:, None]] = recent.item
        hidden = self.network(torch.from_numpy(table).to(self.device), self._quiet)
        last = hidden[torch.arange(len(size), device=self.device), torch.from_numpy(size - 1).to(self.device)]
        return last.float() @ self.network.item.weight[: self.items].T

    def save(self, path: Path) -> None:
        """Write weights as safetensors with the spec in the header; see `FittedRecommender.save`."""
        record = {"victim": type(self.spec).__name__, "items": self.items, "spec": self.spec.model_dump(mode="json")}
        write_tensors(path, self.network.state_dict(), {"cowbird": json.dumps(record)})
