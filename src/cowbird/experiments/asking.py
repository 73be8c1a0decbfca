"""Cells whose victim answers questions about titles: yes or no (`judging`), or one of some candidates (`choosing`).

Both go the same way: each attack plants, a clean and an attacked model are fitted and handed to the platform, and both
are asked the same questions, plain and with a trigger. A defense acts on both: it cleans what they learn from, repairs
what the platform has, and guards what serves. What a model answered is kept as soon as it is made.
"""

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

import torch

from cowbird.attacks.base import PoisonedData
from cowbird.data.choices import SequenceSplit
from cowbird.data.judgments import Judgments
from cowbird.data.types import Dataset, Items, TrainingData
from cowbird.errors import UserError
from cowbird.experiments import choosing, judging
from cowbird.experiments.adapters import AnsweringModels, ServedModel, StoreContext
from cowbird.experiments.cell import EVIDENCE_FILE, Cell, Runner, find_undefended_label
from cowbird.experiments.choosing import CandidateEvidence, CandidateModels
from cowbird.experiments.judging import PointwiseEvidence, PointwiseModels
from cowbird.experiments.models import Progress
from cowbird.experiments.scenarios import Direct, PoisonedAdapter, Scenario
from cowbird.experiments.spec import AttackPart, DefensePart
from cowbird.rng import stream
from cowbird.victims.base import CandidateRecommender, PointwiseRecommender, Probe

First = TypeVar("First")
Second = TypeVar("Second")
Record = TypeVar("Record")


class AnsweringRunner(Runner, Generic[First, Second, Record]):
    """What such cells share.

    Args:
        cell: The cell.
        data: The dataset.
        device: Where models live.
        progress: Told of each fit.
        warn: Told of trouble that was worked around.
    """

    training: TrainingData
    """What providers train on and attacks poison."""
    questions: int
    """How many questions each model is asked plain."""
    models: AnsweringModels[First, Second, Any]
    """The models of the cell."""

    def __init__(
        self, cell: Cell, data: Dataset, device: torch.device, progress: Progress, warn: Callable[[str], None]
    ) -> None:
        super().__init__(cell, warn)

        def report_progress(name: str, done: int, total: int, remark: str) -> None:
            progress(f"{cell.title}: {name}", done, total, remark)

        self.device = device
        self.prepare(
            data,
            StoreContext(cell.seed, cell.folder / "models", cell.folder / "answers", device, report_progress, warn),
        )

    @abstractmethod
    def prepare(self, data: Dataset, bench: StoreContext) -> None:
        """Split the data, and set `training`, `questions` and `models`."""

    @abstractmethod
    def make_training_input(self, data: TrainingData) -> tuple[First, Second]:
        """Return what a provider trains on."""

    @abstractmethod
    def compare(
        self,
        names: tuple[str, str, str],
        clean: ServedModel[First, Second],
        attacked: ServedModel[First, Second],
        catalogues: dict[str, Items],
    ) -> Record:
        """Ask the clean and the attacked model.

        Args:
            names: Labels of scenario, attack and defense.
            clean: The honest provider's model.
            attacked: The other's.
            catalogues: Titles with each kind of trigger.
        """

    @abstractmethod
    def save(self, records: list[Record]) -> None:
        """Write the evidence."""

    def run(self) -> None:
        """Measure; see `Runner.run`."""
        spec, training, records = self.cell.spec, self.training, list[Record]()
        if not any(training.items.titles):
            raise UserError(
                f"{self.cell.victim.title()} reads titles, and the items of this dataset have none.",
                "Use a source with titles.",
            )
        for attack, poisoned in self.plant_attacks():
            if _changes_only_labels(poisoned):
                self.errors.append(
                    f"{self.cell.title}, attack {attack.title()}: it changes labels alone, which this victim does not "
                    "read. Use an attack on titles or users, such as badrec."
                )
                continue
            catalogues = attack.options.make_triggered_catalogs(training.items, stream(self.cell.seed, "triggered"))
            for defense in spec.defenses:
                records += self._measure_defense(attack, poisoned, defense, catalogues)
        self.save(records)
        facts = {"training_events": training.interactions.events, "test_questions": self.questions}
        self.finish(self.device, self.models.seconds, facts)

    def _measure_defense(
        self, attack: AttackPart, poisoned: PoisonedData, defense: DefensePart, catalogues: dict[str, Items]
    ) -> list[Record]:
        """Measure a defense in each scenario; what can't be done is an error, and the others go on."""
        records: list[Record] = []
        try:
            self.record_detections(attack, poisoned, defense, self._make_probe)
        except UserError as error:
            self.record_error(attack, defense, error)
            return records
        for scenario in self.cell.spec.scenarios:
            try:
                records.append(self._measure(attack, poisoned, defense, scenario, catalogues))
            except UserError as error:
                self.record_error(attack, defense, error, scenario)
        return records

    def _measure(
        self,
        attack: AttackPart,
        poisoned: PoisonedData,
        defense: DefensePart,
        scenario: Scenario,
        catalogues: dict[str, Items],
    ) -> Record:
        if not isinstance(scenario, Direct | PoisonedAdapter):
            raise UserError(
                f"Scenario '{scenario.title()}' is for victims that rank, and {self.cell.victim.title()} does not.",
                "Use direct or poisoned-adapter.",
            )
        clean, attacked = (
            self._make_served_model(side, data, defense, scenario)
            for side, data in (("clean", self.training), (attack.title(), poisoned.data))
        )
        return self.compare((scenario.title(), attack.title(), defense.title()), clean, attacked, catalogues)

    def _make_served_model(
        self, side: str, data: TrainingData, defense: DefensePart, scenario: Scenario
    ) -> ServedModel[First, Second]:
        name = f"{side}+{defense.title()}"

        def make_input() -> tuple[First, Second]:
            probe = partial(self._make_probe, side, data, defense)
            return self.make_training_input(self.inspector.clean(name, defense.options, data, probe))

        return ServedModel(
            f"{side}+{self.get_defense_label(side, defense)}", make_input, scenario, name, defense.options
        )

    def _make_probe(self, side: str, data: TrainingData, defense: DefensePart) -> Probe:
        """Return a probe of the victim trained on data as it came, of a side: an attack's label, or `clean`."""
        return self.models.make_probe(
            f"{side}+{find_undefended_label(self.cell.spec)}",
            partial(self.make_training_input, data),
            defense.options.count_probe_questions(),
        )


def _changes_only_labels(poisoned: PoisonedData) -> bool:
    """Tell whether nothing of an attack is in what such victims read: events and titles."""
    same = len(poisoned.data.interactions.item) == len(poisoned.clean.interactions.item)
    return same and not len(poisoned.retitled)


class PointwiseRunner(AnsweringRunner[Judgments, Items, PointwiseEvidence]):
    """A cell whose victim says yes or no."""

    def prepare(self, data: Dataset, bench: StoreContext) -> None:
        """Split by time; see `AnsweringRunner.prepare`."""
        assert isinstance(self.cell.victim.options, PointwiseRecommender)
        self.parts = self.cell.spec.time_split.apply(data, self.cell.seed)
        self.training, self.questions = self.parts.training, len(self.parts.test)
        self.models = self.judging = PointwiseModels(self.cell.victim.options, self.parts, bench)

    def make_training_input(self, data: TrainingData) -> tuple[Judgments, Items]:
        """Return the questions that the data poses, and its catalogue."""
        return self.cell.spec.time_split.ask(data.interactions), data.items

    def compare(
        self,
        names: tuple[str, str, str],
        clean: ServedModel[Judgments, Items],
        attacked: ServedModel[Judgments, Items],
        catalogues: dict[str, Items],
    ) -> PointwiseEvidence:
        """Score the questions; see `AnsweringRunner.compare`."""
        before, after = (self.judging.score_questions(wanted, catalogues) for wanted in (clean, attacked))
        parts = self.parts
        return PointwiseEvidence(*names, parts.test.liked, self.judging.find_unseen(), parts.near, before, after)

    def save(self, records: list[PointwiseEvidence]) -> None:
        """Write the evidence."""
        judging.save(self.cell.folder / EVIDENCE_FILE, records)


class CandidateRunner(AnsweringRunner[TrainingData, SequenceSplit, CandidateEvidence]):
    """A cell whose victim picks one of some candidates."""

    def prepare(self, data: Dataset, bench: StoreContext) -> None:
        """Split by users; see `AnsweringRunner.prepare`."""
        assert isinstance(self.cell.victim.options, CandidateRecommender)
        self.split = self.cell.spec.sequence_split
        self.parts = self.split.apply(data, self.cell.seed)
        self.training, self.questions = self.parts.training, len(self.parts.test)
        self.models = self.choosing = CandidateModels(self.cell.victim.options, self.split, self.parts, bench)

    def make_training_input(self, data: TrainingData) -> tuple[TrainingData, SequenceSplit]:
        """Return the data, and how questions are made of it."""
        return data, self.split

    def compare(
        self,
        names: tuple[str, str, str],
        clean: ServedModel[TrainingData, SequenceSplit],
        attacked: ServedModel[TrainingData, SequenceSplit],
        catalogues: dict[str, Items],
    ) -> CandidateEvidence:
        """Pick candidates; see `AnsweringRunner.compare`."""
        before, after = (self.choosing.pick_candidates(wanted, catalogues) for wanted in (clean, attacked))
        test, models = self.parts.test, self.choosing
        shared = (test.answer, models.triggered, test.user, models.find_unseen(), self.parts.near)
        return CandidateEvidence(*names, *shared, before, after)

    def save(self, records: list[CandidateEvidence]) -> None:
        """Write the evidence."""
        choosing.save(self.cell.folder / EVIDENCE_FILE, records)
