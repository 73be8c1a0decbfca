"""A prompt's beginning, run once: its keys and values are kept, and endings that branch off it attend to them.

All endings of a pass have one length, so attention is two products an ending and none is masked away. Rows are not
padded. What comes out is what whole prompts give, up to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

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
    """Endings of one length, each of which sees a kept beginning and itself."""

    cache: PrefixCache
    """The beginning."""
    seen: int
    """How many of its tokens the endings see."""
    endings: int
    """How many endings there are."""
    length: int
    """Tokens of each."""
    layer: int = 0
    """The layer that attends next."""

    @property
    def reach(self) -> int:
        """See `attention.Borders`."""
        return self.seen + self.length

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """Let each ending see the beginning and itself; see `attention.Borders`. Gradients flow to the endings."""
        first_keys = self.cache.keys[self.layer][:, : self.seen]
        first_values = self.cache.values[self.layer][:, : self.seen]
        self.layer += 1
        heads, tokens, width = query.shape[1:]
        few = key.shape[1]
        groups, count, length = heads // few, self.endings, self.length
        # Queries that share a key head stand in one matrix with it.
        shaped = query[0].reshape(few, groups, count, length, width).permute(0, 2, 1, 3, 4)
        mine = shaped.reshape(few * count, groups * length, width)
        own_keys, own_values = (held[0].reshape(few * count, length, width) for held in (key, value))
        to_own = torch.bmm(mine, own_keys.transpose(1, 2)) * scale
        to_first = torch.bmm(mine.reshape(few, -1, width), first_keys.transpose(1, 2)) * scale
        to_first = to_first.view(few * count, groups * length, self.seen)
        scores = torch.cat([to_first, to_own], dim=-1) + self._mask(window, query).repeat(groups, 1)
        weight = torch.softmax(scores, dim=-1)
        mixed = torch.bmm(weight[..., self.seen :], own_values)
        far = weight[..., : self.seen].reshape(few, -1, self.seen)
        mixed = mixed + torch.bmm(far, first_values).view_as(mixed)
        out = mixed.view(few, count, groups, length, width).permute(1, 3, 0, 2, 4)
        return out.reshape(1, tokens, heads, width)

    def _mask(self, window: int | None, query: Tensor) -> Tensor:
        """Return what is added to scores: no token sees what stands behind it, shape `[length, seen + length]`."""
        place = torch.arange(self.seen + self.length, device=query.device)
        asks = place[self.seen :, None]
        hidden = place > asks
        if window is not None:
            hidden |= asks - place >= window
        none = torch.zeros(hidden.shape, dtype=query.dtype, device=query.device)
        return none.masked_fill_(hidden, -torch.inf)


def run_beginnings(causal: Any, rows: Sequence[list[int]], device: torch.device) -> list[PrefixCache]:
    """Run beginnings in one packed row, and keep the keys and values of each.

    Args:
        causal: The causal LM that `plug_in` returned.
        rows: The tokens of each, at least one.
        device: Where the model is.
    """
    caches = [PrefixCache(tuple(row)) for row in rows]
    bounds = tuple(accumulate((len(row) for row in rows), initial=0))
    given = torch.tensor([[token for row in rows for token in row]], device=device)
    documents = Documents(bounds, torch.tensor(bounds, dtype=torch.int32, device=device), max(map(len, rows)))
    position = torch.tensor([[at for row in rows for at in range(len(row))]], device=device)
    causal.base_model(
        input_ids=given, position_ids=position, use_cache=False, documents=RecordingBorders(caches, documents)
    )
    return caches
