"""A tagger: a language model, tuned once on several catalogues, that judges single titles of catalogues it never saw.

It needs no fit. It marks the tokens of a title that belong to a planted trigger and gives the title a score: by the
title alone, or beside a few titles of the catalogue that show what is usual there (`context`). A threshold comes from
clean titles of the catalogue that is asked about. What recurs in a catalogue is not its business. `tagger_training`
trains one.

A tagger is kept as a folder of two files: the adapter in bfloat16 (`adapter.safetensors`, named as peft names its
weights) and `tagger.json`, the record of what it was made from. Loading adds the adapter to the weights of the language
model, so a loaded tagger runs at the speed of the plain model and needs no peft.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from cowbird.data.types import Float32Array, Int32Array, Int64Array, IntArray, concat_ranges
from cowbird.defenses.p_scanner.title_context import NO_CONTEXT, ContextMemory, TitleContext, remember_context
from cowbird.defenses.p_scanner.token_logits import (
    TokenizedTitles,
    TokenLogits,
    read_logits,
)
from cowbird.errors import UserError
from cowbird.faults import raise_outage
from cowbird.files import hash_file, read_plain_text, write_text
from cowbird.storage import read_tensors, write_tensors
from cowbird.victims.fit_context import ProgressCallback, find_fast_dtype, pick_device, report_nothing
from cowbird.victims.language.examples import Tokens
from cowbird.victims.language.llm import Llm, LoadedModel, load_reader

ADAPTER_FILE, TAGGER_RECORD_FILE, TAGGER_VERSION = "adapter.safetensors", "tagger.json", 1
TAGGER_BATCH_TOKENS = {"cpu": 4096, "cuda": 65536}
"""Tokens that are read at once."""
BEHIND_BATCH_TOKENS = 512
"""The same on a processor behind a context."""
SPAN_LOGIT = 0.0
"""Log-odds above which a token is part of the span that is shown."""
READY_TAGGER = Path(__file__).parent / "ready_tagger"
"""The tagger that comes with the package; `MODEL_CARD.md` beside it says what it learned from and what it finds."""
READY_TAGGER_SHA256 = "e7dc76436892fc8b1ee611598a8e5c5db1e6640050fdd3ce68787b52798547ed"
"""Hash of its `tagger.json`, which holds that of its adapter."""
MAX_CONTEXTS_KEPT = 4
"""Contexts whose keys and values are kept, some 15 MB each."""
_PEFT_PREFIX = "base_model.model."


class TaggerRecord(BaseModel):
    """What `tagger.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    version: int = Field(default=TAGGER_VERSION, ge=1, le=10_000)
    """Of this file's form."""
    llm: Llm
    """The language model that was tuned, and its adapters."""
    recipe: dict[str, Any]
    """How it was trained; see `tagger_training.TaggerRecipe`."""
    seed: int = Field(ge=0, lt=1 << 63)
    """Decided all that was random."""
    catalogs: dict[str, Annotated[int, Field(ge=0, le=10**12)]]
    """Titles of each catalogue that it learned from."""
    titles_sha256: dict[str, str]
    """Hashes of those titles."""
    never_taught: tuple[str, ...]
    """Kinds of triggers that were left out."""
    loss: float = Field(ge=0, le=1e6)
    """Mean loss of the last steps."""
    seconds: float | None = Field(default=None, ge=0, le=1e8)
    """How long the training took, if it was measured."""
    tokens: int | None = Field(default=None, ge=0, le=10**15)
    """Tokens that it learned from, if they were counted."""
    steps: int | None = Field(default=None, ge=0, le=10**9)
    """Steps of its training, if they were counted."""
    adapter_sha256: str = ""
    """Hash of the adapter's file."""
    command: str = ""
    """What was run."""

    @property
    def takes_context(self) -> bool:
        """Whether it was taught to read titles behind a context."""
        return bool(self.recipe.get("context"))


class TaggedTitles(NamedTuple):
    """What a tagger makes of some titles; arrays of the shape `[titles]`."""

    score: Float32Array
    """Grows with suspicion: log-odds that the title carries a trigger."""
    start: Int32Array
    """First character of the most suspicious span, -1 where no token is suspicious."""
    end: Int32Array
    """The character after its last one."""


@dataclass
class Tagger:
    """A trained tagger."""

    record: TaggerRecord
    """What it is."""
    loaded: LoadedModel
    """The tuned language model and its tokenizer."""
    device: torch.device
    """Where it runs."""
    capacity: int | None = None
    """Most tokens in a packed row; `None` takes what suits the device."""
    compiled: bool = False
    """Whether layers are compiled on a GPU, which pays for many titles; not where a context is shown."""
    _memories: dict[tuple[str, ...], ContextMemory] = field(default_factory=dict[tuple[str, ...], ContextMemory])

    @property
    def takes_context(self) -> bool:
        """Whether it was taught to read titles behind a context."""
        return self.record.takes_context

    def read(
        self,
        titles: Sequence[str],
        context: TitleContext = NO_CONTEXT,
        report: ProgressCallback = report_nothing,
    ) -> TokenLogits:
        """Return the log-odds of every token and of every title.

        Args:
            titles: Any texts.
            context: Titles of the catalogue that are taken for clean, which are shown first. Without any, each title
                is judged by itself.
            report: Told of titles done and all of them.
        """
        made = self._read_behind(titles, context.first, report)
        shown = set(context.first)
        again = [at for at, title in enumerate(titles) if title in shown]
        if not again:
            return made
        other = self._read_behind([titles[at] for at in again], context.second, report_nothing)
        starts, sizes = made.tokenized.offsets[:-1][again], np.diff(made.tokenized.offsets)[again]
        mark, verdict = made.mark.copy(), made.verdict.copy()
        mark[concat_ranges(starts, sizes)], verdict[again] = other.mark, other.verdict
        return TokenLogits(made.tokenized, mark, verdict)

    def _read_behind(self, titles: Sequence[str], shown: tuple[str, ...], report: ProgressCallback) -> TokenLogits:
        capacity = self.capacity or TAGGER_BATCH_TOKENS.get(self.device.type, TAGGER_BATCH_TOKENS["cpu"])
        remember = partial(self._remember, shown) if shown else None
        if shown and self.device.type == "cpu":  # where all of a row's scores are worked out, most of them for nothing
            capacity = min(capacity, BEHIND_BATCH_TOKENS)
        compiled = self.compiled and remember is None
        closed = not self.takes_context
        return read_logits(self.loaded, titles, self.device, capacity, report, compiled, remember, closed)

    def _remember(self, shown: tuple[str, ...], causal: Any) -> ContextMemory:
        """Return a context's keys and values, which are kept for the contexts that were asked for last."""
        known = self._memories.pop(shown, None)
        if known is None:
            known = remember_context(causal, self.loaded.tokenizer, shown, self.device)
        self._memories[shown] = known
        while len(self._memories) > MAX_CONTEXTS_KEPT:
            del self._memories[next(iter(self._memories))]
        return known

    def score(self, titles: Sequence[str], context: TitleContext = NO_CONTEXT) -> Float32Array:
        """Return how suspicious each title is, shape `[titles]`; log-odds. See `read`."""
        return self.read(titles, context).verdict

    def tag(self, titles: Sequence[str], context: TitleContext = NO_CONTEXT) -> TaggedTitles:
        """Return how suspicious each title is, and where; see `read`."""
        marks = self.read(titles, context)
        start, end = find_spans(marks)
        return TaggedTitles(marks.verdict, start, end)

    def save(self, folder: Path, command: str = "") -> None:
        """Write the adapter in bfloat16, and `tagger.json`.

        Args:
            folder: Where to; made if it is not there.
            command: What was run to train it.

        Raises:
            UserError: If the tagger was loaded, so that its adapter is in the weights.
        """
        held = {
            name.replace(".default.", "."): weight.detach().to(torch.bfloat16)
            for name, weight in self.loaded.model.named_parameters()
            if ".lora_" in name
        }
        if not held:
            raise UserError("A tagger that was loaded has no adapter to write.", "Copy the folder that it came from.")
        folder.mkdir(parents=True, exist_ok=True)
        digest = write_tensors(folder / ADAPTER_FILE, held)
        told = self.record.model_copy(update={"adapter_sha256": digest, "command": command or self.record.command})
        write_text(folder / TAGGER_RECORD_FILE, told.model_dump_json(indent=1) + "\n")


def group_titles(made: TokenizedTitles, sizes: IntArray, border: int) -> tuple[Tokens, Int64Array]:
    """Write titles in groups, a border before each title and behind the last of a group.

    Args:
        made: The titles, in the order of the groups.
        sizes: Titles of each group, at least 1, shape `[groups]`.
        border: The token of a border.

    Returns:
        The tokens, one example a group, and the place of the border before each title, shape `[titles]`.
    """
    count = np.diff(made.offsets)
    group = np.repeat(np.arange(len(sizes)), sizes)
    places = made.offsets[:-1] + np.arange(len(count)) + group
    token = np.full(len(made.token) + len(count) + len(sizes), border, dtype=np.int32)
    token[concat_ranges(places + 1, count)] = made.token
    starts = places[np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)] if len(sizes) else places
    return Tokens(token, np.concatenate([starts, [len(token)]]), starts + 1, both_ways=True), places


def find_spans(marks: TokenLogits) -> tuple[Int32Array, Int32Array]:
    """Return where each title is most suspicious.

    The span is the token with the highest log-odds, widened over its neighbors as long as theirs are above
    `SPAN_LOGIT`.

    Returns:
        First character and the one after the last, shape `[titles]`; -1 where no token is above `SPAN_LOGIT`.
    """
    offsets = marks.tokenized.offsets.tolist()
    start, end = (np.full(len(marks.tokenized), -1, dtype=np.int32) for _ in range(2))
    for row, (first, last) in enumerate(pairwise(offsets)):
        if first == last:
            continue
        best = first + int(np.argmax(marks.mark[first:last]))
        if marks.mark[best] <= SPAN_LOGIT:
            continue
        low = high = best
        while low > first and marks.mark[low - 1] > SPAN_LOGIT:
            low -= 1
        while high + 1 < last and marks.mark[high + 1] > SPAN_LOGIT:
            high += 1
        start[row], end[row] = marks.tokenized.first[low], marks.tokenized.after[high]
    return start, end


def load_tagger(folder: Path = READY_TAGGER, device: str = "auto") -> Tagger:
    """Read what `Tagger.save` wrote, and add the adapter to the language model's weights.

    Args:
        folder: The tagger's; by default the one that comes with the package.
        device: Where it runs: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        UserError: If the folder does not hold a tagger, its adapter is damaged, or the model can't be used.
    """
    place = pick_device(device)
    record = read_tagger_record(folder)
    loaded = load_reader(record.llm, place, find_fast_dtype(place))
    add_adapter_weights(loaded.model, read_adapter(folder), record.llm)
    return Tagger(record, LoadedModel(loaded.model.eval(), loaded.tokenizer), place)


def read_adapter(folder: Path) -> dict[str, Tensor]:
    """Return the adapters of a tagger's folder by name; `read_tagger_record` checks them."""
    return read_tensors(folder / ADAPTER_FILE)[0]


def read_tagger_record(folder: Path) -> TaggerRecord:
    """Read the record of a tagger's folder, and check the adapter's hash, without a language model.

    Raises:
        UserError: If the folder does not hold a tagger, or its adapter is damaged.
    """
    try:
        record = TaggerRecord.model_validate_json(read_plain_text(folder / TAGGER_RECORD_FILE))
        if record.version != TAGGER_VERSION:
            raise ValueError(f"its version is {record.version}, and this is {TAGGER_VERSION}")
        if folder == READY_TAGGER and hash_file(folder / TAGGER_RECORD_FILE) != READY_TAGGER_SHA256:
            raise ValueError(f"{TAGGER_RECORD_FILE} is not the known one; install Cowbird anew")
        if hash_file(folder / ADAPTER_FILE) != record.adapter_sha256:
            raise ValueError(f"{ADAPTER_FILE} is not the file that {TAGGER_RECORD_FILE} tells of")
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"'{folder}' does not hold a tagger: {reason}.", "Give the folder of a trained tagger."
        ) from None
    return record


def add_adapter_weights(model: Any, held: Mapping[str, Tensor], llm: Llm) -> None:
    """Add low-rank adapters to a model's weights: W + alpha / rank · B·A, worked out in float32.

    Args:
        model: A causal LM without adapters, changed in place.
        held: The adapters' weights, by peft's names.
        llm: Says scale and places of the adapters.

    Raises:
        UserError: If the adapters do not fit the model.
    """
    weights: dict[str, Any] = dict(model.named_parameters())
    names = {name.removeprefix(_PEFT_PREFIX).rpartition(".lora_")[0] for name in held}
    wanted = {
        name.removesuffix(".weight")
        for name in weights
        if name.endswith(".weight") and name.split(".")[-2] in llm.modules
    }
    try:
        if names != wanted:
            raise KeyError("other layers")
        with torch.no_grad():
            for name in sorted(names):
                a, b = (held[f"{_PEFT_PREFIX}{name}.lora_{side}.weight"].float() for side in "AB")
                weight = weights[f"{name}.weight"]
                more = (b @ a).mul_(llm.alpha / llm.rank).to(weight.device)
                # In a place of its own: weights that were mapped from a file would be copied once more.
                weight.data = more.add_(weight).to(weight.dtype)
    except (KeyError, RuntimeError) as error:
        raise_outage(error, "The adapter can't be added to the language model")
        raise UserError(
            "The adapter does not fit the language model.", "Load it with the model it was made for."
        ) from None
