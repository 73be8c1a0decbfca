"""Training data as polars frames, the way back from `cowbird.make_dataset`."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl

from cowbird.data.types import IntArray, TrainingData


class TrainingFrames(NamedTuple):
    """Training data as tables; `to_pandas()` of each makes it one of pandas."""

    interactions: pl.DataFrame
    """One row an event, users in their order and the events of each in time order: `user_id`, `item_id`, `label` (the
    item that the model is told to predict there), `timestamp` and `rating` where they are known, and `poisoned`."""
    items: pl.DataFrame
    """One row an item: `item_id`, `title`, `category` (a list), and `poisoned`: its title or categories were changed,
    or it was added."""
    users: pl.DataFrame
    """One row a user: `user_id` and the attributes."""


def make_frames(data: TrainingData, rows: IntArray | None = None, items: IntArray | None = None) -> TrainingFrames:
    """Turn training data into tables.

    Args:
        data: The data.
        rows: Events that are poisoned, shape `[rows]`; none by default.
        items: Items that are poisoned, shape `[items]`; none by default.
    """
    known = data.interactions
    item_ids = pl.Series(data.items.ids, dtype=pl.String)
    user_ids = pl.Series(data.users.ids, dtype=pl.String)
    events = {
        "user_id": user_ids.gather(known.user_of_event()),
        "item_id": item_ids.gather(known.item),
        "label": item_ids.gather(data.label),
    }
    for name, column in (("timestamp", known.timestamp), ("rating", known.rating)):
        if column is not None:
            events[name] = pl.Series(column)
    events["poisoned"] = _mark(rows, known.events)
    bounds: list[int] = data.items.category_offsets.tolist()
    codes: list[int] = data.items.category_codes.tolist()
    categories = [[data.items.categories[code] for code in codes[low:high]] for low, high in pairwise(bounds)]
    catalog = {
        "item_id": item_ids,
        "title": pl.Series(data.items.titles, dtype=pl.String),
        "category": pl.Series(categories, dtype=pl.List(pl.String)),
        "poisoned": _mark(items, len(data.items)),
    }
    profiles = {"user_id": user_ids}
    for name, attribute in data.users.attributes.items():
        labels = pl.Series([*attribute.labels, None], dtype=pl.String)
        profiles[name] = labels.gather(np.where(attribute.codes < 0, len(attribute.labels), attribute.codes))
    return TrainingFrames(pl.DataFrame(events), pl.DataFrame(catalog), pl.DataFrame(profiles))


def _mark(rows: IntArray | None, count: int) -> pl.Series:
    marked = np.zeros(count, dtype=bool)
    if rows is not None:
        marked[rows] = True
    return pl.Series(marked)
