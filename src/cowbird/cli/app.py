"""The command line: parse, call, exit code; nothing else. A module a group of commands, and one app of them all."""

import traceback
from collections.abc import Callable
from typing import Annotated

import typer
from rich.text import Text

from cowbird import __version__
from cowbird.cli import assets, demo, describe, fit_scanner, init, run, scan, stealth, validate
from cowbird.cli import list as list_command
from cowbird.cli.terminal import err_console, out_console, sanitize_line
from cowbird.errors import ExitCode, UserError

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
    """Plant known backdoors in recommenders and measure them; find planted triggers in titles."""


def format_examples(*lines: str) -> str:
    """Return examples as they stand below a command's help."""
    # The mark keeps the lines as they are.
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


app = typer.Typer(
    help="Plant known backdoors in recommenders and measure them; find planted triggers in titles.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=format_examples("cowbird demo", *run.EXAMPLES[:1], *scan.EXAMPLES[:1], "cowbird describe attack badrec"),
)
app.callback()(_set_options)
# In the order that `cowbird --help` lists them.
_COMMANDS: tuple[tuple[str, Callable[..., None], str, tuple[str, ...]], ...] = (
    ("demo", demo.demo, "See it find and measure backdoors (a few minutes).", demo.EXAMPLES),
    ("assets", assets.assets, "Fetch the data and models of the demo and experiments.", assets.EXAMPLES),
    ("scan", scan.scan, "Scan titles for planted triggers.", scan.EXAMPLES),
    ("fit-scanner", fit_scanner.fit_scanner, "Fit a scanner to the titles of a catalogue.", fit_scanner.EXAMPLES),
    ("init", init.init, "Write a commented spec to start from.", init.EXAMPLES),
    ("validate", validate.validate, "Check a spec and tell what would run.", validate.EXAMPLES),
    ("run", run.run, "Run an experiment and write its results.", run.EXAMPLES),
    ("list", list_command.list_, "List what a spec may name.", list_command.EXAMPLES),
    ("describe", describe.describe, "Tell every field of what a spec may name.", describe.EXAMPLES),
    ("stealth", stealth.stealth, "Measure how visible triggers are in titles.", stealth.EXAMPLES),
)
for _name, _command, _short, _examples in _COMMANDS:
    app.command(name=_name, short_help=_short, epilog=format_examples(*_examples))(_command)


def main() -> None:
    """Run the command line; the entry point of the `cowbird` command."""
    try:
        app()
    except UserError as error:
        # Messages quote specs and data, which may come from anybody.
        err_console.print(Text("Error: ", style="bold red") + sanitize_line(error.message))
        if error.hint:
            err_console.print(sanitize_line(error.hint))
        raise SystemExit(int(ExitCode.ERROR)) from None
    except Exception:  # a bug; Python would end with 1, which scripts take for findings
        for line in traceback.format_exc().splitlines():
            err_console.print(sanitize_line(line), soft_wrap=True)
        raise SystemExit(int(ExitCode.ERROR)) from None
    except SystemExit as end:
        if end.code != TYPER_INTERRUPT_CODE:
            raise
        err_console.print(Text("Interrupted."))
        raise SystemExit(int(ExitCode.INCOMPLETE)) from None
