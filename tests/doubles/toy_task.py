"""A fourth task, whole in one file: victims that show one list of items to everybody.

It is what `tests/experiments/test_task_cost.py` runs. Nothing else in Cowbird knows of it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cowbird.data.types import TrainingData
from cowbird.experiments.measures import CLEAN, EXCESS, LOST, declare_measure
from cowbird.experiments.tasks.base import Task, TaskSummary
from cowbird.files import write_text
from cowbird.metrics.intervals import wilson
from cowbird.rng import derive_seed, stream
from cowbird.victims.base import FittedModel, Victim

# The base class, and a victim


class ListRecommender(Victim):
    """A recommender that shows one list to everybody."""

    task: ClassVar[str] = "doubles.toy_task"
    length: int = 5
    """How many items the list has."""


class MostRead(ListRecommender):
    """Shows the items with the most events."""

    def fit(self, data, banned, seed, context=None, start=None):
        """Count events."""
        counts = np.bincount(data.interactions.item, minlength=len(data.items)).astype(float)
        counts[banned] = -1
        return ShownList(np.argsort(-counts, kind="stable")[: self.length])

    def load(self, path, device):
        """Read a list."""
        return ShownList(np.array(json.loads(path.read_text())))


@dataclass
class ShownList(FittedModel):
    """The list."""

    items: Any

    def save(self, path: Path) -> None:
        """Write the list."""
        write_text(path, json.dumps(self.items.tolist()))


# The task

READ = declare_measure("list_read", "share", "read", "Share of users who read an item of the list next.", CLEAN, LOST)
PLANTED = declare_measure("list_planted", "share", "planted", "Share of the list that are targets.", CLEAN, EXCESS)


class ListSplit(BaseModel):
    """Which users test."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    held_out: float = Field(default=0.3, gt=0, lt=1)


@dataclass
class ListEvidence:
    """What was shown."""

    scenario: str
    attack: str
    defense: str
    clean: Any
    attacked: Any
    targets: Any
    read: Any


class ListTask(Task[ListEvidence]):
    """Show one list to everybody."""

    split_table: ClassVar[str] = "list_split"
    split_type: ClassVar[type[BaseModel]] = ListSplit
    split_doc: ClassVar[str] = "Users who read the list."
    artifact: ClassVar[str] = "list.json"
    summary: ClassVar[TaskSummary] = TaskSummary(
        accuracy=(READ,), attack=(PLANTED,), groups=("all",), note="Read: users who read an item of the list next."
    )

    def split_data(self, data):
        """Hold out users."""
        count = round(self.context.split.held_out * data.interactions.users)
        order = stream(self.context.seed, "list split").permutation(data.interactions.users)
        known, asked = np.sort(order[count:]), np.sort(order[:count])
        self.read = data.interactions.select(asked).item[data.interactions.select(asked).offsets[1:] - 1]
        return TrainingData.from_interactions(data.interactions.select(known), data.users.take(known), data.items)

    def measure(self, planted, defense, scenario):
        """Fit both lists."""
        context = self.context
        seed, none = derive_seed(context.seed, "list"), np.array([], dtype=int)
        lists = []
        for side, data in (("clean", self.training), (planted.label, planted.poisoned.data)):
            lesson = self.clean_data(side, data, defense), none
            model = context.models.fit(
                self.name_model(side, defense), context.victim, seed, lambda lesson=lesson: lesson
            )
            lists.append(model.items)
        targets = planted.poisoned.targets
        return ListEvidence(scenario.title(), planted.label, defense.title(), *lists, targets, self.read)

    @classmethod
    def encode_record(cls, record):
        """Return the lists."""
        return {name: getattr(record, name) for name in ("clean", "attacked", "targets", "read")}

    @classmethod
    def decode_record(cls, labels, columns):
        """Return the record."""
        return ListEvidence(*labels, *(columns[name] for name in ("clean", "attacked", "targets", "read")))

    @classmethod
    def make_seed_rows(cls, where, record, ks):
        """Return shares of both lists."""
        rows = []
        for shown, variant in ((record.attacked, None), (record.clean, CLEAN)):
            read, planted = np.isin(record.read, shown), np.isin(shown, record.targets)
            rows.append(where.make_row("all", READ[variant], wilson(int(read.sum()), len(read))))
            rows.append(where.make_row("all", PLANTED[variant], wilson(int(planted.sum()), len(planted))))
        return rows
