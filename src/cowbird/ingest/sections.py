"""A large text file cut into sections that are read apart: their rows are those of the whole file, in order.

A section begins where a record does, whatever stood before. Where no quotes wrap fields, that is behind every newline.
Otherwise a quote may be open over several lines, but over no more than `MAX_RECORD_LINES`: behind so many lines without
any quote it is either closed or given up. So a section begins behind such lines, and where there are none for a while,
the section before is longer.
"""

import io
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import numpy as np

from cowbird.ingest.records import MAX_RECORD_LINES

SECTION_BYTES = 1 << 20
"""Bytes of a section, or more."""
LOOK_BYTES = (1 << 16, 1 << 20)
"""Bytes in which a place to cut is looked for: a few, then more."""
_NEWLINE = 0x0A


class Section(NamedTuple):
    """Some lines of a file."""

    begin: int
    """The first byte."""
    end: int
    """The byte after the last one."""


class SectionStream(io.RawIOBase):
    """The bytes of a section.

    Args:
        file: The file, which can be positioned.
        section: The section.
    """

    def __init__(self, file: IO[bytes], section: Section) -> None:
        self._file, self._left = file, section.end - section.begin
        file.seek(section.begin)

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read bytes into a buffer, and return how many."""
        data = self._file.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


def is_plain_file(stream: IO[bytes]) -> bool:
    """Tell whether a stream gives a file's bytes as they are, so that it can be read from any place on."""
    return isinstance(stream, io.BufferedReader) and isinstance(stream.raw, io.FileIO)


def cut_sections(file: IO[bytes], head: int, quote: bytes) -> Iterator[Section]:
    """Yield the sections of a file.

    Args:
        file: The file.
        head: Bytes of its header, which lies in the first section.
        quote: What wraps fields, a character of ASCII; empty where nothing does.
    """
    end, begin, target = file.seek(0, io.SEEK_END), 0, head + SECTION_BYTES
    while target < end:
        found = next(
            (place for many in LOOK_BYTES if (place := _find_cut(file, target, many, quote)) is not None), None
        )
        if found is None or found >= end:
            target += SECTION_BYTES
            continue
        yield Section(begin, found)
        begin, target = found, found + SECTION_BYTES
    yield Section(begin, end)


def _find_cut(file: IO[bytes], begin: int, many: int, quote: bytes) -> int | None:
    """Return where a section may begin among some bytes of a file; `None` if nowhere."""
    file.seek(begin)
    data = np.frombuffer(file.read(many), np.uint8)
    lines = np.flatnonzero(data == _NEWLINE)
    if not quote:
        return begin + int(lines[0]) + 1 if len(lines) else None
    quotes = np.flatnonzero(data == ord(quote))
    first = np.searchsorted(lines, np.concatenate([[0], quotes]))  # the end of the line of each quote
    after = np.searchsorted(lines, np.concatenate([quotes, [len(data)]]))
    wide = np.flatnonzero(after - first > MAX_RECORD_LINES)
    return begin + int(lines[first[wide[0]] + MAX_RECORD_LINES]) + 1 if len(wide) else None
