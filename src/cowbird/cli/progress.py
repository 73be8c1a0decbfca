"""Progress on standard error: bars on a terminal; plain lines, now and then, in a log; nothing if that is wished."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from rich.text import Text

from cowbird.cli.terminal import err_console, sanitize_line
from cowbird.processes import hold_collections

if TYPE_CHECKING:
    from rich.progress import Progress

SECONDS_BETWEEN_LINES = 20.0
"""How often a log gets a line of progress."""
SECONDS_BETWEEN_PHASES = 1.0
"""How soon a line follows another if the phase has changed."""


class ProgressDisplay(Protocol):
    """Shows how far work is. It is used as a context manager."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def add_task(self, phase: str) -> int:
        """Begin to show a task, and return its number."""
        ...

    def update(
        self, task: int, *, phase: str | None = None, done: int | None = None, total: int | None = None, note: str = ""
    ) -> None:
        """Show how far a task is; what is `None` stays as it was.

        Args:
            task: Its number.
            phase: What is done at the moment.
            done: Steps that are done.
            total: Steps in all.
            note: What there is to say beside it.
        """
        ...

    def remove_task(self, task: int) -> None:
        """Show a task no longer."""
        ...

    def warn(self, text: str) -> None:
        """Print a warning, which may quote anybody's text."""
        ...

    def stop(self) -> None:
        """Show nothing more."""
        ...


def make_progress(left: bool = False, quiet: bool = False) -> ProgressDisplay:
    """Return what shows progress: bars on a terminal, lines elsewhere.

    Args:
        left: Whether bars show the time that is left, or the time that went by.
        quiet: Whether nothing is shown but warnings.
    """
    if quiet:
        return QuietDisplay()
    return BarDisplay(left) if err_console.is_terminal else LineDisplay()


@contextmanager
def show_loading(what: str, quiet: bool = False) -> Generator[None]:
    """Show that something is being loaded, which takes seconds in which nothing can be counted.

    Args:
        what: What there is to say.
        quiet: Whether nothing is shown.
    """
    with make_progress(quiet=quiet) as shown:
        task = shown.add_task(what)
        shown.update(task)
        with hold_collections():
            yield
        shown.remove_task(task)


class QuietDisplay:
    """Shows warnings alone."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def add_task(self, phase: str) -> int:
        """Show nothing; see `ProgressDisplay`."""
        return 0

    def update(
        self, task: int, *, phase: str | None = None, done: int | None = None, total: int | None = None, note: str = ""
    ) -> None:
        """Show nothing; see `ProgressDisplay`."""

    def remove_task(self, task: int) -> None:
        """Show nothing; see `ProgressDisplay`."""

    def warn(self, text: str) -> None:
        """Print a warning."""
        err_console.print(Text("warning  ", style="yellow") + sanitize_line(text))

    def stop(self) -> None:
        """Show nothing; see `ProgressDisplay`."""


class BarDisplay(QuietDisplay):
    """Bars, for terminals.

    Args:
        left: Whether the time that is left is shown, or the time that went by.
    """

    def __init__(self, left: bool) -> None:
        self._bars = _make_bars(left)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def add_task(self, phase: str) -> int:
        """Begin a bar; see `ProgressDisplay`."""
        return self._bars.add_task(sanitize_line(phase).plain, total=None, note="")

    def update(
        self, task: int, *, phase: str | None = None, done: int | None = None, total: int | None = None, note: str = ""
    ) -> None:
        """Move a bar; see `ProgressDisplay`."""
        shown = None if phase is None else sanitize_line(phase).plain
        self._bars.update(task, description=shown, completed=done, total=total, note=sanitize_line(note).plain)  # pyright: ignore[reportArgumentType]

    def remove_task(self, task: int) -> None:
        """Take a bar away; see `ProgressDisplay`."""
        self._bars.remove_task(task)  # pyright: ignore[reportArgumentType]

    def stop(self) -> None:
        """Leave the bars as they are."""
        self._bars.stop()


def _make_bars(left: bool) -> "Progress":
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn() if left else TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=err_console,
    )


@dataclass
class _LineTask:
    phase: str
    done: int | None = None
    total: int | None = None
    note: str = ""

    def format(self) -> str:
        count = "" if self.done is None else f" {self.done:,}" + ("" if self.total is None else f"/{self.total:,}")
        return f"{self.phase}{count}" + (f" ({self.note})" if self.note else "")


class LineDisplay(QuietDisplay):
    """Plain lines, for logs: at the beginning, when the phase changes, every 20 seconds, and at the end."""

    def __init__(self) -> None:
        self._tasks: dict[int, _LineTask] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._began = self._last = time.monotonic()
        self._shown = ("", "")
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        self._ticker.start()
        return self

    def add_task(self, phase: str) -> int:
        """Begin a task; see `ProgressDisplay`."""
        with self._lock:
            number = max(self._tasks, default=-1) + 1
            self._tasks[number] = _LineTask(phase)
        return number

    def update(
        self, task: int, *, phase: str | None = None, done: int | None = None, total: int | None = None, note: str = ""
    ) -> None:
        """Keep how far a task is, and print a line if it is time; see `ProgressDisplay`."""
        with self._lock:
            entry = self._tasks[task]
            entry.phase, entry.note = entry.phase if phase is None else phase, note
            entry.done = entry.done if done is None else done
            entry.total = entry.total if total is None else total
            waited = time.monotonic() - self._last
            changed = self._list_phases() != self._shown[0]
            first = not self._shown[0]
            if first or waited >= (SECONDS_BETWEEN_PHASES if changed else SECONDS_BETWEEN_LINES):
                self._print()

    def remove_task(self, task: int) -> None:
        """Forget a task; see `ProgressDisplay`."""
        with self._lock:
            if self._list_counts() != self._shown[1]:
                self._print()
            del self._tasks[task]

    def stop(self) -> None:
        """Print how far it came, unless that was the last line."""
        if self._ended.is_set():
            return
        self._ended.set()
        with self._lock:
            if self._tasks and self._list_counts() != self._shown[1]:
                self._print()

    def _list_phases(self) -> str:
        return "; ".join(task.phase for task in self._tasks.values())

    def _list_counts(self) -> str:
        return "; ".join(task.format() for task in self._tasks.values())

    def _print(self) -> None:
        """Print a line; the lock is held."""
        self._last, self._shown = time.monotonic(), (self._list_phases(), self._list_counts())
        minutes, seconds = divmod(int(self._last - self._began), 60)
        err_console.print(Text(f"[{minutes:02}:{seconds:02}] ") + sanitize_line(self._shown[1]), soft_wrap=True)

    def _tick(self) -> None:
        """Print a line now and then while nothing is told."""
        while not self._ended.wait(SECONDS_BETWEEN_LINES / 4):
            with self._lock:
                if self._tasks and time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
                    self._print()


def report_phases(shown: ProgressDisplay, first: str) -> Callable[[str, int, int, str], None]:
    """Return what shows work of several phases in one line: the phase, what is done, all of it, and a remark.

    Args:
        shown: The display.
        first: What the line says until the first report.
    """
    task = shown.add_task(first)

    def report(what: str, done: int, total: int, remark: str) -> None:
        shown.update(task, phase=what, done=done, total=total, note=remark)

    return report
