"""Ways to go through the cells of a run: one after another, in threads that share GPUs, or in processes.

Small models leave most of a GPU idle: several cells in threads of one process, each on a stream of its own, fill it
better than processes, which take turns. A CPU is filled by one fit a process.
"""

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from cowbird.data.types import Dataset
from cowbird.errors import UserError
from cowbird.experiments.cell import Cell, CellRunner, list_cells
from cowbird.experiments.spec import LISTED_PARTS, SINGLE_PARTS, Spec, parse_spec
from cowbird.experiments.store import ProgressReport
from cowbird.notices import NOTICES_FILE, collect_notices
from cowbird.plugin_errors import guard_plugins
from cowbird.victims.fit_context import get_thread_stream

MAX_THREADS_PER_GPU = 16
"""Threads that can share one GPU: each has two of the 32 streams that torch knows of."""


def ignore_progress(what: str, done: int, total: int, remark: str) -> None:
    """Report no progress."""


def run_cell(
    cell: Cell, data: Dataset, device: torch.device, progress: ProgressReport, warn: Callable[[str], None]
) -> None:
    """Run one cell and write its evidence; does nothing for a cell that is done.

    Raises:
        PluginError: If a plug-in of somebody else raises what it should not.
    """
    if cell.done:
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

    def run(self) -> Iterator[Cell]:
        """Yield each cell once it is finished or has failed."""
        if self.jobs == 1 or len(self.waiting) == 1:
            return self._run_serially()
        return self._run_threads() if self.device.type == "cuda" else self._run_processes()

    def _run_one(self, cell: Cell, device: torch.device, progress: ProgressReport) -> Cell:
        """Run a cell; one that stops on the machine's account (out of memory, a GPU error) leaves the others going."""
        try:
            run_cell(cell, self.data, device, progress, self.warnings.append)
        except RuntimeError as error:
            self.failed.append(_format_failure(cell, error))
        return cell

    def _run_serially(self) -> Generator[Cell]:
        for cell in self.waiting:
            yield self._run_one(cell, self.device, self.progress)

    def _run_threads(self) -> Generator[Cell]:
        gpus = min(torch.cuda.device_count(), self.jobs) if self.every_gpu else 1
        devices = [torch.device("cuda", number) for number in range(gpus)] if self.every_gpu else [self.device]
        stop = threading.Event()

        def watch(what: str, done: int, total: int, remark: str) -> None:
            if stop.is_set():
                raise KeyboardInterrupt

        def run_on_gpu(device: torch.device, cell: Cell) -> Cell:
            with torch.cuda.device(device), torch.cuda.stream(get_thread_stream(device, "work")):
                return self._run_one(cell, device, watch)

        with ExitStack() as stack:
            # Each GPU has threads of its own: one that went from GPU to GPU would take streams of all of them.
            threads = [min(-(-(self.jobs - number) // gpus), MAX_THREADS_PER_GPU) for number in range(gpus)]
            pools = [stack.enter_context(ThreadPoolExecutor(count)) for count in threads]
            futures = [
                pools[number % gpus].submit(run_on_gpu, devices[number % gpus], cell)
                for number, cell in enumerate(self.waiting)
            ]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:  # an interrupt, here or (GeneratorExit) in the caller, or an error
                stop.set()
                for pool in pools:
                    pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _run_processes(self) -> Generator[Cell]:
        threads = max(1, torch.get_num_threads() // self.jobs)
        record, numbers = self.spec.to_record(), {cell: n for n, cell in enumerate(list_cells(self.spec, self.out))}
        with ProcessPoolExecutor(self.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
            futures = {
                pool.submit(_run_in_worker, record, str(self.out), numbers[cell], str(self.device), threads): cell
                for cell in self.waiting
            }
            try:
                for future in as_completed(futures):
                    try:
                        self.warnings += future.result()
                    except BrokenProcessPool:
                        raise
                    except RuntimeError as error:
                        self.failed.append(_format_failure(futures[future], error))
                    yield futures[future]
            except BrokenProcessPool:
                raise UserError(
                    "A worker process died: killed, or out of memory. What is done is kept.",
                    "Go on with --resume, perhaps with fewer --jobs.",
                ) from None
            except BaseException:  # an interrupt, here or (GeneratorExit) in the caller, or a worker's error
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def _format_failure(cell: Cell, error: RuntimeError) -> str:
    return f"{cell.title} stopped: {str(error).partition(chr(10))[0].rstrip('.')}. Run again with --resume."


def _run_in_worker(record: dict[str, Any], out: str, number: int, device: str, threads: int) -> list[str]:
    """Run one cell in a worker process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(threads)
    spec = parse_spec(to_tables(record), allow_plugins=True)  # this process' parent has asked
    warnings: list[str] = []
    cell = list_cells(spec, Path(out))[number]
    try:
        with guard_plugins():
            data = spec.dataset.options.load()
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
