"""`cowbird serve`: a scanner behind HTTP, for titles as they are uploaded."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cowbird.cli.options import (
    AllowPluginsOption,
    DeviceOption,
    QuietOption,
    TaggerOption,
    TextColumnOption,
    choose_tagger,
)
from cowbird.cli.terminal import err_console, sanitize_line
from cowbird.errors import UserError
from cowbird.outputs import check_outputs

if TYPE_CHECKING:
    from cowbird.service.scanners import ServedScanner

SERVE_EXAMPLES = (
    "cowbird serve --detector character_rules --log verdicts --token-env COWBIRD_TOKEN",
    "cowbird serve --reference clean.csv --log verdicts --token-file tokens.txt --port 8645",
)


def serve(
    log: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the audit log; every verdict stands there.")],
    scanner: Annotated[Path | None, typer.Option(metavar="PATH", help="A scanner that was made before.")] = None,
    detector: Annotated[
        str | None, typer.Option(metavar="NAME", help="A detector that judges single titles, such as character_rules.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="A field of the detector.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Titles of the same source that are taken for clean; they set thresholds."),
    ] = None,
    fpr: Annotated[float | None, typer.Option(help="Share of clean titles that may be flagged.")] = None,
    review_fpr: Annotated[
        float | None, typer.Option(help="Share that may be flagged or put up for review (ready scanner).")
    ] = None,
    allow: Annotated[Path | None, typer.Option(metavar="FILE", help="Texts that must not be flagged.")] = None,
    text_column: TextColumnOption = "title",
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8645,
    token_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable that holds the token.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A client's name and its token in each line.")
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Let everybody on this machine ask; for a loopback address alone.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that judge.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Titles judged at once by a process.")] = 16,
    queue: Annotated[int, typer.Option(min=1, help="Titles that may wait; more are answered with 503.")] = 2000,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a request waits for verdicts.")] = 30.0,
    read_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for the head and the body of a request.")] = 10,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Titles a second of one client; no limit.")] = None,
    burst: Annotated[int, typer.Option(min=1, help="Titles a client may send at once before that counts.")] = 2000,
    max_title: Annotated[int, typer.Option(min=1, help="Characters of a title.")] = 2000,
    max_titles: Annotated[int, typer.Option(min=1, help="Titles of a request.")] = 1000,
    max_body: Annotated[int, typer.Option(min=64, help="Bytes of a request's body.")] = 1 << 20,
    cache: Annotated[
        int, typer.Option(min=0, help="Titles whose verdicts are kept for when they come again.")
    ] = 50_000,
    log_bytes: Annotated[int, typer.Option(min=1024, help="Size at which a new file of the log is begun.")] = 1 << 28,
    tagger: TaggerOption = None,
    device: DeviceOption = "auto",
    allow_plugins: AllowPluginsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Serve a scanner: POST a title or several, get verdicts. SIGHUP opens the scanner anew, SIGTERM ends in order.

    Exit codes: 0 ended by a signal, 2 error.
    """
    try:
        from cowbird.service import access, audit, limits, server  # noqa: PLC0415
        from cowbird.service.scanners import ScannerSource  # noqa: PLC0415
        from cowbird.victims.fit_context import pick_device  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(f"The service needs the library '{error.name}'.", "pip install 'cowbird[serve]'") from None

    read = {"--scanner": scanner, "--reference": reference, "--allow": allow, "--token-file": token_file}
    check_outputs({"--log": log / audit.AUDIT_FILE}, {**read, "--tagger": tagger})
    tokens = None
    if no_token:
        if token_env is not None or token_file is not None:
            raise UserError("--no-token lets everybody ask, and a token is given too.", "Leave one of them out.")
        if not server.is_loopback(host):
            raise UserError(
                f"--no-token is for addresses that only this machine reaches, and '{host}' is none.",
                "Give a token: --token-env NAME or --token-file FILE.",
            )
    else:
        tokens = access.read_tokens(token_env, token_file)
    taken = limits.ServiceLimits(
        max_title=max_title, max_titles=max_titles, max_body=max_body, queue=queue, batch=batch, workers=workers,
        timeout=timeout, read_timeout=read_timeout, rate=rate, burst=burst, cache=cache, log_bytes=log_bytes,
    )  # fmt: skip
    if tagger is not None and reference is None:
        raise UserError("--tagger is for titles that are calibrated now.", "Add --reference FILE, or leave it out.")
    source = ScannerSource(
        scanner, detector, tuple(setting or ()), reference, fpr, review_fpr, allow, text_column, device,
        "llm" if reference is None else choose_tagger(tagger, pick_device(device)), allow_plugins,
    )  # fmt: skip
    with ExitStack() as held:
        written = held.enter_context(audit.AuditLog(log, taken.log_bytes, _warn))
        listener = held.enter_context(server.open_socket(host, port))
        shown = (_ignore, _ignore) if quiet else (_show_address, _show_scanner)
        events = server.ServiceEvents(*shown, _warn)
        server.serve(source, taken, tokens, written, listener, events)


def _ignore(_: object) -> None:
    pass


def _show_address(address: str) -> None:
    err_console.print(Text(f"Listening at {address}"))


def _show_scanner(found: "ServedScanner") -> None:
    bar = "none" if found.threshold is None else f"{found.threshold:.4g}"
    line = f"Judging with {found.label}, threshold {bar}, sha256 {found.sha256[:12]}."
    err_console.print(sanitize_line(line))


def _warn(text: str) -> None:
    err_console.print(Text("warning  ", style="yellow") + sanitize_line(text))
