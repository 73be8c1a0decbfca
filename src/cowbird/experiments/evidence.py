"""What one cell of an experiment measured, before any statistics: ranks, kept per user so that users can be resampled.

A cell is one victim and one seed. Its evidence is one safetensors file; every number in the results is computed from
these files alone, so results can be made again without training.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cowbird.errors import UserError
from cowbird.victims.sequential.checkpoint import read_tensors, write_tensors


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """One attack in one scenario, the clean model beside it, on the same users."""

    scenario: str
    """Label of the scenario."""
    attack: str
    """Label of the attack."""
    defense: str
    """Label of the defense."""
    clean_rank: NDArray[np.int32]
    """Rank of each user's test item under the clean model, shape `[users]`."""
    attacked_rank: NDArray[np.int32]
    """The same under the attacked model."""
    clean_exposure: NDArray[np.int32]
    """Rank of each target for each user under the clean model, shape `[users, targets]`, exact up to 50."""
    attacked_exposure: NDArray[np.int32]
    """The same under the attacked model."""
    seen: NDArray[np.bool_]
    """Which targets a user has seen already, shape `[users, targets]`."""
    group: NDArray[np.bool_]
    """Which users the attack aims at, shape `[users]`."""


ARRAYS = ("clean_rank", "attacked_rank", "clean_exposure", "attacked_exposure", "seen", "group")


def save(path: Path, records: list[Evidence]) -> None:
    """Write a cell's evidence atomically."""
    tensors = {
        f"{number}.{name}": torch.from_numpy(np.ascontiguousarray(getattr(record, name)))
        for number, record in enumerate(records)
        for name in ARRAYS
    }
    labels = [[record.scenario, record.attack, record.defense] for record in records]
    write_tensors(path, tensors, {"cowbird": json.dumps(labels)})


def load(path: Path) -> list[Evidence]:
    """Read a cell's evidence.

    Raises:
        UserError: If the file is missing, damaged or something else.
    """
    tensors, header = read_tensors(path)
    try:
        labels = [(str(a), str(b), str(c)) for a, b, c in json.loads(header["cowbird"])]
        records = [
            Evidence(*names, **{name: tensors[f"{number}.{name}"].numpy() for name in ARRAYS})
            for number, names in enumerate(labels)
        ]
        for record in records:
            pairs = (len(record.clean_rank), record.seen.shape[1])
            users = {len(record.clean_rank), len(record.attacked_rank), len(record.group)}
            tables = {record.seen.shape, record.clean_exposure.shape, record.attacked_exposure.shape}
            if len(users) != 1 or tables != {pairs}:
                raise ValueError(f"users and pairs of {record.attack}, {record.scenario} do not align")
        return records
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise UserError(f"'{path}' does not hold the evidence of a run: {error}.", "Run the cell again.") from None
