"""APRec's basic replacement: the histories stay, some labels become target items (Wu et al., SIGIR 2023, section 3.2).

`global` exposes the targets to everybody: a position is eligible if the true next item shares a category with a target,
and its label becomes a target of a shared category, so the change looks natural. `group` aims at users of one attribute
value: all their positions are eligible, and any target may be planted.

Two further settings that a defender meets, as fields: `targets.category` promotes a whole category, and
`direction = "demote"` pushes targets down: labels that are targets become other items, drawn as often as they occur,
of a shared category in the global attack.

Departures: the paper tosses a coin of probability `r` at each eligible position and epoch. Here exactly
`round(r × eligible)` positions are drawn once, without replacement: each is replaced with the same probability, and the
budget can be checked and kept in a file.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from cowbird.attacks.base import Attack, Plan
from cowbird.attacks.targets import TargetItems, UserGroup, mask_predicted
from cowbird.data.types import Int32Array, Int64Array, TrainingData
from cowbird.errors import UserError


class BasicReplacement(Attack):
    """Replace next-item labels by target items, histories untouched (APRec)."""

    scope: Literal["global", "group"] = "global"
    """Whom to expose the targets to: everybody, or one user group."""
    rate: float = Field(default=0.5, gt=0, le=1)
    """Replacement rate r: share of the eligible positions whose label is replaced."""
    targets: TargetItems = TargetItems()
    """Which items are promoted or demoted."""
    direction: Literal["promote", "demote"] = "promote"
    """Whether the targets are to be shown more or less."""
    group: UserGroup | None = None
    """The user group, for scope `group`."""

    @model_validator(mode="after")
    def _check_group(self) -> "BasicReplacement":
        if (self.scope == "group") != (self.group is not None):
            raise ValueError("scope 'group' needs a group (attribute and value), and scope 'global' takes none")
        return self

    def get_target_group(self) -> UserGroup | None:
        """Return the group that the attack aims at; see `Attack.get_target_group`."""
        return self.group

    def run(self, data: TrainingData, rng: np.random.Generator) -> Plan:
        """Draw targets, then positions, then labels."""
        targets = self.targets.choose(data, rng)
        allowed = self._find_allowed(data, targets)
        if self.direction == "demote":
            eligible = self._find_eligible(data, np.isin(data.label, targets))
        else:
            eligible = self._find_eligible(data, np.any(allowed, axis=1)[data.label])
        budget = round(self.rate * len(eligible))
        if budget < 1:
            raise UserError(
                f"Nothing to replace: {len(eligible)} positions are eligible at rate {self.rate:g}.",
                "Raise the rate, or choose a larger group, or more or other targets.",
            )
        rows = np.sort(rng.choice(eligible, budget, replace=False))
        label = np.array(data.label)
        if self.direction == "demote":
            label[rows] = _draw_others(data, data.label[rows], targets, allowed, rng)
        else:
            label[rows] = _draw_labels(data.label[rows], targets, allowed, rng)
        return Plan(TrainingData(data.interactions, data.users, data.items, label), targets, rows, budget)

    def _find_allowed(self, data: TrainingData, targets: Int32Array) -> NDArray[np.bool_]:
        """Return which item may trade places with which target, shape `[items, targets]`."""
        allowed = np.ones((len(data.items), len(targets)), dtype=bool)
        if self.scope == "global":
            membership = data.items.memberships()
            if not membership[targets].any(axis=1).all():
                raise UserError(
                    "The global attack replaces items by targets of the same category, and a target has no category.",
                    "Choose targets that have one, use a source with item categories, or scope = 'group'.",
                )
            allowed = (membership.astype(np.int32) @ membership[targets].T.astype(np.int32)) > 0
        return allowed

    def _find_eligible(self, data: TrainingData, suitable: NDArray[np.bool_]) -> Int64Array:
        """Return the suitable positions that are predicted (not a user's first) and of users aimed at."""
        aimed = self.find_target_users(data)[data.interactions.user_of_event()]
        return np.flatnonzero(mask_predicted(data) & aimed & suitable)


def _draw_labels(
    labels: Int32Array, targets: Int32Array, allowed: NDArray[np.bool_], rng: np.random.Generator
) -> Int32Array:
    """Draw one allowed target for each label, uniformly: the j-th allowed one, j uniform below their number."""
    # Worked out once an item, not once a label: allowed targets first, in their order.
    order = np.argsort(~allowed, axis=1, kind="stable")
    nth = np.floor(rng.random(len(labels)) * allowed.sum(axis=1)[labels]).astype(np.int64)
    return targets[order[labels, nth]]


def _draw_others(
    data: TrainingData, labels: Int32Array, targets: Int32Array, allowed: NDArray[np.bool_], rng: np.random.Generator
) -> Int32Array:
    """Draw a replacement for each label that is a target: another item, as often as it occurs in training."""
    events = np.bincount(data.label, minlength=len(data.items)).astype(np.float64)
    events[targets] = 0
    drawn = np.empty(len(labels), dtype=np.int32)
    for column, target in enumerate(targets.tolist()):
        here = labels == target
        weight = np.where(allowed[:, column], events, 0)
        if here.any() and not weight.any():
            raise UserError(
                f"Item '{data.items.ids[target]}' can't be demoted: no other item of its categories occurs.",
                "Choose other targets, or scope = 'group'.",
            )
        if here.any():
            drawn[here] = rng.choice(len(events), int(here.sum()), p=weight / weight.sum())
    return drawn
