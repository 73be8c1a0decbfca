"""Null models are fitted beside each other, each in a process of its own.

A step of training is many small sums. On a CPU threads wait for each other most of that time, and a GPU waits for the
next call; processes fill the gaps.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from typing import Protocol

from cowbird.plugin_errors import copy_registry, restore_registry
from cowbird.processes import WorkerStart, count_processors, end_with_parent, ignore_stop_signals, kill_workers


class SharedMaker(Protocol):
    """Makes something and keeps it; it travels to another process."""

    def make_shared(self) -> None:
        """Make it unless another process does so at the moment; then wait for that one."""
        ...


def fit_beside_each_other(makers: Sequence[SharedMaker], workers: int, report: Callable[[int], None]) -> None:
    """Make what is missing in several processes, and wait for all of it.

    What a process does not come to, for want of memory perhaps, is left to the caller.

    Args:
        makers: What is made.
        workers: How many processes at most.
        report: Told how many are done.

    Raises:
        Exception: What the making of one raised; the others are ended.
    """
    import torch  # noqa: PLC0415

    count = min(workers, len(makers))
    threads = max(1, count_processors() // count)
    start = WorkerStart(_init_process)
    pool = ProcessPoolExecutor(count, get_context("spawn"), start, (threads, copy_registry()))
    report(0)
    try:
        with suppress(BrokenProcessPool):
            futures: list[Future[None]] = [pool.submit(_make, maker) for maker in makers]
            for done, future in enumerate(as_completed(futures), start=1):
                with suppress(torch.OutOfMemoryError):  # of a GPU that several share
                    future.result()
                report(done)
    except BaseException:
        kill_workers(pool)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _init_process(threads: int, known_plugins: Mapping[str, str]) -> None:
    """Prepare a process. Signals are for the process that gives out the work, and this one ends with it."""
    import torch  # noqa: PLC0415

    end_with_parent()
    ignore_stop_signals()
    restore_registry(known_plugins)
    torch.set_num_threads(threads)


def _make(maker: SharedMaker) -> None:
    maker.make_shared()
