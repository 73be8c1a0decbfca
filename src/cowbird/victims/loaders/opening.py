"""Opens a checkpoint of another library, whichever it is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from cowbird.errors import UserError
from cowbird.plugins import find_plugin, list_plugins
from cowbird.victims.loaders._checkpoints import READABLE_MODELS, ForeignCheckpoint
from cowbird.victims.loaders.base import ForeignModel, Loader
from cowbird.victims.loaders.item_map import read_item_map

__all__ = ["READABLE_MODELS", "CheckpointOptions", "open_checkpoint", "parse_settings"]


class CheckpointOptions(NamedTuple):
    """What a person says of a checkpoint."""

    format: str = ""
    """Name of the loader; if empty, the file tells."""
    settings: Mapping[str, object] = {}
    """Fields of the loader, such as `heads`, which a file may not tell."""
    item_map: Path | None = None
    """A file with the ids of the items; see `item_map`."""


def parse_settings(given: Sequence[str]) -> dict[str, object]:
    """Return fields of a loader from texts such as `heads=2`.

    Raises:
        UserError: If one is no such text, or a field is named twice.
    """
    found: dict[str, object] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name or name in found:
            raise UserError(
                f"'{text[:60]}' is no setting of a loader, or one given twice.", "Write NAME=VALUE: heads=2."
            )
        found[name] = value
    return found


def open_checkpoint(path: Path, options: CheckpointOptions | None = None) -> ForeignModel:
    """Open a checkpoint of RecBole, RePlay, RecTools or another library that has a loader. Nothing in it is run.

    Args:
        path: The file.
        options: What the file does not tell.

    Raises:
        UserError: If the file is missing, damaged, hides something, or is of no known format.
        OutageError: If it can't be read for a passing fault.
    """
    options = options or CheckpointOptions()
    checkpoint = ForeignCheckpoint(path)
    kind = _find_loader(checkpoint, options.format)
    try:
        loader = kind.model_validate(dict(options.settings))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise UserError(
            f"The setting '{name[:60]}' of the loader can't be taken: {first['msg'][:200]}.",
            f"Settings: {', '.join(kind.model_fields)}.",
        ) from None
    plan = loader.plan(checkpoint)
    if options.item_map is not None:
        plan = plan.with_ids(read_item_map(options.item_map, plan.items, plan.first))
    return ForeignModel(checkpoint, plan)


def _find_loader(checkpoint: ForeignCheckpoint, name: str) -> type[Loader]:
    """Return the loader of that name, or the one that recognizes the file.

    Raises:
        UserError: If there is none.
    """
    if name:
        return find_plugin("loader", name)
    known: list[type[Loader]] = [find_plugin("loader", each) for each in list_plugins("loader")]
    for kind in known:
        if kind.recognize(checkpoint):
            return kind
    libraries = ", ".join(sorted(kind.library for kind in known))
    raise UserError(
        f"'{checkpoint.path}' is a checkpoint of a network that Cowbird does not know ({len(checkpoint.tensors)} "
        f"tensors, the first is '{next(iter(checkpoint.tensors))[:100]}').",
        f"Known: {libraries}. Serve another model yourself, and have its answers inspected: "
        "docs/how-to/foreign_models.md.",
    )
