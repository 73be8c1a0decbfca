"""Rows that were left out of a file, counted by reason."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Skip:
    """Rows of one file that were left out for one reason."""

    file: str
    """Name of the file."""
    reason: str
    """Why, in words a person understands, such as `rating is not a number`."""
    count: int
    """How many rows."""
    lines: tuple[int, ...]
    """Line numbers of the first of them (the file's first line is 1)."""

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.lines))
        more = ", …" if self.count > len(self.lines) else ""
        return f"{self.file}: {self.count} × {self.reason} (line {shown}{more})"


class Skips:
    """Counts what a source left out, and remembers where the first of each kind stood."""

    KEPT = 10

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._lines: dict[tuple[str, str], list[int]] = {}

    def add(self, file: str, reason: str, lines: Iterable[int]) -> None:
        """Count some lines of a file as skipped for a reason."""
        rows = [int(line) for line in lines]
        if not rows:
            return
        key = (file, reason)
        self._counts[key] = self._counts.get(key, 0) + len(rows)
        kept = self._lines.setdefault(key, [])
        kept.extend(rows[: self.KEPT - len(kept)])

    def merge(self, file: str, reason: str, count: int, first: Iterable[int]) -> None:
        """Count lines that were counted elsewhere, of which the first are known."""
        if count:
            key, rows = (file, reason), list(first)
            self._counts[key] = self._counts.get(key, 0) + count
            kept = self._lines.setdefault(key, [])
            kept.extend(rows[: self.KEPT - len(kept)])

    def list(self) -> tuple[Skip, ...]:
        """Return what was skipped, most rows first."""
        order = sorted(self._counts, key=lambda key: (-self._counts[key], key))
        return tuple(Skip(*key, self._counts[key], tuple(self._lines[key])) for key in order)
