"""Delimited text with a known layout: as frames of strings, block by block, or row by row.

As frames, a file is cut at newlines into blocks of some 32 MB. The lines of a block are checked with array operations
(number of columns, encoding, NUL bytes, length, quotes). What can't be used becomes a counted skip with its line
number; the rest is parsed by polars. Row by row, titles of 16 MiB are read, for a seller could hide behind a long one.
Both cut records by the same rules. Lines that are entirely empty are not rows and are passed over, and so are rows that
repeat the header, which is told.
"""

import codecs
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from copy import copy
from functools import cached_property
from itertools import islice
from operator import itemgetter
from typing import IO

import numpy as np
import polars as pl

from cowbird.errors import UserError
from cowbird.ingest.blobs import Blob
from cowbird.ingest.block import MAX_LINE_BYTES, RowBlock
from cowbird.ingest.columns import find_column
from cowbird.ingest.encodings import name_encoding, recode
from cowbird.ingest.layout import TextLayout
from cowbird.ingest.records import CARRIAGE_REASON, RecordRuns, parse_record, pass_line, read_line_blocks
from cowbird.ingest.rows import LINE_COLUMN, PartedTable, TableRow, TextRun, note_repeats
from cowbird.ingest.sampling import limit_block, limit_frames
from cowbird.ingest.sections import Section, SectionStream, cut_sections, is_plain_file
from cowbird.ingest.skips import Skips

BYTES_PER_BLOCK = 32 << 20
"""Bytes read at once."""
SAMPLED_BYTES_PER_BLOCK = 4 << 20
"""Bytes read at once where only a sample is read."""
HEADER_HINT = "If the first line holds no names: --header-row 0. If they stand further down: --header-row LINE."
"""What to do where a column is not found in a text file."""

_NEWLINE = 0x0A
_LINE_END = re.compile(rb"[\r\n]+")
_MAGIC = {
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip file (its name should end in .gz)",
    b"\x28\xb5\x2f\xfd": "a Zstandard file (its name should end in .zst)",
    b"BZh": "a bzip2 file (its name should end in .bz2)",
    b"\xfd7zXZ": "an xz file (its name should end in .xz)",
    b"SQLite": "a database",
    b"%PDF": "a PDF file",
}


class TextTable(PartedTable):
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
        self.layout = form
        self._raw, self._blob = blob, recode(blob, form.encoding, form.carriage)
        self.undecodable = f"is not valid {name_encoding(form.encoding)}"
        self._skips = skips
        self._head = _read_head(self._blob, form)
        self._passed, self._marked = self._head.lines, not self._head.lines
        self.names = self._head.names

    def describe(self) -> str:
        """Say in a few words how it is read."""
        return self.layout.describe()

    @property
    def parts(self) -> Sequence[Section]:
        """Sections of the file that can be read apart; the whole file if it is not so plain."""
        return self._sections

    @cached_property
    def _sections(self) -> list[Section]:
        whole, quote = [Section(0, 0)], self.layout.quote_form.quote
        if self._blob is not self._raw or len(quote) > 1:
            return whole
        with self._blob.open_stream() as stream:
            if not is_plain_file(stream):
                return whole
            for _ in range(self._passed):
                pass_line(stream)
            return list(cut_sections(stream, stream.tell(), quote))

    def take_part(self, nth: int) -> "TextTable":
        """Return a table of one of the sections alone; its rows are numbered from 1."""
        if len(self.parts) == 1:
            return self
        taken, section, blob = copy(self), self.parts[nth], self._blob

        def open_section(stack: ExitStack) -> IO[bytes]:
            return io.BufferedReader(SectionStream(stack.enter_context(blob.open_stream()), section))

        taken._blob = Blob(blob.name, open_section)
        if nth:
            taken._passed, taken._marked = 0, False
        return taken

    def count_rows(self) -> int:
        """Return about how many rows there are. All of the file is read, so damage is found before hours of work."""
        lines, last = 0, b"\n"
        with self._blob.open_stream() as stream:
            while block := stream.read(1 << 20):
                lines, last = lines + block.count(b"\n"), block[-1:]
        head = self.layout.skip_lines + (self.layout.names is None)
        return max(0, lines + (last != b"\n") - head)

    def find_text(self, wanted: str) -> int:
        """Return the position of a column of titles; see `RowTable.find_text`."""
        try:
            return super().find_text(wanted)
        except UserError as error:
            raise UserError(error.message, f"{error.hint} {HEADER_HINT}") from None

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
        repeats = 0
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
                block = RowBlock(data[:cut], self.layout, self._head.raw, len(self.names), last=not chunk)
                if block.used or not chunk:
                    frame = block.to_frame(places, columns, self.file)
                    for reason, rows in block.bad.items():
                        self._skips.add(self.file, reason, (row + line for row in sorted(rows)))
                    yield frame.with_columns(pl.Series(LINE_COLUMN, block.number + line, dtype=pl.Int64))
                    line += block.lines
                    repeats += block.repeats
                carry = data[block.used :]
                if not chunk:
                    note_repeats(self.file, repeats)
                    return

    @staticmethod
    def _read(stream: IO[bytes], first: bool) -> bytes:
        """Read the next bytes, without the byte order mark of the file."""
        chunk = stream.read(limit_block(BYTES_PER_BLOCK, SAMPLED_BYTES_PER_BLOCK))
        if first and chunk.startswith(codecs.BOM_UTF8[:1]):
            chunk = (chunk + stream.read(3)).removeprefix(codecs.BOM_UTF8)
        return chunk

    def read_rows(self, places: Sequence[int]) -> Iterator[TableRow]:
        """Yield all rows in order, numbered from 1, with the cells of some columns as they are written.

        Args:
            places: Positions of the columns wanted.
        """
        for run in self._read_runs(places, as_text=False):
            if isinstance(run, list):
                yield from run

    def read_runs(self, places: Sequence[int]) -> Iterator[TextRun | list[TableRow]]:
        """Yield all rows in order, in runs; see `RowTable.read_runs`."""
        return self._read_runs(places, as_text=True)

    def _read_runs(self, places: Sequence[int], as_text: bool) -> Iterator[TextRun | list[TableRow]]:
        number = repeats = 0
        try:
            with self._blob.open_stream() as stream:
                for _ in range(self._passed):
                    pass_line(stream)
                blocks = _drop_mark(read_line_blocks(stream)) if self._marked else read_line_blocks(stream)
                records = RecordRuns(blocks, self.layout.separator.encode(), self.layout.quote_form)
                for run in records.read_runs():
                    columns = self._cut_block(run, places) if as_text and isinstance(run, bytes) else None
                    if columns is not None:
                        yield TextRun(number + 1, columns)
                        number += len(columns[0])
                        continue
                    rows, same = self._make_rows(
                        records.split_block(run) if isinstance(run, bytes) else run, places, number
                    )
                    number, repeats = number + len(rows), repeats + same
                    yield rows
        finally:  # who stops early is told of what was read
            note_repeats(self.file, repeats)

    def _cut_block(self, block: bytes, places: Sequence[int]) -> tuple[list[str], ...] | None:
        """Return the cells of lines without quotes, column by column; `None` if one of them has to be looked at."""
        separator = self.layout.separator
        try:
            text = block.decode()
        except UnicodeDecodeError:
            return None
        if self.layout.trailing or (self._head.raw and separator.join(self._head.raw) in text):
            return None
        text = f"{text}\n".replace("\r\n", "\n").lstrip("\n")
        while "\n\n" in text:
            text = text.replace("\n\n", "\n")
        width, raw = len(self.names), np.frombuffer(text.encode(), np.uint8)
        borders = raw[(raw == ord(separator)) | (raw == _NEWLINE)]
        lines = len(borders) // width
        if not lines or lines * width != len(borders):
            return None
        if np.count_nonzero(borders == _NEWLINE) != lines or (borders[width - 1 :: width] != _NEWLINE).any():
            return None
        cells = text[:-1].replace("\n", separator).split(separator)
        return tuple([cells[place::width] for place in places])

    def _make_rows(
        self, records: Iterable[list[bytes] | str], places: Sequence[int], number: int
    ) -> tuple[list[TableRow], int]:
        """Return the rows of some records behind a number, and how many records repeat the header."""
        header = [name.encode() for name in self._head.raw]
        ragged, width = f"wrong number of columns (expected {len(self.names)})", len(self.names)
        get = itemgetter(*places) if len(places) > 1 else None
        trailing, none = self.layout.trailing, (None,) * len(places)
        rows: list[TableRow] = []
        repeats = 0
        for record in records:
            if record == header:
                repeats += 1
                continue
            number += 1
            if isinstance(record, str):
                rows.append(TableRow(number, none, record))
                continue
            if trailing and len(record) == width + 1 and not record[-1]:
                record.pop()
            if len(record) != width:
                hidden = any(b"\r" in cell for cell in record)
                rows.append(TableRow(number, none, ragged + CARRIAGE_REASON * hidden))
            elif get is not None:
                rows.append(TableRow(number, get(record)))
            else:
                rows.append(TableRow(number, tuple([record[place] for place in places])))
        return rows, repeats


def _drop_mark(blocks: Iterator[bytes | None]) -> Iterator[bytes | None]:
    """Yield the blocks of a whole file without its byte order mark."""
    for block in islice(blocks, 1):
        yield block and block.removeprefix(codecs.BOM_UTF8)
    yield from blocks


def _end_line(data: bytes) -> bytes:
    """Return the last bytes of a file with a newline at their end."""
    return data + b"\n" if data and not data.endswith(b"\n") else data


class _Head:
    """The column names of a file, and the lines they take."""

    def __init__(self, names: Sequence[str], raw: Sequence[str], lines: int) -> None:
        self.names = list(names)
        self.raw = list(raw) if len(raw) > 1 else []
        """The names as they are written, by which a repeated header is known; none of a single column."""
        self.lines = lines


def _read_head(blob: Blob, form: TextLayout) -> _Head:
    """Read the column names of a file, behind the lines that its layout passes over."""
    with blob.open_stream() as stream:
        line = stream.readline(MAX_LINE_BYTES + 1)
        refuse_binary(line, blob.name)
        line = line.removeprefix(codecs.BOM_UTF8)
        passed = 0
        while passed < form.skip_lines and line:
            line, passed = stream.readline(MAX_LINE_BYTES + 1), passed + 1
        if form.names is not None:
            return _Head(form.names, (), passed)
        while line and not line.strip():
            line, passed = stream.readline(MAX_LINE_BYTES + 1), passed + 1
        raw = split_header(line, form, blob.name)
        return _Head(name_columns(raw, form.typed), raw, passed + 1)


def split_header(line: bytes, form: TextLayout, file: str) -> list[str]:
    """Return the column names in a line as they are written.

    Raises:
        UserError: If there is no line, or it can't be read.
    """
    if not line:
        raise UserError(f"{file} should begin with column names, and it is empty.", "Check the file.")
    if b"\0" in line or len(line) > MAX_LINE_BYTES:
        raise UserError(f"{file} should begin with column names, and its first line is not text.", "Check the file.")
    line = line.rstrip(b"\r\n")
    record, _ = parse_record(line, iter(()), form.separator.encode(), form.quote_form)
    try:
        problem = record if isinstance(record, str) else ""
        names = [] if isinstance(record, str) else [name.decode() for name in record]
    except UnicodeDecodeError:
        problem, names = f"it is not valid {name_encoding(form.encoding)}", []
    if problem:
        raise UserError(
            f"{file} should begin with column names, and its first line can't be read: {problem}.",
            f"Save the file as {name_encoding(form.encoding)} text with one header line, or name another --encoding.",
        )
    return names


def name_columns(raw: Sequence[str], typed: bool) -> list[str]:
    """Return column names without white space around them, and without their types if they have some."""
    names = [name.strip() for name in raw]
    return [name.rpartition(":")[0] for name in names] if typed else names


def refuse_binary(sample: bytes, file: str) -> None:
    """Raise `UserError` if the first bytes of a file can't be those of a text file."""
    if not sample:
        raise UserError(f"{file} should hold rows of text, and it is empty.", "Check the file, or download it again.")
    refuse_marked(sample, file)
    if _looks_binary(sample[:4096]):
        raise _make_binary_error(file, "a binary file")


def refuse_marked(sample: bytes, file: str) -> None:
    """Raise `UserError` if the first bytes of a file are the mark of a kind that is no text."""
    kind = next((kind for magic, kind in _MAGIC.items() if sample.startswith(magic)), "")
    if kind:
        raise _make_binary_error(file, kind)


def _make_binary_error(file: str, kind: str) -> UserError:
    return UserError(
        f"{file} should be a text file, and it is {kind}.",
        "Give a delimited text file; if it is one in another encoding, name that: --encoding.",
    )


def _looks_binary(sample: bytes) -> bool:
    """Tell whether the beginning of a file is no text.

    A title may be full of control characters, and of bytes that can't be decoded: then its row is flagged or refused,
    and the file is read. So the first line and most others have to be no text.
    """
    controls = sum(byte < 9 or 13 < byte < 32 for byte in sample)
    if controls <= max(2, len(sample) // 10):
        return False
    texts = [_is_text(line) for line in _LINE_END.split(sample) if line.strip()]
    return not texts[0] and 2 * sum(texts) <= len(texts)


def _is_text(line: bytes) -> bool:
    """Tell whether a line holds UTF-8 without zeros; a character may be cut at its end."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(line)
    except UnicodeDecodeError:
        return False
    return b"\0" not in line
