"""Examples that a tagger learns from: titles of several catalogues, with triggers planted in half of them.

Titles of all catalogues are taken for clean. Catalogues are drawn by the square root of their size, so that a large one
does not drown the others. Some titles are written in capitals, in small letters or cut short before anything is
planted, so that neither is a sign of a trigger by itself. Titles stand alone or in groups of one catalogue, in which
each is judged beside the others: so the tagger learns to see from a few titles what is usual in a catalogue. Some
groups are given a habit, such as a code in most of their titles, which is then no trigger there.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from threading import Lock
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from cowbird.data.types import Int64Array, IntArray, concat_ranges
from cowbird.defenses.p_scanner.tagger import group_titles
from cowbird.defenses.p_scanner.token_logits import TokenizedTitles, find_answer_words, tokenize_titles
from cowbird.defenses.p_scanner.triggers.title_edits import (
    EditedTitle,
    EditSources,
    draw_family,
    edit_title,
    weigh_families,
)
from cowbird.files import hash_texts
from cowbird.processes import WorkerStart, end_with_parent, ignore_stop_signals, spare_new_workers
from cowbird.rng import stream
from cowbird.victims.language.examples import IGNORED_LABEL, Tokens
from cowbird.victims.language.llm import Llm
from cowbird.victims.language.tuning import Tuning

EDITS_PER_TITLE = 6
"""Edits tried for a title before it is left as it is."""
CASE_SHARE, CUT_SHARE = 0.06, 0.08
"""Share of the titles that are written in capitals, and again in small letters; share that is cut short."""
MIN_HABIT_GROUP = 4
"""Titles of a group that can have a habit."""
CHUNKS_AHEAD = 3
"""Chunks of examples that each worker has drawn, or draws, before they are wanted."""


class TaggerRecipe(BaseModel):
    """What a tagger is made of and how long it learns."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    llm: Llm = Llm(rank=16, alpha=32)
    """The language model and its adapters."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    batch_size: int = Field(default=64, ge=1)
    """Groups of titles a step."""
    chunk: int = Field(default=8192, ge=1)
    """Groups that are drawn at once."""
    chunks: int = Field(default=10, ge=1)
    """How many times."""
    alone: float = Field(default=0.4, ge=0, le=1)
    """Share of the groups that have one title."""
    largest: int = Field(default=12, ge=2)
    """Titles of the largest groups."""
    habits: float = Field(default=0.5, ge=0, le=1)
    """Share of the groups of `MIN_HABIT_GROUP` titles and more that have a habit: what elsewhere is a trigger stands in
    most of their titles, and is no trigger."""
    capacity: int = Field(default=8192, ge=1)
    """Most tokens in a packed row."""
    compiled: bool = True
    """Whether layers are compiled on a GPU."""
    families: tuple[str, ...] = ()
    """Families of triggers that are planted; `title_edits.DEFAULT_FAMILIES` if this is empty."""
    verdict_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of the loss that is about whole titles, the rest being about their tokens; `null` counts a title as one of
    its tokens."""

    context: int = Field(default=0, ge=0, le=1 << 16)
    """Tokens of other titles of the catalogue that are shown before those that are judged, at most
    (`context_examples`); 0 judges titles in groups. `batch_size` and `chunk` count rows then."""
    row: int = Field(default=1024, ge=64, le=1 << 16)
    """Tokens of a row of titles behind a context."""

    @field_validator("families")
    @classmethod
    def _check_families(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        weigh_families(names)
        return names

    @property
    def tuning(self) -> Tuning:
        """What the engine is told: a chunk is an epoch for it."""
        return Tuning(
            epochs=self.chunks,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            capacity=self.capacity,
            compiled=self.compiled,
        )


@dataclass(eq=False)
class TaggerExamples:
    """Training examples, chunk by chunk; see `tuning.TrainingPrompts`.

    Each example is drawn by itself, so the order of a chunk is that of its draws.
    """

    tokenizer: Any
    """The model's."""
    catalogs: Mapping[str, Sequence[str]]
    """Titles that are taken for clean, by the catalogue's name."""
    words: Sequence[str]
    """Plain words that edits take."""
    refused: frozenset[str]
    """Texts in small letters that are never planted."""
    recipe: TaggerRecipe
    """Says how many there are in a chunk, and in a group."""
    seed: int
    """Draws all of them."""

    key: str = field(init=False)
    """Tells these examples from others."""
    families: tuple[str, ...] = field(init=False)
    """Families of triggers, as `title_edits.weigh_families` returns them."""

    def __post_init__(self) -> None:
        self.families = weigh_families(self.recipe.families)
        told = [str(self.seed), self.recipe.model_dump_json(), *self.words, *sorted(self.refused)]
        catalogs = (title for name in self.catalogs for title in (name, *self.catalogs[name]))
        self.key = hash_texts([*told, *catalogs])

    def __len__(self) -> int:
        return self.recipe.chunk

    def write_epoch(self, number: int, order: IntArray) -> Tokens:
        """Write the examples of a chunk."""
        return self.draw_chunk(number)

    def draw_chunk(self, number: int) -> Tokens:
        """Draw the groups of a chunk; half of all titles stay clean."""
        rng = stream(self.seed, "tagger", number)
        drawn = self._draw_sources(rng)
        sizes = rng.integers(2, self.recipe.largest + 1, size=self.recipe.chunk)
        sizes[rng.random(self.recipe.chunk) < self.recipe.alone] = 1
        made = [
            edited
            for sources, size in zip(drawn, sizes.tolist(), strict=True)
            for edited in self._draw_group(sources, size, rng)
        ]
        read = tokenize_titles(self.tokenizer, [edited.title for edited in made])
        tokens, places = group_titles(read, sizes, self.tokenizer.eos_token_id)
        spans = [edited.spans for edited in made]
        labeled = label_spans(read, tokens, places, spans, find_answer_words(self.tokenizer))
        return (
            labeled if self.recipe.verdict_share is None else weigh_verdicts(labeled, places, self.recipe.verdict_share)
        )

    def _draw_sources(self, rng: np.random.Generator) -> list[EditSources]:
        """Draw the catalogue of each example of a chunk, by the square root of its size."""
        names = list(self.catalogs)
        weight = np.array([len(self.catalogs[name]) for name in names]) ** 0.5
        drawn: list[int] = rng.choice(len(names), size=self.recipe.chunk, p=weight / weight.sum()).tolist()
        sources = [EditSources(self.words, self.catalogs[name]) for name in names]
        return [sources[nth] for nth in drawn]

    def _draw_group(self, sources: EditSources, size: int, rng: np.random.Generator) -> list[EditedTitle]:
        case = float(rng.random())
        habit = (
            draw_family(rng, self.families) if size >= MIN_HABIT_GROUP and rng.random() < self.recipe.habits else None
        )
        often = float(rng.uniform(0.4, 1.0))
        made: list[EditedTitle] = []
        for _ in range(size):
            title = vary_title(sources.titles[int(rng.integers(len(sources.titles)))], case, rng)
            if habit is not None and rng.random() < often:
                usual = edit_title(habit, title, rng, sources, self.refused)
                title = title if usual is None else usual.title
            made.append(self._plant(title, sources, rng) if rng.random() < 0.5 else EditedTitle(title, ()))
        return made

    def _plant(
        self, title: str, sources: EditSources, rng: np.random.Generator, usual: str | None = None
    ) -> EditedTitle:
        """Plant a trigger of another family than the usual one, if there is one: that is no trigger here."""
        for _ in range(EDITS_PER_TITLE):
            family = draw_family(rng, self.families)
            made = None if family == usual else edit_title(family, title, rng, sources, self.refused)
            if made is not None:
                return made
        return EditedTitle(title, ())


def vary_title(title: str, case: float, rng: np.random.Generator) -> str:
    """Write a title otherwise than it came, seldom: in capitals, in small letters, or its first words alone.

    Args:
        title: Any text.
        case: From 0 to 1; one number for all titles of a group, for catalogues are written in one way.
        rng: Draws whether it is cut, and where.
    """
    if case < 2 * CASE_SHARE:
        title = title.upper() if case < CASE_SHARE else title.lower()
    words = title.split(" ")
    if rng.random() < CUT_SHARE and len(words) > 2:
        return " ".join(words[: int(rng.integers(1, len(words)))]).rstrip(" -:,(") or title
    return title


def label_spans(
    made: TokenizedTitles,
    tokens: Tokens,
    places: Int64Array,
    spans: Sequence[Sequence[tuple[int, int]]],
    words: tuple[int, int],
) -> Tokens:
    """Say what is right.

    Args:
        made: The titles.
        tokens: The same in groups; see `tagger.group_titles`.
        places: The border before each title, shape `[titles]`.
        spans: Where each title's trigger stands, as [start, end) in characters; nothing for a clean title.
        words: Tokens for yes and no, which are labels 0 and 1.
    """
    count = np.diff(made.offsets)
    found = [made.find_inside(row, stretches) for row, stretches in enumerate(spans)]
    inside = np.concatenate([*found, np.zeros(0, dtype=bool)])
    # What is said of a place is learned in the place behind it.
    label = np.full(len(tokens.token), IGNORED_LABEL, dtype=np.int32)
    label[places + 1] = [not stretches for stretches in spans]
    label[concat_ranges(places + 2, count)] = ~inside
    return replace(tokens, label=label, among=words)


def weigh_verdicts(tokens: Tokens, places: Int64Array, share: float) -> Tokens:
    """Say how much of each group's loss is about whole titles.

    Args:
        tokens: Groups of titles with what is right (`label_spans`).
        places: The border before each title, shape `[titles]`.
        share: Of the loss; the rest is about the titles' tokens.
    """
    titles = np.diff(np.searchsorted(places, tokens.offsets))
    others = np.maximum(tokens.lengths - 1 - titles, 1)  # a group begins with a border that is no answer
    divisor = np.repeat(np.ceil(others / (1 - share)), tokens.lengths)
    divisor[places + 1] = np.ceil(np.repeat(titles, titles) / share)
    return replace(tokens, share=divisor.astype(np.int32))


class DrawnAhead:
    """Examples whose chunks other processes draw before they are wanted; see `tuning.TrainingPrompts`.

    Args:
        examples: What draws them.
        chunks: How many chunks are wanted in all.
        workers: Processes.
    """

    def __init__(self, examples: TaggerExamples, chunks: int, workers: int) -> None:
        self.key, self.chunks, self.examples = examples.key, chunks, examples
        os.environ["RAYON_NUM_THREADS"] = "1"
        self.pool = ProcessPoolExecutor(workers, get_context("spawn"), WorkerStart(_keep), (examples,))
        self.drawn: dict[int, Future[Tokens]] = {}
        self.next = 0
        self.ahead = CHUNKS_AHEAD * workers
        # Starting a worker takes seconds, so a thread of its own does: the training begins with the first of them.
        self.orders, self.ordering = ThreadPoolExecutor(1), Lock()

    def __len__(self) -> int:
        return len(self.examples)

    def write_epoch(self, number: int, order: IntArray) -> Tokens:
        """Return the examples of a chunk, and have later ones drawn."""
        self._order([number])
        with self.ordering:
            self.next, asked = number + 1, self.drawn.pop(number)
        self.orders.submit(self._order, range(number + 1, min(number + self.ahead, self.chunks)))
        return asked.result()

    def _order(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            with self.ordering:
                if number >= self.next and number not in self.drawn:
                    with spare_new_workers():
                        self.drawn[number] = self.pool.submit(_draw, number)

    def close(self) -> None:
        """End the processes."""
        self.orders.shutdown(cancel_futures=True)
        self.pool.shutdown(cancel_futures=True)


_kept: dict[str, TaggerExamples] = {}


def _keep(examples: TaggerExamples) -> None:
    end_with_parent()
    ignore_stop_signals()
    _kept["examples"] = examples


def _draw(number: int) -> Tokens:
    return _kept["examples"].draw_chunk(number)
