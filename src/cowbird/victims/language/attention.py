"""Attention within borders: each document of a packed row sees itself alone.

Plugged into transformers under the name `cowbird_packed`. On a GPU it is one kernel for all documents (Flash
Attention's with borders); on a CPU, and in float32, one product a document, which never computes a score that would be
masked away between documents. Windows of models such as Gemma 3 are kept; caps of scores are not.
"""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from cowbird.errors import UserError
from cowbird.victims.language.plain_llama import PlainLlama

ATTENTION_NAME = "cowbird_packed"


class Borders(Protocol):
    """What sees what in a row."""

    @property
    def reach(self) -> int:
        """Tokens that the farthest one seen is away, its own place counted, or a bound of it."""
        ...

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """Attend within the borders.

        Args:
            query: Shape `[1, heads, tokens, width]`.
            key: Shape `[1, key heads, tokens, width]`.
            value: The same shape as `key`.
            scale: Factor of the scores.
            window: No token sees another that is this far away or farther; any if `None`.

        Returns:
            Shape `[1, tokens, heads, width]`.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Documents:
    """Where the documents of a packed row begin and end."""

    bounds: tuple[int, ...]
    """First token of each document, and the end of the last."""
    offsets: Tensor
    """The same on the device, int32."""
    longest: int
    """Tokens of the longest document, or a bound of it."""
    causal: bool = True
    """Whether a token sees nothing behind its own place."""

    @property
    def reach(self) -> int:
        """See `Borders`."""
        return self.longest

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """Let each document see itself; see `Borders`."""
        if query.device.type == "cuda" and query.dtype is not torch.float32:
            q, k, v = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)
            return flash_attention(q, k, v, self.offsets, self.offsets, self.longest, scale, self.causal, window)[0][
                None
            ]
        fetched: Any = self.offsets
        borders: list[int] = list(self.bounds) or fetched.tolist()
        groups = query.shape[1] // key.shape[1]
        return _attend_on_cpu(query[0], key[0], value[0], borders, groups, scale, self.causal, window)[None]


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    documents: "Borders | None" = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attention within each document, as transformers calls it.

    Args:
        module: The attention layer; says how many queries share a key.
        query: Shape `[1, heads, tokens, width]`.
        key: Shape `[1, key heads, tokens, width]`.
        value: The same shape as `key`.
        attention_mask: Unused; the documents say it all.
        scaling: Factor of the scores; `width ** -0.5` if not given.
        documents: The borders.
        unused: What other implementations are told.

    Raises:
        UserError: If the model caps its scores.

    Returns:
        Shape `[1, tokens, heads, width]`, and no attention weights.
    """
    if documents is None:
        raise RuntimeError("packed attention was called without documents")
    if unused.get("softcap"):
        raise UserError(
            "This language model's attention caps its scores, which packed rows do not.", "Use another language model."
        )
    window = unused.get("sliding_window")
    narrow = None if window is None or documents.reach <= window else window
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return documents.attend(query, key, value, scale, narrow), None


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    asks: Tensor,
    told: Tensor,
    longest: int,
    scale: float,
    causal: bool = True,
    window: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of each document's queries over its keys, by one kernel.

    Args:
        query: Shape `[queries, heads, width]`, in a 16-bit format, on a GPU.
        key: Shape `[keys, key heads, width]`.
        value: The same shape as `key`.
        asks: Borders of the documents in `query`, shape `[documents + 1]`, int32.
        told: Their borders in `key`.
        longest: No document has more queries or keys.
        scale: Factor of the scores.
        causal: Whether a query sees nothing behind its own place (then both borders are the same).
        window: No query sees a key that is this far away or farther (then both borders are the same).

    Returns:
        Shape `[queries, heads, width]`, and the logarithm of each query's sum of exponentials, `[heads, queries]`.
    """
    attend: Any = torch.ops.aten._flash_attention_forward
    sides: dict[str, int] = {}
    if window is not None:
        sides = {"window_size_left": window - 1, "window_size_right": 0 if causal else window - 1}
    out, total, *_ = attend(query, key, value, asks, told, longest, longest, 0.0, causal, False, scale=scale, **sides)
    return out, total


def _attend_on_cpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Sequence[int],
    groups: int,
    scale: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    heads, _, width = query.shape
    found: list[Tensor] = []
    for start, many, length in _group_equal(bounds):
        end = start + many * length
        # Queries that share a key head stand in one matrix with it, so keys and values are not repeated.
        q = query[:, start:end].reshape(heads // groups, groups, many, length, width).transpose(1, 2)
        q = q.reshape(-1, groups * length, width)
        hidden = -torch.inf if causal else 0.0
        later = torch.full((length, length), hidden, dtype=q.dtype, device=q.device).triu_(1)
        if window is not None:
            place = torch.arange(length, device=q.device)
            later.masked_fill_((place[:, None] - place).abs() >= window, -torch.inf)
        later = later.repeat(groups, 1)
        k, v = (held[:, start:end].reshape(-1, length, width) for held in (key, value))
        scores = torch.baddbmm(later.expand(len(q), -1, -1), q, k.transpose(1, 2), alpha=scale)
        mixed = torch.bmm(torch.softmax(scores, dim=-1), v).view(-1, many, groups, length, width)
        found.append(mixed.permute(1, 3, 0, 2, 4).reshape(many * length, heads, width))
    return torch.cat(found)


def _group_equal(bounds: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Gather documents of one length that follow each other: where they begin, how many there are, their length."""
    for length, run in groupby(pairwise(bounds), lambda pair: pair[1] - pair[0]):
        documents = list(run)
        if length:
            yield documents[0][0], len(documents), length


def plug_in(model: Any) -> Any:
    """Make a transformers model (its adapters included) attend within documents; returns its causal LM.

    A model that is run without transformers does so already.
    """
    if isinstance(model, PlainLlama):
        return model
    library: Any = importlib.import_module("transformers")
    library.AttentionInterface.register(ATTENTION_NAME, packed_attention)
    library.AttentionMaskInterface.register(ATTENTION_NAME, _skip_mask)
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    causal.config._attn_implementation = ATTENTION_NAME
    return causal


def _skip_mask(*given: Any, **more: Any) -> None:
    return None
