"""Histories as questions: which of these twenty items comes next?

The protocol of LLaRA (Liao et al., SIGIR 2024, section 4.1): users are put in the order of time and divided 8:1:1, so a
test user is one that training never met; each question shows the last events of a history and twenty candidates, one
of which comes next, while the others are drawn from the rest of the catalogue.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cowbird.data.types import Dataset, Float64Array, Int32Array, Int64Array, IntArray, Interactions, TrainingData
from cowbird.errors import UserError
from cowbird.notices import NoticeRank, note
from cowbird.rng import draw_indices, stream


@dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """Questions with some candidates each."""

    history: Interactions
    """The events shown, one row a question."""
    candidates: Int32Array
    """The items to choose from, all different, shape `[questions, candidates]`, int32."""
    answer: Int32Array
    """The column of the item that came next, shape `[questions]`, int32."""
    user: Int32Array
    """Who is asked: questions of one user have one number, shape `[questions]`, int32."""

    def __len__(self) -> int:
        return len(self.answer)

    @property
    def target(self) -> Int32Array:
        """The item that came next, shape `[questions]`."""
        return self.candidates[np.arange(len(self)), self.answer]

    def select(self, rows: IntArray) -> "Choices":
        """Return some questions, in the order given."""
        return Choices(self.history.select(rows), self.candidates[rows], self.answer[rows], self.user[rows])


def find_first_times(interactions: Interactions, items: int) -> Float64Array:
    """Return when each item was first met, infinity if it never was, shape `[items]`.

    Raises:
        UserError: If the events have no times.
    """
    if interactions.timestamp is None:
        raise UserError(
            "Candidates that were listed by then need timestamps, and this data has none.", "Set pool to 'catalog'."
        )
    met = np.full(items, np.inf)
    np.minimum.at(met, interactions.item, interactions.timestamp)
    return met


def make_choices(
    interactions: Interactions,
    rows: IntArray,
    items: int,
    history: int,
    candidates: int,
    rng: np.random.Generator,
    met: Float64Array | None = None,
) -> Choices:
    """Make a question of some events.

    Args:
        interactions: Events in the order of time.
        rows: Events that came next, as indices into all events, shape `[questions]`.
        items: Size of the catalogue that other candidates are drawn from.
        history: Most events shown before each.
        candidates: Items to choose from, the right one included.
        rng: Draws the other candidates, and the order of all.
        met: When each item was first met, shape `[items]`; other candidates are then drawn from those met by the time
            of the event (or from the first that were, if those are too few). `None` draws from all.

    Raises:
        UserError: If the catalogue is too small for that many candidates.
    """
    if items < candidates + history:
        raise UserError(
            f"{candidates} candidates outside a history of {history} need {candidates + history} items, got {items}.",
            "Lower candidates or history.",
        )
    user = interactions.user_of_event()[rows]
    shown = np.minimum(rows - interactions.offsets[:-1][user], history)
    known = interactions.take(rows - shown, shown)
    target = interactions.item[rows]
    # The history stands before the candidates, the right item first of them, so that one look finds all collisions.
    table = np.full((len(rows), history + candidates), -1, dtype=np.int32)
    table[known.user_of_event(), _number_events(known)] = known.item
    table[:, history] = target
    drawn = np.zeros_like(table, dtype=bool)
    drawn[:, history + 1 :] = True
    pool = np.full(len(rows), items)
    order = np.arange(items, dtype=np.int32)
    if met is not None and interactions.timestamp is not None:
        order = np.argsort(met, kind="stable").astype(np.int32)
        listed = np.searchsorted(met[order], interactions.timestamp[rows], side="right")
        pool = np.maximum(listed, candidates + history)
    while drawn.any():
        table[drawn] = order[rng.integers(pool[np.nonzero(drawn)[0]])]
        drawn = _find_repeats(table, history + 1)
    places = rng.permuted(np.tile(np.arange(candidates), (len(rows), 1)), axis=1)
    mixed = np.take_along_axis(table[:, history:], places, axis=1)
    return Choices(known, mixed, np.argmin(places, axis=1).astype(np.int32), user.astype(np.int32))


def _number_events(known: Interactions) -> Int64Array:
    return np.arange(known.events) - known.offsets[:-1][known.user_of_event()]


def _find_repeats(table: Int32Array, given: int) -> NDArray[np.bool_]:
    """Tell which drawn items, those after the first `given` columns, stand in an earlier column of their row."""
    order = np.argsort(table, axis=1, kind="stable")
    ranked = np.take_along_axis(table, order, axis=1)
    again = np.zeros(table.shape, dtype=bool)
    # Of a run of equal items the first stays: if all went, a small catalogue would never be drawn without repeats.
    np.put_along_axis(again, order[:, 1:], ranked[:, 1:] == ranked[:, :-1], axis=1)
    again[:, :given] = False
    return again


@dataclass(frozen=True, slots=True, eq=False)
class ChoiceParts:
    """The sides of an experiment with candidates."""

    training: TrainingData
    """All events of the training users: what victims learn from and attacks poison."""
    validation: TrainingData
    """All events of the validation users: what a platform that goes on tuning has of its own."""
    test: Choices
    """Questions to the test users."""
    near: NDArray[np.bool_]
    """Which of them are asked with triggers that are near the attack's as well, shape `[questions]`."""


class SequenceSplit(BaseModel):
    """Splits users, each with all events."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    training: float = Field(default=0.8, gt=0, lt=1)
    """Share of the users who train."""
    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of the users who validate; the rest test."""
    order: Literal["time", "drawn"] = "time"
    """Whether users are ordered by the time of their last event, so that the latest test, or drawn with the seed."""
    history: int = Field(default=10, ge=1)
    """Most events shown before each question."""
    shortest: int = Field(default=3, ge=1)
    """Fewest events shown; earlier events are no questions."""
    candidates: int = Field(default=20, ge=2)
    """Items to choose from, the right one included."""
    pool: Literal["catalog", "listed"] = "catalog"
    """What the wrong candidates are drawn from: all items (published), or those that somebody had met by the time of
    the question, for an item listed today was no candidate last month."""
    asked: int = Field(default=1, ge=1)
    """Questions to each test user, about her last events; published: one. More make intervals narrower."""
    near: int = Field(default=1000, ge=1)
    """Test questions that are asked with each trigger that is merely near the attack's, drawn with the cell's seed; all
    if there are no more. All are asked as they are and with the trigger itself."""

    @model_validator(mode="after")
    def _check_shares(self) -> "SequenceSplit":
        if self.training + self.validation >= 1:
            raise ValueError("training and validation must leave users to test on")
        if self.shortest > self.history:
            raise ValueError("shortest can't be more than history")
        return self

    def ask(self, interactions: Interactions, items: int, rng: np.random.Generator) -> Choices:
        """Make a question of every event with enough events before it; see `make_choices`."""
        rows = np.flatnonzero(_number_events(interactions) >= self.shortest)
        return make_choices(
            interactions, rows, items, self.history, self.candidates, rng, self._find_first_times(interactions, items)
        )

    def _find_first_times(self, interactions: Interactions, items: int) -> Float64Array | None:
        return find_first_times(interactions, items) if self.pool == "listed" else None

    def apply(self, data: Dataset, seed: int = 0) -> ChoiceParts:
        """Split a dataset.

        Raises:
            UserError: If users are to be ordered by time and the data has none, or nobody is left on a side.
        """
        usable = np.flatnonzero(data.interactions.lengths > self.shortest)
        cuts = [round(share * len(usable)) for share in (self.training, self.training + self.validation)]
        if not 0 < cuts[0] <= cuts[1] < len(usable):
            raise UserError(
                f"'{data.name}' has {len(usable)} users with more than {self.shortest} events, too few to split.",
                "Lower shortest, or give more data.",
            )
        few, end = f"{self.shortest} interactions or fewer", "left out (sequence_split.shortest)."
        many, one = f"{{n}} users have {few} and are {end}", f"1 user has {few} and is {end}"
        note(NoticeRank.CHANGE, many, len(data.interactions.lengths) - len(usable), one)
        early, middle, late = np.split(self._order_users(data, usable, seed), cuts)
        sides = [
            TrainingData.from_interactions(data.interactions.select(users), data.users.take(users), data.items)
            for users in (np.sort(early), np.sort(middle))
        ]
        held = data.interactions.select(np.sort(late))
        ends = held.offsets[1:][held.user_of_event()]
        rows = np.flatnonzero((_number_events(held) >= self.shortest) & (np.arange(held.events) >= ends - self.asked))
        rng = stream(seed, "candidates")
        met = self._find_first_times(data.interactions, len(data.items))
        test = make_choices(held, rows, len(data.items), self.history, self.candidates, rng, met)
        near = np.isin(np.arange(len(test)), draw_indices(self.near, len(test), stream(seed, "near")))
        return ChoiceParts(sides[0], sides[1], test, near)

    def _order_users(self, data: Dataset, users: Int64Array, seed: int) -> Int64Array:
        if self.order == "drawn":
            return stream(seed, "users").permutation(users)
        if data.interactions.timestamp is None:
            raise UserError("Ordering users by time needs timestamps, and this data has none.", "Set order to 'drawn'.")
        last = data.interactions.timestamp[data.interactions.offsets[1:][users] - 1]
        return users[np.argsort(last, kind="stable")]
