"""One block of a delimited text file: whole lines, checked with array operations and parsed by polars."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cowbird.errors import UserError
from cowbird.ingest.encodings import name_encoding
from cowbird.ingest.layout import TextLayout
from cowbird.ingest.quotes import NOT_UTF8, find_simple_lines, find_trouble, read_records
from cowbird.ingest.records import CARRIAGE_REASON

MAX_LINE_BYTES = 131_072
"""Longest line in bytes; a longer one is skipped."""

_NEWLINE, _CARRIAGE = 0x0A, 0x0D
_STAND_INS = [bytes([byte]) for byte in range(1, 32) if byte not in (0x09, 0x0A, 0x0D)]


class RowBlock:
    """Whole lines of a file and what is wrong with some of them.

    Args:
        body: The bytes, empty or ending in a newline.
        layout: How the file is laid out.
        header: The fields of its header as they are written; rows that repeat it are left out. Empty for none.
        width: Number of columns.
        last: Whether the file ends here; otherwise a record left open at the end waits for the next block.
    """

    def __init__(self, body: bytes, layout: TextLayout, header: Sequence[str], width: int, last: bool) -> None:
        self.bad: dict[str, list[int]] = {}
        """Index in the block of the lines that can't be used, by reason."""
        self.repeats = 0
        """Lines that repeat the header."""
        self._layout = layout
        self._separator = layout.separator
        self._header = list(header)
        self._width = width
        self._rows: list[list[str]] = []
        self._row_lines: list[int] = []
        self._place(body)
        self.used = len(body)
        """Bytes of the body that this block takes; the rest belongs before the next one."""
        self.lines = len(self._ends)
        """Lines that this block takes."""
        self.number: NDArray[np.int64] = np.arange(self.lines, dtype=np.int64)
        """Index of the line of each row of `to_frame`."""
        if layout.quoted and layout.quote.encode() in body:
            self._take_quoted(last)
        self._drop_unreadable()
        self._drop_repeats()
        if layout.trailing:
            self._drop_empty_cells()
        self._drop_ragged()

    def to_frame(self, places: Sequence[int], columns: Sequence[str], file: str) -> pl.DataFrame:
        """Return the good rows as strings.

        Args:
            places: Positions of the columns wanted.
            columns: What to call them.
            file: Name of the file, for messages.
        """
        schema = {f"c{place}": pl.String for place in range(self._width)}
        wanted = [f"c{place}" for place in places]
        if len(self._ends):
            try:
                plain = pl.read_csv(
                    self._body, has_header=False, separator=self._separator, quote_char=None, schema=schema
                ).select(wanted)
            except pl.exceptions.PolarsError as error:
                raise UserError(f"{file} can't be read as delimited text: {error}.", "Check the file.") from error
        else:
            plain = pl.DataFrame(schema=dict.fromkeys(wanted, pl.String))
        if self._rows:
            cells = [pl.Series([row[place] or None for row in self._rows], dtype=pl.String) for place in places]
            plain = pl.concat([plain, pl.DataFrame(cells, schema=plain.schema)])
            self.number = np.concatenate([self.number, np.array(self._row_lines, dtype=np.int64)])
            order = np.argsort(self.number, kind="stable")
            self.number, plain = self.number[order], plain[order]
        if plain.height != len(self.number):
            raise UserError(f"{file} can't be read as delimited text.", "Check the separator and the line endings.")
        return plain.rename(dict(zip(wanted, columns, strict=True)))

    def _place(self, body: bytes) -> None:
        """Note where the lines of the body stand."""
        self._body = body
        self._bytes: NDArray[np.uint8] = np.frombuffer(body, dtype=np.uint8)
        self._ends: NDArray[np.int64] = np.flatnonzero(self._bytes == _NEWLINE)
        starts = np.zeros(len(self._ends), dtype=np.int64)
        starts[1:] = self._ends[:-1] + 1
        self._starts: NDArray[np.int64] = starts

    def _keep(self, lines: NDArray[np.bool_], without: int | None = None) -> None:
        """Keep some lines of the body, and of these the bytes other than `without`."""
        if lines.all() and without is None:
            return
        mask = np.repeat(lines, self._ends - self._starts + 1)
        if without is not None:
            mask &= self._bytes != without
        self.number = self.number[lines]
        self._place(self._bytes[mask].tobytes())

    def _reject(self, lines: NDArray[np.bool_], reason: str) -> None:
        """Drop some lines of the body and note why."""
        if lines.any():
            self.bad.setdefault(reason, []).extend(self.number[lines].tolist())
            self._keep(~lines)

    def _take_quoted(self, last: bool) -> None:
        """Move lines with quotes into rows, but for those where the quotes can be taken out."""
        form, separator = self._layout.quote_form, self._separator.encode()
        touched, simple = find_simple_lines(self._bytes, self._ends, ord(separator), form)
        found = read_records(self._body, self._ends, touched[~simple], separator, form, limit=MAX_LINE_BYTES, last=last)
        plain = np.ones(len(self._ends), dtype=bool)
        if found.open >= 0:
            self.used = int(self._starts[found.open])
            self.lines = found.open
            plain[found.open :] = False
        for index, row in zip(found.lines, found.rows, strict=True):
            plain[index] = False
            if self._layout.trailing and len(row) == self._width + 1 and not row[-1]:
                del row[-1]
            if self._header and row == self._header:
                self.repeats += 1
            elif len(row) == self._width:
                self._rows.append(row)
                self._row_lines.append(index)
            else:
                hidden = any("\r" in cell for cell in row)
                self.bad.setdefault(self._describe_ragged() + CARRIAGE_REASON * hidden, []).append(index)
        for index, reason in found.bad:
            plain[index] = False
            if reason:
                told = self._describe_undecodable() if reason == NOT_UTF8 else reason
                self.bad.setdefault(told, []).append(index)
        self._keep(plain, without=ord(form.quote))

    def _drop_unreadable(self) -> None:
        """Drop lines that are empty, too long, or not text; even out line endings and the separator."""
        self._reject(self._ends - self._starts > MAX_LINE_BYTES, f"line is longer than {MAX_LINE_BYTES:,} bytes")
        if b"\0" in self._body:
            self._reject(np.logical_or.reduceat(self._bytes == 0, self._starts), "contains a NUL byte")
        if not self._body.isascii():
            self._reject(self._find_undecodable(), self._describe_undecodable())
        if b"\r\n" in self._body:
            self._place(self._body.replace(b"\r\n", b"\n"))
        self._keep(self._ends > self._starts)
        if len(self._separator) > 1:
            stand_in = next((byte for byte in _STAND_INS if byte not in self._body), None)
            if stand_in is None:
                raise UserError("Expected a text file, and it holds every control character.", "Check the file.")
            self._place(self._body.replace(self._separator.encode(), stand_in))
            self._separator = stand_in.decode()

    def _drop_repeats(self) -> None:
        """Drop lines that are the header once more."""
        line = self._separator.join(self._header).encode()
        if not line or line not in self._body:
            return
        same = self._ends - self._starts == len(line)
        for at in np.flatnonzero(same).tolist():
            same[at] = self._body.startswith(line, self._starts[at])
        self.repeats += int(same.sum())
        self._keep(~same)

    def _drop_empty_cells(self) -> None:
        """Take off the empty cell behind the last column."""
        separator = ord(self._separator)
        seps = np.flatnonzero(self._bytes == separator)
        counts = np.bincount(np.searchsorted(self._ends, seps), minlength=len(self._ends))[: len(self._ends)]
        last = np.maximum(self._ends - 1, 0)
        ragged = (counts == self._width) & (self._ends > self._starts) & (self._bytes[last] == separator)
        if ragged.any():
            mask = np.ones(len(self._bytes), dtype=bool)
            mask[last[ragged]] = False
            self._place(self._bytes[mask].tobytes())

    def _find_undecodable(self) -> NDArray[np.bool_]:
        """Return which lines are not UTF-8."""
        bad = np.zeros(len(self._ends), dtype=bool)
        try:
            self._body.decode()
        except UnicodeDecodeError:
            suspects = np.flatnonzero(np.logical_or.reduceat(self._bytes >= 0x80, self._starts))
            for line in suspects.tolist():
                bad[line] = bool(find_trouble(self._body[self._starts[line] : self._ends[line]]))
        return bad

    def _drop_ragged(self) -> None:
        """Drop lines with more or fewer columns than the file has."""
        seps = np.flatnonzero(self._bytes == ord(self._separator))
        lines = len(self._ends)
        if self._width > 1 and lines and len(seps) == lines * (self._width - 1):
            table = seps.reshape(lines, self._width - 1)
            if np.all(table[:, 0] >= self._starts) and np.all(table[:, -1] < self._ends):
                return
        counts = np.bincount(np.searchsorted(self._ends, seps), minlength=lines)[:lines]
        bad = counts != self._width - 1
        if bad.any() and b"\r" in self._body:
            hidden = bad & np.logical_or.reduceat(self._bytes == _CARRIAGE, self._starts)
            self._reject(hidden, self._describe_ragged() + CARRIAGE_REASON)
            bad = bad[~hidden]
        self._reject(bad, self._describe_ragged())

    def _describe_undecodable(self) -> str:
        return f"is not valid {name_encoding(self._layout.encoding)}"

    def _describe_ragged(self) -> str:
        return f"wrong number of columns (expected {self._width})"
