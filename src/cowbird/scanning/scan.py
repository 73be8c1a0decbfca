"""A catalogue's titles, all of them, past a scorer: a stream of rows in, a file of findings out.

Memory holds one chunk of rows. An interrupted scan goes on where it stopped, with the same chunks and so the same
findings, byte for byte, as one that was not interrupted.
"""

import json
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import dropwhile
from pathlib import Path
from typing import NamedTuple

from cowbird.errors import UserError
from cowbird.ingest.addresses import show_name
from cowbird.ingest.options import ReadOptions, get_options
from cowbird.ingest.places import FileSeal, check_unchanged, fingerprint, refuse_changes
from cowbird.notices import collect_notices
from cowbird.scanning.allow_list import AllowList
from cowbird.scanning.findings import ALLOWED_TIER, REVIEW_TIER, Finding
from cowbird.scanning.partial_folder import PartialFolder
from cowbird.scanning.parts_folder import check_parts_output, is_parts_folder
from cowbird.scanning.reading import Catalog, CatalogRow, open_catalog
from cowbird.scanning.summary import FindingTally, ScanSummary
from cowbird.scanning.unmatched_entries import UnmatchedEntries
from cowbird.scanning.unread import UnreadRows, UnreadTally, count_unread
from cowbird.scanning.verdicts import (
    ConcurrentScorer,
    Scorer,
    ScorerVerdicts,
    complete_verdicts,
    make_findings,
)
from cowbird.scanning.writing import FindingsWriter, check_output, group_rows
from cowbird.text import replace_surrogates
from cowbird.victims.fit_context import ProgressCallback, report_nothing

SCAN_VERSION = 2
"""Grows when a scan can't go on with what an older Cowbird left."""


class ScanForm(NamedTuple):
    """What of a catalogue is judged, and what is written."""

    text_column: str = "title"
    """The column of titles."""
    id_column: str | None = None
    """The column of ids; `None` takes `id` or `item_id` if there is one."""
    only_flagged: bool = False
    """Whether flagged rows alone are written; otherwise all that could be read are, in order."""
    chunk: int = 8192
    """Rows scored at once, fewer where titles are very long."""
    allow: AllowList = AllowList()
    """Texts and rows that must not be flagged."""


def scan_catalog(
    catalog: Path,
    out: Path,
    scorer: Scorer,
    *,
    form: ScanForm | None = None,
    report: ProgressCallback = report_nothing,
    resume: bool = True,
    warn: Callable[[str], None] = warnings.warn,
    begun: float | None = None,
    seal: FileSeal | None = None,
) -> ScanSummary:
    """Scan a catalogue.

    A row that can't be read is skipped and told; a row without a title is not flagged and has no score. A title that
    stands in several rows of a chunk is scored once.

    Args:
        catalog: The catalogue; see `open_catalog`.
        out: Where the findings go: `.csv`, `.jsonl` or `.parquet`; an older file is replaced once they are whole.
        scorer: What judges titles; one that judges `ConcurrentScorer` has more chunks in memory.
        form: What of the catalogue is judged, and what is written; `None` takes the defaults.
        report: Told of rows done, rows in all (of text files an estimate), and how many are flagged.
        resume: Whether to go on where an interrupted scan of the same catalogue with the same scorer stopped.
        warn: Told if the file system knows no locks.
        begun: When the work began, by `time.perf_counter`, if the scorer had to be made ready first.
        seal: What the catalogue was when a first pass read it; see `cowbird.ingest.places.fingerprint`.

    Returns:
        The summary.

    Raises:
        UserError: If the catalogue can't be read or is changed meanwhile, none of its rows can be read, or the findings
            can't be written.
    """
    form = form or ScanForm()
    if form.chunk < 1:
        raise ValueError(f"a chunk has at least one row, not {form.chunk}")
    begun = time.perf_counter() if begun is None else begun
    with collect_notices() as told:
        seal = seal or take_seal(catalog)
        table = open_checked(catalog, out, form)
        seal = seal or fingerprint(catalog)
        total = table.count_rows()
        with FindingsWriter(out, describe_scan(scorer, seal, form), resume, warn) as work:
            unmatched = UnmatchedEntries(form.allow)
            found = _scan_table(unmatched.watch(table.read_rows()), work, scorer, form, total, report)
            refuse_changed(work, catalog, seal)
            if count_unread(found.unread) == found.rows:
                work.discard()
                raise make_empty_error(show_name(catalog), found.unread)
            skipped_file = work.finish()
        unmatched.tell()
    seconds = time.perf_counter() - begun
    notes = tuple(map(str, told.list()))
    return replace(
        found, catalog=show_name(catalog), skipped_file=skipped_file, seconds=seconds, rate=found.rate / seconds,
        notes=notes,
    )  # fmt: skip


def _scan_table(
    rows: Iterable[CatalogRow],
    work: FindingsWriter,
    scorer: Scorer,
    form: ScanForm,
    total: int,
    report: ProgressCallback,
) -> ScanSummary:
    """Judge the rows of a catalogue that are not done, and keep what is found.

    Returns:
        What it comes to, without name, time and notes; the rate is the number of titles judged.
    """
    tally, resumed, judged = _count_findings(work.read_findings(), work.read_skips()), work.row, 0
    rows_left = dropwhile(lambda row: row.number <= resumed, rows)
    for group, findings in judge_groups(group_rows(rows_left, form.chunk), scorer, form.allow):
        counted = count_group(tally, group, findings, form.only_flagged)
        judged += counted.judged
        work.add(counted.kept, counted.skipped, group[-1].number, counted.empty, counted.review, counted.allowed)
        report(work.row, max(total, work.row), f"{tally.flagged} flagged")
    if work.row < total:  # it was an estimate
        report(work.row, work.row, f"{tally.flagged} flagged")
    return ScanSummary(
        catalog="",
        out=work.out,
        rows=work.row,
        empty=work.empty,
        flagged=tally.flagged,
        unread=tally.list_unread(),
        skipped_file=None,
        fragments=tally.list_fragments(),
        worst=tally.worst,
        resumed=resumed,
        seconds=0.0,
        rate=judged,
        review=work.review,
        allowed=work.allowed,
        doubtful=tally.doubtful,
        only_flagged=form.only_flagged,
        ids=tally.ids,
    )


class GroupCounts(NamedTuple):
    """What a chunk of rows comes to."""

    kept: list[Finding]
    """Its findings that are written."""
    skipped: list[tuple[int, str]]
    """The number of each row that could not be read, and why."""
    empty: int
    """Rows without a title."""
    review: int
    """Rows for review."""
    allowed: int
    """Rows that are suspicious, but allowed."""
    judged: int
    """Rows whose title was judged."""


def count_group(
    tally: FindingTally, rows: Sequence[CatalogRow], findings: Sequence[Finding], only_flagged: bool
) -> GroupCounts:
    """Count a chunk of rows.

    Args:
        tally: Counts the scan's findings.
        rows: The rows.
        findings: What is found of those that can be read.
        only_flagged: Whether flagged rows alone are written.
    """
    skipped = [(row.number, row.problem) for row in rows if row.problem]
    told = [finding for finding in findings if finding.tier]
    for finding in told:
        tally.add(finding)
    tally.ids = tally.ids or any(finding.id is not None for finding in findings)
    for number, reason in skipped:
        tally.add_skip(number, reason)
    empty = sum(not finding.title for finding in findings)
    review, allowed = (sum(each.tier == tier for each in told) for tier in (REVIEW_TIER, ALLOWED_TIER))
    kept = [finding for finding in findings if finding.flagged or not only_flagged]
    return GroupCounts(kept, skipped, empty, review, allowed, len(findings) - empty)


def describe_scan(scorer: Scorer, seal: FileSeal, form: ScanForm) -> str:
    """Return what tells a scan from others: what is scanned, and how."""
    *told, allow = form
    given = [SCAN_VERSION, scorer.key, *seal, *told, allow.key]
    return json.dumps(given) + (repr(get_options()) if get_options() != ReadOptions() else "")


def take_seal(catalog: Path) -> FileSeal | None:
    """Return what a catalogue is before it is opened; `None` if it can't be read, which is told when it is opened."""
    try:
        return fingerprint(catalog)
    except OSError:
        return None


def refuse_changed(work: PartialFolder, catalog: Path, seal: FileSeal) -> None:
    """Drop findings if the catalogue is not the one any more that it was: rows of two would be mixed.

    Raises:
        UserError: If it is another one.
    """
    try:
        check_unchanged(catalog, seal)
    except UserError:
        work.discard()
        raise


def check_scan(catalog: Path, out: Path, form: ScanForm | None = None, reference: Path | None = None) -> None:
    """Look before models are loaded whether a catalogue can be scanned.

    Args:
        catalog: The catalogue; it and others as in `scan_catalog`.
        out: Where the findings go.
        form: What is judged and written; the reference has the same column of titles.
        reference: A catalogue that sets thresholds; `None` for none.

    Raises:
        UserError: If a catalogue can't be opened or lacks a column, or the findings can't be written.
    """
    with collect_notices():  # the scan opens it once more, and tells how
        form = form or ScanForm()
        open_checked(catalog, out, form)
        if reference is not None:
            open_catalog(reference, form.text_column)


def open_checked(catalog: Path, out: Path, form: ScanForm) -> Catalog:
    """Open a catalogue that is to be scanned; see `check_scan`."""
    table = open_catalog(catalog, form.text_column, form.id_column)
    (check_parts_output if is_parts_folder(out) else check_output)(out, catalog)
    if form.allow.names_ids and table.id is None:
        raise UserError(
            f"--allow names rows by their ids, and {show_name(catalog)} has no column of ids known by its name.",
            "Name its column of ids: --id-column.",
        )
    return table


def _count_findings(findings: Iterable[Finding], skips: Iterable[tuple[int, str]]) -> FindingTally:
    tally = FindingTally()
    for finding in findings:
        tally.add(finding)
    for number, reason in skips:
        tally.add_skip(number, reason)
    return tally


def make_empty_error(name: str, unread: Sequence[UnreadRows]) -> UserError:
    """Return what is said of a catalogue of which no row can be read."""
    if not unread:
        return UserError(f"{name} should hold a title a row, and it has no rows.", "Was it written to its end?")
    most = "; ".join(map(str, unread[:3]))
    return UserError(
        f"None of the rows of {name} can be read: {most}.",
        "See how it is read (cowbird peek), and say how it is to be: --encoding, --separator, --quote, --header-row.",
    )


def judge_groups(
    groups: Iterable[list[CatalogRow]], scorer: Scorer, allow: AllowList
) -> Iterator[tuple[list[CatalogRow], list[Finding]]]:
    """Yield chunks of rows, in order, with what a scorer makes of those that can be read."""
    ahead, begin = 0, _defer_scan(scorer)
    if isinstance(scorer, ConcurrentScorer):
        ahead, begin = scorer.ahead, scorer.begin
    waiting: deque[tuple[list[CatalogRow], list[str], Callable[[], ScorerVerdicts] | None]] = deque()
    for rows in groups:
        titles = list(dict.fromkeys(row.title for row in rows if row.title and not row.problem))
        waiting.append((rows, titles, begin(titles) if titles else None))
        if len(waiting) > ahead:
            yield _make_findings(*waiting.popleft(), allow)
    while waiting:
        yield _make_findings(*waiting.popleft(), allow)


def _defer_scan(scorer: Scorer) -> Callable[[Sequence[str]], Callable[[], ScorerVerdicts]]:
    return lambda titles: partial(scorer.scan, titles)


def _make_findings(
    rows: list[CatalogRow], titles: list[str], verdicts: Callable[[], ScorerVerdicts] | None, allow: AllowList
) -> tuple[list[CatalogRow], list[Finding]]:
    """Return rows, and the verdicts on those that can be read, in order.

    Raises:
        ValueError: If the scorer's verdicts don't fit the titles.
    """
    known = {"": Finding(0, None, "", None, False, None, None, "")}
    if verdicts is not None:
        found = verdicts()
        scanned = complete_verdicts(found)
        if len(scanned) != len(titles) or (scanned.end > [len(title) for title in titles]).any():
            raise ValueError("a scorer gives a verdict on each title, and spans end within them")
        known.update(zip(titles, make_findings(titles, scanned), strict=True))
    made: list[Finding] = []
    for number, id_, title, problem in rows:
        if problem:
            continue
        finding = known[title]
        if finding.tier:
            finding = allow_finding(finding, title, allow, id_)
        # What `Finding` itself would do, in a third of the time.
        made.append(tuple.__new__(Finding, (number, id_ and replace_surrogates(id_), *finding[2:])))
    return rows, made


def allow_finding(finding: Finding, title: str, allow: AllowList, id_: str | None = None) -> Finding:
    """Return the verdict on a row's title, or that it is allowed there.

    Args:
        finding: The verdict.
        title: The title as it came.
        allow: Texts and rows that must not be flagged.
        id_: Id of the row.
    """
    start, end = (-1 if place is None else place for place in (finding.start, finding.end))
    if not finding.tier or not allow.allows(title, start, end, id_):
        return finding
    return finding._replace(tier=ALLOWED_TIER, flagged=False, clean_title=finding.title)


def load_table_titles(catalog: Path, text_column: str = "title") -> tuple[list[str], tuple[UnreadRows, ...]]:
    """Read all titles of a catalogue, as a scan does, for a scorer that is fitted to them.

    Args:
        catalog: The catalogue; see `open_catalog`.
        text_column: Its column of titles.

    Returns:
        The titles of the rows that can be read, in order, empty where one is missing; and what can't be read.

    Raises:
        UserError: If the catalogue can't be read, or none of its rows can.
    """
    titles: list[str] = []
    unread = UnreadTally()
    table = open_catalog(catalog, text_column)
    with refuse_changes(catalog):
        for row in table.read_rows():
            if row.problem:
                unread.add(row.number, row.problem)
            else:
                titles.append(row.title)
    if not titles:
        raise make_empty_error(show_name(catalog), unread.list())
    return titles, unread.list()
