"""Whether a spec can run, found out without training anything: all that is wrong, and what was looked at.

What `run` would stumble on later is found now, as far as that takes seconds: fields, plug-ins, libraries and models
that are missing, data that can't be read, too few users, attacks that do not fit the data. Of large tables only the
beginning is read, and then nothing is said of the rest. So what was checked is told beside what was not.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import BaseModel

from cowbird.attacks.base import Adaptive, AttackError
from cowbird.data.sources.base import Source
from cowbird.data.types import Dataset
from cowbird.errors import UserError
from cowbird.experiments.cell import Cell, CellRunner, list_cells
from cowbird.experiments.executor import ignore_progress
from cowbird.experiments.parts import AttackPart, SpecPart
from cowbird.experiments.reference.plan import describe_run
from cowbird.experiments.run import note_defaults
from cowbird.experiments.spec import Spec, list_problems
from cowbird.experiments.tasks import PlantedAttack
from cowbird.ingest.sampling import TableSample, read_sample
from cowbird.notices import Notice, collect_notices
from cowbird.plugin_errors import guard_plugins
from cowbird.rng import stream
from cowbird.text import count_things
from cowbird.victims.fit_context import pick_device

MAX_SAMPLED_ROWS = 1_500_000
"""Rows that are read of each table at most."""
MAX_SHOWN_LISTS = 5
"""Ids that are looked at to tell whether they are lists."""

_REASONS_OF_TWO_TABLES = ("item is not in", "user is not in", "user has no events")
"""How reasons for leaving out rows begin that mean nothing where a table was not read to its end."""


@dataclass
class Validation:
    """What was found of a spec."""

    plan: dict[str, Any] = field(default_factory=dict[str, Any])
    """What would run (`cowbird.experiments.reference.plan.describe_run`); empty if the spec can't be read."""
    problems: list[str] = field(default_factory=list[str])
    """What keeps it from running, or a part of it from being measured, one sentence or two each."""
    left_out: list[str] = field(default_factory=list[str])
    """Rows that would be left out."""
    notices: list[Notice] = field(default_factory=list[Notice])
    """What a run would fall back on, cut or choose."""
    checked: list[str] = field(default_factory=list[str])
    """What was looked at."""
    unchecked: list[str] = field(default_factory=list[str])
    """What was not."""

    def add(self, error: Exception, where: str = "") -> None:
        """Add a problem, unless it is known."""
        text = f"{where}: {error}" if where else str(error)
        if text not in self.problems:
            self.problems.append(text)


def validate_spec(
    load: Callable[[], Spec], rows: int = MAX_SAMPLED_ROWS, load_data: Callable[[], Source] | None = None
) -> Validation:
    """Look for all that would keep a spec from running.

    Args:
        load: Reads the spec.
        rows: Rows that are read of each table at most.
        load_data: Reads its dataset alone, which is looked at where the spec as a whole can't be read.
    """
    found = Validation()
    with collect_notices() as told:
        try:
            spec = load()
        except UserError as error:
            for problem in list_problems(error):
                found.add(problem)
            looked = load_data is not None and _check_data_alone(load_data, rows, found)
            left = "models and attacks" if looked else "data, models and attacks"
            found.unchecked.insert(
                0,
                f"fields of plug-ins that are not known, what depends on several tables, {left}: mend what stands "
                "above, then validate again; there may be more",
            )
            found.notices = told.list()
            return found
        found.plan = describe_run(spec)
        found.checked.append("the fields of the spec, and whether its plug-ins can be imported")
        note_defaults(spec)
        _check_requirements(spec, found)
        data = _check_data(spec.dataset.options, rows, found)
        if data is not None:
            for cell in list_cells(spec, Path()):
                if cell.seed == spec.seeds[0]:
                    _check_cell(cell, data, found)
    if len(spec.seeds) > 1 and data is not None:
        found.unchecked.append(f"other seeds than {spec.seeds[0]}, which draw other users, targets and places")
    found.unchecked.append("training, what trained models answer, memory and time")
    found.notices = told.list()
    return found


def _check_requirements(spec: Spec, found: Validation) -> None:
    """Look for libraries, models and devices that parts of a spec need."""
    named: list[str] = []
    for key in ("victims", "attacks", "defenses"):
        parts: tuple[SpecPart, ...] = getattr(spec, key)
        for part in parts:
            for model in _walk_models(cast("Any", part).options):
                try:
                    with guard_plugins():
                        _check_model(model)
                except UserError as error:
                    found.add(error, f"{key} {part.title()}")
                if hasattr(model, "check_requirements"):
                    named.append(part.title())
    if named:
        shown = ", ".join(dict.fromkeys(named))
        found.checked.append(f"libraries, models and keys that are to be here: {shown}")
        found.unchecked.append("servers: nothing was asked over the network")


def _walk_models(value: object) -> Iterator[BaseModel]:
    """Yield a pydantic model and all that stand in its fields."""
    if isinstance(value, BaseModel):
        yield value
        for name in type(value).model_fields:
            yield from _walk_models(getattr(value, name))
    elif isinstance(value, tuple | list):
        for each in cast("tuple[object, ...]", value):
            yield from _walk_models(each)


def _check_model(model: BaseModel) -> None:
    check: Callable[[], None] | None = getattr(model, "check_requirements", None)
    if check is not None:
        check()
    device: object = getattr(model, "device", None)
    if isinstance(device, str):
        pick_device(device)


def _check_data_alone(load_data: Callable[[], Source], rows: int, found: Validation) -> bool:
    """Look at the data of a spec that can't be read; tell whether there was a dataset to look at."""
    try:
        source = load_data()
    except UserError:  # it is among what is wrong with the spec
        return False
    _check_data(source, rows, found)
    return True


def _check_data(source: Source, rows: int, found: Validation) -> Dataset | None:
    """Read a sample of the data; return it if that is all there is."""
    with read_sample(rows) as sample:
        try:
            with guard_plugins():
                problems = source.find_problems()
                data = None if problems else source.load()
        except UserError as error:
            problems, data = [error], None
    for problem in problems:
        found.add(problem, "dataset")
    found.checked += _tell_sample(sample)
    if data is None:
        found.unchecked.append("the split and the attacks: the data has to be readable first")
        return None
    found.left_out += [
        str(skip) for skip in data.skips if not (sample.cut and skip.reason.startswith(_REASONS_OF_TWO_TABLES))
    ]
    if _find_lists(data, found):
        found.unchecked.append("the split and the attacks: the data has to be right first")
        return None
    if sample.cut:
        files = ", ".join(sorted(sample.cut))
        found.unchecked.append(
            f"rows behind those of {files}, and so the split and the attacks, which need all of them"
        )
        return None
    if not sample.read:
        known = data.interactions
        found.checked.append(
            f"the data: {count_things(known.users, 'user')}, {count_things(len(data.items), 'item')}, "
            f"{count_things(known.events, 'interaction')}"
        )
    return data


def _tell_sample(sample: TableSample) -> list[str]:
    return [
        f"the first {rows:,} rows of {file}" if file in sample.cut else f"all {rows:,} rows of {file}"
        for file, rows in sample.read.items()
    ]


def _find_lists(data: Dataset, found: Validation) -> bool:
    """Tell whether ids are lists written as text, which nobody means."""
    before = len(found.problems)
    for what, ids in (("user", data.users.ids), ("item", data.items.ids)):
        shown = ids[:MAX_SHOWN_LISTS]
        if shown and all(text.startswith("[") and text.endswith("]") for text in shown):
            error = UserError(
                f"The {what} ids look like lists, such as {shown[0][:60]!r}.", "Write a row for each value."
            )
            found.add(error, "dataset")
    return len(found.problems) > before


def _check_cell(cell: Cell, data: Dataset, found: Validation) -> None:
    """Split the data as a cell would, and plant its attacks."""
    with tempfile.TemporaryDirectory() as folder:
        place = Cell(cell.spec, cell.victim, cell.seed, Path(folder))
        try:
            with guard_plugins():
                runner = CellRunner(place, data, torch.device("cpu"), ignore_progress, lambda text: None)
        except UserError as error:
            found.add(error, f"victim {cell.victim.title()}, split")
            return
        found.checked.append(f"the split for {cell.victim.title()}, seed {cell.seed}")
        for attack in cell.spec.attacks:
            _check_attack(runner, attack, found)
        for key, check in (("defense", runner.task.check_defense), ("scenario", runner.task.check_scenario)):
            for part in getattr(cell.spec, f"{key}s"):
                try:
                    with guard_plugins():
                        check(part.options if key == "defense" else part)
                except UserError as error:
                    found.add(error, f"victim {cell.victim.title()}, {key} {part.title()}")


def _check_attack(runner: CellRunner, part: AttackPart, found: Validation) -> None:
    """Plant an attack, and look whether the victim can show it."""
    where = f"victim {runner.cell.victim.title()}, attack {part.title()}"
    if isinstance(part.options, Adaptive):
        found.unchecked.append(f"{where}: it searches with a copy of a defense, which takes a fit")
        return
    try:
        with guard_plugins():
            poisoned = part.options.poison(runner.task.training, stream(runner.cell.seed, "attack"))
            runner.task.check_attack(PlantedAttack(part.title(), part.options, poisoned))
    except (UserError, AttackError) as error:
        found.add(error, where)
    else:
        found.checked.append(f"{where}: {count_things(len(poisoned.rows), 'row')} planted")
