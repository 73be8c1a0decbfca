"""BERT4Rec: a transformer that looks both ways and fills in a masked event (Sun et al., CIKM 2019).

Departures: it is trained on the event behind each part of a history, with the mask in its place, and not on gaps in the
middle; that is what it is asked for afterwards, and what makes its training comparable with the other recommenders'.
Norms stand before the branches, as in Cowbird's SASRec. The loss is cross-entropy over the whole catalogue without a
bias an item. Each place of a history is a sequence of its own, so an epoch costs more than one of SASRec, about half as
many times more as histories have events; a shorter `max_length` helps.

What makes it fast, at the same numbers: sequences are read backwards from the mask, so that positions are columns;
those of about the same length share a block, and what stands behind them is not computed; the last layer answers for
the mask alone (`benchmarks/bert4rec.py`).
"""

from dataclasses import dataclass
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from cowbird.victims.sequential.base import SequentialRecommender
from cowbird.victims.sequential.network import SequentialNetwork
from cowbird.victims.sequential.noise import Noise

MAX_SEQUENCE_BLOCKS = 5
"""Blocks of about equally long sequences in a training step at most: each costs calls, and spares padding."""
MIN_BLOCK_TOKENS = {"cpu": 1 << 11, "cuda": 1 << 17}
"""Tokens that are worth a block of their own: on a GPU a step of fewer takes as long as its calls do."""


@dataclass(frozen=True, slots=True, eq=False)
class SequenceBlocks:
    """Sequences of masked histories, those of about the same length side by side.

    Column 0 of a sequence is the mask, and column `n` the event that is `n` places before it. The vectors of all blocks
    lie behind each other, shape `[tokens, hidden]`: what is done to each alone is done to all at once.
    """

    window: tuple[Tensor, ...]
    """Which window each sequence is part of, by block, each of shape `[sequences]`."""
    last: tuple[Tensor, ...]
    """Its last event, by block, each of shape `[sequences]`."""
    width: tuple[int, ...]
    """Columns of each block."""

    @classmethod
    def of_last_events(cls, last: Tensor, width: int) -> Self:
        """Make one block: a sequence a window, up to its event `last`."""
        return cls((torch.arange(len(last), device=last.device),), (last,), (width + 1,))

    @classmethod
    def of_all_events(cls, rows: int, length: int, device: torch.device) -> Self:
        """Make a sequence for each event of each window, in blocks by their places; shapes depend on no values.

        Args:
            rows: Windows.
            length: Events a window.
            device: Where the windows are.
        """
        tokens = rows * length * (length + 1)
        count = min(MAX_SEQUENCE_BLOCKS, max(1, tokens // MIN_BLOCK_TOKENS.get(device.type, 1 << 17)))
        step = -(-length // count)
        starts = range(0, length, step)
        places = [torch.arange(start, min(start + step, length), device=device) for start in starts]
        windows = [torch.arange(rows, device=device).repeat_interleave(len(place)) for place in places]
        widths = [min(start + step, length) + 1 for start in starts]
        return cls(tuple(windows), tuple(place.repeat(rows) for place in places), tuple(widths))

    def read_backwards(self, item: Tensor, mask: int, padding: int) -> Tensor:
        """Return the item of each token, shape `[tokens]`: the mask, then events from the last to the first.

        Args:
            item: The windows, shape `[windows, length]`.
            mask: What stands for the mask.
            padding: What stands behind the first event.
        """
        found: list[Tensor] = []
        for window, last, width in zip(self.window, self.last, self.width, strict=True):
            place = last[:, None] - torch.arange(width - 1, device=item.device)
            events = item[window[:, None], place.clamp_min(0)].masked_fill(place < 0, padding)
            found.append(F.pad(events, (1, 0), value=mask).flatten())
        return torch.cat(found)

    def hide_nothing(self, dtype: torch.dtype, before: int) -> list[Tensor]:
        """Return what is added to attention's logits: minus infinity where nothing is.

        Args:
            dtype: Number format of the logits.
            before: Vectors of prefixes before each sequence, which all may see.

        Returns:
            By block, each of shape `[sequences, 1, before + columns]`.
        """
        found: list[Tensor] = []
        for last, width in zip(self.last, self.width, strict=True):
            behind = torch.arange(width, device=last.device) > last[:, None] + 1
            hidden = torch.zeros(behind.shape, dtype=dtype, device=last.device).masked_fill_(behind, -torch.inf)
            found.append(F.pad(hidden, (before, 0))[:, None])
        return found

    def count_sequences(self) -> list[int]:
        """Return how many sequences each block has."""
        return [len(last) for last in self.last]

    def split(self, x: Tensor) -> list[Tensor]:
        """Split vectors of all tokens by block, each of shape `[sequences, columns, width of the vectors]`."""
        sizes = [count * width for count, width in zip(self.count_sequences(), self.width, strict=True)]
        parts = zip(torch.split(x, sizes), self.width, strict=True)
        return [part.view(-1, width, x.shape[1]) for part, width in parts]

    def take_masks(self, x: Tensor) -> Tensor:
        """Return the masks' vectors of all tokens, shape `[sequences, width of the vectors]`."""
        return torch.cat([part[:, 0] for part in self.split(x)])


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

    def forward(
        self,
        x: Tensor,
        blocks: SequenceBlocks,
        hidden_places: list[Tensor],
        noise: Noise,
        prefix: Tensor | None = None,
        masks_alone: bool = False,
    ) -> Tensor:
        """Map the vectors of all tokens to vectors of all tokens, or of the masks alone.

        Args:
            x: Shape `[tokens, hidden]`.
            blocks: Which tokens are a sequence.
            hidden_places: What is added to attention's logits; see `SequenceBlocks.hide_nothing`.
            noise: Applies dropout during training.
            prefix: What stands before the sequences of each window, shape `[windows, prefix, hidden]`.
            masks_alone: Whether only the masks' vectors are wanted.
        """
        hidden, normed = x.shape[1], self.attention_norm(x)
        known: list[Tensor | None] = [None] * len(blocks.width)
        if prefix is not None:
            made = self._project(self.attention_norm(prefix), hidden, 3 * hidden)
            known = [made[window] for window in blocks.window]
        if masks_alone:
            x = blocks.take_masks(x)
            query = self._project(blocks.take_masks(normed), 0, hidden)
            queries = [part[:, None] for part in torch.split(query, blocks.count_sequences())]
            pairs = blocks.split(self._project(normed, hidden, 3 * hidden))
        else:
            projected = blocks.split(self.project(normed))
            queries, pairs = [part[..., :hidden] for part in projected], [part[..., hidden:] for part in projected]
        mixed = [
            self._attend(one, pair if before is None else torch.cat([before, pair], dim=1), places).flatten(0, 1)
            for one, pair, before, places in zip(queries, pairs, known, hidden_places, strict=True)
        ]
        x = x + noise(self.merge(torch.cat(mixed)))
        return x + noise(self.narrow(F.gelu(self.widen(self.feed_norm(x)))))

    def _project(self, x: Tensor, start: int, end: int) -> Tensor:
        """Return some of the queries, keys and values."""
        return F.linear(x, self.project.weight[start:end], self.project.bias[start:end])

    def _attend(self, query: Tensor, pair: Tensor, hidden_places: Tensor) -> Tensor:
        """Return the mixed values of each query, shape `[sequences, queries, hidden]`.

        Plain products: sequences are short, and this repeats to the bit on every device.
        """
        rows, length, hidden = query.shape
        width = hidden // self.heads
        q = query.view(rows, length, self.heads, width).transpose(1, 2).reshape(-1, length, width)
        k, v = pair.view(rows, pair.shape[1], 2, self.heads, width).permute(2, 0, 3, 1, 4).flatten(1, 2)
        bias = hidden_places.expand(-1, self.heads, -1).reshape(len(q), 1, -1)
        logits = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=width**-0.5)
        mixed = torch.bmm(torch.softmax(logits, dim=-1), v)
        return mixed.view(rows, self.heads, length, width).transpose(1, 2).reshape(rows, length, hidden)


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
        used = length
        if item.device.type == "cpu":  # a recorded step has one shape
            used = max(1, int((item != self.item.num_embeddings - 1).any(dim=0).sum()))
        blocks = SequenceBlocks.of_all_events(rows, used, item.device)
        made = torch.split(self._fill_in(item, blocks, noise, prefix), blocks.count_sequences())
        there = torch.cat([part.view(rows, -1, part.shape[1]) for part in made], dim=1)
        return F.pad(there, (0, 0, 0, length - used))

    def encode_last(self, item: Tensor, last: Tensor, noise: Noise, profile: Tensor | None) -> Tensor:
        """Encode histories at their last events alone; see `SequentialNetwork.encode_last`."""
        blocks = SequenceBlocks.of_last_events(last, item.shape[1])
        return self._fill_in(item, blocks, noise, None if self.prompt is None else self.prompt(profile))

    def _fill_in(self, item: Tensor, blocks: SequenceBlocks, noise: Noise, prefix: Tensor | None) -> Tensor:
        """Return what stands in the mask's place of each sequence, shape `[sequences, hidden]`."""
        padding = self.item.num_embeddings - 1
        table = torch.cat([self.item.weight, self.mask.weight])
        token = blocks.read_backwards(item, mask=padding + 1, padding=padding)
        x = F.embedding(token, table, padding_idx=padding)
        # The paper pads at the front, so places count from the mask.
        x = torch.cat([(part + self.position.weight[: part.shape[1]]).flatten(0, 1) for part in blocks.split(x)])
        x = noise(self.start_norm(x))
        hidden_places = blocks.hide_nothing(x.dtype, 0 if prefix is None else prefix.shape[2])
        for number, block in enumerate(self.blocks):
            before = None if prefix is None else prefix[:, number]
            x = block(x, blocks, hidden_places, noise, before, masks_alone=number == len(self.blocks) - 1)
        return self.norm(F.gelu(self.head(x)))


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
