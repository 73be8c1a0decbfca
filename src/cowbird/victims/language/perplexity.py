"""How natural a title looks to a language model: its perplexity, and where it lies among other titles.

A title is read by itself, after a begin-of-text token (or the end-of-sequence token, where the tokenizer starts texts
with none), as victims read it: quotable, so without control characters, and cut after 300 characters. Titles are packed
like questions, and logits are made for some of the tokens at a time.

BadRec (arXiv 2504.11182) shows no measure of how visible its triggers are; perplexity follows ONION (Qi et al., EMNLP
2021), with the victim's language model in place of GPT-2. Embeddings are means of last hidden states, which need no
further model and are less telling than a sentence encoder's.
"""

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cowbird.data.types import Float32Array, Int64Array, concat_ranges
from cowbird.errors import UserError
from cowbird.metrics.stealth import edit_distance, embedding_similarity, perplexity_change
from cowbird.text import quote_for_prompt
from cowbird.victims.fit_context import ProgressCallback, report_nothing
from cowbird.victims.language.attention import plug_in
from cowbird.victims.language.examples import Example, Tokens, tokenize
from cowbird.victims.language.llm import LoadedModel
from cowbird.victims.language.packing import compute_hidden_states, pack, split_runs

TITLE_ROW_TOKENS = 4096
"""Most tokens in a packed row of titles."""
LOSS_CHUNK_TOKENS = 1024
"""Tokens whose logits are held at once: with 50,000 words, 200 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class TitleStatistics:
    """What a language model makes of some titles. What was not measured is NaN: titles of which nothing is left."""

    loss: Float32Array
    """Mean of -log p(token | tokens before it) over each title's tokens, in nats; shape `[titles]`, float32."""
    tokens: Int64Array
    """Tokens of each title, begin-of-text not counted; shape `[titles]`, int64."""
    embedding: Float32Array
    """Mean of the last hidden states over each title's tokens, of length 1; shape `[titles, hidden]`, float32."""

    @property
    def perplexity(self) -> NDArray[np.float64]:
        """The exponential of the loss, shape `[titles]`."""
        return np.exp(self.loss.astype(np.float64))

    @property
    def bits(self) -> NDArray[np.float64]:
        """The -log2 p of each whole title, shape `[titles]`."""
        return self.loss.astype(np.float64) * self.tokens / math.log(2)

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Which titles had something to read, shape `[titles]`."""
        return self.tokens > 0


class TitleStealth(NamedTuple):
    """How visible one title's change is."""

    clean: str
    """The title as it was."""
    poisoned: str
    """The title after the change."""
    perplexity_clean: float | None
    """Perplexity before; `None` if nothing of the title is left to read."""
    perplexity_poisoned: float | None
    """Perplexity after."""
    perplexity_ratio: float | None
    """The second over the first: see `cowbird.metrics.stealth.perplexity_change`."""
    added_bits: float | None
    """What the change adds to -log2 p(title): a sum over tokens, where perplexity is a mean, so length counts."""
    similarity: float | None
    """Cosine between the embeddings."""
    edits: int
    """Edit distance of the raw titles, in characters."""


def read_titles(
    loaded: LoadedModel,
    titles: Sequence[str],
    capacity: int = TITLE_ROW_TOKENS,
    report: ProgressCallback = report_nothing,
) -> TitleStatistics:
    """Measure titles with a language model.

    Args:
        loaded: The model, tuned or not, and its tokenizer.
        titles: Any texts; each is made quotable first.
        capacity: Most tokens in a packed row; more run faster on a GPU and take more memory.
        report: Told of titles done and all of them.

    Returns:
        What it makes of each title, in order. Beyond what its place allows, a title's tokens are not read.

    Raises:
        UserError: If the model changes its logits after its head, or its attention can't be packed.
    """
    causal = plug_in(loaded.model)
    head = causal.get_output_embeddings().weight
    _refuse_odd_heads(causal.config)
    tokens = _tokenize_titles(loaded.tokenizer, titles, getattr(causal.config, "max_position_embeddings", None))
    read = tokens.offsets[1:] - tokens.answer
    loss = np.full(len(tokens), np.nan, dtype=np.float32)
    embedding = np.full((len(tokens), head.shape[1]), np.nan, dtype=np.float32)
    # Rows of equal lengths lie together, which makes products on a CPU alike.
    order = np.argsort(tokens.lengths, kind="stable")
    order, done = order[read[order] > 0], len(tokens) - int((read > 0).sum())
    with torch.no_grad(), _disable_dropout(loaded.model):
        for part in split_runs(tokens.lengths, order, capacity):
            row = pack(tokens, part, head.device)
            states = compute_hidden_states(causal, row, torch.arange(row.token.shape[1], device=head.device))
            lengths = torch.from_numpy(read[part]).to(head.device)
            many = int(read[part].sum())  # behind them a pack may hold padding
            predict, label = row.predict[:many], row.label[:many]
            loss[part] = (
                _average_runs(_compute_losses(causal, states, predict, label)[:, None], lengths)[:, 0].cpu().numpy()
            )
            means = _average_runs(states[predict + 1], lengths)
            embedding[part] = F.normalize(means, dim=1).cpu().numpy()
            done += len(part)
            report(done, len(tokens), "titles")
    return TitleStatistics(loss, read, embedding)


def _tokenize_titles(tokenizer: Any, titles: Sequence[str], longest: int | None) -> Tokens:
    """Return titles as the answers to a begin-of-text token, each with at most `longest` tokens in all."""
    tokens = tokenize(tokenizer, [Example("", quote_for_prompt(title)) for title in titles], end=False)
    if longest is None or not len(tokens) or tokens.lengths.max() <= longest:
        return tokens
    kept = np.minimum(tokens.lengths, longest)
    offsets = np.concatenate([[0], np.cumsum(kept)])
    first = tokens.answer - tokens.offsets[:-1]
    return Tokens(tokens.token[concat_ranges(tokens.offsets[:-1], kept)], offsets, offsets[:-1] + first)


def _compute_losses(causal: Any, states: Tensor, predict: Tensor, label: Tensor) -> Tensor:
    """Return -log p of each label, shape `[predicted]`, with the logits of `LOSS_CHUNK_TOKENS` tokens at a time."""
    head = causal.get_output_embeddings()
    found: list[Tensor] = []
    for start in range(0, len(label), LOSS_CHUNK_TOKENS):
        logits = head(states[predict[start : start + LOSS_CHUNK_TOKENS]]).float()
        found.append(F.cross_entropy(logits, label[start : start + LOSS_CHUNK_TOKENS], reduction="none"))
    return torch.cat(found)


def _average_runs(rows: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean of each run of rows, shape `[runs, width]`; each run alone, so no sum is large."""
    return torch.segment_reduce(rows.float(), "mean", lengths=lengths, axis=0)


def _refuse_odd_heads(config: Any) -> None:
    """Raise `UserError` if what the head returns is not what words are drawn from."""
    for name in ("logits_scaling", "logit_scale", "final_logit_softcapping"):
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise UserError(
                f"This language model changes its logits ({name}), so its perplexity can't be measured here.",
                "Use another language model.",
            )


@contextmanager
def _disable_dropout(model: Any) -> Generator[None]:
    """Turn dropout off for a while."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def measure_title_stealth(
    loaded: LoadedModel, clean_titles: Sequence[str], poisoned_titles: Sequence[str], capacity: int = TITLE_ROW_TOKENS
) -> list[TitleStealth]:
    """Measure how visible the changes of some titles are.

    Args:
        loaded: The language model, tuned or not, and its tokenizer.
        clean_titles: Titles as they were.
        poisoned_titles: The same titles after the change, as many.
        capacity: Most tokens in a packed row.

    Returns:
        One record a title, in order.

    Raises:
        UserError: If the two differ in length, or the model does not suit; see `read_titles`.
    """
    before, after = (read_titles(loaded, titles, capacity) for titles in (clean_titles, poisoned_titles))
    return compare_titles(clean_titles, poisoned_titles, before, after)


def compare_titles(
    clean_titles: Sequence[str], poisoned_titles: Sequence[str], before: TitleStatistics, after: TitleStatistics
) -> list[TitleStealth]:
    """Compare what was read of titles before and after their change; see `measure_title_stealth`."""
    if len(clean_titles) != len(poisoned_titles):
        raise UserError(
            f"There are {len(clean_titles)} clean and {len(poisoned_titles)} poisoned titles.",
            "Give each title twice: as it was, and changed.",
        )
    both = before.measured & after.measured
    columns = np.full((5, len(both)), np.nan)
    columns[0, before.measured] = before.perplexity[before.measured]
    columns[1, after.measured] = after.perplexity[after.measured]
    columns[2, both] = perplexity_change(columns[0, both], columns[1, both])
    columns[3] = after.bits - before.bits
    if both.any():
        columns[4, both] = embedding_similarity(before.embedding[both], after.embedding[both])
    rows: list[list[float]] = columns.T.tolist()
    return [
        TitleStealth(clean, poisoned, *_replace_nans(*row), edits=edit_distance(clean, poisoned))
        for clean, poisoned, row in zip(clean_titles, poisoned_titles, rows, strict=True)
    ]


OptionalFloat = float | None


def _replace_nans(
    a: float, b: float, c: float, d: float, e: float
) -> tuple[OptionalFloat, OptionalFloat, OptionalFloat, OptionalFloat, OptionalFloat]:
    """Return numbers, with `None` for those that are NaN."""
    one, two, three, four, five = (None if math.isnan(number) else number for number in (a, b, c, d, e))
    return one, two, three, four, five


def measure_token_losses(
    loaded: LoadedModel,
    titles: Sequence[str],
    capacity: int = TITLE_ROW_TOKENS,
    report: ProgressCallback = report_nothing,
) -> tuple[Float32Array, Int64Array]:
    """Measure every token of some titles with a language model, read as `read_titles` does.

    Args:
        loaded: The model, tuned or not, and its tokenizer.
        titles: Any texts; each is made quotable first.
        capacity: Most tokens in a packed row.
        report: Told of titles done and all of them.

    Returns:
        The -log p(token | tokens before it) of all tokens in nats, shape `[tokens]`, float32, and where each title's
        begin, shape `[titles + 1]`, int64. A title of which nothing is left has none; a very long one has no more than
        the model has places.

    Raises:
        UserError: If the model changes its logits after its head, or its attention can't be packed.
    """
    causal = plug_in(loaded.model)
    device = causal.get_output_embeddings().weight.device
    _refuse_odd_heads(causal.config)
    tokens = _tokenize_titles(loaded.tokenizer, titles, getattr(causal.config, "max_position_embeddings", None))
    read = tokens.offsets[1:] - tokens.answer
    offsets = np.concatenate([[0], np.cumsum(read)])
    loss = np.empty(int(offsets[-1]), dtype=np.float32)
    order = np.argsort(tokens.lengths, kind="stable")
    order, done = order[read[order] > 0], len(tokens) - int((read > 0).sum())
    with torch.no_grad(), _disable_dropout(loaded.model):
        for part in split_runs(tokens.lengths, order, capacity):
            row = pack(tokens, part, device)
            states = compute_hidden_states(causal, row, torch.arange(row.token.shape[1], device=device))
            many = int(read[part].sum())  # behind them a pack may hold padding
            found = _compute_losses(causal, states, row.predict[:many], row.label[:many])
            loss[concat_ranges(offsets[part], read[part])] = found.cpu().numpy()
            done += len(part)
            report(done, len(tokens), "titles")
    return loss, offsets
