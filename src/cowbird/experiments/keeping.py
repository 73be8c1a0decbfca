"""Columns that are kept as soon as they are made, so that an interrupted cell goes on without making them again.

Each file is sealed with the SHA-256 of what it holds and of what that was made of: a damaged file, or one that was made
of something else, is told and made again.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from cowbird.errors import UserError
from cowbird.files import hash_texts
from cowbird.storage import read_tensors, write_tensors


@dataclass(frozen=True)
class ColumnStore:
    """Keeps columns in a folder."""

    folder: Path
    """Where files are kept."""
    warn: Callable[[str], None]
    """Told of files that can't be used."""
    other: str
    """What files are of that were made of something else, such as `of another catalogue`."""
    again: str
    """What happens then, a sentence."""

    def read(self, name: str, origin: str) -> dict[str, NDArray[Any]] | None:
        """Return the columns that are kept under a name, or `None` if there are none that can be used.

        Args:
            name: Path of the file in the folder, without its ending.
            origin: Digest of what they are made of.
        """
        path = self._path(name)
        if not path.exists():
            return None
        try:
            tensors, header = read_tensors(path)
            columns = {name: tensor.numpy() for name, tensor in tensors.items()}
            if header.get("cowbird") == hash_parts(origin, columns):
                return columns
            self.warn(f"'{path}' is damaged or {self.other}. {self.again}")
        except (UserError, TypeError) as error:  # some kinds of tensors are no arrays
            self.warn(f"'{path}' is damaged: {error} {self.again}")
        return None

    def write(self, name: str, origin: str, columns: Mapping[str, NDArray[Any]]) -> None:
        """Keep columns; arguments as in `read`."""
        write_tensors(self._path(name), to_tensors(columns), {"cowbird": hash_parts(origin, columns)})

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def to_tensors(columns: Mapping[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
    """Return columns as tensors of their own."""
    return {name: torch.from_numpy(np.array(column)) for name, column in columns.items()}


def hash_parts(*parts: object) -> str:
    """Return the SHA-256 of texts, numbers and arrays, and of data classes, mappings and sequences of such.

    Raises:
        TypeError: If something else is among them.
    """
    return hash_texts(_encode_parts(parts))


def _encode_parts(part: object) -> Iterator[str]:
    """Yield what tells a value from others; how many follow is told before them, so that no two are told alike."""
    if part is None or isinstance(part, str | int | float):
        yield f"{type(part).__name__} {part}"
    elif isinstance(part, np.ndarray):
        array = cast("NDArray[Any]", part)
        yield f"{array.dtype.str} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
    elif is_dataclass(part):
        yield from _encode_parts({field.name: getattr(part, field.name) for field in fields(part)})
    elif isinstance(part, Mapping):
        table = cast("Mapping[str, object]", part)
        yield from _encode_parts([inner for name in sorted(table) for inner in (name, table[name])])
    elif isinstance(part, Sequence):
        inside = cast("Sequence[object]", part)
        yield f"{len(inside)}"
        for inner in inside:
            yield from _encode_parts(inner)
    else:
        raise TypeError(f"a {type(part).__name__} has no digest")
