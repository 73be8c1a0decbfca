"""Findings on their way to a file: kept in a folder beside it until they are whole, so that a scan can be resumed.

`OUT.partial/` holds the findings so far as JSON Lines, the rows that could not be read, and how far the scan had come.
A stop at any moment, a power cut too, costs the chunk at work. When all rows are through, `OUT` is written from it
under another name and renamed, beside it `OUT.skipped.csv` if rows were skipped, and the folder goes.

`cowbird.scanning.findings` has the forms of these files.
"""

import glob
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TypeVar

from cowbird.errors import UserError
from cowbird.files import read_plain_file, replace_atomically, sweep_partials, write_text
from cowbird.ownership import open_own_file
from cowbird.scanning.findings import FINDINGS_WRITERS, Finding, encode_finding, read_kept_findings
from cowbird.scanning.partial_folder import PartialFolder, explain_scan_errors
from cowbird.scanning.reading import CatalogRow

MAX_HELD_CHARACTERS = 1 << 24
"""Characters of titles held at once, or those of one longer title."""
RowT = TypeVar("RowT", CatalogRow, Finding)


def group_rows(rows: Iterable[RowT], most: int) -> Iterator[list[RowT]]:
    """Yield rows in groups of `most`, and of fewer where titles are so long that `MAX_HELD_CHARACTERS` are reached."""
    group: list[RowT] = []
    held = 0
    for row in rows:
        group.append(row)
        held += len(row.title)
        if len(group) == most or held >= MAX_HELD_CHARACTERS:
            yield group
            group, held = [], 0
    if group:
        yield group


@dataclass(frozen=True, slots=True)
class _ScanState:
    """How far a scan has come."""

    key: str
    """What is scanned, and how."""
    row: int = 0
    """The last row that is done."""
    empty: int = 0
    """Rows so far that have no title."""
    findings: int = 0
    """Bytes of the findings."""
    skipped: int = 0
    """Bytes of the table of skipped rows."""
    review: int = 0
    """Rows so far that are up for review."""
    allowed: int = 0
    """Rows so far that are suspicious, but allowed."""


class FindingsWriter(PartialFolder):
    """The findings of a scan that goes on; a context manager. Arguments as in `PartialFolder`."""

    def __init__(self, out: Path, key: str, resume: bool = True, warn: Callable[[str], None] = warnings.warn) -> None:
        super().__init__(out, key, resume, warn)
        self._paths = {name: self.folder / name for name in ("findings.jsonl", "skipped.csv", "state.json")}
        self._state = _ScanState(self._key)

    def _begin(self) -> None:
        sweep_partials(self.out.parent, glob.escape(self.out.name))
        self._state = self._read_state() if self._resume else self._state
        self._findings = self._open_for_append("findings.jsonl", self._state.findings)
        self._skipped = self._open_for_append("skipped.csv", self._state.skipped)

    def _read_state(self) -> _ScanState:
        """Return where an earlier scan stopped; the beginning if that was another scan, or what it left is damaged."""
        fresh = _ScanState(self._key)
        try:
            state = _ScanState(**json.loads(read_plain_file(self._paths["state.json"])))
            sizes = [self._paths[name].stat().st_size for name in ("findings.jsonl", "skipped.csv")]
        except (FileNotFoundError, ValueError, TypeError):  # what can't be read otherwise may be whole
            return fresh
        counts = (state.row, state.empty, state.findings, state.skipped, state.review, state.allowed)
        if state.key != self._key or any(type(count) is not int or count < 0 for count in counts):
            return fresh
        return state if state.findings <= sizes[0] and state.skipped <= sizes[1] else fresh

    def _open_for_append(self, name: str, size: int) -> IO[bytes]:
        """Open a file for writing behind its first bytes."""
        file = self._open.enter_context(open_own_file(self._paths[name], "r+b"))
        file.truncate(size)
        file.seek(size)
        return file

    @property
    def row(self) -> int:
        """The last row that is done."""
        return self._state.row

    @property
    def empty(self) -> int:
        """Rows so far that have no title."""
        return self._state.empty

    @property
    def review(self) -> int:
        """Rows so far that are up for review."""
        return self._state.review

    @property
    def allowed(self) -> int:
        """Rows so far that are suspicious, but allowed."""
        return self._state.allowed

    def read_findings(self) -> Iterator[Finding]:
        """Yield what was found so far.

        Raises:
            UserError: If the file is damaged.
        """
        try:
            yield from read_kept_findings(self._paths["findings.jsonl"])
        except (OSError, ValueError, TypeError):
            raise UserError(f"'{self.folder}' is damaged.", "Remove it, or scan without resuming.") from None

    def read_skips(self) -> Iterator[tuple[int, str]]:
        """Yield the number of each row that could not be read so far, and why."""
        with self._paths["skipped.csv"].open(encoding="utf-8") as file:
            for line in file:
                number, _, reason = line.partition(",")
                yield int(number), reason.strip('"\n')

    def add(
        self,
        findings: Sequence[Finding],
        skipped: Sequence[tuple[int, str]],
        row: int,
        empty: int,
        review: int = 0,
        allowed: int = 0,
    ) -> None:
        """Add a chunk.

        Args:
            findings: Its findings.
            skipped: The number of each row that could not be read, and why.
            row: Its last row.
            empty: How many of its rows have no title.
            review: How many are up for review.
            allowed: How many are suspicious, but allowed.

        Raises:
            UserError: If it can't be written.
        """
        with explain_scan_errors(self.out):
            for file, lines in (
                (self._findings, list(map(encode_finding, findings))),
                (self._skipped, [f'{number},"{reason}"\n' for number, reason in skipped]),
            ):
                if lines:
                    file.write("".join(lines).encode())
                    file.flush()
                    os.fsync(file.fileno())
            sizes = self._findings.tell(), self._skipped.tell()
        before = self._state
        self._state = _ScanState(
            self._key, row, before.empty + empty, *sizes, before.review + review, before.allowed + allowed
        )
        write_text(self._paths["state.json"], json.dumps(asdict(self._state)))

    def finish(self) -> Path | None:
        """Write the file and remove the folder.

        Returns:
            Where the rows stand that could not be read; `None` if there were none.

        Raises:
            UserError: If it can't be written; the scan can then be resumed.
        """
        table = self.out.with_name(f"{self.out.name}.skipped.csv")
        with replace_atomically(self.out) as partial:
            FINDINGS_WRITERS[self.out.suffix.lower()](self._paths["findings.jsonl"], partial)
        if self._state.skipped:
            with (
                replace_atomically(table) as partial,
                partial.open("wb") as file,
                self._paths["skipped.csv"].open("rb") as rows,
            ):
                file.write(b"row,reason\n")
                shutil.copyfileobj(rows, file)
        else:
            with explain_scan_errors(table):
                table.unlink(missing_ok=True)  # of an earlier scan
        self.discard()
        return table if self._state.skipped else None

    def discard(self) -> None:
        """Remove the folder."""
        with suppress(OSError):
            self._findings.close()
            self._skipped.close()
            for path in self._paths.values():
                path.unlink(missing_ok=True)
        self.__exit__()  # others can work there from now on
        with suppress(OSError):
            self.folder.rmdir()


def check_output(out: Path, catalog: Path) -> None:
    """Look before hours of work whether findings can be written.

    Raises:
        UserError: If the name ends in nothing known, is a folder's, or is the catalogue's own.
    """
    if out.suffix.lower() not in FINDINGS_WRITERS:
        raise UserError(f"Findings can't be written to '{out}'.", f"Let its name end in {', '.join(FINDINGS_WRITERS)}.")
    with explain_scan_errors(out):
        if out.exists() and not out.is_file():
            what = "folder" if out.is_dir() else "pipe or a device"
            raise UserError(f"'{out}' is a {what}.", "Name a file, such as findings.csv.")
        if catalog.is_dir() and catalog.resolve() in out.resolve().parents:
            raise UserError(f"'{out}' lies in the catalogue's folder.", "Choose another folder for the findings.")
        for path in (out, out.with_name(f"{out.name}.skipped.csv")):
            if path.exists() and catalog.exists() and path.samefile(catalog):
                raise UserError(f"'{path}' is the catalogue itself.", "Choose another file for the findings.")
