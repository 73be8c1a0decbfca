"""Rows of tokens in which many texts share a beginning: each text sees the beginning and itself, in both directions.

The beginning is read once for all texts behind it. It sees itself alone, so what a model makes of it, and of a text
behind it, does not depend on the other texts. Rows have one length, and attention is one product a row with a mask.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cowbird.data.types import Int64Array


@dataclass(frozen=True, slots=True, eq=False)
class SharedRows:
    """What sees what in rows of one length; see `attention.Borders`."""

    mask: Tensor
    """What is added to scores, shape `[rows, 1, tokens, tokens]`: 0 where a token sees another."""

    @property
    def reach(self) -> int:
        """See `attention.Borders`."""
        return self.mask.shape[-1]

    @classmethod
    def see(cls, branches: Tensor, dtype: torch.dtype = torch.bfloat16) -> "SharedRows":
        """Say what sees what.

        Args:
            branches: 0 for a beginning, the number of its text for any other token, -1 for padding; `[rows, tokens]`.
            dtype: The model's number format.
        """
        asks, told = branches[:, :, None], branches[:, None, :]
        seen = (told == 0) | (told == asks)
        return cls(torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)[:, None])

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """Let each token see what it may; see `attention.Borders`. Gradients flow to all."""
        return attend_in_rows(query, key, value, self.mask.to(query.dtype), scale)


def attend_in_rows(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attend within rows of one length, each by a mask of its own; shapes as in `attention.Borders`.

    Args:
        query: Of all rows, one behind another.
        key: The same.
        value: The same.
        mask: What is added to scores, shape `[rows, 1, tokens, tokens]`.
        scale: Factor of the scores.
    """
    count, length = mask.shape[0], mask.shape[-1]
    heads, width = query.shape[1], query.shape[3]
    groups = heads // key.shape[1]
    q, k, v = (held[0].view(-1, count, length, width).transpose(0, 1) for held in (query, key, value))
    if groups > 1:
        k, v = (held[:, :, None].expand(-1, -1, groups, -1, -1).reshape(count, heads, length, width) for held in (k, v))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return mixed.transpose(1, 2).reshape(1, count * length, heads, width)


def place_branches(branches: NDArray[np.int64]) -> Int64Array:
    """Return the position of each token: all texts of a row begin where its beginning ends.

    Args:
        branches: See `SharedRows.see`; the tokens of a text follow each other, those of the beginning come first.

    Returns:
        Of the same shape.
    """
    at = np.arange(branches.shape[1], dtype=np.int64)
    new = np.ones_like(branches, dtype=bool)
    new[:, 1:] = branches[:, 1:] != branches[:, :-1]
    begin = np.maximum.accumulate(np.where(new, at, 0), axis=1)
    behind = (branches == 0).sum(axis=1, keepdims=True)
    return (at - begin + np.where(branches > 0, behind, 0)).astype(np.int64)
