"""`cowbird run`: an experiment, its progress, and what came of it."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cowbird.cli.engine import open_engine, uses_gpu
from cowbird.cli.options import (
    AgentKeyEnvOption,
    AgentLogOption,
    AgentUrlOption,
    AllowPluginsOption,
    DeviceOption,
    EngineChoice,
    EngineOption,
    JobsOption,
    JsonOption,
    OutOption,
    ProfileOption,
    QuietOption,
    RayAddressOption,
    SpecArgument,
    TrackChoice,
)
from cowbird.cli.progress import make_progress
from cowbird.cli.terminal import err_console, out_console, print_json, sanitize_line
from cowbird.errors import ExitCode, UserError
from cowbird.outputs import check_outputs
from cowbird.report.terminal import sanitize_text
from cowbird.text import count_things

if TYPE_CHECKING:
    from cowbird.experiments.run import RunOutcome
    from cowbird.experiments.spec import Spec
    from cowbird.notices import Notice
    from cowbird.ray_cluster import RayCluster

RUN_EXAMPLES = (
    "cowbird run demo --out runs/demo",
    "cowbird run spec.toml --out runs/mine --seeds 0,1,2",
    "cowbird run badrec --quick --out runs/quick",
    "cowbird run badrec --out runs/badrec --only 'tallrec-*' --dry-run",
    "cowbird run badrec --out runs/badrec --cell 3",
)


def run(
    spec: SpecArgument,
    out: OutOption,
    seeds: Annotated[str | None, typer.Option(help="Seeds instead of the spec's, such as 0,1,2.")] = None,
    device: DeviceOption = "auto",
    jobs: JobsOption = 1,
    engine: EngineOption = EngineChoice.LOCAL,
    ray_address: RayAddressOption = None,
    track: Annotated[
        TrackChoice | None,
        typer.Option(help="Also tell each finished cell to a store: MLFLOW_TRACKING_URI, or mlruns in --out."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    only: Annotated[
        str,
        typer.Option("--only", metavar="GLOB", help="Run these cells alone, by name: VICTIM-SEED, such as 'sasrec-*'."),
    ] = "",
    cell: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Run this cell alone, by its number in --dry-run; others may run too."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would run, what is kept, and about how long it takes.")
    ] = False,
    profile: ProfileOption = "",
    quick: Annotated[bool, typer.Option("--quick", help="The same as --profile quick.")] = False,
    agent_url: AgentUrlOption = None,
    agent_key_env: AgentKeyEnvOption = None,
    agent_log: AgentLogOption = False,
    allow_plugins: AllowPluginsOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run an experiment and write its results.

    Exit codes: 0 done, 2 error, 3 interrupted (Ctrl-C, SIGTERM, SIGHUP), or not everything could be measured.
    """
    if quick and profile not in ("", "quick"):
        raise UserError("--quick is itself a profile.", f"Leave out --quick or --profile {profile}.")
    profile = "quick" if quick else profile
    chosen = ["--profile", profile] if profile else []
    again = ["cowbird", "run", spec, "--out", str(out), *chosen, *format_options(seeds, device, jobs), "--resume"]
    again += ["--only", only] if only else []
    alone = [] if cell is None else ["--cell", str(cell)]
    # The command that is kept names no server: an address may hold a password.
    command = shlex.join([word for word in again if word != "--resume"])
    again += ["--engine", "ray"] if engine == EngineChoice.RAY else []
    again += [] if track is None else ["--track", track.value]
    again += alone + format_agent_options(agent_url, agent_key_env, agent_log)
    again += ["--allow-plugins"] * allow_plugins + ["--json"] * as_json + ["--quiet"] * quiet
    read = read_spec(spec, seeds, profile, allow_plugins)
    written = [out / name for name in ("results.jsonl", "spec.json", "run.json", "notices.json")]
    check_outputs({"--out": written}, {"SPEC": spec, "the dataset": list_dataset_paths(read)})
    if dry_run:
        show_plan(read, out, only, as_json, cell)
        return
    from cowbird.defenses.p_scanner.triggers.agent_server import set_agent_environment  # noqa: PLC0415

    with (
        set_agent_environment(agent_url, agent_key_env, agent_log),
        open_engine(engine, ray_address, jobs, on_gpu=engine == EngineChoice.RAY and uses_gpu(device)) as cluster,
    ):
        run_and_show(
            read, out, device, jobs, resume, shlex.join(again),
            as_json=as_json, quiet=quiet, command=command, only=only, cell=cell, cluster=cluster,
            track="" if track is None else track.value,
        )  # fmt: skip


def format_agent_options(url: str | None, key_env: str | None, log: bool) -> list[str]:
    """Return the options that say where an agent is asked, as they are typed."""
    given = [] if url is None else ["--agent-url", url]
    given += [] if key_env is None else ["--agent-key-env", key_env]
    return given + ["--agent-log"] * log


def format_options(seeds: str | None, device: str, jobs: int) -> list[str]:
    """Return the options that were given, as they are typed."""
    given = [] if seeds is None else ["--seeds", seeds]
    given += [] if device == "auto" else ["--device", device]
    return given + ([] if jobs == 1 else ["--jobs", str(jobs)])


def _parse_seeds(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--seeds must be whole numbers, got '{text}'.", "Write them as 0,1,2.") from None


def read_spec(name: str | Path, seeds: str | None, profile: str = "", allow_plugins: bool = False) -> "Spec":
    """Read a spec, a file or a shipped one, as the options of the command line say."""
    # Imported here so that `cowbird --help` does not wait for torch.
    from cowbird.experiments.reference.shipped_specs import find_spec  # noqa: PLC0415
    from cowbird.experiments.spec import load_spec  # noqa: PLC0415

    return load_spec(find_spec(str(name)), _parse_seeds(seeds), profile, allow_plugins)


def list_dataset_paths(spec: "Spec") -> list[Path]:
    """Return the files and folders that a spec's dataset names."""
    return [value for _, value in spec.dataset.options if isinstance(value, Path) and value.exists()]


def run_and_show(
    spec: "Spec",
    out: Path,
    device: str,
    jobs: int,
    resume: bool,
    again: str,
    *,
    as_json: bool = False,
    quiet: bool = False,
    command: str = "",
    only: str = "",
    cell: int | None = None,
    cluster: "RayCluster | None" = None,
    track: str = "",
) -> None:
    """Run an experiment, show how it goes and what came of it.

    Args:
        spec: The experiment.
        out: Its folder.
        device: As `cowbird run` has it.
        jobs: Cells that run at once.
        resume: Whether the folder may hold a part of this run.
        again: The command that goes on.
        as_json: Whether JSON is printed instead of tables.
        quiet: Whether only warnings and errors are shown.
        command: The command that is kept beside the results; empty if there is none.
        only: Which cells are run; empty stands for all.
        cell: The number of the one cell that is run; `None` for no matter which.
        cluster: A Ray cluster whose workers run the cells; `None` for this machine alone.
        track: Where finished cells are tracked; empty for nowhere.
    """
    from cowbird.experiments.cell import list_cells  # noqa: PLC0415
    from cowbird.experiments.plan import select_cells  # noqa: PLC0415
    from cowbird.experiments.run import run as run_experiment  # noqa: PLC0415

    select_cells(list_cells(spec, out), only, cell)  # before anything is shown
    if not as_json and not quiet:
        title = sanitize_text(f"{spec.name}: {spec.description}" if spec.description else spec.name, 300)
        title.stylize("bold")
        out_console.print(title)
    with make_progress(left=True, quiet=quiet) as shown:
        whole = shown.add_task("cells (victim × seed)")
        fit = shown.add_task("starting")
        try:
            outcome = run_experiment(
                spec,
                out,
                device=device,
                jobs=jobs,
                resume=resume,
                command=command,
                only=only,
                number=cell,
                cluster=cluster,
                track=track,
                progress=lambda what, done, total, remark: shown.update(
                    fit, phase=what, done=done, total=total, note=remark
                ),
                cell_done=lambda done, total: shown.update(whole, done=done, total=total),
            )
        except KeyboardInterrupt:
            shown.stop()
            said = f"Interrupted; what is done is kept. Go on with: {again}"
            err_console.print(sanitize_line(said), soft_wrap=True)
            raise typer.Exit(ExitCode.INCOMPLETE) from None
        shown.remove_task(fit)
    _show_notices(outcome, as_json, quiet)
    for skip in outcome.dataset.skips if outcome.dataset else ():
        err_console.print(Text("skipped  ", style="yellow") + sanitize_text(str(skip), 160))
    for warning in outcome.warnings:
        err_console.print(Text("warning  ", style="yellow") + sanitize_text(warning, 300))
    for error in outcome.errors:
        err_console.print(Text("error    ", style="red") + sanitize_text(error, 300))
    _show_outcome(spec, out, outcome, as_json, quiet)
    if outcome.errors or outcome.done < outcome.total:
        raise typer.Exit(ExitCode.INCOMPLETE)


def show_plan(spec: "Spec", out: Path, only: str, as_json: bool, cell: int | None = None) -> None:
    """Show what a run would do; nothing is written."""
    from cowbird.experiments.plan import plan_run  # noqa: PLC0415
    from cowbird.report.plan import describe_plan, make_plan_table  # noqa: PLC0415

    plan = plan_run(spec, out, only, cell)
    if as_json:
        print_json([asdict(cell) for cell in plan])
        return
    out_console.print(make_plan_table(plan))
    out_console.print(Text(describe_plan(plan)), soft_wrap=True)


def _show_notices(outcome: "RunOutcome", as_json: bool, quiet: bool) -> None:
    """Show what was done otherwise than a reader may think, at the head of the summary.

    With --quiet only what changes results and is no choice is told, beside warnings; JSON has all of it.
    """
    from cowbird.notices import NoticeRank  # noqa: PLC0415

    for notice in outcome.notices if not as_json else ():
        if not quiet:
            out_console.print(format_notice(notice), soft_wrap=True)
        elif notice.rank != NoticeRank.CHOICE:
            err_console.print(format_notice(notice), soft_wrap=True)


def format_notice(notice: "Notice") -> Text:
    """Return a notice as it is shown."""
    return Text("note     ", style="cyan") + sanitize_line(str(notice))


def _show_outcome(spec: "Spec", out: Path, outcome: "RunOutcome", as_json: bool, quiet: bool) -> None:
    """Show what came of a run: tables, or where the results are as JSON."""
    from cowbird.report.table import make_planting_table, summarize_run  # noqa: PLC0415

    file = out / "results.jsonl"
    if as_json:
        print_json(
            {
                "name": spec.name,
                "results": str(file),
                "rows": len(outcome.rows),
                "cells": {"done": outcome.done, "all": outcome.total, "left": outcome.left},
                "errors": outcome.errors,
                "warnings": outcome.warnings,
                "notices": [str(notice) for notice in outcome.notices],
            }
        )
        return
    if quiet:
        return
    if outcome.planted:
        out_console.print(make_planting_table(outcome.planted))
    out_console.print(summarize_run(outcome.rows, 10 if 10 in spec.ks else spec.ks[0]))
    if outcome.written:
        out_console.print(Text("Results: ") + sanitize_line(f"{file} ({len(outcome.rows)} rows)"))
    if outcome.left:
        some = f"{count_things(outcome.left, 'cell')} {'is' if outcome.left == 1 else 'are'}"
        out_console.print(Text(f"Of the whole spec {some} not done."))
