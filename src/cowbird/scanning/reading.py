"""The rows of a catalogue, one by one in bounded memory: CSV and TSV, JSON Lines (all of them also gzipped), Parquet.

Rows are numbered from 1, without the header. Whatever is not an empty line is a row and has a number, readable or not;
a record that runs over several lines is one. A row that can't be read is told with the reason, and the next is read.
Only the title and the id are decoded: what other columns hold is nobody's reason to leave a title unread.

Files are opened, and those that are no text refused, as by the sources in `cowbird.data`. Parquet is read with pyarrow,
which streams within a row group; polars holds whole ones.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from cowbird.data.sources.delimited import TextLayout, TextTable, refuse_binary
from cowbird.data.sources.files import Blob, find_column, from_file
from cowbird.data.sources.pages import MAX_PAGE_BYTES, choose_batch_rows, read_pages
from cowbird.data.types import Skips
from cowbird.errors import UserError
from cowbird.scanning.records import MAX_ROW_BYTES, TOO_LONG_REASON, DelimitedRecords, read_lines

SAMPLE_ROWS = 1000
"""Rows of a JSON Lines file that tell which columns it has."""
MAX_JSON_VALUES = 20_000
"""Names, values and places in lists of a row of JSON Lines at most."""
PARQUET_BATCH_ROWS = 256
"""Rows of a Parquet file decoded at once: few, for a long title that repeats is stored once and decoded each time."""
ID_COLUMNS = ("id", "item_id")
"""Where ids are looked for, if no column is named."""

_NOT_UTF8 = "is not valid UTF-8"
_LARGE_PAGE = f"stands in a row group with a Parquet page of more than {MAX_PAGE_BYTES:,} bytes"
_MANY_VALUES = f"holds more than {MAX_JSON_VALUES:,} values"
_PARQUET_ERRORS: Any = (pa.ArrowException, OSError, ValueError)
_TEXT_TYPES = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "null")


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


class Catalog(ABC):
    """A file with one item a row.

    Args:
        path: The file.
        names: Its columns.
        text_column: The column of titles; `None` takes the first one.
        id_column: The column of ids; `None` takes the first of `ID_COLUMNS` that there is.

    Raises:
        UserError: If there is no such column.
    """

    def __init__(self, path: Path, names: Sequence[str], text_column: str | None, id_column: str | None) -> None:
        self.path = path
        self.names = list(names)
        self.text = 0 if text_column is None else find_column(text_column, self.names, path.name, "--text-column")
        wanted = id_column or next((name for name in ID_COLUMNS if name in self.names), None)
        self.id = None if wanted is None else find_column(wanted, self.names, path.name, "--id-column")

    @abstractmethod
    def count_rows(self) -> int:
        """Return how many rows there are; of a text file about, for it counts lines.

        Raises:
            UserError: If the file is damaged.
        """

    @abstractmethod
    def read_rows(self) -> Iterator[CatalogRow]:
        """Yield all rows in order.

        Raises:
            UserError: If the file is damaged.
        """


def list_columns(path: Path) -> list[str]:
    """Return the names of a table's columns; arguments and errors as of `open_catalog`."""
    return open_catalog(path, None).names


def open_catalog(path: Path, text_column: str | None = "title", id_column: str | None = None) -> Catalog:
    """Open a catalogue; the end of its name says what it is.

    Args:
        path: A file whose name ends in `.csv`, `.txt`, `.tsv`, `.jsonl` or `.ndjson`, each perhaps followed by `.gz`,
            or in `.parquet` or `.pq`.
        text_column: The column of titles; `None` takes the first one, to look at the others.
        id_column: The column of ids; `None` takes `id` or `item_id` if there is one.

    Raises:
        UserError: If the file is missing, empty, or not what its name says, or lacks a column.
    """
    try:
        blob = from_file(path)
    except OSError as error:  # a name that no file can have
        raise UserError(f"{path} can't be read: {error.strerror}.", "Give the path of a file.") from None
    kind = Path(path.name.removesuffix(".gz")).suffix.lower()
    if kind in (".csv", ".txt", ".tsv"):
        return _DelimitedCatalog(path, blob, text_column, id_column, tabs=kind == ".tsv")
    if kind in (".jsonl", ".ndjson"):
        return _JsonLinesCatalog(path, blob, text_column, id_column)
    if path.suffix.lower() in (".parquet", ".pq"):
        return _ParquetCatalog(path, text_column, id_column)
    raise UserError(
        f"{path.name} should be CSV, TSV, JSON Lines or Parquet, and its name does not end like one.",
        "Name it .csv, .tsv or .jsonl (one JSON object a line), each perhaps with .gz, or .parquet.",
    )


def _count_newlines(blob: Blob) -> int:
    """Return how many newlines a file has. All of it is read, so damage is found before hours of work, not after."""
    count = 0
    with blob.open_stream() as stream:
        while block := stream.read(1 << 20):
            count += block.count(b"\n")
    return count


def _decode_row(number: int, name: bytes | None, title: bytes) -> CatalogRow:
    """Return a row of raw bytes; an odd id keeps nobody from reading the title."""
    id_ = None if name is None else name.decode("utf-8", "replace")
    if len(title) > MAX_ROW_BYTES:
        return CatalogRow(number, id_, "", TOO_LONG_REASON)
    try:
        return CatalogRow(number, id_, title.decode())
    except UnicodeDecodeError:
        return CatalogRow(number, id_, "", _NOT_UTF8)


class _DelimitedCatalog(Catalog):
    """Text with one header line; double quotes wrap fields (RFC 4180)."""

    def __init__(self, path: Path, blob: Blob, text_column: str | None, id_column: str | None, tabs: bool) -> None:
        self._blob = blob
        with blob.open_stream() as stream:
            head = self._read_header(read_lines(stream))
        separator = "\t" if tabs else max(",\t;|", key=lambda each: head.count(each.encode()))
        self._separator = separator.encode()
        super().__init__(path, TextTable(blob, TextLayout(separator), Skips()).names, text_column, id_column)

    @staticmethod
    def _read_header(body: Iterator[bytes | None]) -> bytes:
        """Take the lines up to the first that is not blank, and return that."""
        return next((line for line in body if line is None or line.strip()), None) or b""

    def count_rows(self) -> int:
        return _count_newlines(self._blob)

    def read_rows(self) -> Iterator[CatalogRow]:
        with self._blob.open_stream() as stream:
            body = read_lines(stream)
            self._read_header(body)
            for number, record in enumerate(DelimitedRecords(body, self._separator), 1):
                yield self._make_row(number, record)

    def _make_row(self, number: int, record: list[bytes] | str) -> CatalogRow:
        if isinstance(record, str):
            return CatalogRow(number, None, "", record)
        if len(record) != len(self.names):
            return CatalogRow(number, None, "", f"wrong number of columns (expected {len(self.names)})")
        return _decode_row(number, None if self.id is None else record[self.id] or None, record[self.text])


class _NumberText(str):
    """A number as JSON writes it, of any length; not a title."""

    __slots__ = ()


class _DuplicateNameError(ValueError):
    """A JSON object has a name twice."""


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; with a name twice, what the scan reads would not be what another reader sees."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _DuplicateNameError
    return found


_JSON_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_DECODER = json.JSONDecoder(object_pairs_hook=_make_object, parse_int=_NumberText, parse_float=_NumberText)


class _JsonLinesCatalog(Catalog):
    """One JSON object a line."""

    def __init__(self, path: Path, blob: Blob, text_column: str | None, id_column: str | None) -> None:
        self._blob = blob
        names: dict[str, None] = {}
        problem = ""
        with blob.open_stream() as stream:
            refuse_binary(stream.read(4096), path.name)
        for number, found in islice(self._read_objects(), SAMPLE_ROWS):
            if isinstance(found, dict):
                names |= dict.fromkeys(islice(found, MAX_JSON_VALUES - len(names)))
            else:
                problem = problem or f"row {number} {found}"
        if not names:
            raise UserError(
                f"{path.name} should hold a JSON object a line, and none is found: {problem or 'it has no rows'}.",
                'Write one object a line, such as {"title": "…"}, in UTF-8.',
            )
        super().__init__(path, list(names), text_column, id_column)

    def count_rows(self) -> int:
        return _count_newlines(self._blob)

    def _read_objects(self) -> Iterator[tuple[int, dict[str, Any] | str]]:
        """Yield the number of each row, and its object or why there is none."""
        number = 0
        with self._blob.open_stream() as stream:
            for line in read_lines(stream):
                if line is None or line.strip():
                    number += 1
                    yield number, TOO_LONG_REASON if line is None else _parse_object(line)

    def read_rows(self) -> Iterator[CatalogRow]:
        text, name = self.names[self.text], None if self.id is None else self.names[self.id]
        for number, found in self._read_objects():
            if isinstance(found, str):
                yield CatalogRow(number, None, "", found)
                continue
            id_ = None if name is None else _format_id(found.get(name))
            title = found.get(text)
            if title is None or type(title) is str:
                yield CatalogRow(number, id_, title or "")
            else:
                yield CatalogRow(number, id_, "", "title is not text")


def _parse_object(line: bytes) -> dict[str, Any] | str:
    """Return the object of a line, or why there is none."""
    if len(line) > MAX_JSON_VALUES and _count_values(line) > MAX_JSON_VALUES:
        return _MANY_VALUES
    try:
        found = _DECODER.decode(line.decode())
    except UnicodeDecodeError:
        return _NOT_UTF8
    except _DuplicateNameError:
        return "has a name twice"
    except (ValueError, RecursionError):
        return "is not JSON"
    return cast("dict[str, Any]", found) if isinstance(found, dict) else "is not a JSON object"


def _count_values(line: bytes) -> int:
    """Return how many values a line of JSON may hold at most: an object for each costs many times its bytes."""
    bare = _JSON_STRING.sub(b"", line)
    return sum(bare.count(sign) for sign in (b",", b":", b"[", b"{"))


def _format_id(value: Any) -> str | None:
    """Return an id; what is neither text nor a number is written as JSON."""
    if value is None:
        return None
    return str(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class _ParquetCatalog(Catalog):
    """A Parquet file; its strings are decoded here, one by one, for a file may claim that they are UTF-8."""

    def __init__(self, path: Path, text_column: str | None, id_column: str | None) -> None:
        with _explain_errors(path):
            file: Any = pq.ParquetFile(path)
            schema: Any = file.schema_arrow
            self._total = int(file.metadata.num_rows)
            file.close()
        super().__init__(path, schema.names, text_column, id_column)
        kind: Any = schema.field(self.text).type
        if not _is_text(kind) and text_column is not None and self.text != self.id:
            raise UserError(
                f"Column '{text_column}' of {path.name} should hold text, and it holds {kind}.",
                "Name another column with --text-column.",
            )
        if self.id is not None and pa.types.is_nested(schema.field(self.id).type):
            raise UserError(
                f"Column '{self.names[self.id]}' of {path.name} should hold ids, and it holds lists or structs.",
                "Name another column with --id-column.",
            )

    def count_rows(self) -> int:
        return self._total

    def read_rows(self) -> Iterator[CatalogRow]:
        number = 0
        with _explain_errors(self.path):
            # Buffered, so that a column of a large row group is read page by page.
            file: Any = pq.ParquetFile(self.path, pre_buffer=False, buffer_size=1 << 20)
            for group in range(file.num_row_groups):
                yield from self._read_group(file, group, number)
                number += file.metadata.row_group(group).num_rows

    def _read_group(self, file: Any, group: int, number: int) -> Iterator[CatalogRow]:
        """Yield the rows of a row group behind a number; a page too large to be decoded costs its rows alone."""
        wanted = [self.names[at] for at in dict.fromkeys((self.text, self.text if self.id is None else self.id))]
        held = [read_pages(self.path, file.metadata, group, name) for name in wanted]
        size = min(choose_batch_rows(pages, PARQUET_BATCH_ROWS) for pages in held)
        if size == 0:
            for nth in range(number + 1, number + file.metadata.row_group(group).num_rows + 1):
                yield CatalogRow(nth, None, "", _LARGE_PAGE)
            return
        batches = file.iter_batches(batch_size=size, row_groups=[group], columns=wanted, use_threads=False)
        for batch in batches:
            titles = _to_bytes(batch.column(wanted[0]))
            ids = [None] * len(titles) if self.id is None else _to_bytes(batch.column(wanted[-1]))
            for title, id_ in zip(titles, ids, strict=True):
                number += 1
                yield _decode_row(number, id_, title or b"")


@contextmanager
def _explain_errors(path: Path) -> Generator[None]:
    """Turn what pyarrow says of a damaged file into an error for people."""
    try:
        yield
    except _PARQUET_ERRORS as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{path.name} should be a Parquet file, and it can't be read: {reason}.",
            "Check that the file is complete, or write it again.",
        ) from error


def _is_text(kind: Any) -> bool:
    """Tell whether a column holds strings, or bytes that may be such."""
    return str(kind.value_type if pa.types.is_dictionary(kind) else kind) in _TEXT_TYPES


def _to_bytes(column: Any) -> list[bytes | None]:
    """Return the values of a column as bytes of text; whole numbers that were stored as floats lose their `.0`."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_text(column.type):
        return column.cast(pa.large_binary()).to_pylist()
    return [None if value is None else value.encode() for value in column.cast(pa.large_string()).to_pylist()]
