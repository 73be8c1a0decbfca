"""A scorer on a Ray cluster: chunks are judged by its workers, and their verdicts come in order.

It does what `cowbird.scanning.pool` does with processes of one machine. A chunk is judged as one process alone would
judge it, so neither the number of workers nor the death of one changes a verdict. The first pass over a catalogue,
which learns what recurs, is made by the process that gives out the work; what it learned travels to each worker once.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from cowbird.plugin_errors import copy_registry, guard_plugins, restore_registry
from cowbird.ray_cluster import RayCluster, get_on_worker
from cowbird.scanning.pool import ScorerFactory
from cowbird.scanning.verdicts import Scorer, ScorerVerdicts

_scorers: dict[str, Scorer] = {}
"""The scorer of a worker, by its key; one at a time."""


class RayScorer:
    """Workers of a cluster that judge with copies of one scorer.

    Args:
        scorer: The scorer; judges nothing itself, but says what the copies are.
        make: Makes a copy.
        cluster: The cluster.
    """

    def __init__(self, scorer: Scorer, make: ScorerFactory, cluster: RayCluster) -> None:
        self.key = scorer.key
        self.ahead = 2 * cluster.workers
        self._cluster = cluster
        self._make = cluster.put((make, dict(copy_registry())))

    def scan(self, titles: Sequence[str]) -> ScorerVerdicts:
        """Judge titles; see `Scorer.scan`."""
        return self.begin(titles)()

    def begin(self, titles: Sequence[str]) -> Callable[[], ScorerVerdicts]:
        """Have titles judged; see `ConcurrentScorer.begin`.

        Raises:
            OutageError: From what is returned: if workers died again and again.
        """
        # In a list, what stands for the copy is not read anew for each chunk.
        return partial(self._cluster.get, self._cluster.submit(judge_chunk, self.key, [self._make], list(titles)))


def judge_chunk(key: str, made: Sequence[Any], titles: list[str]) -> ScorerVerdicts:
    """Judge titles in a worker, which makes its scorer when it is first asked."""
    with guard_plugins():  # here, for a traceback does not travel between processes
        if key not in _scorers:
            make: ScorerFactory
            known: Mapping[str, str]
            make, known = get_on_worker(made[0])
            restore_registry(known)
            _scorers.clear()
            _scorers[key] = make()
        return _scorers[key].scan(titles)
