"""Run an experiment: every cell of the grid, here or in worker processes, resumable, results always whole.

The folder is bound to one spec. `results.jsonl` is made from the evidence of the finished cells after each of them, so
an interrupted run leaves true results of what is done, and the finished file is the same however often it was
interrupted.
"""

import json
import os
import platform
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from cowbird import __version__
from cowbird.data.types import Dataset
from cowbird.errors import UserError
from cowbird.experiments import evidence, results
from cowbird.experiments.cell import Cell, Planted, Progress, cells, run_cell
from cowbird.experiments.results import Row, Where
from cowbird.experiments.spec import PLURAL, SINGLE, Spec, parse
from cowbird.files import sha256, write_text
from cowbird.victims.base import pick_device


@dataclass
class Outcome:
    """What a run came to."""

    rows: list[Row]
    """All measurements."""
    dataset: Dataset | None
    """The data, with what was skipped; `None` if every cell was done before."""
    done: int
    """Finished cells."""
    total: int
    """All cells."""
    planted: dict[str, Planted] = field(default_factory=dict[str, Planted])
    """What each attack planted in the first finished cell; other seeds draw other targets."""
    errors: list[str] = field(default_factory=list[str])
    """What could not be measured, and why."""
    warnings: list[str] = field(default_factory=list[str])
    """Trouble that was worked around."""


def nothing(what: str, done: int, total: int, remark: str) -> None:
    """Report no progress."""


def _untold(done: int, total: int) -> None: ...


def prepare(spec: Spec, out: Path, resume: bool) -> None:
    """Bind a folder to a spec.

    Raises:
        UserError: If the folder holds something and `resume` is off, or holds the run of another spec.
    """
    record = out / "spec.json"
    try:
        bound = record.exists()
        taken = not bound and out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise UserError(f"'{out}' can't be used: {error.strerror}.", "Choose another folder with --out.") from None
    if bound:
        try:
            same = json.loads(record.read_text(encoding="utf-8"))["sha256"] == spec.digest()
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"'{record}' is damaged.", "Choose a new folder with --out.") from None
        if not same:
            raise UserError(f"'{out}' holds the run of another spec or other seeds.", "Choose a new folder with --out.")
        if not resume:
            raise UserError(f"'{out}' holds this run already.", "Add --resume to go on, or choose a new folder.")
        return
    if taken:
        raise UserError(f"'{out}' is not an empty folder.", "Choose a new folder with --out.")
    write_text(record, json.dumps({"sha256": spec.digest(), "spec": spec.record()}, indent=1))


def collect(spec: Spec, out: Path) -> tuple[list[Row], list[str], int]:
    """Return the rows, errors and number of the finished cells."""
    finished = [cell for cell in cells(spec, out) if cell.done]
    grouped: dict[tuple[str, str, str, str], dict[int, evidence.Evidence]] = {}
    errors: list[str] = []
    for cell in finished:
        errors += _finished(cell)[0]
        for record in evidence.load(cell.folder / "evidence.safetensors"):
            key = (cell.victim.title(), record.attack, record.defense, record.scenario)
            grouped.setdefault(key, {})[cell.seed] = record
    rows: list[Row] = []
    for (victim, attack, defense, scenario), seeds in grouped.items():
        where = Where(
            experiment=spec.name,
            dataset=spec.dataset.title(),
            victim=victim,
            attack=attack,
            defense=defense,
            scenario=scenario,
            seed=None,
        )
        rows += results.rows_of(where, seeds, spec.ks)
    return results.unique(rows), errors, len(finished)


def planted(spec: Spec, out: Path) -> dict[str, Planted]:
    """Return what each attack planted, from the first finished cell that has it."""
    found: dict[str, Planted] = {}
    for cell in cells(spec, out):
        if cell.done:
            for attack, plan in _finished(cell)[1].items():
                found.setdefault(attack, plan)
    return found


def _finished(cell: Cell) -> tuple[list[str], dict[str, Planted]]:
    """Return the errors and plans of a finished cell, after a look at whether its files are whole."""
    path, held = cell.folder / "cell.json", cell.folder / "evidence.safetensors"
    again = f"Remove '{path}' and resume; the cell is then measured again."
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        errors, seal = [str(error) for error in record["errors"]], str(record["evidence"])
        plans = {str(name): Planted.model_validate(plan) for name, plan in record["plans"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"'{path}' is damaged.", again) from None
    if not held.exists() or sha256(held) != seal:
        raise UserError(f"'{held}' is missing or damaged: its SHA-256 is not the recorded one.", again)
    return errors, plans


def run(
    spec: Spec,
    out: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    jobs: int = 1,
    progress: Progress = nothing,
    cell_done: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Run every cell that is not done yet and write `results.jsonl`.

    Args:
        spec: The experiment.
        out: Its folder.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; with several jobs and `auto` or `cuda`, the GPUs are taken in turn.
        resume: Whether `out` may hold a part of this run.
        jobs: Cells that run at once, each in a process of its own.
        progress: Told of each fit (of one job; several stay silent).
        cell_done: Told after each cell.

    Raises:
        UserError: If the folder, the data or the device can't be used.
        KeyboardInterrupt: Passed on; what is done is kept.
    """
    picked = pick_device(device)
    prepare(spec, out, resume)
    warnings: list[str] = []
    failed: list[str] = []
    waiting = [cell for cell in cells(spec, out) if not cell.done]
    total = len(spec.victims) * len(spec.seeds)
    data = spec.dataset.options.load() if waiting else None
    told: Callable[[int, int], None] = cell_done or _untold
    told(total - len(waiting), total)
    if data is not None and jobs > 1 and len(waiting) > 1:
        finished = _in_processes(spec, out, waiting, picked, device, jobs, warnings, failed)
    elif data is not None:
        finished = _in_turn(waiting, data, picked, progress, warnings, failed)
    else:
        finished = iter(())
    collected: tuple[list[Row], list[str], int] | None = None
    for count, _ in enumerate(finished, total - len(waiting) + 1):
        collected = collect(spec, out)
        results.write(out / "results.jsonl", collected[0])
        told(count, total)
    rows, errors, done = collected or collect(spec, out)
    if collected is None:  # every cell was done before, and the file may be gone
        results.write(out / "results.jsonl", rows)
    write_text(out / "run.json", json.dumps(_circumstances(picked, jobs, data), indent=1))
    return Outcome(rows, data, done, total, planted(spec, out), errors + failed, warnings)


def _in_turn(
    waiting: list[Cell],
    data: Dataset,
    device: torch.device,
    progress: Progress,
    warnings: list[str],
    failed: list[str],
) -> Iterator[Cell]:
    for cell in waiting:
        try:
            run_cell(cell, data, device, progress, warnings.append)
        except RuntimeError as error:
            failed.append(_failure(cell, error))
        yield cell


def _failure(cell: Cell, error: RuntimeError) -> str:
    """Say that a cell stopped on the machine's account (out of memory, a GPU error); the other cells go on."""
    return f"{cell.title} stopped: {str(error).partition(chr(10))[0]}. Run again with --resume."


def _in_processes(
    spec: Spec,
    out: Path,
    waiting: list[Cell],
    picked: torch.device,
    wanted: str,
    jobs: int,
    warnings: list[str],
    failed: list[str],
) -> Iterator[Cell]:
    gpus = torch.cuda.device_count() if picked.type == "cuda" and wanted in ("auto", "cuda") else 0
    threads = max(1, torch.get_num_threads() // jobs)
    record = spec.record()
    # One cell a process: a GPU error cannot reach the next cell, and memory is given back.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = {
            pool.submit(
                _work, record, str(out), number, f"cuda:{number % gpus}" if gpus else str(picked), threads
            ): cell
            for number, cell in ((cells(spec, out).index(cell), cell) for cell in waiting)
        }
        try:
            for future in as_completed(futures):
                try:
                    warnings += future.result()
                except BrokenProcessPool:
                    raise
                except RuntimeError as error:
                    failed.append(_failure(futures[future], error))
                yield futures[future]
        except BrokenProcessPool:
            raise UserError(
                "A worker process died: killed, or out of memory. What is done is kept.",
                "Go on with --resume, perhaps with fewer --jobs.",
            ) from None
        except BaseException:  # an interrupt, here or (GeneratorExit) in the caller, or a worker's error
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _work(record: dict[str, Any], out: str, number: int, device: str, threads: int) -> list[str]:
    """Run one cell in a worker process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(threads)
    spec = parse(unresolved(record))
    warnings: list[str] = []
    cell = cells(spec, Path(out))[number]
    try:
        run_cell(cell, spec.dataset.options.load(), torch.device(device), nothing, warnings.append)
    except KeyboardInterrupt:
        os._exit(1)
    return warnings


def unresolved(record: dict[str, Any]) -> dict[str, Any]:
    """Return a spec's record as the TOML tables it came from (plug-in options beside the name)."""

    def flat(part: dict[str, Any]) -> dict[str, Any]:
        return {"name": part["name"], "label": part["label"], **part["options"]}

    table = dict(record)
    for key in SINGLE:
        table[key] = flat(table[key])
    for key in PLURAL:
        table[key] = [flat(part) for part in table[key]]
    return table


def _circumstances(device: torch.device, jobs: int, data: Dataset | None) -> dict[str, object]:
    """Return what may explain a difference between two machines; nothing in it enters the results."""
    return {
        "cowbird": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "jobs": jobs,
        "skipped": [str(skip) for skip in data.skips] if data else None,
    }
