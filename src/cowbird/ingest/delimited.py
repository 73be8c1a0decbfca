"""Delimited text, read block by block: one reader for every text source.

A file is cut at newlines into blocks of some 32 MB. The lines of a block are checked with array operations (number of
columns, encoding, NUL bytes, length, quotes); what can't be used becomes a counted skip with its line number; the rest
is parsed by polars into columns of strings. Lines that are entirely empty are not rows and are passed over.
"""

import codecs
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Literal

import polars as pl

from cowbird.errors import UserError
from cowbird.ingest.blobs import Blob
from cowbird.ingest.block import MAX_LINE_BYTES, RowBlock
from cowbird.ingest.columns import find_column
from cowbird.ingest.sampling import limit_block, limit_frames
from cowbird.ingest.skips import Skips

BYTES_PER_BLOCK = 32 << 20
"""Bytes read at once."""
SAMPLED_BYTES_PER_BLOCK = 4 << 20
"""Bytes read at once where only a sample is read."""
LINE_COLUMN = "\0line"
"""Name of the column with line numbers in the frames that tables yield (no header can hold it)."""
ID_COLUMN = "\0id"
"""Name of the column with ids in the frames of items and users."""

_MAGIC = {
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip file (its name should end in .gz)",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"SQLite": "a database",
    b"%PDF": "a PDF file",
}


@dataclass(frozen=True, slots=True)
class TextLayout:
    """How a text file is laid out."""

    separator: str = ","
    """What stands between columns."""
    quoted: bool = True
    """Whether double quotes wrap fields; otherwise they are ordinary characters."""
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    """The file's encoding."""
    names: tuple[str, ...] | None = None
    """Column names of a file without a header; `None` if the first line holds them."""


class TextTable:
    """One delimited file.

    Args:
        blob: Its bytes.
        form: Its layout.
        skips: Where rows that can't be used are counted.

    Raises:
        UserError: If the file is empty or is not text.
    """

    def __init__(self, blob: Blob, form: TextLayout, skips: Skips) -> None:
        self.file = blob.name
        self._blob = blob
        self._form = form
        self._skips = skips
        with blob.open_stream() as stream:
            self._head = _Head(stream, form, blob.name)
        self.names = self._head.names

    def read_frames(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Yield the rows, block by block.

        Args:
            columns: Names of the columns wanted, each once.

        Yields:
            Frames with these columns as strings (null where empty) and `LINE_COLUMN`, the physical line of each row.
        """
        places = [find_column(column, self.names, self.file) for column in columns]
        return limit_frames(self.file, self._read_blocks(places, columns))

    def _read_blocks(self, places: Sequence[int], columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        with self._blob.open_stream() as stream:
            for _ in range(self._head.lines):
                stream.readline(MAX_LINE_BYTES + 1)
            line = self._head.lines + 1
            carry = b""
            while True:
                chunk = self._read(stream, first=line == 1 and not carry)
                data = carry + chunk if chunk else _end_line(carry)
                cut = data.rfind(b"\n") + 1
                data = data[: cut + MAX_LINE_BYTES + 1]
                block = RowBlock(data[:cut], self._form.separator, len(self.names), self._form.quoted, last=not chunk)
                if block.used or not chunk:
                    frame = block.to_frame(places, columns, self.file)
                    for reason, rows in block.bad.items():
                        self._skips.add(self.file, reason, (row + line for row in sorted(rows)))
                    yield frame.with_columns(pl.Series(LINE_COLUMN, block.number + line, dtype=pl.Int64))
                    line += block.lines
                carry = data[block.used :]
                if not chunk:
                    return

    def _read(self, stream: IO[bytes], first: bool) -> bytes:
        """Read the next bytes as UTF-8, without the byte order mark of the file."""
        chunk = stream.read(limit_block(BYTES_PER_BLOCK, SAMPLED_BYTES_PER_BLOCK))
        if first and chunk.startswith(codecs.BOM_UTF8[:1]):
            chunk = (chunk + stream.read(3)).removeprefix(codecs.BOM_UTF8)
        if self._form.encoding == "latin-1" and not chunk.isascii():
            return chunk.decode("latin-1").encode()
        return chunk


def _end_line(data: bytes) -> bytes:
    """Return the last bytes of a file with a newline at their end."""
    return data + b"\n" if data and not data.endswith(b"\n") else data


class _Head:
    """The column names of a file, and the lines they take."""

    def __init__(self, stream: IO[bytes], form: TextLayout, file: str) -> None:
        self.lines = 0
        line = stream.readline(MAX_LINE_BYTES + 1)
        refuse_binary(line, file)
        line = line.removeprefix(codecs.BOM_UTF8)
        if form.names is not None:
            self.names = list(form.names)
            return
        self.lines = 1
        while line and not line.strip():
            line = stream.readline(MAX_LINE_BYTES + 1)
            self.lines += 1
        self.names = self._split(line, form, file)

    @staticmethod
    def _split(line: bytes, form: TextLayout, file: str) -> list[str]:
        if not line:
            raise UserError(f"{file} should begin with column names, and it is empty.", "Check the file.")
        if b"\0" in line or len(line) > MAX_LINE_BYTES:
            raise UserError(
                f"{file} should begin with column names, and its first line is not text.", "Check the file."
            )
        try:
            text = line.decode(form.encoding).rstrip("\r\n")
            names = next(csv.reader([text], delimiter=form.separator, strict=True)) if form.quoted else []
        except (UnicodeDecodeError, csv.Error, StopIteration) as error:
            raise UserError(
                f"{file} should begin with column names, and its first line can't be read: {error}.",
                f"Save the file as {form.encoding.upper()} text with one header line.",
            ) from error
        return [name.strip() for name in names or text.split(form.separator)]


def refuse_binary(sample: bytes, file: str) -> None:
    """Raise `UserError` if the first bytes of a file can't be those of a text file."""
    if not sample:
        raise UserError(f"{file} should hold rows of text, and it is empty.", "Check the file, or download it again.")
    sample = sample[:4096]
    kind = next((kind for magic, kind in _MAGIC.items() if sample.startswith(magic)), "")
    controls = sum(byte < 9 or 13 < byte < 32 for byte in sample)
    if kind or controls > max(2, len(sample) // 10):
        raise UserError(
            f"{file} should be a text file, and it is {kind or 'a binary file'}.",
            "Give a delimited text file in UTF-8.",
        )
