"""A checkpoint of another library: its tensors and its settings, read without running anything, and written anew.

Two containers are known: the zip archive that `torch.save` and Lightning write, and a pickle that holds such an archive
as bytes, which is what RecTools's `save` writes. What the pickle says of a tensor is a stranger's claim. Shapes,
strides and offsets are held against the storage, and the storage against its bytes, before memory is taken.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from cowbird.errors import UserError
from cowbird.faults import explain_outages
from cowbird.victims.loaders._archives import TorchArchive, open_plain_file
from cowbird.victims.loaders._pickles import (
    MAX_PICKLE_BYTES,
    InertRecord,
    StorageRecord,
    TensorRecord,
    is_dict,
    is_tuple,
    read_pickle,
)

MAX_TENSORS = 20_000
"""Most tensors of a checkpoint."""
MAX_DIMENSIONS = 8
"""Most dimensions of a tensor."""
_FORMATS = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
}
"""Number formats of weights, by the class of their storage."""
_EMBEDDED_NAMES = ("fitted_checkpoint",)
"""Where a pickle keeps the bytes of an archive."""
_HINT = "Ask for an undamaged file."


class ForeignCheckpoint:
    """What a file holds.

    Args:
        path: The file.

    Raises:
        UserError: If it is no checkpoint, or one that hides something.
        OutageError: If it can't be read for a passing fault.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.archive, self.root = _open_container(path)
        self.tensors = self._find_tensors()
        """Tensors of the model by name; nothing of them has been checked."""

    def _find_tensors(self) -> dict[str, TensorRecord]:
        root = _as_mapping(self.root)
        named = _as_mapping(root.get("state_dict")) if root else {}
        found = {
            name: tensor
            for name, tensor in (named or root).items()
            if isinstance(name, str) and isinstance(tensor, TensorRecord)
        }
        if not found:
            self.refuse("it has no state_dict of tensors")
        if len(found) > MAX_TENSORS:
            self.refuse(f"it has {len(found)} tensors")
        return found

    def refuse(self, reason: str, hint: str = _HINT) -> NoReturn:
        """Raise a `UserError` about the file."""
        raise UserError(f"'{self.path}' can't be read as a model: {reason}.", hint)

    def get_section(self, name: str) -> dict[Any, Any]:
        """Return a mapping that stands beside the weights, such as `hyper_parameters`; empty if there is none."""
        return _as_mapping(_as_mapping(self.root).get(name))

    def get_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, held against its bytes.

        Raises:
            UserError: If it is not there, or can't be what it says.
        """
        record = self.tensors.get(name)
        if record is None:
            self.refuse(f"it has no tensor '{name[:100]}'")
        return self._check_extent(name, record)

    def read(self, name: str) -> Tensor:
        """Return the numbers of a tensor, float32, on the CPU.

        Raises:
            UserError: If it is not what it says, or has numbers that are not finite.
        """
        shape = self.get_shape(name)
        record = self.tensors[name]
        numbers = self._read_storage(record.storage)
        read = torch.as_strided(numbers, shape, record.stride, record.offset).to(torch.float32, copy=True)
        if not bool(torch.isfinite(read).all()):
            self.refuse(f"its tensor '{name[:100]}' has numbers that are not finite")
        return read

    def write(self, path: Path, changed: Mapping[str, Callable[[Tensor], None]]) -> None:
        """Write a copy of the file in which some tensors are others.

        Args:
            path: The new file.
            changed: By name of a tensor, what changes it in place. It gets the tensor in the file's number format.

        Raises:
            UserError: If a number does not fit the file's format, or tensors share numbers and can't both be changed.
            OutageError: If it can't be written.
        """
        storages: dict[str, Tensor] = {}
        views: dict[str, tuple[Tensor, Tensor]] = {}
        for name, change in changed.items():
            shape, record = self.get_shape(name), self.tensors[name]
            key = record.storage.key
            if key not in storages:
                storages[key] = self._read_storage(record.storage)
            view = torch.as_strided(storages[key], shape, record.stride, record.offset)
            change(view)
            if not bool(torch.isfinite(view).all()):
                raise UserError(f"A number of '{name}' does not fit {view.dtype}, the format of '{self.path}'.")
            views[name] = view, view.clone()
        for name, (view, wanted) in views.items():
            if not torch.equal(view, wanted):
                self.refuse(f"its tensor '{name[:100]}' shares numbers with another", "It can be read, not changed.")
        data = {f"data/{key}": bytes(numbers.view(torch.uint8).numpy()) for key, numbers in storages.items()}
        self.archive.write(path, data)

    def _check_extent(self, name: str, record: TensorRecord) -> tuple[int, ...]:
        """Check that a tensor lies in its storage and a storage in its entry; return the shape."""
        shape, stride = _as_sizes(record.shape), _as_sizes(record.stride)
        offset = _as_sizes((record.offset,))
        if shape is None or stride is None or offset is None or len(shape) != len(stride):
            self.refuse(f"its tensor '{name[:100]}' has no proper shape")
        storage, dtype = record.storage, self._find_format(name, record.storage)
        entry = self.archive.entries.get(f"data/{storage.key}")
        if entry is None or not 0 <= storage.numbers * dtype.itemsize == entry.size:
            self.refuse(f"its tensor '{name[:100]}' has {storage.numbers} numbers, and its bytes are not as many")
        count = math.prod(shape)
        last = offset[0] + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        if count < 1 or count > storage.numbers or last >= storage.numbers:
            shown = " x ".join(map(str, shape))[:60]
            self.refuse(f"its tensor '{name[:100]}' should have {shown} numbers, and there are {storage.numbers}")
        return shape

    def _find_format(self, name: str, storage: StorageRecord) -> torch.dtype:
        package, _, kind = storage.kind.rpartition(".")
        if kind not in _FORMATS or package not in ("torch", "torch.storage"):
            self.refuse(f"its tensor '{name[:100]}' is of '{storage.kind[:60]}', and floating-point numbers are read")
        return _FORMATS[kind]

    def _read_storage(self, storage: StorageRecord) -> Tensor:
        dtype = self._find_format(storage.key, storage)
        data = self.archive.read(f"data/{storage.key}", storage.numbers * dtype.itemsize)
        return torch.frombuffer(bytearray(data), dtype=dtype)


READABLE_MODELS = (
    "Read are: safetensors that Cowbird saved; checkpoints of RecBole (.pth), RePlay and RecTools (.ckpt, .pt); the "
    "folder of a language model or adapter. Any other model answers through function:MODULE:NAME or process:COMMAND "
    "(docs/how-to/foreign_models.md)."
)
"""What can be read, in words."""


def _open_container(path: Path) -> tuple[TorchArchive, Any]:
    """Return the archive of a file and what its pickle says."""
    with open_plain_file(path) as file, explain_outages(f"'{path}' can't be read"):
        start = file.read(2)
        whole = b"" if start == b"PK" else start + file.read(MAX_PICKLE_BYTES)
    if start == b"PK":
        archive = TorchArchive(path)
    else:
        if not whole[:1] == b"\x80":
            raise UserError(
                f"'{path}' is no model that can be read: neither safetensors that Cowbird saved nor what torch.save "
                "writes.",
                READABLE_MODELS,
            )
        archive = _find_embedded(path, whole)
    pickled = archive.read_pickle_bytes()
    return archive, read_pickle(pickled, f"The pickle in '{path}'")


def _find_embedded(path: Path, whole: bytes) -> TorchArchive:
    """Return the archive that stands as bytes in a pickle."""
    held = read_pickle(whole, f"'{path}'")
    state = _as_mapping(held.state if isinstance(held, InertRecord) else held)
    for name in _EMBEDDED_NAMES:
        data = state.get(name)
        if isinstance(data, bytes) and data[:2] == b"PK":
            return TorchArchive(path, whole.index(data), len(data))
    raise UserError(
        f"'{path}' is a pickle without a checkpoint in it, or one that torch wrote before version 1.6.",
        "Save it anew with a recent torch.save, RecBole, RePlay or RecTools.",
    )


def _as_mapping(value: Any) -> dict[Any, Any]:
    """Return a dictionary, also one that is an object of a class derived from it; empty if it is neither."""
    if isinstance(value, InertRecord) and value.entries is not None:
        return value.entries
    return value if is_dict(value) else {}


def _as_sizes(value: Any) -> tuple[int, ...] | None:
    """Return sizes if they are what a tensor may have, none of them negative."""
    if not is_tuple(value) or len(value) > MAX_DIMENSIONS:
        return None
    return value if all(type(size) is int and 0 <= size < 1 << 40 for size in value) else None
