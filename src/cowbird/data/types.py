"""The data every part of Cowbird works on: flat arrays, read-only, with what was skipped beside them.

Users and items are numbered 0 … n-1 here; the ids of the source are kept as strings beside them. Nothing in this
module reads files: `cowbird.data.sources` does.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from cowbird.errors import UserError
from cowbird.ingest.skips import Skip

IntArray = NDArray[np.int32] | NDArray[np.int64]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]


def freeze(values: ArrayLike, dtype: DTypeLike) -> NDArray[Any]:
    """Return `values` as a contiguous read-only array of `dtype` (a copy only where one is needed)."""
    array = np.ascontiguousarray(values, dtype=dtype)
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


def concat_ranges(starts: IntArray, lengths: IntArray) -> Int64Array:
    """Concatenate `arange(start, start + length)` for every pair.

    Args:
        starts: First index of each run, shape `[runs]`.
        lengths: Length of each run, shape `[runs]`, zeros allowed.

    Returns:
        The indices, shape `[lengths.sum()]`, int64.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    shift = np.repeat(np.asarray(starts, dtype=np.int64) - (ends - lengths), lengths)
    return np.arange(total, dtype=np.int64) + shift


@dataclass(frozen=True, slots=True, eq=False)
class Interactions:
    """Every user's events in time order, as one flat array.

    User `u` interacted with `item[offsets[u]:offsets[u + 1]]`, oldest first.
    """

    item: Int32Array
    """Item index of each event, shape `[events]`, int32."""
    offsets: Int64Array
    """Where each user's events begin, shape `[users + 1]`, int64, from 0 to `events`."""
    rating: Float32Array | None = None
    """Rating of each event, shape `[events]`, nan where it is missing; `None` if the source has none."""
    timestamp: Float64Array | None = None
    """Seconds since 1970 (or the source's own unit) of each event, shape `[events]`, or `None`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "item", freeze(self.item, np.int32))
        object.__setattr__(self, "offsets", freeze(self.offsets, np.int64))
        for name, dtype in (("rating", np.float32), ("timestamp", np.float64)):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, freeze(values, dtype))
                if len(values) != len(self.item):
                    raise ValueError(f"{name} has {len(values)} values for {len(self.item)} events")
        if len(self.offsets) == 0 or self.offsets[0] != 0 or self.offsets[-1] != len(self.item):
            raise ValueError("offsets must run from 0 to the number of events")
        if np.any(np.diff(self.offsets) < 0):
            raise ValueError("offsets must not decrease")

    @property
    def users(self) -> int:
        """Number of users."""
        return len(self.offsets) - 1

    @property
    def events(self) -> int:
        """Number of events."""
        return len(self.item)

    @property
    def lengths(self) -> Int64Array:
        """Events per user, shape `[users]`."""
        return np.diff(self.offsets)

    def user_of_event(self) -> Int64Array:
        """Return the user of each event, shape `[events]`."""
        return np.repeat(np.arange(self.users, dtype=np.int64), self.lengths)

    def take(self, starts: IntArray, lengths: IntArray) -> "Interactions":
        """Return new interactions made of one run of events a user.

        Args:
            starts: First event of each new user, shape `[new users]`.
            lengths: Number of events of each new user, shape `[new users]`.
        """
        index = concat_ranges(starts, lengths)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return Interactions(
            self.item[index],
            offsets,
            None if self.rating is None else self.rating[index],
            None if self.timestamp is None else self.timestamp[index],
        )

    def drop_unrated(self) -> "Interactions":
        """Return the interactions without events that have no rating, if there are ratings at all."""
        if self.rating is None or not np.isnan(self.rating).any():
            return self
        kept = ~np.isnan(self.rating)
        before = np.concatenate([[0], np.cumsum(kept)])
        times = None if self.timestamp is None else self.timestamp[kept]
        return Interactions(self.item[kept], before[self.offsets], self.rating[kept], times)

    def select(self, users: IntArray) -> "Interactions":
        """Return the interactions of some users, in the order given."""
        return self.take(self.offsets[:-1][users], self.lengths[users])

    @staticmethod
    def from_lists(histories: Iterable[Sequence[int]]) -> "Interactions":
        """Build interactions from one list of item indices a user (for tests and small uses)."""
        rows = [list(row) for row in histories]
        flat = [item for row in rows for item in row]
        return Interactions(np.array(flat, dtype=np.int32), np.cumsum([0, *map(len, rows)]))


@dataclass(frozen=True, slots=True, eq=False)
class Attribute:
    """One categorical column, such as the age bracket of every user."""

    codes: Int32Array
    """Index into `labels` for each row, shape `[rows]`, int32; -1 where the value is missing."""
    labels: tuple[str, ...]
    """The values, as the source writes them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "codes", freeze(self.codes, np.int32))

    def find_rows(self, label: str) -> NDArray[np.bool_]:
        """Return which rows have a value, shape `[rows]`.

        Raises:
            UserError: If no row can have it; the hint lists the values there are.
        """
        if label not in self.labels:
            shown = ", ".join(repr(known) for known in self.labels[:20])
            raise UserError(f"No row has the value '{label}'.", f"Use one of {shown}.")
        return self.codes == self.labels.index(label)

    def take(self, rows: IntArray) -> "Attribute":
        """Return the column of some rows; a row of -1 becomes a missing value."""
        if not len(self.codes):
            return Attribute(np.full(len(rows), -1, dtype=np.int32), self.labels)
        return Attribute(np.where(np.asarray(rows) < 0, -1, self.codes[rows]), self.labels)

    @staticmethod
    def from_values(values: Iterable[str | None]) -> "Attribute":
        """Number the distinct values in sorted order; `None` and the empty string are missing."""
        rows = list(values)
        labels = tuple(sorted({value for value in rows if value}))
        number = {label: code for code, label in enumerate(labels)}
        return Attribute(np.array([number[v] if v else -1 for v in rows], dtype=np.int32), labels)


@dataclass(frozen=True, slots=True, eq=False)
class Users:
    """Who the users are."""

    ids: tuple[str, ...]
    """The source's ids, one a user."""
    attributes: Mapping[str, Attribute] = field(default_factory=lambda: MappingProxyType({}))
    """Profile attributes by name (age, gender, occupation …), each with one row a user."""

    def __len__(self) -> int:
        return len(self.ids)

    def __reduce__(self) -> "tuple[type[Users], tuple[tuple[str, ...], dict[str, Attribute]]]":
        """Travel to another process, which a mapping that nobody can change does not do by itself."""
        return Users, (self.ids, dict(self.attributes))

    def get_attribute(self, name: str) -> Attribute:
        """Return one attribute.

        Raises:
            UserError: If the source has none of that name; the hint lists the ones there are.
        """
        if name not in self.attributes:
            known = ", ".join(self.attributes) or "none: this source has no profiles"
            raise UserError(f"Users have no attribute '{name}'.", f"Known: {known}.")
        return self.attributes[name]

    def take(self, rows: IntArray) -> "Users":
        """Return some users, in the order given."""
        index: list[int] = np.asarray(rows, dtype=np.int64).tolist()
        return Users(
            tuple(self.ids[row] for row in index),
            MappingProxyType({name: column.take(rows) for name, column in self.attributes.items()}),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """What the items are. An item may belong to several categories."""

    ids: tuple[str, ...]
    """The source's ids, one an item."""
    titles: tuple[str, ...]
    """Titles as the source writes them (untrusted text), one an item; empty where there is none."""
    category_offsets: Int64Array
    """Where each item's categories begin in `category_codes`, shape `[items + 1]`, int64."""
    category_codes: Int32Array
    """Indices into `categories`, shape `[memberships]`, int32."""
    categories: tuple[str, ...] = ()
    """The category names, as the source writes them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "category_offsets", freeze(self.category_offsets, np.int64))
        object.__setattr__(self, "category_codes", freeze(self.category_codes, np.int32))
        if len(self.titles) != len(self.ids) or len(self.category_offsets) != len(self.ids) + 1:
            raise ValueError("items need one id, one title and one run of categories each")

    def __len__(self) -> int:
        return len(self.ids)

    def memberships(self) -> NDArray[np.bool_]:
        """Return which item belongs to which category, shape `[items, categories]`."""
        table = np.zeros((len(self), len(self.categories)), dtype=bool)
        rows = np.repeat(np.arange(len(self)), np.diff(self.category_offsets))
        table[rows, self.category_codes] = True
        return table

    @staticmethod
    def from_lists(
        ids: Iterable[str], titles: Iterable[str] | None = None, categories: Iterable[Sequence[str]] | None = None
    ) -> "Items":
        """Build items from plain lists; titles default to empty and categories to none."""
        known = tuple(ids)
        given: Iterable[Sequence[str]] = categories if categories is not None else [()] * len(known)
        groups = [list(dict.fromkeys(group)) for group in given]
        labels = tuple(sorted({name for group in groups for name in group}))
        number = {label: code for code, label in enumerate(labels)}
        return Items(
            known,
            tuple(titles) if titles is not None else ("",) * len(known),
            np.cumsum([0, *map(len, groups)]),
            np.array([number[name] for group in groups for name in group], dtype=np.int32),
            labels,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """One catalogue, its users and their interactions."""

    name: str
    """Name of the source, used in result rows."""
    interactions: Interactions
    """Events of every user; row `u` belongs to `users.ids[u]`."""
    users: Users
    """Profiles, aligned with `interactions`."""
    items: Items
    """Catalogue; `interactions.item` indexes it."""
    skips: tuple[Skip, ...] = ()
    """What the source left out, and why."""

    def __post_init__(self) -> None:
        if len(self.users) != self.interactions.users:
            raise ValueError(f"{len(self.users)} users, and interactions of {self.interactions.users}")
        if self.interactions.events and int(self.interactions.item.max()) >= len(self.items):
            raise ValueError("an interaction names an item outside the catalogue")

    def to_training_data(self) -> "TrainingData":
        """Return all events as training data; an experiment holds some out first (`cowbird.data.split`)."""
        return TrainingData.from_interactions(self.interactions, self.users, self.items)


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """What a sequential recommender is trained on: histories, and the item to predict at each event."""

    interactions: Interactions
    """The histories. The model sees the events before `e` when it predicts event `e`."""
    users: Users
    """Profiles, aligned with `interactions`."""
    items: Items
    """The catalogue."""
    label: Int32Array
    """Item the model is told to predict at each event, shape `[events]`; `interactions.item` unless poisoned."""
    negative: Int32Array | None = None
    """Item the model is told to rank below the label at each event, shape `[events]`; -1 where there is none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", freeze(self.label, np.int32))
        if self.negative is not None:
            object.__setattr__(self, "negative", freeze(self.negative, np.int32))
        given = {len(column) for column in (self.label, self.negative) if column is not None}
        if given != {self.interactions.events} or len(self.users) != self.interactions.users:
            raise ValueError("labels and negatives align with events and users with histories")

    @staticmethod
    def from_interactions(interactions: Interactions, users: Users, items: Items) -> "TrainingData":
        """Return training data whose labels are the items themselves."""
        return TrainingData(interactions, users, items, interactions.item)
