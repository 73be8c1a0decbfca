"""GRU4Rec: a gated recurrent unit over the history (Hidasi et al., ICLR 2016).

Departures: cross-entropy over the whole catalogue instead of sampled pairwise losses, tied item embeddings, and
histories as rows instead of session-parallel batches. A prompt is the state that each layer starts from: that is
Cowbird's choice, and of no paper.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from cowbird.victims.repeatable import recording_lock
from cowbird.victims.sequential.base import SequentialRecommender
from cowbird.victims.sequential.network import SequentialNetwork
from cowbird.victims.sequential.noise import Noise


class GRU4RecNetwork(SequentialNetwork):
    """Item embeddings, a GRU, and a projection back to the embedding space."""

    longest_prefix = 1

    def __init__(self, items: int, hidden: int, layers: int) -> None:
        super().__init__(items, hidden, layers)
        self.recur = nn.GRU(hidden, hidden, layers, batch_first=True)
        self.merge = nn.Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, item: Tensor, noise: Noise, prefix: Tensor | None = None) -> Tensor:
        """Encode sequences; a prefix is the state that each layer starts from. See `SequentialNetwork.forward`."""
        start = None if prefix is None else prefix[:, :, 0].transpose(0, 1).contiguous()
        x = noise(self.item(item))
        with recording_lock:
            states, _ = self.recur(x, start)
        return self.norm(self.merge(noise(states)))

    def reset(self, generator: torch.Generator) -> None:
        """Draw initial weights; the GRU's from U(-1/√hidden, 1/√hidden)."""
        super().reset(generator)
        bound = self.recur.hidden_size**-0.5
        with torch.no_grad():
            for parameter in self.recur.parameters():
                parameter.uniform_(-bound, bound, generator=generator)


class GRU4Rec(SequentialRecommender):
    """A gated recurrent unit over the history, trained with full-softmax cross-entropy."""

    layers: int = Field(default=1, ge=1)
    """Stacked recurrent layers."""

    def build(self, items: int) -> GRU4RecNetwork:
        """Make the network."""
        return GRU4RecNetwork(items, self.hidden, self.layers)
