"""Processes of this machine that are given tasks, as a Ray cluster is: see `cowbird.ray_cluster`.

Work that may run on either asks for the methods that both have. A process ends with the one that started it.
"""

import gc
import importlib
import os
import pickle
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, Self

from cowbird.errors import OutageError
from cowbird.files import hold_temporary_folder
from cowbird.plugin_errors import copy_registry, guard_plugins, restore_registry
from cowbird.processes import (
    WorkerStart,
    count_processors,
    end_with_parent,
    ignore_stop_signals,
    kill_workers,
    spare_new_workers,
)

RARE_COLLECTIONS = (100_000, 50, 100)
"""How often a worker looks for garbage in circles: its work leaves hardly any, and a look goes through all it knows."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
"""What libraries read when they are loaded. By default each worker would start a thread for each processor."""


class KeptValue(Protocol):
    """Stands for a value that workers can load."""

    def load(self) -> Any:
        """Return the value."""
        ...


class TaskCluster(Protocol):
    """Workers that are given tasks: those of a Ray cluster, processes of this machine, or this process."""

    @property
    def workers(self) -> int:
        """Tasks that run at once."""
        ...

    def submit(self, function: Callable[..., Any], *given: Any) -> Any:
        """Have a function of a module called by a worker; return what stands for its result."""
        ...

    def keep(self, value: Any) -> KeptValue:
        """Keep a value for tasks, and return what stands for it."""
        ...

    def get(self, result: Any) -> Any:
        """Return a result, once it is there.

        Raises:
            OutageError: If a worker died.
        """
        ...

    def cancel(self, waiting: Iterable[Any]) -> None:
        """End tasks that nobody waits for any more."""
        ...


@dataclass(frozen=True)
class HeldValue:
    """A value of this process."""

    value: Any
    """The value."""

    def load(self) -> Any:
        """Return the value."""
        return self.value


class InlineCluster:
    """This process alone; a task runs when its result is asked for."""

    workers = 1

    def submit(self, function: Callable[..., Any], *given: Any) -> Any:
        """Note a task; see `TaskCluster.submit`."""
        return function, given

    def keep(self, value: Any) -> HeldValue:
        """Keep a value; see `TaskCluster.keep`."""
        return HeldValue(value)

    def get(self, result: Any) -> Any:
        """Run a task; see `TaskCluster.get`."""
        function, given = result
        return function(*given)

    def cancel(self, waiting: Iterable[Any]) -> None:
        """Do nothing: what was not asked for never ran."""


@dataclass(frozen=True)
class KeptFile:
    """A value in a file of a folder that only this user can enter."""

    path: Path
    """The file."""

    def load(self) -> Any:
        """Return the value."""
        return pickle.loads(self.path.read_bytes())


class LocalCluster:
    """Processes of this machine; a context manager. They write nothing, so they are ended at once if the work fails.

    Args:
        workers: How many processes.
        module: What they import as they start, all at once, while this process prepares the work; nothing by default.
    """

    def __init__(self, workers: int, module: str = "") -> None:
        self.workers = workers
        self._open = ExitStack()
        self._folder = self._open.enter_context(hold_temporary_folder("cowbird-tasks"))
        self._kept = 0
        given = (copy_registry(), max(1, count_processors() // workers))
        self._pool = ProcessPoolExecutor(workers, get_context("spawn"), WorkerStart(_init_process), given)
        with spare_new_workers():
            for _ in range(workers if module else 0):
                self._pool.submit(_import, module)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            kill_workers(self._pool)
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._open.close()

    def submit(self, function: Callable[..., Any], *given: Any) -> "Future[Any]":
        """Give out a task; see `TaskCluster.submit`."""
        try:
            with spare_new_workers():
                return self._pool.submit(_call, function, given)
        except BrokenProcessPool as error:
            raise _make_process_error(error) from None

    def keep(self, value: Any) -> KeptFile:
        """Keep a value in a private file; see `TaskCluster.keep`."""
        self._kept += 1
        path = self._folder / f"{self._kept}.pickle"
        path.write_bytes(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL))
        return KeptFile(path)

    def get(self, result: "Future[Any]") -> Any:
        """Return a result; see `TaskCluster.get`."""
        try:
            return result.result()
        except BrokenProcessPool as error:
            raise _make_process_error(error) from None

    def cancel(self, waiting: "Iterable[Future[Any]]") -> None:
        """Take back tasks that have not begun."""
        for each in waiting:
            with suppress(Exception):
                each.cancel()


def _make_process_error(error: Exception) -> OutageError:
    return OutageError(
        f"A worker process has ended before its time: {error}",
        "Memory may have run out. Use fewer processes: --workers 1. What is done is kept.",
    )


def _init_process(known_plugins: Mapping[str, str], threads: int) -> None:
    """Begin a process. Signals are for the one that gives out the work, and this one ends with it.

    Args:
        known_plugins: Plug-ins that it must know.
        threads: How many threads libraries start, which are not loaded yet.
    """
    end_with_parent()
    ignore_stop_signals()
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, str(threads))
    restore_registry(known_plugins)
    gc.set_threshold(*RARE_COLLECTIONS)


def _import(module: str) -> None:
    importlib.import_module(module)


def _call(function: Callable[..., Any], given: tuple[Any, ...]) -> Any:
    with guard_plugins():  # here, for a traceback does not travel between processes
        return function(*given)
