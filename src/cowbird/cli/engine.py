"""Where the work of a command runs: on this machine, or on a Ray cluster."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cowbird.cli.options import EngineChoice
from cowbird.cli.progress import QuietDisplay

if TYPE_CHECKING:
    from cowbird.ray_cluster import ClusterOpener, RayCluster


def find_opener(
    engine: EngineChoice, address: str | None, workers: int, *, on_gpu: bool = False
) -> "ClusterOpener | None":
    """Return what joins or starts the cluster that was asked for; `None` for this machine's own processes.

    Args:
        engine: The choice.
        address: The cluster's address.
        workers: How much runs at once; 1, the default of all commands, leaves it to the cluster.
        on_gpu: Whether tasks take a share of a GPU each.

    Raises:
        UserError: If Ray is asked for and not installed.
    """
    if engine != EngineChoice.RAY:
        return None
    from cowbird.ray_cluster import check_ray, join_cluster  # noqa: PLC0415

    check_ray()
    return partial(join_cluster, address, workers if workers > 1 else None, on_gpu=on_gpu)


def uses_gpu(device: str) -> bool:
    """Tell whether models run on a GPU.

    Raises:
        UserError: If one is asked for that is not there.
    """
    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415

    return pick_device(device).type == "cuda"


def open_engine(
    engine: EngineChoice, address: str | None, workers: int, *, on_gpu: bool = False
) -> "AbstractContextManager[RayCluster | None]":
    """Join or start the cluster that was asked for; see `find_opener`."""
    opener = find_opener(engine, address, workers, on_gpu=on_gpu)
    return nullcontext() if opener is None else opener()


@contextmanager
def use_engine(
    engine: EngineChoice, address: str | None, workers: int, out: Path, *, on_gpu: bool = False
) -> Generator[None]:
    """Have titles judged where it was asked for; see `find_opener`.

    Args:
        engine: The choice.
        address: The cluster's address.
        workers: How much runs at once.
        out: Where the findings go.
        on_gpu: Whether workers take a share of a GPU each.
    """
    from cowbird.ray_cluster import use_cluster  # noqa: PLC0415
    from cowbird.scanning.sharing import share_scan  # noqa: PLC0415

    opener = find_opener(engine, address, workers, on_gpu=on_gpu)
    with use_cluster(opener), share_scan(out, opener, workers, QuietDisplay().warn):
        yield
