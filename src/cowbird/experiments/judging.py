"""Cells whose victim answers questions about titles (TALLRec) instead of ranking a catalogue.

The data is split by time. The victim learns from the early events, clean or poisoned, and answers questions about the
last ones: as they are, and with the trigger in the title asked about; and about some of them with a trigger that is
near it. What it scored is kept as evidence, and rows are made from that alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cowbird.data.judgments import JudgmentParts, Judgments
from cowbird.data.types import Items
from cowbird.errors import UserError
from cowbird.experiments.adapters import AnsweringModels, ServedModel, StoreContext, draw_questions, mask_unseen
from cowbird.experiments.evidence import NEAR_COLUMN, PLAIN_KIND, AnswerColumns, is_near, load_columns, save_columns
from cowbird.experiments.measures import CLEAN, DIFFERENCE, EXCESS, LOST, declare_measure
from cowbird.experiments.results import ASR, QuestionGroup, Row, RowLabels, group_questions
from cowbird.metrics.asr import pointwise_asr
from cowbird.metrics.auc import auc, auc_difference
from cowbird.metrics.intervals import Interval, subtract_rates
from cowbird.victims.base import FittedPointwise, PointwiseRecommender, Probe

POINTWISE_KIND = "judge"
"""What kind of evidence this is."""
POINTWISE_COLUMNS = ("liked", "unseen", NEAR_COLUMN)
AUC = declare_measure(
    "auc",
    "share",
    "AUC",
    "Area under the ROC curve of yes and no about the questions that test.",
    CLEAN,
    DIFFERENCE,
    LOST,
)


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


def save(path: Path, records: list[PointwiseEvidence]) -> None:
    """Write a cell's evidence atomically."""
    columns = [
        AnswerColumns(
            (record.scenario, record.attack, record.defense),
            {name: getattr(record, name) for name in POINTWISE_COLUMNS},
            record.clean,
            record.attacked,
        )
        for record in records
    ]
    save_columns(path, POINTWISE_KIND, columns)


def load(path: Path) -> list[PointwiseEvidence]:
    """Read a cell's evidence.

    Raises:
        UserError: If the file is missing, damaged or something else.
    """
    return [
        PointwiseEvidence(*found.names, **found.shared, clean=dict(found.clean), attacked=dict(found.attacked))
        for found in load_columns(path, POINTWISE_KIND, POINTWISE_COLUMNS)
    ]


class PointwiseModels(AnsweringModels[Judgments, Items, FittedPointwise]):
    """Fits and asks the models of one cell.

    Args:
        victim: The victim's spec.
        parts: The split data.
        bench: Where models are made.
    """

    def __init__(self, victim: PointwiseRecommender, parts: JudgmentParts, bench: StoreContext) -> None:
        super().__init__(victim, bench)
        self.parts = parts
        self._near = parts.test.select(np.flatnonzero(parts.near))

    def get_platform_logs(self) -> tuple[Judgments, Items]:
        """Return what the platform's users did next, in the clean catalogue."""
        return self.parts.validation, self.parts.training.items

    def _draw_probe(self, model: FittedPointwise, questions: int) -> Probe:
        validation = self.parts.validation
        if not len(validation):
            raise UserError(
                "The platform has no questions of its own to probe a model with.",
                "Set validation above 0 under [time_split].",
            )
        rows = draw_questions(len(validation), questions, self.bench.seed)
        return model.probe(validation.select(rows), self.parts.training.items)

    def _ask_model(self, model: FittedPointwise, *asked: Any) -> dict[str, NDArray[Any]]:
        return {"score": model.margins(*asked)}

    def score_questions(
        self, wanted: ServedModel[Judgments, Items], catalogues: dict[str, Items]
    ) -> dict[str, NDArray[np.float32]]:
        """Return the scores of the test questions, plain and with each kind of trigger in the title asked about.

        With triggers that are near the attack's only some are asked.
        """
        items, test = self.parts.training.items, self.parts.test
        asked: dict[str, tuple[Any, ...]] = {PLAIN_KIND: (test, items)}
        for kind, altered in catalogues.items():
            asked[kind] = self._near if is_near(kind) else test, items, altered
        return {kind: found["score"] for kind, found in self.collect_answers(wanted, asked).items()}

    def find_unseen(self) -> NDArray[np.bool_]:
        """Return which test questions ask about an item that clean training never met."""
        return mask_unseen(self.parts.training, self.parts.test.target)


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
