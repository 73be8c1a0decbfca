"""Splits: warm users for pre-training, cold users downstream, and leave-one-out inside each.

APRec (SIGIR 2023, section 4.1) pre-trains on users with long histories and tunes on cold-start users with fewer than
ten events. A catalogue whose users are all warm gets its cold users by cutting: `Split` holds out a share of the users
and keeps at most nine events of each.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cowbird.data.types import Dataset, Int32Array, IntArray, Interactions, Items, TrainingData, Users
from cowbird.errors import UserError
from cowbird.notices import NoticeRank, note
from cowbird.rng import stream


@dataclass(frozen=True, slots=True, eq=False)
class Queries:
    """Questions with one right answer each: after this history, what comes next?"""

    history: Interactions
    """What the model may see, one row a query."""
    target: Int32Array
    """The item that came next, shape `[queries]`."""
    users: Users | None = None
    """Who asks, one row a query; needed by models that read profiles."""


@dataclass(frozen=True, slots=True, eq=False)
class LeaveOneOut:
    """Some users under the leave-one-out protocol: last event for test, the one before for validation."""

    interactions: Interactions
    """All events of the users, at least three each."""
    users: Users
    """Their profiles."""
    items: Items
    """The catalogue."""

    def _cut(self, last: int) -> Interactions:
        return self.interactions.take(self.interactions.offsets[:-1], self.interactions.lengths - last)

    def training(self) -> TrainingData:
        """Return everything but the last two events of each user."""
        return TrainingData.from_interactions(self._cut(2), self.users, self.items)

    def validation(self) -> Queries:
        """Return the training history of each user, and the event after it."""
        return Queries(self._cut(2), self.interactions.item[self.interactions.offsets[1:] - 2], self.users)

    def test(self) -> Queries:
        """Return all but the last event of each user, and the last."""
        return Queries(self._cut(1), self.interactions.item[self.interactions.offsets[1:] - 1], self.users)

    def shorten(self, events: int) -> "LeaveOneOut":
        """Return the same users when they were new, as a stand-in for cold ones.

        Args:
            events: Most events kept of each user's training events, from the first on. Test and validation events of
                the long histories are never among them; users with fewer than three training events are left out.

        Raises:
            UserError: If nobody is left.
        """
        lengths = np.minimum(np.maximum(self.interactions.lengths - 2, 0), events)
        kept = np.flatnonzero(lengths >= 3)
        if not len(kept):
            raise UserError(
                f"No user has three training events among the first {events}, so there are no short histories.",
                "Keep three events or more of a short history, or use users with more events.",
            )
        few, end = "fewer than three training interactions among", f"first {events}: no short history."
        one = f"1 user has {few} the {end}"
        note(NoticeRank.CHANGE, f"{{n}} users have {few} their {end}", len(lengths) - len(kept), one)
        cut = self.interactions.take(self.interactions.offsets[:-1][kept], lengths[kept])
        return LeaveOneOut(cut, self.users.take(kept), self.items)


@dataclass(frozen=True, slots=True, eq=False)
class SplitParts:
    """The two sides of an experiment."""

    pretrain: LeaveOneOut
    """Warm users: what the provider trains on."""
    downstream: LeaveOneOut | None
    """Cold users: what the victim tunes and serves; `None` if the split holds nobody out."""
    too_short: int
    """Users left out of both because they have too few events."""


class Split(BaseModel):
    """Which users are warm, which are cold, and how short a cold history is."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    cold_fraction: float = Field(default=0.2, ge=0, lt=1)
    """Share of the users held out of pre-training as the downstream platform's cold users; 0 for none."""
    max_cold_events: int = Field(default=9, ge=3)
    """Events kept of a cold user, test and validation included (the paper: fewer than ten)."""
    cut: Literal["first", "last"] = "first"
    """Which events of a cold user are kept: the first (somebody who just arrived) or the most recent."""
    min_events: int = Field(default=3, ge=3)
    """Users with fewer events are left out and counted; leave-one-out needs three."""

    def apply(self, data: Dataset, seed: int) -> SplitParts:
        """Split a dataset.

        Args:
            data: The whole dataset.
            seed: Decides who is cold; the same users for every attack and victim of a seed.

        Raises:
            UserError: If no user is left on one of the sides.
        """
        lengths = data.interactions.lengths
        usable = np.flatnonzero(lengths >= self.min_events)
        cold_count = round(self.cold_fraction * len(usable))
        if len(usable) - cold_count < 1 or (self.cold_fraction > 0 and cold_count < 1):
            raise UserError(
                f"'{data.name}' has {len(usable)} users with {self.min_events} events or more, "
                f"too few for a cold share of {self.cold_fraction:g}.",
                "Lower min_events or cold_fraction, or give more data.",
            )
        few, end = f"fewer than {self.min_events} interactions", "left out (split.min_events)."
        one = f"1 user has {few} and is {end}"
        note(NoticeRank.CHANGE, f"{{n}} users have {few} and are {end}", len(lengths) - len(usable), one)
        shuffled = stream(seed, "split", "cold").permutation(usable)
        cold, warm = np.sort(shuffled[:cold_count]), np.sort(shuffled[cold_count:])
        pretrain = LeaveOneOut(data.interactions.select(warm), data.users.take(warm), data.items)
        downstream = self._cut_downstream(data, cold) if cold_count else None
        return SplitParts(pretrain, downstream, int(len(lengths) - len(usable)))

    def _cut_downstream(self, data: Dataset, cold: IntArray) -> LeaveOneOut:
        whole = data.interactions.lengths[cold]
        kept = np.minimum(whole, self.max_cold_events)
        end = f"{self.cut} {self.max_cold_events} interactions (split.max_cold_events)."
        one = f"1 cold user keeps only the {end}"
        note(NoticeRank.CHOICE, f"{{n}} cold users keep only their {end}", int((kept < whole).sum()), one)
        starts = data.interactions.offsets[:-1][cold]
        starts = starts if self.cut == "first" else starts + whole - kept
        return LeaveOneOut(data.interactions.take(starts, kept), data.users.take(cold), data.items)
