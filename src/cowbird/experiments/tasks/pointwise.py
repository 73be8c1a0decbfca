"""Victims that say yes or no about one item (TALLRec).

The data is split by time. The victim learns from the early events, clean or poisoned, and answers questions about the
last ones: as they are, and with the trigger in the title asked about; and about some of them with a trigger that is
near it. What it scored is the evidence, and rows are made from that alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from cowbird.data.judgments import JudgmentParts, Judgments, TemporalSplit
from cowbird.data.types import Dataset, Items, TrainingData
from cowbird.errors import UserError
from cowbird.experiments.measures import CLEAN, DIFFERENCE, EXCESS, LOST, TaskSummary
from cowbird.experiments.results import Row, RowLabels
from cowbird.experiments.shipped_measures import ASR, AUC, POINTWISE_SUMMARY
from cowbird.experiments.tasks.questions import (
    NEAR_COLUMN,
    PLAIN_KIND,
    QuestionGroup,
    QuestionTask,
    ServedModel,
    group_questions,
    is_near,
)
from cowbird.metrics.asr import pointwise_asr
from cowbird.metrics.auc import auc, auc_difference
from cowbird.metrics.intervals import Interval, subtract_rates
from cowbird.victims.base import FittedPointwise, Probe


@dataclass(frozen=True, slots=True, eq=False)
class PointwiseEvidence:
    """One attack in one scenario: what the clean and the attacked model scored."""

    scenario: str
    """Label of the scenario."""
    attack: str
    """Label of the attack."""
    defense: str
    """Label of the defense."""
    liked: NDArray[np.bool_]
    """The right answers, shape `[questions]`."""
    unseen: NDArray[np.bool_]
    """Which questions ask about an item that training never met, shape `[questions]`."""
    near: NDArray[np.bool_]
    """Which questions were asked with triggers that are near the attack's, shape `[questions]`."""
    clean: dict[str, NDArray[np.float32]]
    """Scores of the clean model: `plain` and `trigger`, shape `[questions]` each, and each kind of trigger that is near
    the attack's, shape `[near.sum()]` each."""
    attacked: dict[str, NDArray[np.float32]]
    """Scores of the attacked model, of the same kinds."""


class PointwiseTask(QuestionTask[PointwiseEvidence, FittedPointwise]):
    """Say yes or no about one item."""

    split_table: ClassVar[str] = "time_split"
    split_type: ClassVar[type[BaseModel]] = TemporalSplit
    split_doc: ClassVar[str] = "Early and late events, for victims that say yes or no about an item."
    record_type: ClassVar[type[Any]] = PointwiseEvidence
    shared_columns: ClassVar[tuple[str, ...]] = ("liked", "unseen", NEAR_COLUMN)
    summary: ClassVar[TaskSummary] = POINTWISE_SUMMARY

    parts: JudgmentParts

    def split_data(self, data: Dataset) -> TrainingData:
        """Split by time; see `Task.split_data`."""
        split: TemporalSplit = self.context.split
        self.parts = split.apply(data, self.context.seed)
        self._near = self.parts.test.select(np.flatnonzero(self.parts.near))
        return self.require_titles(self.parts.training)

    def count_questions(self) -> int:
        """Return how many questions test."""
        return len(self.parts.test)

    def make_lesson(self, data: TrainingData) -> tuple[Judgments, Items]:
        """Return the questions that the data poses, and its catalogue."""
        split: TemporalSplit = self.context.split
        return split.ask(data.interactions), data.items

    def get_platform_logs(self) -> tuple[Judgments, Items]:
        """Return what the platform's users did next, in the clean catalogue."""
        return self.parts.validation, self.training.items

    def draw_probe(self, model: FittedPointwise, questions: int) -> Probe:
        """Return a probe; see `QuestionTask.draw_probe`."""
        validation = self.parts.validation
        if not len(validation):
            raise UserError(
                "The platform has no questions of its own to probe a model with.",
                "Set validation above 0 under [time_split].",
            )
        return model.probe(validation.select(self.draw_questions(len(validation), questions)), self.training.items)

    def ask_model(self, model: FittedPointwise, *asked: Any) -> dict[str, NDArray[Any]]:
        """Score questions; see `QuestionTask.ask_model`."""
        return {"score": model.margins(*asked)}

    def ask_all(self, wanted: ServedModel, catalogs: dict[str, Items]) -> dict[str, NDArray[np.float32]]:
        """Return scores; with triggers that are near the attack's only some questions are asked."""
        items, test = self.training.items, self.parts.test
        asked: dict[str, tuple[Any, ...]] = {PLAIN_KIND: (test, items)}
        for kind, altered in catalogs.items():
            asked[kind] = self._near if is_near(kind) else test, items, altered
        return {kind: found["score"] for kind, found in self.collect_answers(wanted, asked).items()}

    def describe_questions(self) -> dict[str, NDArray[Any]]:
        """Return the right answers, and which questions are about unseen items or asked with near triggers."""
        test = self.parts.test
        return {"liked": test.liked, "unseen": self.mask_unseen(test.target), NEAR_COLUMN: self.parts.near}

    @classmethod
    def make_seed_rows(cls, where: RowLabels, record: PointwiseEvidence, ks: Sequence[int]) -> list[Row]:
        """Return AUC and ASR; see `Task.make_seed_rows`."""
        return make_rows(where, record)

    @classmethod
    def make_defense_rows(
        cls, where: RowLabels, record: PointwiseEvidence, bare: PointwiseEvidence, ks: Sequence[int]
    ) -> list[Row]:
        """Return ASR left and AUC lost; see `Task.make_defense_rows`."""
        return make_defense_rows(where, record, bare)


def make_rows(where: RowLabels, record: PointwiseEvidence) -> list[Row]:
    """Return the rows of one seed: AUC clean, attacked and their difference; ASR of each kind of trigger.

    The group of an ASR row is the kind of trigger: `trigger` is the attack's own, `unseen` the same on items that
    training never met, and `near-…` others, whose successes are false alarms of the backdoor.
    """
    clean, attacked = record.clean["plain"], record.attacked["plain"]
    rows = [
        where.make_row("all", AUC, auc(attacked, record.liked)),
        where.make_row("all", AUC[CLEAN], auc(clean, record.liked)),
        where.make_row("all", AUC[DIFFERENCE], auc_difference(attacked, clean, record.liked)),
    ]
    for group in group_questions(record.attacked, record.near, record.unseen):
        rows.append(where.make_row(group.name, ASR, _compute_asr(record.attacked, group)))
        rows.append(where.make_row(group.name, ASR[CLEAN], _compute_asr(record.clean, group)))
    return rows


def make_defense_rows(where: RowLabels, record: PointwiseEvidence, bare: PointwiseEvidence) -> list[Row]:
    """Return what a defense left of the attack and what it cost, against the clean model without any defense.

    `asr_excess` is the ASR of the attacked and defended model less that model's; `auc_lost` is that model's AUC less
    that of the attacked and defended one. The interval of an excess is made of those of the two rates (Newcombe,
    Statistics in Medicine 1998, method 10, with exact intervals), as if they were independent. They are of the same
    questions, and go up and down together, so it is rather too wide.

    Args:
        where: Where the defended model was measured.
        record: What it answered.
        bare: What the models without a defense answered to the same questions.
    """
    lost = auc_difference(bare.clean["plain"], record.attacked["plain"], record.liked)
    rows = [where.make_row("all", AUC[LOST], lost)]
    for group in group_questions(record.attacked, record.near, record.unseen):
        found = subtract_rates(_compute_asr(record.attacked, group), _compute_asr(bare.clean, group))
        rows.append(where.make_row(group.name, ASR[EXCESS], found))
    return rows


def _compute_asr(side: dict[str, NDArray[np.float32]], group: QuestionGroup) -> Interval:
    """Return the ASR of a model in a group of questions."""
    return pointwise_asr(side[PLAIN_KIND][group.questions], side[group.kind][group.answers])
