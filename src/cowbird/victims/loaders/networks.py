"""Networks that score as those of RecBole, RePlay and RecTools do, so that their checkpoints can be asked and tuned.

Each takes sequences as all of Cowbird's networks do, from column 0 on with padding behind. What the libraries do
otherwise, such as padding in front, happens inside. Widths are those of the library: where it lets a model see its
padding, this one sees it too.

- `RecBoleTransformer`: SASRec and BERT4Rec of RecBole, post-norm blocks as in BERT.
- `RecBoleGRU`: GRU4Rec of RecBole.
- `AuthorsTransformer`: the block of SASRec's authors (Kang and McAuley, ICDM 2018) as RePlay and RecTools have it.
  The query alone is normalized, and what is added behind attention and feed-forward is the normalized input.

A score is the product of an encoded history and an item's row of `item.weight`. BERT4Rec adds a number an item; it is
the last column of that table, and the encoded history has a 1 there.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cowbird.victims.repeatable import recording_lock
from cowbird.victims.sequential.network import SequentialNetwork
from cowbird.victims.sequential.noise import Noise

Activation = Literal["relu", "gelu", "swish", "tanh", "sigmoid"]
"""What stands between the two matrices of a feed-forward network."""
RECBOLE_MASKED_LOGIT = -10000.0
"""What RecBole adds to the attention of what may not be seen."""


def apply_activation(name: Activation, x: Tensor) -> Tensor:
    """Apply an activation by its name."""
    if name == "relu":
        return F.relu(x)
    if name == "gelu":
        return F.gelu(x)
    if name == "swish":
        return F.silu(x)
    return torch.tanh(x) if name == "tanh" else torch.sigmoid(x)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor) -> Tensor:
    """Multi-head attention of projected vectors.

    Args:
        query: Shape `[rows, length, hidden]`.
        key: The same shape.
        value: The same shape.
        heads: How many heads share `hidden`.
        mask: What is added to the logits, broadcast to `[rows, heads, length, length]`.

    Returns:
        The same shape as `query`, heads side by side.
    """
    rows, length, hidden = query.shape
    q, k, v = (x.view(rows, length, heads, hidden // heads).transpose(1, 2) for x in (query, key, value))
    weights = torch.softmax(q @ k.transpose(-1, -2) * (hidden // heads) ** -0.5 + mask, dim=-1)
    return (weights @ v).transpose(1, 2).reshape(rows, length, hidden)


class TransformerShape(NamedTuple):
    """The sizes of a transformer, and what its file does not say by the shapes of its tensors."""

    items: int
    """Size of the catalogue."""
    hidden: int
    """Width of embeddings and hidden states."""
    length: int
    """Most events seen at once."""
    layers: int
    """Blocks."""
    heads: int
    """Attention heads; they divide `hidden`."""
    inner: int
    """Width between the two matrices of the feed-forward network."""
    activation: Activation
    """What stands between them."""
    epsilon: float
    """What is added to variances in norms, for numerical stability."""


class ForeignNetwork(SequentialNetwork):
    """A network of another library."""

    causal: bool = True
    """Whether row `t` is what follows event `t`; otherwise only the row of the last event is."""
    length: int
    """Most events seen at once."""

    def _take_whole(self, item: Tensor) -> tuple[Tensor, int]:
        """Return sequences as wide as the library makes them, and how wide they were."""
        width = item.shape[1]
        padding = self.item.num_embeddings - 1
        return F.pad(item[:, : self.length], (0, max(0, self.length - width)), value=padding), width


class _PostNormBlock(nn.Module):
    """Attention and feed-forward, each added to its input and normalized behind."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.activation: Activation = shape.activation
        self.query, self.key, self.value, self.merge = (nn.Linear(shape.hidden, shape.hidden) for _ in range(4))
        self.attention_norm = nn.LayerNorm(shape.hidden, eps=shape.epsilon)
        self.widen, self.narrow = nn.Linear(shape.hidden, shape.inner), nn.Linear(shape.inner, shape.hidden)
        self.feed_norm = nn.LayerNorm(shape.hidden, eps=shape.epsilon)

    def forward(self, x: Tensor, mask: Tensor, noise: Noise) -> Tensor:
        mixed = attend(self.query(x), self.key(x), self.value(x), self.heads, mask)
        x = self.attention_norm(noise(self.merge(mixed)) + x)
        return self.feed_norm(noise(self.narrow(apply_activation(self.activation, self.widen(x)))) + x)


class RecBoleTransformer(ForeignNetwork):
    """SASRec of RecBole; and BERT4Rec, which sees a mask behind the events and looks both ways.

    Args:
        shape: Its sizes.
        masked: Whether it is BERT4Rec.
    """

    def __init__(self, shape: TransformerShape, masked: bool) -> None:
        super().__init__(shape.items, shape.hidden + int(masked), shape.layers)
        self.length, self.causal = shape.length, not masked
        self.position = nn.Embedding(shape.length, shape.hidden)
        self.blocks = nn.ModuleList(_PostNormBlock(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.hidden, eps=shape.epsilon)
        self.mask_vector = nn.Parameter(torch.zeros(shape.hidden)) if masked else None
        self.head = nn.Linear(shape.hidden, shape.hidden) if masked else None
        self.head_norm = nn.LayerNorm(shape.hidden, eps=shape.epsilon) if masked else None

    def forward(self, item: Tensor, noise: Noise, prefix: Tensor | None = None) -> Tensor:
        """Encode sequences; see `SequentialNetwork.forward`. Of BERT4Rec only the last event's row means something."""
        item, width = self._take_whole(item)
        if self.mask_vector is None:
            embedded, there = self.item(item), item != self.item.num_embeddings - 1
        else:
            embedded, there = self._put_mask(item, self.mask_vector)
        allowed = there[:, None, None, :]
        if self.causal:
            allowed = allowed & torch.ones(self.length, self.length, dtype=torch.bool, device=item.device).tril()
        mask = torch.zeros(allowed.shape, dtype=embedded.dtype, device=item.device)
        mask = mask.masked_fill(~allowed, RECBOLE_MASKED_LOGIT)
        x = noise(self.norm(embedded + self.position.weight))
        for block in self.blocks:
            x = block(x, mask, noise)
        if self.head is not None and self.head_norm is not None:
            x = self.head_norm(F.gelu(self.head(x)))
            x = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
        return x[:, :width]

    def _put_mask(self, item: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings without the first event and with the mask behind the last, and where there is something.

        RecBole drops the first event of every history, long or short, to make room for the mask.
        """
        padding = self.item.num_embeddings - 1
        last = (item != padding).sum(dim=1, keepdim=True) - 1
        moved = F.pad(item[:, 1:], (0, 1), value=padding)
        place = torch.arange(self.length, device=item.device) == last
        embedded = torch.where(place[..., None], vector, self.item(moved)[..., :-1])
        return embedded, place | (moved != padding)


class RecBoleGRU(ForeignNetwork):
    """GRU4Rec of RecBole: a recurrent unit without biases, and a projection.

    Args:
        items: Size of the catalogue.
        embedding: Width of item embeddings.
        hidden: Width of the states.
        layers: Stacked recurrent layers.
        length: Most events seen at once.
    """

    longest_prefix = 1

    def __init__(self, items: int, embedding: int, hidden: int, layers: int, length: int) -> None:
        super().__init__(items, embedding, layers)
        self.length = length
        self.recur = nn.GRU(embedding, hidden, layers, bias=False, batch_first=True)
        self.merge = nn.Linear(hidden, embedding)

    def forward(self, item: Tensor, noise: Noise, prefix: Tensor | None = None) -> Tensor:
        """Encode sequences; see `SequentialNetwork.forward`."""
        x = noise(self.item(item))
        with recording_lock:
            states, _ = self.recur(x)
        return self.merge(states)


class _AuthorsBlock(nn.Module):
    """The block of SASRec's authors."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.activation: Activation = shape.activation
        self.attention_norm = nn.LayerNorm(shape.hidden, eps=shape.epsilon)
        self.project = nn.Linear(shape.hidden, 3 * shape.hidden)
        self.merge = nn.Linear(shape.hidden, shape.hidden)
        self.feed_norm = nn.LayerNorm(shape.hidden, eps=shape.epsilon)
        self.widen, self.narrow = nn.Linear(shape.hidden, shape.inner), nn.Linear(shape.inner, shape.hidden)

    def forward(self, x: Tensor, mask: Tensor, noise: Noise) -> Tensor:
        asked = self.attention_norm(x)
        weights, biases = self.project.weight.chunk(3), self.project.bias.chunk(3)
        query = F.linear(asked, weights[0], biases[0])
        key, value = (F.linear(x, w, b) for w, b in zip(weights[1:], biases[1:], strict=True))
        x = self.feed_norm(asked + self.merge(attend(query, key, value, self.heads, mask)))
        return noise(self.narrow(noise(apply_activation(self.activation, self.widen(x))))) + x


class AuthorsStyle(NamedTuple):
    """In what RePlay's two and RecTools's SASRec differ."""

    scaled: bool
    """Whether item embeddings are multiplied by the root of their width."""
    sees_padding: bool
    """Whether events see the padding before them, set to zero; otherwise it is masked."""
    last_epsilon: float
    """What is added to variances in the last norm."""


class AuthorsTransformer(ForeignNetwork):
    """SASRec of RePlay and of RecTools: padding stands in front, positions count from the last event back.

    Args:
        shape: Its sizes.
        style: In what the libraries differ.
        positions: Whether it has position embeddings.
    """

    def __init__(self, shape: TransformerShape, style: AuthorsStyle, positions: bool = True) -> None:
        super().__init__(shape.items, shape.hidden, shape.layers)
        self.length, self.style = shape.length, style
        self.position = nn.Embedding(shape.length, shape.hidden) if positions else None
        self.blocks = nn.ModuleList(_AuthorsBlock(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.hidden, eps=style.last_epsilon)

    def forward(self, item: Tensor, noise: Noise, prefix: Tensor | None = None) -> Tensor:
        """Encode sequences; see `SequentialNetwork.forward`. Positions depend on how many events follow."""
        item, width = self._take_whole(item)
        padding = self.item.num_embeddings - 1
        missing = (item == padding).sum(dim=1, keepdim=True)
        steps = torch.arange(self.length, device=item.device)
        there = steps >= missing
        moved = item.gather(1, (steps - missing).clamp_min(0)).masked_fill(~there, padding)
        x = self._embed(moved, noise)
        mask = torch.zeros(self.length, self.length, dtype=x.dtype, device=x.device)
        mask = mask.masked_fill(torch.ones_like(mask, dtype=torch.bool).triu(1), -torch.inf)
        kept = there[..., None].to(x.dtype)
        if not self.style.sees_padding:
            seen = there[:, None, None, :] | torch.eye(self.length, dtype=torch.bool, device=x.device)
            mask = mask + torch.zeros_like(seen, dtype=x.dtype).masked_fill(~seen, -torch.inf)
        for block in self.blocks:
            x = block(x * kept, mask, noise)
        x = self.norm(x * kept)
        back = (steps + missing).clamp_max(self.length - 1)
        return x.gather(1, back[..., None].expand(-1, -1, x.shape[2]))[:, :width]

    def _embed(self, item: Tensor, noise: Noise) -> Tensor:
        x = self.item(item)
        if self.style.scaled:
            x = x * x.shape[-1] ** 0.5
        return noise(x if self.position is None else x + self.position.weight.flip(0))
