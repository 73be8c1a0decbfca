"""How likely a language model finds answers after prompts that begin alike; the beginning is run once for many."""

import numpy as np
import torch

from cowbird.data.types import Float32Array
from cowbird.victims.fit_context import ProgressCallback, report_nothing
from cowbird.victims.language.branched_passes import run_passes, sum_log_probs
from cowbird.victims.language.candidate_decoding import BranchBorders
from cowbird.victims.language.engine import prepare_inference
from cowbird.victims.language.examples import Tokens
from cowbird.victims.language.llm import LoadedModel


def compute_log_likelihood(
    loaded: LoadedModel,
    tokens: Tokens,
    device: torch.device,
    capacity: int = 8192,
    report: ProgressCallback = report_nothing,
) -> Float32Array:
    """Return log p of each answer given its prompt, in nats, shape `[examples]`, float32.

    Args:
        loaded: The language model and its tokenizer.
        tokens: Prompts with answers of a token or more. What all prompts begin with is run once for a row of them.
        device: Where the model is.
        capacity: Most tokens in a row.
        report: Told of examples done and all of them.
    """
    if not len(tokens):
        return np.zeros(0, dtype=np.float32)
    found, done = np.empty(len(tokens), dtype=np.float32), 0
    with prepare_inference(loaded.model, device, compile_layers=False) as causal:
        for rows, values in run_passes(causal, tokens, len(tokens), capacity, device, sum_log_probs, BranchBorders):
            found[rows] = values.cpu().numpy()
            done += len(rows)
            report(done, len(tokens), "questions")
    return found
