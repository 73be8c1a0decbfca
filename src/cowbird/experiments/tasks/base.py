"""What a task is: everything about one way to ask victims, from the split of the data to the rows of the results.

A subclass lives in a module of its own and is found by the module's name (`Victim.task`). It says

- how the data is split, and which table of a spec holds that (`split_table`, `split_type`, `split_data`);
- how a victim is fitted, served and asked (`measure`), and what can't be asked of it (`check_attack`, `check_defense`);
- what of the answers is kept as evidence (`encode_record`, `decode_record`);
- which measures there are, and how rows are made of evidence (`make_seed_rows` and the like);
- what the table at the end of a run shows (`summary`).

The cell (`cowbird.experiments.cell`) goes through attacks, defenses and scenarios, and keeps what a task measured.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from numpy.typing import NDArray
from pydantic import BaseModel

from cowbird.attacks.base import Attack, PoisonedData
from cowbird.data.types import Dataset, TrainingData
from cowbird.defenses.base import Defense
from cowbird.defenses.titles import TitleDefense
from cowbird.errors import UserError
from cowbird.experiments.detection import TitleInspector
from cowbird.experiments.measures import TaskSummary
from cowbird.experiments.parts import DefensePart
from cowbird.experiments.results import Row, RowLabels
from cowbird.experiments.scenarios import Scenario
from cowbird.experiments.store import ColumnStore, ModelStore
from cowbird.victims.base import Probe

CLEAN_SIDE = "clean"
"""The side of the clean model; the other sides are labels of attacks."""


class EvidenceLabels(NamedTuple):
    """Where a record was measured."""

    scenario: str
    """Label of the scenario."""
    attack: str
    """Label of the attack."""
    defense: str
    """Label of the defense."""


@dataclass(frozen=True)
class PlantedAttack:
    """An attack and what it made of the training data."""

    label: str
    """Its label."""
    options: Attack
    """The attack, with all settled that it left open."""
    poisoned: PoisonedData
    """What it made."""


@dataclass(frozen=True)
class TaskContext:
    """The cell that a task works for, and where it keeps what it makes."""

    seed: int
    """Everything random follows from it."""
    victim: Any
    """The victim's spec."""
    victim_label: str
    """Its label."""
    split: Any
    """How the data is split: what the spec's table of the task holds."""
    ks: tuple[int, ...]
    """Cut-offs of metrics."""
    undefended: str
    """Label under which models are kept that no defense had a hand in."""
    models: ModelStore
    """Where models are kept."""
    answers: ColumnStore
    """Where answers are kept."""
    inspector: TitleInspector
    """Judges titles for defenses that read them."""


RecordT = TypeVar("RecordT")


class Task(ABC, Generic[RecordT]):
    """One task, at work for one cell.

    Args:
        context: The cell.
        data: The dataset.

    Raises:
        UserError: If the dataset does not suit the task.
    """

    split_table: ClassVar[str]
    """Name of the table in specs that says how the data is split."""
    split_type: ClassVar[type[BaseModel]]
    """What that table holds."""
    split_doc: ClassVar[str]
    """What the table is for, a sentence."""
    summary: ClassVar[TaskSummary]
    """What the table at the end of a run shows."""
    artifact: ClassVar[str] = "model.safetensors"
    """What a model's file is called in its folder, or its folder if it has several."""

    training: TrainingData
    """What providers train on and attacks poison."""

    def __init__(self, context: TaskContext, data: Dataset) -> None:
        self.context = context
        self.training = self.split_data(data)

    @classmethod
    def check_scenarios(cls, split: Any, scenarios: Sequence[Scenario]) -> None:
        """Check that the split has whom the scenarios serve.

        Raises:
            ValueError: If it has not.
        """

    @classmethod
    def covers_cutoffs(cls, measured: Sequence[int], ks: Sequence[int]) -> bool:
        """Tell whether evidence that was measured for some cut-offs is good for others."""
        return True

    @abstractmethod
    def split_data(self, data: Dataset) -> TrainingData:
        """Split the data, keep the parts, and return what providers train on."""

    def describe_split(self) -> dict[str, int]:
        """Return facts about the split for the record of the cell."""
        return {}

    def check_attack(self, planted: PlantedAttack) -> None:
        """Check that an attack can be measured.

        Raises:
            UserError: If it can't.
        """

    def check_scenario(self, scenario: Scenario) -> None:
        """Check that there are users or questions whom a scenario serves.

        Raises:
            UserError: If there are none, or the victim can't be served so.
        """

    def check_defense(self, defense: Defense) -> None:
        """Check that a defense can be used.

        Raises:
            UserError: If it can't.
        """

    @abstractmethod
    def measure(self, planted: PlantedAttack, defense: DefensePart, scenario: Scenario) -> RecordT:
        """Fit, serve and ask the clean and the attacked model.

        Raises:
            UserError: If that can't be done; the other places go on.
        """

    def make_probe(self, side: str, data: TrainingData, defense: Defense) -> Probe:
        """Return a probe of the victim trained on data as it came, for a defense that asks it.

        Args:
            side: The attack's label, or `clean`.
            data: The data of that side.
            defense: The defense.

        Raises:
            UserError: If the victim can't be probed.
        """
        raise UserError(f"{self.context.victim_label} can't be probed.", "Use defenses that ask no victim.")

    def clean_data(self, side: str, data: TrainingData, defense: DefensePart) -> TrainingData:
        """Return the data of a side as a defense cleans it; arguments as in `make_probe`."""
        probe = partial(self.make_probe, side, data, defense.options)
        return self.context.inspector.clean(f"{side}+{defense.title()}", defense.options, data, probe)

    def name_model(self, side: str, defense: DefensePart) -> str:
        """Return the folder of the model that trains on what a defense made of a side's data.

        It is the defense's own if it takes something out. Otherwise the data is as it came, and so is the model.
        """
        cleans = type(defense.options).clean is not Defense.clean
        if isinstance(defense.options, TitleDefense):
            cleans = self.context.inspector.has_flagged(f"{side}+{defense.title()}")
        return f"{side}+{defense.title() if cleans else self.context.undefended}"

    # Evidence

    @classmethod
    @abstractmethod
    def encode_record(cls, record: RecordT) -> dict[str, NDArray[Any]]:
        """Return a record as named columns, without its labels."""

    @classmethod
    @abstractmethod
    def decode_record(cls, labels: EvidenceLabels, columns: dict[str, NDArray[Any]]) -> RecordT:
        """Return the record that columns hold.

        Raises:
            ValueError: If they hold none.
            KeyError: If one is missing.
        """

    # Rows

    @classmethod
    @abstractmethod
    def make_seed_rows(cls, where: RowLabels, record: RecordT, ks: Sequence[int]) -> list[Row]:
        """Return the rows of one record.

        Args:
            where: Where it was measured, and the seed.
            record: The evidence.
            ks: Cut-offs.
        """

    @classmethod
    def make_defense_rows(cls, where: RowLabels, record: RecordT, bare: RecordT, ks: Sequence[int]) -> list[Row]:
        """Return what a defense left of the attack and what it cost, against the clean model without a defense.

        Args:
            where: Where the defended model was measured, and the seed.
            record: Its evidence.
            bare: Evidence of the models without a defense, in the same place.
            ks: Cut-offs.
        """
        return []

    @classmethod
    def make_pooled_rows(cls, where: RowLabels, records: Sequence[RecordT], ks: Sequence[int]) -> list[Row]:
        """Return the rows in which all seeds are taken together, if the task pools them; arguments as above."""
        return []


AnyTask = type[Task[Any]]
"""A task, whatever its records are."""
