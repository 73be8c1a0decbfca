"""What a run did otherwise than a reader may think: fallbacks, defaults and limits, told in words with their counts.

Whoever falls back on something says so where it happens (`note`), and whoever is responsible for the work collects what
was said (`collect_notices`): an experiment prints it at the head of its summary and keeps it on record. Where nobody
collects, nothing is said. Nothing is printed here.
"""

import json
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

from cowbird.errors import UserError
from cowbird.faults import raise_outage
from cowbird.files import read_plain_text, write_text

NOTICES_FILE = "notices.json"
"""The file of a folder that holds its notices."""
_COUNT = "{n}"


class NoticeRank(IntEnum):
    """How much a notice matters; those that matter most are told first."""

    ORDER = 0
    """What is before and after is not known from the data."""
    CHANGE = 1
    """Something is left out, cut or replaced."""
    CHOICE = 2
    """Something that nobody named was chosen."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that a run did."""

    rank: NoticeRank
    """How much it matters."""
    text: str
    """What it did; the count stands in the place of `{n}`. It may quote anybody's text."""
    low: int | None = None
    """The smallest count of all places where it was said, or `None` if it has none."""
    high: int | None = None
    """The largest."""
    one: str = ""
    """What it says where the count is 1; `text` if empty."""

    def __str__(self) -> str:
        if self.one and self.low == self.high == 1:
            return self.one
        count = "" if self.low is None or self.high is None else f"{self.low:,}"
        return self.text.replace(_COUNT, count if self.low == self.high else f"{count} to {self.high:,}")


class Notices:
    """Notices, each once.

    Args:
        path: File that always holds them, so that a killed process loses none; `None` for none. What it holds already
            is gone on from.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[tuple[NoticeRank, str], Notice] = {}
        for notice in [] if path is None else read_notices(path):
            self.add(notice)

    def add(self, notice: Notice) -> None:
        """Add a notice; one that was there before has its counts widened."""
        key = (notice.rank, notice.text)
        known = self._known.get(key)
        if known is not None and known.low is not None and notice.low is not None:
            counts = (known.low, known.high or 0, notice.low, notice.high or 0)
            notice = replace(notice, low=min(counts[0], counts[2]), high=max(counts[1], counts[3]))
        self._known[key] = notice
        if self._path is not None and notice != known:
            rows = [asdict(notice) for notice in self._known.values()]
            write_text(self._path, json.dumps(rows, indent=1))

    def list(self) -> list[Notice]:
        """Return them, those that matter most first."""
        return sorted(self._known.values(), key=lambda notice: notice.rank)


_collector: ContextVar[Notices | None] = ContextVar("notices", default=None)


@contextmanager
def collect_notices(path: Path | None = None) -> Generator[Notices]:
    """Collect what is said in a block, in this thread.

    Args:
        path: See `Notices`.
    """
    found = Notices(path)
    token = _collector.set(found)
    try:
        yield found
    finally:
        _collector.reset(token)


def note(rank: NoticeRank, text: str, count: int | None = None, one: str = "") -> None:
    """Say what is done otherwise than a reader may think.

    Args:
        rank: How much it matters.
        text: A sentence, with `{n}` where the count belongs.
        count: How often; nothing is said of 0.
        one: The sentence where the count is 1, if another is needed.
    """
    collector = _collector.get()
    if collector is not None and count != 0:
        collector.add(Notice(rank, text, count, count, one))


def merge_notices(groups: Iterable[Iterable[Notice]]) -> list[Notice]:
    """Return the notices of several places, each once, those that matter most first."""
    merged = Notices()
    for group in groups:
        for notice in group:
            merged.add(notice)
    return merged.list()


def read_notices(path: Path) -> list[Notice]:
    """Return the notices that a file holds; none if there is no such file.

    Raises:
        UserError: If it is damaged.
    """
    try:
        rows: list[dict[str, Any]] = json.loads(read_plain_text(path))
        return [
            Notice(NoticeRank(row["rank"]), str(row["text"]), row["low"], row["high"], str(row.get("one", "")))
            for row in rows
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise_outage(error, f"'{path}' can't be read")
        raise UserError(f"'{path}' is damaged.", "Remove it; some notices are then not told.") from None
