"""`cowbird review`: findings on a local page, for a person who decides."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Annotated

import typer
from rich.text import Text

from cowbird.cli.options import QuietOption
from cowbird.cli.terminal import err_console, out_console, sanitize_line
from cowbird.errors import UserError
from cowbird.outputs import check_outputs
from cowbird.text import count_things

REVIEW_EXAMPLES = (
    "cowbird review findings.csv",
    "cowbird review findings.csv --export allow.txt",
)


def review(
    findings: Annotated[Path, typer.Argument(help="What cowbird scan wrote: .csv, .jsonl or .parquet.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")] = 0,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write what was dismissed as a file for --allow, and show no page."),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Show findings on a local page: accept or dismiss them by a key. Decisions stay in a file beside the findings.

    In a script, --export FILE writes what was dismissed so far and ends at once; cowbird scan --allow FILE reads that.
    If nothing is dismissed, no file is written and the exit code is 2.

    Exit codes: 0 done, or ended by Ctrl-C; 2 error.
    """
    from cowbird.review.grouped_store import list_store_files  # noqa: PLC0415
    from cowbird.review.store import ReviewStore  # noqa: PLC0415

    check_outputs({"--export": export}, {"FINDINGS": findings, "the review's decisions": list_store_files(findings)})
    if export is None:
        Thread(target=_import_ahead, daemon=True).start()
    store = ReviewStore(findings, index_later=export is None)
    try:
        if export is not None:
            made = store.export_allowed(export)
            if not quiet:
                more = f"; {made.left_out:,} hold line breaks and are left out" if made.left_out else ""
                out_console.print(sanitize_line(f"{count_things(made.texts, 'text')} in {made.path}{more}."))
            return

        def announce(address: str) -> None:
            err_console.print(Text(f"Open {address}"), soft_wrap=True)
            err_console.print(sanitize_line(f"Decisions are kept in {store.path}. Ctrl-C ends."))
            if open_browser:
                import webbrowser  # noqa: PLC0415

                webbrowser.open(address)

        _import_server()(store, port, announce)
        store.wait()  # what went wrong behind the page ends the command, too
    finally:
        store.close()


def _import_server() -> Callable[..., None]:
    """Return what serves the page.

    Raises:
        UserError: If a library is missing.
    """
    try:
        from cowbird.review.server import serve_review  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(f"The review needs the library '{error.name}'.", "pip install 'cowbird[serve]'") from None
    return serve_review


def _import_ahead() -> None:
    """Import what serves the page while findings are read; what is missing is told later."""
    with suppress(UserError):
        _import_server()
