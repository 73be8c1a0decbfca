"""The command line: parse, call, exit code; nothing else."""

import importlib.util
import shlex
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cowbird import __version__, plugins
from cowbird.errors import ExitCode, UserError

if TYPE_CHECKING:
    import torch

    from cowbird.defenses.p_scanner.scanner import PoisonScanner
    from cowbird.experiments.spec import Spec
    from cowbird.scanning.commands import Made
    from cowbird.scanning.summary import Summary

app = typer.Typer(
    help="Find backdoors in recommender systems.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
TYPER_INTERRUPTED = 130
"""What typer exits with on Ctrl-C; it lets no KeyboardInterrupt through."""
out_console = Console()
err_console = Console(stderr=True)


class Listed(StrEnum):
    """What `cowbird list` can list."""

    attacks = "attacks"
    defenses = "defenses"
    victims = "victims"
    datasets = "datasets"


def _version(wanted: bool) -> None:
    if wanted:
        out_console.print(f"cowbird {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find backdoors in recommender systems."""


@app.command(name="list")
def list_(kind: Annotated[Listed, typer.Argument(help="What to list.")]) -> None:
    """List attacks, defenses, victims or datasets, a line each."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    singular = kind.value.removesuffix("s")
    for name in plugins.names(singular):
        table.add_row(Text(name, style="bold"), Text(plugins.summary(plugins.find(singular, name))))
    out_console.print(table)


def _seeds(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--seeds must be whole numbers, got '{text}'.", "Write them as 0,1,2.") from None


Out = Annotated[Path, typer.Option("--out", help="Folder of the run; new or empty unless --resume is given.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Jobs = Annotated[
    int,
    typer.Option(
        min=1, help="Cells (victim and seed) run at once: in processes on a CPU, in threads that share the GPUs."
    ),
]


@app.command()
def run(
    spec: Annotated[Path, typer.Argument(help="The experiment, a TOML file.")],
    out: Out,
    seeds: Annotated[str | None, typer.Option(help="Seeds instead of the spec's, such as 0,1,2.")] = None,
    device: Device = "auto",
    jobs: Jobs = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    profile: Annotated[str, typer.Option(help="A profile of the spec, such as another dataset.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="The same as --profile quick.")] = False,
) -> None:
    """Run an experiment and write its results."""
    if quick and profile not in ("", "quick"):
        raise UserError("--quick is itself a profile.", f"Leave out --quick or --profile {profile}.")
    profile = "quick" if quick else profile
    chosen = ["--profile", profile] if profile else []
    again = ["cowbird", "run", str(spec), "--out", str(out), *chosen, *_changed(seeds, device, jobs), "--resume"]
    _run(read_spec(spec, seeds, profile), out, device, jobs, resume, shlex.join(again))


@app.command()
def demo(out: Out = Path("runs/demo"), device: Device = "auto", jobs: Jobs = 1, seeds: str | None = None) -> None:
    """Plant backdoors in recommenders of MovieLens-100K and measure them (a few minutes on two cores).

    Two shipped specs: one against a pre-trained sequential recommender, and one, in a folder beside the first, against
    a small language model that reads titles. Then the titles that the second leaves behind are scanned. A run that was
    interrupted goes on by itself.
    """
    from cowbird.experiments.spec import shipped  # noqa: PLC0415

    again = shlex.join(["cowbird", "demo", "--out", str(out), *_changed(seeds, device, jobs)])
    lacking = _no_language_model()
    parts = {"demo": out} if lacking else {"demo": out, "demo_titles": out.with_name(f"{out.name}-titles")}
    for name, folder in parts.items():
        _run(read_spec(shipped(name), seeds), folder, device, jobs, (folder / "spec.json").exists(), again)
    if lacking:
        out_console.print(Text(f"Left out: the parts that read titles. {lacking}", style="yellow"))
    else:
        _tour(read_spec(shipped("demo_titles"), seeds), out.with_name(f"{out.name}-scan"), device)


def _tour(spec: "Spec", out: Path, device: str) -> None:
    """Scan the catalogue that the demo's seller left behind."""
    from cowbird.experiments import tour  # noqa: PLC0415
    from cowbird.victims.workplace import pick_device  # noqa: PLC0415

    catalog, scanner, findings = out / "catalog.csv", out / "scanner", out / "findings.csv"
    planted = tour.left_behind(spec, catalog)
    out_console.print(Text("A scan of the titles that the seller left behind, by a small scanner", style="bold"))
    _fit_scanner(catalog, scanner, tour.SCANNER, "title", spec.seeds[0], True, pick_device(device))
    _scan(catalog, scanner, findings, pick_device(device))
    out_console.print(Text(tour.tally(findings, planted)))


def _no_language_model() -> str:
    """Return why the embedded language model can't be used; empty if it can."""
    from cowbird.victims.language import assets, llm  # noqa: PLC0415

    missing = [name for name in ("transformers", "peft", "gguf") if importlib.util.find_spec(name) is None]
    if missing:
        return f"It needs {', '.join(missing)}: pip install 'cowbird[llm]'."
    try:
        assets.find("smollm2-135m", llm.cache_folder())
    except UserError as error:
        return f"{error.message} {error.hint}"
    return ""


@app.command()
def stealth(
    trigger: Annotated[
        list[str], typer.Option("--trigger", metavar="KIND", help="Name of a shipped trigger; repeat it for more.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.csv", help="The table; an older one is replaced.")],
    dataset: Annotated[str, typer.Option(help="Whose titles: a dataset that needs no options.")] = "movielens_100k",
    llm: Annotated[
        str, typer.Option(help="Who reads them: an embedded model, a folder, a GGUF file or a hub id.")
    ] = "smollm2-135m",
    titles: Annotated[int | None, typer.Option(min=1, help="Titles drawn; all by default.")] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Layers of the model kept; all by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws titles, places and resamples.")] = 0,
    device: Device = "auto",
) -> None:
    """Measure how visible triggers are in titles: perplexity, edits, hidden characters, similarity."""
    from cowbird.experiments.stealth import catalogue, shipped, stealth_table, to_csv  # noqa: PLC0415
    from cowbird.files import replacing  # noqa: PLC0415
    from cowbird.report.stealth import stealth_summary  # noqa: PLC0415
    from cowbird.report.table import plain  # noqa: PLC0415
    from cowbird.victims.language.llm import Llm  # noqa: PLC0415
    from cowbird.victims.workplace import pick_device  # noqa: PLC0415

    if out.is_dir():
        raise UserError(f"'{out}' is a folder.", "Name a file, such as stealth.csv.")
    triggers, place, items = shipped(trigger), pick_device(device), catalogue(dataset)
    model = Llm(name=llm, layers=layers)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    # The file is opened first: nobody should wait for a table that can't be written.
    with Progress(*columns, TimeRemainingColumn(), console=err_console) as bars, replacing(out) as partial:
        task = bars.add_task("titles as they are", total=len(triggers) + 1)
        rows = stealth_table(
            model, items, triggers, seed, place, titles,
            lambda done, total, remark: bars.update(task, description=remark, completed=done, total=total),
        )  # fmt: skip
        partial.write_text(to_csv(rows), encoding="utf-8")
    out_console.print(stealth_summary(rows))
    notes = (
        "Medians over the titles that a trigger changes. Perplexity: by what factor it grew, a mean over tokens; bits: "
        "surprise added, a sum; hidden: share of titles that gained a control or format character."
    )
    out_console.print(Text(notes, style="dim"))
    out_console.print(Text("Table: ") + plain(str(out), 300))


class Proposer(StrEnum):
    """Who proposes triggers to `cowbird fit-scanner`."""

    embedded = "embedded"
    openai = "openai"


Catalogue = Annotated[Path, typer.Argument(help="CSV, TSV, JSON Lines (each perhaps .gz) or Parquet.")]
TextColumnName = Annotated[str, typer.Option("--text-column", help="The column of titles.")]


@app.command(name="fit-scanner")
def fit_scanner(
    catalog: Catalogue,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the scanner, new or empty.")],
    text_column: TextColumnName = "title",
    llm: Annotated[
        str | None, typer.Option(help="What reads titles: an embedded model, a folder, a GGUF file or a hub id.")
    ] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Layers of it kept; 6 by default.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of new triggers at most; 3 by default.")] = None,
    fpr: Annotated[float, typer.Option(help="Share of clean titles that may be flagged.")] = 0.01,
    agent: Annotated[
        Proposer, typer.Option(help="Who writes triggers; openai is any compatible server, its key OPENAI_API_KEY.")
    ] = Proposer.embedded,
    agent_model: Annotated[str | None, typer.Option(help="The language model that writes them.")] = None,
    agent_url: Annotated[str | None, typer.Option(help="The server, such as http://localhost:8000/v1.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides all that is random.")] = 0,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted fit (DIR.partial).")] = False,
) -> None:
    """Fit a scanner for planted triggers to a catalogue's titles, poisoned or not.

    Exit codes: 0 made, 2 error, 3 interrupted, or made although some rows could not be read.
    """
    from pydantic import ValidationError  # noqa: PLC0415

    from cowbird.experiments.spec import explain  # noqa: PLC0415
    from cowbird.scanning import commands  # noqa: PLC0415
    from cowbird.victims.workplace import pick_device  # noqa: PLC0415

    place = pick_device(device)
    try:
        spec = commands.described(llm, layers, rounds, fpr, agent, agent_model, agent_url, device)
    except ValidationError as error:
        raise UserError(f"These options can't be used: {explain(error)}", "See cowbird fit-scanner --help.") from None
    made = _fit_scanner(catalog, out, spec, text_column, seed, resume, place, "--resume")
    if made.unread:
        raise typer.Exit(ExitCode.INCOMPLETE)


def _fit_scanner(
    catalog: Path,
    out: Path,
    spec: "PoisonScanner",
    text_column: str,
    seed: int,
    resume: bool,
    place: "torch.device",
    *more: str,
) -> "Made":
    """Fit a scanner, show how it goes and what came of it; `more` is added to the command that goes on."""
    from cowbird.report.table import plain  # noqa: PLC0415
    from cowbird.scanning import commands  # noqa: PLC0415
    from cowbird.victims.workplace import Workplace  # noqa: PLC0415

    with _bars() as bars:
        task = bars.add_task("starting", total=None)
        work = Workplace(
            place,
            report=lambda done, total, remark: bars.update(task, description=remark, completed=done, total=total),
            warn=lambda text: bars.console.print(Text("warning  ", style="yellow") + plain(text, 300)),
        )
        try:
            made = commands.fit_scanner(catalog, out, spec, text_column, seed, resume, work)
        except KeyboardInterrupt:
            bars.stop()
            _go_on("Interrupted.", *more)
    out_console.print(commands.told(made))
    out_console.print(Text("Scanner: ") + plain(str(out), 300))
    return made


@app.command()
def scan(
    catalog: Catalogue,
    scanner: Annotated[Path, typer.Option(metavar="DIR", help="What cowbird fit-scanner made.")],
    out: Annotated[
        Path, typer.Option(metavar="FINDINGS", help="A .csv, .jsonl or .parquet; an older one is replaced.")
    ],
    fpr: Annotated[
        float | None, typer.Option(help="Share of clean titles that may be flagged; the scanner's own by default.")
    ] = None,
    text_column: TextColumnName = "title",
    id_column: Annotated[str | None, typer.Option(help="The column of ids; id or item_id by default.")] = None,
    only_flagged: Annotated[bool, typer.Option("--only-flagged", help="Write flagged rows alone.")] = False,
    chunk: Annotated[int, typer.Option(min=1, help="Rows read, and compared with each other, at a time.")] = 8192,
    device: Device = "auto",
) -> None:
    """Scan a catalogue's titles for planted triggers. An interrupted scan goes on by itself.

    Exit codes: 0 nothing flagged, 1 titles flagged, 2 error, 3 interrupted, or nothing flagged and rows not read.
    """
    from cowbird.scanning.summary import exit_code  # noqa: PLC0415
    from cowbird.victims.workplace import pick_device  # noqa: PLC0415

    found = _scan(catalog, scanner, out, pick_device(device), fpr, text_column, id_column, only_flagged, chunk)
    raise typer.Exit(exit_code(found))


def _scan(
    catalog: Path,
    scanner: Path,
    out: Path,
    place: "torch.device",
    fpr: float | None = None,
    text_column: str = "title",
    id_column: str | None = None,
    only_flagged: bool = False,
    chunk: int = 8192,
) -> "Summary":
    """Scan a catalogue, show how it goes and what came of it."""
    from cowbird.defenses.p_scanner.fitted import load_scanner  # noqa: PLC0415
    from cowbird.scanning import commands, summary  # noqa: PLC0415
    from cowbird.scanning.scan import scan_catalog  # noqa: PLC0415

    scorer = commands.AtRate.of(load_scanner(scanner, place), fpr)
    with _bars() as bars:
        task = bars.add_task("rows", total=None)
        try:
            found = scan_catalog(
                catalog, out, scorer, text_column=text_column, id_column=id_column, only_flagged=only_flagged,
                chunk=chunk,
                report=lambda done, total, remark: bars.update(task, description=remark, completed=done, total=total),
            )  # fmt: skip
        except KeyboardInterrupt:
            bars.stop()
            _go_on("Interrupted; what was scanned is kept.")
    out_console.print(summary.render(found))
    out_console.print(commands.rests_on(scorer, chunk))
    return found


def _bars() -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=err_console)


def _go_on(remark: str, *more: str) -> NoReturn:
    """Say with which command work goes on, and end."""
    words = [word for word in sys.argv[1:] if word not in more]
    again = shlex.join(["cowbird", *words, *more])
    err_console.print(Text(f"{remark} Go on with: ").append_text(_plain(again)), soft_wrap=True)
    raise typer.Exit(ExitCode.INCOMPLETE)


def _plain(text: str) -> Text:
    from cowbird.report.table import plain  # noqa: PLC0415

    return plain(text, 2000)


def _changed(seeds: str | None, device: str, jobs: int) -> list[str]:
    """Return the options that were given, as they are typed."""
    given = [] if seeds is None else ["--seeds", seeds]
    given += [] if device == "auto" else ["--device", device]
    return given + ([] if jobs == 1 else ["--jobs", str(jobs)])


def read_spec(path: Path, seeds: str | None, profile: str = "") -> "Spec":
    """Read a spec as the options of the command line say."""
    # Imported here so that `cowbird --help` does not wait for torch.
    from cowbird.experiments.spec import read  # noqa: PLC0415

    return read(path, _seeds(seeds), profile)


def _run(spec: "Spec", out: Path, device: str, jobs: int, resume: bool, again: str) -> None:
    from cowbird.experiments.run import run as run_experiment  # noqa: PLC0415
    from cowbird.report.table import plain, plantings, summary  # noqa: PLC0415

    title = plain(f"{spec.name}: {spec.description}" if spec.description else spec.name, 300)
    title.stylize("bold")
    out_console.print(title)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), TextColumn("{task.fields[remark]}", markup=False), console=err_console
    ) as bars:
        whole = bars.add_task("cells (victim × seed)", total=None, remark="")
        fit = bars.add_task("starting", total=None, remark="")
        try:
            outcome = run_experiment(
                spec,
                out,
                device=device,
                jobs=jobs,
                resume=resume,
                progress=lambda what, done, total, remark: bars.update(
                    fit, description=what, completed=done, total=total, remark=remark
                ),
                cell_done=lambda done, total: bars.update(whole, completed=done, total=total),
            )
        except KeyboardInterrupt:
            bars.stop()
            err_console.print(Text(f"Interrupted; what is done is kept. Go on with: {again}"), soft_wrap=True)
            raise typer.Exit(ExitCode.INCOMPLETE) from None
        bars.remove_task(fit)
    for skip in outcome.dataset.skips if outcome.dataset else ():
        err_console.print(Text("skipped  ", style="yellow") + plain(str(skip), 160))
    for warning in outcome.warnings:
        err_console.print(Text("warning  ", style="yellow") + plain(warning, 300))
    for error in outcome.errors:
        err_console.print(Text("error    ", style="red") + plain(error, 300))
    if outcome.planted:
        out_console.print(plantings(outcome.planted))
    out_console.print(summary(outcome.rows, 10 if 10 in spec.ks else spec.ks[0]))
    out_console.print(Text(f"Results: {out / 'results.jsonl'} ({len(outcome.rows)} rows)"))
    if outcome.errors or outcome.done < outcome.total:
        raise typer.Exit(ExitCode.INCOMPLETE)


def main() -> None:
    """Run the command line; the entry point of the `cowbird` command."""
    try:
        app()
    except UserError as error:
        from cowbird.report.table import plain  # noqa: PLC0415

        # Messages quote specs and data, which may come from anybody.
        err_console.print(Text("Error: ", style="bold red") + plain(error.message, 2000))
        if error.hint:
            err_console.print(plain(error.hint, 2000))
        raise SystemExit(int(ExitCode.ERROR)) from None
    except Exception:  # a bug; Python would end with 1, which scripts take for findings
        for line in traceback.format_exc().splitlines():
            err_console.print(_plain(line), soft_wrap=True)
        raise SystemExit(int(ExitCode.ERROR)) from None
    except SystemExit as end:
        if end.code != TYPER_INTERRUPTED:
            raise
        err_console.print(Text("Interrupted."))
        raise SystemExit(int(ExitCode.INCOMPLETE)) from None
