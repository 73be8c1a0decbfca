"""Processes that end well: signals as interrupts, workers that end with their parent, and how many there may be.

SIGTERM and SIGHUP do what Ctrl-C does: work is saved, and the same command goes on with it. A second signal ends the
process at once. A worker whose parent is gone ends within a second, so that it neither holds memory for nothing nor
writes beside a run that is resumed.
"""

import _thread
import gc
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import connection
from types import FrameType
from typing import Any

REPEAT_SECONDS = 0.5
"""A signal so soon after the first is the same one: `timeout` sends each twice, and so does a terminal that closes."""
ORPHAN_EXIT_CODE = 1
"""What a worker returns whose parent is gone; nobody is there to read it."""
COMPILED_LIBRARIES = ("torch", "numpy", "scipy", "pyarrow", "polars", "sklearn", "transformers", "peft", "ray")
"""Libraries that an interrupt waits for while they are loaded: compiled code that is stopped there can abort."""
SECONDS_BETWEEN_LOAD_CHECKS = 0.02
"""How often is looked whether they are loaded."""
_SET_PARENT_DEATH_SIGNAL = 1
"""`PR_SET_PDEATHSIG` of Linux."""


class _SignalState:
    """What is known of signals in this process."""

    first: float | None = None
    """When the first one came."""
    held: int = 0
    """How many blocks are at work that must not be interrupted."""
    waiting: bool = False
    """Whether one came meanwhile."""
    late: bool = False
    """Whether one came while a library was loaded, and will come again."""
    patient: bool = False
    """Whether later ones are ignored, as a worker does, which ends with its parent."""


_state = _SignalState()


def list_stop_signals() -> list[signal.Signals]:
    """Return the signals that ask a process to end, as far as this system has them."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    return [signal.Signals[name] for name in names if name in signal.Signals.__members__]


@contextmanager
def treat_signals_as_interrupts() -> Generator[None]:
    """Make SIGTERM and SIGHUP raise `KeyboardInterrupt`, as Ctrl-C does, while the block runs; a second one ends all.

    A signal that somebody chose to ignore (`nohup`) or to handle stays as it is. Only a main thread may do this; in
    another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    default = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: signal.getsignal(number) for number in list_stop_signals()}
    taken = {number: handler for number, handler in before.items() if handler in default}
    _state.first, _state.waiting, _state.late = None, False, False
    for number in taken:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise an interrupt, now or when the block that is at work ends, or the library that is loaded is there."""
    now = time.monotonic()
    if _state.late and not is_library_loading():
        _state.late, _state.first = False, None
    if _state.first is not None:
        if now - _state.first > REPEAT_SECONDS and not _state.patient:
            os._exit(128 + number)
        return
    _state.first = now
    if is_library_loading():
        _state.late = True
        _thread.start_new_thread(_send_again, (number,))  # it takes no lock that the main thread may hold
        return
    if _state.held:
        _state.waiting = True
        return
    raise KeyboardInterrupt


def was_interrupted() -> bool:
    """Tell whether a signal asked this process to end.

    What a library makes of an interrupt need not be one: pydantic makes an error of a schema of it.
    """
    return _state.first is not None


def is_library_loading() -> bool:
    """Tell whether one of the libraries in `COMPILED_LIBRARIES` is being loaded."""
    specs = [getattr(sys.modules.get(name), "__spec__", None) for name in COMPILED_LIBRARIES]
    return any(getattr(spec, "_initializing", False) for spec in specs)


def _send_again(number: int) -> None:
    """Send this process a signal once libraries are loaded."""
    while is_library_loading():
        time.sleep(SECONDS_BETWEEN_LOAD_CHECKS)
    os.kill(os.getpid(), number)


def forget_interrupts() -> None:
    """Have the process end with its own exit code, although an interrupt came.

    An interrupt that ends a text that is run as code, as classes of records are made, is remembered by Python for good:
    it would end the process as by SIGINT in the end, though somebody caught it. The next such text wipes that out.
    """
    exec("")


@contextmanager
def hold_collections() -> Generator[None]:
    """Collect no garbage while libraries load: they make a million objects that stay, and looking at them takes time.

    What was made is left out of later collections, too.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def hold_interrupts() -> Generator[None]:
    """Let an interrupt wait until the block has ended, such as a save that would be made in vain.

    Interrupts reach the main thread alone, so in another one there is nothing to hold.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.held += 1
    try:
        yield
    finally:
        _state.held -= 1
        if _state.waiting and not _state.held:
            _state.waiting = False
            raise KeyboardInterrupt


# Workers


def count_processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


@contextmanager
def spare_new_workers() -> Generator[None]:
    """Have workers that are started in the block hear no signal that asks to end; for this process it waits.

    Ctrl-C reaches all processes of a terminal. A worker that it ends before it has read what it is given leaves its
    parent writing to a pipe that nobody reads, for good.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    with hold_interrupts():  # other threads of this process may hear it
        before = signal.pthread_sigmask(signal.SIG_BLOCK, list_stop_signals())
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Have this worker end when the process that started it is gone, however that ended.

    Linux sends it a signal. Everywhere, a thread waits at a pipe that closes with the parent: a signal is sent when the
    parent's thread ends, and it is not there on other systems.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    _die_with(parent.pid)

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(ORPHAN_EXIT_CODE)

    threading.Thread(target=watch, daemon=True, name="parent").start()


def _die_with(parent: int | None) -> None:
    """Have Linux end this process when its parent does, and end it now if the parent is gone already."""
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(ORPHAN_EXIT_CODE)


class WorkerStart:
    """A worker's first function, which it imports only once it is tied to its parent.

    A new process imports the module of its first function, and for seconds perhaps: torch is behind it. A parent that
    is killed meanwhile would leave it behind.

    Args:
        function: A function of a module.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.module, self.name = function.__module__, function.__name__

    def __call__(self, *given: Any) -> None:
        """Call the function, in a process that has it already."""
        getattr(importlib.import_module(self.module), self.name)(*given)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Travel as a name and as the number of the process that starts the worker."""
        return _import_tied, (os.getpid(), self.module, self.name)


def _import_tied(parent: int, module: str, name: str) -> Callable[..., None]:
    """Tie this process to its parent, and import a function."""
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, and that ends its workers in order
    return getattr(importlib.import_module(module), name)


def ignore_stop_signals() -> None:
    """Leave signals to the parent, which ends its workers in order."""
    for number in list_stop_signals():
        signal.signal(number, signal.SIG_IGN)


def interrupt_once() -> None:
    """Have the first signal raise `KeyboardInterrupt` in this worker, so that it saves; the parent may send another."""
    _state.patient = True
    for number in list_stop_signals():
        signal.signal(number, _interrupt)


def interrupt_workers(pool: ProcessPoolExecutor) -> None:
    """Ask the workers of a pool to save and end: a signal for this process alone does not reach them."""
    for worker in _list_workers(pool):
        with suppress(OSError, ValueError):
            worker.terminate()


def kill_workers(pool: ProcessPoolExecutor) -> None:
    """End the workers of a pool at once: they have nothing to save."""
    for worker in _list_workers(pool):
        with suppress(OSError, ValueError):
            worker.kill()


def _list_workers(pool: ProcessPoolExecutor) -> list[Any]:
    workers: dict[int, Any] = dict(getattr(pool, "_processes", None) or {})
    return list(workers.values())
