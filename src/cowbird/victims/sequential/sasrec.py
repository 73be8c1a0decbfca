"""SASRec: self-attentive sequential recommendation (Kang and McAuley, ICDM 2018).

Departures from the paper, each because later replications found it better or because it is faster at equal accuracy:

- the loss is cross-entropy over the whole catalogue, not one sampled negative (Klenitskiy and Vasilev, RecSys 2023);
- blocks are pre-norm on both branches (the paper normalizes the query alone);
- sequences start at column 0 and positions count from there, so short histories meet positions that training knows;
- no dropout on attention weights, which lets the attention kernel run fused.
"""

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from cowbird.victims.sequential.base import SequentialNetwork, SequentialRecommender
from cowbird.victims.sequential.noise import Noise


class Block(nn.Module):
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

    def forward(self, x: Tensor, noise: Noise) -> Tensor:
        """Map `[sequences, length, hidden]` to the same shape."""
        rows, length, hidden = x.shape
        split = self.project(self.attention_norm(x)).view(rows, length, 3, self.heads, hidden // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + noise(self.merge(mixed.transpose(1, 2).reshape(rows, length, hidden)))
        return x + noise(self.narrow(noise(F.relu(self.widen(self.feed_norm(x))))))


class Network(SequentialNetwork):
    """Item and position embeddings, blocks, a last norm."""

    def __init__(self, items: int, hidden: int, length: int, layers: int, heads: int) -> None:
        super().__init__(items, hidden)
        self.position = nn.Embedding(length, hidden)
        self.blocks = nn.ModuleList(Block(hidden, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, item: Tensor, noise: Noise) -> Tensor:
        """Encode sequences; see `SequentialNetwork.forward`."""
        x = noise(self.item(item) + self.position.weight[: item.shape[1]])
        for block in self.blocks:
            x = block(x, noise)
        return self.norm(x)


class SASRec(SequentialRecommender):
    """Self-attention over the history, trained with full-softmax cross-entropy."""

    layers: int = Field(default=2, ge=1)
    """Attention blocks."""
    heads: int = Field(default=2, ge=1)
    """Attention heads; they divide `hidden`."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "SASRec":
        if self.hidden % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide hidden ({self.hidden})")
        return self

    def build(self, items: int) -> Network:
        """Make the network."""
        return Network(items, self.hidden, self.max_length, self.layers, self.heads)
