"""Tables of SQLite's databases, row by row; a database is only read."""

import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from cowbird.errors import UserError
from cowbird.ingest.columns import find_column
from cowbird.ingest.options import ReadOptions
from cowbird.ingest.records import MAX_ROW_BYTES
from cowbird.ingest.rows import RowTable, TableRow


class DatabaseRows(RowTable):
    """One table of a database.

    Args:
        path: The database.
        options: Says which table, if there are several.

    Raises:
        UserError: If it is no database, or which table is meant is not clear.
    """

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self.file = path.name
        options.refuse_others(path.name, "a database", "table")
        self._path = path
        with self._connect() as base:
            found = base.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' "
                                 "ESCAPE '~' ORDER BY name").fetchall()  # fmt: skip
            tables = [_decode(name) for (name,) in found]
            self._table = self._choose_table(tables, options.table)
            columns = base.execute(f"PRAGMA table_info({_quote(self._table)})").fetchall()
        self.names = [_decode(column[1]) for column in columns]

    def _choose_table(self, tables: Sequence[str], wanted: str | None) -> str:
        if wanted in tables:
            return str(wanted)
        if wanted is None and len(tables) == 1:
            return tables[0]
        shown = ", ".join(f"'{name[:60]}'" for name in tables[:20]) or "none"
        asked = "one table" if wanted is None else f"a table '{wanted}'"
        raise UserError(
            f"{self.file} should have {asked}, and its tables are {shown}.",
            "Name the table: --table (table in specs)." if tables else "Check that this is the right file.",
        )

    @contextmanager
    def _connect(self) -> Generator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(f"file:{quote(str(self._path))}?mode=ro", uri=True)) as base:
                base.text_factory = bytes
                base.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 4 * MAX_ROW_BYTES)
                base.execute("PRAGMA trusted_schema = OFF")
                yield base
        except (sqlite3.Error, OverflowError) as error:
            raise UserError(
                f"{self.file} should be a SQLite database, and it can't be read: {error}.",
                "Check that the file is complete and that nobody writes to it.",
            ) from error

    def describe(self) -> str:
        """Say in a few words how it is read."""
        return f"read as the table '{self._table}' of a SQLite database"

    def count_rows(self) -> int:
        """Return how many rows there are."""
        with self._connect() as base:
            return int(base.execute(f"SELECT COUNT(*) FROM {_quote(self._table)}").fetchone()[0])

    def read_rows(self, places: Sequence[int]) -> Iterator[TableRow]:
        """Yield all rows in the order of the database; whole numbers held as floats lose their `.0`."""
        for place in places:
            find_column(self.names[place], self.names, self.file)
        wanted = ", ".join(_quote(self.names[place]) for place in places)
        with self._connect() as base:
            for number, row in enumerate(base.execute(f"SELECT {wanted} FROM {_quote(self._table)}"), 1):
                yield TableRow(number, tuple([_to_cell(value) for value in row]))


def _quote(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _decode(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _to_cell(value: bytes | str | float | None) -> bytes | str | None:
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else str(value)
    return str(value) if isinstance(value, int) else value
