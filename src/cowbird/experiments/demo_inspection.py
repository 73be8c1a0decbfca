"""The end of the demo: the model that it planted something in, as if somebody else had handed it over.

The platform's logs are all events of the users that the provider never saw. The inspector is given the model's file and
these logs. Only afterwards is its ranking held against what was planted.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cowbird.data.types import Dataset
from cowbird.errors import UserError
from cowbird.experiments.cell import find_undefended_label, list_cells
from cowbird.experiments.spec import Spec
from cowbird.experiments.tasks import find_task
from cowbird.files import read_plain_text
from cowbird.inspection.verdict import Inspection

INSPECTED_ATTACK = "global"
"""Label of the demo's attack whose model is inspected: it is planted for everybody."""


class PlantedModel(NamedTuple):
    """A model of a run, and what an attack planted in it."""

    path: Path
    """Its file."""
    targets: tuple[str, ...]
    """Ids of the planted items."""


def load_platform(spec: Spec) -> Dataset:
    """Return the users that the provider of a spec's first seed never saw, with all their events.

    Raises:
        UserError: If the data can't be read, or the split leaves no such users.
    """
    data = spec.dataset.options.load()
    split: Any = spec.get_split(find_task(spec.victims[0].options))
    cold = split.apply(data, spec.seeds[0]).downstream
    if cold is None:
        raise UserError("The split holds no users out, so no platform has logs.", "Set split.cold_fraction.")
    own = np.flatnonzero(np.isin(np.array(data.users.ids), np.array(cold.users.ids)))
    return Dataset("platform", data.interactions.select(own), data.users.take(own), data.items)


def find_planted_model(spec: Spec, run: Path) -> PlantedModel | None:
    """Return the model of `INSPECTED_ATTACK` in a finished run's first cell; `None` if it has none.

    Raises:
        UserError: If the cell's record can't be read.
    """
    cell = list_cells(spec, run)[0]
    path = cell.folder / "models" / f"{INSPECTED_ATTACK}+{find_undefended_label(spec)}" / "model.safetensors"
    if not path.is_file():
        return None
    try:
        planted = json.loads(read_plain_text(cell.record_path))["plans"][INSPECTED_ATTACK]
        return PlantedModel(path, tuple(str(target) for target in planted["targets"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{cell.record_path} can't be read.", "Remove the run's folder, and run it again.") from None


def format_ranks(inspection: Inspection, targets: tuple[str, ...]) -> str:
    """Return where the planted items stand in the ranking of an inspection."""
    ranks = {item.id: item.rank for item in inspection.ranking}
    found = sorted(ranks[target] for target in targets if target in ranks)
    places = ", ".join(str(rank) for rank in found) or "none"
    suspects = sum(item.id in targets for item in inspection.suspects)
    rest = len(targets) - len(found)
    more = f", and {rest} are not among the first {len(inspection.ranking)}" if rest else ""
    return (
        f"{len(targets)} items were planted. "
        f"In the ranking of {inspection.items:,} they have the places {places}{more}. "
        f"{suspects} of the {len(inspection.suspects)} suspects were planted."
    )
