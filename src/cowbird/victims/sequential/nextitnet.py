"""NextItNet: stacked convolutions over the history, whose holes double from layer to layer (Yuan et al., WSDM 2019).

Departures: one convolution a block instead of two, the norm stands before it, and output weights are the item
embeddings. A prompt stands before the sequence in each layer, where zeros would stand: that is Cowbird's choice.
"""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from cowbird.victims.sequential.base import SequentialRecommender
from cowbird.victims.sequential.network import SequentialNetwork
from cowbird.victims.sequential.noise import Noise

KERNEL = 3
"""Events that a convolution reads."""


class CausalConvolution(nn.Module):
    """One layer: a norm, a convolution that reads no later event, and the residual."""

    def __init__(self, hidden: int, dilation: int) -> None:
        super().__init__()
        self.reach = (KERNEL - 1) * dilation
        self.norm = nn.LayerNorm(hidden)
        self.convolve = nn.Conv1d(hidden, hidden, KERNEL, dilation=dilation)
        self.merge = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, noise: Noise, prefix: Tensor | None = None) -> Tensor:
        """Map `[sequences, length, hidden]` to the same shape; a prefix stands before the sequence."""
        seen = self.norm(x)
        if prefix is not None:
            seen = torch.cat([prefix, seen], dim=1)
        before = self.reach - (0 if prefix is None else prefix.shape[1])
        made = self.convolve(F.pad(seen.transpose(1, 2), (before, 0))).transpose(1, 2)
        return x + noise(self.merge(F.relu(made)))


class NextItNetNetwork(SequentialNetwork):
    """Item embeddings, blocks, a last norm."""

    longest_prefix = KERNEL - 1

    def __init__(self, items: int, hidden: int, layers: int) -> None:
        super().__init__(items, hidden, layers)
        self.blocks = nn.ModuleList(CausalConvolution(hidden, 2**number) for number in range(layers))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, item: Tensor, noise: Noise, prefix: Tensor | None = None) -> Tensor:
        """Encode sequences; a prefix stands before the sequence in every layer. See `SequentialNetwork.forward`."""
        x = noise(self.item(item))
        for number, block in enumerate(self.blocks):
            x = block(x, noise, None if prefix is None else prefix[:, number])
        return self.norm(x)


class NextItNet(SequentialRecommender):
    """Dilated causal convolutions over the history, trained with full-softmax cross-entropy."""

    layers: int = Field(default=4, ge=1, le=12)
    """Blocks: each reaches twice as far back as the one before; four reach 30 events."""

    def build(self, items: int) -> NextItNetNetwork:
        """Make the network."""
        return NextItNetNetwork(items, self.hidden, self.layers)
