"""A scorer in this process, in several, or on a Ray cluster."""

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager

from cowbird.ray_cluster import find_cluster
from cowbird.scanning.pool import ScorerFactory, ScorerPool
from cowbird.scanning.ray_pool import RayScorer
from cowbird.scanning.sharing import limit_workers
from cowbird.scanning.verdicts import CatalogScorer, Scorer


@contextmanager
def open_scorer(
    scorer: CatalogScorer, make: ScorerFactory, workers: int, warn: Callable[[str], None] = warnings.warn
) -> Generator[Scorer]:
    """Give a scorer, or several processes that each have one of their own; see `cowbird.ray_cluster.use_cluster`, too.

    Args:
        scorer: The scorer.
        make: Makes another one like it in a process.
        workers: How many processes; 1 is this one. There are never more than processors.
        warn: Told if there are fewer than were asked for.
    """
    join = find_cluster()
    if join is not None and not scorer.complete:
        with join() as cluster:
            yield RayScorer(scorer, make, cluster)
        return
    workers = limit_workers(workers, warn)
    if workers == 1:
        yield scorer
        return
    with ScorerPool(scorer, make, workers) as pool:
        yield pool
