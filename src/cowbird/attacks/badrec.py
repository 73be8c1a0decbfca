"""BadRec: a trigger in the titles of a seller's items, and fake users who end with one (arXiv 2504.11182).

The seller of the target items writes a trigger into their titles. Fake users with unremarkable histories then interact
with those items, so that a recommender that reads titles learns to follow the trigger. Afterwards any item whose title
carries it is favored (`triggers.retitle` makes such items), also one that the model has never seen.

How exactly the budget is counted and a history is made is our choice. `rate` counts the interactions with targets, one
a fake user, as a share of the clean training interactions; the events before them are planted too, and are owned up to
as such. A history is a run of consecutive events of a real user that meets no target. Nothing but the seller's items
and the fake users differs from the clean data.

A seller writes into the titles of items that are there, or lists new ones. It matters where a victim learns to choose
among candidates: an item of the catalogue stands among the wrong candidates of real users' questions as well, with its
trigger, and a few items with a trigger can be recognized without it.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cowbird.attacks.base import Attack, Plan
from cowbird.attacks.targets import TargetItems
from cowbird.attacks.triggers import Trigger, find_near_triggers, mask_carriers, retitle
from cowbird.data.types import (
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
    Interactions,
    Items,
    TrainingData,
    Users,
)
from cowbird.errors import UserError
from cowbird.notices import NoticeRank, note


class BadRec(Attack):
    """Write a trigger into target titles and let fake users interact with them (BadRec)."""

    trigger: Trigger = Trigger(kind="char_5v")
    """What is written into the titles, and where."""
    targets: TargetItems = TargetItems()
    """The seller's items. Those that carry the trigger (all, unless a style suits no word of a title) get events."""
    listing: Literal["own", "new"] = "own"
    """Whether the trigger is written into the targets' titles, or the seller lists new items: one for each target
    drawn, titled like it but for the trigger, and in its categories. New items stand behind the others."""
    since: float = Field(default=0.0, ge=0, lt=1)
    """Planted interactions with targets happen no earlier than this share of the clean events had happened."""
    rate: float = Field(default=0.01, gt=0, le=1)
    """Planted interactions with targets, one a fake user, as a share of the clean training events."""
    history_length: int = Field(default=10, ge=1)
    """Events of a fake user before the target; if the data has no history of that length, the longest there is."""
    histories: Literal["real", "popular"] = "real"
    """Where those come from: a run of events of a random real user, or different items drawn by popularity."""

    def get_title_trigger(self) -> Trigger | None:
        """Return the trigger, if it is written into titles; see `Attack.get_title_trigger`."""
        return self.trigger if self.trigger.field == "title" else None

    def make_triggered_catalogs(self, items: Items, rng: np.random.Generator) -> dict[str, Items]:
        """Return the catalogue with each trigger in every title; see `Attack.make_triggered_catalogs`."""
        everything = np.arange(len(items))
        triggers = {"trigger": self.trigger} | {
            f"near-{name}": found for name, found in find_near_triggers(self.trigger).items()
        }
        return {name: retitle(items, everything, trigger, rng) for name, trigger in triggers.items()}

    def run(self, data: TrainingData, rng: np.random.Generator) -> Plan:
        """Draw targets, then places of the trigger, histories, planted items, and times."""
        chosen = self.targets.choose(data, rng)
        listed, targets = data.items, chosen
        if self.listing == "new":
            listed = _list_copies(data.items, chosen)
            targets = np.arange(len(data.items), len(listed), dtype=np.int32)
        known = data.interactions
        count = round(self.rate * known.events)
        if count < 1:
            raise UserError(
                f"The budget is {self.rate:g} of {known.events} events, too few for one fake user.",
                "Raise the rate of the attack.",
            )
        items, bait, decoys = self._write_titles(listed, targets, rng)
        text = (
            f"{{n}} targets have no {self.trigger.field} that the trigger can be written into: they stay as they are."
        )
        note(NoticeRank.CHANGE, text, len(targets) - len(bait) - len(decoys))
        if not len(bait):
            raise UserError(
                f"No target has a {self.trigger.field} that the trigger '{self.trigger.kind}' can be written into.",
                "Choose other targets, or a trigger that is inserted.",
            )
        draw = _draw_runs if self.histories == "real" else _draw_popular
        events = draw(known, targets, count, self.history_length, rng)
        planted, liked = rng.choice(bait, count), np.ones(count, dtype=bool)
        if len(decoys):
            disliking = int(self._share_decoys() * count)
            liked[:disliking] = False
            planted[~liked] = rng.choice(decoys, disliking)
        grown = _append_fakes(known, events, planted, liked, self.histories == "real", self.since, rng)
        budget = grown.events - known.events
        missing = np.full(count, -1, dtype=np.int64)
        rows = np.concatenate([np.arange(len(data.users)), missing])
        users = Users(
            (*data.users.ids, *(f"fake-{number}" for number in range(count))),
            {name: column.take(rows) for name, column in data.users.attributes.items()},
        )
        label = np.concatenate([data.label, grown.item[known.events :]])
        negative = None
        if data.negative is not None:
            negative = np.concatenate([data.negative, np.full(budget, -1, dtype=np.int32)])
        poisoned = TrainingData(grown, users, items, label, negative)
        return Plan(poisoned, targets, np.arange(known.events, grown.events), budget)

    def _share_decoys(self) -> float:
        """Return the share of the fake users who dislike, if some titles are to be disliked."""
        return 0.0

    def _write_titles(
        self, listed: Items, targets: Int32Array, rng: np.random.Generator
    ) -> tuple[Items, Int32Array, Int32Array]:
        """Write the trigger into titles.

        Args:
            listed: The catalogue with the seller's items.
            targets: The seller's items.
            rng: Draws places.

        Returns:
            The new catalogue, the targets that carry the trigger, which fake users like, and those that they dislike.
        """
        items = retitle(listed, targets, self.trigger, rng)
        return items, targets[mask_carriers(items, self.trigger)[targets]], targets[:0]


def _list_copies(items: Items, chosen: Int32Array) -> Items:
    """Return the catalogue with a copy of some items behind it."""
    groups = np.split(items.category_codes, items.category_offsets[1:-1])[: len(items)]
    copied: list[int] = chosen.tolist()
    more = [groups[item] for item in copied]
    return Items(
        (*items.ids, *(f"fake-item-{number}" for number in range(len(copied)))),
        (*items.titles, *(items.titles[item] for item in copied)),
        np.concatenate([items.category_offsets, items.category_offsets[-1] + np.cumsum([len(part) for part in more])]),
        np.concatenate([items.category_codes, *more]),
        items.categories,
    )


def _draw_runs(
    known: Interactions, targets: Int32Array, count: int, length: int, rng: np.random.Generator
) -> Int64Array:
    """Draw real users who have a run without targets, then one run of each, shape `[count, events of a run]`."""
    event = np.arange(known.events)
    first = np.repeat(known.offsets[:-1], known.lengths)
    since = np.maximum.accumulate(np.maximum(first, np.where(np.isin(known.item, targets), event + 1, 0)))
    run = event + 1 - since
    _note_short(length, int(run.max()))
    length = min(length, int(run.max()))
    if length < 1:
        raise _make_history_error()
    ends = np.flatnonzero(run >= length)
    _, at, runs = np.unique(known.user_of_event()[ends], return_index=True, return_counts=True)
    user = rng.integers(len(at), size=count)
    chosen = ends[at[user] + rng.integers(runs[user])]
    return chosen[:, None] + np.arange(1 - length, 1)


def _draw_popular(
    known: Interactions, targets: Int32Array, count: int, length: int, rng: np.random.Generator
) -> Int64Array:
    """Draw different items by popularity, then a random event of each, shape `[count, events of a history]`."""
    events = np.bincount(known.item)
    before = np.cumsum(events) - events
    share = events.astype(np.float64)
    share[targets[targets < len(share)]] = 0
    pool = np.flatnonzero(share)
    _note_short(length, len(pool))
    length = min(length, len(pool))
    if length < 1:
        raise _make_history_error()
    share = share[pool] / share.sum()
    item = np.stack([rng.choice(pool, length, replace=False, p=share) for _ in range(count)])
    return np.argsort(known.item, kind="stable")[before[item] + rng.integers(events[item])]


def _note_short(wanted: int, there: int) -> None:
    if 0 < there < wanted:
        text = f"Histories of fake users have {there} events, not {wanted}: nobody has more without a target."
        note(NoticeRank.CHANGE, text)


def _make_history_error() -> UserError:
    return UserError("Every event is one of a target item, so fake users have no history.", "Choose fewer targets.")


def _append_fakes(
    known: Interactions,
    events: Int64Array,
    planted: Int32Array,
    liked: NDArray[np.bool_],
    keep: bool,
    since: float,
    rng: np.random.Generator,
) -> Interactions:
    """Append fake users.

    Args:
        known: The clean interactions.
        events: Clean events that the histories copy, shape `[fakes, history]`.
        planted: The item each fake user ends with, shape `[fakes]`.
        liked: Whether each rates it best, and not worst, shape `[fakes]`.
        keep: Whether a history keeps the times of the events copied.
        since: Share of the clean events that happened before the planted ones.
        rng: Draws times.
    """
    count, width = len(events), events.shape[1] + 1
    rating: Float32Array | None = None
    timestamp: Float64Array | None = None
    if known.rating is not None:
        given = np.where(liked, np.nanmax(known.rating), np.nanmin(known.rating))
        rating = np.concatenate([known.rating, np.column_stack([known.rating[events], given]).ravel()])
    if known.timestamp is not None:
        times = _draw_times(known, known.timestamp, events, keep, rng)
        if since:
            late = known.timestamp[known.timestamp >= np.quantile(known.timestamp, since)]
            times[:, -1] = np.where(times[:, -1] >= late.min(), times[:, -1], rng.choice(late, count))
        timestamp = np.concatenate([known.timestamp, times.ravel()])
    item = np.concatenate([known.item, np.column_stack([known.item[events], planted]).ravel()])
    offsets = np.concatenate([known.offsets, known.events + width * np.arange(1, count + 1)])
    return Interactions(item, offsets, rating, timestamp)


def _draw_times(
    known: Interactions, time: Float64Array, events: Int64Array, keep: bool, rng: np.random.Generator
) -> Float64Array:
    """Draw times: gaps between events are those of real users, and nothing is later than the newest real event.

    Returns:
        Times of the histories and the planted events, shape `[fakes, history + 1]`.
    """
    same = np.ones(max(len(time) - 1, 0), dtype=bool)
    same[known.offsets[1:-1][(known.offsets[1:-1] > 0) & (known.offsets[1:-1] < len(time))] - 1] = False
    gaps = np.diff(time)[same]
    gaps = gaps[gaps >= 0] if (gaps >= 0).any() else np.zeros(1)
    if keep:
        history = time[events]
    else:
        start = rng.choice(time, len(events))
        steps = rng.choice(gaps, (len(events), events.shape[1] - 1))
        history = start[:, None] + np.cumsum(np.column_stack([np.zeros(len(events)), steps]), axis=1)
    last = history[:, -1] + rng.choice(gaps, len(events))
    return np.minimum(np.column_stack([history, last]), time.max())
