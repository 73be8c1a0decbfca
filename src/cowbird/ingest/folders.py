"""A folder of files of one kind as one table; folders named `country=DE` are columns of their own (Hive's partitions).

Parts are read in the order of their paths. They have the columns of the first one; a part that lacks one that is asked
for is an error, and nothing is left out. Hidden files and those whose names begin with `_` are no parts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl

from cowbird.errors import UserError
from cowbird.ingest.columns import find_column
from cowbird.ingest.paths import split_path
from cowbird.ingest.rows import LATE_ID, LINE_COLUMN, FrameTable, PartedTable, RowTable, TableRow, TextRun
from cowbird.ingest.sampling import limit_frames
from cowbird.text import count_things

MAX_PARTS = 100_000
"""Files of a folder at most."""
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
"""What Hive names the folder of rows without a value."""
_LATE_NAME = "\0id"


@dataclass(frozen=True, slots=True)
class TablePart:
    """One file of a folder."""

    path: Path
    """The file."""
    values: tuple[tuple[str, str | None], ...]
    """Columns that the names of its folders give, and their values."""


def list_parts(folder: Path) -> list[TablePart]:
    """Return the files of a folder that make a table, in the order of their paths.

    Raises:
        UserError: If there are none or too many, or they are named after different columns.
    """
    found: list[TablePart] = []
    for path in islice(_walk(folder), MAX_PARTS + 1):
        names = path.relative_to(folder).parts[:-1]
        pairs = [name.partition("=") for name in names if "=" in name]
        values = tuple((name, None if value == NULL_PARTITION else unquote(value)) for name, _, value in pairs)
        found.append(TablePart(path, values))
    if not found:
        raise UserError(f"{folder} should hold files with rows, and it holds none.", "Give a file, or another folder.")
    if len(found) > MAX_PARTS:
        raise UserError(f"{folder} holds more than {MAX_PARTS:,} files.", "Give a folder in it.")
    first = [name for name, _ in found[0].values]
    for part in found:
        if [name for name, _ in part.values] != first:
            raise UserError(
                f"{found[0].path.relative_to(folder)} and {part.path.relative_to(folder)} lie in folders that name "
                "different columns.",
                "Give a folder with partitions of one kind.",
            )
    return found


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and those below it in order; links to folders are not followed."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        elif path.is_file():
            yield path


def check_kinds(folder: Path, parts: Sequence[TablePart], kinds: Sequence[str]) -> str:
    """Return the kind of all parts.

    Args:
        folder: The folder.
        parts: Its files.
        kinds: What the name of each says that it is; empty where it says nothing.

    Raises:
        UserError: If they are not of one kind.
    """
    for part, kind in zip(parts, kinds, strict=True):
        if not kind or kind != kinds[0]:
            name = part.path.relative_to(folder)
            other = f"of the kind of {parts[0].path.relative_to(folder)}" if kind and kinds[0] else "of a known kind"
            raise UserError(
                f"{folder} should hold files of one kind, and {name} is not {other}.",
                "Move it away, or give its path alone.",
            )
    return kinds[0]


class FolderRows(PartedTable):
    """The rows of a folder's files, one after the other.

    Args:
        folder: The folder.
        parts: Its files.
        tables: Opens a part.
    """

    def __init__(self, folder: Path, parts: Sequence[TablePart], tables: Callable[[Path], RowTable]) -> None:
        self.file = folder.name
        self._parts, self._open = parts, tables
        self._first = tables(parts[0].path)
        self.undecodable = self._first.undecodable
        self._keys = [name for name, _ in parts[0].values]
        own = [name for name in self._first.names if name not in self._keys]
        self.names = [*own, *self._keys]

    @property
    def parts(self) -> Sequence[TablePart]:
        """Its files."""
        return self._parts

    def take_part(self, nth: int) -> "FolderRows":
        """Return a table of one of the files alone, with the columns of the folder; its rows are numbered from 1."""
        taken = copy(self)
        taken._parts, taken.names = [self._parts[nth]], list(self.names)
        return taken

    def describe(self) -> str:
        """Say in a few words how it is read."""
        word = "column" if len(self._keys) == 1 else "columns"
        keys = f" and {word} {', '.join(self._keys)} from the names of folders" if self._keys else ""
        first = "" if len(self._parts) == 1 else "the first "
        return f"{count_things(len(self._parts), 'file')}{keys}, {first}{self._first.describe()}"

    def count_rows(self) -> int:
        """Return about how many rows there are."""
        return sum(self._open(part.path).count_rows() for part in self._parts)

    def find_text(self, wanted: str) -> int:
        """Return the position of a column of titles; see `RowTable.find_text`."""
        if wanted in self._keys:
            return self.names.index(wanted)
        return self._add(self._first.find_text(wanted))

    def find_id(self, wanted: str | None) -> int | None:
        """Return the position of a column of ids; see `RowTable.find_id`."""
        if wanted in self._keys:
            return self.names.index(str(wanted))
        found = self._first.find_id(wanted)
        return None if found is None else self._add(found)

    def get_name(self, place: int) -> str:
        """Return a column's name for people."""
        return self._first.get_name(LATE_ID) if self.names[place] == _LATE_NAME else super().get_name(place)

    def _add(self, place: int) -> int:
        """Return the position here of a column of the first part."""
        name = _LATE_NAME if place == LATE_ID else self._first.names[place]
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)

    def read_rows(self, places: Sequence[int]) -> Iterator[TableRow]:
        """Yield all rows in order, numbered on from part to part."""
        number = 0
        for table, own, merge in self._open_parts(places):
            for row in table.read_rows(own):
                number += 1
                yield TableRow(number, tuple(merge(row.cells, _keep)), row.problem)

    def read_runs(self, places: Sequence[int]) -> Iterator[TextRun | list[TableRow]]:
        """Yield all rows in order, in runs; see `RowTable.read_runs`."""
        number = 0
        for table, own, merge in self._open_parts(places):
            before = number
            for run in table.read_runs(own) if own else ([row] for row in table.read_rows(own)):
                if isinstance(run, TextRun):
                    count = len(run.columns[0])
                    yield TextRun(before + run.first, tuple(merge(run.columns, partial(_repeat, count))))
                else:
                    count = len(run)
                    yield [TableRow(before + row.number, tuple(merge(row.cells, _keep)), row.problem) for row in run]
                number += count

    def _open_parts(self, places: Sequence[int]) -> Iterator[tuple[RowTable, list[int], Callable[..., list[Any]]]]:
        """Yield each part, its columns that are wanted, and what puts those of the folders' names between them."""
        wanted = [self.names[place] for place in places]
        for part in self._parts:
            table, values = self._open(part.path), dict(part.values)
            own = [name for name in wanted if name not in values]
            yield table, [self._locate(table, name, part) for name in own], partial(_merge, wanted, own, values)

    def _locate(self, table: RowTable, name: str, part: TablePart) -> int:
        """Return the position of a column in a part; one that lies in another is looked for as such."""
        if name == _LATE_NAME:
            return LATE_ID
        if name in table.names or not split_path(name)[1:]:
            return find_column(name, table.names, f"{self.file}/{part.path.name}")
        return table.find_text(name)


def _merge(
    wanted: Sequence[str],
    own: Sequence[str],
    values: Mapping[str, str | None],
    found: Sequence[Any],
    given: Callable[[str | None], Any],
) -> list[Any]:
    """Return what is wanted, in order: what was found in a part, and what `given` makes of the names of its folders."""
    known = dict(zip(own, found, strict=True))
    return [given(values[name]) if name in values else known[name] for name in wanted]


def _keep(value: str | None) -> str | None:
    return value


def _repeat(count: int, value: str | None) -> list[str | None]:
    return [value] * count


class FolderFrames:
    """The files of a folder as frames, one after the other.

    Args:
        folder: The folder.
        parts: Its files.
        tables: Opens a part.
    """

    def __init__(self, folder: Path, parts: Sequence[TablePart], tables: Callable[[Path], FrameTable]) -> None:
        self.file = folder.name
        self._parts, self._open = parts, tables
        first = tables(parts[0].path)
        self._keys = [name for name, _ in parts[0].values]
        self.names = [*(name for name in first.names if name not in self._keys), *self._keys]

    def read_frames(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Yield the rows, block by block; `LINE_COLUMN` counts on from part to part."""
        return limit_frames(self.file, self._read_parts(columns))

    def _read_parts(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        before = 0
        for part in self._parts:
            values = dict(part.values)
            last = 0
            for frame in self._open(part.path).read_frames([name for name in columns if name not in values]):
                lines = frame[LINE_COLUMN].to_list()[-1:]
                last = max([last, *lines])
                given = [pl.lit(values[name], dtype=pl.String).alias(name) for name in columns if name in values]
                yield frame.with_columns(*given, pl.col(LINE_COLUMN) + before).select(*columns, LINE_COLUMN)
            before += last
