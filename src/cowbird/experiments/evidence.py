"""What one cell of an experiment measured, before any statistics: ranks, kept per user so that users can be resampled.

A cell is one victim and one seed. Its evidence is one safetensors file; every number in the results is computed from
these files alone, so results can be made again without training. Cells whose victim answers questions keep other
evidence (`judging`, `choosing`), in columns of one row a question: `save_columns` and `load_columns`.
"""

import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cowbird.errors import UserError
from cowbird.storage import read_tensors, write_tensors


@dataclass(frozen=True, slots=True, eq=False)
class RankingEvidence:
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


RANKING_ARRAYS = ("clean_rank", "attacked_rank", "clean_exposure", "attacked_exposure", "seen", "group")


def save(path: Path, records: list[RankingEvidence]) -> None:
    """Write a cell's evidence atomically."""
    tensors = {
        f"{number}.{name}": torch.from_numpy(np.ascontiguousarray(getattr(record, name)))
        for number, record in enumerate(records)
        for name in RANKING_ARRAYS
    }
    labels = [[record.scenario, record.attack, record.defense] for record in records]
    write_tensors(path, tensors, {"cowbird": json.dumps(labels)})


def load(path: Path) -> list[RankingEvidence]:
    """Read a cell's evidence.

    Raises:
        UserError: If the file is missing, damaged or something else.
    """
    tensors, header = read_tensors(path)
    try:
        labels = [(str(a), str(b), str(c)) for a, b, c in json.loads(header["cowbird"])]
        records = [
            RankingEvidence(*names, **{name: tensors[f"{number}.{name}"].numpy() for name in RANKING_ARRAYS})
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


MODEL_SIDES = ("clean", "attacked")
"""The two models of a record."""
PLAIN_KIND, TRIGGER_KIND = "plain", "trigger"
"""Kinds of questions: as they are, and with the attack's own trigger; all others have a trigger that is near it."""
NEAR_COLUMN = "near"
"""The shared column that tells which questions were asked with triggers that are near the attack's."""


def is_near(kind: str) -> bool:
    """Return whether a kind of question has a trigger that is merely near the attack's."""
    return kind not in (PLAIN_KIND, TRIGGER_KIND)


@dataclass(frozen=True, slots=True, eq=False)
class AnswerColumns:
    """One attack in one scenario as plain columns."""

    names: tuple[str, str, str]
    """Labels of scenario, attack and defense."""
    shared: Mapping[str, NDArray[Any]]
    """Columns that say what was asked, shape `[questions]` each; `near` is one of them."""
    clean: Mapping[str, NDArray[Any]]
    """What the clean model answered, by kind of question, shape `[questions]` each, or `[near.sum()]` of those with a
    trigger that is near the attack's."""
    attacked: Mapping[str, NDArray[Any]]
    """What the attacked model answered, of the same kinds."""


def save_columns(path: Path, kind: str, records: Iterable[AnswerColumns]) -> None:
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
        for side in MODEL_SIDES:
            columns |= {f"{side}.{name}": column for name, column in getattr(record, side).items()}
        tensors |= {
            f"{number}.{name}": torch.from_numpy(np.ascontiguousarray(column)) for name, column in columns.items()
        }
    # One entry: safetensors writes several in any order, and equal evidence is to be equal to the byte.
    write_tensors(path, tensors, {"cowbird": json.dumps({"kind": kind, "records": labels})})


def load_columns(path: Path, kind: str, shared: Iterable[str], ways: Iterable[str] = ("",)) -> list[AnswerColumns]:
    """Read a cell's evidence.

    Args:
        path: The file.
        kind: What kind of evidence it must be.
        shared: Columns that each record must have beside `near`.
        ways: How columns of answers begin before the kind of question, if there are several ways to answer.

    Raises:
        UserError: If the file is missing, damaged or something else.
    """
    tensors, header = read_tensors(path)
    shared, ways = {NEAR_COLUMN, *shared}, list(ways)
    plain, whole = (
        {way + PLAIN_KIND for way in ways},
        {way + kind for way in ways for kind in (PLAIN_KIND, TRIGGER_KIND)},
    )
    records: list[AnswerColumns] = []
    try:
        told = json.loads(header["cowbird"])
        if told["kind"] != kind:
            raise ValueError(f"it is of the kind {told['kind']!r}, not {kind!r}")
        labels = [(str(a), str(b), str(c)) for a, b, c in told["records"]]
        for number, names in enumerate(labels):
            mine = _select_prefix(f"{number}.", {name: tensor.numpy() for name, tensor in tensors.items()})
            sides = [_select_prefix(f"{side}.", mine) for side in MODEL_SIDES]
            missing = sorted((shared - mine.keys()) | (plain - sides[0].keys()))
            if missing:
                raise ValueError(f"the answers of {names[1]}, {names[0]} have no {', '.join(missing)}")
            found = AnswerColumns(names, {name: mine[name] for name in shared}, *sides)
            if not _is_aligned(found, whole):
                raise ValueError(f"the answers of {names[1]}, {names[0]} do not align")
            records.append(found)
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"'{path}' does not hold the evidence of a run: {error}.", "Run the cell again.") from None
    return records


def _is_aligned(found: AnswerColumns, whole: Container[str]) -> bool:
    """Return whether a record's columns have a value for each question that was asked; `whole` asked all of them."""
    near = found.shared[NEAR_COLUMN]
    if near.ndim != 1 or near.dtype != np.bool_ or found.clean.keys() != found.attacked.keys():
        return False
    some = (int(near.sum()),)
    answers = [*found.clean.items(), *found.attacked.items()]
    return all(column.shape == near.shape for column in found.shared.values()) and all(
        column.shape == (near.shape if name in whole else some) for name, column in answers
    )


def _select_prefix(prefix: str, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the columns whose name begins so, without the prefix."""
    return {name.removeprefix(prefix): column for name, column in columns.items() if name.startswith(prefix)}
