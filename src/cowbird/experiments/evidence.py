"""What one cell of an experiment measured, before any statistics: ranks, kept per user so that users can be resampled.

A cell is one victim and one seed. Its evidence is one safetensors file; every number in the results is computed from
these files alone, so results can be made again without training. Cells whose victim answers questions keep other
evidence (`judging`, `choosing`), in columns of one row a question: `save_columns` and `load_columns`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


SIDES = ("clean", "attacked")
"""The two models of a record."""


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """One attack in one scenario as plain columns."""

    names: tuple[str, str, str]
    """Labels of scenario, attack and defense."""
    shared: Mapping[str, NDArray[Any]]
    """Columns that say what was asked, shape `[questions]` each."""
    clean: Mapping[str, NDArray[Any]]
    """What the clean model answered, by kind of question, shape `[questions]` each."""
    attacked: Mapping[str, NDArray[Any]]
    """What the attacked model answered, of the same kinds."""


def save_columns(path: Path, kind: str, records: Iterable[Columns]) -> None:
    """Write a cell's evidence atomically.

    Args:
        path: The file.
        kind: What kind of evidence it is; `load_columns` asks for it.
        records: The evidence.
    """
    tensors: dict[str, torch.Tensor] = {}
    labels: list[list[str]] = []
    for number, record in enumerate(records):
        labels.append(list(record.names))
        columns = dict(record.shared)
        for side in SIDES:
            columns |= {f"{side}.{name}": column for name, column in getattr(record, side).items()}
        tensors |= {
            f"{number}.{name}": torch.from_numpy(np.ascontiguousarray(column)) for name, column in columns.items()
        }
    # One entry: safetensors writes several in any order, and equal evidence is to be equal to the byte.
    write_tensors(path, tensors, {"cowbird": json.dumps({"kind": kind, "records": labels})})


def load_columns(path: Path, kind: str, shared: Iterable[str], answers: Iterable[str]) -> list[Columns]:
    """Read a cell's evidence.

    Args:
        path: The file.
        kind: What kind of evidence it must be.
        shared: Columns that each record must have.
        answers: Columns that each side of a record must have.

    Raises:
        UserError: If the file is missing, damaged or something else.
    """
    tensors, header = read_tensors(path)
    shared, answers = set(shared), set(answers)
    records: list[Columns] = []
    try:
        told = json.loads(header["cowbird"])
        if told["kind"] != kind:
            raise ValueError(f"it is of the kind {told['kind']!r}, not {kind!r}")
        labels = [(str(a), str(b), str(c)) for a, b, c in told["records"]]
        for number, names in enumerate(labels):
            mine = _beginning(f"{number}.", {name: tensor.numpy() for name, tensor in tensors.items()})
            sides = [_beginning(f"{side}.", mine) for side in SIDES]
            shapes = {column.shape for column in mine.values()}
            if sides[0].keys() != sides[1].keys() or [len(shape) for shape in shapes] != [1]:
                raise ValueError(f"the answers of {names[1]}, {names[0]} do not align")
            missing = sorted((shared - mine.keys()) | (answers - sides[0].keys()))
            if missing:
                raise ValueError(f"the answers of {names[1]}, {names[0]} have no {', '.join(missing)}")
            records.append(Columns(names, {name: mine[name] for name in shared}, *sides))
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"'{path}' does not hold the evidence of a run: {error}.", "Run the cell again.") from None
    return records


def _beginning(prefix: str, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the columns whose name begins so, without the prefix."""
    return {name.removeprefix(prefix): column for name, column in columns.items() if name.startswith(prefix)}
