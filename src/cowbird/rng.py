"""Random streams that depend on names, never on the order of calls.

`stream(seed, "attack", "labels")` always yields the same numbers, whatever was drawn elsewhere before, so adding a
step to an experiment does not change the others and a resumed run continues with the very same draws.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """Hash a seed and a path of names into a new 63-bit seed.

    Args:
        seed: The run's seed.
        names: The path of the stream, for example `("sasrec", "dropout", step)`.

    Returns:
        A non-negative integer below 2**63, the same on every machine.
    """
    path = "/".join(f"{type(part).__name__}:{part}" for part in (int(seed), *names))
    return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "big") >> 1


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the NumPy generator of one named stream."""
    return np.random.default_rng(derive_seed(seed, *names))


def draw_indices(count: int, of: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw `count` of the numbers 0 … `of` - 1, or all if there are no more.

    Returns:
        Different numbers, increasing, shape `[min(count, of)]`.
    """
    return np.sort(rng.choice(of, min(count, of), replace=False))


def torch_stream(seed: int, *names: str | int, device: "torch.device | str" = "cpu") -> "torch.Generator":
    """Return a torch generator of one named stream on one device."""
    import torch  # noqa: PLC0415

    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))
