"""A checkpoint of RecBole, RePlay or RecTools as a victim: a fit goes on training it.

The network is the library's own (`cowbird.victims.loaders`); training is Cowbird's: full-softmax or sampled
cross-entropy with AdamW, not the library's loss and optimizer. Width, layers and `max_length` are the file's, whatever
the fields say. BERT4Rec is trained on the event after each prefix, with its mask behind the prefix, and not on gaps.

Items are matched by their ids, if the file or a map has them; otherwise file and data set must have as many items, and
they are taken to be in the same order. Items that the file does not have start near the mean of those that it has.
"""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from cowbird.data.split import Queries
from cowbird.data.types import Interactions, TrainingData, Users
from cowbird.errors import UserError
from cowbird.faults import raise_outage
from cowbird.notices import NoticeRank, note
from cowbird.rng import torch_stream
from cowbird.storage import read_tensors
from cowbird.victims.fit_context import FitContext
from cowbird.victims.loaders.base import ForeignModel
from cowbird.victims.loaders.networks import ForeignNetwork
from cowbird.victims.loaders.opening import CheckpointOptions, open_checkpoint, parse_settings
from cowbird.victims.ranking import FittedRecommender, Prompt
from cowbird.victims.repeatable import move_module
from cowbird.victims.sequential.base import FittedSequential, SequentialRecommender
from cowbird.victims.sequential.training import train

MAX_ATTENTION = 1 << 24
"""Attention weights held at once while scoring."""
NEW_ITEM_SPREAD = 0.02
"""Standard deviation of the embeddings of items that the file does not have, around the mean of the others."""


class TunedCheckpoint(SequentialRecommender):
    """A checkpoint of RecBole, RePlay or RecTools, trained on."""

    path: str = Field(min_length=1)
    """The file, such as `saved/SASRec-Jan-01-2026.pth`."""
    format: str = ""
    """Name of the loader: `recbole`, `replay`, `rectools`, or another; if empty, the file tells."""
    settings: tuple[str, ...] = ()
    """What the file does not tell, such as `["heads=2"]`: fields of the loader."""
    item_map: str = ""
    """A file with the ids of the model's items; if empty, those of the file, or the order of the data set."""

    @model_validator(mode="after")
    def _check_prompt(self) -> Self:
        if self.prompt is not None:
            raise ValueError("a checkpoint of another library takes no prompts")
        return self

    def with_prompts(self, prompt: Prompt, **changes: Any) -> Self:
        """Refuse prompts; see `Recommender.with_prompts`."""
        raise UserError(
            "A checkpoint of another library takes no prompts.", "Use scenarios without prompts, or another victim."
        )

    def describe_architecture(self) -> dict[str, Any]:
        """Return what gives the weights their meaning: the file and how it is read."""
        fields = {"path", "format", "settings", "item_map", "prompt"}
        return {"victim": type(self).__name__, "spec": self.model_dump(mode="json", include=fields)}

    def open(self) -> ForeignModel:
        """Open the file.

        Raises:
            UserError: If it can't be read.
        """
        item_map = Path(self.item_map).expanduser() if self.item_map else None
        return open_checkpoint(
            Path(self.path).expanduser(), CheckpointOptions(self.format, parse_settings(self.settings), item_map)
        )

    def build(self, items: int) -> ForeignNetwork:
        """Make the network for a catalogue."""
        return self.open().plan.network(items)

    def start(self, device: torch.device, ids: tuple[str, ...] | None = None, seed: int = 0) -> "FittedCheckpoint":
        """Return the model as the file has it.

        Args:
            device: Where it is put.
            ids: Ids of the catalogue's items, in their order; `None` takes the items of the file in its order.
            seed: Draws the embeddings of items that the file does not have.

        Raises:
            UserError: If the file can't be read, or its items are not those of the catalogue.
        """
        opened = self.open()
        order = None if ids is None else _match_items(opened, ids)
        if order is not None:
            opened = opened.arrange_items(order)
        network = opened.make_network()
        if order is not None:
            _draw_new_items(network, order, seed)
        return self._wrap(opened, network, device)

    def _wrap(self, opened: ForeignModel, network: ForeignNetwork, device: torch.device) -> "FittedCheckpoint":
        """Return a fitted model, and with it the fields as the file has them."""
        shape = {"hidden": max(4, network.item.embedding_dim), "max_length": network.length}
        regime = self.regime if network.causal else "prefix"
        spec = self.with_training(**shape, regime=regime)
        return FittedCheckpoint(spec, move_module(network, device), opened, device)

    def fit(
        self,
        data: TrainingData,
        validation: Queries,
        seed: int,
        context: FitContext | None = None,
        start: FittedRecommender | None = None,
    ) -> "FittedCheckpoint":
        """Train on from the file's weights, or from those of another fit; see `Recommender.fit`."""
        context = context or FitContext()
        given = None if start is None else self._check_start(start, len(data.items))
        fitted = self.start(context.device, data.items.ids, seed)
        if given is not None:
            fitted.network.load_state_dict(given.network.state_dict())
        train(fitted, data, validation, seed, context)
        return fitted

    def load(self, path: Path, device: torch.device) -> "FittedCheckpoint":
        """Read a saved model; see `Recommender.load`. The file that it was tuned from must still be there."""
        tensors, header = read_tensors(path)
        opened = self.open()
        try:
            record = json.loads(header["cowbird"])
            order = np.array(record["order"], dtype=np.int64)
            if record["victim"] != type(self).__name__ or order.ndim != 1 or len(order) != record["items"]:
                raise ValueError(f"it was saved from {record['victim']}")
            if len(order) < 1 or not -1 <= order.min() <= order.max() < opened.plan.items:
                raise ValueError("its items are not those of the file")
            opened = opened.arrange_items(order)
            network = opened.make_network()
            network.load_state_dict(tensors)
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
            raise_outage(error, f"'{path}' can't be read")
            reason = str(error).partition("\n")[0]
            raise UserError(f"'{path}' does not hold a {type(self).__name__}: {reason}.") from None
        return self._wrap(opened, network, device)


class FittedCheckpoint(FittedSequential):
    """A model of another library, perhaps trained on.

    Args:
        spec: The recommender it was fitted from.
        network: Its weights.
        opened: The file that it came in, its items arranged as the network's are.
        device: Where the weights are.
    """

    network: ForeignNetwork

    def __init__(
        self, spec: SequentialRecommender, network: ForeignNetwork, opened: ForeignModel, device: torch.device
    ) -> None:
        super().__init__(spec, network, opened.plan.items, device)
        self.opened = opened

    def describe_record(self) -> dict[str, Any]:
        """Return what a saved file tells of the model, with the place of each item in the file that it came in."""
        return super().describe_record() | {"order": self.opened.get_order().tolist()}

    def clone(self, spec: SequentialRecommender | None = None) -> "FittedCheckpoint":
        """Return a model with weights of its own, perhaps to be trained otherwise."""
        return FittedCheckpoint(spec or self.spec, deepcopy(self.network), self.opened, self.device)

    def forget(self, items: NDArray[Any], generator: torch.Generator) -> "FittedCheckpoint":
        """Put new items in the places of some; see `FittedRecommender.forget`."""
        forgotten = super().forget(items, generator)
        network = forgotten.network
        assert isinstance(network, ForeignNetwork)
        return FittedCheckpoint(self.spec, network, self.opened, self.device)

    @torch.no_grad()
    def score(self, history: Interactions, users: Users | None = None) -> Tensor:
        """Score every item; see `FittedRecommender.score`. Sequences are as wide as the library makes them."""
        shape = self.opened.plan.shape
        held = 1 if shape is None else shape.heads * shape.length**2
        size = max(1, MAX_ATTENTION // held)
        if history.users <= size:
            return super().score(history, users)
        parts = np.array_split(np.arange(history.users), -(-history.users // size))
        return torch.cat([super(FittedCheckpoint, self).score(history.select(part), users) for part in parts])

    def export(self, path: Path) -> None:
        """Write the weights in the format that the model came in: a copy of its file with other numbers.

        Raises:
            UserError: If items were added that the file has no place for.
            OutageError: If it can't be written.
        """
        new = int((self.opened.get_order() < 0).sum())
        if new:
            path = self.opened.checkpoint.path
            raise UserError(
                f"{new} items have no place in '{path}', so the model can't be written as it came.",
                "Save it in Cowbird's own format.",
            )
        self.opened.write(path, self.network)


def _match_items(opened: ForeignModel, ids: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the place in the file of each item of a catalogue; -1 where it has none."""
    plan = opened.plan
    if plan.ids is None:
        if len(ids) != plan.items:
            raise UserError(
                f"'{opened.checkpoint.path}' has {plan.items} items without ids, and the catalogue has {len(ids)}.",
                "Give their ids: item_map = 'FILE', with an id a line in the order of the model.",
            )
        note(NoticeRank.CHOICE, "The checkpoint has no ids of items. They are taken to be in the catalogue's order.")
        return np.arange(plan.items, dtype=np.int64)
    place = {known: number for number, known in enumerate(plan.ids)}
    order = np.array([place.get(wanted, -1) for wanted in ids], dtype=np.int64)
    missing = int((order < 0).sum())
    if missing * 2 > len(ids):
        raise UserError(
            f"{missing} of the catalogue's {len(ids)} items are not among the {plan.items} of "
            f"'{opened.checkpoint.path}' (such as '{ids[int(np.argmax(order < 0))][:60]}').",
            f"Their ids must be the same. The file has such as '{plan.ids[0][:60]}'.",
        )
    text = "{n} items of the catalogue are not in the checkpoint, and start near its mean."
    one = "1 item of the catalogue is not in the checkpoint, and starts near its mean."
    note(NoticeRank.CHANGE, text, missing, one)
    return order


@torch.no_grad()
def _draw_new_items(network: ForeignNetwork, order: NDArray[np.int64], seed: int) -> None:
    """Put items that the file does not have near the mean of those that it has."""
    new = torch.from_numpy(np.flatnonzero(order < 0))
    if not len(new):
        return
    table = network.item.weight
    known = table[torch.from_numpy(np.flatnonzero(order >= 0))]
    drawn = torch.randn((len(new), table.shape[1]), generator=torch_stream(seed, "items")) * NEW_ITEM_SPREAD
    table[new] = known.mean(dim=0) + drawn
