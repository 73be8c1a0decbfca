"""Prompts that begin alike, run together: the beginning is run once, and the endings branch off it.

Of a prompt of 200 tokens some 20 are left to run (`candidate_decoding.BranchBorders`). What comes out is what each
prompt gives alone (`tests/victims/test_probing.py`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cowbird.data.types import Int64Array, IntArray, concat_ranges
from cowbird.victims.language.candidate_decoding import BranchBorders
from cowbird.victims.language.examples import Tokens
from cowbird.victims.language.packing import ItemEmbedder, cut_parts, embed_inputs, split_runs, to_device

MAX_BRANCH_TOKENS = 512
"""Most tokens that branch off one beginning in a row, where attention makes the scores of all pairs of them: on a CPU,
and with gradients."""
LIKELIHOOD_CHUNK_TOKENS = 1024
"""Tokens whose logits are held at once."""


class AnswerStates(NamedTuple):
    """What a model has in mind where it answers some prompts."""

    states: Tensor
    """Last hidden states that predict the answers' tokens, shape `[tokens]` of all answers by `[hidden]`."""
    labels: Tensor
    """Those tokens, shape `[tokens]`, int64."""
    lengths: Tensor
    """How many of them each prompt has, at least one, shape `[prompts]`, int64."""

    @property
    def first(self) -> Tensor:
        """The state where each answer begins, shape `[prompts, hidden]`, float32."""
        return self.states[self.lengths.cumsum(0) - self.lengths].float()


@dataclass(frozen=True, slots=True, eq=False)
class UnfusedBorders(BranchBorders):
    """Attention in plain steps on every device: the fused kernel's sums of exponentials have no gradients."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """Let prompts see themselves, and branches their prompt and themselves; see `BranchBorders.attend`."""
        q, k, v = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)
        return self._attend_on_cpu(q, k, v, scale, window)[None]


def run_passes(
    causal: Any,
    tokens: Tokens,
    each: int,
    capacity: int,
    device: torch.device,
    weigh: Callable[[Any, AnswerStates], Tensor],
    kind: type[BranchBorders],
    inputs: ItemEmbedder | None = None,
) -> Iterator[tuple[IntArray, Tensor]]:
    """Run prompts, runs of `each` of which begin alike; yield which prompts, and what `weigh` makes of them.

    Args:
        causal: The causal LM, as `engine.prepare_inference` gives it.
        tokens: Prompts with answers of a token or more.
        each: Prompts of a run.
        capacity: Most tokens in a row.
        device: Where the model is.
        weigh: Told what the model has in mind where it answers.
        kind: How prompts and branches attend.
        inputs: Makes the inputs of tokens that stand for items.
    """
    shared = _count_shared(tokens, each)
    if not shared.all():  # prompts so long that they lost their beginnings: each is a run of its own
        each, shared = 1, tokens.answer - tokens.offsets[:-1] - 1
    grid = np.arange(len(tokens)).reshape(-1, each)
    # An answer's last token predicts nothing that is asked for.
    rest = tokens.lengths.reshape(-1, each) - shared[:, None] - 1
    most = MAX_BRANCH_TOKENS if kind is UnfusedBorders or device.type == "cpu" else capacity
    # Within a model's window the kernel is taken, which makes no scores of all pairs.
    most = min(most, getattr(causal.config, "sliding_window", None) or most)
    for part in split_runs(shared, np.arange(len(grid)), capacity // 2):
        room = min(capacity // 2, most * len(part))
        for texts in split_runs(rest[part].sum(axis=0), np.arange(each), room):
            rows = grid[np.ix_(part, texts)]
            told = _run_pass(causal, tokens, rows, shared[part], device, inputs, kind)
            yield rows.ravel(), weigh(causal, told)


def _count_shared(tokens: Tokens, each: int) -> Int64Array:
    """Return how many tokens the prompts of each run have in common at their beginnings, but for their last ones."""
    found: list[int] = []
    for start in range(0, len(tokens), each):
        first = tokens.offsets[start : start + each]
        alike = int((tokens.answer[start : start + each] - first).min()) - 1
        table = first[:, None] + np.arange(alike)
        same = (tokens.token[table] == tokens.token[table[0]]).all(axis=0)
        if tokens.item is not None:
            same &= (tokens.item[table] == tokens.item[table[0]]).all(axis=0)
        found.append(alike if same.all() else int(same.argmin()))
    return np.array(found, dtype=np.int64)


def _run_pass(
    causal: Any,
    tokens: Tokens,
    rows: IntArray,
    shared: Int64Array,
    device: torch.device,
    inputs: ItemEmbedder | None,
    kind: type[BranchBorders],
) -> AnswerStates:
    """Run some prompts as branches of their common beginnings.

    Args:
        causal: The causal LM.
        tokens: All prompts.
        rows: Which of them, shape `[runs, each]`.
        shared: Tokens that each run has in common, shape `[runs]`, at least one.
        device: Where the model is.
        inputs: Makes the inputs of tokens that stand for items.
        kind: How they attend.
    """
    each, chosen = rows.shape[1], rows.ravel()
    skipped = np.repeat(shared, each)
    wide, answer = tokens.lengths[chosen] - skipped - 1, tokens.offsets[1:][chosen] - tokens.answer[chosen]
    heads, tails = tokens.offsets[:-1][rows[:, 0]], tokens.offsets[:-1][chosen] + skipped
    place = np.concatenate([concat_ranges(heads, shared), concat_ranges(tails, wide)])
    position = np.concatenate([concat_ranges(np.zeros_like(shared), shared), concat_ranges(skipped, wide)])
    asked, told = np.concatenate([[0], np.cumsum(shared)]), np.concatenate([[0], np.cumsum(wide)])
    before = asked[-1] + concat_ranges(told[1:] - answer, answer)
    label = tokens.token[concat_ranges(tokens.answer[chosen], answer)]
    grouped = told[::each]
    arrays: list[NDArray[Any]] = [tokens.token[place], position, before, label, answer, asked, told, grouped]
    if tokens.item is not None:
        arrays.append(tokens.item[place])
    flat = to_device(np.concatenate([array.astype(np.int32) for array in arrays]), device)
    parts = [part.contiguous() for part in cut_parts(flat, [len(array) for array in arrays])]
    longest = int(max(shared.max(), np.diff(grouped).max()))
    borders = kind(tuple(asked.tolist()), tuple(told.tolist()), each, (parts[5], parts[6], parts[7]), longest)
    given = embed_inputs(causal, parts[0].long()[None], parts[8].long() if len(parts) > 8 else None, inputs)
    out = causal.base_model(**given, position_ids=parts[1].long()[None], use_cache=False, documents=borders)
    return AnswerStates(out.last_hidden_state[0][parts[2].long()], parts[3].long(), parts[4].long())


def sum_log_probs(causal: Any, told: AnswerStates) -> Tensor:
    """Return the log p of whole answers, shape `[prompts]`; logits are made for some tokens at a time."""
    head = causal.get_output_embeddings()
    found: list[Tensor] = []
    for start in range(0, len(told.labels), LIKELIHOOD_CHUNK_TOKENS):
        logits = head(told.states[start : start + LIKELIHOOD_CHUNK_TOKENS]).float()
        found.append(-F.cross_entropy(logits, told.labels[start : start + LIKELIHOOD_CHUNK_TOKENS], reduction="none"))
    return torch.segment_reduce(torch.cat(found), "sum", lengths=told.lengths, axis=0)
