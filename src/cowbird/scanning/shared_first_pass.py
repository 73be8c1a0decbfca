"""A first pass over a catalogue whose rows are read by workers; it keeps what the pass of one process keeps.

Where the catalogue is a folder of files, or a large text file, workers read the files or sections of it themselves.
Otherwise this process reads the rows and sends them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from cowbird.defenses.p_scanner.catalog_judge import BaselineScanner
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.title_context import TitleContext
from cowbird.defenses.p_scanner.title_sample import TitleSample
from cowbird.defenses.p_scanner.token_logits import TokenLogits
from cowbird.defenses.p_scanner.whole_counts import PhraseCounts
from cowbird.ingest.options import get_options
from cowbird.ingest.places import locate
from cowbird.ingest.rows import PartedTable
from cowbird.local_cluster import InlineCluster, LocalCluster, TaskCluster
from cowbird.scanning.first_pass import FirstPass
from cowbird.scanning.part_tasks import (
    CatalogPlace,
    CountedPart,
    SampledPart,
    count_file,
    count_titles,
    read_marks,
    sample_file,
    sample_titles,
)
from cowbird.scanning.reading import Catalog, tally_unread
from cowbird.scanning.unread import UnreadRows, UnreadTally
from cowbird.scanning.writing import group_rows
from cowbird.victims.fit_context import ProgressCallback

ROWS_PER_PART = 1 << 15
"""Rows that are sent to a worker, and that a part holds then; more by less than a chunk."""
FILES_PER_WORKER = 2
"""Files or sections for each worker, from which on workers read them themselves."""
TASKS_AHEAD = 2
"""Tasks that wait beside those at work."""

_TakePart = Callable[[Any, int, tuple[UnreadRows, ...]], None]
"""Takes in what a worker made of a part; see `SharedFirstPass._send_rows`."""


class SharedFirstPass(FirstPass):
    """A first pass whose rows, and titles of the sample, are read by workers.

    Args:
        out: See `FirstPass`.
        cluster: The workers.
    """

    def __init__(self, out: Path | None, cluster: TaskCluster) -> None:
        super().__init__(out)
        self._cluster = cluster
        self.ahead = cluster.workers + TASKS_AHEAD

    def _fill_sample(
        self,
        catalog: Path,
        table: Catalog,
        sample: TitleSample,
        unread: UnreadTally,
        kept: Any,
        tell: Callable[..., None],
    ) -> None:
        """Have workers read files or look at titles; see `FirstPass`."""
        if files := self._count_own(catalog, table):
            self._sample_files(catalog, table, sample, unread, files, list(kept.file_rows), tell)
        else:
            self._sample_rows(table, sample, unread, kept.row, tell)

    def _count_own(self, catalog: Path, table: Catalog) -> int:
        here = isinstance(self._cluster, InlineCluster | LocalCluster)
        return count_own_files(catalog, table, self._cluster.workers, here=here)

    def _sample_files(
        self,
        catalog: Path,
        table: Catalog,
        sample: TitleSample,
        unread: UnreadTally,
        files: int,
        rows: list[int],
        tell: Callable[..., None],
    ) -> None:
        place = CatalogPlace(catalog.resolve(), table.asked[0], None, get_options())

        def take(found: SampledPart, *_: object) -> None:
            sample.merge(found.titles, found.complete, found.bound)
            unread.merge(found.unread, sum(rows))
            rows.append(found.rows)
            tell(sum(rows), rows)

        first = len(rows)
        self._go_through(((sample_file, place, nth, sample.most, sample.bound) for nth in range(first, files)), take)

    def _sample_rows(
        self, table: Catalog, sample: TitleSample, unread: UnreadTally, first: int, tell: Callable[..., None]
    ) -> None:
        def take(found: SampledPart, row: int, skipped: tuple[UnreadRows, ...]) -> None:
            sample.merge(found.titles, found.complete, found.bound)
            unread.merge(skipped)
            tell(row)

        self._send_rows(table, first, lambda titles: (sample_titles, titles, sample.most, sample.bound), take)

    def _count_phrases(self, catalog: Path, table: Catalog, counts: PhraseCounts, tell: Callable[[int], None]) -> None:
        """Have workers read files or look at titles; see `FirstPass`."""
        phrases = counts.list_phrases()
        files, done = self._count_own(catalog, table), 0

        def take(found: CountedPart, row: int, _: object) -> None:
            nonlocal done
            counts.merge(found.kept)
            done = row or done + found.rows
            tell(done)

        if files:
            place = CatalogPlace(catalog.resolve(), table.asked[0], None, get_options())
            self._go_through(((count_file, place, nth, phrases) for nth in range(files)), take)
        else:
            self._send_rows(table, 0, lambda titles: (count_titles, titles, phrases), take)

    def _send_rows(
        self, table: Catalog, first: int, make: Callable[[list[str]], tuple[Any, ...]], take: _TakePart
    ) -> None:
        """Send the titles behind a row to workers, `ROWS_PER_PART` at once.

        Args:
            table: The catalogue.
            first: The row.
            make: Returns a task for some titles: a function, and what it is given.
            take: Given what a task returned, the last row of its titles, and the rows that could not be read.
        """
        waiting: deque[tuple[Any, int, tuple[UnreadRows, ...]]] = deque()
        try:
            for rows in group_rows((row for row in table.read_rows() if row.number > first), ROWS_PER_PART):
                task = self._cluster.submit(*make([row.title for row in rows if not row.problem]))
                waiting.append((task, rows[-1].number, tally_unread(rows)))
                if len(waiting) > self.ahead:
                    found, row, unread = waiting.popleft()
                    take(self._cluster.get(found), row, unread)
            while waiting:
                found, row, unread = waiting.popleft()
                take(self._cluster.get(found), row, unread)
        finally:
            self._cluster.cancel([task for task, *_ in waiting])

    def _go_through(self, tasks: Iterable[tuple[Any, ...]], take: _TakePart) -> None:
        """Give out tasks, and take what they return, in order."""
        waiting: deque[Any] = deque()
        try:
            for task in tasks:
                waiting.append(self._cluster.submit(*task))
                if len(waiting) > self.ahead:
                    take(self._cluster.get(waiting.popleft()), 0, ())
            while waiting:
                take(self._cluster.get(waiting.popleft()), 0, ())
        finally:
            self._cluster.cancel(waiting)

    def _begin_read(
        self, scanner: BaselineScanner, titles: Sequence[str], context: TitleContext
    ) -> Callable[[ProgressCallback], TokenLogits]:
        """Have a worker's tagger read titles; see `FirstPass`."""
        if isinstance(self._cluster, InlineCluster) or not isinstance(scanner, ReadyScanner):
            return super()._begin_read(scanner, titles, context)
        given = (str(scanner.tagger.device), scanner.tagger_source, list(titles), context)
        task = self._cluster.submit(read_marks, *given)
        return lambda report: self._cluster.get(task)


def count_own_files(catalog: Path, table: Catalog, workers: int, *, here: bool = True) -> int:
    """Return how many files or sections of a catalogue workers read themselves; 0 if this process reads the rows.

    A catalogue that is elsewhere was copied here, where other machines do not see it. Nor may they see a single file.

    Args:
        catalog: The catalogue.
        table: The same, opened.
        workers: How many workers there are.
        here: Whether all of them are processes of this machine.
    """
    rows = table.table
    if not isinstance(rows, PartedTable) or locate(catalog) != catalog or not (here or catalog.is_dir()):
        return 0
    many = len(rows.parts)
    return many if many >= FILES_PER_WORKER * workers else 0
