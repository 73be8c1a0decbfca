"""Cells whose victim answers questions about titles: yes or no (`judging`), or one of some candidates (`choosing`).

Both go the same way: each attack plants, a clean and an attacked model are fitted and handed to the platform, and both
are asked the same questions, plain and with a trigger.
"""

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from cowbird.attacks.base import Poisoned
from cowbird.data.judgments import Judgments
from cowbird.data.types import Dataset, Items, TrainingData
from cowbird.errors import UserError
from cowbird.experiments import choosing, judging
from cowbird.experiments.adapters import Adapters, Bench
from cowbird.experiments.cell import EVIDENCE, Cell, Runner
from cowbird.experiments.choosing import Choosing, Choosings
from cowbird.experiments.judging import Answers, Judging
from cowbird.experiments.models import Progress
from cowbird.experiments.scenarios import Direct, PoisonedAdapter, Scenario
from cowbird.experiments.spec import AttackPart, DefensePart
from cowbird.rng import stream
from cowbird.victims.base import Chooser, Judge

Record = TypeVar("Record")


class Tuning(NamedTuple):
    """A provider's part in a comparison."""

    label: str
    """Folder of its model."""
    data: Callable[[], TrainingData]
    """Makes what it trains on; asked only if there is something to fit."""


class AskingRunner(Runner, Generic[Record]):
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
    models: Adapters[Any, Any, Any]
    """The models of the cell."""

    def __init__(
        self, cell: Cell, data: Dataset, device: torch.device, progress: Progress, warn: Callable[[str], None]
    ) -> None:
        super().__init__(cell)

        def told(name: str, done: int, total: int, remark: str) -> None:
            progress(f"{cell.title}: {name}", done, total, remark)

        self.device = device
        self.prepare(data, Bench(cell.seed, cell.folder / "models", device, told, warn))

    @abstractmethod
    def prepare(self, data: Dataset, bench: Bench) -> None:
        """Split the data, and set `training`, `questions` and `models`."""

    @abstractmethod
    def compare(
        self,
        names: tuple[str, str, str],
        clean: Tuning,
        attacked: Tuning,
        scenario: Scenario,
        catalogues: dict[str, Items],
    ) -> Record:
        """Ask the clean and the attacked model.

        Args:
            names: Labels of scenario, attack and defense.
            clean: The honest provider.
            attacked: The other.
            scenario: What the platform does.
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
        for attack in spec.attacks:
            poisoned = self.poison(attack, training)
            if poisoned is None:
                continue
            if _unread(poisoned):
                self.errors.append(
                    f"{self.cell.title}, attack {attack.title()}: it changes labels alone, which this victim does not "
                    "read. Use an attack on titles or users, such as badrec."
                )
                continue
            catalogues = attack.options.triggered(training.items, stream(self.cell.seed, "triggered"))
            for defense in spec.defenses:
                for scenario in spec.scenarios:
                    try:
                        records.append(self._measure(attack, poisoned, defense, scenario, catalogues))
                    except UserError as error:
                        self.refused(attack, scenario, error)
        self.save(records)
        facts = {"training_events": training.interactions.events, "test_questions": self.questions}
        self.finish(self.device, self.models.seconds, facts)

    def _measure(
        self,
        attack: AttackPart,
        poisoned: Poisoned,
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
            Tuning(f"{label}+{defense.title()}", partial(defense.options.clean, data))
            for label, data in (("clean", self.training), (attack.title(), poisoned.data))
        )
        names = (scenario.title(), attack.title(), defense.title())
        return self.compare(names, clean, attacked, scenario, catalogues)


def _unread(poisoned: Poisoned) -> bool:
    """Tell whether nothing of an attack is in what such victims read: events and titles."""
    same = len(poisoned.data.interactions.item) == len(poisoned.clean.interactions.item)
    return same and not len(poisoned.retitled)


class JudgeRunner(AskingRunner[Answers]):
    """A cell whose victim says yes or no."""

    def prepare(self, data: Dataset, bench: Bench) -> None:
        """Split by time; see `AskingRunner.prepare`."""
        assert isinstance(self.cell.victim.options, Judge)
        self.parts = self.cell.spec.time_split.apply(data, self.cell.seed)
        self.training, self.questions = self.parts.training, len(self.parts.test)
        self.models = self.judging = Judging(self.cell.victim.options, self.parts, bench)

    def compare(
        self,
        names: tuple[str, str, str],
        clean: Tuning,
        attacked: Tuning,
        scenario: Scenario,
        catalogues: dict[str, Items],
    ) -> Answers:
        """Score the questions; see `AskingRunner.compare`."""
        before, after = (
            self.judging.scores(tuning.label, partial(self._lesson, tuning), scenario, catalogues)
            for tuning in (clean, attacked)
        )
        return Answers(*names, self.parts.test.liked, self.judging.unseen(), before, after)

    def _lesson(self, tuning: Tuning) -> tuple[Judgments, Items]:
        data = tuning.data()
        return self.cell.spec.time_split.ask(data.interactions), data.items

    def save(self, records: list[Answers]) -> None:
        """Write the evidence."""
        judging.save(self.cell.folder / EVIDENCE, records)


class ChooserRunner(AskingRunner[Choosings]):
    """A cell whose victim picks one of some candidates."""

    def prepare(self, data: Dataset, bench: Bench) -> None:
        """Split by users; see `AskingRunner.prepare`."""
        assert isinstance(self.cell.victim.options, Chooser)
        self.split = self.cell.spec.sequence_split
        self.parts = self.split.apply(data, self.cell.seed)
        self.training, self.questions = self.parts.training, len(self.parts.test)
        self.models = self.choosing = Choosing(self.cell.victim.options, self.split, self.parts, bench)

    def compare(
        self,
        names: tuple[str, str, str],
        clean: Tuning,
        attacked: Tuning,
        scenario: Scenario,
        catalogues: dict[str, Items],
    ) -> Choosings:
        """Pick candidates; see `AskingRunner.compare`."""
        before, after = (
            self.choosing.picks(tuning.label, lambda made=tuning.data: (made(), self.split), scenario, catalogues)
            for tuning in (clean, attacked)
        )
        test, models = self.parts.test, self.choosing
        return Choosings(*names, test.answer, models.triggered, test.user, models.unseen(), before, after)

    def save(self, records: list[Choosings]) -> None:
        """Write the evidence."""
        choosing.save(self.cell.folder / EVIDENCE, records)
