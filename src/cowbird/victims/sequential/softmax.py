"""Full-softmax cross-entropy over the catalogue without the [targets × items] logits.

The catalogue is the class list, so the logits of one batch would be the largest tensor of the whole training. They are
made a chunk of targets at a time, and the gradients of the hidden states and of the item embeddings are computed in the
same pass, while the chunk is still in cache; the backward pass only scales them. Memory is `chunk × items`, whatever
the batch. Matrix products run in the dtype of the inputs; sums over chunks are kept in float32.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 26}
"""Logits held at once: about the last-level cache of a small CPU, and enough to fill a GPU."""


def count_chunk_rows(items: int, device: torch.device) -> int:
    """Return how many targets are handled at once for a catalogue of `items`."""
    return max(32, CHUNK_ELEMENTS.get(device.type, 1 << 24) // max(items, 1) // 32 * 32)


def _align_items(items: Tensor) -> tuple[Tensor, Tensor | None]:
    """Fill the catalogue up to a multiple of eight on a GPU, whose fast matrix products want rows of 16 bytes.

    Returns:
        The table, and what to add to the logits so that the filling takes no part; `None` if nothing was filled.
    """
    missing = -len(items) % 8
    if not missing or items.device.type != "cuda":
        return items, None
    bias = items.new_zeros(len(items) + missing)
    bias[len(items) :] = -torch.inf
    return F.pad(items, (0, 0, 0, missing)), bias


class _ChunkedSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, items: Tensor, label: Tensor, weight: Tensor, kept: Tensor | None = None
    ) -> Tensor:
        rows = count_chunk_rows(len(items), hidden.device)
        loss = torch.zeros((), device=hidden.device)
        ctx.shape = hidden.shape
        ctx.kept = kept
        if kept is not None:
            hidden, label, weight = hidden[kept], label[kept], weight[kept]
        known = len(items)
        items, bias = _align_items(items)
        grad_hidden = torch.empty_like(hidden)
        grad_items = torch.zeros(items.shape, device=items.device)
        for start in range(0, len(hidden), rows):
            chunk = slice(start, start + rows)
            h, y, w = hidden[chunk], label[chunk, None], weight[chunk, None]
            logits = h @ items.T if bias is None else torch.addmm(bias, h, items.T)
            p = torch.softmax(logits, dim=-1)
            picked = p.gather(1, y)
            flat = y[:, 0] + torch.arange(len(y), device=y.device) * len(items)
            loss -= (picked.float().clamp_min(1e-30).log() * w).sum()
            p.view(-1).index_copy_(0, flat, picked[:, 0] - 1)
            # The weights go onto the narrow factors, not onto the wide one.
            w = w.to(h.dtype)
            torch.mul(p @ items, w, out=grad_hidden[chunk])
            if ctx.needs_input_grad[1]:
                grad_items += p.T @ (h * w)
        ctx.save_for_backward(grad_hidden, grad_items[:known])
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        grad_hidden, grad_items = ctx.saved_tensors
        scale = grad_outputs[0]
        scaled = grad_hidden * scale.to(grad_hidden.dtype)
        if ctx.kept is not None:
            scaled = scaled.new_zeros(ctx.shape).index_copy_(0, ctx.kept, scaled)
        wanted = ctx.needs_input_grad[1]
        return scaled, (grad_items * scale).to(grad_hidden.dtype) if wanted else None, None, None, None


def chunked_softmax_loss(
    hidden: Tensor, items: Tensor, label: Tensor, weight: Tensor, kept: Tensor | None = None
) -> Tensor:
    """Weighted sum of the cross-entropy of each target against the whole catalogue.

    Args:
        hidden: Predictions, shape `[targets, width]`.
        items: Item embeddings, shape `[items, width]`, same dtype as `hidden`.
        label: Right item of each target, shape `[targets]`, int64.
        weight: Weight of each target, shape `[targets]`, float32; 0 leaves a target out, `1 / targets` makes a mean.
        kept: Rows that have a target, int64; the others are not computed at all. `None` computes every row.

    Returns:
        A float32 scalar. Gradients flow into `hidden` and `items`.
    """
    return cast(Tensor, _ChunkedSoftmax.apply(hidden, items, label, weight, kept))
