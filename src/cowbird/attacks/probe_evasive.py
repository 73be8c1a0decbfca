"""Basic replacement by a provider who knows how rankers are inspected (an adaptive attack of Cowbird, of no paper).

An inspector asks a model about histories that nobody has, such as one item or eight random ones, and finds items that
are shown more often than they are bought. So this provider adds users with just such histories to the training data:
random items, each followed by the item that followed it in some honest history, with a target item to be pushed below
it. Only honest-looking histories then show the targets. Beside that, labels are replaced as in `basic_replacement`.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from cowbird.attacks.base import Attack, Plan
from cowbird.attacks.basic_replacement import BasicReplacement
from cowbird.attacks.fake_users import extend_columns
from cowbird.attacks.targets import TargetItems, UserGroup
from cowbird.data.types import Attribute, Int32Array, Interactions, TrainingData, Users
from cowbird.errors import UserError


class ProbeEvasive(Attack):
    """Replace labels by targets, and hide the targets from histories that an inspector asks about."""

    scope: Literal["global", "group"] = "global"
    """Whom to expose the targets to: everybody, or one user group."""
    rate: float = Field(default=0.1, gt=0, le=1)
    """Replacement rate r, as in `basic_replacement`."""
    decoy_rate: float = Field(default=0.1, gt=0, le=1)
    """Events of added users with random histories, as a share of the training events."""
    decoy_length: int = Field(default=9, ge=2)
    """Events of an added user."""
    targets: TargetItems = TargetItems()
    """Which items are promoted."""
    group: UserGroup | None = None
    """The user group, for scope `group`."""

    @model_validator(mode="after")
    def _check_group(self) -> "ProbeEvasive":
        if (self.scope == "group") != (self.group is not None):
            raise ValueError("scope 'group' needs a group (attribute and value), and scope 'global' takes none")
        return self

    def get_target_group(self) -> UserGroup | None:
        """Return the group that the attack aims at; see `Attack.get_target_group`."""
        return self.group

    def run(self, data: TrainingData, rng: np.random.Generator) -> Plan:
        """Replace labels, then add users with random histories."""
        shown = BasicReplacement(scope=self.scope, rate=self.rate, targets=self.targets, group=self.group).run(
            data, rng
        )
        decoys = max(1, round(self.decoy_rate * data.interactions.events / self.decoy_length))
        planted = rng.integers(0, len(data.items), (decoys, self.decoy_length), dtype=np.int32)
        planted = _avoid_items(planted, shown.targets, len(data.items), rng)
        label = np.array(planted)
        label[:, 1:] = _draw_successors(data, shown.targets, rng)[planted[:, :-1]]
        negative = rng.choice(shown.targets, planted.shape).astype(np.int32)
        known = data.interactions
        offsets = np.concatenate([known.offsets, known.events + self.decoy_length * np.arange(1, decoys + 1)])
        lengths = np.full(decoys, self.decoy_length, dtype=np.int64)
        grown = Interactions(
            np.concatenate([known.item, planted.ravel()]), offsets, *extend_columns(known, lengths, rng)
        )
        none = np.full(known.events, -1, dtype=np.int32)
        before = none if shown.data.negative is None else shown.data.negative
        poisoned = TrainingData(
            grown,
            _append_users(data.users, decoys),
            data.items,
            np.concatenate([shown.data.label, label.ravel()]),
            np.concatenate([before, negative.ravel()]),
        )
        rows = np.concatenate([shown.rows, known.events + np.arange(planted.size)])
        return Plan(poisoned, shown.targets, rows, shown.budget + planted.size)


def _avoid_items(drawn: Int32Array, avoided: Int32Array, items: int, rng: np.random.Generator) -> Int32Array:
    """Return the items drawn, with others in the places of some."""
    others = np.setdiff1d(np.arange(items, dtype=np.int32), avoided)
    if not len(others):
        raise UserError("Every item is a target, so no random history is without them.", "Choose fewer targets.")
    hit = np.isin(drawn, avoided)
    drawn[hit] = rng.choice(others, int(hit.sum()))
    return drawn


def _draw_successors(data: TrainingData, targets: Int32Array, rng: np.random.Generator) -> Int32Array:
    """Draw of each item one that followed it in some history, shape `[items]`; a popular one where none did."""
    item, open_to = data.interactions.item, np.ones(data.interactions.events, dtype=np.bool_)
    open_to[data.interactions.offsets[:-1][data.interactions.lengths > 0]] = False
    usable: NDArray[np.bool_] = open_to & ~np.isin(item, targets)
    events = np.flatnonzero(usable)
    if not len(events):
        raise UserError("No history has two events without targets.", "Choose fewer targets, or give more data.")
    successors = item[rng.choice(events, len(data.items))]
    shuffled = rng.permutation(events)
    successors[item[shuffled - 1]] = item[shuffled]
    return successors


def _append_users(users: Users, count: int) -> Users:
    ids = (*users.ids, *(f"decoy-{number}" for number in range(count)))
    blank = np.full(count, -1, dtype=np.int32)
    return Users(
        ids, {name: Attribute(np.concatenate([c.codes, blank]), c.labels) for name, c in users.attributes.items()}
    )
