"""What commands share: consoles, bars of progress, and what is said when work stops."""

import shlex
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from cowbird.errors import ExitCode
from cowbird.report.terminal import sanitize_text
from cowbird.text import escape_lines

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType
    from rich.progress import Progress
    from rich.segment import Segment

MAX_LINE = 2000
"""Characters shown of a message at most."""


class SafeConsole(Console):
    """A console that shows nothing raw, whatever it is given.

    Text of strangers should come as `sanitize_text`, which fits into its column. What comes otherwise is escaped here.
    """

    def render(self, renderable: "RenderableType", options: "ConsoleOptions | None" = None) -> "Iterable[Segment]":
        """Render, with what can't be seen as its code."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escape_lines(segment.text))


out_console = SafeConsole()
err_console = SafeConsole(stderr=True)


def make_progress(left: bool = False, remark: bool = False) -> "Progress":
    """Return bars of progress, on standard error.

    Args:
        left: Whether the time that is left is shown, or the time that went by.
        remark: Whether each task has a field `remark`, shown last.
    """
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    class LabelColumn(ProgressColumn):
        """What a task works on; labels and titles in it are anybody's text."""

        def __init__(self, read: Callable[[Task], str]) -> None:
            super().__init__()
            self._read = read

        def render(self, task: Task) -> Text:
            return sanitize_text(self._read(task), 200)

    columns = [
        LabelColumn(lambda task: task.description),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn() if left else TimeElapsedColumn(),
        *([LabelColumn(lambda task: task.fields["remark"])] if remark else []),
    ]
    return Progress(*columns, console=err_console)


def exit_resumable(remark: str, *more: str) -> NoReturn:
    """Say with which command work goes on, and end."""
    words = [word for word in sys.argv[1:] if word not in more]
    again = shlex.join(["cowbird", *words, *more])
    err_console.print(Text(f"{remark} Go on with: ").append_text(sanitize_text(again, MAX_LINE)), soft_wrap=True)
    raise typer.Exit(ExitCode.INCOMPLETE)
