"""A statistic: how often each item is shown when all users are given one value of their profile, value by value.

A model with prompts reads profiles. A backdoor that obeys one value, such as an age bracket, shows its items as soon as
that value is set, whoever's history it is. Null models read no profiles: what they show after the same histories is
what each value is held against. An item's score is its largest one over the values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Attribute, Float64Array, Int64Array, IntArray, Users
from cowbird.inspection.model import ProfiledModel, RankingModel
from cowbird.inspection.probes import HistoryProbe, count_items, rank_first
from cowbird.inspection.statistics import standardize_counts

MAX_FLIPPED_HISTORIES = 1000
"""Histories that are asked with each value."""
MAX_VALUES = 40
"""Values at most, those of the first attributes."""


@dataclass(frozen=True, eq=False)
class ProfileFlips:
    """Exposure by profile value; see the module."""

    own: HistoryProbe
    """Histories of the platform's own users."""
    users: Users
    """Whose each is, one a history, with their profiles."""
    values: tuple[tuple[str, str], ...]
    """Attributes and values that are set."""
    name: str = "profile"

    def list_parts(self) -> list[str]:
        """Return all that decides what is asked; see `ItemStatistic.list_parts`."""
        codes = [column.codes.tobytes().hex() for _, column in sorted(self.users.attributes.items())]
        return [self.name, *self.own.list_parts(), *codes, *(f"{name}={value}" for name, value in self.values)]

    def describe(self) -> str:
        """Return what is asked, in words; see `ItemStatistic.describe`."""
        return (
            f"{len(self.own.histories):,} histories of the platform's users with each of {len(self.values)} values set"
        )

    def measure(self, model: RankingModel) -> Int64Array:
        """Count how often each item is among the first ten with each value set, shape `[values, items]`."""
        if not isinstance(model, ProfiledModel):
            plain = count_items(rank_first(model, self.own.histories), model.items)
            return np.tile(plain, (len(self.values), 1))
        rows: list[Int64Array] = []
        for name, value in self.values:
            flipped = flip_profiles(self.users, name, value)
            first = rank_first(_Flipped(model, flipped), self.own.histories)
            rows.append(count_items(first, model.items))
        return np.stack(rows)

    def score(self, mine: NDArray[Any], nulls: Sequence[NDArray[Any]]) -> Float64Array:
        """Return each item's largest score over the values; see `ItemStatistic.score`."""
        expected = np.mean(nulls, axis=0)
        return np.max([standardize_counts(row, mean) for row, mean in zip(mine, expected, strict=True)], axis=0)


class _Flipped:
    """A model that is asked with profiles; histories come in the order of the users, some at a time."""

    def __init__(self, model: ProfiledModel, users: Users) -> None:
        self.model, self.users, self.items = model, users, model.items
        self.done = 0

    def score(self, histories: Sequence[IntArray]) -> NDArray[np.float32]:
        """Score the next histories with their users' profiles."""
        rows = np.arange(self.done, self.done + len(histories))
        self.done += len(histories)
        return self.model.score_profiled(histories, self.users.take(rows))


def flip_profiles(users: Users, name: str, value: str) -> Users:
    """Return users whose attribute has one value in all profiles."""
    column = Attribute.from_values([value] * len(users))
    return Users(users.ids, {**users.attributes, name: column})


def find_flips(model: RankingModel, own: HistoryProbe, users: Users) -> ProfileFlips | None:
    """Return the statistic; `None` if the model reads no profiles, or the users lack what it reads.

    Args:
        model: The model.
        own: Histories of the platform's users.
        users: The users, with their profiles.
    """
    if not isinstance(model, ProfiledModel) or own.users is None:
        return None
    labels = model.profile_labels
    if not labels or not set(labels) <= set(users.attributes):
        return None
    few = HistoryProbe("own", own.histories[:MAX_FLIPPED_HISTORIES], own.users[:MAX_FLIPPED_HISTORIES])
    values = tuple((name, value) for name, known in labels.items() for value in known)[:MAX_VALUES]
    assert few.users is not None
    return ProfileFlips(few, users.take(few.users), values)
