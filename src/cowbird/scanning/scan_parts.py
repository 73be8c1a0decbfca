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

from cowbird.ingest.addresses import show_name
from cowbird.ingest.options import get_options
from cowbird.ingest.places import FileSeal, fingerprint
from cowbird.local_cluster import InlineCluster, TaskCluster
from cowbird.notices import Notice, collect_notices, merge_notices
from cowbird.scanning.part_tasks import (
    CatalogPlace,
    JudgeJob,
    RowColumns,
    judge_file,
    judge_rows,
)
from cowbird.scanning.parts_folder import JudgedPart, PartRecord, PartsWriter, sum_notices
from cowbird.scanning.pool import ScorerFactory
from cowbird.scanning.reading import CatalogRow
from cowbird.scanning.scan import ScanForm, describe_scan, make_empty_error, open_checked, refuse_changed, take_seal
from cowbird.scanning.shared_first_pass import ROWS_PER_PART, TASKS_AHEAD
from cowbird.scanning.summary import FindingTally, ScanSummary
from cowbird.scanning.unmatched_entries import UnmatchedEntries
from cowbird.scanning.unread import count_unread
from cowbird.scanning.verdicts import Scorer
from cowbird.scanning.writing import group_rows
from cowbird.victims.fit_context import ProgressCallback, report_nothing

MAX_FILE_ROWS = 1 << 21
"""Rows of a file that a worker reads itself, at most: what it finds is in its memory until the file is through."""
ROWS_AHEAD = 1 << 20
"""Rows of such files that may wait beside those, so that no worker waits for a slower one."""


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

            unmatched = UnmatchedEntries(form.allow)
            rows = unmatched.watch(table.read_rows())
            tasks = _list_files(own, submit) if own else _list_rows(rows, form.chunk, submit)
            ahead = TASKS_AHEAD + (ROWS_AHEAD // max(1, *own) if own else 0)
            try:
                parts, resumed = _go_through(tasks, work, workers, ahead, total, report)
                if own and unmatched:  # the rows passed by workers
                    unmatched.read(table)
            finally:
                refuse_changed(work, catalog, seal)
            found = _sum_up(work, parts, catalog)
            about = {"catalog": show_name(catalog), "scanner": scorer.key, "rows": found.rows}
            skipped_file = work.finish(parts, about)
        unmatched.tell()
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


def _list_rows(rows: Iterable[CatalogRow], chunk: int, submit: Callable[..., Any]) -> Iterator[_Task]:
    """Yield parts of some chunks of rows each."""
    nth, held, groups = 0, 0, list[RowColumns]()
    for group in group_rows(rows, chunk):
        groups.append(RowColumns.of(group))
        held += len(group)
        if held >= ROWS_PER_PART:
            yield _Task(nth, group[-1].number, partial(submit, judge_rows, groups))
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
