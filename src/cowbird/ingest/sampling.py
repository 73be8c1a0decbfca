"""Reading only the beginning of tables, so that data of any size is checked in seconds."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import polars as pl

MAX_SAMPLE_BYTES = 256 << 20
"""Most bytes of one table's values that a sample holds."""


@dataclass
class TableSample:
    """How much is read of each table, and how much was."""

    rows: int
    """Most rows of a table."""
    read: dict[str, int] = field(default_factory=dict[str, int])
    """Rows that were read, by file."""
    cut: set[str] = field(default_factory=set[str])
    """Files of which more rows are there than were read."""


_sample: ContextVar[TableSample | None] = ContextVar("sample", default=None)


@contextmanager
def read_sample(rows: int) -> Generator[TableSample]:
    """Read no more than some rows of each table in a block, in this thread.

    Args:
        rows: Most rows of a table; fewer of one whose rows are very long.
    """
    sample = TableSample(rows)
    token = _sample.set(sample)
    try:
        yield sample
    finally:
        _sample.reset(token)


def limit_block(whole: int, sampled: int) -> int:
    """Return how much is read at once: less where only a sample is read."""
    return whole if _sample.get() is None else min(whole, sampled)


def limit_count(what: str, whole: int) -> int:
    """Return how many rows of `whole` may be made up: fewer where only a sample is read, which is then told.

    Args:
        what: What to call the data.
        whole: Rows that there would be.
    """
    sample = _sample.get()
    if sample is None or whole <= sample.rows:
        return whole
    sample.cut.add(what)
    return sample.rows


def limit_frames(file: str, frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Yield the frames of a table: all of them, or those of a sample (`read_sample`).

    Args:
        file: Name of the file.
        frames: The table.
    """
    sample = _sample.get()
    if sample is None:
        yield from frames
        return
    rows, size, more = 0, 0, False
    for frame in frames:
        if rows + frame.height > sample.rows or size > MAX_SAMPLE_BYTES:
            more = True
            sample.cut.add(file)
            frame = frame.head(sample.rows - rows if size <= MAX_SAMPLE_BYTES else 0)  # noqa: PLW2901
        rows, size = rows + frame.height, size + int(frame.estimated_size())
        sample.read[file] = rows
        yield frame
        if more:
            return
