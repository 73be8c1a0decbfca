"""A scorer in several processes: chunks are judged beside each other, and their verdicts come in order.

Most of what a chunk costs on a GPU is a processor's work (tokens, fragments, rules), so one process leaves the GPU
idle. Each process holds a scorer of its own. A chunk is judged as one process alone would judge it, so how many there
are changes nothing but the time.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import Self

from cowbird.errors import OutageError
from cowbird.plugin_errors import copy_registry, guard_plugins, restore_registry
from cowbird.processes import WorkerStart, end_with_parent, ignore_stop_signals, spare_new_workers
from cowbird.scanning.verdicts import Scorer, ScorerVerdicts

ScorerFactory = Callable[[], Scorer]
"""Makes a scorer in a process; it travels there, so it is a function of a module, perhaps with arguments."""
_process_scorer: Scorer | None = None
"""The scorer of a process of a crew."""


class ScorerPool:
    """Processes that judge with copies of one scorer.

    Args:
        scorer: The scorer; judges nothing itself, but says what the copies are.
        make: Makes a copy.
        workers: How many processes.

    Raises:
        ValueError: If there is not at least one process.
    """

    def __init__(self, scorer: Scorer, make: ScorerFactory, workers: int) -> None:
        if workers < 1:
            raise ValueError(f"a crew has at least one process, not {workers}")
        self.key = scorer.key
        self.ahead = 2 * workers
        self._pool = ProcessPoolExecutor(
            workers, get_context("spawn"), WorkerStart(_init_process), (make, copy_registry())
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def scan(self, titles: Sequence[str]) -> ScorerVerdicts:
        """Judge titles; see `Scorer.scan`."""
        return self.begin(titles)()

    def begin(self, titles: Sequence[str]) -> Callable[[], ScorerVerdicts]:
        """Have titles judged; see `ConcurrentScorer.begin`.

        Raises:
            UserError: From what is returned: if a process has ended before its time, for want of memory perhaps.
        """
        try:
            with spare_new_workers():
                return partial(_get_verdicts, self._pool.submit(_scan, list(titles)))
        except BrokenProcessPool as error:
            raise _make_process_error(error) from None


def _get_verdicts(found: "Future[ScorerVerdicts]") -> ScorerVerdicts:
    try:
        return found.result()
    except BrokenProcessPool as error:
        raise _make_process_error(error) from None


def _make_process_error(error: Exception) -> OutageError:
    return OutageError(
        f"A process that judged titles has ended before its time: {error}",
        "Memory may have run out. Scan with fewer processes: --workers 1. What was scanned is kept.",
    )


def _init_process(make: ScorerFactory, known_plugins: Mapping[str, str]) -> None:
    """Make a process's scorer. Signals are for the process that gives out the work, and this one ends with it."""
    global _process_scorer  # noqa: PLW0603
    end_with_parent()
    ignore_stop_signals()
    restore_registry(known_plugins)
    with guard_plugins():
        _process_scorer = make()


def _scan(titles: list[str]) -> ScorerVerdicts:
    assert _process_scorer is not None
    with guard_plugins():  # here, for a traceback does not travel between processes
        return _process_scorer.scan(titles)
