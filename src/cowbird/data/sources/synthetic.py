"""Data with a known answer, made on the spot: which item follows which, and which users like which categories.

Item `i` belongs to category `i % categories`. Its successor is the next item of the same category, in a circle. Group
`g` of the users prefers the categories `c` with `c % groups == g`. A user starts at some item of a preferred category;
the next item is the successor, or, with probability `noise`, any item of the user's preferred categories.
"""

from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from cowbird.data.sources.base import Source
from cowbird.data.types import Attribute, Dataset, Interactions, Items, Users
from cowbird.ingest.sampling import limit_count
from cowbird.rng import stream

_ADJECTIVES = (
    "Amber",
    "Brave",
    "Calm",
    "Daring",
    "Early",
    "Faded",
    "Golden",
    "Hidden",
    "Iron",
    "Jolly",
    "Keen",
    "Little",
)
_NOUNS = ("Harbor", "Garden", "Engine", "Letter", "Mirror", "Forest", "Lantern", "River", "Castle", "Violin", "Kitchen")


class Synthetic(Source):
    """Made-up users with groups of tastes and items that follow each other; nothing is read.

    Users carry `age`, their group, and `gender`, which has no influence. `find_successors` and `find_preferred` tell
    the answer.
    """

    users: int = Field(default=1000, ge=1)
    """Number of users."""
    items: int = Field(default=200, ge=2)
    """Number of items."""
    events_per_user: int = Field(default=20, ge=1)
    """Number of events of each user."""
    categories: int = Field(default=8, ge=1)
    """Number of categories."""
    groups: tuple[str, ...] = ("18-24", "25-34", "35-44", "45+")
    """Age brackets; each prefers its own categories."""
    noise: float = Field(default=0.1, ge=0, le=1)
    """Probability that the next item is not the successor."""
    seed: int = 0
    """Seed of everything random here."""

    @model_validator(mode="after")
    def _check_counts(self) -> "Synthetic":
        if not 1 <= len(self.groups) <= self.categories <= self.items:
            raise ValueError(
                f"expected at least one group, no more groups than categories and no more categories than items, and "
                f"got {len(self.groups)} groups, {self.categories} categories, {self.items} items"
            )
        if len(set(self.groups)) != len(self.groups) or not all(self.groups):
            raise ValueError("expected groups with distinct names that are not empty")
        return self

    def find_successors(self) -> NDArray[np.int64]:
        """Return the item that follows each item, shape `[items]`."""
        following = np.arange(self.items) + self.categories
        return np.where(following < self.items, following, np.arange(self.items) % self.categories)

    def find_preferred(self, group: int) -> NDArray[np.int64]:
        """Return the items of the categories that a group prefers, ascending."""
        category = np.arange(self.items) % self.categories
        return np.flatnonzero(category % len(self.groups) == group)

    def load(self) -> Dataset:
        """Make the data."""
        size = max(self.users * self.events_per_user, self.items)
        if limit_count("the made-up data", size) < size:  # then a little of it will do, for nobody looks at the rest
            groups = len(self.groups)
            few = {"users": 1, "events_per_user": 1, "items": groups, "categories": groups}
            return self.model_copy(update=few).load()
        group = stream(self.seed, "synthetic", "groups").integers(len(self.groups), size=self.users)
        gender = stream(self.seed, "synthetic", "genders").integers(2, size=self.users)
        attributes = {
            "age": Attribute.from_values(self.groups[int(number)] for number in group),
            "gender": Attribute.from_values("FM"[int(number)] for number in gender),
        }
        users = Users(tuple(f"u{number}" for number in range(self.users)), MappingProxyType(attributes))
        return Dataset("synthetic", self._draw_interactions(group), users, self._make_items())

    def _draw_interactions(self, group: NDArray[np.int64]) -> Interactions:
        """Walk all users through the items, step by step."""
        rng = stream(self.seed, "synthetic", "events")
        liked = [self.find_preferred(number) for number in range(len(self.groups))]
        counts = np.array([len(items) for items in liked])[group]
        table = np.zeros((len(liked), max(map(len, liked))), dtype=np.int64)
        for number, items in enumerate(liked):
            table[number, : len(items)] = items
        following = self.find_successors()
        item = np.zeros((self.users, self.events_per_user), dtype=np.int64)
        for step in range(self.events_per_user):
            anywhere = table[group, rng.integers(counts)]
            jumps = rng.random(self.users) < (self.noise if step else 1.0)
            item[:, step] = np.where(jumps, anywhere, following[item[:, step - 1]])
        start = rng.integers(1_600_000_000, 1_700_000_000, size=self.users)
        time = start[:, None] + 60 * np.arange(self.events_per_user)
        offsets = np.arange(self.users + 1) * self.events_per_user
        return Interactions(item.ravel().astype(np.int32), offsets, None, time.ravel().astype(np.float64))

    def _make_items(self) -> Items:
        """Name the items and their categories."""
        numbers = range(self.items)
        category = [number % self.categories for number in numbers]
        nouns = [self._name_category(number) for number in range(self.categories)]
        titles = [
            f"{_ADJECTIVES[number // self.categories % len(_ADJECTIVES)]} {nouns[kind]} {number}"
            for number, kind in zip(numbers, category, strict=True)
        ]
        return Items.from_lists((f"i{number}" for number in numbers), titles, [[nouns[kind]] for kind in category])

    @staticmethod
    def _name_category(category: int) -> str:
        """Return the name of a category; names repeat with a number when there are more than words."""
        turn, place = divmod(category, len(_NOUNS))
        return _NOUNS[place] if not turn else f"{_NOUNS[place]} {turn + 1}"
