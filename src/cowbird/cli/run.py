"""`cowbird run`: an experiment, its progress, and what came of it."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cowbird.cli.options import DeviceOption, JobsOption, OutOption
from cowbird.cli.terminal import MAX_LINE, err_console, make_progress, out_console
from cowbird.errors import ExitCode, UserError
from cowbird.report.terminal import sanitize_text

if TYPE_CHECKING:
    from cowbird.experiments.spec import Spec


def run(
    spec: Annotated[Path, typer.Argument(help="The experiment, a TOML file.")],
    out: OutOption,
    seeds: Annotated[str | None, typer.Option(help="Seeds instead of the spec's, such as 0,1,2.")] = None,
    device: DeviceOption = "auto",
    jobs: JobsOption = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    profile: Annotated[str, typer.Option(help="A profile of the spec, such as another dataset.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="The same as --profile quick.")] = False,
) -> None:
    """Run an experiment and write its results."""
    if quick and profile not in ("", "quick"):
        raise UserError("--quick is itself a profile.", f"Leave out --quick or --profile {profile}.")
    profile = "quick" if quick else profile
    chosen = ["--profile", profile] if profile else []
    again = ["cowbird", "run", str(spec), "--out", str(out), *chosen, *format_options(seeds, device, jobs), "--resume"]
    run_and_show(read_spec(spec, seeds, profile), out, device, jobs, resume, shlex.join(again))


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


def read_spec(path: Path, seeds: str | None, profile: str = "") -> "Spec":
    """Read a spec as the options of the command line say."""
    # Imported here so that `cowbird --help` does not wait for torch.
    from cowbird.experiments.spec import load_spec  # noqa: PLC0415

    return load_spec(path, _parse_seeds(seeds), profile)


def run_and_show(spec: "Spec", out: Path, device: str, jobs: int, resume: bool, again: str) -> None:
    """Run an experiment, show how it goes and what came of it; `again` is the command that goes on."""
    from cowbird.experiments.run import run as run_experiment  # noqa: PLC0415
    from cowbird.report.table import make_planting_table, summarize_run  # noqa: PLC0415

    title = sanitize_text(f"{spec.name}: {spec.description}" if spec.description else spec.name, 300)
    title.stylize("bold")
    out_console.print(title)
    with make_progress(left=True, remark=True) as shown:
        whole = shown.add_task("cells (victim × seed)", total=None, remark="")
        fit = shown.add_task("starting", total=None, remark="")
        try:
            outcome = run_experiment(
                spec,
                out,
                device=device,
                jobs=jobs,
                resume=resume,
                progress=lambda what, done, total, remark: shown.update(
                    fit, description=what, completed=done, total=total, remark=remark
                ),
                cell_done=lambda done, total: shown.update(whole, completed=done, total=total),
            )
        except KeyboardInterrupt:
            shown.stop()
            said = f"Interrupted; what is done is kept. Go on with: {again}"
            err_console.print(sanitize_text(said, MAX_LINE), soft_wrap=True)
            raise typer.Exit(ExitCode.INCOMPLETE) from None
        shown.remove_task(fit)
    for skip in outcome.dataset.skips if outcome.dataset else ():
        err_console.print(Text("skipped  ", style="yellow") + sanitize_text(str(skip), 160))
    for warning in outcome.warnings:
        err_console.print(Text("warning  ", style="yellow") + sanitize_text(warning, 300))
    for error in outcome.errors:
        err_console.print(Text("error    ", style="red") + sanitize_text(error, 300))
    if outcome.planted:
        out_console.print(make_planting_table(outcome.planted))
    out_console.print(summarize_run(outcome.rows, 10 if 10 in spec.ks else spec.ks[0]))
    out_console.print(sanitize_text(f"Results: {out / 'results.jsonl'} ({len(outcome.rows)} rows)", 300))
    if outcome.errors or outcome.done < outcome.total:
        raise typer.Exit(ExitCode.INCOMPLETE)
