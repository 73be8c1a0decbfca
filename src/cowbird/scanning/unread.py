"""Rows that could not be read, counted by reason: what is judged and what is learned from tell of them alike."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from cowbird.ingest.skips import Skips
from cowbird.text import count_things, escape_terminal


@dataclass(frozen=True, slots=True)
class UnreadRows:
    """Rows that could not be read for one reason."""

    reason: str
    """Why, such as `is not JSON`."""
    count: int
    """How many rows."""
    rows: tuple[int, ...]
    """Numbers of the first of them; the first row below the header is 1."""

    def __str__(self) -> str:
        more = ", …" if self.count > len(self.rows) else ""
        return f"{self.count:,} × {self.reason} (row {', '.join(map(str, self.rows))}{more})"


class UnreadTally:
    """Counts rows that could not be read; memory does not grow with them.

    Args:
        known: What was counted before.
    """

    def __init__(self, known: Iterable[UnreadRows] = ()) -> None:
        self._skips = Skips()
        self.merge(known)

    def add(self, row: int, reason: str) -> None:
        """Count a row."""
        self._skips.add("", reason, [row])

    def merge(self, unread: Iterable[UnreadRows], before: int = 0) -> None:
        """Count what was counted of rows behind these.

        Args:
            unread: What was counted.
            before: How many rows stand before the first of those.
        """
        for each in unread:
            self._skips.merge("", each.reason, each.count, [row + before for row in each.rows])

    def list(self) -> tuple[UnreadRows, ...]:
        """Return what could not be read, by reason, most rows first."""
        return tuple(UnreadRows(skip.reason, skip.count, skip.lines) for skip in self._skips.list())


def count_unread(unread: Iterable[UnreadRows]) -> int:
    """Return how many rows could not be read."""
    return sum(each.count for each in unread)


def describe_unread(unread: Iterable[UnreadRows]) -> list[dict[str, Any]]:
    """Return what could not be read, as plain JSON values."""
    return [{"reason": each.reason, "count": each.count, "rows": list(each.rows)} for each in unread]


def format_unread(unread: Sequence[UnreadRows], lead: str) -> list[Text]:
    """Return what is shown of rows that could not be read; nothing if there are none.

    Args:
        unread: The rows.
        lead: What they mean, before the number of them, such as `Not checked, because they can't be read`.
    """
    if not unread:
        return []
    told = Text(f"{escape_terminal(lead, 300)}: {count_things(count_unread(unread), 'row')}.", style="yellow")
    return [told, *(Text("  ").append(escape_terminal(str(each), 200)) for each in unread)]
