"""What workers do of a scan in parts: read titles for the sample, have the tagger read, and judge a part of the rows.

Each is a function of a module that a process of any kind can call. A part of the rows comes with the task, or is a file
or a section of the catalogue that the worker reads itself. What is found becomes a Parquet file in memory: the process
that gives out the work writes it, so a worker that dies leaves nothing behind.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from cowbird.defenses.p_scanner.catalog_judge import count_phrases, read_rounded
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.small_tagger import TaggerSource
from cowbird.defenses.p_scanner.title_context import TitleContext
from cowbird.defenses.p_scanner.title_sample import TitleSample
from cowbird.defenses.p_scanner.token_logits import TokenLogits
from cowbird.errors import UserError
from cowbird.ingest.open import open_rows
from cowbird.ingest.options import ReadOptions, use_options
from cowbird.ingest.rows import PartedTable
from cowbird.local_cluster import KeptValue
from cowbird.notices import collect_notices
from cowbird.plugin_errors import copy_registry, guard_plugins, restore_registry
from cowbird.scanning.allow_list import AllowList
from cowbird.scanning.findings import MAX_ROW_GROUP, PARQUET_SCHEMA, Finding
from cowbird.scanning.parts_folder import JudgedPart
from cowbird.scanning.pool import ScorerFactory
from cowbird.scanning.reading import Catalog, CatalogRow
from cowbird.scanning.scan import count_group, judge_groups
from cowbird.scanning.summary import FindingTally
from cowbird.scanning.unread import UnreadRows, UnreadTally
from cowbird.scanning.verdicts import Scorer
from cowbird.scanning.writing import group_rows


class CatalogPlace(NamedTuple):
    """A catalogue in parts, a folder of files or sections of a file, and how its rows are read."""

    path: Path
    """The folder or the file."""
    text_column: str
    """The column of titles."""
    id_column: str | None
    """The column of ids."""
    options: ReadOptions
    """How files are laid out."""


@dataclass(frozen=True)
class JudgeJob:
    """What a worker must know to judge parts of a catalogue."""

    key: str
    """Tells this job from others."""
    make: ScorerFactory
    """Makes the scorer."""
    place: CatalogPlace
    """The catalogue."""
    chunk: int
    """Rows that are judged at once."""
    only_flagged: bool
    """Whether flagged rows alone are written."""
    allow: AllowList
    """Texts and rows that must not be flagged."""
    plugins: Mapping[str, str] = field(default_factory=copy_registry)
    """Plug-ins that the process knows which gives out the work."""


class RowColumns(NamedTuple):
    """Rows of one chunk, column by column: that travels in less time."""

    numbers: list[int]
    ids: list[str | None]
    titles: list[str]
    problems: dict[int, str]
    """Why a row can't be read, by its place."""

    @staticmethod
    def of(rows: Sequence[CatalogRow]) -> "RowColumns":
        """Return rows column by column."""
        numbers, ids, titles, problems = zip(*rows, strict=True)
        told = {place: problem for place, problem in enumerate(problems) if problem}
        return RowColumns(list(numbers), list(ids), list(titles), told)

    def list_rows(self) -> list[CatalogRow]:
        """Return the rows."""
        rows = list(map(CatalogRow, self.numbers, self.ids, self.titles))
        for place, problem in self.problems.items():
            rows[place] = rows[place]._replace(problem=problem)
        return rows


class SampledPart(NamedTuple):
    """The sample of a part of a catalogue."""

    titles: list[str]
    """The titles."""
    complete: bool
    """Whether that is all of them."""
    bound: int
    """The hash from which on none is kept."""
    rows: int
    """How many rows the part has."""
    unread: tuple[UnreadRows, ...] = ()
    """Rows of the part that could not be read, numbered from its first; empty if the titles came with the task."""


class CountedPart(NamedTuple):
    """What was counted in a part of a catalogue."""

    kept: dict[str, list[str]]
    """Titles of each phrase; see `PhraseCounts.list_kept`."""
    rows: int
    """How many rows the part has."""
    unread: tuple[UnreadRows, ...] = ()
    """As in `SampledPart`."""


PartT = TypeVar("PartT", SampledPart, CountedPart)
"""What a first pass makes of a part."""

_scorers: dict[str, Scorer] = {}
"""The scorer of a worker, by the key of its job; one at a time."""
_jobs: dict[str, JudgeJob] = {}
"""The job of a worker, likewise."""


# The first pass


def sample_titles(titles: Iterable[str], most: int, bound: int, rows: int = 0) -> SampledPart:
    """Return the sample of some titles.

    Args:
        titles: The titles.
        most: How many are kept at most.
        bound: A hash from which on none is kept, for others have lower ones.
        rows: What is told as the number of rows.
    """
    sample = TitleSample(most)
    sample.bound = bound
    sample.add(title for title in titles if title.strip())
    return SampledPart(sample.list_titles(), sample.complete, sample.bound, rows)


def sample_file(place: CatalogPlace, nth: int, most: int, bound: int) -> SampledPart:
    """Return the sample of a part of a catalogue; see `sample_titles`."""
    return _take_file(place, nth, lambda titles: sample_titles(titles, most, bound))


def count_titles(titles: Iterable[str], phrases: Sequence[str]) -> CountedPart:
    """Count phrases in some titles."""
    return CountedPart(count_phrases(titles, phrases).list_kept(), 0)


def count_file(place: CatalogPlace, nth: int, phrases: Sequence[str]) -> CountedPart:
    """Count phrases in a part of a catalogue."""
    return _take_file(place, nth, lambda titles: count_titles(titles, phrases))


def _take_file(place: CatalogPlace, nth: int, take: Callable[[Iterable[str]], PartT]) -> PartT:
    """Return what `take` makes of the titles of a part of a catalogue, with its rows and what could not be read."""
    rows, unread = 0, UnreadTally()

    def read() -> Iterator[str]:
        nonlocal rows
        for row in open_file(place, nth).read_rows():
            rows = row.number
            if row.problem:
                unread.add(row.number, row.problem)
            else:
                yield row.title

    with guard_plugins(), use_options(place.options):
        found = take(read())
    return found._replace(rows=rows, unread=unread.list())


@lru_cache(maxsize=1)
def _load_scanner(place: str, tagger: TaggerSource) -> ReadyScanner:
    torch.set_num_threads(1)
    return ReadyScanner.load(place, tagger)


def read_marks(place: str, tagger: TaggerSource, titles: Sequence[str], context: TitleContext) -> TokenLogits:
    """Return what a tagger says of titles behind a context, in so many decimals as count."""
    return read_rounded(_load_scanner(place, tagger), titles, context=context)


# The second pass


@lru_cache(maxsize=1)
def _open_parts(place: CatalogPlace) -> PartedTable:
    table = open_rows(place.path)
    if not isinstance(table, PartedTable):
        raise UserError(f"{place.path} has no parts any more.", "Scan a copy that nobody writes.")
    return table


def open_file(place: CatalogPlace, nth: int) -> Catalog:
    """Open one part of a catalogue; its rows are numbered from 1."""
    return Catalog(_open_parts(place).take_part(nth), place.text_column, place.id_column)


def judge_rows(kept: KeptValue, key: str, groups: Sequence[RowColumns]) -> JudgedPart:
    """Judge rows that come with the task, chunk by chunk.

    Args:
        kept: The job.
        key: Its key.
        groups: The chunks.
    """
    with guard_plugins():
        job = _load_job(kept, key)
        return _judge(job, (each.list_rows() for each in groups))


def judge_file(kept: KeptValue, key: str, nth: int, before: int, rows: int) -> JudgedPart:
    """Judge a part of a catalogue.

    Args:
        kept: The job.
        key: Its key.
        nth: Which of the parts.
        before: Rows of the parts before it.
        rows: Its rows.

    Raises:
        UserError: If it can't be read, or has another number of rows.
    """
    with guard_plugins():
        job = _load_job(kept, key)
        with use_options(job.place.options):
            table = open_file(job.place, nth)
            numbered = (row._replace(number=row.number + before) for row in table.read_rows())
            found = _judge(job, group_rows(numbered, job.chunk))
    if found.rows != rows:
        raise UserError(f"{job.place.path.name} was changed while it was scanned.", "Scan a copy that nobody writes.")
    return found


def _load_job(kept: KeptValue, key: str) -> JudgeJob:
    """Return the job of a worker, which makes its scorer when it is first asked."""
    if key not in _jobs:
        job: JudgeJob = kept.load()
        restore_registry(job.plugins)
        _jobs.clear()
        _scorers.clear()
        _scorers[key] = job.make()
        _jobs[key] = job
    return _jobs[key]


def _judge(job: JudgeJob, groups: Iterable[list[CatalogRow]]) -> JudgedPart:
    tally, sink = FindingTally(), _ParquetSink()
    counts, skipped = [0] * 5, list[tuple[int, str]]()
    with collect_notices() as told:
        for rows, findings in judge_groups(groups, _scorers[job.key], job.allow):
            made = count_group(tally, rows, findings, job.only_flagged)
            sink.add(made.kept)
            skipped += made.skipped
            step = (len(rows), made.empty, made.review, made.allowed, made.judged)
            counts = [total + more for total, more in zip(counts, step, strict=True)]
    table = sink.close()
    rows, empty, review, allowed, judged = counts
    return JudgedPart(
        table, sink.written, rows, empty, review, allowed, judged, tally.to_record(), skipped, told.list()
    )


class _ParquetSink:
    """Findings on their way to a Parquet file in memory."""

    def __init__(self) -> None:
        self.written = 0
        self._waiting: list[Finding] = []
        self._file = BytesIO()
        self._writer: Any = pq.ParquetWriter(self._file, PARQUET_SCHEMA, compression="zstd")

    def add(self, findings: Sequence[Finding]) -> None:
        """Add findings."""
        self._waiting += findings
        if len(self._waiting) >= MAX_ROW_GROUP:
            self._write()

    def _write(self) -> None:
        self._writer.write_table(make_findings_table(self._waiting))
        self.written += len(self._waiting)
        self._waiting = []

    def close(self) -> bytes:
        """Return the file."""
        if self._waiting:
            self._write()
        self._writer.close()
        return self._file.getvalue()


def make_findings_table(findings: Sequence[Finding]) -> Any:
    """Return findings as a table of Arrow, as they stand in Parquet."""
    arrow: Any = pa
    columns = zip(*findings, strict=True) if findings else ((),) * len(PARQUET_SCHEMA)
    arrays = [arrow.array(column, kind.type) for column, kind in zip(columns, PARQUET_SCHEMA, strict=True)]
    return arrow.Table.from_arrays(arrays, schema=PARQUET_SCHEMA)
