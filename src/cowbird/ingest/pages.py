"""How large the pages of a Parquet file are, read from their headers before any is decoded.

A file of a few kilobytes may hold a string of gigabytes, and a library decodes a page at once. The sizes in the footer
are the writer's claim. Those in the page headers are what a reader allocates, so they are what is read here: a small
part of Thrift's compact protocol (https://github.com/apache/parquet-format, `PageHeader`).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

MAX_PAGE_BYTES = 1 << 27
"""Bytes of the largest page that is decoded."""
MAX_BATCH_BYTES = 1 << 26
"""Bytes of strings decoded at once, of which a few copies are made; with a dictionary of a mebibyte, 64 rows."""
DELTA_COPIES = 4
"""Times that a string is held while strings that repeat the start of the one before are decoded (measured)."""
MAX_EXPANSION = 100
"""Times the size of a file that its pages may come to, beyond `MAX_EXPANDED_BYTES`."""
MAX_EXPANDED_BYTES = 1 << 30
"""Bytes of all pages that may be decoded of any file that is read whole."""

_DICTIONARY_PAGE = 2
_DICTIONARY_ENCODINGS = (2, 8)
_DELTA_BYTE_ARRAY = 7
_MAX_DEPTH = 8


class Page(NamedTuple):
    """One page of a column."""

    size: int
    """Bytes, packed or unpacked, whichever are more."""
    values: int
    """How many values it holds."""
    is_dictionary: bool
    """Whether other pages name values of this one."""
    encoding: int
    """Number of the encoding."""


def read_pages(path: Path, metadata: Any, group: int, column: str) -> list[Page]:
    """Read the headers of a column's pages in one row group.

    Args:
        path: The file.
        metadata: What `pyarrow.parquet.ParquetFile` says of it.
        group: The row group.
        column: The column; parts of a nested one are read too.

    Raises:
        ValueError: If there are no headers where they should be.
        OSError: If the file can't be read.
    """
    row_group: Any = metadata.row_group(group)
    found: list[Page] = []
    with path.open("rb") as file:
        for nth in range(row_group.num_columns):
            chunk: Any = row_group.column(nth)
            if chunk.path_in_schema == column or chunk.path_in_schema.startswith(f"{column}."):
                offsets = (chunk.dictionary_page_offset, chunk.data_page_offset)
                start = min(int(offset) for offset in offsets if offset)
                found += _walk_pages(file, start, start + int(chunk.total_compressed_size))
    return found


def choose_batch_rows(pages: Sequence[Page], most: int) -> int:
    """Return how many rows of a column can be decoded at once in `MAX_BATCH_BYTES`; 0 if a page is too large.

    Args:
        pages: Pages of the column in one row group, in order.
        most: Most rows.
    """
    if any(page.size > MAX_PAGE_BYTES for page in pages):
        return 0
    rows = most
    while rows > 1 and _bound_batch(pages, rows) > MAX_BATCH_BYTES:
        rows //= 2
    return rows


def sum_sizes(pages: Sequence[Page]) -> int:
    """Return the bytes of all pages."""
    return sum(page.size for page in pages)


def _bound_batch(pages: Sequence[Page], rows: int) -> int:
    """Return the most bytes that so many rows in sequence may come to.

    A value may be as long as the dictionary it is in; with the start of the value before it, as long as its page.
    """
    data = [page for page in pages if not page.is_dictionary]
    named = any(page.encoding in _DICTIONARY_ENCODINGS for page in data)
    dictionary = max((page.size for page in pages if page.is_dictionary), default=0) if named else 0
    delta = max((page.size for page in data if page.encoding == _DELTA_BYTE_ARRAY), default=0)
    worst = held = between = first = 0
    for last, page in enumerate(data):
        held += page.size
        between += data[last - 1].values if last - 1 > first else 0
        # A batch takes at least one row of the first page and of the last, and all rows of those between.
        while first < last and between + 2 > rows:
            held -= data[first].size
            first += 1
            between -= data[first].values if first < last else 0
        worst = max(worst, held)
    return worst + rows * (dictionary + DELTA_COPIES * delta)


def _walk_pages(file: IO[bytes], start: int, end: int) -> Iterator[Page]:
    at = start
    while at < end:
        file.seek(at)
        header = _read_struct(file, 0)
        unpacked, packed = _get_size(header, 2), _get_size(header, 3)
        inner = next((header[key] for key in (5, 7, 8) if isinstance(header.get(key), dict)), None)
        if inner is not None:  # an index page holds no values
            encoding = inner.get(4 if isinstance(header.get(8), dict) else 2)
            is_dictionary = header.get(1) == _DICTIONARY_PAGE
            yield Page(max(unpacked, packed), _get_size(inner, 1), is_dictionary, encoding)
        at = file.tell() + packed


def _get_size(header: dict[int, Any], key: int) -> int:
    size = header.get(key)
    if not isinstance(size, int) or size < 0:
        raise ValueError("a page header lacks a size")
    return size


def _read_byte(file: IO[bytes]) -> int:
    found = file.read(1)
    if not found:
        raise ValueError("a page header is cut short")
    return found[0]


def _read_number(file: IO[bytes]) -> int:
    """Read a variable-length number."""
    number = 0
    for shift in range(0, 70, 7):
        byte = _read_byte(file)
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number
    raise ValueError("a number in a page header is too long")


def _read_signed(file: IO[bytes]) -> int:
    number = _read_number(file)
    return (number >> 1) ^ -(number & 1)


def _read_struct(file: IO[bytes], depth: int) -> dict[int, Any]:
    """Read a structure: its numbers, truth values and structures, by field; texts and lists are passed over."""
    if depth > _MAX_DEPTH:
        raise ValueError("a page header is nested too deep")
    found: dict[int, Any] = {}
    field = 0
    while byte := _read_byte(file):
        field = field + (byte >> 4) if byte >> 4 else _read_signed(file)
        found[field] = _read_value(file, byte & 15, depth)
    return found


def _read_value(file: IO[bytes], kind: int, depth: int) -> Any:
    match kind:
        case 1 | 2:
            return kind == 1
        case 3:
            return _read_byte(file)
        case 4 | 5 | 6:
            return _read_signed(file)
        case 7:
            file.seek(8, 1)
        case 8:
            file.seek(_read_number(file), 1)
        case 9 | 10:
            head = _read_byte(file)
            count = head >> 4 if head >> 4 < 15 else _read_number(file)
            for _ in range(count):
                if head & 15 in (1, 2):
                    _read_byte(file)
                else:
                    _read_value(file, head & 15, depth + 1)
        case 12:
            return _read_struct(file, depth + 1)
        case _:
            raise ValueError("a page header holds what is none of its kinds")
    return None
