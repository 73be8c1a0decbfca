"""`cowbird fit-scanner`: the ready scanner, calibrated on a catalogue and perhaps tuned; or the paper's P-Scanner."""

from collections.abc import Mapping
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
    TaggerOption,
    TextColumnOption,
    choose_tagger,
)
from cowbird.cli.progress import make_progress
from cowbird.cli.reading import take_read_options
from cowbird.cli.terminal import exit_resumable, name_command_again, out_console, print_json
from cowbird.errors import ExitCode, UserError
from cowbird.outputs import check_outputs, check_writable
from cowbird.report.terminal import sanitize_text

if TYPE_CHECKING:
    import torch

    from cowbird.defenses.p_scanner.rounds.poison_scanner import PoisonScanner
    from cowbird.scanning.fitting import FitResult


FIT_SCANNER_EXAMPLES = (
    "cowbird fit-scanner items.csv --out scanner",
    "cowbird fit-scanner items.csv --out scanner --tagger small --tune --minutes 10",
    "cowbird fit-scanner items.csv --out scanner --p-scanner --rounds 2",
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


@name_command_again
@take_read_options
def fit_scanner(
    catalog: CatalogArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the scanner, new or empty.")],
    text_column: TextColumnOption = "title",
    fpr: Annotated[float, typer.Option(help="Share of clean titles that may be flagged.")] = 0.01,
    review_fpr: Annotated[
        float | None,
        typer.Option(help="Share of clean titles that may be flagged or put up for review; 0.05 by default."),
    ] = None,
    tagger: TaggerOption = None,
    tune: Annotated[bool, typer.Option("--tune", help="Train the tagger further, on half of the titles.")] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of --tune; 200 (small) or 60 by default.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.0, help="Minutes of --tune at most, for a small tagger.")
    ] = None,
    p_scanner: Annotated[
        bool, typer.Option("--p-scanner", help="Fit the paper's P-Scanner in rounds, to titles poisoned or not.")
    ] = False,
    llm: Annotated[
        str | None,
        typer.Option(help="--p-scanner: what reads titles, an embedded model, a folder, a GGUF file or a hub id."),
    ] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="--p-scanner: layers of it kept; 4 by default.")] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="--p-scanner: rounds of new triggers at most; 3 by default.")
    ] = None,
    agent: Annotated[
        AgentKind, typer.Option(help="--p-scanner: who writes triggers; openai is any compatible server.")
    ] = AgentKind.embedded,
    agent_model: Annotated[str | None, typer.Option(help="--p-scanner: the language model that writes them.")] = None,
    agent_url: AgentUrlOption = None,
    agent_key_env: AgentKeyEnvOption = None,
    agent_log: AgentLogOption = False,
    seed: Annotated[int, typer.Option(min=0, help="Decides all that is random.")] = 0,
    device: DeviceOption = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted fit (DIR.partial).")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a scanner for a catalogue: the ready one, calibrated on its titles, which are taken for clean.

    With --tune its tagger is trained further, on one half of the titles, and calibrated on the other. With --p-scanner
    the paper's P-Scanner is fitted instead, which takes titles that may be poisoned. `cowbird scan --scanner DIR` uses
    either.

    Exit codes: 0 made, 2 error, 3 interrupted, or made although some rows could not be read.
    """
    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415

    unfinished = [out.with_name(f"{out.name}.partial")] if out.name else []
    check_outputs({"--out": [out, *unfinished]}, {"the catalogue": catalog, "--tagger": tagger, "--llm": llm})
    check_writable({}, {"--out": out})
    place = pick_device(device)
    given = {"--llm": llm, "--layers": layers, "--rounds": rounds, "--agent-model": agent_model}
    given |= {"--agent-url": agent_url, "--agent-key-env": agent_key_env, "--agent-log": agent_log or None}
    given |= {"--agent": None if agent is AgentKind.embedded else agent}
    if not p_scanner:
        _refuse_options(given, "--p-scanner", "Add it, or leave {} out.")
        if not tune:
            _refuse_options({"--steps": steps, "--minutes": minutes}, "--tune", "Add it, or leave {} out.")
        tuning = (steps, minutes, seed) if tune else None
        calibrate_and_show(
            catalog, out, place, text_column, fpr, review_fpr, tagger, tuning, resume, as_json=as_json, quiet=quiet
        )
        return
    ready = {"--tagger": tagger, "--tune": tune or None, "--steps": steps, "--minutes": minutes}
    _refuse_options(ready | {"--review-fpr": review_fpr}, "the ready scanner", "Leave {} out, or --p-scanner.")
    _fit_p_scanner(
        catalog, out, text_column, (llm, layers, rounds, fpr, agent, agent_model, agent_url, device, agent_key_env),
        agent_log, seed, resume, place, as_json=as_json, quiet=quiet,
    )  # fmt: skip


def _refuse_options(given: Mapping[str, object], needs: str, hint: str) -> None:
    """Refuse options that say nothing here."""
    for option, value in given.items():
        if value is not None:
            raise UserError(f"{option} is for {needs}.", hint.format(option))


def calibrate_and_show(
    catalog: Path,
    out: Path,
    place: "torch.device",
    text_column: str,
    fpr: float,
    review_fpr: float | None,
    tagger: str | None,
    tuning: tuple[int | None, float | None, int] | None,
    resume: bool,
    *,
    as_json: bool = False,
    quiet: bool = False,
) -> None:
    """Calibrate the ready scanner, tune it if asked, and show how it goes and what came of it."""
    from cowbird.scanning import calibrated_folder, calibrating  # noqa: PLC0415
    from cowbird.victims.fit_context import FitContext  # noqa: PLC0415

    source = choose_tagger("llm" if tagger is None and tuning else tagger, place)
    if source == "cascade" and tuning is not None:
        raise UserError("A cascade is two taggers, and --tune trains one.", "Name it: --tagger small, or --tagger llm.")
    wanted = None if tuning is None else calibrated_folder.TaggerTuning(*tuning)
    with make_progress(quiet=quiet) as shown:
        rows, task = shown.add_task("rows read"), shown.add_task("titles read")

        def show_step(done: int, total: int, remark: str) -> None:
            phase, _, note = remark.partition(", ")
            shown.update(task, phase="titles read" if phase == "titles" else phase, done=done, total=total, note=note)

        try:
            found = calibrated_folder.fit_calibrated(
                catalog, out, FitContext(place, report=show_step, warn=shown.warn), source, fpr, review_fpr,
                text_column, wanted, resume, lambda done, total, _: shown.update(rows, done=done, total=total),
            )  # fmt: skip
        except KeyboardInterrupt:
            shown.stop()
            exit_resumable("Interrupted.", "--resume")
    if as_json:
        more = {"tuned_on": found.tuned_on, "finished_before": found.before}
        print_json(calibrating.describe_calibrated(found.made) | more)
    elif not quiet:
        out_console.print(calibrated_folder.format_calibrated_folder(found))
        out_console.print(Text("Scanner: ") + sanitize_text(str(out), 300))
    if found.made.unread:
        raise typer.Exit(ExitCode.INCOMPLETE)


def _fit_p_scanner(
    catalog: Path,
    out: Path,
    text_column: str,
    options: tuple[Any, ...],
    agent_log: bool,
    seed: int,
    resume: bool,
    place: "torch.device",
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Fit the paper's P-Scanner; `options` are those of `scanning.fitting.make_spec`."""
    from pydantic import ValidationError  # noqa: PLC0415

    from cowbird.defenses.p_scanner.triggers.agent_server import set_agent_environment  # noqa: PLC0415
    from cowbird.experiments.field_errors import explain_errors  # noqa: PLC0415
    from cowbird.scanning import fitting  # noqa: PLC0415

    try:
        spec = fitting.make_spec(*options)
    except ValidationError as error:
        raise UserError(
            f"These options can't be used: {explain_errors(error, FIELD_OPTIONS)}", "See cowbird fit-scanner --help."
        ) from None
    with set_agent_environment(options[6], options[8], agent_log):
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
    from cowbird.scanning import fitting  # noqa: PLC0415
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
            made = fitting.fit_scanner(catalog, out, spec, text_column, seed, resume, work)
        except KeyboardInterrupt:
            shown.stop()
            exit_resumable("Interrupted.", *more)
    if as_json:
        print_json(_make_record(made, out))
    elif not quiet:
        out_console.print(fitting.format_fit(made))
        out_console.print(Text("Scanner: ") + sanitize_text(str(out), 300))
    return made


def _make_record(made: "FitResult", out: Path) -> dict[str, Any]:
    """Return what a fit came to, as plain JSON values."""
    from cowbird.scanning.unread import describe_unread  # noqa: PLC0415
    from cowbird.scanning.verdicts import shorten_score  # noqa: PLC0415

    held, fpr = made.record.calibration, made.record.fpr
    return {
        "scanner": str(out),
        "finished_before": made.before,
        "rounds": len(made.record.rounds),
        "fpr": fpr,
        "threshold": shorten_score(held.threshold(fpr)),
        "promised_fpr": held.promise_rate(fpr),
        "calibration_titles": held.titles,
        "unread": describe_unread(made.unread),
    }
