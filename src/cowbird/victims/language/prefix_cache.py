"""A prompt's beginning, run once: its keys and values are kept, and endings that branch off it attend to them.

All endings of a pass have one length, so attention is two products an ending. Beginnings of several lengths may go
together; the shorter ones are padded. What comes out is what whole prompts give, up to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cowbird.victims.language.attention import Documents


@dataclass(slots=True, eq=False)
class PrefixCache:
    """Keys and values of a beginning, layer by layer."""

    tokens: tuple[int, ...]
    """The beginning's tokens."""
    keys: list[Tensor] = field(default_factory=list[Tensor])
    """Of each layer, shape `[key heads, tokens, width]`."""
    values: list[Tensor] = field(default_factory=list[Tensor])
    """The same shape."""


@dataclass(slots=True, eq=False)
class RecordingBorders:
    """Documents whose keys and values are kept in the order of the layers."""

    caches: list[PrefixCache]
    """Where they are kept, one a document."""
    documents: Documents
    """Their borders."""

    @property
    def reach(self) -> int:
        """See `attention.Borders`."""
        return self.documents.reach

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """Let each document see itself; see `attention.Borders`."""
        for cache, (start, end) in zip(self.caches, pairwise(self.documents.bounds), strict=True):
            cache.keys.append(key[0, :, start:end].contiguous())
            cache.values.append(value[0, :, start:end].contiguous())
        return self.documents.attend(query, key, value, scale, window)


@dataclass(slots=True, eq=False)
class EndingBorders:
    """Endings of one length, each of which sees a kept beginning and itself. Every beginning has as many."""

    caches: Sequence[PrefixCache]
    """The beginnings; a beginning's endings follow each other."""
    seen: Sequence[int]
    """How many tokens of each beginning its endings see."""
    endings: int
    """How many endings each beginning has."""
    length: int
    """Tokens of each ending."""
    layer: int = 0
    """The layer that attends next."""
    _masks: dict[int | None, Tensor] = field(default_factory=dict[int | None, Tensor])

    @property
    def reach(self) -> int:
        """See `attention.Borders`."""
        return max(self.seen) + self.length

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """Let each ending see its beginning and itself; see `attention.Borders`. Gradients flow to the endings."""
        far_keys, far_values = self._stack(self.layer)
        self.layer += 1
        heads, tokens, width = query.shape[1:]
        few, begun, count, length = key.shape[1], len(self.seen), self.endings, self.length
        groups, most = heads // few, far_keys.shape[2]
        # Queries that share a key head stand in one matrix with it.
        shaped = query[0].reshape(few, groups, begun * count, length, width).permute(0, 2, 1, 3, 4)
        mine = shaped.reshape(few * begun * count, groups * length, width)
        own_keys, own_values = (held[0].reshape(few * begun * count, length, width) for held in (key, value))
        to_own = torch.bmm(mine, own_keys.transpose(1, 2)) * scale
        to_far = torch.bmm(mine.reshape(few * begun, -1, width), far_keys.view(few * begun, most, width).mT) * scale
        to_far = to_far.view(few * begun * count, groups * length, most)
        scores = torch.cat([to_far, to_own], dim=-1).view(few, begun, count * groups, length, most + length)
        if window not in self._masks:
            self._masks[window] = self._mask(window, query, most)
        weight = torch.softmax(scores + self._masks[window], dim=-1)
        weight = weight.view(few * begun * count, groups * length, most + length)
        mixed = torch.bmm(weight[..., most:], own_values)
        far = weight[..., :most].reshape(few * begun, -1, most)
        mixed = mixed + torch.bmm(far, far_values.view(few * begun, most, width)).view_as(mixed)
        out = mixed.view(few, begun * count, groups, length, width).permute(1, 3, 0, 2, 4)
        return out.reshape(1, tokens, heads, width)

    def _stack(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return the beginnings' keys and values of a layer, shape `[key heads, beginnings, tokens, width]`."""
        if len(self.seen) == 1:
            seen, cache = self.seen[0], self.caches[0]
            return cache.keys[layer][:, None, :seen], cache.values[layer][:, None, :seen]
        keys, values = (
            pad_sequence(
                [held[layer][:, :seen].transpose(0, 1) for held, seen in zip(each, self.seen, strict=True)],
                batch_first=True,
            )
            .permute(2, 0, 1, 3)
            .contiguous()
            for each in ([cache.keys for cache in self.caches], [cache.values for cache in self.caches])
        )
        return keys, values

    def _mask(self, window: int | None, query: Tensor, most: int) -> Tensor:
        """Return what is added to scores: no token sees padding, nor what stands behind it.

        Shape `[beginnings, 1, length, most + length]`.
        """
        seen = torch.tensor(list(self.seen), device=query.device)[:, None, None]
        far, own = torch.arange(most, device=query.device), torch.arange(self.length, device=query.device)
        asks = seen + own[:, None]
        place = torch.cat([far.expand(len(self.seen), 1, most), seen + own], dim=-1)
        hidden = place > asks
        hidden[..., :most] |= far >= seen
        if window is not None:
            hidden |= asks - place >= window
        none = torch.zeros(hidden.shape, dtype=query.dtype, device=query.device)
        return none.masked_fill_(hidden, -torch.inf)[:, None]


def run_beginnings(
    causal: Any, rows: Sequence[list[int]], device: torch.device, both_ways: bool = False
) -> list[PrefixCache]:
    """Run beginnings in one packed row, and keep the keys and values of each.

    Args:
        causal: The causal LM that `plug_in` returned.
        rows: The tokens of each, at least one.
        device: Where the model is.
        both_ways: Whether each token sees all of its beginning instead of what stands before it.
    """
    caches = [PrefixCache(tuple(row)) for row in rows]
    bounds = tuple(accumulate((len(row) for row in rows), initial=0))
    given = torch.tensor([[token for row in rows for token in row]], device=device)
    offsets = torch.tensor(bounds, dtype=torch.int32, device=device)
    documents = Documents(bounds, offsets, max(map(len, rows)), not both_ways)
    position = torch.tensor([[at for row in rows for at in range(len(row))]], device=device)
    causal.base_model(
        input_ids=given, position_ids=position, use_cache=False, documents=RecordingBorders(caches, documents)
    )
    return caches
