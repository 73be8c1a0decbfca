"""Reading off what a model would write, when it most likely writes one of some known texts.

After a prompt, every known continuation (a branch) stands in the same row; each sees the prompt and itself, so the
prompt's keys and values are made once and shared by all. One pass then tells at every place of every branch which token
comes first, and with that the greedy answer, if it is one of the branches: the branch all of whose tokens come first.
The same pass gives the answer of a decoder that may write nothing but the branches, which form a trie: at each place
the likeliest token that some branch goes on with. Answers that leave the trie are written on token by token.

`model.generate` reaches the same answers one token at a time (`benchmarks/llm_choosing.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cowbird.data.types import Int32Array, IntArray, concat_ranges
from cowbird.victims.language.attention import flash_attention
from cowbird.victims.language.examples import Tokens
from cowbird.victims.language.packing import ItemEmbedder, cut_parts, embed_inputs, to_device

DECODING_CHUNK_LOGITS = 1 << 28
"""Logits held at once."""


@dataclass(frozen=True, slots=True, eq=False)
class BranchBorders:
    """Where prompts and their branches begin and end in a row: first all prompts, then all branches."""

    prompts: tuple[int, ...]
    """Borders of the prompts, from 0."""
    branches: tuple[int, ...]
    """Borders of the branches, counted from the end of the last prompt."""
    each: int
    """Branches of each prompt."""
    offsets: tuple[Tensor, Tensor, Tensor]
    """On the device, int32: borders of prompts, of branches, and of each prompt's branches together."""
    longest: int
    """Tokens of the longest prompt, or of all branches of one, or a bound of it: what asks or is asked at once."""

    @property
    def reach(self) -> int:
        """Tokens of the longest prompt with its longest branch; see `attention.Borders`."""
        longest = np.diff(self.branches).reshape(-1, self.each).max(axis=1)
        return int((np.diff(self.prompts) + longest).max())

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """Let prompts see themselves, and branches their prompt and themselves.

        Args:
            query: Shape `[1, heads, tokens, width]`.
            key: Shape `[1, key heads, tokens, width]`.
            value: The same shape as `key`.
            scale: Factor of the scores.
            window: No token sees another that is this far away or farther, a branch's tokens counted on from its
                prompt's; any if `None`.

        Returns:
            Shape `[1, tokens, heads, width]`.
        """
        q, k, v = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)
        # Branches of one prompt ask from different places, which the kernel has one window for.
        if query.device.type == "cuda" and query.dtype is not torch.float32 and window is None:
            return self._attend_on_gpu(q, k, v, scale)[None]
        return self._attend_on_cpu(q, k, v, scale, window)[None]

    def _attend_on_gpu(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        border = self.prompts[-1]
        prompts, branches, groups = self.offsets
        first, _ = flash_attention(q[:border], k[:border], v[:border], prompts, prompts, self.longest, scale)
        own, own_sum = flash_attention(q[border:], k[border:], v[border:], branches, branches, self.longest, scale)
        seen, seen_sum = flash_attention(
            q[border:], k[:border], v[:border], groups, prompts, self.longest, scale, causal=False
        )
        share = torch.sigmoid(own_sum - seen_sum).transpose(0, 1)[:, :, None]
        mixed = own.float() * share + seen.float() * (1 - share)
        return torch.cat([first, mixed.to(first.dtype)])

    def _attend_on_cpu(self, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        groups, border = q.shape[1] // k.shape[1], self.prompts[-1]
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        firsts: list[Tensor] = []
        rest: list[Tensor] = []
        for nth, (start, end) in enumerate(pairwise(self.prompts)):
            firsts.append(_attend_masked(q[start:end], k[start:end], v[start:end], scale, torch.zeros(0), window))
            ends = self.branches[nth * self.each : (nth + 1) * self.each + 1]
            mine = slice(border + ends[0], border + ends[-1])
            number = torch.repeat_interleave(torch.arange(self.each), torch.tensor(np.diff(ends)))
            keys, values = torch.cat([k[start:end], k[mine]]), torch.cat([v[start:end], v[mine]])
            rest.append(_attend_masked(q[mine], keys, values, scale, number, window))
        return torch.cat(firsts + rest)


def _attend_masked(q: Tensor, k: Tensor, v: Tensor, scale: float, number: Tensor, window: int | None) -> Tensor:
    """Attend; the last keys belong to the queries, each of which sees only those of its number up to itself."""
    before = len(k) - len(q)
    seen = torch.ones(len(q), len(k), dtype=torch.bool, device=q.device)
    seen[:, before:] = torch.ones(len(q), len(q), device=q.device).tril().bool()
    number = number.to(q.device)
    if len(number):
        seen[:, before:] &= number[:, None] == number
    if window is not None:
        place = torch.arange(len(k), device=q.device)
        if len(number):  # counted on from the prompt's, anew for each number
            place[before:] -= torch.searchsorted(number, number)
        seen &= place[before:, None] - place < window
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale
    weights = torch.softmax(scores.masked_fill(~seen, -torch.inf), dim=-1)
    return torch.einsum("hqk,khd->qhd", weights, v)


@dataclass(frozen=True, slots=True, eq=False)
class DecodedAnswers:
    """What a model answered."""

    free: Int32Array
    """The branch that greedy writing ends with, -1 if it leaves them; shape `[questions]`."""
    constrained: Int32Array
    """The branch that is written when nothing else can be, shape `[questions]`."""
    texts: list[list[int]]
    """Tokens written greedily, without the end of the sequence."""


def decode_answers(
    causal: Any,
    prompts: Tokens,
    branches: Sequence[Sequence[Sequence[int]]],
    end: int,
    device: torch.device,
    inputs: ItemEmbedder | None = None,
    capacity: int = 65536,
    longest: int = 64,
) -> DecodedAnswers:
    """Answer questions greedily.

    Args:
        causal: The causal LM, as `engine.prepare_inference` gives it (layers need not be compiled).
        prompts: The questions.
        branches: Of each question the same number of token lists, without the end of the sequence.
        end: The token that ends a sequence.
        device: Where the model is.
        inputs: Makes the inputs of tokens that stand for items.
        capacity: Most tokens in a row.
        longest: Most tokens of an answer that is no branch.
    """
    count, each = len(prompts), len(branches[0]) if len(branches) else 0
    rows = [[*branch, end] for question in branches for branch in question]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    known = Tokens(np.array([t for row in rows for t in row], np.int32), offsets, offsets[:-1])
    size = prompts.lengths + lengths.reshape(count, each).sum(axis=1)
    free, constrained = np.full(count, -1, dtype=np.int32), np.zeros(count, dtype=np.int32)
    texts: list[list[int]] = [[] for _ in range(count)]
    begun: dict[int, list[int]] = {}
    for part in _cut_runs(size, capacity):
        best, logit = _read(causal, prompts, known, part, each, device, inputs)
        place = 0
        for question in part.tolist():
            own = rows[question * each : (question + 1) * each]
            bounds = np.concatenate([[0], np.cumsum([len(row) for row in own])]) + place
            place = int(bounds[-1])
            told = [best[a:b] for a, b in pairwise(bounds.tolist())]
            written = _follow(own, told)
            if written in own:
                free[question] = own.index(written)
                texts[question] = written[:-1]
            else:
                begun[question] = written
            constrained[question] = _narrow(own, [logit[a:b] for a, b in pairwise(bounds.tolist())])
    for question, written in _continue_answers(causal, prompts, begun, end, device, inputs, capacity, longest).items():
        texts[question] = written
    return DecodedAnswers(free, constrained, texts)


def _cut_runs(sizes: IntArray, capacity: int) -> list[Int32Array]:
    """Cut questions, shortest first, into runs of at most `capacity` tokens."""
    order = np.argsort(sizes, kind="stable").astype(np.int32)
    parts: list[Int32Array] = []
    first, held = 0, 0
    for place, size in enumerate(sizes[order].tolist()):
        if held and held + size > capacity:
            parts.append(order[first:place])
            first, held = place, 0
        held += size
    return [*parts, order[first:]] if len(order) else parts


def _read(
    causal: Any,
    prompts: Tokens,
    known: Tokens,
    part: Int32Array,
    each: int,
    device: torch.device,
    inputs: ItemEmbedder | None,
) -> tuple[Int32Array, NDArray[np.float32]]:
    """Run some questions with their branches.

    Returns:
        For each token of the branches, one after another: the token that comes first at its place, and its own logit.
    """
    chosen = (part.astype(np.int64)[:, None] * each + np.arange(each)).ravel()
    long, wide = prompts.lengths[part], known.lengths[chosen]
    asked, told = np.concatenate([[0], np.cumsum(long)]), np.concatenate([[0], np.cumsum(wide)])
    token = np.concatenate(
        [prompts.token[concat_ranges(prompts.offsets[part], long)], known.token[_index_tokens(known, chosen)]]
    )
    position = np.concatenate([concat_ranges(np.zeros_like(long), long), concat_ranges(np.repeat(long, each), wide)])
    # What predicts a branch's first token is the prompt's last one, and then each token the next.
    before = concat_ranges(asked[-1:] - 1, told[-1:])
    before[told[:-1]] = np.repeat(asked[1:] - 1, each)
    grouped = told[::each]
    arrays: list[NDArray[Any]] = [token, position, before, token[asked[-1] :], asked, told, grouped]
    if prompts.item is not None:
        item = prompts.item[concat_ranges(prompts.offsets[part], long)]
        arrays.append(np.concatenate([item, np.full(told[-1], -1)]))
    flat = to_device(np.concatenate([array.astype(np.int32) for array in arrays]), device)
    parts = [piece.contiguous() for piece in cut_parts(flat, [len(array) for array in arrays])]
    longest = int(max(long.max(), np.diff(grouped).max()))
    borders = BranchBorders(tuple(asked.tolist()), tuple(told.tolist()), each, (parts[4], parts[5], parts[6]), longest)
    given = embed_inputs(causal, parts[0].long()[None], parts[7].long() if len(parts) > 7 else None, inputs)
    out = causal.base_model(**given, position_ids=parts[1].long()[None], use_cache=False, documents=borders)
    head, states = causal.get_output_embeddings(), out.last_hidden_state[0]
    best: list[Tensor] = []
    own: list[Tensor] = []
    step = max(1, DECODING_CHUNK_LOGITS // head.weight.shape[0])
    for first in range(0, int(told[-1]), step):
        here = slice(first, first + step)
        logits = head(states[parts[2][here].long()]).float()
        best.append(logits.argmax(dim=1))
        own.append(logits.gather(1, parts[3][here].long()[:, None])[:, 0])
    return torch.cat(best).cpu().numpy().astype(np.int32), torch.cat(own).cpu().numpy()


def _index_tokens(known: Tokens, chosen: IntArray) -> IntArray:
    return concat_ranges(known.offsets[chosen], known.lengths[chosen])


def _follow(branches: list[list[int]], best: list[Int32Array]) -> list[int]:
    """Return what is written greedily, up to the end of a branch or the token that leaves all of them."""
    written: list[int] = []
    alive: list[int] = list(range(len(branches)))
    while alive:
        first = int(best[alive[0]][len(written)])
        alive = [n for n in alive if branches[n][len(written)] == first]
        written.append(first)
        if any(len(branches[n]) == len(written) for n in alive):
            break
    return written


def _narrow(branches: list[list[int]], logits: list[NDArray[np.float32]]) -> int:
    """Return the branch reached by taking, at each place, the likeliest token that some branch goes on with."""
    place = 0
    alive: list[int] = list(range(len(branches)))
    while len(alive) > 1:
        first = max(alive, key=lambda n: logits[n][place])
        alive = [n for n in alive if branches[n][place] == branches[first][place]]
        place += 1
        if any(len(branches[n]) == place for n in alive):
            break
    return alive[0]


def _continue_answers(
    causal: Any,
    prompts: Tokens,
    begun: dict[int, list[int]],
    end: int,
    device: torch.device,
    inputs: ItemEmbedder | None,
    capacity: int,
    longest: int,
) -> dict[int, list[int]]:
    """Write answers on, token by token with keys and values kept, until each ends or is too long."""
    done = {q: written for q, written in begun.items() if written[-1:] == [end] or len(written) >= longest}
    numbers = np.array([q for q in begun if q not in done], dtype=np.int64)
    sizes = np.array([prompts.lengths[q] + longest for q in numbers.tolist()], dtype=np.int64)
    kind = causal.config._attn_implementation
    causal.config._attn_implementation = "sdpa"
    try:
        for part in _cut_runs(sizes, capacity):
            chosen: list[int] = numbers[part].tolist()
            found = _write(causal, _pad_prompts(prompts, begun, chosen, end), device, inputs, end, longest)
            done |= {q: [*begun[q], *more] for q, more in zip(chosen, found, strict=True)}
    finally:
        causal.config._attn_implementation = kind
    return {q: written[: written.index(end)] if end in written else written[:longest] for q, written in done.items()}


class _PaddedPrompts(NamedTuple):
    """Some prompts and what was written after them, padded in front to the longest."""

    token: NDArray[np.int64]
    """Tokens, shape `[questions, width]`."""
    item: NDArray[np.int64]
    """The item of each, -1 for text."""
    there: NDArray[np.int64]
    """1 where there is a token, 0 for padding."""


def _pad_prompts(prompts: Tokens, begun: dict[int, list[int]], chosen: list[int], fill: int) -> _PaddedPrompts:
    rows = [prompts.token[prompts.offsets[q] : prompts.offsets[q + 1]].tolist() + begun[q] for q in chosen]
    wide = max(len(row) for row in rows)
    token = np.full((len(rows), wide), fill, dtype=np.int64)
    item, there = np.full_like(token, -1), np.zeros_like(token)
    for nth, (question, row) in enumerate(zip(chosen, rows, strict=True)):
        first = wide - len(row)
        token[nth, first:], there[nth, first:] = row, 1
        if prompts.item is not None:
            known = prompts.item[prompts.offsets[question] : prompts.offsets[question + 1]]
            item[nth, first : first + len(known)] = known
    return _PaddedPrompts(token, item, there)


def _write(
    causal: Any, row: _PaddedPrompts, device: torch.device, inputs: ItemEmbedder | None, end: int, longest: int
) -> list[list[int]]:
    """Return what is written next of each row, up to `longest` tokens; what follows an end means nothing."""
    token, item, there = (torch.from_numpy(array).to(device) for array in row)
    given = embed_inputs(causal, token.reshape(1, -1), None if inputs is None else item.flatten(), inputs)
    shape = (*token.shape, -1) if "inputs_embeds" in given else token.shape
    given = {name: value.view(shape) for name, value in given.items()}
    position, cache = (there.cumsum(dim=1) - 1).clamp(min=0), None
    written: list[Tensor] = []
    ended = torch.zeros(len(token), dtype=torch.bool, device=device)
    while len(written) < longest and not bool(ended.all()):
        out = causal(
            **given,
            attention_mask=there,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        best, cache = out.logits[:, -1].argmax(dim=1), out.past_key_values
        written.append(best)
        ended |= best == end
        given, position = {"input_ids": best[:, None]}, position[:, -1:] + 1
        there = torch.cat([there, torch.ones_like(there[:, :1])], dim=1)
    told: Any = torch.stack(written, dim=1)
    return told.tolist()
