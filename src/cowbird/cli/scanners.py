"""`cowbird fit-scanner` and `cowbird scan`: a scanner for planted triggers, and a catalogue's titles under it."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cowbird.cli.terminal import DeviceOption, exit_resumable, make_progress, out_console
from cowbird.errors import ExitCode, UserError

if TYPE_CHECKING:
    import torch

    from cowbird.defenses.p_scanner.scanner import PoisonScanner
    from cowbird.scanning.commands import FitResult
    from cowbird.scanning.summary import ScanSummary


class AgentKind(StrEnum):
    """Who proposes triggers to `cowbird fit-scanner`."""

    embedded = "embedded"
    openai = "openai"


CatalogArgument = Annotated[Path, typer.Argument(help="CSV, TSV, JSON Lines (each perhaps .gz) or Parquet.")]
TextColumnOption = Annotated[str, typer.Option("--text-column", help="The column of titles.")]


def fit_scanner(
    catalog: CatalogArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the scanner, new or empty.")],
    text_column: TextColumnOption = "title",
    llm: Annotated[
        str | None, typer.Option(help="What reads titles: an embedded model, a folder, a GGUF file or a hub id.")
    ] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Layers of it kept; 4 by default.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of new triggers at most; 3 by default.")] = None,
    fpr: Annotated[float, typer.Option(help="Share of clean titles that may be flagged.")] = 0.01,
    agent: Annotated[
        AgentKind, typer.Option(help="Who writes triggers; openai is any compatible server, its key OPENAI_API_KEY.")
    ] = AgentKind.embedded,
    agent_model: Annotated[str | None, typer.Option(help="The language model that writes them.")] = None,
    agent_url: Annotated[str | None, typer.Option(help="The server, such as http://localhost:8000/v1.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides all that is random.")] = 0,
    device: DeviceOption = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted fit (DIR.partial).")] = False,
) -> None:
    """Fit a scanner for planted triggers to a catalogue's titles, poisoned or not.

    Exit codes: 0 made, 2 error, 3 interrupted, or made although some rows could not be read.
    """
    from pydantic import ValidationError  # noqa: PLC0415

    from cowbird.experiments.spec import explain_errors  # noqa: PLC0415
    from cowbird.scanning import commands  # noqa: PLC0415
    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415

    place = pick_device(device)
    try:
        spec = commands.make_spec(llm, layers, rounds, fpr, agent, agent_model, agent_url, device)
    except ValidationError as error:
        raise UserError(
            f"These options can't be used: {explain_errors(error)}", "See cowbird fit-scanner --help."
        ) from None
    made = fit_and_show(catalog, out, spec, text_column, seed, resume, place, "--resume")
    if made.unread:
        raise typer.Exit(ExitCode.INCOMPLETE)


def fit_and_show(
    catalog: Path,
    out: Path,
    spec: "PoisonScanner",
    text_column: str,
    seed: int,
    resume: bool,
    place: "torch.device",
    *more: str,
) -> "FitResult":
    """Fit a scanner, show how it goes and what came of it; `more` is added to the command that goes on."""
    from cowbird.report.table import sanitize_text  # noqa: PLC0415
    from cowbird.scanning import commands  # noqa: PLC0415
    from cowbird.victims.fit_context import FitContext  # noqa: PLC0415

    with make_progress() as shown:
        task = shown.add_task("starting", total=None)
        work = FitContext(
            place,
            report=lambda done, total, remark: shown.update(task, description=remark, completed=done, total=total),
            warn=lambda text: shown.console.print(Text("warning  ", style="yellow") + sanitize_text(text, 300)),
        )
        try:
            made = commands.fit_scanner(catalog, out, spec, text_column, seed, resume, work)
        except KeyboardInterrupt:
            shown.stop()
            exit_resumable("Interrupted.", *more)
    out_console.print(commands.format_fit(made))
    out_console.print(Text("Scanner: ") + sanitize_text(str(out), 300))
    return made


def scan(
    catalog: CatalogArgument,
    scanner: Annotated[Path, typer.Option(metavar="DIR", help="What cowbird fit-scanner made.")],
    out: Annotated[
        Path, typer.Option(metavar="FINDINGS", help="A .csv, .jsonl or .parquet; an older one is replaced.")
    ],
    fpr: Annotated[
        float | None, typer.Option(help="Share of clean titles that may be flagged; the scanner's own by default.")
    ] = None,
    text_column: TextColumnOption = "title",
    id_column: Annotated[str | None, typer.Option(help="The column of ids; id or item_id by default.")] = None,
    only_flagged: Annotated[bool, typer.Option("--only-flagged", help="Write flagged rows alone.")] = False,
    chunk: Annotated[int, typer.Option(min=1, help="Rows read, and compared with each other, at a time.")] = 8192,
    workers: Annotated[int, typer.Option(min=1, help="Processes that judge; on a GPU, for many rows, about 8.")] = 1,
    device: DeviceOption = "auto",
) -> None:
    """Scan a catalogue's titles for planted triggers. An interrupted scan goes on by itself.

    Exit codes: 0 nothing flagged, 1 titles flagged, 2 error, 3 interrupted, or nothing flagged and rows not read.
    """
    from cowbird.scanning.summary import choose_exit_code  # noqa: PLC0415
    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415

    place = pick_device(device)
    found = scan_and_show(catalog, scanner, out, place, fpr, text_column, id_column, only_flagged, chunk, workers)
    raise typer.Exit(choose_exit_code(found))


def scan_and_show(
    catalog: Path,
    scanner: Path,
    out: Path,
    place: "torch.device",
    fpr: float | None = None,
    text_column: str = "title",
    id_column: str | None = None,
    only_flagged: bool = False,
    chunk: int = 8192,
    workers: int = 1,
) -> "ScanSummary":
    """Scan a catalogue, show how it goes and what came of it."""
    from cowbird.defenses.p_scanner.fitted import load_scanner  # noqa: PLC0415
    from cowbird.scanning import commands, summary  # noqa: PLC0415
    from cowbird.scanning.scan import scan_catalog  # noqa: PLC0415

    scorer = commands.ScannerScorer.of(load_scanner(scanner, place), fpr)
    with commands.open_scorer(scorer, scanner, place, workers) as judge, make_progress() as shown:
        task = shown.add_task("rows", total=None)
        try:
            found = scan_catalog(
                catalog, out, judge, text_column=text_column, id_column=id_column, only_flagged=only_flagged,
                chunk=chunk,
                report=lambda done, total, remark: shown.update(task, description=remark, completed=done, total=total),
            )  # fmt: skip
        except KeyboardInterrupt:
            shown.stop()
            exit_resumable("Interrupted; what was scanned is kept.")
    out_console.print(summary.render_summary(found))
    out_console.print(commands.format_scan_basis(scorer, chunk, found))
    return found
