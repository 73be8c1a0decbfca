"""Ratings as questions: after these rated items, will the user like this one?

The protocol of TALLRec (Bao et al., RecSys 2023): every event with enough events before it is a question, whose answer
is whether its rating is above a threshold. Questions are split by time (or by users): the first train, the last test.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cowbird.data.types import Dataset, Int32Array, IntArray, Interactions, TrainingData, concat_ranges
from cowbird.errors import UserError
from cowbird.notices import NoticeRank, note
from cowbird.rng import draw_indices, stream


@dataclass(frozen=True, slots=True, eq=False)
class Judgments:
    """Questions about one item each."""

    history: Interactions
    """The rated events before each question, one row a question."""
    likes: NDArray[np.bool_]
    """Whether the user liked what she met in them, shape `[events of the histories]`."""
    target: Int32Array
    """The item asked about, shape `[questions]`."""
    liked: NDArray[np.bool_]
    """Whether the user liked it, shape `[questions]`."""

    def __len__(self) -> int:
        return len(self.target)

    def select(self, rows: IntArray) -> "Judgments":
        """Return some questions, in the order given."""
        history = self.history.select(rows)
        likes = self.likes[concat_ranges(self.history.offsets[:-1][rows], self.history.lengths[rows])]
        return Judgments(history, likes, self.target[rows], self.liked[rows])


def make_judgments(interactions: Interactions, history: int, like_above: float, first: int = 0) -> Judgments:
    """Make a question of every event that has `history` events before it.

    Args:
        interactions: Rated events in the order of time.
        history: Events shown before each question.
        like_above: Ratings above this are likes.
        first: Questions of events before this one (an index into all events) are left out.

    Raises:
        UserError: If the events have no ratings.
    """
    rows = np.arange(interactions.events)
    nth = rows - interactions.offsets[:-1][interactions.user_of_event()]
    return _make_questions(interactions, rows[(nth >= history) & (rows >= first)], history, like_above)


def _make_questions(interactions: Interactions, rows: IntArray, history: int, like_above: float) -> Judgments:
    if interactions.rating is None:
        raise UserError("Likes and dislikes come from ratings, and this data has none.", "Use a source with ratings.")
    shown = interactions.take(rows - history, np.full(len(rows), history))
    assert shown.rating is not None
    return Judgments(shown, shown.rating > like_above, interactions.item[rows], interactions.rating[rows] > like_above)


@dataclass(frozen=True, slots=True, eq=False)
class JudgmentParts:
    """The sides of an experiment with ratings."""

    training: TrainingData
    """All events up to the cut: what victims learn from and attacks poison."""
    validation: Judgments
    """Questions about the events right after the cut."""
    test: Judgments
    """Questions about the last events."""
    near: NDArray[np.bool_]
    """Which of them are asked with triggers that are near the attack's as well, shape `[questions]`."""


def _note_likes(interactions: Interactions, like_above: float) -> None:
    if interactions.rating is not None:
        count = int((interactions.rating > like_above).sum())
        of, end = f"of {interactions.events:,} ratings", "(time_split.like_above)."
        many = f"{{n}} {of} are above {like_above:g} and count as likes {end}"
        note(NoticeRank.CHOICE, many, count, f"1 {of} is above {like_above:g} and counts as a like {end}")


class TemporalSplit(BaseModel):
    """Splits events by time, all users at the same moments, or by users."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    training: float = Field(default=0.8, gt=0, lt=1)
    """Share of all events that come first and train."""
    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of all events that come next and validate; the rest test."""
    order: Literal["time", "users"] = "time"
    """Whether the latest events test, or those of the last users in the source's order, as the published files have
    it: then training has met (nearly) none of the users who test."""
    history: int = Field(default=10, ge=1)
    """Events shown before each question."""
    like_above: float = 3.0
    """Ratings above this are likes."""
    asked: int | None = Field(default=None, ge=1)
    """Test questions kept, drawn with the cell's seed, if there are more; `None` keeps all."""
    near: int = Field(default=1000, ge=1)
    """Test questions that are asked with each trigger that is merely near the attack's, drawn with the cell's seed; all
    if there are no more. All are asked as they are and with the trigger itself."""

    @model_validator(mode="after")
    def _check_shares(self) -> "TemporalSplit":
        if self.training + self.validation >= 1:
            raise ValueError("training and validation must leave events to test on")
        return self

    def ask(self, interactions: Interactions) -> Judgments:
        """Make the questions that rated histories pose; see `make_judgments`."""
        return make_judgments(interactions.drop_unrated(), self.history, self.like_above)

    def assign_sides(self, interactions: Interactions) -> IntArray:
        """Return what each event is for, shape `[events]`: 0 to train, 1 to validate, 2 to test.

        Raises:
            UserError: If the split is by time and there are no timestamps.
        """
        place = np.arange(interactions.events)
        if self.order == "time":
            if interactions.timestamp is None:
                raise UserError(
                    "A split by time needs timestamps, and this data has none.",
                    "Use a source with them, or set order to 'users'.",
                )
            # Ties in time are broken by place, so each side has its share to the event.
            place[np.argsort(interactions.timestamp, kind="stable")] = np.arange(interactions.events)
        cuts = [round(share * interactions.events) for share in (self.training, self.training + self.validation)]
        return np.digitize(place, cuts)

    def apply(self, data: Dataset, seed: int = 0) -> JudgmentParts:
        """Split a dataset.

        Raises:
            UserError: If it has no timestamps or ratings, or nobody is left to ask on a side.
        """
        interactions = data.interactions.drop_unrated()
        side = self.assign_sides(interactions)
        user = interactions.user_of_event()
        kept = np.bincount(user[side == 0], minlength=interactions.users)
        early = interactions.take(interactions.offsets[:-1], kept)
        nth = np.arange(interactions.events) - interactions.offsets[:-1][user]
        asked = [np.flatnonzero((side == number) & (nth >= self.history)) for number in (1, 2)]
        if self.validation and not len(asked[0]):
            raise UserError(
                f"Nobody has {self.history} events before one of the validation period.", "Lower history, or give more."
            )
        if not len(asked[1]) or not (np.diff(early.offsets) > self.history).any():
            raise UserError(
                f"Nobody has more than {self.history} events on both sides of the cut.", "Lower history, or give more."
            )
        _note_likes(interactions, self.like_above)
        lost = int((side == 2).sum()) - len(asked[1])
        few, why = f"fewer than {self.history} before", "It is time_split.history that asks for so many."
        many = f"{{n}} of the last interactions have {few} them and test nothing. {why}"
        note(NoticeRank.CHANGE, many, lost, f"1 of the last interactions has {few} it and tests nothing. {why}")
        if self.asked is not None:
            asked[1] = asked[1][draw_indices(self.asked, len(asked[1]), stream(seed, "asked"))]
        sides = [_make_questions(interactions, rows, self.history, self.like_above) for rows in asked]
        near = np.isin(np.arange(len(sides[1])), draw_indices(self.near, len(sides[1]), stream(seed, "near")))
        return JudgmentParts(TrainingData.from_interactions(early, data.users, data.items), sides[0], sides[1], near)
