"""`cowbird fit-scanner`: a scanner for planted triggers, fitted to a catalogue's titles."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cowbird.cli.options import (
    AgentKeyEnvOption,
    AgentLogOption,
    AgentUrlOption,
    CatalogArgument,
    DeviceOption,
    JsonOption,
    QuietOption,
    TextColumnOption,
)
from cowbird.cli.progress import make_progress
from cowbird.cli.reading import take_read_options
from cowbird.cli.terminal import exit_resumable, out_console, print_json
from cowbird.errors import ExitCode, UserError
from cowbird.report.terminal import sanitize_text

if TYPE_CHECKING:
    import torch

    from cowbird.defenses.p_scanner.rounds.poison_scanner import PoisonScanner
    from cowbird.scanning.commands import FitResult


FIT_SCANNER_EXAMPLES = (
    "cowbird fit-scanner items.csv --out scanner",
    "cowbird fit-scanner items.csv --out scanner --text-column name --fpr 0.001",
)

FIELD_OPTIONS = {
    "name": "--llm",
    "layers": "--layers",
    "rounds": "--rounds",
    "fpr": "--fpr",
    "model": "--agent-model",
    "base_url": "--agent-url",
    "key_env": "--agent-key-env",
}
"""Which option sets a field of the scanner, its language model or its agent."""


class AgentKind(StrEnum):
    """Who proposes triggers to `cowbird fit-scanner`."""

    embedded = "embedded"
    openai = "openai"


@take_read_options
def fit_scanner(
    catalog: CatalogArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the scanner, new or empty.")],
    text_column: TextColumnOption = "title",
    llm: Annotated[
        str | None,
        typer.Option(help="What reads titles: an embedded model, a folder, a GGUF file, or one downloaded from a hub."),
    ] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Layers of it kept; 4 by default.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of new triggers at most; 3 by default.")] = None,
    fpr: Annotated[float, typer.Option(help="Share of clean titles that may be flagged.")] = 0.01,
    agent: Annotated[
        AgentKind, typer.Option(help="Who writes triggers; openai is any compatible server.")
    ] = AgentKind.embedded,
    agent_model: Annotated[str | None, typer.Option(help="The language model that writes them.")] = None,
    agent_url: AgentUrlOption = None,
    agent_key_env: AgentKeyEnvOption = None,
    agent_log: AgentLogOption = False,
    seed: Annotated[int, typer.Option(min=0, help="Decides all that is random.")] = 0,
    device: DeviceOption = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted fit (DIR.partial).")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fit a scanner for planted triggers to a catalogue's titles, poisoned or not.

    Exit codes: 0 made, 2 error, 3 interrupted, or made although some rows could not be read.
    """
    from pydantic import ValidationError  # noqa: PLC0415

    from cowbird.defenses.p_scanner.triggers.agent_server import set_agent_environment  # noqa: PLC0415
    from cowbird.experiments.field_errors import explain_errors  # noqa: PLC0415
    from cowbird.scanning import commands  # noqa: PLC0415
    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415

    place = pick_device(device)
    try:
        spec = commands.make_spec(llm, layers, rounds, fpr, agent, agent_model, agent_url, device, agent_key_env)
    except ValidationError as error:
        raise UserError(
            f"These options can't be used: {explain_errors(error, FIELD_OPTIONS)}", "See cowbird fit-scanner --help."
        ) from None
    with set_agent_environment(agent_url, agent_key_env, agent_log):
        made = fit_and_show(
            catalog, out, spec, text_column, seed, resume, place, "--resume", as_json=as_json, quiet=quiet
        )
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
    as_json: bool = False,
    quiet: bool = False,
) -> "FitResult":
    """Fit a scanner, show how it goes and what came of it; `more` is added to the command that goes on."""
    from cowbird.scanning import commands  # noqa: PLC0415
    from cowbird.victims.fit_context import FitContext  # noqa: PLC0415

    with make_progress(quiet=quiet) as shown:
        task = shown.add_task("starting")

        def show_step(done: int, total: int, phase: str, note: str = "") -> None:
            """A remark says the phase first; what follows it, such as the loss, changes with each step."""
            shown.update(task, phase=phase, done=done, total=total, note=note)

        work = FitContext(
            place,
            report=lambda done, total, remark: show_step(done, total, *remark.split(", ", 1)),
            warn=shown.warn,
        )
        try:
            made = commands.fit_scanner(catalog, out, spec, text_column, seed, resume, work)
        except KeyboardInterrupt:
            shown.stop()
            exit_resumable("Interrupted.", *more)
    if as_json:
        print_json(_make_record(made, out))
    elif not quiet:
        out_console.print(commands.format_fit(made))
        out_console.print(Text("Scanner: ") + sanitize_text(str(out), 300))
    return made


def _make_record(made: "FitResult", out: Path) -> dict[str, Any]:
    """Return what a fit came to, as plain JSON values."""
    from cowbird.scanning.scan import shorten_score  # noqa: PLC0415

    held, fpr = made.record.calibration, made.record.fpr
    return {
        "scanner": str(out),
        "finished_before": made.before,
        "rounds": len(made.record.rounds),
        "fpr": fpr,
        "threshold": shorten_score(held.threshold(fpr)),
        "promised_fpr": held.promise_rate(fpr),
        "calibration_titles": held.titles,
        "unread": [{"reason": each.reason, "count": each.count, "rows": list(each.rows)} for each in made.unread],
    }
