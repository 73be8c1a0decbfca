"""A statistic: how often each item is shown to the users of each group, such as one age bracket.

A backdoor for one group shows its items to few of all users, and to many of that group. An item's score is its largest
one over the groups, so it costs chances: more groups, more honest items that stand out in one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Float64Array, Int64Array, Users
from cowbird.inspection.model import RankingModel
from cowbird.inspection.probes import HistoryProbe, count_items, rank_first
from cowbird.inspection.statistics import standardize_counts

MIN_GROUP_HISTORIES = 100
"""Histories that a group must have."""
MAX_GROUPS = 24
"""Groups at most, the largest ones."""


@dataclass(frozen=True, eq=False)
class GroupExposure:
    """Exposure by group; see the module."""

    own: HistoryProbe
    """Histories of the platform's own users."""
    groups: dict[str, NDArray[np.bool_]]
    """Which histories are of each group, by its name, each of shape `[histories]`."""
    name: str = "group"

    def list_parts(self) -> list[str]:
        """Return all that decides what is asked; see `ItemStatistic.list_parts`."""
        return [self.name, *self.own.list_parts(), *(mask.tobytes().hex() for mask in self.groups.values())]

    def describe(self) -> str:
        """Return what is asked, in words; see `ItemStatistic.describe`."""
        return f"the same histories by user group, {len(self.groups)} groups"

    def measure(self, model: RankingModel) -> Int64Array:
        """Count how often each item is among the first ten of each group, shape `[groups, items]`."""
        first = rank_first(model, self.own.histories)
        return np.stack([count_items(first[mask], model.items) for mask in self.groups.values()])

    def score(self, mine: NDArray[Any], nulls: Sequence[NDArray[Any]]) -> Float64Array:
        """Return each item's largest score over the groups; see `ItemStatistic.score`."""
        expected = np.mean(nulls, axis=0)
        return np.max([standardize_counts(row, mean) for row, mean in zip(mine, expected, strict=True)], axis=0)


def find_groups(own: HistoryProbe, users: Users) -> GroupExposure | None:
    """Return the statistic for the groups of a platform; `None` if its users have no profiles, or no group is large.

    Args:
        own: Histories of its users.
        users: The users, with their profiles.
    """
    if own.users is None:
        return None
    found: dict[str, NDArray[np.bool_]] = {}
    for name, column in sorted(users.attributes.items()):
        codes = column.codes[own.users]
        for code, label in enumerate(column.labels):
            mask = codes == code
            if MIN_GROUP_HISTORIES <= int(mask.sum()) <= len(mask) - MIN_GROUP_HISTORIES:
                found[f"{name}={label}"] = mask
    largest = sorted(found, key=lambda name: -int(found[name].sum()))[:MAX_GROUPS]
    return GroupExposure(own, {name: found[name] for name in largest}) if largest else None
