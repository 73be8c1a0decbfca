"""Run an experiment: every cell of the grid, here or in workers, resumable, results always whole.

Several processes may run cells of one folder (`cowbird.experiments.run_folder`). It is bound to one spec, which may
grow (`cowbird.experiments.growth`). `results.jsonl` is made from the evidence of the finished cells, now and then and
at the end, so an interrupted run leaves true results of what is done, and the finished file is the same however often
it was interrupted, and whoever ran which cell. What could not be measured for a passing fault, such as a full disk,
leaves its cell undone; the run goes on with the others, and `resume` tries it again.
"""

import json
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from cowbird import __version__
from cowbird.data.types import Dataset
from cowbird.defenses.p_scanner.triggers.agent_server import keep_logs_in
from cowbird.errors import UserError
from cowbird.experiments.cell import Cell, list_cells
from cowbird.experiments.cell_files import PlantedSummary
from cowbird.experiments.executor import Executor, ignore_progress
from cowbird.experiments.growth import check_free
from cowbird.experiments.plan import select_cells
from cowbird.experiments.results import Row
from cowbird.experiments.results_file import ResultsFile
from cowbird.experiments.run_folder import RunFolder
from cowbird.experiments.spec import Spec
from cowbird.experiments.store import ProgressReport
from cowbird.experiments.tracking import CellTracker, MlflowStore, check_tracker
from cowbird.faults import explain_write_errors
from cowbird.files import read_plain_text
from cowbird.notices import (
    NOTICES_FILE,
    Notice,
    NoticeRank,
    collect_notices,
    merge_notices,
    note,
    read_notices,
)
from cowbird.plugin_errors import guard_plugins
from cowbird.ray_cluster import RayCluster
from cowbird.victims.fit_context import pick_device


@dataclass
class RunOutcome:
    """What a run came to."""

    rows: list[Row]
    """All measurements."""
    dataset: Dataset | None
    """The data, with what was skipped; `None` if every cell was done before."""
    done: int
    """Finished cells, of those that were to run."""
    total: int
    """Cells that were to run: all, or those that were chosen."""
    planted: dict[str, PlantedSummary] = field(default_factory=dict[str, PlantedSummary])
    """What each attack planted in the first finished cell; other seeds draw other targets."""
    errors: list[str] = field(default_factory=list[str])
    """What could not be measured, and why; what may pass is tried again by `resume`."""
    warnings: list[str] = field(default_factory=list[str])
    """Trouble that was worked around."""
    notices: list[Notice] = field(default_factory=list[Notice])
    """What was done otherwise than a reader may think, in this call and earlier ones; what matters most comes first."""
    left: int = 0
    """Cells of the whole spec that are not done."""
    written: bool = True
    """Whether `results.jsonl` was made anew; one cell alone may leave that to others."""


DEFAULT_KEYS = ("seeds", "defenses", "scenarios")
"""What of a spec is told where it is left to its default."""


def _ignore_cells(done: int, total: int) -> None: ...


def run(
    spec: Spec,
    out: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    jobs: int = 1,
    command: str = "",
    only: str = "",
    number: int | None = None,
    cluster: RayCluster | None = None,
    track: str = "",
    progress: ProgressReport = ignore_progress,
    cell_done: Callable[[int, int], None] | None = None,
) -> RunOutcome:
    """Run every cell that is not done yet and write `results.jsonl`.

    Others may run the same spec in the same folder meanwhile: what they are at work on is waited for, not run again.

    Args:
        spec: The experiment.
        out: Its folder.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; with several jobs and `auto` or `cuda`, the GPUs are taken in turn.
        resume: Whether `out` may hold a part of this run, or the run of a spec that this one has grown from.
        jobs: Cells that run at once: in processes on a CPU, in threads on GPUs.
        command: The command that started it, which is kept in `run.json` for reports.
        only: Which cells are run, as `plan.select_cells` has it; empty stands for all.
        number: The one cell that is run, likewise. The folder may then hold a part of this run.
        cluster: A Ray cluster whose workers run the cells; they see the same folder. `None` for this machine alone.
        track: Where finished cells are tracked, see `tracking.TRACKERS`; empty for nowhere.
        progress: Told of each fit (of one job; several stay silent).
        cell_done: Told after each cell.

    Raises:
        UserError: If the folder, the data or the device can't be used.
        KeyboardInterrupt: Passed on; what is done is kept.
    """
    picked = pick_device(device)
    _check_asked(cluster, picked, track)
    check_free(out)
    cells = list_cells(spec, out)
    chosen = select_cells(cells, only, number)
    warnings: list[str] = []
    with explain_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(spec, out, lambda text: warnings.append(text) if text not in warnings else None)
    folder.bind(resume or number is not None, deep=number is None)
    told, failed = cell_done or _ignore_cells, list[str]()
    waiting = [cell for cell in chosen if not cell.done]
    finished = len(chosen) - len(waiting)
    told(finished, len(chosen))
    data = _load_data(folder, device, picked) if waiting else None
    results_file = ResultsFile(spec, out)
    # A damaged cell is told before hours are spent on others.
    results_file.update(chosen if number is not None else None)
    rows: list[Row] | None = None
    try:
        if data is not None:
            every_gpu = picked.type == "cuda" and device in ("auto", "cuda")
            work = Executor(spec, out, waiting, data, picked, every_gpu, jobs, progress, warnings, failed, cluster)
            for _ in _go_through(work, folder, track):
                finished += 1
                if number is None:
                    folder.write_results(results_file)
                told(finished, len(chosen))
    finally:
        if number is None:
            rows = folder.finish_results(results_file, failed)
    looked_at = cells if waiting or len(chosen) < len(cells) else ()
    undone = {cell.folder for cell in looked_at if not cell.done}
    if rows is None:
        results_file.update(chosen)
        if folder.needs_results(len(undone)):
            rows = folder.finish_results(ResultsFile(spec, out), failed)
    written = rows is not None
    notices = collect_run_notices(out, cells if written else chosen)
    if written:
        circumstances = {"command": command} if command else dict[str, object]()
        circumstances |= _describe_machine(picked, jobs)
        circumstances["skipped"] = _read_skipped(out) if data is None else [str(skip) for skip in data.skips]
        circumstances["warnings"] = warnings
        circumstances["notices"] = [str(notice) for notice in notices]
        folder.write_circumstances(circumstances, failed)
    return RunOutcome(
        rows=rows if rows is not None and number is None else results_file.make_rows(pooled=True),
        dataset=data,
        done=len(chosen) - sum(cell.folder in undone for cell in chosen),
        total=len(chosen),
        planted=results_file.collect_planted(),
        errors=results_file.list_errors() + failed,
        warnings=warnings,
        notices=notices,
        left=len(undone),
        written=written,
    )


def _check_asked(cluster: RayCluster | None, picked: torch.device, track: str) -> None:
    """Check that a run can be made where it was asked for, and told where it was asked for."""
    if cluster is not None and picked.type == "cuda" and (not cluster.gpus or str(picked) != "cuda"):
        raise UserError(
            f"--engine ray gives each cell a share of a GPU, and '{picked}' can't be shared so.",
            "Say --device cuda, without a number, or --device cpu.",
        )
    if track:
        check_tracker(track)


def _go_through(work: Executor, folder: RunFolder, track: str) -> Iterator[Cell]:
    """Yield cells as they are finished or have failed, and have finished ones tracked if that is asked for."""
    tracker = None
    if track:
        tracker = CellTracker(lambda: MlflowStore(folder.spec.name, folder.out / "mlruns"), folder.warn)
    try:
        with keep_logs_in(folder.out):
            for cell in work.run():
                if tracker is not None and cell.done:
                    tracker.add(cell)
                yield cell
    finally:
        if tracker is not None:
            tracker.finish()


def _load_data(folder: RunFolder, device: str, picked: torch.device) -> Dataset:
    """Load the data of a run, and tell what of it, of the spec and of the machine nobody chose."""
    with collect_notices() as told:
        note_defaults(folder.spec)
        if device == "auto":
            note(NoticeRank.CHOICE, f"Models run on {picked.type}, as --device auto has it here.")
        with guard_plugins():
            data = folder.spec.dataset.options.load()
    folder.keep_notices(told.list())
    return data


def note_defaults(spec: Spec) -> None:
    """Tell what of a spec was left to its defaults."""
    left: dict[str, list[str]] = {}
    for key in DEFAULT_KEYS:
        if key not in spec.model_fields_set:
            left[key] = [str(part) if isinstance(part, int) else part.title() for part in getattr(spec, key)]
    if left:
        words = "; ".join(f"{key} = {', '.join(titles)}" for key, titles in left.items())
        note(NoticeRank.CHOICE, f"The spec leaves these to their defaults: {words}.")


def collect_run_notices(out: Path, cells: Iterable[Cell]) -> list[Notice]:
    """Return what a run and some cells did otherwise than a reader may think, those that matter most first."""
    folders = [out, *(cell.folder for cell in cells)]
    return merge_notices(read_notices(folder / NOTICES_FILE) for folder in folders)


def _read_skipped(out: Path) -> list[str] | None:
    """Return what an earlier call that read the data skipped; `None` if that is not on record."""
    try:
        return json.loads(read_plain_text(out / "run.json"))["skipped"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _describe_machine(device: torch.device, jobs: int) -> dict[str, object]:
    """Return what may explain a difference between two machines; nothing in it enters the results."""
    return {
        "cowbird": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "jobs": jobs,
    }
