"""APRec's basic replacement: the histories stay, some labels become target items (Wu et al., SIGIR 2023, section 3.2).

`global` exposes the targets to everybody: a position is eligible if the true next item shares a category with a target,
and its label becomes a target of a shared category, so the change looks natural. `group` aims at users of one attribute
value: all their positions are eligible, and any target may be planted.

Departures: the paper tosses a coin of probability `r` at each eligible position and epoch. Here exactly
`round(r × eligible)` positions are drawn once, without replacement: each is replaced with the same probability, and the
budget can be checked and kept in a file.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from cowbird.attacks.base import Attack, Plan
from cowbird.attacks.targets import TargetItems, UserGroup
from cowbird.data.types import Index, Offset, TrainingData
from cowbird.errors import UserError


class BasicReplacement(Attack):
    """Replace next-item labels by target items, histories untouched (APRec)."""

    scope: Literal["global", "group"] = "global"
    """Whom to expose the targets to: everybody, or one user group."""
    rate: float = Field(default=0.5, gt=0, le=1)
    """Replacement rate r: share of the eligible positions whose label is replaced."""
    targets: TargetItems = TargetItems()
    """Which items are promoted."""
    group: UserGroup | None = None
    """The user group, for scope `group`."""

    @model_validator(mode="after")
    def _group_given(self) -> "BasicReplacement":
        if (self.scope == "group") != (self.group is not None):
            raise ValueError("scope 'group' needs a group (attribute and value), and scope 'global' takes none")
        return self

    def target_users(self, data: TrainingData) -> NDArray[np.bool_]:
        """Return who is aimed at: the group, or everybody."""
        if self.group is None:
            return super().target_users(data)
        return data.users.attribute(self.group.attribute).where(self.group.value)

    def run(self, data: TrainingData, rng: np.random.Generator) -> Plan:
        """Draw targets, then positions, then labels."""
        targets = self.targets.choose(data, rng)
        allowed = np.ones((len(data.items), len(targets)), dtype=bool)
        if self.scope == "global":
            membership = data.items.memberships()
            if not membership[targets].any(axis=1).all():
                raise UserError(
                    "The global attack replaces items by targets of the same category, and a target has no category.",
                    "Choose targets that have one, use a source with item categories, or scope = 'group'.",
                )
            allowed = (membership.astype(np.int32) @ membership[targets].T.astype(np.int32)) > 0
        eligible = self._eligible(data, allowed)
        budget = round(self.rate * len(eligible))
        if budget < 1:
            raise UserError(
                f"Nothing to replace: {len(eligible)} positions are eligible at rate {self.rate:g}.",
                "Raise the rate, or choose a larger group or more targets.",
            )
        rows = np.sort(rng.choice(eligible, budget, replace=False))
        label = np.array(data.label)
        label[rows] = _draw_labels(data.label[rows], targets, allowed, rng)
        return Plan(TrainingData(data.interactions, data.users, data.items, label), targets, rows, budget)

    def _eligible(self, data: TrainingData, allowed: NDArray[np.bool_]) -> Offset:
        """Return the positions that may be relabeled: predicted ones (not a user's first) of reachable users."""
        open_to: NDArray[np.bool_] = self.target_users(data)[data.interactions.user_of_event()]
        open_to[data.interactions.offsets[:-1][data.interactions.lengths > 0]] = False
        reachable: NDArray[np.bool_] = np.any(allowed, axis=1)
        return np.flatnonzero(open_to & reachable[data.label])


def _draw_labels(labels: Index, targets: Index, allowed: NDArray[np.bool_], rng: np.random.Generator) -> Index:
    """Draw one allowed target for each label, uniformly: the j-th allowed one, j uniform below their number."""
    choices = allowed[labels]
    nth = np.floor(rng.random(len(labels)) * choices.sum(axis=1)).astype(np.int64)
    column = (np.cumsum(choices, axis=1) > nth[:, None]).argmax(axis=1)
    return targets[column]
