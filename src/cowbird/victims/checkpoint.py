"""Checkpoints that survive a kill: safetensors and JSON, written under a temporary name and renamed.

A checkpoint is two files, `step-N.safetensors` and `step-N.json`. The JSON is renamed into place last and holds the
SHA-256 of the tensors and of itself, so a checkpoint exists only once it is whole, and a damaged one is noticed. The
two newest are kept: when the newest is damaged, the one before it is used and the damage is told. Nothing is ever
unpickled.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cowbird.errors import OutageError, UserError
from cowbird.faults import raise_outage
from cowbird.files import hash_file, read_plain_text, sweep_partials, write_text
from cowbird.storage import read_tensors, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

MAX_CHECKPOINTS = 2


class Checkpoint(NamedTuple):
    """What was read back."""

    step: int
    state: dict[str, Any]
    tensors: "dict[str, Tensor]"


def _compute_seal(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([record["step"], record["sha256"], record["state"]]).encode()).hexdigest()


def save(folder: Path, step: int, state: Mapping[str, Any], tensors: "Mapping[str, Tensor]") -> None:
    """Write the checkpoint of one step, then remove all but the newest two.

    Those of later steps are removed too: they are damaged or another fit's, and would pass for newer ones.
    """
    path = folder / f"step-{step:09d}.safetensors"
    digest = write_tensors(path, tensors)
    record = {"step": step, "sha256": digest, "state": dict(state)}
    write_text(path.with_suffix(".json"), json.dumps(record | {"seal": _compute_seal(record)}))
    known = sorted(folder.glob("step-*.json"))
    newest = known.index(path.with_suffix(".json")) + 1
    for old in known[: max(0, newest - MAX_CHECKPOINTS)] + known[newest:]:
        old.unlink(missing_ok=True)
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def _read(path: Path) -> Checkpoint:
    try:
        record = json.loads(read_plain_text(path))
        step, digest, state = int(record["step"]), str(record["sha256"]), dict(record["state"])
        if record["seal"] != _compute_seal(record):
            raise UserError(f"Checkpoint '{path.name}' is damaged: its SHA-256 is not the recorded one.")
        tensors_path = path.with_suffix(".safetensors")
        if hash_file(tensors_path) != digest:
            raise UserError(f"Checkpoint '{tensors_path.name}' is damaged: its SHA-256 is not the recorded one.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise_outage(error, f"Checkpoint '{path.name}' can't be read")
        raise UserError(f"Checkpoint '{path.name}' can't be read: {error}.") from None
    return Checkpoint(step, state, read_tensors(tensors_path)[0])


def load_latest(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """Read the newest whole checkpoint of a folder.

    Args:
        folder: Where `save` wrote; it need not exist.
        warn: Told of each damaged checkpoint that was passed over.

    Returns:
        The checkpoint, or `None` if there is no whole one.

    Raises:
        OutageError: If one can't be read for a passing fault.
    """
    sweep_partials(folder)
    for path in sorted(folder.glob("step-*.json"), reverse=True):
        try:
            return _read(path)
        except OutageError:  # it may be whole; later steps would remove it
            raise
        except UserError as error:
            warn(f"{error.message} Looking for an older one.")
    return None


def clear(folder: Path) -> None:
    """Remove the checkpoints of a fit whose model is kept, those of its parts too."""
    for path in [*folder.glob("step-*"), *folder.glob("*/step-*")]:
        path.unlink(missing_ok=True)
