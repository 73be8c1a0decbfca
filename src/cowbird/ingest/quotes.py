"""Quotes in a block of delimited text, exactly, and fast where they only wrap whole fields.

A line is *simple* when its quotes come in pairs that wrap whole fields with no separator inside: taking the quotes out
changes nothing else, and that is done to all such lines at once. Any other quoted line is read by `parse_record`,
together with the lines that its open field runs over.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cowbird.ingest.records import MAX_RECORD_LINES, OPEN_REASON, QuoteForm, parse_record

NOT_UTF8 = "is not valid UTF-8"
"""Why text can't be read."""
_BACKSLASH = 0x5C

Mask = NDArray[np.bool_]
Positions = NDArray[np.int64]


@dataclass(slots=True)
class QuotedRecords:
    """What the quoted lines of one block hold."""

    rows: list[list[str]] = field(default_factory=list[list[str]])
    """Fields of each record."""
    lines: list[int] = field(default_factory=list[int])
    """Index of each record's first line in the block."""
    bad: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """Index of each line that can't be read, and why."""
    open: int = -1
    """Index of the line where a record begins that may go on in the next block, or -1."""


def find_simple_lines(
    body: NDArray[np.uint8], ends: Positions, separator: int, form: QuoteForm
) -> tuple[Positions, Mask]:
    """Tell which of the lines with quotes are simple.

    Args:
        body: Bytes of the block.
        ends: Position of each line's newline.
        separator: The separator's byte.
        form: How fields are wrapped.

    Returns:
        The indices of the lines with quotes, ascending, and for each whether it is simple.
    """
    quotes = np.flatnonzero(body == ord(form.quote))
    line = np.searchsorted(ends, quotes)
    touched, first, counts = np.unique(line, return_index=True, return_counts=True)
    rank = np.arange(len(quotes)) - np.repeat(first, counts)
    opens = rank % 2 == 0
    before = body[np.maximum(quotes - 1, 0)]
    after = body[quotes + 1]
    opening: Mask = (quotes == 0) | (before == separator) | (before == 0x0A)
    closing: Mask = (after == separator) | (after == 0x0A) | ((after == 0x0D) & (quotes + 2 == ends[line]))
    good: Mask = (opens & opening) | (~opens & closing)
    fields = np.searchsorted(np.flatnonzero(body == separator), quotes)
    good[1:] &= opens[1:] | (fields[1:] == fields[:-1])
    simple: Mask = np.logical_and.reduceat(good, first) & (counts % 2 == 0)
    if form.escaped:
        simple &= ~np.isin(touched, np.searchsorted(ends, np.flatnonzero(body == _BACKSLASH)))
    return touched, simple


def read_records(
    body: bytes, ends: Positions, touched: Positions, separator: bytes, form: QuoteForm, *, limit: int, last: bool
) -> QuotedRecords:
    """Read the quoted lines that are not simple.

    Args:
        body: Bytes of the block.
        ends: Position of each line's newline.
        touched: Indices of the lines to read, ascending.
        separator: The separator.
        form: How fields are wrapped.
        limit: Longest record in bytes.
        last: Whether no block follows.

    Returns:
        The records. Lines that a record runs over are taken, even where they would be simple.
    """
    found = QuotedRecords()
    done = 0
    for index in touched.tolist():
        if index < done:
            continue
        row, count, problem = _read_record(body, ends, index, separator, form, limit)
        if count == 0 and not last:
            found.open = index
            break
        if problem:
            found.bad.append((index, problem))
        else:
            found.rows.append(row)
            found.lines.append(index)
        done = index + max(count, 1)
        found.bad.extend((line, "") for line in range(index + 1, done))
    return found


def _read_record(
    body: bytes, ends: Positions, index: int, separator: bytes, form: QuoteForm, limit: int
) -> tuple[list[str], int, str]:
    """Read one record: its fields, how many lines it takes, and what is wrong with it.

    It takes none if the block ended before the record could.
    """
    stop = min(index + MAX_RECORD_LINES, len(ends))
    exhausted = False

    def iterate_lines() -> Iterator[bytes]:
        nonlocal exhausted
        start = int(ends[index - 1]) + 1 if index else 0
        for end in ends[index:stop].tolist():
            yield body[start:end]
            start = end + 1
        exhausted = True

    lines = iterate_lines()
    row, taken = parse_record(next(lines), lines, separator, form)
    if isinstance(row, str):
        waits = row == OPEN_REASON and exhausted and stop == len(ends) < index + MAX_RECORD_LINES
        return [], 0 if waits else 1, row
    start = int(ends[index - 1]) + 1 if index else 0
    text = body[start : int(ends[index + taken])]
    if len(text) > limit:
        return [], 1, f"line is longer than {limit:,} bytes"
    problem = find_trouble(text)
    return [] if problem else [field.decode() for field in row], taken + 1, problem


def find_trouble(line: bytes) -> str:
    """Return what makes a line unusable as text, or an empty string."""
    if b"\0" in line:
        return "contains a NUL byte"
    try:
        line.decode()
    except UnicodeDecodeError:
        return NOT_UTF8
    return ""
