"""Experiments from Python: a spec by name, file or table; its results as frames."""

import tomllib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl

from cowbird.errors import UserError
from cowbird.experiments.profiles import apply_profile
from cowbird.experiments.results import Row, read_results, write_results
from cowbird.experiments.run import run as run_spec
from cowbird.experiments.spec import Spec, load_spec, parse_spec
from cowbird.experiments.spec_labels import find_shipped_spec

ProgressReporter = Callable[[str, int, int, str], None]
"""Told of progress: what is done, steps done, steps in all, and a short remark."""
RESULTS_FILE = "results.jsonl"
"""The file of a run's folder that holds its rows."""


@dataclass(frozen=True)
class Results:
    """What a run came to."""

    rows: tuple[Row, ...]
    """All measurements, one a row."""
    errors: tuple[str, ...] = ()
    """What could not be measured, and why. Results that were read from a file have none."""
    warnings: tuple[str, ...] = ()
    """Trouble that was worked around, and rows of the data that were left out."""
    complete: bool = True
    """Whether every cell of the grid is done."""
    notices: tuple[str, ...] = ()
    """Fallbacks, defaults and limits that the results rest on, those that matter most first."""

    def to_polars(self) -> pl.DataFrame:
        """Return the rows as a polars frame; a column a field of `Row`."""
        return pl.DataFrame([row.model_dump() for row in self.rows], schema=_SCHEMA)

    def to_pandas(self) -> Any:
        """Return the rows as a pandas frame.

        Raises:
            UserError: If pandas is not installed.
        """
        if find_spec("pandas") is None:
            raise UserError("pandas is not installed.", "Install it with: pip install pandas. Or use to_polars().")
        return self.to_polars().to_pandas()

    def save(self, path: str | Path) -> None:
        """Write the rows as JSON lines; an older file of that name is replaced.

        Raises:
            UserError: If it can't be written.
        """
        try:
            write_results(Path(path), self.rows)
        except OSError as error:
            raise UserError(
                f"'{path}' can't be written: {error.strerror}.", "Name a file in a folder of yours."
            ) from None

    @staticmethod
    def load(path: str | Path) -> "Results":
        """Read the rows of a `results.jsonl`, or of the folder of a run.

        Raises:
            UserError: If there is none, or it is damaged; says where.
        """
        file = Path(path)
        return Results(tuple(read_results(file / RESULTS_FILE if file.is_dir() else file)))


_SCHEMA: dict[str, Any] = dict.fromkeys(Row.model_fields, pl.String) | {
    "k": pl.Int64,
    "seed": pl.Int64,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "n": pl.Int64,
}


@dataclass(frozen=True)
class Experiment:
    """An experiment that can be run: one dataset, and a grid of victims, attacks, defenses, scenarios and seeds."""

    spec: Spec
    """What it says, as typed fields."""

    @staticmethod
    def from_file(
        path: str | Path, *, seeds: Iterable[int] | None = None, profile: str = "", allow_plugins: bool = False
    ) -> "Experiment":
        """Read a TOML file.

        Args:
            path: The file.
            seeds: Seeds instead of the file's.
            profile: Which of the file's profiles is used; empty for none.
            allow_plugins: Whether dotted paths in the file may be imported. That runs their code: say yes only to a
                spec that you trust.

        Raises:
            UserError: If the file can't be read or is no spec; all that is wrong, and where.
        """
        return Experiment(load_spec(Path(path), None if seeds is None else tuple(seeds), profile, allow_plugins))

    @staticmethod
    def from_name(name: str, *, seeds: Iterable[int] | None = None, profile: str = "") -> "Experiment":
        """Take an experiment that ships with Cowbird, such as `demo`.

        Raises:
            UserError: If there is none of that name; the hint lists them.
        """
        path = find_shipped_spec(name)
        if not path.is_file():
            known = sorted(file.stem for file in find_shipped_spec("demo").parent.glob("*.toml"))
            raise UserError(
                f"There is no shipped experiment '{name}'.", f"Known: {', '.join(known)}. Or name a .toml file."
            )
        return Experiment.from_file(path, seeds=seeds, profile=profile)

    @staticmethod
    def from_table(
        table: Mapping[str, Any], *, seeds: Iterable[int] | None = None, profile: str = "", allow_plugins: bool = False
    ) -> "Experiment":
        """Take an experiment as a dict with the keys of a TOML file; see `from_file`."""
        fields = apply_profile(dict(table), profile)
        if seeds is not None:
            fields["seeds"] = list(seeds)
        return Experiment(parse_spec(fields, allow_plugins=allow_plugins))

    @staticmethod
    def from_text(text: str, **options: Any) -> "Experiment":
        """Take an experiment as the text of a TOML file; options as in `from_table`.

        Raises:
            UserError: If the text is not TOML or no spec.
        """
        try:
            return Experiment.from_table(tomllib.loads(text), **options)
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"The text is not TOML: {error}.", "Compare it with a shipped spec.") from None

    def run(
        self,
        out: str | Path,
        *,
        device: str = "auto",
        jobs: int = 1,
        resume: bool = False,
        progress: bool | ProgressReporter = True,
    ) -> Results:
        """Run every cell that is not done yet.

        Args:
            out: Folder of the run, new or empty; it will hold `results.jsonl` and the evidence of each cell.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            jobs: Cells that run at once: in processes on a CPU, in threads that share GPUs.
            resume: Whether `out` may hold a part of this very run, which is then gone on with.
            progress: `True` shows bars on standard error, `False` nothing; or a function that is told of each step.

        Returns:
            The results. Whether all could be measured is told by `errors` and `complete`.

        Raises:
            UserError: If the folder, the data or the device can't be used.
        """
        with _report_progress(progress) as report:
            outcome = run_spec(
                self.spec,
                Path(out),
                device=device,
                jobs=jobs,
                resume=resume,
                progress=report,
                cell_done=lambda done, total: report("cells (victim × seed)", done, total, ""),
            )
        skipped = [str(skip) for skip in outcome.dataset.skips] if outcome.dataset else []
        return Results(
            tuple(outcome.rows),
            tuple(outcome.errors),
            (*skipped, *outcome.warnings),
            outcome.done == outcome.total,
            tuple(map(str, outcome.notices)),
        )


@contextmanager
def _report_progress(progress: bool | ProgressReporter) -> Generator[ProgressReporter]:
    """Give a function to tell of progress: the caller's own, bars, or nothing."""
    if progress is False:
        yield lambda what, done, total, remark: None
        return
    if progress is not True:
        yield progress
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn  # noqa: PLC0415

    with Progress(
        *Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn(), console=Console(stderr=True)
    ) as bars:
        tasks = {"": bars.add_task("starting", total=None)}

        def show(what: str, done: int, total: int, remark: str) -> None:
            kind = "cells" if what.startswith("cells") else ""  # one bar for the whole, one for the fit at work
            if kind not in tasks:
                tasks[kind] = bars.add_task(what, total=None)
            bars.update(tasks[kind], description=escape(f"{what} {remark}".strip()), completed=done, total=total)

        yield show


def run(
    experiment: "str | Path | Mapping[str, Any] | Experiment",
    out: str | Path,
    *,
    seeds: Sequence[int] | None = None,
    profile: str = "",
    device: str = "auto",
    jobs: int = 1,
    resume: bool = False,
    progress: bool | ProgressReporter = True,
    allow_plugins: bool = False,
) -> Results:
    """Run an experiment and return its results.

    Args:
        experiment: The name of a shipped one such as `"demo"`, the path of a TOML file, a dict with its keys, or an
            `Experiment`.
        out: Folder of the run; see `Experiment.run`, also for `device`, `jobs`, `resume` and `progress`.
        seeds: Seeds instead of the spec's.
        profile: A profile of the spec, such as `"quick"`.
        device: Where models run.
        jobs: Cells that run at once.
        resume: Whether to go on with the run in `out`.
        progress: Bars, nothing, or a function of yours.
        allow_plugins: Whether dotted paths in the spec may be imported; see `Experiment.from_file`.

    Raises:
        UserError: If the spec, the folder, the data or the device can't be used.
    """
    if isinstance(experiment, Experiment):
        if seeds is not None or profile or allow_plugins:
            raise UserError(
                "An Experiment has its seeds, profile and plug-ins already.",
                "Pass these to Experiment.from_file, or pass the file to run.",
            )
        made = experiment
    elif isinstance(experiment, Mapping):
        made = Experiment.from_table(experiment, seeds=seeds, profile=profile, allow_plugins=allow_plugins)
    elif isinstance(experiment, str) and not experiment.endswith(".toml") and "/" not in experiment:
        made = Experiment.from_name(experiment, seeds=seeds, profile=profile)
    else:
        made = Experiment.from_file(experiment, seeds=seeds, profile=profile, allow_plugins=allow_plugins)
    return made.run(out, device=device, jobs=jobs, resume=resume, progress=progress)
