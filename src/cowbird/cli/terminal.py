"""What commands share: consoles, bars of progress, and what is said when work stops."""

import shlex
import sys
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from cowbird.errors import ExitCode

if TYPE_CHECKING:
    from rich.progress import Progress

out_console = Console()
err_console = Console(stderr=True)


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
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn() if left else TimeElapsedColumn(),
        *([TextColumn("{task.fields[remark]}", markup=False)] if remark else []),
    ]
    return Progress(*columns, console=err_console)


def exit_resumable(remark: str, *more: str) -> NoReturn:
    """Say with which command work goes on, and end."""
    words = [word for word in sys.argv[1:] if word not in more]
    again = shlex.join(["cowbird", *words, *more])
    err_console.print(Text(f"{remark} Go on with: ").append_text(sanitize_line(again)), soft_wrap=True)
    raise typer.Exit(ExitCode.INCOMPLETE)


def sanitize_line(text: str) -> Text:
    """Return a long text of anybody's as one that a terminal can show."""
    from cowbird.report.table import sanitize_text  # noqa: PLC0415

    return sanitize_text(text, 2000)
