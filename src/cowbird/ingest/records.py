"""Delimited text cut into lines and records, of which none may be longer than memory has room for.

Records follow RFC 4180: a quote inside a field that does not begin with one is an ordinary character. `QuoteForm` names
what differs from that. A seller could hide behind a long title, so rows of up to `MAX_ROW_BYTES` are read.
"""

import codecs
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO

MAX_ROW_BYTES = 1 << 24
"""Longest row, in bytes; a longer one can't be read."""
MAX_RECORD_LINES = 100
"""An open quote is given up as never closed after this many lines, so that it can't swallow the catalogue."""
TOO_LONG_REASON = f"is longer than {MAX_ROW_BYTES:,} bytes"
"""Why such a row can't be read."""
OPEN_REASON = f"a quote is not closed within {MAX_RECORD_LINES} lines"
MALFORMED_REASON = "quotes are malformed"
"""Why a row with quotes can't be read."""
CARRIAGE_REASON = "; a CR stands inside, which may end a row"
"""What is added where rows may be hidden in one that can't be read."""
_ESCAPED = re.compile(rb'\\([\\"])|"(")')


@dataclass(frozen=True, slots=True)
class QuoteForm:
    """How fields are wrapped."""

    quote: bytes = b'"'
    """What wraps them; empty where nothing does."""
    escaped: bool = False
    """Whether a backslash before a quote or a backslash inside a field stands for that character."""
    spaced: bool = False
    """Whether spaces around a wrapped field are passed over."""


RFC4180 = QuoteForm()
BLOCK_BYTES = 1 << 18
"""Bytes that are cut into lines at once."""


def read_line_blocks(stream: IO[bytes]) -> Iterator[bytes | None]:
    """Yield whole lines, many at once, without the last newline; `None` for a line that is too long.

    Args:
        stream: A file, behind its byte order mark.
    """
    held, lost = b"", False
    size = min(BLOCK_BYTES, MAX_ROW_BYTES)  # so that none but the first line of a block can be too long
    while chunk := stream.read(size):
        first = chunk.find(b"\n")
        if lost and first < 0:
            continue
        if lost or len(held) + (len(chunk) if first < 0 else first) > MAX_ROW_BYTES:
            held, lost = b"", first < 0
            if lost:
                continue
            yield None
            chunk = chunk[first + 1 :]
        cut = chunk.rfind(b"\n")
        if cut < 0:
            held += chunk
        else:
            yield held + chunk[:cut]
            held = chunk[cut + 1 :]
    if lost:
        yield None
    elif held:
        yield held


def pass_line(stream: IO[bytes]) -> None:
    """Read a line of any length, and keep none of it."""
    while (line := stream.readline(MAX_ROW_BYTES)) and not line.endswith(b"\n"):
        pass


def read_lines(stream: IO[bytes]) -> Iterator[bytes | None]:
    """Yield the lines of a file without newlines and the file's byte order mark; `None` for a line that is too long."""
    mark = codecs.BOM_UTF8
    while line := stream.readline(MAX_ROW_BYTES + 1):
        if len(line) > MAX_ROW_BYTES and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_ROW_BYTES)
            yield None
        else:
            yield line.removeprefix(mark).removesuffix(b"\n")
        mark = b""


def parse_record(
    line: bytes, following: Iterator[bytes], separator: bytes, form: QuoteForm = RFC4180
) -> tuple[list[bytes] | str, int]:
    """Return the fields of a record or why it can't be read, and how many more lines it takes.

    Args:
        line: Its first line.
        following: The lines after that, of which a quote left open may take some.
        separator: What stands between fields.
        form: How fields are wrapped.
    """
    fields: list[bytes] = []
    at = taken = 0
    while True:
        at = _skip_spaces(line, at, form)
        if form.quote and line.startswith(form.quote, at):
            parts: list[bytes] = []
            start = at + 1
            while (close := _find_closing(line, start, form)) < 0:
                parts.append(line[start:])
                more = next(following, None)
                if more is None:
                    return OPEN_REASON, 0
                line, start, taken = more, 0, taken + 1
            fields.append(_unwrap(b"\n".join([*parts, line[start:close]]), form))
            stop = close + 1
            if form.spaced:
                stop += len(line[stop:]) - len(line[stop:].lstrip(b" "))
            if line[stop:] == b"\r":
                stop = len(line)
        elif (stop := line.find(separator, at)) >= 0:
            fields.append(line[at:stop])
        else:
            stop = len(line)
            fields.append(line[at:].removesuffix(b"\r"))
        if stop == len(line):
            return fields, taken
        if not line.startswith(separator, stop):
            return MALFORMED_REASON + CARRIAGE_REASON * line.startswith(b"\r", stop), 0
        at = stop + len(separator)


def _skip_spaces(line: bytes, at: int, form: QuoteForm) -> int:
    """Return where a field begins: behind its spaces, if a quote follows them."""
    if not form.spaced or not line.startswith(b" ", at):
        return at
    start = at
    while line.startswith(b" ", start):
        start += 1
    return start if line.startswith(form.quote, start) else at


def _find_closing(line: bytes, at: int, form: QuoteForm) -> int:
    """Return where the quote stands that closes a field, or -1; two quotes in a row close nothing."""
    if form.escaped:
        return _find_unescaped(line, at, form.quote)
    while (at := line.find(form.quote, at)) >= 0 and line.startswith(form.quote, at + 1):
        at += 2
    return at


def _find_unescaped(line: bytes, at: int, quote: bytes) -> int:
    while (found := line.find(quote, at)) >= 0:
        before = found
        while before > at and line[before - 1 : before] == b"\\":
            before -= 1
        if (found - before) % 2:
            at = found + 1
        elif line.startswith(quote, found + 1):
            at = found + 2
        else:
            return found
    return -1


def _unwrap(field: bytes, form: QuoteForm) -> bytes:
    """Return what stands between quotes."""
    if form.escaped:
        return _ESCAPED.sub(lambda found: found[1] or found[2], field)
    return field.replace(form.quote * 2, form.quote)


class DelimitedRecords(Iterable[list[bytes] | str]):
    """The fields of each record, or why it can't be read; of a quote that is never closed only its line is lost."""

    def __init__(self, lines: Iterator[bytes | None], separator: bytes, form: QuoteForm = RFC4180) -> None:
        self._lines, self._separator, self._form = lines, separator, form
        self._ahead: deque[bytes | None] = deque()

    def __iter__(self) -> Iterator[list[bytes] | str]:
        while self._ahead or self._look_ahead():
            yield from self._parse_ahead()

    def _parse_ahead(self) -> Iterator[list[bytes] | str]:
        """Yield the records of the lines that were looked at."""
        quote = self._form.quote
        while self._ahead:
            line = self._ahead.popleft()
            if line is None:
                yield TOO_LONG_REASON
            elif quote and quote in line:
                record, taken = parse_record(line, self._peek_lines(line), self._separator, self._form)
                for _ in range(taken):
                    self._ahead.popleft()
                yield record
            elif line := line.removesuffix(b"\r"):
                yield line.split(self._separator)

    def _look_ahead(self) -> bool:
        """Look one line further ahead; tell whether there was one."""
        before = len(self._ahead)
        self._ahead.extend(islice(self._lines, 1))
        return len(self._ahead) > before

    def _peek_lines(self, line: bytes) -> Iterator[bytes]:
        """Yield the lines that a quote left open in this one may run over, without taking them."""
        size = len(line)
        for nth in range(MAX_RECORD_LINES - 1):
            if nth == len(self._ahead) and not self._look_ahead():
                return
            more = self._ahead[nth]
            if more is None or (size := size + len(more)) > MAX_ROW_BYTES:
                return
            yield more


class RecordRuns(DelimitedRecords):
    """The same in runs: blocks of lines without any quotes as they are, and the records of all others."""

    def __init__(self, blocks: Iterator[bytes | None], separator: bytes, form: QuoteForm = RFC4180) -> None:
        super().__init__(iter(()), separator, form)
        self._blocks = blocks

    def read_runs(self) -> Iterator[bytes | list[list[bytes] | str]]:
        """Yield the runs in order."""
        quote = self._form.quote
        for block in self._blocks:
            if block is not None and not (quote and quote in block):
                yield block
            else:
                self._add(block)
                yield list(self._parse_ahead())

    def split_block(self, block: bytes) -> list[list[bytes] | str]:
        """Return the records of a block without quotes."""
        self._add(block)
        return list(self._parse_ahead())

    def _add(self, block: bytes | None) -> None:
        self._ahead.extend([None] if block is None else block.split(b"\n"))

    def _look_ahead(self) -> bool:
        """Look one block further ahead; tell whether there was one."""
        before = len(self._ahead)
        for block in islice(self._blocks, 1):
            self._add(block)
        return len(self._ahead) > before
