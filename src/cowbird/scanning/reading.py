"""The rows of a catalogue, one by one in bounded memory, of any form that `cowbird.ingest` reads.

Rows are numbered from 1, without the header. Whatever is not an empty line is a row and has a number, readable or not;
a record that runs over several lines is one. A row that can't be read is told with the reason, and the next is read.
Only the title and the id are decoded: what other columns hold is nobody's reason to leave a title unread.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple, cast

from cowbird.ingest.json_table import is_text
from cowbird.ingest.open import open_rows
from cowbird.ingest.options import get_options
from cowbird.ingest.records import MAX_ROW_BYTES, TOO_LONG_REASON
from cowbird.ingest.rows import CellValue, RowTable, TableRow, TextRun
from cowbird.ingest.values import note_missing_titles
from cowbird.notices import NoticeRank, note
from cowbird.scanning.unread import UnreadRows, UnreadTally


class CatalogRow(NamedTuple):
    """One row of a catalogue."""

    number: int
    """Its number; the first row below the header is 1."""
    id: str | None
    """The item's id; `None` where there is none."""
    title: str
    """The title as it came, half surrogates too; empty where it is missing or can't be read."""
    problem: str = ""
    """Why the row can't be read; empty if it can."""


class Catalog:
    """A file with one item a row.

    Args:
        table: The file.
        text_column: The column of titles.
        id_column: The column of ids; `None` takes a usual one if there is one.

    Raises:
        UserError: If there is no such column.
    """

    def __init__(self, table: RowTable, text_column: str, id_column: str | None) -> None:
        self.table = table
        self.asked = text_column, id_column
        self.text = table.find_text(text_column)
        self.id = table.find_id(id_column)
        self.names = table.names
        self._null = get_options().null_texts

    def describe(self) -> str:
        """Say in one line how the file is read."""
        title = f"title = {self.table.get_name(self.text)}"
        found = "no id" if self.id is None else f"id = {self.table.get_name(self.id)}"
        return f"{self.table.file}: {self.table.describe()}; {title}, {found}."

    def count_rows(self) -> int:
        """Return how many rows there are; of a text file about, for it counts lines.

        Raises:
            UserError: If the file is damaged.
        """
        return self.table.count_rows()

    def read_rows(self) -> Iterator[CatalogRow]:
        """Yield all rows in order.

        Raises:
            UserError: If the file is damaged.
        """
        null: Counter[str] = Counter()
        for run in self.table.read_runs([self.text] if self.id is None else [self.text, self.id]):
            told = self.table.undecodable
            rows = _make_run(run) if isinstance(run, TextRun) else [_make_row(row, told) for row in run]
            if not self._null.isdisjoint([row.title for row in rows]):
                null.update(row.title for row in rows if row.title in self._null)
                rows = [row._replace(title="") if row.title in self._null else row for row in rows]
            yield from rows
        note_missing_titles(self.table.file, null)


def open_catalog(path: Path, text_column: str = "title", id_column: str | None = None) -> Catalog:
    """Open a catalogue; how is told (`cowbird.notices`) and may be said (`cowbird.ingest.options.use_options`).

    Args:
        path: The file; see `cowbird.ingest.open.open_rows`.
        text_column: The column of titles; where `title` is not there, a usual name such as `name` is looked for.
        id_column: The column of ids; `None` takes a usual one such as `id` or `sku` if there is one.

    Raises:
        UserError: If the file is missing, empty, or not what its name says, or lacks a column.
    """
    found = Catalog(open_rows(path), text_column, id_column)
    note(NoticeRank.CHOICE, found.describe())
    return found


def tally_unread(rows: Iterable[CatalogRow]) -> tuple[UnreadRows, ...]:
    """Return which of some rows could not be read, by reason."""
    found = UnreadTally()
    for row in rows:
        if row.problem:
            found.add(row.number, row.problem)
    return found.list()


def _make_run(run: TextRun) -> list[CatalogRow]:
    """Return the titles and the ids of rows that can all be read."""
    titles, *more = run.columns
    numbers = range(run.first, run.first + len(titles))
    names = [name or None for name in more[0]] if more else repeat(None, len(titles))
    if None in titles:
        titles = [title or "" for title in titles]
    make = cast(Any, tuple.__new__)  # what `CatalogRow` itself does, in a third of the time
    return list(map(make, repeat(CatalogRow), zip(numbers, names, titles, repeat(""), strict=False)))


def _make_row(row: TableRow, undecodable: str) -> CatalogRow:
    """Return the title and the id of a row; an odd id keeps nobody from reading the title."""
    title, *more = row.cells
    id_ = _decode_id(more[0]) if more else None
    if row.problem or title is None:
        return CatalogRow(row.number, id_, "", row.problem)
    if not is_text(title):
        return CatalogRow(row.number, id_, "", "title is not text")
    if isinstance(title, str):
        return CatalogRow(row.number, id_, title)
    if len(title) > MAX_ROW_BYTES:
        return CatalogRow(row.number, id_, "", TOO_LONG_REASON)
    try:
        return CatalogRow(row.number, id_, title.decode())
    except UnicodeDecodeError:
        return CatalogRow(row.number, id_, "", undecodable)


def _decode_id(cell: CellValue) -> str | None:
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace") or None
    return cell
