"""What commands share: consoles, how texts of anybody's and data are shown, and what is said when work stops."""

import json
import shlex
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.console import Console, ConsoleDimensions
from rich.text import Text

from cowbird.errors import ExitCode, UserError
from cowbird.processes import was_interrupted
from cowbird.report.terminal import sanitize_text
from cowbird.text import escape_lines

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType
    from rich.segment import Segment

MAX_LINE = 2000
"""Characters shown of a message at most."""
MIN_WIDTH = 50
"""Columns that are taken for granted: in fewer, cells of a table would be cut off, and in none all of it."""


class SafeConsole(Console):
    """A console that shows nothing raw, whatever it is given.

    Text of strangers should come as `sanitize_text`, which fits into its column. What comes otherwise is escaped here.
    """

    @property
    def size(self) -> ConsoleDimensions:
        """The size of the terminal, and never less than a table needs."""
        found = super().size
        return ConsoleDimensions(max(found.width, MIN_WIDTH), found.height)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    def render(self, renderable: "RenderableType", options: "ConsoleOptions | None" = None) -> "Iterable[Segment]":
        """Render, with what can't be seen as its code."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escape_lines(segment.text))


out_console = SafeConsole()
err_console = SafeConsole(stderr=True)


def print_json(value: Any) -> None:
    """Print plain JSON values on standard output, in ASCII: no text in it steers a terminal or hides."""
    print_plain(f"{json.dumps(value, indent=1, ensure_ascii=True, default=str)}\n")


def print_plain(text: str) -> None:
    """Print a text as it is on standard output.

    Raises:
        UserError: If it can't be written, as on a full disk.
    """
    sys.stdout.write(text)
    sys.stdout.flush()


def name_command_again(command: Callable[..., None]) -> Callable[..., None]:
    """Have a command whose work takes long name itself where it is interrupted before anything is kept."""

    @wraps(command)
    def run(**given: Any) -> None:
        try:
            command(**given)
        except KeyboardInterrupt:
            exit_resumable("Interrupted.", lead="Run again")
        except (UserError, typer.Exit):
            raise
        except Exception:
            if not was_interrupted():
                raise
            exit_resumable("Interrupted.", lead="Run again")

    return run


def exit_resumable(remark: str, *more: str, lead: str = "Go on with") -> NoReturn:
    """Say with which command work goes on, and end.

    Args:
        remark: What is said before.
        more: Options that the command has then.
        lead: What the command does.
    """
    words = [word for word in sys.argv[1:] if word not in more]
    again = shlex.join(["cowbird", *words, *more])
    err_console.print(Text(f"{remark} {lead}: ").append_text(sanitize_line(again)), soft_wrap=True)
    raise typer.Exit(ExitCode.INCOMPLETE)


def sanitize_line(text: str) -> Text:
    """Return a long text of anybody's as one that a terminal can show."""
    return sanitize_text(text, MAX_LINE)
