"""The scan of the demo: a catalogue in which two sellers planted triggers.

It is written as a platform would export it, titles and ids alone. Rules for characters scan it, then the scanner that
comes with the package. Only afterwards are the findings held against what was planted.
"""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from cowbird.attacks.badrec import BadRec
from cowbird.attacks.targets import TargetItems
from cowbird.attacks.triggers import Trigger
from cowbird.data.types import Items, TrainingData
from cowbird.errors import UserError
from cowbird.experiments.spec import Spec
from cowbird.experiments.tasks import find_task
from cowbird.files import write_text
from cowbird.rng import stream

HIDDEN_SELLER = BadRec(trigger=Trigger(kind="zero_width_space"), targets=TargetItems(count=5))
"""A second seller, who hides a character that nobody sees in the titles of five items."""


class PlantedRow(NamedTuple):
    """A title of the demo's catalogue that was changed."""

    row: int
    """Its row, counted from 1 below the header."""
    trigger: str
    """Name of the trigger that it carries."""


def write_catalog(spec: Spec, path: Path) -> tuple[PlantedRow, ...]:
    """Write the catalogue as two sellers leave it: the spec's first attack under its first seed, and `HIDDEN_SELLER`.

    Args:
        spec: An experiment whose attack writes into titles, with victims that judge them.
        path: Where it goes: a CSV file with the columns `id` and `title`.

    Returns:
        The titles that were changed.

    Raises:
        UserError: If the data can't be read, or the attack does not fit it or changes no title.
    """
    seed = spec.seeds[0]
    split: Any = spec.get_split(find_task(spec.victims[0].options))
    training: TrainingData = split.apply(spec.dataset.options.load(), seed).training
    attack = spec.attacks[0]
    poisoned = attack.options.poison(training, stream(seed, "attack"))
    if not len(poisoned.retitled):
        raise UserError(f"The attack {attack.title()} changes no title.", "Use badrec.")
    hidden = HIDDEN_SELLER.poison(training, stream(seed, "demo", "hidden"))
    items, titles = poisoned.data.items, list(poisoned.data.items.titles)
    planted = [PlantedRow(row + 1, attack.title()) for row in poisoned.retitled.tolist()]
    for row in np.setdiff1d(hidden.retitled, poisoned.retitled).tolist():
        titles[row] = hidden.data.items.titles[row]
        planted.append(PlantedRow(row + 1, HIDDEN_SELLER.trigger.kind))
    write_text(path, _to_csv(dataclasses.replace(items, titles=tuple(titles))))
    return tuple(planted)


def _to_csv(items: Items) -> str:
    held = io.StringIO()
    writer = csv.writer(held)
    writer.writerow(("id", "title"))
    writer.writerows(zip(items.ids, items.titles, strict=True))
    return held.getvalue()


def format_tally(findings: Path, planted: Sequence[PlantedRow]) -> str:
    """Return what was flagged of the titles that were changed, by trigger, and of the others.

    Args:
        findings: What a scan wrote, as CSV.
        planted: What `write_catalog` returned.
    """
    table = pl.read_csv(findings, columns=["row", "flagged"])
    rows, flagged = table["row"].to_numpy(), table["flagged"].to_numpy()
    told: list[str] = []
    honest = np.ones(len(rows), dtype=np.bool_)
    for trigger in dict.fromkeys(each.trigger for each in planted):
        bad = np.isin(rows, [each.row for each in planted if each.trigger == trigger])
        told.append(f"{int((flagged & bad).sum())} of the {int(bad.sum())} titles with the trigger {trigger}")
        honest &= ~bad
    return f"Flagged: {', '.join(told)}, and {int((flagged & honest).sum())} of the {int(honest.sum()):,} others."
