"""Delimited text cut into lines and records, of which none may be longer than memory has room for.

The sources in `cowbird.data` skip lines of more than 131,072 bytes, which is where Python's `csv` module ends, and
number physical lines. Here a seller could hide behind a long title, so records are cut anew, by the same rules: RFC
4180, where a quote inside a field that does not begin with one is an ordinary character.
"""

import codecs
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO

MAX_ROW_BYTES = 1 << 24
"""Longest row, in bytes; a longer one can't be read."""
MAX_RECORD_LINES = 100
"""An open quote is given up as never closed after this many lines, so that it can't swallow the catalogue."""
TOO_LONG_REASON = f"is longer than {MAX_ROW_BYTES:,} bytes"
"""Why such a row can't be read."""


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


class DelimitedRecords(Iterable[list[bytes] | str]):
    """The fields of each record, or why it can't be read; of a quote that is never closed only its line is lost."""

    def __init__(self, lines: Iterator[bytes | None], separator: bytes) -> None:
        self._lines, self._separator = lines, separator
        self._ahead: deque[bytes | None] = deque()

    def __iter__(self) -> Iterator[list[bytes] | str]:
        while self._ahead or self._look_ahead():
            line = self._ahead.popleft()
            if line is None:
                yield TOO_LONG_REASON
            elif b'"' in line:
                yield self._read_quoted(line)
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

    def _read_quoted(self, line: bytes) -> list[bytes] | str:
        """Return the fields of a record that begins with a line, and take the lines that it runs over."""
        following = self._peek_lines(line)
        fields: list[bytes] = []
        at = taken = 0
        while True:
            if line.startswith(b'"', at):
                parts: list[bytes] = []
                start = at + 1
                while (close := _find_closing(line, start)) < 0:
                    parts.append(line[start:])
                    more = next(following, None)
                    if more is None:
                        return "a quote is never closed"
                    line, start, taken = more, 0, taken + 1
                fields.append(b"\n".join([*parts, line[start:close]]).replace(b'""', b'"'))
                stop = len(line) if line[close + 1 :] == b"\r" else close + 1
            elif (stop := line.find(self._separator, at)) >= 0:
                fields.append(line[at:stop])
            else:
                stop = len(line)
                fields.append(line[at:].removesuffix(b"\r"))
            if stop == len(line):
                break
            if not line.startswith(self._separator, stop):
                return "quotes are malformed"
            at = stop + 1
        for _ in range(taken):
            self._ahead.popleft()
        return fields


def _find_closing(line: bytes, at: int) -> int:
    """Return where the quote stands that closes a field, or -1; two quotes in a row close nothing."""
    while (at := line.find(b'"', at)) >= 0 and line.startswith(b'"', at + 1):
        at += 2
    return at
