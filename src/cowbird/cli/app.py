"""The command line: parse, call, exit code; nothing else. A module a group of commands, and one app of them all."""

import errno
import io
import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.text import Text

from cowbird import __version__
from cowbird.cli import (
    assets,
    calibrate,
    demo,
    describe,
    fit_scanner,
    init,
    peek,
    report,
    review,
    run,
    sanitize,
    scan,
    serve,
    stealth,
    survive,
    table,
    train_scanner,
    validate,
    zoo,
)
from cowbird.cli import inspect as inspect_command
from cowbird.cli import list as list_command
from cowbird.cli.streams import guard_streams
from cowbird.cli.terminal import MAX_LINE, err_console, out_console
from cowbird.errors import ExitCode, PluginError, UserError
from cowbird.plugin_errors import TRACEBACK_VARIABLE, blame_plugin
from cowbird.processes import forget_interrupts, treat_signals_as_interrupts, was_interrupted
from cowbird.report.terminal import sanitize_text
from cowbird.text import escape_lines

TYPER_INTERRUPT_CODE = 130
"""What typer returns on Ctrl-C; it lets no KeyboardInterrupt through."""
PYDANTIC_PREFIX = "Value error, "
"""How pydantic, which typer asks about values, begins a message that says all by itself."""


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
    epilog=format_examples(
        "cowbird demo", *run.RUN_EXAMPLES[:1], *scan.SCAN_EXAMPLES[:1], "cowbird describe attack badrec"
    ),
)
app.callback()(_set_options)
# In the order that `cowbird --help` lists them.
_COMMANDS: tuple[tuple[str, Callable[..., None], str, tuple[str, ...]], ...] = (
    ("demo", demo.demo, "See it find and measure backdoors (a few minutes).", demo.DEMO_EXAMPLES),
    ("assets", assets.assets, "Fetch the data and models of the demo and experiments.", assets.ASSETS_EXAMPLES),
    ("scan", scan.scan, "Scan titles for planted triggers.", scan.SCAN_EXAMPLES),
    (
        "calibrate",
        calibrate.calibrate,
        "Calibrate the ready scanner on your clean titles.",
        calibrate.CALIBRATE_EXAMPLES,
    ),
    (
        "fit-scanner",
        fit_scanner.fit_scanner,
        "Make a scanner for the titles of a catalogue.",
        fit_scanner.FIT_SCANNER_EXAMPLES,
    ),
    (
        "train-scanner",
        train_scanner.train_scanner,
        "Train a tagger on lists of titles.",
        train_scanner.TRAIN_SCANNER_EXAMPLES,
    ),
    ("review", review.review, "Decide about findings on a local page.", review.REVIEW_EXAMPLES),
    (
        "inspect",
        inspect_command.inspect,
        "Look for what was planted in a handed model.",
        inspect_command.INSPECT_EXAMPLES,
    ),
    (
        "survive",
        survive.survive,
        "Replay your fine-tuning on a model; see what stays.",
        survive.SURVIVE_EXAMPLES,
    ),
    (
        "sanitize",
        sanitize.sanitize,
        "Take suspects out of a model, and tell the cost.",
        sanitize.SANITIZE_EXAMPLES,
    ),
    ("zoo", zoo.zoo, "Make models, clean and planted; score inspection.", zoo.ZOO_EXAMPLES),
    ("serve", serve.serve, "Serve a scanner over HTTP.", serve.SERVE_EXAMPLES),
    ("peek", peek.peek, "Tell how a file is read, and show its first rows.", peek.PEEK_EXAMPLES),
    ("init", init.init, "Write a commented spec to start from.", init.INIT_EXAMPLES),
    ("validate", validate.validate, "Check a spec and tell what would run.", validate.VALIDATE_EXAMPLES),
    ("run", run.run, "Run an experiment and write its results.", run.RUN_EXAMPLES),
    ("report", report.report, "Write one page about runs, to open or send.", report.REPORT_EXAMPLES),
    ("table", table.table, "Show results of runs as a table, or write it.", table.TABLE_EXAMPLES),
    ("compare", table.compare, "Compare two runs, with intervals.", table.COMPARE_EXAMPLES),
    ("leaderboard", table.leaderboard, "Rank defenses, attacks or victims.", table.LEADERBOARD_EXAMPLES),
    ("list", list_command.list_, "List what a spec may name.", list_command.LIST_EXAMPLES),
    ("describe", describe.describe, "Tell every field of what a spec may name.", describe.DESCRIBE_EXAMPLES),
    ("stealth", stealth.stealth, "Measure how visible triggers are in titles.", stealth.STEALTH_EXAMPLES),
)
for _name, _command, _short, _examples in _COMMANDS:
    app.command(name=_name, short_help=_short, epilog=format_examples(*_examples))(_command)


def main() -> None:
    """Run the command line, and end with its exit code."""
    with guard_streams(), treat_signals_as_interrupts():
        code = _run_app()
    forget_interrupts()
    raise SystemExit(int(code))


def _run_app() -> int:
    """Run the command; whatever nobody expected is an error.

    Python would end with 1, which scripts take for findings. What is used here was imported before: a library that is
    broken, or memory that is used up, must not keep an error from being told.
    """
    try:
        found: Any = app(standalone_mode=False)
        out_console.file.flush()
        if found == TYPER_INTERRUPT_CODE:
            return _report_interrupt()
        return found if isinstance(found, int) else ExitCode.CLEAN
    except UserError as error:
        return _report_error(error)
    except (KeyboardInterrupt, typer.Abort):
        return _report_interrupt()
    except SystemExit as end:  # of a library, or of typer where a pipe is closed
        return _report_exit(end) if end.code else ExitCode.CLEAN
    except BaseException as error:  # not all are Exceptions: a tokenizer's panic is none
        return _report_usage(error) if hasattr(error, "format_message") else _report_surprise(error)


def _report_error(error: UserError) -> ExitCode:
    """Show an error; messages quote specs and data, which may come from anybody."""
    said = Text("Error: ", style="bold red") + sanitize_text(error.message, MAX_LINE)
    err_console.print(said, soft_wrap=isinstance(error, PluginError))  # a plug-in's fault is one line
    if error.hint:
        err_console.print(sanitize_text(error.hint, MAX_LINE))
    return _report_bug() if os.environ.get(TRACEBACK_VARIABLE) == "1" else ExitCode.ERROR


def _report_interrupt() -> ExitCode:
    err_console.print(Text("Interrupted."))
    return ExitCode.INCOMPLETE


def _report_usage(error: Any) -> ExitCode:
    """Show what typer says of options and arguments, which may be names of hostile files."""
    said = io.StringIO()
    error.message = str(error.message).removeprefix(PYDANTIC_PREFIX)
    error.show(file=said)
    err_console.print(Text(escape_lines(said.getvalue().rstrip("\n"))), soft_wrap=True)
    return ExitCode.ERROR


def _report_exit(end: SystemExit) -> ExitCode:
    """Say that something ended the program which had not been asked to, and where."""
    places = traceback.extract_tb(end.__traceback__)
    where = f" at {places[-1].filename}:{places[-1].lineno}" if places else ""
    code = " ".join(str(end.code)[:MAX_LINE].split())
    told = UserError(
        f"The program was ended{where}, with the exit code {code}.",
        f"No part of Cowbird does that. Is a library damaged, such as torch? {TRACEBACK_VARIABLE}=1 shows more.",
    )
    return _report_error(told)


def _report_surprise(error: BaseException) -> ExitCode:
    """Show what nobody expected: in a line if a plug-in of somebody else is to blame, else with its traceback."""
    if was_interrupted():  # a library made something else of it
        return _report_interrupt()
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return _report_error(UserError(f"{error.filename} is longer than a path can be.", "Name another file."))
    told = blame_plugin(error)
    return _report_bug() if told is None else _report_error(told)


def _report_bug() -> ExitCode:
    with suppress(BaseException):  # such as memory that does not even do for this
        for line in traceback.format_exc().splitlines():
            err_console.print(sanitize_text(line, MAX_LINE), soft_wrap=True)
    return ExitCode.ERROR
