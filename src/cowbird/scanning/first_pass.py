"""The first pass of a ready scan, kept while it goes on: the sample of titles, and what the tagger said of them.

`FINDINGS.first-pass/` holds the sample and how far it came, and the tagger's marks in parts of `TITLES_PER_PART`. Parts
are always the same, kept or read, so an interrupted pass that goes on ends in the same baseline, and the scan in the
same findings, byte for byte. Each file tells what it is of; one that is damaged or of something else is made anew. The
folder goes when the findings are written.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from cowbird.defenses.p_scanner.baseline import MAX_TITLES_SAMPLED
from cowbird.defenses.p_scanner.catalog_judge import BaselineScanner, read_rounded
from cowbird.defenses.p_scanner.small_tagger import join_logits, make_places
from cowbird.defenses.p_scanner.title_context import NO_CONTEXT, TitleContext
from cowbird.defenses.p_scanner.title_sample import TitleSample
from cowbird.defenses.p_scanner.token_logits import TokenLogits
from cowbird.defenses.p_scanner.whole_counts import PhraseCounts
from cowbird.errors import OutageError, UserError
from cowbird.faults import explain_write_errors
from cowbird.files import hash_texts, sweep_partials
from cowbird.ingest.options import get_options
from cowbird.ingest.places import FileSeal, check_unchanged, fingerprint
from cowbird.ownership import make_scratch_folder
from cowbird.scanning.reading import Catalog, open_catalog
from cowbird.scanning.unread import UnreadRows, UnreadTally
from cowbird.storage import read_sealed_json, read_tensors, write_sealed_json, write_tensors
from cowbird.victims.fit_context import ProgressCallback, report_nothing

TITLES_PER_PART = 1024
"""Titles that the tagger reads before what it said is kept."""
ROWS_PER_REPORT = 4096
"""Rows between two reports."""
SECONDS_BETWEEN_SAVES = 20.0
"""How often the sample is kept while rows are read; the work that a kill can cost."""


class _SampleState(NamedTuple):
    """How far the reading of a sample has come."""

    row: int
    """The last row that was read."""
    over: bool
    """Whether that was all."""
    file_rows: tuple[int, ...]
    """How many rows each file has that was read, if files are read apart."""
    unread: tuple[UnreadRows, ...] = ()
    """Rows up to there that could not be read."""


class _Part(NamedTuple):
    """Some titles that the tagger reads."""

    path: Path | None
    """Where what it says is kept."""
    key: str
    """Tells these titles and this tagger from others."""
    titles: int
    """How many they are."""
    known: TokenLogits | None
    """What it said before."""
    read: Callable[[ProgressCallback], TokenLogits] | None
    """Has it read them, if it did not."""


class FirstPass:
    """What is kept of a first pass.

    Args:
        out: The file of findings, beside which the folder lies; `None` keeps nothing.
    """

    ahead = 0
    """Parts that are given out before what the tagger says of the first is asked for."""

    def __init__(self, out: Path | None = None) -> None:
        self.folder = None if out is None else out.with_name(f"{out.name}.first-pass")
        self.file_rows: dict[Path, tuple[int, ...]] = {}
        """How many rows each file of a catalogue that is a folder has, by catalogue, if its files were read apart."""
        self.seals: dict[Path, FileSeal] = {}
        """What each catalogue was when it was read first."""
        self.unread: dict[Path, tuple[UnreadRows, ...]] = {}
        """Rows of each catalogue that could not be read, and so are in no sample."""

    def sample(self, catalog: Path, text_column: str, report: ProgressCallback = report_nothing) -> TitleSample:
        """Read all rows of a catalogue, and keep a sample of the titles; `unread` counts rows that can't be read.

        Args:
            catalog: The catalogue; see `cowbird.scanning.reading.open_catalog`.
            text_column: The column of titles.
            report: Told of rows read, rows in all, and different titles kept.

        Raises:
            UserError: If the catalogue can't be read or is changed meanwhile, or what is kept can't be written.
        """
        self.seals.pop(catalog, None)
        with suppress(OSError):  # which is told when it is opened
            self._seal(catalog)
        table, sample = open_catalog(catalog, text_column), TitleSample(MAX_TITLES_SAMPLED)
        seal = self._seal(catalog)
        key = hash_texts([repr(seal), text_column, repr(get_options())])
        path = None if self.folder is None else self.folder / f"sample-{key[:16]}.json"
        kept = self._recall_sample(path, key, sample)
        if kept.over:
            self.file_rows[catalog], self.unread[catalog] = kept.file_rows, kept.unread
            report(kept.row, kept.row, f"{len(sample):,} titles kept")
            return sample
        total, done, saved = table.count_rows(), kept, time.monotonic()
        unread = UnreadTally(kept.unread)

        def tell(row: int, file_rows: Sequence[int] = ()) -> None:
            nonlocal done, saved
            done = _SampleState(row, False, tuple(file_rows), unread.list())
            report(row, max(total, row), f"{len(sample):,} titles kept")
            if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                self._save_sample(path, key, sample, done)
                saved = time.monotonic()

        try:
            self._fill_sample(catalog, table, sample, unread, kept, tell)
        except KeyboardInterrupt:
            self._save_sample(path, key, sample, done)
            raise
        check_unchanged(catalog, seal)
        self._save_sample(path, key, sample, done._replace(over=True))
        self.file_rows[catalog], self.unread[catalog] = done.file_rows, done.unread
        report(done.row, done.row, f"{len(sample):,} titles kept")
        return sample

    def _seal(self, catalog: Path) -> FileSeal:
        """Return what a catalogue was when it was sampled; what it is now, if it was not."""
        if catalog not in self.seals:
            self.seals[catalog] = fingerprint(catalog)
        return self.seals[catalog]

    def _fill_sample(
        self,
        catalog: Path,
        table: Catalog,
        sample: TitleSample,
        unread: UnreadTally,
        kept: "_SampleState",
        tell: Callable[..., None],
    ) -> None:
        """Show the titles of all rows behind those that were read before to a sample.

        Args:
            catalog: The catalogue.
            table: It, opened.
            sample: The sample.
            unread: Counts rows that can't be read.
            kept: How far an earlier pass came.
            tell: Told of the last row that was read now and then, and at the end.
        """
        done = kept.row
        for row in table.read_rows():
            if row.number <= kept.row:
                continue
            if row.problem:
                unread.add(row.number, row.problem)
            elif row.title.strip():
                sample.add((row.title,))
            done = row.number
            if done % ROWS_PER_REPORT == 0:
                tell(done)
        tell(done)

    def count(
        self, catalog: Path, text_column: str, phrases: Sequence[str], report: ProgressCallback = report_nothing
    ) -> PhraseCounts:
        """Read all rows of a catalogue once more, and count phrases in the titles.

        Args:
            catalog: The catalogue; see `cowbird.scanning.reading.open_catalog`.
            text_column: The column of titles.
            phrases: The phrases.
            report: Told of rows read and rows in all.

        Raises:
            UserError: If the catalogue can't be read or was changed, or what is kept can't be written.
        """
        table, counts = open_catalog(catalog, text_column), PhraseCounts(phrases)
        seal = self._seal(catalog)
        key = hash_texts([repr(seal), text_column, repr(get_options()), *phrases])
        path = None if self.folder is None else self.folder / f"counts-{key[:16]}.json"
        known = _recall_counts(path, key)
        if known is not None:
            counts.merge(known)
            return counts
        total = table.count_rows()
        self._count_phrases(catalog, table, counts, lambda row: report(row, max(total, row), "phrases counted"))
        check_unchanged(catalog, seal)
        if path is not None:
            self._make_folder(path)
            write_sealed_json(path, {"key": key, "kept": counts.list_kept()})
        return counts

    def _count_phrases(self, catalog: Path, table: Catalog, counts: PhraseCounts, tell: Callable[[int], None]) -> None:
        """Show the titles of all rows to counts; arguments as in `_fill_sample`."""
        done = 0
        for row in table.read_rows():
            if not row.problem:
                counts.add((row.title,))
            done = row.number
            if done % ROWS_PER_REPORT == 0:
                tell(done)
        tell(done)

    def _recall_sample(self, path: Path | None, key: str, sample: TitleSample) -> "_SampleState":
        """Put what was kept into a sample, and return how far that came."""
        nothing = _SampleState(0, False, ())
        if path is None or not path.is_file():
            return nothing
        try:
            held: Any = read_sealed_json(path)
            if held["key"] != key:
                return nothing
            sample.bound = int(held["bound"])
            sample.add(held["titles"])
            sample.complete = bool(held["complete"])
            unread = tuple(UnreadRows(str(why), int(many), tuple(map(int, rows))) for why, many, rows in held["unread"])
            file_rows = tuple(map(int, held.get("file_rows", ())))
            return _SampleState(int(held["row"]), bool(held["over"]), file_rows, unread)
        except OutageError:  # it may be whole
            raise
        except (UserError, KeyError, TypeError, ValueError):
            return nothing

    def _save_sample(self, path: Path | None, key: str, sample: TitleSample, done: "_SampleState") -> None:
        if path is None or not done.row:
            return
        self._make_folder(path)
        held = {"key": key, **done._asdict(), "complete": sample.complete, "titles": sample.list_titles()}
        held |= {"bound": sample.bound, "unread": [(each.reason, each.count, each.rows) for each in done.unread]}
        write_sealed_json(path, held)

    def _make_folder(self, path: Path) -> None:
        with explain_write_errors(path):
            make_scratch_folder(path.parent)
            sweep_partials(path.parent)

    def read(
        self,
        scanner: BaselineScanner,
        titles: Sequence[str],
        report: ProgressCallback = report_nothing,
        context: TitleContext = NO_CONTEXT,
    ) -> TokenLogits:
        """Return what a scanner's tagger says of titles, in so many decimals as count; see `read_rounded`.

        Args:
            scanner: The ready scanner; its `key` tells it from others.
            titles: Any texts.
            report: Told of titles read and all of them.
            context: What the titles are read behind; marks behind another one are others.
        """
        waiting: deque[_Part] = deque()
        parts: list[TokenLogits] = []
        for chosen in _cut(titles):
            waiting.append(self._begin_part(scanner, chosen, context))
            if len(waiting) > self.ahead:
                parts.append(self._finish_part(waiting.popleft(), sum(map(_count, parts)), len(titles), report))
        while waiting:
            parts.append(self._finish_part(waiting.popleft(), sum(map(_count, parts)), len(titles), report))
        report(len(titles), len(titles), "titles")
        return join_logits(parts)

    def _begin_part(self, scanner: BaselineScanner, titles: Sequence[str], context: TitleContext) -> "_Part":
        """Recall what the tagger says of some titles, or have it read them."""
        shown = [context.key] if scanner.shows_context else []
        key = hash_texts([scanner.key, *shown, *titles])
        path = None if self.folder is None else self.folder / f"part-{key[:32]}.safetensors"
        known = None if path is None else _recall_part(path, key, len(titles))
        return _Part(path, key, len(titles), known, None if known else self._begin_read(scanner, titles, context))

    def _begin_read(
        self, scanner: BaselineScanner, titles: Sequence[str], context: TitleContext
    ) -> Callable[[ProgressCallback], TokenLogits]:
        """Return what has the tagger read some titles behind a context."""
        return partial(read_rounded, scanner, titles, context=context)

    def _finish_part(self, part: "_Part", before: int, total: int, report: ProgressCallback) -> TokenLogits:
        """Return what the tagger says of some titles, and keep it."""

        def tell(done: int, _: int, remark: str) -> None:
            report(before + done, total, remark)

        if part.known is not None:
            tell(part.titles, part.titles, "titles")
            return part.known
        assert part.read is not None
        found = part.read(tell)
        if part.path is not None:
            self._make_folder(part.path)
            places = found.tokenized
            held = {"first": places.first, "after": places.after, "offsets": places.offsets}
            held |= {"mark": found.mark, "verdict": found.verdict}
            tensors = {name: torch.from_numpy(np.array(each)) for name, each in held.items()}
            write_tensors(part.path, tensors, {"cowbird": part.key})
        return found

    def clear(self) -> None:
        """Remove what is kept."""
        if self.folder is None or not self.folder.is_dir():
            return
        for pattern in ("sample-*.json", "counts-*.json", "part-*.safetensors"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
        sweep_partials(self.folder)
        with suppress(OSError):  # which does nothing to a folder that holds anything else
            self.folder.rmdir()


NOTHING_KEPT = FirstPass()
"""A first pass of which nothing is kept."""


def _count(part: TokenLogits) -> int:
    return len(part.verdict)


def _recall_counts(path: Path | None, key: str) -> dict[str, list[str]] | None:
    """Return the titles of each phrase that a file holds; `None` if it is not there, damaged, or of something else."""
    if path is None or not path.is_file():
        return None
    try:
        held: Any = read_sealed_json(path)
        return (
            {str(phrase): list(map(str, titles)) for phrase, titles in held["kept"].items()}
            if held["key"] == key
            else None
        )
    except OutageError:  # it may be whole
        raise
    except (UserError, KeyError, TypeError, AttributeError):
        return None


def _cut(titles: Sequence[str]) -> Iterator[Sequence[str]]:
    return (titles[first : first + TITLES_PER_PART] for first in range(0, len(titles), TITLES_PER_PART))


def _recall_part(path: Path, key: str, titles: int) -> TokenLogits | None:
    """Return the marks that a file holds; `None` if it is not there, damaged, or of something else."""
    if not path.is_file():
        return None
    try:
        held, header = read_tensors(path)
        array = {name: tensor.numpy() for name, tensor in held.items()}
        counts = np.diff(array["offsets"])
        tokens = {len(array[name]) for name in ("first", "after", "mark")}
        if header.get("cowbird") != key or len(array["verdict"]) != titles or len(counts) != titles:
            return None
        if tokens != {int(array["offsets"][-1])} or (counts < 0).any() or array["offsets"][0] != 0:
            return None
        places = make_places(array["first"], array["after"], array["offsets"])
        return TokenLogits(places, array["mark"], array["verdict"])
    except OutageError:  # it may be whole
        raise
    except (UserError, KeyError, IndexError, TypeError):
        return None
