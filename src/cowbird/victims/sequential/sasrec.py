"""SASRec: self-attentive sequential recommendation (Kang and McAuley, ICDM 2018).

Departures from the paper, each because later replications found it better or because it is faster at equal accuracy:

- the loss is cross-entropy over the whole catalogue, not one sampled negative (Klenitskiy and Vasilev, RecSys 2023);
- blocks are pre-norm on both branches (the paper normalizes the query alone);
- sequences start at column 0 and positions count from there, so short histories meet positions that training knows;
- no dropout on attention weights, which lets the attention kernel run fused.
"""

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from cowbird.victims.sequential.base import SequentialRecommender
from cowbird.victims.sequential.network import SequentialNetwork
from cowbird.victims.sequential.noise import Noise


def causal_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention in which no position sees a later one.

    The fused kernel on a GPU. On a CPU, plain batched products: for the short sequences of recommenders the fused
    CPU kernel's backward pass is slower, eight times so in bfloat16 (`benchmarks/sasrec.py`).

    Args:
        query: Shape `[sequences, heads, length, width]`.
        key: The same shape.
        value: The same shape.

    Returns:
        The same shape.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)
    sequences, heads, length, width = query.shape
    query, key, value = (x.reshape(sequences * heads, length, width) for x in (query, key, value))
    hidden_later = torch.full((length, length), -torch.inf, dtype=query.dtype).triu_(1)
    logits = torch.baddbmm(hidden_later.expand(len(query), -1, -1), query, key.transpose(1, 2), alpha=width**-0.5)
    return torch.bmm(torch.softmax(logits, dim=-1), value).view(sequences, heads, length, width)


class TransformerBlock(nn.Module):
    """One layer: causal self-attention, then a position-wise feed-forward network (sections 3.2 and 3.3)."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(hidden)
        self.project = nn.Linear(hidden, 3 * hidden)
        self.merge = nn.Linear(hidden, hidden)
        self.feed_norm = nn.LayerNorm(hidden)
        self.widen = nn.Linear(hidden, hidden)
        self.narrow = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, noise: Noise, prefix: Tensor | None = None) -> Tensor:
        """Map `[sequences, length, hidden]` to the same shape; every position may look at the whole prefix."""
        rows, length, hidden = x.shape
        # The prefix stands before the sequence for this attention only; what it turns into is dropped.
        before = 0 if prefix is None else prefix.shape[1]
        seen = x if prefix is None else torch.cat([prefix, x], dim=1)
        split = self.project(self.attention_norm(seen)).view(rows, before + length, 3, self.heads, hidden // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = causal_attention(query, key, value)[:, :, before:]
        x = x + noise(self.merge(mixed.transpose(1, 2).reshape(rows, length, hidden)))
        return x + noise(self.narrow(noise(F.relu(self.widen(self.feed_norm(x))))))


class SASRecNetwork(SequentialNetwork):
    """Item and position embeddings, blocks, a last norm."""

    def __init__(self, items: int, hidden: int, length: int, layers: int, heads: int) -> None:
        super().__init__(items, hidden, layers)
        self.position = nn.Embedding(length, hidden)
        self.blocks = nn.ModuleList(TransformerBlock(hidden, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, item: Tensor, noise: Noise, prefix: Tensor | None = None) -> Tensor:
        """Encode sequences; a prefix stands before the sequence in every layer. See `SequentialNetwork.forward`."""
        x = noise(self.item(item) + self.position.weight[: item.shape[1]])
        for number, block in enumerate(self.blocks):
            x = block(x, noise, None if prefix is None else prefix[:, number])
        return self.norm(x)


class SASRec(SequentialRecommender):
    """Self-attention over the history, trained with full-softmax cross-entropy."""

    layers: int = Field(default=2, ge=1)
    """Attention blocks."""
    heads: int = Field(default=2, ge=1)
    """Attention heads; they divide `hidden`."""

    @model_validator(mode="after")
    def _check_heads(self) -> "SASRec":
        if self.hidden % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide hidden ({self.hidden})")
        return self

    def build(self, items: int) -> SASRecNetwork:
        """Make the network."""
        return SASRecNetwork(items, self.hidden, self.max_length, self.layers, self.heads)
