"""Run an experiment: every cell of the grid, here or in workers, resumable, results always whole.

The folder is bound to one spec, which may grow (`cowbird.experiments.growth`). `results.jsonl` is made from the
evidence of the finished cells, after each of them and at the end, so an interrupted run leaves true results of what is
done, and the finished file is the same however often it was interrupted.
"""

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from cowbird import __version__
from cowbird.data.types import Dataset
from cowbird.experiments.cell import PlantedSummary, list_cells
from cowbird.experiments.executor import Executor, ignore_progress
from cowbird.experiments.growth import bind_folder
from cowbird.experiments.results import Row
from cowbird.experiments.results_file import ResultsFile
from cowbird.experiments.spec import Spec
from cowbird.experiments.store import ProgressReport
from cowbird.files import write_text
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
    """Finished cells."""
    total: int
    """All cells."""
    planted: dict[str, PlantedSummary] = field(default_factory=dict[str, PlantedSummary])
    """What each attack planted in the first finished cell; other seeds draw other targets."""
    errors: list[str] = field(default_factory=list[str])
    """What could not be measured, and why."""
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
        progress: Told of each fit (of one job; several stay silent).
        cell_done: Told after each cell.

    Raises:
        UserError: If the folder, the data or the device can't be used.
        KeyboardInterrupt: Passed on; what is done is kept.
    """
    picked = pick_device(device)
    bind_folder(spec, out, resume)
    waiting = [cell for cell in list_cells(spec, out) if not cell.done]
    total = len(spec.victims) * len(spec.seeds)
    told: Callable[[int, int], None] = cell_done or _ignore_cells
    told(total - len(waiting), total)
    data = _load_data(spec, out, device, picked) if waiting else None
    results_file = ResultsFile(spec, out)
    results_file.update()  # a damaged cell is told before hours are spent on others
    failed: list[str] = []
    warnings: list[str] = []
    try:
        if data is not None:
            every_gpu = picked.type == "cuda" and device in ("auto", "cuda")
            work = Executor(spec, out, waiting, data, picked, every_gpu, jobs, progress, warnings, failed)
            for count, _ in enumerate(work.run(), total - len(waiting) + 1):
                results_file.update()
                results_file.write(pooled=False)
                told(count, total)
    finally:
        done = results_file.update()
        rows = results_file.write(pooled=True)
    circumstances = _describe_machine(picked, jobs)
    circumstances["skipped"] = _read_skipped(out) if data is None else [str(skip) for skip in data.skips]
    notices = collect_run_notices(spec, out)
    circumstances["warnings"] = warnings
    circumstances["notices"] = [str(notice) for notice in notices]
    write_text(out / "run.json", json.dumps(circumstances, indent=1))
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


def _read_skipped(out: Path) -> list[str] | None:
    """Return what an earlier call that read the data skipped; `None` if that is not on record."""
    try:
        return json.loads((out / "run.json").read_text(encoding="utf-8"))["skipped"]
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
