"""A Ray cluster (extra `distributed`): joined by its address, or started on this machine for a while.

Work is given out as tasks. A task whose worker dies is tried again, on another worker or another machine. What a task
raises comes back as it was raised. The address is taken from the command line or the environment alone, never from a
file that somebody else may have written: whoever runs a cluster runs code.
"""

import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from cowbird.errors import OutageError, UserError
from cowbird.processes import count_processors, list_stop_signals

MAX_RETRIES = 4
"""How often a task is tried again whose worker died."""
INSTALL_HINT = "Install it with: pip install 'cowbird[distributed]'. Or leave out --engine ray."


@dataclass(frozen=True)
class RayCluster:
    """A cluster that is joined."""

    library: Any
    """The module `ray`."""
    workers: int
    """Tasks that run at once."""
    gpus: float = 0.0
    """The share of a GPU that each task gets."""

    def submit(self, function: Callable[..., Any], *given: Any) -> Any:
        """Have a function of a module called by a worker; return what stands for its result."""
        task = self.library.remote(num_cpus=1, num_gpus=self.gpus, max_retries=MAX_RETRIES)(function)
        return task.remote(*given)

    def put(self, value: Any) -> Any:
        """Keep a value on the cluster, and return what stands for it."""
        return self.library.put(value)

    def keep(self, value: Any) -> "RayValue":
        """Keep a value on the cluster, and return what workers load it from."""
        return RayValue(self.library.put(value))

    def wait(self, waiting: Sequence[Any], seconds: float | None = None) -> list[Any]:
        """Return those of some results that are there, at least one unless the time is over."""
        return self.library.wait(list(waiting), num_returns=1, timeout=seconds)[0]

    def get(self, result: Any) -> Any:
        """Return a result, once it is there.

        Raises:
            OutageError: If its workers died again and again, or the cluster is gone.
        """
        errors = self.library.exceptions
        try:
            return self.library.get(result)
        except errors.RayTaskError as error:
            cause = getattr(error, "cause", None)
            raise cause if isinstance(cause, Exception) else error from None
        except errors.RayError as error:
            first = str(error).strip().partition("\n")[0].rstrip(".")
            hint = "Memory may have run out there. What is done is kept; the same command goes on."
            raise OutageError(f"A worker of the Ray cluster died again and again: {first}.", hint) from None

    def cancel(self, waiting: Iterable[Any]) -> None:
        """End tasks that nobody waits for any more."""
        for each in waiting:
            with suppress(Exception):
                self.library.cancel(each, force=True)


@dataclass(frozen=True)
class RayValue:
    """A value that a cluster keeps. It travels within another object, so Ray does not read it anew for each task."""

    reference: Any
    """What stands for it."""

    def load(self) -> Any:
        """Return the value, in a task."""
        return get_on_worker(self.reference)


def get_on_worker(result: Any) -> Any:
    """Return, in a task, what `RayCluster.put` kept."""
    import ray  # noqa: PLC0415

    library: Any = ray
    return library.get(result)


def check_ray() -> None:
    """Check that Ray is installed.

    Raises:
        UserError: If it is not.
    """
    if find_spec("ray") is None:
        raise UserError("--engine ray needs the library 'ray', which is not installed.", INSTALL_HINT)


@contextmanager
def join_cluster(
    address: str | None = None, workers: int | None = None, *, on_gpu: bool = False
) -> Generator[RayCluster]:
    """Join a cluster for a while, or start one on this machine.

    Args:
        address: The cluster's address, such as `ray://head:10001`; `None` starts one.
        workers: Tasks that run at once; `None` takes as many as there are processors.
        on_gpu: Whether tasks share the cluster's GPUs, each an equal part of one.

    Raises:
        UserError: If Ray is not installed.
        OutageError: If the cluster can't be joined or started.
    """
    check_ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    os.environ.setdefault("RAY_worker_niceness", "0")  # on a busy machine workers would get nothing done at 15
    import ray  # noqa: PLC0415

    library: Any = ray
    own = {"num_cpus": workers or count_processors(), "include_dashboard": False} if address is None else {}
    try:
        with _keep_signals():
            library.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
        first = str(error).strip().partition("\n")[0].rstrip(".")
        hint = "Is it running, and reached from here? See --ray-address, and the variable RAY_ADDRESS."
        raise OutageError(f"The Ray cluster can't be used: {first}.", hint) from None
    try:
        found: dict[str, float] = library.cluster_resources()
        many = workers or max(1, int(found.get("CPU", 1)))
        yield RayCluster(library, many, share_gpus(found.get("GPU", 0.0), many) if on_gpu else 0.0)
    finally:
        library.shutdown()


def share_gpus(gpus: float, workers: int) -> float:
    """Return the share of a GPU for each of some workers: as many share each as are needed, and none spans two.

    Raises:
        UserError: If there is no GPU.
    """
    if gpus < 1:
        raise UserError("The Ray cluster has no GPU.", "Add --device cpu, or join a cluster whose machines have one.")
    return 1 / max(1, math.ceil(workers / int(gpus)))


@contextmanager
def _keep_signals() -> Generator[None]:
    """Leave signals to whom they were left before: Ray would end the process at SIGTERM, with nothing saved."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in list_stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


ClusterOpener = Callable[[], AbstractContextManager[RayCluster]]
"""Joins a cluster."""
_opener: ContextVar[ClusterOpener | None] = ContextVar("opener", default=None)


@contextmanager
def use_cluster(opener: ClusterOpener | None) -> Generator[None]:
    """Have titles judged on a cluster while the block runs; it is joined when there is something to judge.

    Args:
        opener: Joins it; `None` stands for this machine's own processes.
    """
    token = _opener.set(opener)
    try:
        yield
    finally:
        _opener.reset(token)


def find_cluster() -> ClusterOpener | None:
    """Return what joins the cluster that titles are judged on, if there is one."""
    return _opener.get()
