"""Where the work of a command runs: on this machine, or on a Ray cluster."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from cowbird.cli.options import EngineChoice

if TYPE_CHECKING:
    from cowbird.ray_cluster import ClusterOpener, RayCluster


def find_opener(engine: EngineChoice, address: str | None, workers: int) -> "ClusterOpener | None":
    """Return what joins or starts the cluster that was asked for; `None` for this machine's own processes.

    Args:
        engine: The choice.
        address: The cluster's address.
        workers: How much runs at once; 1, the default of all commands, leaves it to the cluster.

    Raises:
        UserError: If Ray is asked for and not installed.
    """
    if engine != EngineChoice.RAY:
        return None
    from cowbird.ray_cluster import check_ray, join_cluster  # noqa: PLC0415

    check_ray()
    return partial(join_cluster, address, workers if workers > 1 else None)


def open_engine(engine: EngineChoice, address: str | None, workers: int) -> "AbstractContextManager[RayCluster | None]":
    """Join or start the cluster that was asked for; see `find_opener`."""
    opener = find_opener(engine, address, workers)
    return nullcontext() if opener is None else opener()


def use_engine(engine: EngineChoice, address: str | None, workers: int) -> AbstractContextManager[None]:
    """Have titles judged where it was asked for; see `find_opener`."""
    from cowbird.ray_cluster import use_cluster  # noqa: PLC0415

    return use_cluster(find_opener(engine, address, workers))
