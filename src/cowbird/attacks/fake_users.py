"""What attacks by fake users share: profiles of filler and target items, appended to the real users.

The classic shilling setting, and the baseline of APRec (SIGIR 2023, section 4.1): the attacker cannot touch the
provider's pipeline, only register accounts. Departure: classic profiles are sets of ratings; here a profile is a
sequence, with its target items at random places, since sequential recommenders learn what follows what.
"""

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cowbird.attacks.base import Attack, Plan
from cowbird.attacks.targets import TargetItems, UserGroup
from cowbird.data.types import (
    Attribute,
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
    Interactions,
    TrainingData,
    Users,
)
from cowbird.errors import UserError


class FakeUsers(Attack):
    """Adds fake users; a subclass says what their profiles are filled with."""

    rate: float = Field(default=0.01, gt=0, le=1)
    """Planted events as a share of the clean training events: the budget of poisoned interactions."""
    profile_length: int = Field(default=20, ge=2)
    """Events of a fake user (the last one may have fewer, or one more)."""
    target_share: float = Field(default=0.5, gt=0, le=1)
    """Share of a profile's events that are target items, rounded up."""
    targets: TargetItems = TargetItems()
    """Which items are promoted."""
    group: UserGroup | None = None
    """The user group whose exposure is the goal. Fake users claim its attribute value; `None` aims at everybody."""

    @abstractmethod
    def draw_filler(self, data: TrainingData, count: int, rng: np.random.Generator) -> Int32Array:
        """Draw filler items, shape `[count]`, int32."""

    def get_target_group(self) -> UserGroup | None:
        """Return the group that the attack aims at; see `Attack.get_target_group`."""
        return self.group

    def run(self, data: TrainingData, rng: np.random.Generator) -> Plan:
        """Draw targets, then filler, then the places of the targets."""
        targets = self.targets.choose(data, rng)
        budget = round(self.rate * data.interactions.events)
        if budget < 2:
            raise UserError(
                f"The budget is {budget} planted events, too few for one fake user.", "Raise the rate of the attack."
            )
        lengths = cut_profiles(budget, self.profile_length)
        planted = np.array(self.draw_filler(data, budget, rng), dtype=np.int32)
        chosen = _choose_places(lengths, self.target_share, rng)
        planted[chosen] = rng.choice(targets, int(chosen.sum()))
        known = data.interactions
        offsets = np.concatenate([known.offsets, known.events + np.cumsum(lengths)])
        grown = Interactions(np.concatenate([known.item, planted]), offsets, *extend_columns(known, lengths, rng))
        label = np.concatenate([data.label, planted])
        negative = None
        if data.negative is not None:
            negative = np.concatenate([data.negative, np.full(budget, -1, dtype=np.int32)])
        rows = np.arange(known.events, known.events + budget)
        users = _append_users(data.users, len(lengths), self.group)
        return Plan(TrainingData(grown, users, data.items, label, negative), targets, rows, budget)


def cut_profiles(budget: int, length: int) -> Int64Array:
    """Cut a budget of events into profiles; nobody gets a single event, which would teach nothing."""
    whole, rest = divmod(budget, length)
    if not whole:
        return np.array([budget], dtype=np.int64)
    lengths = np.full(whole + (rest > 1), length, dtype=np.int64)
    if rest == 1:
        lengths[-1] += 1
    elif rest:
        lengths[-1] = rest
    return lengths


def _choose_places(lengths: Int64Array, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Choose which events are targets: in every profile the rounded-up share of them, at random places."""
    profile = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((rng.random(len(profile)), profile))
    starts = np.cumsum(lengths) - lengths
    nth = np.arange(len(profile)) - starts[profile]
    chosen = np.zeros(len(profile), dtype=bool)
    chosen[order] = nth < np.ceil(share * lengths - 1e-9)[profile]
    return chosen


def extend_columns(
    known: Interactions, lengths: Int64Array, rng: np.random.Generator
) -> tuple[Float32Array | None, Float64Array | None]:
    """Return ratings and times of all events, those of fake users after the real ones: best ratings, rising times."""
    rating: Float32Array | None = None
    timestamp: Float64Array | None = None
    count = int(lengths.sum())
    if known.rating is not None:
        best = np.nanmax(known.rating) if known.events else 1.0
        rating = np.concatenate([known.rating, np.full(count, best, dtype=np.float32)])
    if known.timestamp is not None:
        low, high = (known.timestamp.min(), known.timestamp.max()) if known.events else (0.0, 1.0)
        drawn = rng.uniform(low, high, count)
        drawn = drawn[np.lexsort((drawn, np.repeat(np.arange(len(lengths)), lengths)))]
        timestamp = np.concatenate([known.timestamp, drawn])
    return rating, timestamp


def _append_users(users: Users, count: int, group: UserGroup | None) -> Users:
    ids = (*users.ids, *(f"fake-{number}" for number in range(count)))
    attributes: dict[str, Attribute] = {}
    for name, column in users.attributes.items():
        claimed = column.labels.index(group.value) if group is not None and group.attribute == name else -1
        codes = np.concatenate([column.codes, np.full(count, claimed, dtype=np.int32)])
        attributes[name] = Attribute(codes, column.labels)
    return Users(ids, attributes)
