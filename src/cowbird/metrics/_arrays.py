"""Turn what callers hold (lists, NumPy arrays, torch tensors on any device) into what the metrics compute on."""

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cowbird.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Array = ArrayLike | Tensor
else:
    # torch is imported by what needs it: whoever holds no tensor does not wait for it.
    Array = ArrayLike
"""Anything that becomes an array: a list, a NumPy array, a torch tensor on any device."""
Floats = NDArray[np.float64]
"""Real values, float64."""
Counts = NDArray[np.int64]
"""Whole numbers, int64."""
Flags = NDArray[np.bool_]
"""A mask."""


def is_tensor(values: object) -> "TypeGuard[Tensor]":
    """Tell whether something is a torch tensor; nothing is one before torch is imported."""
    loaded = sys.modules.get("torch")
    return loaded is not None and isinstance(values, loaded.Tensor)


def to_numpy(values: Array) -> NDArray[Any]:
    """Return `values` as a NumPy array on the host, of the type they have (bfloat16 becomes float32)."""
    if is_tensor(values):
        tensor = values.detach().cpu()
        return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    return np.asarray(values)


def to_floats(values: Array, name: str) -> Floats:
    """Return a list of measured values as float64, shape `[n]`.

    Raises:
        UserError: If they are not one list of numbers, or one is missing, NaN or infinite.
    """
    try:
        array = to_numpy(values).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} must be numbers: {error}.", "Pass one list of numbers.") from error
    if array.ndim != 1:
        raise UserError(f"{name} must be one list, and have shape {array.shape}.", "Flatten them or take one column.")
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise UserError(
            f"{count} of {array.size} {name} are missing, NaN or infinite.", "Leave out what was not measured."
        )
    return array


def to_flags(values: Array, name: str, shape: tuple[int, ...]) -> Flags:
    """Return a mask of a known shape.

    Raises:
        UserError: If the shape differs or a value is neither 0/1 nor false/true.
    """
    array = to_numpy(values)
    if array.shape != shape:
        raise UserError(f"{name} must have shape {shape}, and has {array.shape}.", "Align it with the other array.")
    if array.dtype != np.bool_ and not np.isin(array, (0, 1)).all():
        raise UserError(
            f"{name} must be a mask of true and false, and holds other values.", "Pass booleans, not indices."
        )
    return array.astype(np.bool_)


def to_tensor(values: Array, device: "torch.device | str | None" = None) -> "Tensor":
    """Return `values` as a detached tensor, sharing memory where that is safe (read-only arrays are copied)."""
    import torch  # noqa: PLC0415

    if is_tensor(values):
        return values.detach().to(device)
    array = np.ascontiguousarray(values)
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)


def _to_whole(values: ArrayLike) -> "Tensor":
    import torch  # noqa: PLC0415

    array = np.asarray(values)
    return torch.from_numpy(array.astype(np.int64) if array.dtype.kind in "iu" else array.copy())


def to_index(values: Array, name: str, size: int, device: "torch.device | str" = "cpu") -> "Tensor":
    """Return indices into an axis as an int64 tensor on `device`, shape `[n]`.

    Host arrays are checked before they travel; for a tensor on an accelerator the check waits for the device once.

    Raises:
        UserError: If they are not whole numbers between 0 and `size - 1` (padding such as -1 would silently wrap).
    """
    import torch  # noqa: PLC0415

    index = values.detach() if is_tensor(values) else _to_whole(values)
    if index.ndim != 1:
        raise UserError(f"{name} must be one list of indices, and have shape {tuple(index.shape)}.", "Flatten them.")
    if index.numel() == 0:
        return torch.empty(0, dtype=torch.int64, device=device)
    if index.dtype == torch.bool or index.is_floating_point() or index.is_complex():
        raise UserError(f"{name} must be whole numbers, and are {index.dtype}.", "Pass indices, not a mask.")
    low, high = (int(end) for end in torch.stack(index.aminmax()).cpu())
    if low < 0 or high >= size:
        raise UserError(f"{name} run from {low} to {high}, outside 0 … {size - 1}.", "Drop padding before the call.")
    return index.to(device=device, dtype=torch.int64)


def check_k(k: int) -> int:
    """Return a cut-off.

    Raises:
        UserError: If it is below 1.
    """
    if k < 1:
        raise UserError(f"A cut-off must be at least 1, and is {k}.", "HR@10 has the cut-off 10.")
    return k
