"""What every loader of foreign checkpoints does: recognize a file by the names of its tensors, and say how to read it.

A new format is one file: a subclass of `Loader` with `recognize` and `plan`. It makes a network of `networks` (or its
own) and says which tensor of the file is which weight. Reading, arranging items and writing anew are done here.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from cowbird.errors import UserError
from cowbird.victims.loaders._checkpoints import ForeignCheckpoint
from cowbird.victims.loaders.networks import Activation, ForeignNetwork, TransformerShape

MAX_LENGTH = 4096
"""Most events that a network may see at once: attention takes memory with its square."""


class Placement(NamedTuple):
    """One tensor of a file, or some rows of it, as one weight of the network, or a part of it."""

    file: str
    """Name of the tensor in the file."""
    own: str
    """Name of the weight in the network."""
    rows: NDArray[np.int64] | None = None
    """Rows of the tensor, in the order of the weight's; `None` for all."""
    own_rows: NDArray[np.int64] | None = None
    """Rows of the weight that they are; `None` for all."""
    columns: slice | None = None
    """Columns of the weight that they are; `None` for all."""
    per_item: bool = False
    """Whether the rows are items, from 0 on."""


@dataclass(frozen=True)
class Blueprint:
    """How a checkpoint is read."""

    title: str
    """What it is, such as `RecBole SASRec`."""
    network: Callable[[int], ForeignNetwork]
    """Makes the network for a catalogue of some size."""
    placements: tuple[Placement, ...]
    """Where its weights come from. Rows of items are in the order of the file."""
    items: int
    """How many items the file has."""
    first: int
    """The number that the library gives to the first item."""
    dropout: float
    """Dropout that it was trained with."""
    shape: TransformerShape | None
    """Its sizes, if it is a transformer."""
    ids: tuple[str, ...] | None = None
    """Ids of the items, if the file has them."""
    ignored: tuple[str, ...] = ()
    """Beginnings of names of tensors that are not needed."""

    def with_ids(self, ids: tuple[str, ...]) -> "Blueprint":
        """Return the same with ids of the items, in the order of the file."""
        return replace(self, ids=ids)


class Loader(BaseModel, ABC):
    """Reads checkpoints of one library. Its fields say what a file does not tell; what they leave open is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    library: ClassVar[str]
    """What the library is called."""

    heads: int | None = Field(default=None, ge=1, le=1024)
    """Attention heads."""
    activation: Activation | None = None
    """What stands between the two matrices of a feed-forward network."""
    max_length: int | None = Field(default=None, ge=1, le=MAX_LENGTH)
    """Most recent events that the model sees, of a network without positions."""

    @classmethod
    @abstractmethod
    def recognize(cls, checkpoint: ForeignCheckpoint) -> bool:
        """Tell whether a checkpoint is of this format."""

    @abstractmethod
    def plan(self, checkpoint: ForeignCheckpoint) -> Blueprint:
        """Say how a checkpoint is read.

        Raises:
            UserError: If it is of a kind that is not supported, or lacks what is needed.
        """


class ForeignModel:
    """A checkpoint of another library that is open.

    Args:
        checkpoint: The file.
        plan: How it is read.
        order: For each item its place in the file, shape `[items]`; -1 where the file has none. `None` is the file's.
    """

    def __init__(self, checkpoint: ForeignCheckpoint, plan: Blueprint, order: NDArray[np.int64] | None = None) -> None:
        self.checkpoint, self.plan = checkpoint, plan
        self._order = np.arange(plan.items, dtype=np.int64) if order is None else order
        needed = {placement.file for placement in plan.placements}
        for name in checkpoint.tensors:
            if name not in needed and not name.startswith(plan.ignored):
                checkpoint.refuse(
                    f"as a {plan.title} it has a tensor too many, '{name[:100]}'", "Is it a variant with features?"
                )

    def get_order(self) -> NDArray[np.int64]:
        """Return for each item its place in the file, shape `[items]`; -1 where the file has none."""
        return self._order

    def arrange_items(self, order: NDArray[np.int64]) -> "ForeignModel":
        """Return the model with its items in another order.

        Args:
            order: For each item of the catalogue its place among the items here, shape `[items]`; -1 where there is
                none. A model is arranged once.
        """
        places, known = np.asarray(order, dtype=np.int64), np.flatnonzero(np.asarray(order) >= 0)
        placements = tuple(
            p if not p.per_item or p.rows is None else p._replace(rows=p.rows[places[known]], own_rows=known)
            for p in self.plan.placements
        )
        padding = len(places)
        moved = tuple(
            p._replace(own_rows=np.array([padding])) if p.own == "item.weight" and not p.per_item else p
            for p in placements
        )
        known_ids, held = self.plan.ids, [int(place) for place in places]
        ids = None if known_ids is None else tuple(known_ids[place] if place >= 0 else "" for place in held)
        arranged = replace(self.plan, placements=moved, items=len(places), ids=ids)
        return ForeignModel(self.checkpoint, arranged, places)

    def make_network(self) -> ForeignNetwork:
        """Return the network with its weights. Items that the file does not have get zeros.

        Raises:
            UserError: If a tensor has another shape than the network, or numbers that are not finite.
        """
        with torch.device("meta"):
            network = self.plan.network(self.plan.items)
        network = network.to_empty(device="cpu")
        weights = dict(network.named_parameters())
        with torch.no_grad():
            for weight in weights.values():
                weight.zero_()
            for placement in self.plan.placements:
                value = self.checkpoint.read(placement.file)
                if placement.rows is not None:
                    value = value[torch.from_numpy(placement.rows)]
                target = _select_own(weights[placement.own], placement)
                if target.numel() != value.numel():
                    self.checkpoint.refuse(
                        f"its tensor '{placement.file}' has the shape {tuple(value.shape)}, "
                        f"and {tuple(target.shape)} was expected"
                    )
                _put_own(weights[placement.own], placement, value.reshape(target.shape))
        return network.eval().requires_grad_(True)

    def write(self, path: Path, network: ForeignNetwork) -> None:
        """Write the file anew with the weights of a network.

        Raises:
            UserError: If a weight does not fit the file's number format.
            OutageError: If it can't be written.
        """
        weights = {name: weight.detach().cpu() for name, weight in network.named_parameters()}
        parts: dict[str, list[Placement]] = {}
        for placement in self.plan.placements:
            parts.setdefault(placement.file, []).append(placement)

        def change(tensor: Tensor, placements: Sequence[Placement]) -> None:
            for placement in placements:
                value = _select_own(weights[placement.own], placement)
                if placement.rows is None:
                    tensor.copy_(value.reshape(tensor.shape))
                else:
                    rows = torch.from_numpy(placement.rows)
                    tensor[rows] = value.reshape(len(rows), *tensor.shape[1:]).to(tensor.dtype)

        changes: dict[str, Callable[[Tensor], None]] = {
            file: (lambda tensor, held=held: change(tensor, held)) for file, held in parts.items()
        }
        self.checkpoint.write(path, changes)


def _select_own(weight: Tensor, placement: Placement) -> Tensor:
    """Return the part of a weight that a placement fills."""
    part = weight if placement.columns is None else weight[:, placement.columns]
    return part if placement.own_rows is None else part[torch.from_numpy(placement.own_rows)]


def _put_own(weight: Tensor, placement: Placement, value: Tensor) -> None:
    part = weight if placement.columns is None else weight[:, placement.columns]
    if placement.own_rows is None:
        part.copy_(value)
    else:
        part[torch.from_numpy(placement.own_rows)] = value


def place_items(
    file: str, items: int, first: int, padding: int, columns: slice | None = None
) -> tuple[Placement, Placement]:
    """Return where item embeddings and the padding's come from.

    Args:
        file: Name of the tensor.
        items: How many items there are.
        first: The row of the first item in the file.
        padding: The row of the padding in the file.
        columns: Columns of the network's table that they are; `None` for all.
    """
    rows = np.arange(items, dtype=np.int64)
    return (
        Placement(file, "item.weight", rows + first, rows, columns, per_item=True),
        Placement(file, "item.weight", np.array([padding]), np.array([items]), columns),
    )


def check_shape(checkpoint: ForeignCheckpoint, shape: TransformerShape) -> TransformerShape:
    """Check what a file or a person says of a transformer.

    Raises:
        UserError: If no network can be of that shape.
    """
    if shape.items < 1:
        checkpoint.refuse("it has no items")
    if shape.hidden % shape.heads:
        checkpoint.refuse(
            f"{shape.heads} heads don't divide its width of {shape.hidden}", "Give the right number of heads."
        )
    if shape.length > MAX_LENGTH:
        checkpoint.refuse(f"it sees {shape.length} events at once, and {MAX_LENGTH} are possible here")
    return shape


def count_layers(checkpoint: ForeignCheckpoint, prefix: str, suffix: str) -> int:
    """Return how many layers a checkpoint has: tensors named `prefix`, a number from 0 on, `suffix`.

    Raises:
        UserError: If there is none.
    """
    layers = 0
    while f"{prefix}{layers}{suffix}" in checkpoint.tensors:
        layers += 1
    if not layers:
        checkpoint.refuse(f"it has no tensor '{prefix}0{suffix}'")
    return layers


def read_matrix_shape(checkpoint: ForeignCheckpoint, name: str) -> tuple[int, int]:
    """Return the shape of a tensor that should be a matrix, or one with a third dimension of 1.

    Raises:
        UserError: If it is not there, or no matrix.
    """
    shape = checkpoint.get_shape(name)
    if len(shape) not in (2, 3) or shape[2:] not in ((), (1,)):
        checkpoint.refuse(f"its tensor '{name[:100]}' is not a matrix")
    return shape[0], shape[1]


def read_integer(checkpoint: ForeignCheckpoint, value: object, name: str, least: int = 1, most: int = 4096) -> int:
    """Return a setting that should be a whole number.

    Raises:
        UserError: If it is none, or too small or large.
    """
    if type(value) is not int or not least <= value <= most:
        told = str(value)[:40] if isinstance(value, int | float | str) else "something else"
        checkpoint.refuse(
            f"its setting {name} is {told}, and a whole number from {least} to {most} was expected",
            f"Give it: --set {name}=NUMBER.",
        )
    return value


def read_share(value: object, fallback: float) -> float:
    """Return a setting that should be a share, such as dropout; the fallback if it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1:
        return float(value)
    return fallback


def refuse_unsupported(checkpoint: ForeignCheckpoint, title: str, reason: str) -> UserError:
    """Return the error for a network of a known library that is not built here."""
    return UserError(
        f"'{checkpoint.path}' is a {title}, and {reason}.",
        "Serve it yourself and inspect what it answers: see docs/how-to/foreign_models.md.",
    )
