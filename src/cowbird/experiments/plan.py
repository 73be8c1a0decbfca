"""What a run would do: its cells, what of them is kept, and about how long the rest takes. Nothing is written.

A cell is named VICTIM-SEED, as its folder is, and numbered from 0 in the order of the spec. What is kept is told by its
seal, without a look at whether it is whole. Times are those of cells of the same victim that are done: their steps'
seconds, for the share of places that are left.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean
from typing import Any, cast

from cowbird.errors import UserError
from cowbird.experiments.cell import Cell, digest_place, list_cells
from cowbird.experiments.cell_files import EVIDENCE_FOLDER, name_evidence
from cowbird.experiments.growth import check_bound
from cowbird.experiments.spec import Spec
from cowbird.experiments.store import SealedStore

MAX_LISTED_CELLS = 20
"""Names of cells that an error lists."""


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """What a run would do with one cell."""

    number: int
    """Its number in the whole spec, from 0."""
    name: str
    """Its name."""
    done: bool
    """Whether all that the spec asks for was measured."""
    places: int
    """Attacks, each under each defense in each scenario."""
    measured: int
    """How many of them are measured and kept."""
    models: int
    """Models that are kept; they are not fitted again."""
    seconds: float | None
    """About how long the rest takes; `None` if no cell of this victim is done."""


def select_cells(cells: Sequence[Cell], only: str = "", number: int | None = None) -> list[Cell]:
    """Return the cells whose name matches a pattern, or the one that has a number.

    Args:
        cells: All cells.
        only: A pattern with `*`, `?` and `[…]`; empty stands for all.
        number: The place of a cell among all, from 0; `None` for no matter which.

    Raises:
        UserError: If there is none, or both are given.
    """
    if number is not None:
        if only:
            raise UserError("--cell names one cell, and --only others by name.", "Give one of them.")
        if not 0 <= number < len(cells):
            hint = f"They are numbered from 0 to {len(cells) - 1}; --dry-run lists them."
            raise UserError(f"There is no cell {number} in this spec, which has {len(cells)} cells.", hint)
        return [cells[number]]
    found = [cell for cell in cells if not only or fnmatchcase(cell.folder.name, only)]
    if not found:
        names = [cell.folder.name for cell in cells]
        shown = ", ".join(names[:MAX_LISTED_CELLS]) + " …" * (len(names) > MAX_LISTED_CELLS)
        raise UserError(f"No cell is called '{only}'.", f"The cells are: {shown}.")
    return found


def plan_run(spec: Spec, out: Path, only: str = "", number: int | None = None) -> list[PlannedCell]:
    """Return what a run would do, in the order of its cells.

    Args:
        spec: The experiment.
        out: Its folder, which may hold a part of the run.
        only: Which cells, as `select_cells` has it.
        number: Which cell, likewise.

    Raises:
        UserError: If the folder holds something else, or no cell matches.
    """
    check_bound(spec, out)
    cells = list_cells(spec, out)
    chosen = select_cells(cells, only, number)
    numbers = {cell.folder: place for place, cell in enumerate(cells)}
    known: dict[str, list[float]] = {}
    for cell in cells:
        spent = _read_seconds(cell) if cell.done else None
        if spent is not None:
            known.setdefault(cell.victim.title(), []).append(spent)
    return [_plan_cell(cell, numbers[cell.folder], known.get(cell.victim.title(), [])) for cell in chosen]


def _plan_cell(cell: Cell, number: int, known: Sequence[float]) -> PlannedCell:
    spec = cell.spec
    kept = SealedStore(cell.folder / EVIDENCE_FOLDER, lambda _: None)
    places = [
        (attack, defense, scenario)
        for attack in spec.attacks
        for defense in spec.defenses
        for scenario in spec.scenarios
    ]
    measured = sum(
        kept.peek_origin(f"{name_evidence(*(part.title() for part in place))}.safetensors")
        == digest_place(cell, *place)
        for place in places
    )
    models = len(list((cell.folder / "models").glob("**/*.sha256")))
    done = cell.done
    left = 0.0 if done else 1 - measured / len(places)
    seconds = 0.0 if done else left * fmean(known) if known else None
    return PlannedCell(number, cell.folder.name, done, len(places), measured, models, seconds)


def _read_seconds(cell: Cell) -> float | None:
    """Return the seconds that are on record of a cell's steps; `None` if there are none."""
    try:
        times = json.loads(cell.record_path.read_text(encoding="utf-8"))["seconds"]
        values = [float(value) for value in cast("dict[str, Any]", times).values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    total = sum(values)
    return total if values and math.isfinite(total) else None
