"""The platform's own interactions, numbered as the inspected model numbers its items."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from cowbird.data.sources.atomic import Atomic
from cowbird.data.sources.base import Source
from cowbird.data.sources.tabular import Tabular
from cowbird.data.split import LeaveOneOut
from cowbird.data.types import Dataset, IntArray, Interactions, Items, Users
from cowbird.errors import UserError
from cowbird.faults import raise_outage
from cowbird.files import hash_texts
from cowbird.plugins import find_plugin, list_plugins
from cowbird.rng import stream

MIN_EVENTS = 3
"""Events that a user must have for null models to learn from."""
MAX_ITEM_FILE_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class PlatformLog:
    """What a platform knows: who did what, in the model's numbers."""

    interactions: Interactions
    """Events; items are numbered as in the model. Users without events are left out."""
    users: Users
    """Profiles, aligned with the interactions."""
    items: Items
    """The model's catalogue: ids and titles as the platform has them."""
    dropped: int
    """Events of items that the model does not know."""
    assumed: str
    """What had to be assumed about the numbers of items, in words; empty if they are told."""

    def hash_content(self) -> str:
        """Return the SHA-256 of events and item ids."""
        known = self.interactions
        return hash_texts([known.item.tobytes().hex(), known.offsets.tobytes().hex(), *self.items.ids])

    def select_learnable(self, max_events: int | None = None, seed: int = 0) -> LeaveOneOut:
        """Return the users that null models can learn from.

        Args:
            max_events: Events of theirs at most; if there are more, users are drawn. `None` takes all.
            seed: Decides who is drawn.

        Raises:
            UserError: If there is none.
        """
        kept = np.flatnonzero(self.interactions.lengths >= MIN_EVENTS)
        if max_events is not None:
            drawn = stream(seed, "inspection", "users").permutation(kept)
            within = np.cumsum(self.interactions.lengths[drawn]) <= max_events
            within[:1] = True
            kept = np.sort(drawn[within])
        if not len(kept):
            raise UserError(
                f"No user of the logs has {MIN_EVENTS} events with items that the model knows.",
                "Give longer logs, or say with --items which items the model knows.",
            )
        return LeaveOneOut(self.interactions.select(kept), self.users.take(kept), self.items)


def load_log(given: str) -> Dataset:
    """Read interactions: a folder of atomic files, a table with `user_id` and `item_id`, or a dataset by its name.

    Raises:
        UserError: If there is nothing of the name, or it can't be read.
    """
    path = Path(given)
    if path.is_dir():
        return Atomic(path=path).load()
    if path.exists():
        return Tabular(path=path).load()
    if given in list_plugins("dataset"):
        kind: type[Source] = find_plugin("dataset", given)
        if not any(field.is_required() for field in kind.model_fields.values()):
            return kind().load()
    raise UserError(
        f"The logs '{given}' are not there.",
        "Give a .csv or .parquet with the columns user_id and item_id, a folder of atomic files, or a dataset's name.",
    )


def read_item_ids(path: Path, items: int) -> tuple[str, ...]:
    """Read the ids of a model's items, in the model's order.

    Args:
        path: A text file with an id a line, or a `.csv` with a column `item_id`.
        items: How many items the model has.

    Raises:
        UserError: If it can't be read, or has another number of ids, or an id twice.
    """
    try:
        if path.stat().st_size > MAX_ITEM_FILE_BYTES:
            raise UserError(f"'{path}' is larger than a gigabyte.", "Give the ids alone.")
        if path.suffix == ".csv":
            table = pl.read_csv(path, infer_schema=False)
            if "item_id" not in table.columns:
                raise UserError(f"'{path}' should have a column item_id.", "Name the column so.")
            ids = [str(item) for item in table["item_id"].to_list()]
        else:
            ids = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        raise_outage(error, f"'{path}' can't be read")
        raise UserError(f"'{path}' should hold the ids of the model's items, and it can't be read.") from None
    if len(ids) != items or len(set(ids)) != len(ids):
        raise UserError(
            f"'{path}' should hold {items} different ids, one an item of the model, and holds {len(ids)}, "
            f"{len(set(ids))} of them different.",
            "Give the ids in the model's order, with a line for every item.",
        )
    return tuple(ids)


def align_log(data: Dataset, items: int, item_ids: tuple[str, ...] | None) -> PlatformLog:
    """Number the items of a log as a model does.

    Args:
        data: The log.
        items: How many items the model has.
        item_ids: Their ids in the model's order; `None` if the log's catalogue has the same order.

    Raises:
        UserError: If the log knows none of the items, or the numbers of items differ and no ids are given.
    """
    if item_ids is None:
        if len(data.items) != items:
            raise UserError(
                f"The model has {items} items and the logs have {len(data.items)}, so which is which is not known.",
                "Give the ids of the model's items in its order with --items.",
            )
        said = "The model numbers its items in the order in which the logs list them."
        return _drop_empty(data.interactions, data.users, data.items, 0, said)
    place = {item: number for number, item in enumerate(item_ids)}
    numbers = np.array([place.get(item, -1) for item in data.items.ids], dtype=np.int32)
    mapped = numbers[data.interactions.item] if len(numbers) else np.empty(0, dtype=np.int32)
    known = mapped >= 0
    if not known.any():
        raise UserError(
            "The logs hold no event with an item that the model knows.", "Check the ids that --items gives."
        )
    kept = np.concatenate([[0], np.cumsum(known)])[data.interactions.offsets]
    titles = dict(zip(data.items.ids, data.items.titles, strict=True))
    catalog = Items.from_lists(item_ids, [titles.get(item, "") for item in item_ids])
    return _drop_empty(Interactions(mapped[known], kept), data.users, catalog, int((~known).sum()), "")


def _drop_empty(interactions: Interactions, users: Users, items: Items, dropped: int, assumed: str) -> PlatformLog:
    kept: IntArray = np.flatnonzero(interactions.lengths)
    return PlatformLog(interactions.select(kept), users.take(kept), items, dropped, assumed)
