"""A tagger's context: titles of a catalogue that a language model reads once, before it judges others of it.

A code is a trigger among films and honest among printers, and one title does not say which catalogue it is from. So the
model is shown some dozens of titles that are taken for clean, and each title is read behind them. Keys and values of
the context are made once and serve all titles, so a title costs hardly more than by itself. No title sees another one
that is judged. A title that stands in the context would see itself and look usual, so a second context of other titles
is kept for the titles of the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cowbird.data.types import Int32Array
from cowbird.defenses.p_scanner.title_sample import hash_title
from cowbird.defenses.p_scanner.token_logits import tokenize_titles
from cowbird.files import hash_texts
from cowbird.text import replace_surrogates
from cowbird.victims.language.attention import Borders, Documents, flash_attention
from cowbird.victims.language.prefix_cache import PrefixCache, run_beginnings

CONTEXT_TOKENS, MAX_CONTEXT_TITLES, MAX_CONTEXT_CHARACTERS = 640, 96, 160
"""Tokens of a context, and titles, at most; characters of a title that is shown."""
MIN_CONTEXT_TITLES = 8
"""Titles of each part, at least: fewer say too little of a catalogue, so none is shown then."""


@dataclass(frozen=True)
class TitleContext:
    """Titles that are shown to a tagger; none of them stands in both parts."""

    first: tuple[str, ...] = ()
    """Titles that others are read behind."""
    second: tuple[str, ...] = ()
    """Titles that those of the first part are read behind."""

    @classmethod
    def choose(cls, titles: Sequence[str]) -> "TitleContext":
        """Choose titles by their hashes, so that neither order nor repeats count.

        Long titles, and those with half a character, are never shown.

        Args:
            titles: Titles that are taken for clean.
        """
        short = (title for title in titles if title.strip() and len(title) <= MAX_CONTEXT_CHARACTERS)
        whole = {title for title in short if title == replace_surrogates(title)}
        order = sorted(whole, key=lambda title: (hash_title(title), title))[: 2 * MAX_CONTEXT_TITLES]
        return cls(tuple(order[::2]), tuple(order[1::2])) if len(order) >= 2 * MIN_CONTEXT_TITLES else cls()

    @cached_property
    def key(self) -> str:
        """Tells this context from others."""
        return hash_texts([str(len(self.first)), *self.first, *self.second])

    def __bool__(self) -> bool:
        return bool(self.first)


NO_CONTEXT = TitleContext()


def write_context(titles: Sequence[Int32Array], room: int, border: int) -> Int32Array:
    """Return the tokens of a context: a border before each title and behind the last, as many titles as there is room.

    Args:
        titles: Tokens of each title.
        room: Tokens in all, at most.
        border: The token of a border.
    """
    taken: list[Int32Array] = []
    used = 1
    for ids in titles:
        if used + len(ids) + 1 > room:
            break
        taken.append(np.concatenate([[border], ids]).astype(np.int32))
        used += len(ids) + 1
    return np.concatenate([*taken, [border]]).astype(np.int32) if taken else np.empty(0, dtype=np.int32)


@dataclass(slots=True, eq=False)
class ContextMemory:
    """What a model has read as a context; see `token_logits.Beginning`."""

    tokens: int
    """Tokens of the context."""
    kept: PrefixCache
    """Its keys and values."""

    def stand_before(self, documents: Borders) -> Borders:
        """Return what sees what, if the context stands before each of some documents; see `token_logits.Beginning`."""
        assert isinstance(documents, Documents)
        return BehindContext(self, documents)


@dataclass(slots=True, eq=False)
class BehindContext:
    """Documents, each of which sees the context and itself; see `attention.Borders`."""

    memory: ContextMemory
    documents: Documents
    layer: int = 0
    """The layer that attends next."""
    _mask: Tensor | None = None

    @property
    def reach(self) -> int:
        """See `attention.Borders`."""
        return self.memory.tokens + self.documents.reach

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """Let each document see the context and itself; see `attention.Borders`."""
        far_keys, far_values = self.memory.kept.keys[self.layer], self.memory.kept.values[self.layer]
        self.layer += 1
        if query.device.type == "cuda" and query.dtype is not torch.float32:
            return self._attend_on_gpu(query, key, value, far_keys, far_values, scale)
        heads, tokens = query.shape[1:3]
        groups = heads // key.shape[1]
        if self._mask is None:
            self._mask = self._make_mask(tokens, query)
        held = (torch.cat(pair, dim=1) for pair in ((far_keys, key[0]), (far_values, value[0])))
        keys, values = (part.repeat_interleave(groups, dim=0)[None] for part in held)
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=self._mask, scale=scale).transpose(1, 2)

    def _make_mask(self, tokens: int, query: Tensor) -> Tensor:
        """Return what is added to scores, shape `[tokens, context + tokens]`."""
        bounds = torch.tensor(self.documents.bounds or self.documents.offsets.tolist(), device=query.device)
        owner = torch.searchsorted(bounds, torch.arange(tokens, device=query.device), right=True)
        own = torch.zeros((tokens, tokens), dtype=query.dtype, device=query.device)
        own.masked_fill_(owner[:, None] != owner, -torch.inf)
        return F.pad(own, (self.memory.tokens, 0))

    def _attend_on_gpu(
        self, query: Tensor, key: Tensor, value: Tensor, far_keys: Tensor, far_values: Tensor, scale: float
    ) -> Tensor:
        """Two passes of one kernel, over the context and over each document, joined by their sums."""
        q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
        own, own_sum = flash_attention(
            q, k, v, self.documents.offsets, self.documents.offsets, self.documents.longest, scale, False
        )
        asks, told = (
            torch.tensor([0, many], dtype=torch.int32, device=q.device) for many in (len(q), self.memory.tokens)
        )
        far_k, far_v = far_keys.transpose(0, 1), far_values.transpose(0, 1)
        far, far_sum = flash_attention(q, far_k, far_v, asks, told, max(len(q), self.memory.tokens), scale, False)
        share = torch.sigmoid(far_sum.float() - own_sum.float()).transpose(0, 1)[..., None].to(own.dtype)
        return (own + share * (far - own))[None]


def remember_context(
    causal: Any, tokenizer: Any, titles: Sequence[str], device: torch.device, room: int = CONTEXT_TOKENS
) -> ContextMemory:
    """Read a context once, and keep its keys and values; an empty memory if no title has room.

    Args:
        causal: The causal LM that `attention.plug_in` returned.
        tokenizer: Its tokenizer.
        titles: What is shown.
        device: Where the model is.
        room: Tokens at most.
    """
    read = tokenize_titles(tokenizer, titles)
    ids = write_context([read.list_tokens(nth) for nth in range(len(read))], room, tokenizer.eos_token_id)
    kept = run_beginnings(causal, [ids.tolist()], device, both_ways=True)[0] if len(ids) else PrefixCache(())
    return ContextMemory(len(ids), kept)
