"""The command line: parse, call, exit code; nothing else. A module a group of commands, and one app of them all."""

import traceback
from typing import Annotated

import typer
from rich.text import Text

from cowbird import __version__
from cowbird.cli.assets import assets
from cowbird.cli.demo import demo
from cowbird.cli.fit_scanner import fit_scanner
from cowbird.cli.list import list_
from cowbird.cli.run import run
from cowbird.cli.scan import scan
from cowbird.cli.stealth import stealth
from cowbird.cli.terminal import MAX_LINE, err_console, out_console
from cowbird.errors import ExitCode, UserError
from cowbird.report.terminal import sanitize_text

TYPER_INTERRUPT_CODE = 130
"""What typer exits with on Ctrl-C; it lets no KeyboardInterrupt through."""


def _print_version(wanted: bool) -> None:
    if wanted:
        out_console.print(f"cowbird {__version__}", highlight=False)
        raise typer.Exit


def _set_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find backdoors in recommender systems."""


app = typer.Typer(
    help="Find backdoors in recommender systems.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.callback()(_set_options)
# In the order that `cowbird --help` lists them.
app.command(name="list")(list_)
app.command()(run)
app.command()(assets)
app.command()(demo)
app.command()(stealth)
app.command(name="fit-scanner")(fit_scanner)
app.command()(scan)


def main() -> None:
    """Run the command line; the entry point of the `cowbird` command."""
    try:
        app()
    except UserError as error:
        # Messages quote specs and data, which may come from anybody.
        err_console.print(Text("Error: ", style="bold red") + sanitize_text(error.message, MAX_LINE))
        if error.hint:
            err_console.print(sanitize_text(error.hint, MAX_LINE))
        raise SystemExit(int(ExitCode.ERROR)) from None
    except Exception:  # a bug; Python would end with 1, which scripts take for findings
        for line in traceback.format_exc().splitlines():
            err_console.print(sanitize_text(line, MAX_LINE), soft_wrap=True)
        raise SystemExit(int(ExitCode.ERROR)) from None
    except SystemExit as end:
        if end.code != TYPER_INTERRUPT_CODE:
            raise
        err_console.print(Text("Interrupted."))
        raise SystemExit(int(ExitCode.INCOMPLETE)) from None
