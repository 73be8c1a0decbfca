"""Run an experiment: every cell of the grid, here or in workers, resumable, results always whole.

One process at a time writes the folder (`cowbird.locks`). It is bound to one spec, which may grow
(`cowbird.experiments.growth`). `results.jsonl` is made from the evidence of the finished cells, after each of them and
at the end, so an interrupted run leaves true results of what is done, and the finished file is the same however often
it was interrupted. What could not be measured for a passing fault, such as a full disk, leaves its cell undone; the run
goes on with the others, and `resume` tries it again.
"""

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from cowbird import __version__
from cowbird.data.types import Dataset
from cowbird.defenses.p_scanner.triggers.agent_server import keep_logs_in
from cowbird.errors import OutageError
from cowbird.experiments.cell import list_cells
from cowbird.experiments.cell_files import PlantedSummary
from cowbird.experiments.executor import Executor, ignore_progress
from cowbird.experiments.growth import bind_folder, check_free
from cowbird.experiments.plan import select_cells
from cowbird.experiments.results import Row
from cowbird.experiments.results_file import ResultsFile
from cowbird.experiments.spec import Spec
from cowbird.experiments.store import ProgressReport
from cowbird.faults import explain_write_errors
from cowbird.files import read_plain_text, sweep_partials, write_text
from cowbird.locks import lock_folder
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
    progress: ProgressReport = ignore_progress,
    cell_done: Callable[[int, int], None] | None = None,
) -> RunOutcome:
    """Run every cell that is not done yet and write `results.jsonl`.

    Args:
        spec: The experiment.
        out: Its folder.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; with several jobs and `auto` or `cuda`, the GPUs are taken in turn.
        resume: Whether `out` may hold a part of this run, or the run of a spec that this one has grown from.
        jobs: Cells that run at once: in processes on a CPU, in threads on GPUs.
        command: The command that started it, which is kept in `run.json` for reports.
        only: Which cells are run, as `plan.select_cells` has it; empty stands for all.
        progress: Told of each fit (of one job; several stay silent).
        cell_done: Told after each cell.

    Raises:
        UserError: If the folder, the data or the device can't be used, or another process writes the folder.
        KeyboardInterrupt: Passed on; what is done is kept.
    """
    picked = pick_device(device)
    check_free(out)
    select_cells(list_cells(spec, out), only)
    warnings: list[str] = []
    with explain_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    hint = "Wait until it ends, or end it; then go on with --resume. Or choose another folder with --out."
    with lock_folder(out, "run", hint, warnings.append) as lock:
        bind_folder(spec, out, resume)
        sweep_partials(out, deep=True)
        with keep_logs_in(out):
            told = cell_done or _ignore_cells
            return _run_locked(spec, out, device, picked, jobs, command, only, progress, told, warnings, lock)


def _run_locked(
    spec: Spec,
    out: Path,
    device: str,
    picked: torch.device,
    jobs: int,
    command: str,
    only: str,
    progress: ProgressReport,
    told: Callable[[int, int], None],
    warnings: list[str],
    lock: int,
) -> RunOutcome:
    """Run in a folder that is locked and bound to the spec."""
    cells = select_cells(list_cells(spec, out), only)
    waiting = [cell for cell in cells if not cell.done]
    total = len(cells)
    told(total - len(waiting), total)
    data = _load_data(spec, out, device, picked) if waiting else None
    results_file = ResultsFile(spec, out)
    results_file.update()  # a damaged cell is told before hours are spent on others
    failed: list[str] = []
    try:
        if data is not None:
            every_gpu = picked.type == "cuda" and device in ("auto", "cuda")
            work = Executor(spec, out, waiting, data, picked, every_gpu, jobs, progress, warnings, failed, lock)
            for count, _ in enumerate(work.run(), total - len(waiting) + 1):
                _write_results(results_file, False, [])
                told(count, total)
    finally:
        _, rows = _write_results(results_file, True, failed)
    done = sum(cell.done for cell in cells)
    circumstances = {"command": command} if command else dict[str, object]()
    circumstances |= _describe_machine(picked, jobs)
    circumstances["skipped"] = _read_skipped(out) if data is None else [str(skip) for skip in data.skips]
    notices = collect_run_notices(spec, out)
    circumstances["warnings"] = warnings
    circumstances["notices"] = [str(notice) for notice in notices]
    try:
        write_text(out / "run.json", json.dumps(circumstances, indent=1))
    except OutageError as error:
        failed.append(str(error))
    errors = results_file.list_errors() + failed
    return RunOutcome(rows, data, done, total, results_file.collect_planted(), errors, warnings, notices)


def _load_data(spec: Spec, out: Path, device: str, picked: torch.device) -> Dataset:
    """Load the data of a run, and tell what of it, of the spec and of the machine nobody chose."""
    with collect_notices(out / NOTICES_FILE):
        note_defaults(spec)
        if device == "auto":
            note(NoticeRank.CHOICE, f"Models run on {picked.type}, as --device auto has it here.")
        with guard_plugins():
            return spec.dataset.options.load()


def note_defaults(spec: Spec) -> None:
    """Tell what of a spec was left to its defaults."""
    left: dict[str, list[str]] = {}
    for key in DEFAULT_KEYS:
        if key not in spec.model_fields_set:
            left[key] = [str(part) if isinstance(part, int) else part.title() for part in getattr(spec, key)]
    if left:
        words = "; ".join(f"{key} = {', '.join(titles)}" for key, titles in left.items())
        note(NoticeRank.CHOICE, f"The spec leaves these to their defaults: {words}.")


def collect_run_notices(spec: Spec, out: Path) -> list[Notice]:
    """Return what a run and its cells did otherwise than a reader may think, those that matter most first."""
    folders = [out, *(cell.folder for cell in list_cells(spec, out))]
    return merge_notices(read_notices(folder / NOTICES_FILE) for folder in folders)


def _write_results(results_file: ResultsFile, pooled: bool, failed: list[str]) -> tuple[int, list[Row]]:
    """Write the rows of the cells that are finished; return how many are, and the rows.

    A disk that does not take them costs no cell: the rows are made of kept evidence, and made again by `resume`.
    """
    done = results_file.update()
    try:
        return done, results_file.write(pooled)
    except OutageError as error:
        failed.append(f"{error} Run again with --resume; the rows are then made of what is kept.")
        return done, results_file.make_rows(pooled)


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
