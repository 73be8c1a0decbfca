"""Options about the form of files, given to each command that reads some; what they leave open is sniffed."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer
from rich.text import Text

from cowbird.cli.terminal import err_console, sanitize_line

EncodingOption = Annotated[str | None, typer.Option(help="Encoding of text files, such as cp1252; sniffed by default.")]
SeparatorOption = Annotated[
    str | None, typer.Option(help="What stands between columns: one character, or tab; sniffed by default.")
]
QuoteOption = Annotated[
    str | None, typer.Option(help="What wraps cells: one character, backslash or none; sniffed by default.")
]
HeaderRowOption = Annotated[
    int | None, typer.Option(min=0, help="Line of the column names; 0: there are none. Sniffed by default.")
]
NullOption = Annotated[
    list[str] | None,
    typer.Option("--null", metavar="TEXT", help="A text that stands for a missing value; repeat for more."),
]
JsonPathOption = Annotated[
    str | None, typer.Option(metavar="KEYS", help="Where in a JSON document the rows are, such as data.items.")
]
TableOption = Annotated[str | None, typer.Option(metavar="NAME", help="The table of a database that is read.")]
READ_OPTIONS: dict[str, Any] = {
    "encoding": EncodingOption,
    "separator": SeparatorOption,
    "quote": QuoteOption,
    "header_row": HeaderRowOption,
    "null": NullOption,
    "json_path": JsonPathOption,
    "table": TableOption,
}
"""The options by name."""


def take_read_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options about the form of files; it reads all files so.

    How files were read is told on standard error at its end, but for what the command tells itself.
    """
    signature = inspect.signature(command)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in READ_OPTIONS.items()
    ]

    @wraps(command)
    def run(**given: Any) -> None:
        from cowbird.ingest.options import ReadOptions, use_options  # noqa: PLC0415
        from cowbird.notices import collect_notices  # noqa: PLC0415

        wanted = {name: given.pop(name, None) for name in READ_OPTIONS}
        null = wanted.pop("null")
        options = ReadOptions(**wanted, null=None if not null else tuple(null))
        with use_options(options), collect_notices() as told:
            try:
                command(**given)
            finally:
                for notice in () if given.get("quiet") or given.get("as_json") else told.list():
                    err_console.print(Text("note: ") + sanitize_line(str(notice)), soft_wrap=True)

    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
    return run
