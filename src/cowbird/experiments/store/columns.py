"""Columns that are kept as soon as they are made, so that an interrupted cell goes on without making them again."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cowbird.experiments.store.seals import SealedStore
from cowbird.storage import read_arrays, write_tensors

if TYPE_CHECKING:
    import torch

Columns = Mapping[str, NDArray[Any]]
"""Arrays by name."""


class ColumnStore(SealedStore):
    """Keeps columns in a folder."""

    def read(self, name: str, origin: str) -> dict[str, NDArray[Any]] | None:
        """Return the columns that are kept under a name, or `None` if there are none that can be used.

        Args:
            name: Path of the file in the folder, without its ending.
            origin: Digest of what they are made of.
        """
        return self.find(f"{name}.safetensors", origin, read_columns)

    def holds(self, name: str, origin: str) -> bool:
        """Tell whether columns are kept that can be used; arguments as in `read`."""
        return self.find_digest(f"{name}.safetensors", origin) is not None

    def write(self, name: str, origin: str, columns: Columns) -> None:
        """Keep columns; arguments as in `read`."""
        self.keep(f"{name}.safetensors", origin, lambda path: write_tensors(path, to_tensors(columns)))


def read_columns(path: Path) -> dict[str, NDArray[Any]]:
    """Read columns from a file.

    Raises:
        UserError: If the file is missing or damaged.
        TypeError: If a tensor in it is no array.
    """
    return read_arrays(path)


def to_tensors(columns: Columns) -> "dict[str, torch.Tensor]":
    """Return columns as tensors of their own."""
    import torch  # noqa: PLC0415

    return {name: torch.from_numpy(np.array(column)) for name, column in columns.items()}
