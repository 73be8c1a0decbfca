"""Workers that a scan in parts shares its work out to, kept for both of its passes."""

import warnings
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path

from cowbird.local_cluster import InlineCluster, LocalCluster, TaskCluster
from cowbird.processes import count_processors
from cowbird.ray_cluster import ClusterOpener
from cowbird.scanning.parts_folder import is_parts_folder

TASKS_MODULE = "cowbird.scanning.part_tasks"
"""What workers are asked for. They import it as they start: that takes seconds, for torch is behind it."""
_shared: ContextVar[TaskCluster | None] = ContextVar("shared", default=None)


@contextmanager
def share_scan(
    out: Path, opener: ClusterOpener | None, workers: int, warn: Callable[[str], None] = warnings.warn
) -> Generator[None]:
    """Have the workers ready for a scan in parts while the block runs; nothing is done for another scan.

    Args:
        out: Where the findings go.
        opener: Joins a Ray cluster; `None` stands for processes of this machine.
        workers: How many processes; 1 is this one. There are never more than processors.
        warn: Told if there are fewer than were asked for.
    """
    if not is_parts_folder(out):
        yield
        return
    with ExitStack() as stack:
        cluster: TaskCluster = InlineCluster()
        if opener is not None:
            cluster = stack.enter_context(opener())
        elif workers > 1:
            cluster = stack.enter_context(LocalCluster(limit_workers(workers, warn), TASKS_MODULE))
        token = _shared.set(cluster)
        try:
            yield
        finally:
            _shared.reset(token)


def find_shared() -> TaskCluster | None:
    """Return the workers of the scan in parts that is at work; `None` if none is."""
    return _shared.get()


def limit_workers(workers: int, warn: Callable[[str], None]) -> int:
    """Return how many processes run of those that were asked for: never more than processors."""
    most = count_processors()
    if workers > most:
        warn(f"{workers} workers were asked for, and {most} run: that is what the processors take.")
    return min(workers, most)
