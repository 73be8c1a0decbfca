"""The contract of a sequential recommender's network."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from cowbird.victims.sequential.noise import Noise
from cowbird.victims.sequential.prompting import PromptGenerator


class SequentialNetwork(nn.Module, ABC):
    """A causal encoder of item sequences whose item embeddings are also the output layer.

    Args:
        items: Size of the catalogue. Row `items` of the embedding is padding and is never scored.
        hidden: Width of the embeddings and of the output.
        layers: How many layers take a prefix.
    """

    longest_prefix: int | None = None
    """Most vectors a prefix of this network can have; `None` if any number."""

    def __init__(self, items: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.item = nn.Embedding(items + 1, hidden, padding_idx=items)
        self.layers = layers
        self.prompt: PromptGenerator | None = None

    def encode(self, item: Tensor, noise: Noise, profile: Tensor | None) -> Tensor:
        """Encode sequences after the prefixes of their users, if the network has prompts; see `forward`."""
        return self(item, noise, None if self.prompt is None else self.prompt(profile))

    def encode_last(self, item: Tensor, last: Tensor, noise: Noise, profile: Tensor | None) -> Tensor:
        """Encode histories at one event each; a network that makes each place at its own cost makes these alone.

        Args:
            item: Items, shape `[sequences, length]`, int64.
            last: The event of each, shape `[sequences]`, int64.
            noise: Applies dropout during training and nothing otherwise.
            profile: What the prompts read of users, if there are prompts.

        Returns:
            Shape `[sequences, hidden]`.
        """
        return self.encode(item, noise, profile)[torch.arange(len(last), device=last.device), last]

    @abstractmethod
    def forward(self, item: Tensor, noise: Noise, prefix: Tensor | None = None) -> Tensor:
        """Encode sequences that start at column 0 and may end in padding.

        Args:
            item: Items, shape `[sequences, length]`, int64.
            noise: Applies dropout during training and nothing otherwise.
            prefix: Prompt vectors of each layer, shape `[sequences, layers, prefix length, hidden]`.

        Returns:
            Shape `[sequences, length, hidden]`; row `[s, t]` depends on `item[s, : t + 1]` and the prefix alone.
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
