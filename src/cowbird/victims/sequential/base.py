"""What every sequential recommender shares: training fields, the network's contract, and the fitted model.

A new model is one file: a subclass of `SequentialRecommender` with its fields and `build`, and an `nn.Module` derived
from `SequentialNetwork` (in `network`) with `forward`. Fields that all share are in `recipe`; training is in
`training`; ranking and saving are here.
"""

import copy
import json
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cowbird.data.split import Queries
from cowbird.data.types import IntArray, Interactions, TrainingData, Users
from cowbird.errors import UserError
from cowbird.faults import raise_outage
from cowbird.notices import NoticeRank, note
from cowbird.rng import torch_stream
from cowbird.storage import read_tensors, write_tensors
from cowbird.victims.fit_context import FitContext
from cowbird.victims.ranking import FittedRecommender, Prompt, Recommender
from cowbird.victims.repeatable import move_module
from cowbird.victims.sequential.network import SequentialNetwork
from cowbird.victims.sequential.noise import Noise
from cowbird.victims.sequential.prompting import ProfileVocabulary, PromptGenerator
from cowbird.victims.sequential.recipe import SequentialFields, TrainingRecipe
from cowbird.victims.sequential.training import train


class SequentialRecommender(Recommender, SequentialFields):
    """A recommender that reads a user's events in their order."""

    @abstractmethod
    def build(self, items: int) -> SequentialNetwork:
        """Make the network for a catalogue (initial weights are drawn elsewhere)."""

    def describe_architecture(self) -> dict[str, Any]:
        """Return what gives the weights their meaning: the class, and the fields that are not about training."""
        training = {*TrainingRecipe.model_fields, "dropout"}
        return {"victim": type(self).__name__, "spec": self.model_dump(mode="json", exclude=training)}

    def make_network(self, items: int, vocabulary: ProfileVocabulary | None = None) -> SequentialNetwork:
        """Make the network with memory but no weights yet, touching no global random state.

        Args:
            items: Size of the catalogue.
            vocabulary: What the prompts read, if there are prompts.

        Raises:
            UserError: If the prompts are longer than this network can take.
        """
        with torch.device("meta"):
            network = self.build(items)
            if self.prompt is not None and vocabulary is not None:
                longest = network.longest_prefix
                if longest is not None and self.prompt.length > longest:
                    raise UserError(
                        f"{type(self).__name__} takes prompts of at most {longest} vectors a layer, "
                        f"and {self.prompt.length} were asked for.",
                        "Lower the prompt's length.",
                    )
                network.prompt = PromptGenerator(vocabulary, self.hidden, network.layers, self.prompt.length)
        return network.to_empty(device="cpu")

    def fit(
        self,
        data: TrainingData,
        validation: Queries,
        seed: int,
        context: FitContext | None = None,
        start: FittedRecommender | None = None,
    ) -> "FittedSequential":
        """Train the network with `cowbird.victims.sequential.training.train`; see `Recommender.fit`."""
        context = context or FitContext()
        many = int((data.interactions.lengths > self.max_length).sum())
        more = f"more interactions than the model sees at once, the last {self.max_length} (max_length)."
        note(NoticeRank.CHOICE, f"{{n}} users have {more}", many, f"1 user has {more}")
        given = None if start is None else self._check_start(start, len(data.items))
        network = self.make_network(len(data.items), self._make_vocabulary(data, given))
        prompt, network.prompt = network.prompt, None
        network.reset(torch_stream(seed, "weights"))  # the same weights with and without prompts
        network.prompt = prompt
        if given is not None:
            known = network.state_dict()
            network.load_state_dict(known | {n: w for n, w in given.network.state_dict().items() if n in known})
        if network.prompt is not None and (given is None or given.network.prompt is None):
            network.prompt.reset(torch_stream(seed, "prompt"), data, network.item.weight[:-1])
        fitted = FittedSequential(self, move_module(network, context.device), len(data.items), context.device)
        train(fitted, data, validation, seed, context)
        return fitted

    def _check_start(self, start: FittedRecommender, items: int) -> "FittedSequential":
        """Check that training can start from a model: the same network, perhaps with or without prompts."""
        if isinstance(start, FittedSequential) and start.items == items:
            mine, its = self.describe_architecture(), start.spec.describe_architecture()
            prompts = [shape["spec"].pop("prompt") for shape in (mine, its)]
            if mine == its and (prompts[0] == prompts[1] or None in prompts):
                return start
        raise UserError(
            f"A {type(self).__name__} of {items} items can't start from that model.",
            "Start from a fit of the same recommender on the same catalogue, with the same prompts or none.",
        )

    def _make_vocabulary(self, data: TrainingData, given: "FittedSequential | None") -> ProfileVocabulary | None:
        if self.prompt is None:
            return None
        if given is not None and given.network.prompt is not None:
            return given.network.prompt.vocabulary
        return ProfileVocabulary.of(data.users, self.prompt)

    def load(self, path: Path, device: torch.device) -> "FittedSequential":
        """Read a saved model; see `Recommender.load`."""
        tensors, header = read_tensors(path)
        try:
            record = json.loads(header["cowbird"])
            items, shape = int(record["items"]), self.describe_architecture()
            given = {name: record["spec"].get(name) for name in shape["spec"]}
            if {"victim": record["victim"], "spec": given} != shape:
                raise ValueError(f"it was saved from {record['victim']} with {given}")
            if items < 1:
                raise ValueError(f"it has {items} items")
            labels = {str(name): tuple(map(str, values)) for name, values in record.get("profile", {}).items()}
            if bool(labels) != (self.prompt is not None):
                raise ValueError("its prompts lack the attributes they read")
            network = self.make_network(items, ProfileVocabulary(labels) if labels else None)
            network.load_state_dict(tensors)
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise_outage(error, f"'{path}' can't be read")
            reason = str(error).partition("\n")[0]
            raise UserError(f"'{path}' does not hold a {type(self).__name__}: {reason}.") from None
        return FittedSequential(self, move_module(network, device), items, device)


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

    def encode_profiles(self, users: Users | None) -> NDArray[np.int64] | None:
        """Return what the prompts read of users, shape `[users, attributes]`; `None` if there are no prompts.

        Raises:
            UserError: If there are prompts and no users, or users without their attributes.
        """
        prompt = self.network.prompt
        if prompt is None:
            return None
        if users is None:
            raise UserError(
                "This model has prompts made from user profiles, and no profiles were given.",
                f"Give users with {', '.join(prompt.vocabulary.labels)}, or use the model without prompts: bare().",
            )
        return prompt.vocabulary.encode_users(users)

    @property
    def prompt(self) -> Prompt | None:
        """What the model's prompts are; `None` if it has none."""
        return self.spec.prompt

    def without_prompts(self) -> "FittedSequential":
        """Return the model without its prompts; itself if it has none."""
        if self.network.prompt is None:
            return self
        spec = self.spec.with_training(prompt=None, trained="all")
        network = spec.make_network(self.items)
        network.load_state_dict({name: self.network.state_dict()[name] for name in network.state_dict()})
        return FittedSequential(spec, move_module(network, self.device), self.items, self.device)

    def forget(self, items: IntArray, generator: torch.Generator) -> "FittedSequential":
        """Put new items in the places of some; see `FittedRecommender.forget`.

        A new item starts near the mean of the items that stay, as new tokens of a language model do.
        """
        network = copy.deepcopy(self.network)
        with torch.no_grad():
            if len(items) and not 0 <= min(items) <= max(items) < self.items:
                raise UserError(f"An item to forget is not one of the {self.items} of the model.")
            table, gone = network.item.weight, torch.zeros(self.items + 1, dtype=torch.bool)
            gone[torch.from_numpy(np.asarray(items, dtype=np.int64))] = True
            stays = ~gone
            stays[-1] = False
            drawn = torch.randn((int(gone.sum()), table.shape[1]), generator=generator) * 0.02
            middle = table[stays.to(table.device)].mean(dim=0) if bool(stays.any()) else torch.zeros_like(table[0])
            table[gone.to(table.device)] = middle + drawn.to(table.device)
        return FittedSequential(self.spec, move_module(network, self.device), self.items, self.device)

    @torch.no_grad()  # inference mode would return a tensor that nobody may change
    def score(self, history: Interactions, users: Users | None = None) -> Tensor:
        """Score every item after the most recent `max_length` events; see `FittedRecommender.score`."""
        size = np.minimum(history.lengths, self.spec.max_length)
        if not len(size) or size.min() < 1:
            raise UserError("A history to score is empty.", "Score users with one event or more.")
        width = int(size.max())
        recent = history.take(history.offsets[1:] - size, size)
        table = np.full((len(size), width), self.items, dtype=np.int64)
        table[np.arange(width) < size[:, None]] = recent.item
        rows = self.encode_profiles(users)
        if rows is not None and len(rows) != len(size):
            raise UserError(f"There are {len(size)} histories to score and profiles of {len(rows)} users.")
        profile = None if rows is None else torch.from_numpy(rows).to(self.device)
        item, ends = (torch.from_numpy(each).to(self.device) for each in (table, size - 1))
        last = self.network.encode_last(item, ends, self._quiet, profile)
        return last.float() @ self.network.item.weight[: self.items].T

    def save(self, path: Path) -> None:
        """Write weights as safetensors with the spec in the header; see `FittedRecommender.save`."""
        write_tensors(path, self.network.state_dict(), {"cowbird": json.dumps(self.describe_record())})

    def describe_record(self) -> dict[str, Any]:
        """Return what a saved file tells of the model, as JSON can hold it."""
        record: dict[str, Any] = {
            "victim": type(self.spec).__name__,
            "items": self.items,
            "spec": self.spec.model_dump(mode="json"),
        }
        if self.network.prompt is not None:
            record["profile"] = dict(self.network.prompt.vocabulary.labels)
        return record
