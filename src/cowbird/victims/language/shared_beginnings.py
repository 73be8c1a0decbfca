"""Texts behind shared beginnings, one after another in one row of tokens: on a GPU, each pair that is seen and no more.

`shared_rows` gives each beginning and its texts a row of their own, and attention is one product a row with a mask,
which hides two thirds of it. Here all beginnings stand first and all texts behind them. A text's tokens see their own
text in one pass of Flash Attention, and their beginning in another. Both are joined by their sums of exponentials, as
parts of one softmax. The gradients of each pass follow from the joint sums, so nothing is approximated.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cowbird.victims.language.attention import flash_attention


@dataclass(frozen=True, slots=True, eq=False)
class SharedBeginnings:
    """What sees what in a row of beginnings and of the texts behind them; see `attention.Borders`."""

    texts: Tensor
    """Borders of all texts, and of padding behind them; int32, `[texts + 1]`."""
    runs: Tensor
    """Borders of all texts of each beginning; int32, `[beginnings + 1]`."""
    beginnings: Tensor
    """Borders of the beginnings, some of which may be empty; int32, of the same shape."""
    longest: int
    """No text has more tokens."""
    longest_run: int
    """No beginning has more tokens, nor all texts of one together."""

    @property
    def reach(self) -> int:
        """See `attention.Borders`."""
        return 2 * self.longest_run

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """Let each token see its own text, and the beginning of it; see `attention.Borders`. Gradients flow to all."""
        at = torch.arange(query.shape[2], device=query.device)
        run = torch.bucketize(at, self.runs, right=True) - 1
        there = (run >= 0) & (run < len(self.runs) - 1)
        run = run.clamp(0, len(self.runs) - 2)
        first, after = self.beginnings[run], self.beginnings[run + 1]
        if query.device.type == "cuda" and query.dtype is not torch.float32:
            q, k, v = (held[0].transpose(0, 1).contiguous() for held in (query, key, value))
            told = self.texts, self.runs, self.beginnings, at < self.texts[0], there & (after > first)
            joint: Any = JointAttention
            return joint.apply(q, k, v, *told, self.longest, self.longest_run, scale)[None]
        text, own = (torch.bucketize(at, borders, right=True) for borders in (self.texts, self.beginnings))
        seen = (text[:, None] == text) & (own[:, None] == own)
        seen |= there[:, None] & (at >= first[:, None]) & (at < after[:, None])
        groups = query.shape[1] // key.shape[1]
        k, v = (held.repeat_interleave(groups, dim=1) for held in (key, value))
        return F.scaled_dot_product_attention(query, k, v, attn_mask=seen, scale=scale).transpose(1, 2)


def flash_gradients(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    total: Tensor,
    asks: Tensor,
    told: Tensor,
    longest: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value in one pass of several, by one kernel; see `flash_attention`.

    Args:
        grad: Gradient of what all passes give together, of the shape of `query`.
        query: See `flash_attention`.
        key: The same.
        value: The same.
        out: What all passes give together.
        total: Logarithm of each query's sum of exponentials over all passes, `[heads, queries]`.
        asks: See `flash_attention`.
        told: The same.
        longest: The same.
        scale: The same.
    """
    attend: Any = torch.ops.aten._flash_attention_backward
    # Seeds of a dropout that there is none of.
    seeds = torch.zeros(2, dtype=torch.int64, device=query.device), torch.zeros(0, device=query.device)
    given = (grad, query, key, value, out, total, asks, told, longest, longest)
    return attend(*given, 0.0, False, *seeds, scale=scale)


class _Pass(NamedTuple):
    """Which tokens ask which others, by the kernel for documents."""

    asks: Tensor
    told: Tensor
    longest: int


def _list_passes(texts: Tensor, runs: Tensor, beginnings: Tensor, longest: int, longest_run: int) -> list[_Pass]:
    """Return the passes of texts over themselves, of texts over beginnings, and of beginnings over themselves."""
    return [
        _Pass(texts, texts, longest),
        _Pass(runs, beginnings, longest_run),
        _Pass(beginnings, beginnings, longest_run),
    ]


class JointAttention(torch.autograd.Function):
    """Attention of texts over themselves and their beginnings; see the module.

    A pass says nothing of tokens that stand in none of its documents: what it leaves there is never used.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        texts: Tensor,
        runs: Tensor,
        beginnings: Tensor,
        leads: Tensor,
        behind: Tensor,
        longest: int,
        longest_run: int,
        scale: float,
    ) -> Tensor:
        """Attend.

        Args:
            ctx: What the gradients need is kept here.
            query: Shape `[tokens, heads, width]`.
            key: Shape `[tokens, key heads, width]`.
            value: The same shape as `key`.
            texts: See `SharedBeginnings`.
            runs: The same.
            beginnings: The same.
            leads: Which tokens are of a beginning, `[tokens]`.
            behind: Which tokens stand behind one, `[tokens]`.
            longest: See `SharedBeginnings`.
            longest_run: The same.
            scale: Factor of the scores.

        Returns:
            Of the shape of `query`.
        """
        (own, alone), (shared, more), (lead, first) = (
            flash_attention(query, key, value, *each, scale, causal=False)
            for each in _list_passes(texts, runs, beginnings, longest, longest_run)
        )
        joint = torch.where(behind, torch.logaddexp(alone, more), alone)
        weight = torch.exp(alone - joint).T[:, :, None]
        mixed = torch.where(behind[:, None, None], weight * own.float() + (1 - weight) * shared.float(), own.float())
        out = torch.where(leads[:, None, None], lead.float(), mixed).to(query.dtype)
        total = torch.where(leads, first, joint)
        ctx.save_for_backward(query, key, value, texts, runs, beginnings, leads, behind, out, total)
        ctx.longest, ctx.longest_run, ctx.scale = longest, longest_run, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of query, key and value."""
        query, key, value, texts, runs, beginnings, leads, behind, out, total = ctx.saved_tensors
        given = grads[0].contiguous(), query, key, value, out, total.contiguous()
        own, shared, lead = (
            flash_gradients(*given, *each, ctx.scale)
            for each in _list_passes(texts, runs, beginnings, ctx.longest, ctx.longest_run)
        )
        first, follows = leads[:, None, None], behind[:, None, None]
        asked = torch.where(first, lead[0], torch.where(follows, own[0] + shared[0], own[0]))
        keyed, valued = (torch.where(first, lead[nth] + shared[nth], own[nth]) for nth in (1, 2))
        return asked, keyed, valued, *([None] * 8)
