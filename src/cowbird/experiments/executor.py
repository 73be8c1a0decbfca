"""Ways to go through the cells of a run: one after another, in threads that share GPUs, in processes, or on a cluster.

Small models leave most of a GPU idle: several cells in threads of one process, each on a stream of its own, fill it
better than processes, which take turns. A CPU is filled by one fit a process.

Several runs may share a folder. Whoever runs a cell holds its lock, so nobody else trains anything of it meanwhile; a
cell that another run holds comes last, and is waited for.
"""

import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from cowbird.data.types import Dataset
from cowbird.defenses.p_scanner.triggers.agent_server import keep_logs_in
from cowbird.errors import OutageError
from cowbird.experiments.cell import Cell, CellRunner, list_cells
from cowbird.experiments.spec import LISTED_PARTS, SINGLE_PARTS, Spec, parse_spec
from cowbird.experiments.store import ProgressReport
from cowbird.faults import explain_outage, explain_write_errors
from cowbird.locks import is_folder_locked, try_lock_folder
from cowbird.notices import NOTICES_FILE, collect_notices
from cowbird.plugin_errors import guard_plugins
from cowbird.processes import (
    WorkerStart,
    count_processors,
    end_with_parent,
    interrupt_once,
    interrupt_workers,
)
from cowbird.ray_cluster import RayCluster
from cowbird.victims.fit_context import get_thread_stream

MAX_THREADS_PER_GPU = 16
"""Threads that can share one GPU: each has two of the 32 streams that torch knows of."""
STOPPING_ERRORS = (OutageError, RuntimeError, OSError, MemoryError)
"""What stops one cell on the machine's account; the others go on."""
SECONDS_BETWEEN_LOOKS = 0.5
"""How often a run looks whether the cells that other runs hold are finished or free."""


class CellBusyError(Exception):
    """Another run is at work on a cell."""


def ignore_progress(what: str, done: int, total: int, remark: str) -> None:
    """Report no progress."""


def run_cell(
    cell: Cell, data: Dataset, device: torch.device, progress: ProgressReport, warn: Callable[[str], None]
) -> None:
    """Run one cell and write its evidence; does nothing for a cell that is done.

    Raises:
        CellBusyError: If another run is at work on it.
        PluginError: If a plug-in of somebody else raises what it should not.
    """
    if cell.done:
        return
    with explain_write_errors(cell.folder):
        cell.folder.mkdir(parents=True, exist_ok=True)
    with try_lock_folder(cell.folder, warn) as held:
        if not held:
            raise CellBusyError
        if cell.done:  # another run finished it just now
            return
        with collect_notices(cell.folder / NOTICES_FILE), guard_plugins():
            CellRunner(cell, data, device, progress, warn).run()


@dataclass
class Executor:
    """Cells to go through, and what is heard of them on the way."""

    spec: Spec
    out: Path
    waiting: list[Cell]
    data: Dataset
    device: torch.device
    every_gpu: bool
    """Whether cells may take the machine's GPUs in turn."""
    jobs: int
    progress: ProgressReport = ignore_progress
    warnings: list[str] = field(default_factory=list[str])
    failed: list[str] = field(default_factory=list[str])
    cluster: RayCluster | None = None
    """Where cells run, if not on this machine alone; it has the number of jobs then."""

    def __post_init__(self) -> None:
        if self.cluster is not None:
            self.jobs = self.cluster.workers
            return
        if self.device.type == "cuda":
            most, what = MAX_THREADS_PER_GPU * (torch.cuda.device_count() if self.every_gpu else 1), "GPUs take"
        else:
            most, what = count_processors(), "processors take"
        if self.jobs > most:
            self.warnings.append(f"{self.jobs} jobs were asked for, and {most} run at once: that is what the {what}.")
            self.jobs = most

    def run(self) -> Iterator[Cell]:
        """Yield each cell once it is finished, here or by another run, or has failed."""
        if self.cluster is not None:
            return self._run_on_cluster(self.cluster)
        if self.jobs == 1 or len(self.waiting) == 1:
            return self._run_serially()
        return self._run_threads() if self.device.type == "cuda" else self._run_processes()

    def _run_one(self, cell: Cell, device: torch.device, progress: ProgressReport) -> Cell | None:
        """Run a cell; one that stops on the machine's account (out of memory, a GPU error) leaves the others going.

        Returns:
            The cell; `None` if another run is at work on it.
        """
        try:
            run_cell(cell, self.data, device, progress, self.warnings.append)
        except CellBusyError:
            return None
        except STOPPING_ERRORS as error:
            self.failed.append(_format_failure(cell, error))
        return cell

    def _rest(self, busy: int) -> None:
        """Wait a moment for cells that other runs hold."""
        self.progress(f"waiting for {busy} cells that other runs are at work on", 0, busy, "")
        time.sleep(SECONDS_BETWEEN_LOOKS)

    def _run_serially(self) -> Generator[Cell]:
        left = self.waiting
        while left:
            busy: list[Cell] = []
            for cell in left:
                if self._run_one(cell, self.device, self.progress):
                    yield cell
                else:
                    busy.append(cell)
            if len(busy) == len(left):
                self._rest(len(busy))
            left = busy

    def _run_threads(self) -> Generator[Cell]:
        left = self.waiting
        while left:
            finished = set[Path]()
            for cell in self._run_in_threads(left):
                finished.add(cell.folder)
                yield cell
            left = [cell for cell in left if cell.folder not in finished]
            if left:
                self._rest(len(left))

    def _run_in_threads(self, waiting: list[Cell]) -> Generator[Cell]:
        """Run cells in threads; yield those that no other run is at work on."""
        gpus = min(torch.cuda.device_count(), self.jobs) if self.every_gpu else 1
        devices = [torch.device("cuda", number) for number in range(gpus)] if self.every_gpu else [self.device]
        stop = threading.Event()

        def watch(what: str, done: int, total: int, remark: str) -> None:
            if stop.is_set():
                raise KeyboardInterrupt

        def run_on_gpu(device: torch.device, cell: Cell) -> Cell | None:
            with torch.cuda.device(device), torch.cuda.stream(get_thread_stream(device, "work")):
                return self._run_one(cell, device, watch)

        with ExitStack() as stack:
            # Each GPU has threads of its own: one that went from GPU to GPU would take streams of all of them.
            threads = [min(-(-(self.jobs - number) // gpus), MAX_THREADS_PER_GPU) for number in range(gpus)]
            pools = [stack.enter_context(ThreadPoolExecutor(count)) for count in threads]
            futures = [
                pools[number % gpus].submit(run_on_gpu, devices[number % gpus], cell)
                for number, cell in enumerate(waiting)
            ]
            try:
                for future in as_completed(futures):
                    cell = future.result()
                    if cell is not None:
                        yield cell
            except BaseException:  # an interrupt, here or (GeneratorExit) in the caller, or an error
                stop.set()
                for pool in pools:
                    pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _run_processes(self) -> Generator[Cell]:
        """Run cells in processes, as many as there are jobs; a process that dies leaves the cells beside it undone."""
        left = list(self.waiting)
        while left:
            with ProcessPoolExecutor(
                min(self.jobs, len(left)),
                get_context("spawn"),
                WorkerStart(_init_worker),
                (),
                max_tasks_per_child=1,
            ) as pool:
                try:
                    yield from self._drain(pool, left)
                except BaseException:  # an interrupt, here or (GeneratorExit) in the caller, or a worker's error
                    interrupt_workers(pool)
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise

    def _run_on_cluster(self, cluster: RayCluster) -> Generator[Cell]:
        """Run cells as tasks of a cluster; one whose worker dies is tried again, and goes on from its checkpoints."""
        left, running = list(self.waiting), dict[Any, Cell]()
        threads = max(1, torch.get_num_threads() // self.jobs)
        record, numbers = self.spec.to_record(), {cell: n for n, cell in enumerate(list_cells(self.spec, self.out))}
        try:
            while running or left:
                for cell in list(left):
                    if len(running) == self.jobs:
                        break
                    if cell.done:  # another run finished it
                        left.remove(cell)
                        yield cell
                    elif not is_folder_locked(cell.folder):
                        given = (record, str(self.out.resolve()), numbers[cell], str(self.device), threads)
                        running[cluster.submit(_run_in_task, str(Path.cwd()), *given)] = cell
                        left.remove(cell)
                if left and not running:
                    self._rest(len(left))
                pause = SECONDS_BETWEEN_LOOKS if left and len(running) < self.jobs else None
                for result in cluster.wait(list(running), pause) if running else ():
                    cell = running.pop(result)
                    try:
                        self.warnings += cluster.get(result)
                    except CellBusyError:  # another run was faster, or a dead worker's lock was still held
                        left.append(cell)
                        continue
                    except STOPPING_ERRORS as error:
                        self.failed.append(_format_failure(cell, error))
                    yield cell
        finally:
            cluster.cancel(running)

    def _drain(self, pool: ProcessPoolExecutor, left: list[Cell]) -> Generator[Cell]:
        """Have a pool run cells until none is left, or the pool is broken; each leaves the list as it begins."""
        threads = max(1, torch.get_num_threads() // self.jobs)
        record, numbers = self.spec.to_record(), {cell: n for n, cell in enumerate(list_cells(self.spec, self.out))}
        running: dict[Future[list[str]], Cell] = {}
        broken = False
        while running or (left and not broken):
            for cell in list(left):
                if broken or len(running) == self.jobs:
                    break
                if cell.done:  # another run finished it
                    left.remove(cell)
                    yield cell
                elif not is_folder_locked(cell.folder):
                    given = (record, str(self.out), numbers[cell], str(self.device), threads)
                    try:
                        running[pool.submit(_run_in_worker, *given)] = cell
                        left.remove(cell)
                    except BrokenProcessPool:  # a worker beside it died just now
                        broken = True
            if left and not running and not broken:
                self._rest(len(left))
            pause = SECONDS_BETWEEN_LOOKS if left and len(running) < self.jobs else None
            for future in wait(running, pause, FIRST_COMPLETED).done if running else ():
                cell = running.pop(future)
                try:
                    self.warnings += future.result()
                except CellBusyError:  # another run was faster
                    left.append(cell)
                    continue
                except BrokenProcessPool:
                    broken = True
                    died = RuntimeError("its worker process died, or one beside it: killed, or out of memory")
                    self.failed.append(_format_failure(cell, died))
                except STOPPING_ERRORS as error:
                    self.failed.append(_format_failure(cell, error))
                yield cell


def _format_failure(cell: Cell, error: BaseException) -> str:
    reason = explain_outage(error) or str(error).partition(chr(10))[0].rstrip(".") or type(error).__name__
    return f"{cell.title} stopped: {reason}. Run again with --resume."


def _init_worker() -> None:
    """Tie a worker to its parent: it ends when the parent does."""
    end_with_parent()
    interrupt_once()


def _run_in_task(place: str, *given: Any) -> list[str]:
    """Run one cell in a task of a cluster, in the folder that the run was started in: plug-ins may lie there."""
    with suppress(OSError):
        os.chdir(place)
    return _run_in_worker(*given)


def _run_in_worker(record: dict[str, Any], out: str, number: int, device: str, threads: int) -> list[str]:
    """Run one cell in a worker process."""
    torch.set_num_threads(threads)
    spec = parse_spec(to_tables(record), allow_plugins=True)  # this process' parent has asked
    warnings: list[str] = []
    cell = list_cells(spec, Path(out))[number]
    try:
        with guard_plugins():
            data = spec.dataset.options.load()
        with keep_logs_in(Path(out)):
            run_cell(cell, data, torch.device(device), ignore_progress, warnings.append)
    except KeyboardInterrupt:
        os._exit(1)
    return warnings


def to_tables(record: dict[str, Any]) -> dict[str, Any]:
    """Return a spec's record as the TOML tables it came from (plug-in options beside the name)."""

    def flatten(part: dict[str, Any]) -> dict[str, Any]:
        return {"name": part["name"], "label": part["label"], **part["options"]}

    table = dict(record)
    for key in SINGLE_PARTS:
        table[key] = flatten(table[key])
    for key in LISTED_PARTS:
        table[key] = [flatten(part) for part in table[key]]
    return table
