"""Training a small tagger: single titles of several catalogues, with triggers planted in half of them, drawn anew.

What is planted, and what is never taught, is as for the tagger (`tagger_training`). Numbers of a piece are left out by
groups now and then, so that the network does not live on words that it happens to know: a catalogue that it never saw
has others. One stream of examples can teach several small taggers at once, each without the catalogues that it is
asked about later.
"""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from cowbird.data.types import Float32Array, Int64Array
from cowbird.defenses.p_scanner.small_tagger import (
    SmallTagger,
    SmallTaggerNetwork,
    SmallTaggerRecord,
    SmallTaggerSizes,
    make_batch,
)
from cowbird.defenses.p_scanner.title_pieces import PIECE_FEATURES, TitlePieces, cut_titles
from cowbird.defenses.p_scanner.training.tagger_training import EDITS_PER_TITLE, vary_title
from cowbird.defenses.p_scanner.triggers.title_edits import (
    NEVER_TAUGHT,
    EditedTitle,
    EditSources,
    draw_family,
    edit_title,
)
from cowbird.errors import UserError
from cowbird.files import hash_texts
from cowbird.rng import derive_seed, stream
from cowbird.victims.fit_context import FitContext

CHUNKS_AHEAD = 3
STEPS_PER_REPORT = 50
"""Chunks of examples that each worker has drawn, or draws, before they are wanted; steps between two reports."""


class SmallTaggerRecipe(BaseModel):
    """What a small tagger is made of and how long it learns."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    sizes: SmallTaggerSizes = SmallTaggerSizes()
    """The network's sizes."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak learning rate; it rises for a twentieth of the steps, and falls to nothing."""
    weight_decay: float = Field(default=0.02, ge=0)
    """Of all weights but the table."""
    chunk: int = Field(default=4096, ge=2)
    """Titles drawn at once, and taught in one step."""
    chunks: int = Field(default=1000, ge=1)
    """How many times."""
    left_out: float = Field(default=0.25, ge=0, lt=1)
    """Share of the pieces whose spelling is left out, and again of those whose pair is; half as many n-grams."""


class TaughtTitles(NamedTuple):
    """One chunk of examples."""

    pieces: TitlePieces
    """The titles."""
    kept: Float32Array
    """What each number of a piece counts beside its share: 0 for those that are left out, shape `[numbers]`."""
    marked: NDArray[np.bool_]
    """Which pieces belong to a trigger, shape `[pieces]`."""
    planted: NDArray[np.bool_]
    """Which titles carry one, shape `[titles]`."""
    catalog: Int64Array
    """Where each title is from, a place among the names of all catalogues, shape `[titles]`."""


@dataclass(frozen=True)
class TitleStream:
    """Draws examples, chunk by chunk."""

    catalogs: Mapping[str, Sequence[str]]
    """Titles that are taken for clean, by the catalogue's name."""
    words: Sequence[str]
    """Plain words that edits take."""
    refused: frozenset[str]
    """Texts in small letters that are never planted."""
    chunk: int
    """Titles of a chunk."""
    left_out: float
    """See `SmallTaggerRecipe.left_out`."""
    seed: int
    """Draws all of them."""

    def draw_chunk(self, number: int) -> TaughtTitles:
        """Draw a chunk; half of the titles stay clean."""
        rng = stream(self.seed, "small tagger", number)
        names = list(self.catalogs)
        weight = np.array([len(self.catalogs[name]) for name in names]) ** 0.5
        drawn: list[int] = rng.choice(len(names), size=self.chunk, p=weight / weight.sum()).tolist()
        sources = [EditSources(self.words, self.catalogs[name]) for name in names]
        made = [self._draw_title(sources[nth], rng) for nth in drawn]
        pieces = cut_titles([edited.title for edited in made])
        return TaughtTitles(
            pieces,
            leave_out(pieces, self.left_out, rng),
            mark_spans(pieces, [edited.spans for edited in made]),
            np.array([bool(edited.spans) for edited in made]),
            np.array(drawn, dtype=np.int64),
        )

    def _draw_title(self, sources: EditSources, rng: np.random.Generator) -> EditedTitle:
        title = vary_title(sources.titles[int(rng.integers(len(sources.titles)))], float(rng.random()), rng)
        if rng.random() < 0.5:
            return EditedTitle(title, ())
        for _ in range(EDITS_PER_TITLE):
            made = edit_title(draw_family(rng), title, rng, sources, self.refused)
            if made is not None:
                return made
        return EditedTitle(title, ())


def mark_spans(pieces: TitlePieces, spans: Sequence[Sequence[tuple[int, int]]]) -> NDArray[np.bool_]:
    """Return which pieces belong to a trigger, shape `[pieces]`."""
    inside = np.zeros(len(pieces.first), dtype=np.bool_)
    for row, stretches in enumerate(spans):
        part = slice(int(pieces.offsets[row]), int(pieces.offsets[row + 1]))
        for start, end in stretches:
            inside[part] |= (pieces.first[part] < end) & (pieces.after[part] > start)
    return inside


def draw_ahead(titles: TitleStream, chunks: int, workers: int) -> Iterator[TaughtTitles]:
    """Yield chunks in order, drawn by other processes before they are wanted; 0 workers draw them here."""
    if not workers:
        yield from map(titles.draw_chunk, range(chunks))
        return
    os.environ["RAYON_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    drawn: dict[int, Future[TaughtTitles]] = {}
    with ProcessPoolExecutor(workers, get_context("spawn"), _keep, (titles,)) as pool:
        for number in range(chunks):
            for nth in range(number, min(number + CHUNKS_AHEAD * workers, chunks)):
                if nth not in drawn:
                    drawn[nth] = pool.submit(_draw, nth)
            yield drawn.pop(number).result()


_kept: dict[str, TitleStream] = {}


def _keep(titles: TitleStream) -> None:
    _kept["titles"] = titles


def _draw(number: int) -> TaughtTitles:
    return _kept["titles"].draw_chunk(number)


def leave_out(pieces: TitlePieces, share: float, rng: np.random.Generator) -> Float32Array:
    """Return what each number counts, shape `[numbers]`: some groups of some pieces count nothing."""
    chance = np.array([share / 2, share, share, share / 2, share])[: len(PIECE_FEATURES)]
    gone = rng.random((len(pieces.first), len(PIECE_FEATURES))) < chance
    owner = np.repeat(np.arange(len(pieces.first)), np.diff(pieces.starts))
    return (~gone[owner, pieces.group]).astype(np.float32)


@dataclass(eq=False)
class _Pupil:
    """A small tagger in training."""

    network: SmallTaggerNetwork
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    unseen: NDArray[np.bool_]
    loss: Tensor


def train_small_taggers(
    recipe: SmallTaggerRecipe,
    catalogs: Mapping[str, Sequence[str]],
    words: Sequence[str],
    seed: int,
    place: FitContext,
    refused: Collection[str] = (),
    workers: int = 0,
    leave: Mapping[str, Collection[str]] | None = None,
) -> dict[str, SmallTagger]:
    """Train small taggers on one stream of examples.

    Args:
        recipe: What they are made of.
        catalogs: Titles that are taken for clean, by the catalogue's name.
        words: Plain words in small letters that triggers are made of.
        seed: Decides all that is random.
        place: Where they are trained, and who is told.
        refused: Texts that are never planted.
        workers: Processes that draw examples; 0 draws them here.
        leave: Catalogues that a small tagger never sees, by its name; one named `all` sees all if this is `None`.

    Returns:
        The small taggers by name.

    Raises:
        UserError: If a catalogue holds no title.
    """
    empty = [name for name, titles in catalogs.items() if not titles]
    if empty or not catalogs:
        raise UserError("A small tagger learns from titles, and there are none.", "Give catalogues that hold titles.")
    names = list(catalogs)
    texts = frozenset(text.strip().lower() for text in refused)
    titles = TitleStream(catalogs, words or ("word",), texts, recipe.chunk, recipe.left_out, seed)
    pupils = {
        name: _enroll(recipe, seed, place.device, np.array([catalog in out for catalog in names]))
        for name, out in (leave or {"all": ()}).items()
    }
    for number, taught in enumerate(draw_ahead(titles, recipe.chunks, workers)):
        _teach(pupils.values(), taught, place.device)
        if (number + 1) % STEPS_PER_REPORT == 0 or number + 1 == recipe.chunks:
            losses = [float(pupil.loss) for pupil in pupils.values()]
            place.report(number + 1, recipe.chunks, f"loss {float(np.mean(losses)):.4f}")
    made: dict[str, SmallTagger] = {}
    for name, pupil in pupils.items():
        seen = [catalog for catalog, out in zip(names, pupil.unseen.tolist(), strict=True) if not out]
        record = SmallTaggerRecord(
            sizes=recipe.sizes,
            recipe=recipe.model_dump(mode="json", exclude={"sizes"}),
            seed=seed,
            catalogs={catalog: len(catalogs[catalog]) for catalog in seen},
            titles_sha256={catalog: hash_texts(catalogs[catalog]) for catalog in seen},
            never_taught=NEVER_TAUGHT,
            titles=recipe.chunk * recipe.chunks,
        )
        made[name] = SmallTagger(record, pupil.network.eval(), place.device)
    return made


def _enroll(recipe: SmallTaggerRecipe, seed: int, device: torch.device, unseen: NDArray[np.bool_]) -> _Pupil:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "small tagger") % (1 << 62))
        network = SmallTaggerNetwork(recipe.sizes).to(device)
    table = [network.table.weight]
    others = [weight for weight in network.parameters() if weight is not network.table.weight]
    groups = [{"params": table, "weight_decay": 0.0}, {"params": others, "weight_decay": recipe.weight_decay}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.chunks + 1, pct_start=0.05, cycle_momentum=False
    )
    return _Pupil(network, optimizer, schedule, unseen, torch.zeros(()))


def _teach(pupils: Collection[_Pupil], taught: TaughtTitles, device: torch.device) -> None:
    """Have each take one step; titles of catalogues that one must not see count nothing for it."""
    batch = make_batch(taught.pieces, device, taught.kept)
    marked, planted = (
        torch.from_numpy(values.astype(np.float32)).to(device) for values in (taught.marked, taught.planted)
    )
    for pupil in pupils:
        seen = torch.from_numpy((~pupil.unseen[taught.catalog]).astype(np.float32)).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            mark, verdict = pupil.network(batch)
        by_piece = _compute_loss(mark, marked, seen[batch.owner])
        pupil.loss = 2 * by_piece + _compute_loss(verdict, planted, seen)
        pupil.optimizer.zero_grad(set_to_none=True)
        pupil.loss.backward()
        torch.nn.utils.clip_grad_norm_(pupil.network.parameters(), 1.0)
        pupil.optimizer.step()
        pupil.schedule.step()
        pupil.loss = pupil.loss.detach()


def _compute_loss(odds: Tensor, right: Tensor, counts: Tensor) -> Tensor:
    """Return the mean cross-entropy over what counts."""
    each = torch.nn.functional.binary_cross_entropy_with_logits(odds.float(), right, reduction="none")
    return (each * counts).sum() / counts.sum().clamp(min=1)
