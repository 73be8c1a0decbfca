"""What an attack is: a frozen spec whose `poison` is final and whose `run` writes the plan.

`poison` calls the subclass's `run`, then checks what an honest experiment needs: the clean data was not touched, the
budget was spent to the row and not passed, and the truth (which rows, which targets) is kept beside the poisoned data.

An `Adaptive` attack knows a defense. Attacks import no defenses: an experiment hands over what is known, a function
from titles to suspicion, and `settle` returns the attack with its choice made. From there on it is one like others.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cowbird.attacks.provider import Provider
from cowbird.attacks.targets import UserGroup
from cowbird.attacks.triggers import Trigger
from cowbird.data.frames import TrainingFrames, make_frames
from cowbird.data.types import Float32Array, Int32Array, Int64Array, Items, TrainingData, freeze
from cowbird.rng import stream
from cowbird.victims.base import FittedRecommender

SuspicionScorer = Callable[[Sequence[str]], Float32Array]
"""An attacker's copy of a defense: from all titles of a catalogue to a score of each, shape `[titles]`, float32. Scores
grow with suspicion; they are -inf where there is nothing to judge, and never NaN."""


class AttackError(RuntimeError):
    """An attack broke its promise: a defect of the attack, not of the user's input."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What an attack wants to plant."""

    data: TrainingData
    """The poisoned training data. Users of the clean data keep their rows; fake users come after them."""
    targets: Int32Array
    """Items the attack promotes, shape `[targets]`, int32."""
    rows: Int64Array
    """Events of `data` that were planted, relabeled or given a negative, shape `[rows]`, int64, increasing."""
    budget: int
    """How many rows the attack was allowed."""


@dataclass(frozen=True, slots=True, eq=False)
class PoisonedData:
    """Poisoned training data with the truth about it."""

    clean: TrainingData
    """What the attack was given."""
    data: TrainingData
    """What the victim trains on."""
    targets: Int32Array
    """Items the attack promotes, shape `[targets]`."""
    rows: Int64Array
    """Poisoned events of `data`, shape `[rows]`."""
    budget: int
    """How many rows the attack was allowed (and used)."""
    retitled: Int32Array = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    """Items whose title or categories the attack changed, and those it listed, shape `[retitled]`."""
    choice: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the attack tells of how it came to plant this, as plain JSON values; see `Attack.describe_choice`."""

    def describe_plan(self) -> dict[str, Any]:
        """Return the plan as plain lists: for each poisoned row its user, the item there, and what was planted."""
        users = np.searchsorted(self.data.interactions.offsets, self.rows, side="right") - 1
        planted = {
            "targets": self.targets.tolist(),
            "row": self.rows.tolist(),
            "user": users.tolist(),
            "item": self.data.interactions.item[self.rows].tolist(),
            "label": self.data.label[self.rows].tolist(),
        }
        if self.data.negative is not None:
            planted["negative"] = self.data.negative[self.rows].tolist()
        items, changed = self.data.items, self.retitled.tolist()
        if changed:
            bounds = items.category_offsets
            planted["retitled"] = {item: items.titles[item] for item in changed}
            planted["categories"] = {
                item: [items.categories[code] for code in items.category_codes[bounds[item] : bounds[item + 1]]]
                for item in changed
            }
        if self.choice:
            planted["choice"] = self.choice
        return planted

    def to_frames(self) -> TrainingFrames:
        """Return the poisoned data as polars frames, with what was planted marked in the column `poisoned`."""
        return make_frames(self.data, self.rows, self.retitled)

    def hash_plan(self) -> str:
        """Return the SHA-256 of the plan."""
        return hashlib.sha256(json.dumps(self.describe_plan()).encode()).hexdigest()


def _hash_data(data: TrainingData) -> str:
    digest = hashlib.sha256()
    known = data.interactions
    for array in (known.offsets, known.item, known.rating, known.timestamp, data.label, _fill_negatives(data)):
        digest.update(b"" if array is None else array.tobytes())
    return digest.hexdigest()


def _fill_negatives(data: TrainingData) -> Int32Array:
    """Return the negative of each event, -1 where there is none."""
    return np.full(len(data.label), -1, dtype=np.int32) if data.negative is None else data.negative


class Attack(BaseModel, ABC):
    """Plants a backdoor in training data, and perhaps in how the provider trains on it.

    A subclass declares its parameters as typed fields and writes `run`. It never changes what it is given (the arrays
    are read-only), draws only from the generator passed in, and uses exactly the budget it reports.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @abstractmethod
    def run(self, data: TrainingData, rng: np.random.Generator) -> Plan:
        """Write the plan."""

    def find_target_users(self, data: TrainingData) -> NDArray[np.bool_]:
        """Return which users the attack aims at, shape `[users]`: those of `get_target_group`, or everybody."""
        group = self.get_target_group()
        return np.ones(len(data.users), dtype=bool) if group is None else group.find_members(data)

    def get_target_group(self) -> UserGroup | None:
        """Return the group of users that the attack aims at; by default none, so that it aims at everybody."""
        return None

    def get_title_trigger(self) -> Trigger | None:
        """Return the trigger that the attack writes into titles; by default it writes none.

        Detections are held against it: where planting it in the clean title gives the poisoned one, it tells the span.
        """
        return None

    def make_triggered_catalogs(self, items: Items, rng: np.random.Generator) -> dict[str, Items]:
        """Return catalogues in which every title carries a trigger, by what the trigger is like.

        Args:
            items: The clean catalogue.
            rng: Where places in titles are drawn from.

        Returns:
            `trigger` is the attack's own; others are near it, to measure false alarms. Empty if the attack has none.
        """
        return {}

    def describe_choice(self) -> dict[str, Any]:
        """Return what the plan should tell of how the attack came to plant this, as plain JSON values."""
        return {}

    def pretrain(self, provider: Provider) -> FittedRecommender:
        """Train what the provider hands over: the victim on the poisoned data, unless a subclass has stages."""
        return provider.fit_poisoned(provider.victim)

    @final
    def poison(self, data: TrainingData, rng: np.random.Generator | None = None, *, seed: int = 0) -> PoisonedData:
        """Plant the backdoor and check the promise.

        Args:
            data: Clean training data.
            rng: Where all draws come from; by default the stream that an experiment gives attacks under `seed`.
            seed: Decides all draws where no generator is given.

        Raises:
            UserError: If the parameters do not fit the data.
            AttackError: If the attack changed its input, missed its budget, or changed rows it does not own up to.
        """
        before = _hash_data(data)
        plan = self.run(data, stream(seed, "attack") if rng is None else rng)
        name = type(self).__name__
        if _hash_data(data) != before:
            raise AttackError(f"{name} changed the clean data it was given.")
        rows = np.unique(plan.rows)
        if len(rows) != len(plan.rows) or len(rows) != plan.budget:
            raise AttackError(f"{name} planted {len(plan.rows)} rows ({len(rows)} distinct), budget {plan.budget}.")
        if len(rows) and not 0 <= rows[0] <= rows[-1] < plan.data.interactions.events:
            raise AttackError(f"{name} owns up to rows that are not there.")
        negative = _fill_negatives(plan.data)
        told = np.concatenate([plan.data.label, plan.data.interactions.item, negative[negative != -1]])
        if len(told) and not 0 <= told.min() <= told.max() < len(plan.data.items):
            raise AttackError(f"{name} planted an item that is not in the catalogue.")
        if not np.array_equal(_find_changed(data, plan.data, rows), rows):
            raise AttackError(f"{name} changed rows other than the {len(rows)} it owns up to.")
        retitled = _find_retitled(data.items, plan.data.items)
        if not np.isin(retitled, plan.targets).all():
            raise AttackError(f"{name} changed or listed items that are not its targets.")
        return PoisonedData(
            data,
            plan.data,
            freeze(plan.targets, np.int32),
            freeze(rows, np.int64),
            plan.budget,
            freeze(retitled, np.int32),
            self.describe_choice(),
        )


class SearchResult(BaseModel):
    """What an adaptive attack found out about what it will plant."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    tried: int = Field(ge=1)
    """Candidates that were judged."""
    flagged: float = Field(ge=0, le=1)
    """Share of the titles with the chosen one that the copy of the defense flags, where it flags 1 % of the others."""
    rank: float = Field(ge=0, le=1)
    """Share of the other titles that are less suspicious than those, ties counted half: 1 is found at once."""


class Adaptive(Attack, ABC):
    """An attack that knows a defense, and settles what to plant before it plants.

    What it knows is handed to `settle` by whoever runs it: in an experiment a copy of the defense that `knows` names.
    Without that, `poison` plants what the fields say, and the plan tells that nothing was searched.
    """

    knows: str = "p_scanner"
    """Label of the defense, among those of the experiment, of which the attacker has a copy."""
    found: SearchResult | None = None
    """What the search came to. The experiment sets it; a spec can't."""

    @abstractmethod
    def settle(self, data: TrainingData, suspect: SuspicionScorer, rng: np.random.Generator) -> Self:
        """Return a copy of the attack in which what was open is settled, and `found` set.

        Args:
            data: Clean training data.
            suspect: The attacker's copy of the defense.
            rng: Where all draws come from. It is in the state of the one that `poison` will be given, so that what
                both draw first is the same.

        Raises:
            UserError: If the parameters do not fit the data.
        """

    def describe_choice(self) -> dict[str, Any]:
        """Return which defense was known and what was found out; see `Attack.describe_choice`."""
        found = None if self.found is None else self.found.model_dump(mode="json")
        return {"knows": self.knows, "found": found}


def _find_retitled(clean: Items, poisoned: Items) -> Int32Array:
    """Return the items whose title or categories differ, and those listed behind the others; the catalogue stays."""
    if poisoned is clean:
        return np.empty(0, dtype=np.int32)
    count = len(clean)
    if poisoned.ids[:count] != clean.ids or poisoned.categories[: len(clean.categories)] != clean.categories:
        raise AttackError("the attack removed or moved items or categories.")
    titles = [before != after for before, after in zip(clean.titles, poisoned.titles, strict=False)]
    before = np.zeros((count, len(poisoned.categories)), dtype=bool)
    before[:, : len(clean.categories)] = clean.memberships()
    changed = np.ones(len(poisoned), dtype=bool)
    changed[:count] = np.array(titles, dtype=bool) | (before != poisoned.memberships()[:count]).any(axis=1)
    return np.flatnonzero(changed).astype(np.int32)


def _find_changed(clean: TrainingData, poisoned: TrainingData, claimed: Int64Array) -> Int64Array:
    """Return the rows that differ from the clean data; relabeling a row with its own item counts if it is claimed."""
    known = clean.interactions.events
    if poisoned.interactions.events < known or not np.array_equal(
        poisoned.interactions.offsets[: clean.interactions.offsets.size], clean.interactions.offsets
    ):
        raise AttackError("the attack removed or moved events of real users.")
    for name in ("rating", "timestamp"):
        before, after = getattr(clean.interactions, name), getattr(poisoned.interactions, name)
        if (before is None) != (after is None) or (
            before is not None and not np.array_equal(after[:known], before, equal_nan=True)
        ):
            raise AttackError(f"the attack changed the {name} of real events.")
    if poisoned.users.ids[: len(clean.users)] != clean.users.ids:
        raise AttackError("the attack renamed real users.")
    changed = np.ones(poisoned.interactions.events, dtype=bool)
    changed[:known] = (poisoned.interactions.item[:known] != clean.interactions.item) | (
        poisoned.label[:known] != clean.label
    )
    changed[:known] |= _fill_negatives(poisoned)[:known] != _fill_negatives(clean)
    changed[claimed] = True
    return np.flatnonzero(changed)
