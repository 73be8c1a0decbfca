"""A tagger's context: titles of the catalogue that it reads once, before it judges others beside them."""

import numpy as np

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cowbird.data.types import Int32Array, concat_ranges
from cowbird.defenses.p_scanner.token_logits import TokenLogits, find_answer_words, tokenize_titles
from cowbird.victims.fit_context import ProgressCallback, report_nothing
from cowbird.victims.language.engine import prepare_inference
from cowbird.victims.language.llm import LoadedModel
from cowbird.victims.language.shared_rows import SharedRows, place_branches

CONTEXT_TOKENS = 640
"""Tokens of a context at most."""


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


def read_in_context(
    loaded: LoadedModel,
    titles: Sequence[str],
    context: Sequence[str],
    device: torch.device,
    rows: int = 1,
    length: int = 2048,
    room: int = CONTEXT_TOKENS,
    report: ProgressCallback = report_nothing,
) -> TokenLogits:
    """Mark titles behind a context."""
    tokenizer: Any = loaded.tokenizer
    made, told = tokenize_titles(tokenizer, titles), tokenize_titles(tokenizer, context)
    shown = write_context([told.list_tokens(nth) for nth in range(len(told))], room, tokenizer.eos_token_id)
    count = np.diff(made.offsets)
    yes, no = find_answer_words(tokenizer)
    order = np.argsort(count, kind="stable")
    mark, verdict = np.empty(len(made.token), np.float32), np.empty(len(made), np.float32)
    # Rows: fill greedily, longest titles get rows of their own size.
    parts: list[list[int]] = []
    used = length
    for nth in order.tolist():
        need = int(count[nth]) + 1
        if used + need > length:
            parts.append([])
            used = len(shown)
        parts[-1].append(nth)
        used += need
    longest = max([length, *(len(shown) + 1 + int(count[nth]) for nth in order[-1:].tolist())])
    longest = -(-longest // 32) * 32
    with prepare_inference(loaded.model, device, False) as causal:
        head = causal.get_output_embeddings().weight
        direction = (head[yes].float() - head[no].float())[:, None]
        for at in range(0, len(parts), rows):
            some = parts[at : at + rows]
            token = np.zeros((len(some), longest), np.int64)
            branch = np.full((len(some), longest), -1, np.int64)
            places: list[int] = []
            for row, chosen in enumerate(some):
                token[row, : len(shown)], branch[row, : len(shown)] = shown, 0
                spot = len(shown)
                for number, nth in enumerate(chosen, 1):
                    size = int(count[nth]) + 1
                    token[row, spot] = tokenizer.eos_token_id
                    token[row, spot + 1 : spot + size] = made.list_tokens(nth)
                    branch[row, spot : spot + size] = number
                    places.extend(range(row * longest + spot, row * longest + spot + size))
                    spot += size
            position = torch.from_numpy(place_branches(branch)).reshape(1, -1).to(device)
            seen = SharedRows.see(torch.from_numpy(branch).to(device), head.dtype)
            out = causal.base_model(
                input_ids=torch.from_numpy(token).reshape(1, -1).to(device),
                position_ids=position, use_cache=False, documents=seen,
            )  # fmt: skip
            states: Tensor = out.last_hidden_state[0][torch.tensor(places, device=device)]
            flat = (states.float() @ direction)[:, 0].cpu().numpy()
            chosen = [nth for part in some for nth in part]
            starts = np.concatenate([[0], np.cumsum(count[chosen] + 1)[:-1]])
            verdict[chosen] = flat[starts]
            mark[concat_ranges(made.offsets[chosen], count[chosen])] = flat[concat_ranges(starts + 1, count[chosen])]
            report(min(len(order), at), len(order), "titles")
    return TokenLogits(made, mark, verdict)
