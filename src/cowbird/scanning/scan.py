"""A catalogue's titles, all of them, past a scorer: a stream of rows in, a file of findings out.

Memory holds one chunk of rows. An interrupted scan goes on where it stopped, with the same chunks and so the same
findings, byte for byte, as one that was not interrupted.
"""

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cowbird.data.types import frozen
from cowbird.defenses.titles import Suspicion, stripped
from cowbird.errors import UserError
from cowbird.scanning.reading import Row, open_catalog
from cowbird.scanning.summary import Summary, Tally, Unread
from cowbird.scanning.writing import Finding, Unfinished, check_out, grouped
from cowbird.victims.language.examples import HALF
from cowbird.victims.workplace import Report, silent

VERSION = 1
"""Grows when a scan can't go on with what an older Cowbird left."""
HEAD = 1 << 20
"""Bytes of a catalogue that tell it from others, beside its size and time."""


@dataclass(frozen=True, slots=True, eq=False)
class Scanned(Suspicion):
    """What a scorer makes of some titles, and which of them it flags."""

    flagged: NDArray[np.bool_]
    """Which titles are flagged, shape `[titles]`; none with a score of -inf."""

    def __post_init__(self) -> None:
        Suspicion.__post_init__(self)
        object.__setattr__(self, "flagged", frozen(self.flagged, np.bool_))
        if self.flagged.shape != self.score.shape:
            raise ValueError("scores and flags are arrays of one length")
        if (self.score == np.inf).any() or (self.flagged & (self.score == -np.inf)).any():
            raise ValueError("a score is finite, or -inf and not flagged")


class Verdicts(Protocol):
    """The arrays of `Scanned`; a scorer in a lower layer gives them in a class of its own."""

    @property
    def score(self) -> ArrayLike:
        """Grows with suspicion, shape `[titles]`; -inf where there is nothing to judge."""
        ...

    @property
    def start(self) -> ArrayLike:
        """First character of each raw title's most suspicious span, shape `[titles]`; -1 where there is none."""
        ...

    @property
    def end(self) -> ArrayLike:
        """The character after its last one, shape `[titles]`; -1 where there is none."""
        ...

    @property
    def flagged(self) -> ArrayLike:
        """Which titles are flagged, shape `[titles]`."""
        ...


class Scorer(Protocol):
    """What judges titles."""

    @property
    def key(self) -> str:
        """What the scorer is, threshold and weights included: the same key, the same verdicts."""
        ...

    def scan(self, titles: Sequence[str]) -> Verdicts:
        """Judge titles: distinct ones, none empty, but otherwise any text, half surrogates and megabytes too."""
        ...


@runtime_checkable
class Ahead(Scorer, Protocol):
    """A scorer that judges several chunks at a time."""

    @property
    def ahead(self) -> int:
        """Chunks that are given to it before the verdicts on the first are asked for."""
        ...

    def begin(self, titles: Sequence[str]) -> Callable[[], Verdicts]:
        """Have titles judged, and return what waits for the verdicts; arguments as in `scan`."""
        ...


def scan_catalog(
    catalog: Path,
    out: Path,
    scorer: Scorer,
    *,
    text_column: str = "title",
    id_column: str | None = None,
    only_flagged: bool = False,
    chunk: int = 8192,
    report: Report = silent,
    resume: bool = True,
) -> Summary:
    """Scan a catalogue.

    A row that can't be read is skipped and told; a row without a title is not flagged and has no score. A title that
    stands in several rows of a chunk is scored once.

    Args:
        catalog: The catalogue; see `open_catalog`.
        out: Where the findings go: `.csv`, `.jsonl` or `.parquet`; an older file is replaced once they are whole.
        scorer: What judges titles; one that judges `Ahead` has more chunks in memory.
        text_column: The catalogue's column of titles.
        id_column: Its column of ids; `None` takes `id` or `item_id` if there is one.
        only_flagged: Whether flagged rows alone are written; otherwise all that could be read are, in order.
        chunk: Rows scored at once, fewer where titles are very long.
        report: Told of rows done, rows in all (of text files an estimate), and how many are flagged.
        resume: Whether to go on where an interrupted scan of the same catalogue with the same scorer stopped.

    Returns:
        The summary.

    Raises:
        UserError: If the catalogue can't be read, none of its rows can, or the findings can't be written.
    """
    if chunk < 1:
        raise ValueError(f"a chunk has at least one row, not {chunk}")
    begun = time.perf_counter()
    table = open_catalog(catalog, text_column, id_column)
    check_out(out, catalog)
    total, seal = table.total(), _seal(catalog)
    key = json.dumps([VERSION, scorer.key, *seal, text_column, id_column, only_flagged, chunk])
    with Unfinished(out, key, resume) as work:
        tally, resumed, judged = _counted(work.findings(), work.skips()), work.row, 0
        for rows, findings in _judged(grouped((row for row in table.rows() if row.number > resumed), chunk), scorer):
            skipped = [(row.number, row.problem) for row in rows if row.problem]
            for finding in findings:
                tally.add(finding)
            for number, reason in skipped:
                tally.skip(number, reason)
            empty = sum(not finding.title for finding in findings)
            judged += len(findings) - empty
            kept = [finding for finding in findings if finding.flagged or not only_flagged]
            work.add(kept, skipped, rows[-1].number, empty)
            report(work.row, max(total, work.row), f"{tally.flagged} flagged")
        unread = tally.unread()
        if sum(each.count for each in unread) == work.row:
            work.discard()
            raise _nothing(catalog.name, unread)
        if _seal(catalog) != seal:
            raise UserError(f"{catalog.name} was changed while it was scanned.", "Scan a copy that nobody writes.")
        skipped_file = work.finish()
    if work.row < total:  # it was an estimate
        report(work.row, work.row, f"{tally.flagged} flagged")
    seconds = time.perf_counter() - begun
    return Summary(
        catalog=catalog.name,
        out=out,
        rows=work.row,
        empty=work.empty,
        flagged=tally.flagged,
        unread=unread,
        skipped_file=skipped_file,
        fragments=tally.fragments(),
        resumed=resumed,
        seconds=seconds,
        rate=judged / seconds,
    )


def _counted(findings: Iterable[Finding], skips: Iterable[tuple[int, str]]) -> Tally:
    tally = Tally()
    for finding in findings:
        tally.add(finding)
    for number, reason in skips:
        tally.skip(number, reason)
    return tally


def _seal(catalog: Path) -> tuple[int, int, str]:
    """Return what tells a catalogue from another or an older one: its size, its time and a hash of its beginning."""
    known = catalog.stat()
    with catalog.open("rb") as file:
        return known.st_size, known.st_mtime_ns, hashlib.sha256(file.read(HEAD)).hexdigest()


def _nothing(name: str, unread: Sequence[Unread]) -> UserError:
    if not unread:
        return UserError(f"{name} should hold a title a row, and it has no rows.", "Was it written to its end?")
    most = "; ".join(map(str, unread[:3]))
    return UserError(f"None of the rows of {name} can be read: {most}.", "Save it as UTF-8, as its name says.")


def _judged(groups: Iterable[list[Row]], scorer: Scorer) -> Iterator[tuple[list[Row], list[Finding]]]:
    """Yield chunks of rows, in order, with what a scorer makes of those that can be read."""
    ahead, begin = 0, _later(scorer)
    if isinstance(scorer, Ahead):
        ahead, begin = scorer.ahead, scorer.begin
    waiting: deque[tuple[list[Row], list[str], Callable[[], Verdicts] | None]] = deque()
    for rows in groups:
        titles = list(dict.fromkeys(row.title for row in rows if row.title and not row.problem))
        waiting.append((rows, titles, begin(titles) if titles else None))
        if len(waiting) > ahead:
            yield _findings(*waiting.popleft())
    while waiting:
        yield _findings(*waiting.popleft())


def _later(scorer: Scorer) -> Callable[[Sequence[str]], Callable[[], Verdicts]]:
    return lambda titles: partial(scorer.scan, titles)


def _findings(
    rows: list[Row], titles: list[str], verdicts: Callable[[], Verdicts] | None
) -> tuple[list[Row], list[Finding]]:
    """Return rows, and the verdicts on those that can be read, in order.

    Raises:
        ValueError: If the scorer's verdicts don't fit the titles.
    """
    known = {"": Finding(0, None, "", None, False, None, None, "")}
    if verdicts is not None:
        found = verdicts()
        scanned = Scanned(*(np.asarray(part) for part in (found.score, found.start, found.end, found.flagged)))
        if len(scanned) != len(titles) or (scanned.end > [len(title) for title in titles]).any():
            raise ValueError("a scorer gives a verdict on each title, and spans end within them")
        known |= {title: _finding(title, scanned, at) for at, title in enumerate(titles)}
    readable = (row for row in rows if not row.problem)
    return rows, [known[row.title]._replace(row=row.number, id=row.id and _whole(row.id)) for row in readable]


def _finding(title: str, scanned: Scanned, at: int) -> Finding:
    """Return the verdict on one title."""
    text, score, flagged = _whole(title), scanned.score[at], bool(scanned.flagged[at])
    start, end = int(scanned.start[at]), int(scanned.end[at])
    clean = text
    if flagged:
        clean = stripped(text, start, end) if start >= 0 else ""
    return Finding(
        row=0,
        id=None,
        title=text,
        score=float(str(score)) if np.isfinite(score) else None,  # as short as float32 allows
        flagged=flagged,
        start=start if start >= 0 else None,
        end=end if start >= 0 else None,
        clean_title=clean or None,
    )


def _whole(text: str) -> str:
    """Return a text with U+FFFD for each half surrogate."""
    return HALF.sub("\N{REPLACEMENT CHARACTER}", text)


def load_table_titles(catalog: Path, text_column: str = "title") -> tuple[list[str], tuple[Unread, ...]]:
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
    tally = Tally()
    for row in open_catalog(catalog, text_column).rows():
        if row.problem:
            tally.skip(row.number, row.problem)
        else:
            titles.append(row.title)
    if not titles:
        raise _nothing(catalog.name, tally.unread())
    return titles, tally.unread()
