"""BERT4Rec: a transformer that looks both ways and fills in a masked event (Sun et al., CIKM 2019).

Departures: it is trained on the event behind each part of a history, with the mask in its place, and not on gaps in the
middle; that is what it is asked for afterwards, and what makes its training comparable with the other recommenders'.
Norms stand before the branches, as in Cowbird's SASRec. The loss is cross-entropy over the whole catalogue without a
bias an item. Each place of a history is a sequence of its own, so an epoch costs as many times more than one of SASRec
as histories have events; a shorter `max_length` helps.
"""

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from cowbird.victims.sequential.base import SequentialRecommender
from cowbird.victims.sequential.network import SequentialNetwork
from cowbird.victims.sequential.noise import Noise


class BidirectionalBlock(nn.Module):
    """One layer: self-attention over all that is there, then a feed-forward network."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(hidden, 3 * hidden)
        self.merge = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden)
        self.widen = nn.Linear(hidden, 4 * hidden)
        self.narrow = nn.Linear(4 * hidden, hidden)
        self.feed_norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor, there: Tensor, noise: Noise, prefix: Tensor | None = None) -> Tensor:
        """Map `[sequences, length, hidden]` to the same shape.

        Args:
            x: The sequences.
            there: Which places hold something, shape `[sequences, length]`.
            noise: Applies dropout during training.
            prefix: What stands before the sequences, shape `[sequences, prefix, hidden]`.
        """
        rows, length, hidden = x.shape
        before = 0 if prefix is None else prefix.shape[1]
        seen = x if prefix is None else torch.cat([prefix, x], dim=1)
        split = self.project(self.attention_norm(seen)).view(rows, before + length, 3, self.heads, hidden // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        hidden_places = ~F.pad(there, (before, 0), value=True)[:, None, None, :]
        # Plain products: sequences are short, and this repeats to the bit on every device.
        logits = query[:, :, before:] @ key.transpose(2, 3) * (hidden // self.heads) ** -0.5
        mixed = torch.softmax(logits.masked_fill(hidden_places, -torch.inf), dim=-1) @ value
        mixed = mixed.transpose(1, 2).reshape(rows, length, hidden)
        x = x + noise(self.merge(mixed))
        return x + noise(self.narrow(F.gelu(self.widen(self.feed_norm(x)))))


class BERT4RecNetwork(SequentialNetwork):
    """Item and position embeddings, a mask behind the events, blocks that look both ways, and a projection."""

    def __init__(self, items: int, hidden: int, length: int, layers: int, heads: int) -> None:
        super().__init__(items, hidden, layers)
        self.position = nn.Embedding(length + 1, hidden)
        self.mask = nn.Embedding(1, hidden)
        self.start_norm = nn.LayerNorm(hidden)
        self.blocks = nn.ModuleList(BidirectionalBlock(hidden, heads) for _ in range(layers))
        self.head = nn.Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, item: Tensor, noise: Noise, prefix: Tensor | None = None) -> Tensor:
        """Encode sequences, each place as the end of a history of its own; see `SequentialNetwork.forward`."""
        rows, length = item.shape
        last = torch.arange(length, device=item.device).repeat(rows)
        each = None if prefix is None else prefix.repeat_interleave(length, dim=0)
        return self._fill_in(item.repeat_interleave(length, dim=0), last, noise, each).view(rows, length, -1)

    def encode_last(self, item: Tensor, last: Tensor, noise: Noise, profile: Tensor | None) -> Tensor:
        """Encode histories at their last events alone; see `SequentialNetwork.encode_last`."""
        return self._fill_in(item, last, noise, None if self.prompt is None else self.prompt(profile))

    def _fill_in(self, item: Tensor, last: Tensor, noise: Noise, prefix: Tensor | None) -> Tensor:
        """Return what stands behind the event `last` of each sequence, shape `[sequences, hidden]`."""
        place = torch.arange(item.shape[1] + 1, device=item.device)
        masked = place == last[:, None] + 1
        x = torch.where(masked[..., None], self.mask.weight[0], self.item(F.pad(item, (0, 1))))
        away = last[:, None] + 1 - place  # the paper pads at the front, so places count from the mask
        x = noise(self.start_norm(x + self.position(away.clamp(min=0))))
        there = away >= 0
        for number, block in enumerate(self.blocks):
            x = block(x, there, noise, None if prefix is None else prefix[:, number])
        made = (x * masked[..., None]).sum(dim=1)
        return self.norm(F.gelu(self.head(made)))


class BERT4Rec(SequentialRecommender):
    """Self-attention both ways with a mask behind the history, trained with full-softmax cross-entropy."""

    layers: int = Field(default=2, ge=1)
    """Attention blocks."""
    heads: int = Field(default=2, ge=1)
    """Attention heads; they divide `hidden`."""

    @model_validator(mode="after")
    def _check_heads(self) -> "BERT4Rec":
        if self.hidden % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide hidden ({self.hidden})")
        return self

    def build(self, items: int) -> BERT4RecNetwork:
        """Make the network."""
        return BERT4RecNetwork(items, self.hidden, self.max_length, self.layers, self.heads)
