"""A scan whose findings are a folder of parts, by any number of workers: the verdicts are those of one process.

Where the catalogue is a folder of files, or a large text file, workers read the files or sections of it themselves, in
both passes, and there is a part of the findings for each. Otherwise this process reads the rows and sends them, some
chunks a part. Either way it writes the parts.
"""

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from cowbird.defenses.p_scanner.catalog_judge import BaselineScanner
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.title_context import TitleContext
from cowbird.defenses.p_scanner.title_sample import TitleSample
from cowbird.defenses.p_scanner.token_logits import TokenLogits
from cowbird.defenses.p_scanner.whole_counts import PhraseCounts
from cowbird.ingest.addresses import show_name
from cowbird.ingest.options import get_options
from cowbird.ingest.places import FileSeal, fingerprint, locate
from cowbird.ingest.rows import PartedTable
from cowbird.local_cluster import InlineCluster, LocalCluster, TaskCluster
from cowbird.notices import Notice, collect_notices, merge_notices
from cowbird.scanning.first_pass import FirstPass
from cowbird.scanning.part_tasks import (
    CatalogPlace,
    CountedPart,
    JudgeJob,
    RowColumns,
    SampledPart,
    count_file,
    count_titles,
    judge_file,
    judge_rows,
    read_marks,
    sample_file,
    sample_titles,
)
from cowbird.scanning.parts_folder import JudgedPart, PartRecord, PartsWriter, sum_notices
from cowbird.scanning.pool import ScorerFactory
from cowbird.scanning.reading import Catalog, tally_unread
from cowbird.scanning.scan import ScanForm, describe_scan, make_empty_error, open_checked, refuse_changed, take_seal
from cowbird.scanning.summary import FindingTally, ScanSummary
from cowbird.scanning.unread import UnreadRows, UnreadTally, count_unread
from cowbird.scanning.verdicts import Scorer
from cowbird.scanning.writing import group_rows
from cowbird.victims.fit_context import ProgressCallback, report_nothing

ROWS_PER_PART = 1 << 15
"""Rows that are sent to a worker, and that a part holds then; more by less than a chunk."""
MAX_FILE_ROWS = 1 << 21
"""Rows of a file that a worker reads itself, at most: what it finds is in its memory until the file is through."""
FILES_PER_WORKER = 2
"""Files or sections for each worker, from which on workers read them themselves."""
TASKS_AHEAD = 2
"""Tasks that wait beside those at work."""
ROWS_AHEAD = 1 << 20
"""Rows of such files that may wait beside those, so that no worker waits for a slower one."""

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


class _Task(NamedTuple):
    """A part of the catalogue."""

    nth: int
    """Which part."""
    last: int
    """Its last row."""
    submit: Callable[[], Any]
    """Gives it to a worker."""


def scan_in_parts(
    catalog: Path,
    out: Path,
    scorer: Scorer,
    make: ScorerFactory | None = None,
    cluster: TaskCluster | None = None,
    *,
    form: ScanForm | None = None,
    file_rows: Sequence[int] = (),
    report: ProgressCallback = report_nothing,
    resume: bool = True,
    warn: Callable[[str], None] = warnings.warn,
    begun: float | None = None,
    seal: FileSeal | None = None,
) -> ScanSummary:
    """Scan a catalogue into a folder of parts.

    Args:
        catalog: The catalogue; it and others as in `scan_catalog`.
        out: The folder; an older one of findings is replaced once all parts are there.
        scorer: What judges titles.
        make: Makes a copy of it in a worker; `None` for this process alone.
        cluster: The workers; `None` for this process.
        form: What of the catalogue is judged, and what is written; `None` takes the defaults.
        file_rows: How many rows each file or section of the catalogue has, if a verdict depends on the title alone:
            then workers read them. See `FirstPass.file_rows`.
        report: Told of rows done, rows in all, and how many are flagged.
        resume: Whether to go on where an interrupted scan stopped.
        warn: Told if the file system knows no locks.
        begun: When the work began, by `time.perf_counter`.
        seal: What the catalogue was when a first pass read it.

    Raises:
        UserError: If the catalogue can't be read or is changed meanwhile, none of its rows can be read, or the findings
            can't be written.
        OutageError: If a worker died; the same command goes on.
    """
    begun = time.perf_counter() if begun is None else begun
    workers = InlineCluster() if cluster is None or make is None else cluster
    maker = make if make is not None and cluster is not None else partial(_give, scorer)
    form = form or ScanForm()
    with collect_notices() as told:
        seal = seal or take_seal(catalog)
        table = open_checked(catalog, out, form)
        seal = seal or fingerprint(catalog)
        key = describe_scan(scorer, seal, form)
        place = CatalogPlace(catalog.resolve(), form.text_column, form.id_column, get_options())
        own = list(file_rows) if file_rows and max(file_rows) <= MAX_FILE_ROWS else []
        total, kept = sum(own) or table.count_rows(), None
        with PartsWriter(out, f"{key} {len(own)}", resume, warn) as work:
            name = uuid4().hex  # not the scan's: a worker must not take a scorer of an earlier one
            job = JudgeJob(name, maker, place, form.chunk, form.only_flagged, form.allow)

            def submit(function: Callable[..., JudgedPart], *given: Any) -> Any:
                nonlocal kept
                kept = workers.keep(job) if kept is None else kept
                return workers.submit(function, kept, name, *given)

            tasks = _list_files(own, submit) if own else _list_rows(table, form.chunk, submit)
            ahead = TASKS_AHEAD + (ROWS_AHEAD // max(1, *own) if own else 0)
            try:
                parts, resumed = _go_through(tasks, work, workers, ahead, total, report)
            finally:
                refuse_changed(work, catalog, seal)
            found = _sum_up(work, parts, catalog)
            about = {"catalog": show_name(catalog), "scanner": scorer.key, "rows": found.rows}
            skipped_file = work.finish(parts, about)
    seconds = time.perf_counter() - begun
    notes = tuple(map(str, merge_notices([told.list(), found.notices])))
    return replace(
        found.summary, out=out, skipped_file=skipped_file, resumed=resumed, seconds=seconds,
        rate=found.judged / seconds, only_flagged=form.only_flagged, notes=notes,
    )  # fmt: skip


def _give(scorer: Scorer) -> Scorer:
    return scorer


def _list_files(file_rows: Sequence[int], submit: Callable[..., Any]) -> Iterator[_Task]:
    """Yield a part for each file of the catalogue."""
    for nth, (rows, last) in enumerate(zip(file_rows, accumulate(file_rows), strict=True)):
        yield _Task(nth, last, partial(submit, judge_file, nth, last - rows, rows))


def _list_rows(table: Catalog, chunk: int, submit: Callable[..., Any]) -> Iterator[_Task]:
    """Yield parts of some chunks of rows each."""
    nth, held, groups = 0, 0, list[RowColumns]()
    for rows in group_rows(table.read_rows(), chunk):
        groups.append(RowColumns.of(rows))
        held += len(rows)
        if held >= ROWS_PER_PART:
            yield _Task(nth, rows[-1].number, partial(submit, judge_rows, groups))
            nth, held, groups = nth + 1, 0, []
    if groups:
        yield _Task(nth, groups[-1].numbers[-1], partial(submit, judge_rows, groups))


def _go_through(
    tasks: Iterator[_Task], work: PartsWriter, workers: TaskCluster, ahead: int, total: int, report: ProgressCallback
) -> tuple[int, int]:
    """Have all parts made that are not there.

    Args:
        tasks: The parts.
        work: What keeps them.
        workers: Who makes them.
        ahead: Tasks that may wait beside those at work.
        total: Rows in all.
        report: Told of rows done, rows in all, and how many are flagged.

    Returns:
        How many parts there are, and how many rows were done before.
    """
    waiting: deque[tuple[_Task, Any]] = deque()
    parts, resumed, done, flagged = 0, 0, 0, 0

    def take() -> None:
        nonlocal done, flagged
        task, result = waiting.popleft()
        record = work.add(task.nth, workers.get(result))
        done, flagged = done + record["rows"], flagged + record["tally"]["flagged"]
        report(done, max(total, done), f"{flagged} flagged")

    try:
        for task in tasks:
            parts += 1
            known: PartRecord | None = work.find(task.nth)
            if known is not None:
                resumed, done = resumed + known["rows"], done + known["rows"]
                flagged += known["tally"]["flagged"]
                continue
            waiting.append((task, task.submit()))
            if len(waiting) > workers.workers + ahead:
                take()
        while waiting:
            take()
    finally:
        workers.cancel([result for _, result in waiting])
    report(done, done, f"{flagged} flagged")
    return parts, resumed


class _Found(NamedTuple):
    """What all parts come to."""

    summary: ScanSummary
    rows: int
    judged: int
    notices: list[Notice]


def _sum_up(work: PartsWriter, parts: int, catalog: Path) -> _Found:
    """Return what all parts come to.

    Raises:
        UserError: If none of the rows can be read.
    """
    tally, notices = FindingTally(), list[list[Any]]()
    counts = dict.fromkeys(("rows", "empty", "review", "allowed", "judged"), 0)
    for record in work.iterate_records(parts):
        tally.merge(FindingTally.from_record(record["tally"]))
        for row, reason in record["skipped"]:
            tally.add_skip(row, reason)
        counts = {name: count + record[name] for name, count in counts.items()}
        notices.append(record["notices"])
    unread = tally.list_unread()
    if count_unread(unread) == counts["rows"]:
        work.discard()
        raise make_empty_error(show_name(catalog), unread)
    summary = ScanSummary(
        catalog=show_name(catalog), out=work.out, rows=counts["rows"], empty=counts["empty"], flagged=tally.flagged,
        unread=unread, skipped_file=None, fragments=tally.list_fragments(), worst=tally.worst, resumed=0, seconds=0.0,
        rate=0.0, review=counts["review"], allowed=counts["allowed"], doubtful=tally.doubtful, ids=tally.ids,
    )  # fmt: skip
    return _Found(summary, counts["rows"], counts["judged"], sum_notices(notices))
