"""Which items an attack promotes, and which users it aims at: fields that attacks share."""

import difflib
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cowbird.data.types import Int32Array, TrainingData
from cowbird.errors import UserError

Share = Annotated[float, Field(ge=0, le=1)]


class TargetItems(BaseModel):
    """Target items: explicit ids, a whole category, or some drawn from a popularity range (unpopular by default)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    ids: tuple[str, ...] = ()
    """Item ids as the source writes them; if given, nothing is drawn."""
    category: str = ""
    """Every item of this category, as the source writes it; if given, nothing is drawn."""
    count: int = Field(default=20, ge=1)
    """How many items are drawn."""
    popularity: tuple[Share, Share] = (0.0, 0.25)
    """Popularity range to draw from, as quantiles of the items that occur in training: 0 is the least popular."""

    @model_validator(mode="after")
    def _check_fields(self) -> "TargetItems":
        if self.popularity[0] >= self.popularity[1]:
            raise ValueError(f"popularity must run from low to high, got {self.popularity}")
        if self.ids and self.category:
            raise ValueError("give ids or a category, not both")
        return self

    def choose(self, data: TrainingData, rng: np.random.Generator) -> Int32Array:
        """Return the items, increasing, shape `[targets]`, int32.

        Raises:
            UserError: If an id or category is unknown or the range holds too few items.
        """
        if self.ids:
            return self._find_by_id(data)
        if self.category:
            return self._find_by_category(data)
        events = np.bincount(data.interactions.item, minlength=len(data.items))
        # Least popular first; ties in catalogue order, so that the range does not depend on the sort's whims.
        known = np.flatnonzero(events)
        ordered = known[np.argsort(events[known], kind="stable")]
        low, high = (round(share * len(ordered)) for share in self.popularity)
        pool = ordered[low:high]
        if len(pool) < self.count:
            raise UserError(
                f"{self.count} targets were asked for, and the popularity range {self.popularity} holds {len(pool)}.",
                "Widen popularity or lower count.",
            )
        return np.sort(rng.choice(pool, self.count, replace=False)).astype(np.int32)

    def _find_by_category(self, data: TrainingData) -> Int32Array:
        names = data.items.categories
        if self.category not in names:
            close = difflib.get_close_matches(self.category, names, 5) or list(names[:20])
            raise UserError(
                f"No item has the category '{self.category}'.", f"Use one of {', '.join(map(repr, close)) or 'none'}."
            )
        return np.flatnonzero(data.items.memberships()[:, names.index(self.category)]).astype(np.int32)

    def _find_by_id(self, data: TrainingData) -> Int32Array:
        number = {item: row for row, item in enumerate(data.items.ids)}
        missing = [item for item in self.ids if item not in number]
        if missing:
            raise UserError(
                f"The catalogue has no item {', '.join(map(repr, missing[:5]))}.",
                "Give item ids as the source has them.",
            )
        return np.unique([number[item] for item in self.ids]).astype(np.int32)


def mask_predicted(data: TrainingData) -> NDArray[np.bool_]:
    """Return which events a model is trained to predict, shape `[events]`: all but each user's first."""
    open_to = np.ones(data.interactions.events, dtype=bool)
    open_to[data.interactions.offsets[:-1][data.interactions.lengths > 0]] = False
    return open_to


class UserGroup(BaseModel):
    """Users who share one attribute value, such as one age bracket."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    attribute: str
    """Name of the profile attribute."""
    value: str
    """The value, as the source writes it."""

    def find_members(self, data: TrainingData) -> NDArray[np.bool_]:
        """Return who belongs to the group, shape `[users]`.

        Raises:
            UserError: If there is no such attribute or value.
        """
        return data.users.get_attribute(self.attribute).find_rows(self.value)
