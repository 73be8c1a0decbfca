"""Parquet files row by row; columns may lie in structs and lists, as `product.titles[0]`."""

import importlib
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cowbird.errors import UserError
from cowbird.ingest.options import ReadOptions
from cowbird.ingest.pages import MAX_PAGE_BYTES, choose_batch_rows, read_pages
from cowbird.ingest.paths import split_path
from cowbird.ingest.records import MAX_ROW_BYTES
from cowbird.ingest.rows import RowTable, TableRow, TextRun

PARQUET_BATCH_ROWS = 256
"""Rows decoded at once: few, for a long title that repeats is stored once and decoded each time."""
_LARGE_PAGE = f"stands in a row group with a Parquet page of more than {MAX_PAGE_BYTES:,} bytes"
_TEXT_TYPES = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "null")
_ERRORS: Any = (pa.ArrowException, OSError, ValueError)


class ParquetRows(RowTable):
    """A Parquet file row by row; strings are decoded by the reader, for a file may claim that they are UTF-8.

    It is read with pyarrow, which streams within a row group; polars holds whole ones.

    Args:
        path: The file.
        options: How it is to be read; nothing but texts for missing values is left to say.

    Raises:
        UserError: If it is missing or is not Parquet.
    """

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self.file = path.name
        options.refuse_others(path.name, "Parquet")
        self._path = path
        with _explain_errors(path):
            file: Any = pq.ParquetFile(path)
            self._schema: Any = file.schema_arrow
            self._total = int(file.metadata.num_rows)
            file.close()
        self.names = list(self._schema.names)

    def describe(self) -> str:
        """Say in a few words how it is read."""
        return "read as Parquet"

    def count_rows(self) -> int:
        """Return how many rows there are."""
        return self._total

    def find_text(self, wanted: str) -> int:
        """Return the position of a column of titles, which may lie in a struct or a list: `product.titles[0]`."""
        place = self._find_path(wanted)
        if place is None:
            place = super().find_text(wanted)
        name = self.names[place]
        kind = self._find_type(name)
        if is_list(kind) and _is_text(kind.value_type):
            raise UserError(
                f"Column '{name}' of {self.file} holds lists of text.", f"Take the first: --text-column '{name}[0]'."
            )
        if not _is_text(kind):
            raise UserError(
                f"Column '{name}' of {self.file} should hold text, and it holds {kind}.",
                "Name another column with --text-column; a part of it as 'column.part' or 'column[0]'.",
            )
        return place

    def find_id(self, wanted: str | None) -> int | None:
        """Return the position of a column of ids."""
        place = None if wanted is None else self._find_path(wanted)
        if place is None:
            place = super().find_id(wanted)
        if place is not None and pa.types.is_nested(self._find_type(self.names[place])):
            raise UserError(
                f"Column '{self.names[place]}' of {self.file} should hold ids, and it holds lists or structs.",
                "Name another column with --id-column; a part of it as 'column.part' or 'column[0]'.",
            )
        return place

    def _find_path(self, wanted: str) -> int | None:
        """Return the position of a column that lies in another one, which is then listed too; `None` if none does."""
        if wanted in self.names or self._find_type(wanted) is None:
            return None
        self.names.append(wanted)
        return len(self.names) - 1

    def _find_type(self, name: str) -> Any:
        """Return the type of a column or of what lies in one; `None` if there is no such."""
        if name in self._schema.names:
            return self._schema.field(self._schema.names.index(name)).type
        steps = split_path(name)
        if not steps or steps[0] not in self._schema.names:
            return None
        kind: Any = self._schema.field(self._schema.names.index(steps[0])).type
        for step in steps[1:]:
            if isinstance(step, int) and is_list(kind):
                kind = kind.value_type
            elif isinstance(step, str) and pa.types.is_struct(kind) and kind.get_field_index(step) >= 0:
                kind = kind.field(kind.get_field_index(step)).type
            else:
                return None
        return kind

    def read_rows(self, places: Sequence[int]) -> Iterator[TableRow]:
        """Yield all rows in order; a page too large to be decoded costs its rows alone."""
        paths = [self._split(self.names[place]) for place in places]
        for number, count, batch in self._read_batches(paths):
            yield from _make_rows(number, count, batch, paths)

    def read_runs(self, places: Sequence[int]) -> Iterator[TextRun | list[TableRow]]:
        """Yield all rows in order, in runs; see `RowTable.read_runs`."""
        paths = [self._split(self.names[place]) for place in places]
        for number, count, batch in self._read_batches(paths):
            columns = None if batch is None else [_to_texts(_find_column(batch, steps), steps[1:]) for steps in paths]
            if columns is not None and all(column is not None for column in columns):
                yield TextRun(number + 1, tuple([column or [] for column in columns]))
            else:
                yield list(_make_rows(number, count, batch, paths))

    def _read_batches(self, paths: Sequence[Sequence[str | int]]) -> Iterator[tuple[int, int, Any]]:
        """Yield some rows at a time: how many came before, how many they are, and these; nothing for a large page."""
        number = 0
        with _explain_errors(self._path):
            # Buffered, so that a column of a large row group is read page by page.
            file: Any = pq.ParquetFile(self._path, pre_buffer=False, buffer_size=1 << 20)
            for group in range(file.num_row_groups):
                for count, batch in self._read_group(file, group, paths):
                    yield number, count, batch
                    number += count

    def _split(self, name: str) -> list[str | int]:
        return [name] if name in self._schema.names else split_path(name)

    def _read_group(self, file: Any, group: int, paths: Sequence[Sequence[str | int]]) -> Iterator[tuple[int, Any]]:
        """Yield the rows of a row group, some at a time."""
        wanted = list(dict.fromkeys(str(steps[0]) for steps in paths))
        held = [read_pages(self._path, file.metadata, group, name) for name in wanted]
        size = min((choose_batch_rows(pages, PARQUET_BATCH_ROWS) for pages in held), default=PARQUET_BATCH_ROWS)
        if size == 0:
            yield file.metadata.row_group(group).num_rows, None
            return
        for batch in file.iter_batches(batch_size=size, row_groups=[group], columns=wanted, use_threads=False):
            yield batch.num_rows, batch


def _find_column(batch: Any, steps: Sequence[str | int]) -> Any:
    """Return the column of a batch in which a path begins."""
    return batch.column(batch.schema.names.index(steps[0]))


def _make_rows(number: int, count: int, batch: Any, paths: Sequence[Sequence[str | int]]) -> Iterator[TableRow]:
    """Yield the rows of a batch behind a number; without a batch, rows that can't be read."""
    if batch is None:
        for nth in range(number + 1, number + count + 1):
            yield TableRow(nth, (None,) * len(paths), _LARGE_PAGE)
        return
    columns = [_to_cells(_find_column(batch, steps), steps[1:]) for steps in paths]
    for nth, cells in enumerate(zip(*columns, strict=True), number + 1):
        yield TableRow(nth, cells)


@contextmanager
def _explain_errors(path: Path) -> Generator[None]:
    """Turn what pyarrow says of a damaged file into an error for people."""
    try:
        yield
    except _ERRORS as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{path.name} should be a Parquet file, and it can't be read: {reason}.",
            "Check that the file is complete, or write it again.",
        ) from error


def is_list(kind: Any) -> bool:
    """Tell whether a column holds lists."""
    types: Any = pa.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _is_text(kind: Any) -> bool:
    """Tell whether a column holds strings, or bytes that may be such."""
    return str(kind.value_type if pa.types.is_dictionary(kind) else kind) in _TEXT_TYPES


def _to_cells(column: Any, steps: Sequence[str | int]) -> list[bytes | None]:
    """Return the values of a column, or what lies in them, as bytes of text.

    Whole numbers that were stored as floats lose their `.0`.
    """
    compute: Any = importlib.import_module("pyarrow.compute")  # which takes a while, and CSV needs it not
    for step in steps:
        if isinstance(step, str):
            column = compute.struct_field(column, step)
        else:
            lengths = compute.list_value_length(column)
            column = compute.list_element(column.filter(compute.greater(lengths, step)), step)
            column = _spread(column, compute.fill_null(compute.greater(lengths, step), False))
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_text(column.type):
        return column.cast(pa.large_binary()).to_pylist()
    if pa.types.is_nested(column.type):
        return [None if value is None else json.dumps(value, default=str).encode() for value in column.to_pylist()]
    return [None if value is None else value.encode() for value in column.cast(pa.large_string()).to_pylist()]


def _to_texts(column: Any, steps: Sequence[str | int]) -> list[str | None] | None:
    """Return the values of a column of text or whole numbers; `None` if one is no UTF-8, or all are very long."""
    if steps or not (_is_text(column.type) or pa.types.is_integer(column.type)) or pa.types.is_null(column.type):
        return None
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    values = column.cast(pa.large_binary() if _is_text(column.type) else pa.large_string())
    _, places, held = values.buffers()
    ends: list[int] = np.frombuffer(places, np.int64)[values.offset : values.offset + len(values) + 1].tolist()
    raw: bytes = b"" if held is None else memoryview(held)[ends[0] : ends[-1]].tobytes()
    if len(raw) > MAX_ROW_BYTES:
        return None
    try:
        text = raw.decode()
        start = ends[0]
        if len(text) == len(raw):
            found: list[str | None] = [text[a - start : b - start] for a, b in pairwise(ends)]
        else:
            found = [raw[a - start : b - start].decode() for a, b in pairwise(ends)]
    except UnicodeDecodeError:
        return None
    for nth in np.flatnonzero(values.is_null()).tolist() if values.null_count else ():
        found[nth] = None
    return found


def _spread(values: Any, kept: Any) -> Any:
    """Return values at the places that are kept, and nothing at the others."""
    compute: Any = importlib.import_module("pyarrow.compute")  # which takes a while, and CSV needs it not
    places = compute.subtract(compute.cumulative_sum(kept.cast(pa.int64())), 1)
    return values.take(compute.if_else(kept, places, None))
