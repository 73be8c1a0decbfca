"""The stream of examples that small taggers learn from: titles with triggers planted in half of them, drawn anew.

What is planted, and what is never taught, is as for the tagger (`tagger_training`). Numbers of a piece are left out by
groups now and then, so that a network does not live on words that it happens to know: a catalogue that it never saw has
others. A chunk follows from the seed and its number alone.
"""

import os
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Float32Array, Int64Array
from cowbird.defenses.p_scanner.title_pieces import PIECE_FEATURES, TitlePieces, cut_titles
from cowbird.defenses.p_scanner.training.tagger_examples import CHUNKS_AHEAD, EDITS_PER_TITLE, vary_title
from cowbird.defenses.p_scanner.triggers.title_edits import EditedTitle, EditSources, draw_family, edit_title
from cowbird.files import hash_texts
from cowbird.processes import WorkerStart, end_with_parent, ignore_stop_signals, spare_new_workers
from cowbird.rng import stream


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
    families: tuple[str, ...] = ()
    """Families of triggers, as `title_edits.weigh_families` returns them; the default ones if this is empty."""

    @property
    def key(self) -> str:
        """Hash of all that decides the chunks."""
        told = [repr((self.seed, self.chunk, self.left_out, self.families)), *self.words, *sorted(self.refused)]
        return hash_texts([*told, *(text for name, titles in self.catalogs.items() for text in (name, *titles))])

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
            made = edit_title(draw_family(rng, self.families), title, rng, sources, self.refused)
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


def draw_ahead(titles: TitleStream, chunks: int, workers: int, first: int = 0) -> Generator[TaughtTitles]:
    """Yield chunks from the first on, drawn by other processes before they are wanted; 0 workers draw them here."""
    if not workers:
        yield from map(titles.draw_chunk, range(first, chunks))
        return
    os.environ["RAYON_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    drawn: dict[int, Future[TaughtTitles]] = {}
    with ProcessPoolExecutor(workers, get_context("spawn"), WorkerStart(_keep), (titles,)) as pool:
        try:
            for number in range(first, chunks):
                with spare_new_workers():
                    for nth in range(number, min(number + CHUNKS_AHEAD * workers, chunks)):
                        if nth not in drawn:
                            drawn[nth] = pool.submit(_draw, nth)
                yield drawn.pop(number).result()
        finally:
            pool.shutdown(cancel_futures=True)


_kept: dict[str, TitleStream] = {}


def _keep(titles: TitleStream) -> None:
    end_with_parent()
    ignore_stop_signals()
    _kept["titles"] = titles


def _draw(number: int) -> TaughtTitles:
    return _kept["titles"].draw_chunk(number)


def leave_out(pieces: TitlePieces, share: float, rng: np.random.Generator) -> Float32Array:
    """Return what each number counts, shape `[numbers]`: some groups of some pieces count nothing."""
    chance = np.array([share / 2, share, share, share / 2, share])[: len(PIECE_FEATURES)]
    gone = rng.random((len(pieces.first), len(PIECE_FEATURES))) < chance
    owner = np.repeat(np.arange(len(pieces.first)), np.diff(pieces.starts))
    return (~gone[owner, pieces.group]).astype(np.float32)
