"""A language model that reads one title and marks what does not belong there.

A causal model knows of a token what stands before it. Here attention goes both ways: each token sees the whole title,
and says whether it is part of a trigger; the border before the title gives the verdict on all of it. The adapters learn
to live with that in the first round, and a title is read once, not twice as it would have to be for a causal model to
know all of it. Words for yes and no are tokens of the vocabulary, so that this is language modeling with labels, and
the engine that tunes recommenders tunes it (`cowbird.victims.language.tuning`). P-Scanner (arXiv 2504.11182) asks for
the verdict alone; marks say where.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cowbird.data.types import Float32Array, Int32Array, Int64Array, concat_ranges
from cowbird.errors import UserError
from cowbird.text import MAX_QUOTED_LENGTH, replace_surrogates
from cowbird.victims.fit_context import ProgressCallback, report_nothing
from cowbird.victims.language.attention import Borders
from cowbird.victims.language.engine import prepare_inference
from cowbird.victims.language.examples import Tokens
from cowbird.victims.language.llm import LoadedModel
from cowbird.victims.language.packing import compute_hidden_states, fill_row, pack, split_runs, to_device

HEAD_CHARACTERS, TAIL_CHARACTERS = MAX_QUOTED_LENGTH, 120
"""Of a longer title these many characters are read, from its beginning (all that victims read) and from its end."""
MAX_TOKENS_READ = 4 * (HEAD_CHARACTERS + TAIL_CHARACTERS)
"""Tokens of a title that are read, one a byte; of more, the last quarter stands for the end."""
ROW_TOKENS = 256
"""Tokens of a packed row, a multiple of it for a longer title, where a processor multiplies in bfloat16. There the last
digits of a product depend on how many rows it has. With rows of one size, a title's score is its own."""
ANSWER_WORDS = (" Yes", " No")
"""What the model writes where a trigger is, and where none is."""


def clip_title(title: str) -> str:
    """Return what of a title is read: its beginning and its end, with U+FFFD for halves of characters."""
    cut = (
        title if len(title) <= HEAD_CHARACTERS + TAIL_CHARACTERS else title[:HEAD_CHARACTERS] + title[-TAIL_CHARACTERS:]
    )
    return replace_surrogates(cut)


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedTitles:
    """Titles as a model reads them."""

    tokens: Tokens
    """Each title behind a border or between two; what is predicted is the verdict in place of the first, and a mark for
    each token."""
    token: Int32Array
    """Tokens of all titles, once, shape `[marks]`, int32."""
    first: Int32Array
    """First character of each token in its raw title, shape `[marks]`, int32."""
    after: Int32Array
    """The character after its last one, shape `[marks]`, int32."""
    offsets: Int64Array
    """Where each title's tokens begin, shape `[titles + 1]`, int64."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def list_tokens(self, title: int) -> Int32Array:
        """Return the tokens of a title, shape `[tokens]`."""
        return self.token[self.offsets[title] : self.offsets[title + 1]]

    def find_inside(self, title: int, spans: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
        """Return which tokens of a title lie in stretches of its characters, shape `[tokens]`."""
        part = slice(int(self.offsets[title]), int(self.offsets[title + 1]))
        inside = np.zeros(part.stop - part.start, dtype=bool)
        for start, end in spans:
            inside |= (self.first[part] < end) & (self.after[part] > start)
        return inside


def tokenize_titles(tokenizer: Any, titles: Sequence[str], closed: bool = True) -> TokenizedTitles:
    """Write titles as a model reads them.

    Args:
        tokenizer: A fast tokenizer that takes control tokens as text (`victims.language.llm.load_llm`).
        titles: Any texts.
        closed: Whether a border stands behind a title, too.
    """
    texts = [clip_title(title) for title in titles]
    # Straight from the library below: what transformers makes of its answer takes longer than tokenizing.
    quick = tokenizer.backend_tokenizer
    quick.no_truncation()
    quick.no_padding()
    quick.encode_special_tokens = True
    found: list[Any] = quick.encode_batch(texts, add_special_tokens=False)
    ids: list[list[int]] = [entry.ids for entry in found]
    places: list[list[tuple[int, int]]] = [entry.offsets for entry in found]
    for row, known in enumerate(ids):
        if len(known) > MAX_TOKENS_READ:
            keep = MAX_TOKENS_READ // 4
            ids[row] = known[: MAX_TOKENS_READ - keep] + known[-keep:]
            places[row] = places[row][: MAX_TOKENS_READ - keep] + places[row][-keep:]
    count = np.array([len(known) for known in ids], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(count)])
    token = np.fromiter(chain.from_iterable(ids), dtype=np.int32, count=int(offsets[-1]))
    flat = np.fromiter(chain.from_iterable(chain.from_iterable(places)), dtype=np.int32, count=2 * len(token))
    first, after = flat[::2], flat[1::2]
    long = np.array([max(0, len(title) - HEAD_CHARACTERS - TAIL_CHARACTERS) for title in titles], dtype=np.int64)
    gap = np.repeat(long, count).astype(np.int32)  # what is read of the end stands further behind in the raw title
    first, after = first + gap * (first >= HEAD_CHARACTERS), after + gap * (after > HEAD_CHARACTERS)
    return TokenizedTitles(_add_borders(token, offsets, tokenizer.eos_token_id, closed), token, first, after, offsets)


def _add_borders(token: Int32Array, offsets: Int64Array, border: int, closed: bool) -> Tokens:
    """Write every title behind a border, perhaps between two, to be read both ways."""
    count = np.diff(offsets)
    starts = np.concatenate([[0], np.cumsum(count + 1 + closed)])
    made = np.full(int(starts[-1]), border, dtype=np.int32)
    made[concat_ranges(starts[:-1] + 1, count)] = token
    # The engine predicts what stands in a place from the place before it: the verdict from the first border.
    return Tokens(made, starts, starts[:-1] + 1, both_ways=True)


def find_answer_words(tokenizer: Any) -> tuple[int, int]:
    """Return the tokens for yes and no.

    Raises:
        UserError: If they are one.
    """
    yes, no = (tokenizer(word, add_special_tokens=False)["input_ids"][-1] for word in ANSWER_WORDS)
    if yes == no:
        raise UserError("This tokenizer has no words of their own for yes and no.", "Use another language model.")
    return yes, no


@dataclass(frozen=True, eq=False)
class TokenLogits:
    """What a model makes of some titles: log-odds that something is part of a trigger."""

    tokenized: TokenizedTitles
    """The titles as they were read."""
    mark: Float32Array
    """Of each token, shape `[marks]`, float32."""
    verdict: Float32Array
    """Of each title, shape `[titles]`, float32."""

    @cached_property
    def rows(self) -> Int64Array:
        """The title of each token, shape `[marks]`."""
        return np.repeat(np.arange(len(self.tokenized)), np.diff(self.tokenized.offsets))


class Beginning(Protocol):
    """What a model has read before titles, each of which sees it: `title_context.ContextMemory`."""

    tokens: int
    """How many tokens it has."""

    def stand_before(self, documents: Borders) -> Borders:
        """Return what sees what, if it stands before each of some documents."""
        ...


def read_logits(
    loaded: LoadedModel,
    titles: Sequence[str],
    device: torch.device,
    capacity: int = 4096,
    report: ProgressCallback = report_nothing,
    compile_layers: bool = False,
    remember: Callable[[Any], Beginning] | None = None,
    closed: bool = True,
) -> TokenLogits:
    """Mark titles.

    Args:
        loaded: The tuned model and its tokenizer.
        titles: Any texts.
        device: Where the model is.
        capacity: Most tokens in a packed row; more run faster on a GPU and take more memory.
        report: Told of titles done and all of them.
        compile_layers: Whether layers are compiled on a GPU, which takes a while and pays for many titles.
        remember: Returns what titles are read behind, given the causal LM; `None` reads each by itself.
        closed: Whether a border stands behind a title, too, as the model was taught.
    """
    made = tokenize_titles(loaded.tokenizer, titles, closed)
    yes, no = find_answer_words(loaded.tokenizer)
    tokens, count = made.tokens, np.diff(made.offsets)
    order = np.argsort(tokens.lengths, kind="stable")
    parts: list[Tensor] = []
    with prepare_inference(loaded.model, device, compile_layers) as causal:
        head = causal.get_output_embeddings().weight
        fixed = device.type == "cpu" and head.dtype is torch.bfloat16
        capacity = min(capacity, ROW_TOKENS) if fixed else capacity
        direction = (head[yes].float() - head[no].float())[:, None]
        before, done = None if remember is None else remember(causal), 0
        for part in split_runs(tokens.lengths, order, capacity):
            begin = np.concatenate([[0], np.cumsum(tokens.lengths[part])[:-1]])
            places = concat_ranges(begin, count[part] + 1)
            row, wanted = pack(tokens, part, device), to_device(places.astype(np.int32), device).long()
            row = fill_row(row, ROW_TOKENS) if fixed else row
            if before is not None and before.tokens:
                row = replace(row, position=row.position + before.tokens, documents=before.stand_before(row.documents))
            if fixed:  # all that is multiplied has the row's size
                states = compute_hidden_states(causal, row, torch.arange(row.token.shape[1]))
                parts.append((states.float() @ direction)[wanted, 0])
            else:
                parts.append((compute_hidden_states(causal, row, wanted).float() @ direction)[:, 0])
            done += len(part)
            report(done, len(titles), "titles")
        flat = torch.cat(parts).cpu().numpy() if parts else np.empty(0, dtype=np.float32)
    # What was read in the order of length goes back to its place.
    starts = np.concatenate([[0], np.cumsum(count + 1)])
    told = np.empty(int(starts[-1]), dtype=np.float32)
    told[concat_ranges(starts[:-1][order], count[order] + 1)] = flat
    return TokenLogits(made, told[concat_ranges(starts[:-1] + 1, count)], told[starts[:-1]])
