"""Titles through a language model, for the defenses that ask one how surprising they are."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cowbird.data.types import Float32Array, Int64Array
from cowbird.text import MAX_QUOTED_LENGTH, quote_for_prompt
from cowbird.victims.fit_context import pick_device
from cowbird.victims.language.llm import Llm, LoadedModel, load_llm


def open_model(llm: Llm, device: str) -> LoadedModel:
    """Load a language model: float32 on a CPU, bfloat16 on a GPU.

    Raises:
        UserError: If the device or the model can't be used.
    """
    picked = pick_device(device)
    return load_llm(llm, picked, torch.float32 if picked.type == "cpu" else torch.bfloat16)


def average_losses(loss: Float32Array, offsets: Int64Array) -> NDArray[np.float64]:
    """Return the mean loss of each text in nats, which is the logarithm of its perplexity.

    Args:
        loss: The loss of all tokens, shape `[tokens]`.
        offsets: Where each text's begin, shape `[texts + 1]`.

    Returns:
        Shape `[texts]`; -inf for texts without tokens.
    """
    count = np.diff(offsets)
    found = np.full(len(count), -np.inf)
    read = np.flatnonzero(count)
    if len(read):
        found[read] = np.add.reduceat(loss.astype(np.float64), offsets[read]) / count[read]
    return found


def locate_tokens(loaded: LoadedModel, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
    """Return which characters [start, end) of each quotable text each of its tokens stands for.

    A token of some bytes of a character stands for that character.
    """
    if not texts:
        return []
    tokenizer: Any = loaded.tokenizer
    plain = {"add_special_tokens": False, "return_attention_mask": False, "split_special_tokens": True}
    return tokenizer(list(texts), return_offsets_mapping=True, **plain)["offset_mapping"]


@lru_cache(maxsize=4096)
def _becomes_space(letter: str) -> bool:
    """Tell whether a quotable title has a space for this character, and one for a run of such."""
    return letter != " " and quote_for_prompt(f"x{letter}x") == "x x"


def map_to_raw(title: str) -> Sequence[int]:
    """Return where in a raw title each character of `quotable(title)` stands; of a control run its first."""
    text = quote_for_prompt(title)
    if len(text) == len(title):
        return range(len(title))
    kept: list[int] = []
    control = False
    for at, letter in enumerate(title[:MAX_QUOTED_LENGTH]):
        run, control = control, _becomes_space(letter)
        if not (run and control):
            kept.append(at)
    spaces = next((nth for nth, at in enumerate(kept) if not (title[at].isspace() or _becomes_space(title[at]))), 0)
    return kept[spaces : spaces + len(text)]
