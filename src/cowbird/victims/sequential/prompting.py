"""Prompts for sequential recommenders: profile attributes in, one prefix a layer out.

The generator of APRec (SIGIR 2023, section 3.3, after Wu et al., "Personalized Prompt for Sequential Recommendation",
2022): attribute embeddings, one after another, go through an MLP whose output is cut into one prefix (of `length`
vectors) a layer. What a prefix does is the network's affair: SASRec attends to it before the sequence, GRU4Rec starts
from it. Attribute embeddings start as the mean of the item embeddings of the users who have the value, as published.

Departures: how GRU4Rec takes a prefix is Cowbird's choice and of no paper. A missing value has an embedding of its own,
and a value that training never saw counts as missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cowbird.data.types import TrainingData, Users
from cowbird.errors import UserError
from cowbird.victims.base import Prompt

MAX_ATTRIBUTE_VALUES = 100
"""An attribute with more values, such as a zip code, is not taken unless it is named."""


@dataclass(frozen=True)
class ProfileVocabulary:
    """The attributes that a generator reads, and the values that it knows."""

    labels: Mapping[str, tuple[str, ...]]
    """Known values of each attribute, in the order of their embeddings."""

    @staticmethod
    def of(users: Users, prompt: Prompt) -> "ProfileVocabulary":
        """Take the attributes a prompt asks for from users who have them.

        Raises:
            UserError: If an attribute is unknown, or none is named and none fits.
        """
        known = {
            name: column.labels
            for name, column in users.attributes.items()
            if len(column.labels) <= MAX_ATTRIBUTE_VALUES
        }
        labels = {name: users.get_attribute(name).labels for name in prompt.attributes} if prompt.attributes else known
        if not labels:
            raise UserError(
                f"Prompts are made from user profiles, and no attribute has {MAX_ATTRIBUTE_VALUES} values or fewer.",
                "Use a source with profiles, or name the attributes of the prompt.",
            )
        return ProfileVocabulary(labels)

    def count_embeddings(self) -> list[int]:
        """Return the number of embeddings of each attribute: its values, and one for a missing value."""
        return [len(values) + 1 for values in self.labels.values()]

    def encode_users(self, users: Users) -> NDArray[np.int64]:
        """Return the embedding rows of users, shape `[users, attributes]`.

        Raises:
            UserError: If the users lack an attribute.
        """
        table = np.empty((len(users), len(self.labels)), dtype=np.int64)
        first = 0
        for column, (name, values) in enumerate(self.labels.items()):
            attribute = users.get_attribute(name).take(np.arange(len(users)))
            number = {value: row for row, value in enumerate(values)}
            rows = np.array([*(number.get(label, len(values)) for label in attribute.labels), len(values)])
            table[:, column] = first + rows[attribute.codes]
            first += len(values) + 1
        return table


class PromptGenerator(nn.Module):
    """Attribute embeddings → MLP → one prefix a layer.

    Args:
        vocabulary: The attributes and values.
        hidden: Width of embeddings and prefixes.
        layers: Layers of the network that takes the prefixes.
        length: Vectors a prefix.
    """

    def __init__(self, vocabulary: ProfileVocabulary, hidden: int, layers: int, length: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.shape = (layers, length, hidden)
        self.value = nn.Embedding(sum(vocabulary.count_embeddings()), hidden)
        self.widen = nn.Linear(len(vocabulary.labels) * hidden, hidden)
        self.narrow = nn.Linear(hidden, layers * length * hidden)

    def forward(self, rows: Tensor) -> Tensor:
        """Make prefixes.

        Args:
            rows: Embedding rows of each user, shape `[users, attributes]`, int64.

        Returns:
            Shape `[users, layers, length, hidden]`.
        """
        return self.narrow(F.gelu(self.widen(self.value(rows).flatten(1)))).view(-1, *self.shape)

    @torch.no_grad()
    def reset(self, generator: torch.Generator, data: TrainingData, items: Tensor) -> None:
        """Draw the MLP from U(±1/√inputs), and start each attribute value at the mean item of its users.

        Args:
            generator: Where the MLP is drawn, on the CPU.
            data: Who has which value and interacted with what.
            items: Item embeddings, shape `[items, hidden]`, on the CPU.
        """
        for layer in (self.widen, self.narrow):
            bound = layer.in_features**-0.5
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.zero_()
        interactions = data.interactions
        counts = np.zeros((self.value.num_embeddings, len(data.items)), dtype=np.float32)
        rows, user = self.vocabulary.encode_users(data.users), interactions.user_of_event()
        for column in range(rows.shape[1]):
            np.add.at(counts, (rows[user, column], interactions.item), 1)
        total = counts.sum(axis=1, keepdims=True)
        everybody = np.bincount(interactions.item, minlength=len(data.items)) / max(1, interactions.events)
        share = np.where(total > 0, counts / np.maximum(total, 1), everybody)
        self.value.weight.copy_(torch.from_numpy(share.astype(np.float32)) @ items)
