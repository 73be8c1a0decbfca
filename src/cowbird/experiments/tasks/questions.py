"""What tasks share whose victims read titles and answer questions: `pointwise` and `candidates`.

Both go the same way. Each attack plants; a clean and an attacked model are fitted and handed to the platform; both are
asked the same questions, plain and with a trigger in a title, and some of them with triggers that are near it. A
defense acts on both models: it cleans what they learn from, repairs what the platform has, and guards what serves.

What a served model answers to one kind of question is kept, sealed with what was asked and with the digest of the model
that answered. A model that has answered everything is not even loaded.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cowbird.attacks.base import PoisonedData
from cowbird.data.titles import quote_titles
from cowbird.data.types import Int32Array, Int64Array, Items, TrainingData
from cowbird.defenses.base import Defense
from cowbird.errors import UserError
from cowbird.experiments.parts import DefensePart
from cowbird.experiments.scenarios import Direct, PoisonedAdapter, Scenario
from cowbird.experiments.store import hash_parts
from cowbird.experiments.tasks.base import CLEAN_SIDE, EvidenceLabels, PlantedAttack, RecordT, Task
from cowbird.notices import NoticeRank, note
from cowbird.rng import derive_seed, draw_indices, stream
from cowbird.victims.base import FittedModel, Probe

MODEL_SIDES = ("clean", "attacked")
"""The two models of a record."""
PLAIN_KIND, TRIGGER_KIND = "plain", "trigger"
"""Kinds of questions: as they are, and with the attack's own trigger; all others have a trigger that is near it."""
NEAR_COLUMN = "near"
"""The shared column that tells which questions were asked with triggers that are near the attack's."""
Selection = NDArray[np.bool_] | slice
"""Which values of a column."""


def is_near(kind: str) -> bool:
    """Return whether a kind of question has a trigger that is merely near the attack's."""
    return kind not in (PLAIN_KIND, TRIGGER_KIND)


class QuestionGroup(NamedTuple):
    """The questions behind the rows of one group."""

    name: str
    """The group."""
    kind: str
    """The kind of trigger that they were asked with."""
    questions: Selection
    """Which of all questions they are."""
    answers: Selection
    """Which of the answers to that kind of question are theirs, in the same order."""


def group_questions(
    kinds: Iterable[str], near: NDArray[np.bool_], unseen: NDArray[np.bool_]
) -> Iterator[QuestionGroup]:
    """Yield the groups of rows about triggers: the attack's own first, the same on unseen items, then the others.

    Args:
        kinds: Kinds of questions that were asked.
        near: Which questions were asked with triggers that are near the attack's, shape `[questions]`.
        unseen: In which the item with the trigger is one that training never met, shape `[questions]`.
    """
    every = slice(None)
    for kind in sorted(set(kinds) - {PLAIN_KIND}, key=lambda kind: (is_near(kind), kind)):
        yield QuestionGroup(kind, kind, near if is_near(kind) else every, every)
        if kind == TRIGGER_KIND:
            yield QuestionGroup("unseen", kind, unseen, unseen)


@dataclass(frozen=True)
class ServedModel:
    """A model that a platform serves."""

    handed: str
    """Folder of the model that is handed over."""
    lesson: Callable[[], tuple[Any, Any]]
    """Makes what that is trained on; asked only if it has to be."""
    scenario: Scenario
    """What the platform does with it."""
    name: str
    """`ATTACK+DEFENSE`, with the defense that serves."""
    defense: Defense
    """Repairs and guards it."""

    @property
    def had(self) -> str:
        """Folder of the model that the platform has before a defense acts on it."""
        return f"{self.handed}+{self.scenario.title()}" if isinstance(self.scenario, PoisonedAdapter) else self.handed

    @property
    def untouched(self) -> bool:
        """Whether it serves as it is: the defense neither repairs nor guards."""
        return type(self.defense).repair is Defense.repair and type(self.defense).guard is Defense.guard

    @property
    def served(self) -> str:
        """Name of the model that serves; what serves as it is goes by its folder."""
        return self.had if self.untouched else f"{self.name}+{self.scenario.title()}"


ModelT = TypeVar("ModelT", bound=FittedModel)


class QuestionTask(Task[RecordT], Generic[RecordT, ModelT]):
    """Answer questions about titles."""

    artifact: ClassVar[str] = "model"
    record_type: ClassVar[type[Any]]
    """The records. Their fields: the labels, `shared_columns`, and answers by kind in `clean` and `attacked`."""
    shared_columns: ClassVar[tuple[str, ...]]
    """Columns that say what was asked, shape `[questions]` each; `near` is one of them."""
    ways: ClassVar[tuple[str, ...]] = ("",)
    """How columns of answers begin before the kind of question, if there are several ways to answer."""

    _written: tuple[PlantedAttack | None, dict[str, Items]] = (None, {})
    """The last attack and the catalogues with its triggers: an attack is asked about many times in a row."""

    # What a task of this kind says

    @abstractmethod
    def count_questions(self) -> int:
        """Return how many questions each model is asked plain."""

    @abstractmethod
    def make_lesson(self, data: TrainingData) -> tuple[Any, Any]:
        """Return what a victim learns from data, in two parts."""

    @abstractmethod
    def get_platform_logs(self) -> tuple[Any, Any]:
        """Return the lesson that a platform of its own logs goes on with, in the clean catalogue.

        Raises:
            UserError: If there are no such logs.
        """

    @abstractmethod
    def draw_probe(self, model: ModelT, questions: int) -> Probe:
        """Return a probe that asks some questions of the platform's own logs."""

    @abstractmethod
    def ask_model(self, model: ModelT, *asked: Any) -> dict[str, NDArray[Any]]:
        """Ask a model questions of one kind; return its answers in columns, shape `[questions]` each."""

    @abstractmethod
    def ask_all(self, wanted: ServedModel, catalogs: dict[str, Items]) -> dict[str, NDArray[Any]]:
        """Return the answers of a model, plain and with each kind of trigger.

        Args:
            wanted: The model.
            catalogs: Titles with each kind of trigger.
        """

    @abstractmethod
    def describe_questions(self) -> dict[str, NDArray[Any]]:
        """Return the `shared_columns`."""

    # What follows from that

    def describe_split(self) -> dict[str, int]:
        """Return how much there is to learn from, and how many questions there are."""
        return {"training_events": self.training.interactions.events, "test_questions": self.count_questions()}

    def check_attack(self, planted: PlantedAttack) -> None:
        """Refuse data without titles, and attacks that leave no trace in what such victims read."""
        if _changes_only_labels(planted.poisoned):
            raise UserError(
                "it changes labels alone, which this victim does not read. Use an attack on titles or users, such as "
                "badrec."
            )

    def check_scenario(self, scenario: Scenario) -> None:
        """Refuse scenarios of victims that rank, and platforms without logs of their own."""
        if not isinstance(scenario, Direct | PoisonedAdapter):
            raise UserError(
                f"Scenario '{scenario.title()}' is for victims that rank, and {self.context.victim_label} does not.",
                "Use direct or poisoned-adapter.",
            )
        if isinstance(scenario, PoisonedAdapter):
            self.get_platform_logs()

    def measure(self, planted: PlantedAttack, defense: DefensePart, scenario: Scenario) -> RecordT:
        """Ask the clean and the attacked model; see `Task.measure`."""
        self.check_scenario(scenario)
        if planted is not self._written[0]:
            rng = stream(self.context.seed, "triggered")
            self._written = planted, planted.options.make_triggered_catalogs(self.training.items, rng)
        catalogs = self._written[1]
        sides = (CLEAN_SIDE, self.training), (planted.label, planted.poisoned.data)
        clean, attacked = (
            self.ask_all(self._make_served_model(side, data, defense, scenario), catalogs) for side, data in sides
        )
        labels = EvidenceLabels(scenario.title(), planted.label, defense.title())
        return self.record_type(*labels, **self.describe_questions(), clean=clean, attacked=attacked)

    def make_probe(self, side: str, data: TrainingData, defense: Defense) -> Probe:
        """Return a probe of the model that was trained on a side's data as it came; see `Task.make_probe`."""
        handed = f"{side}+{self.context.undefended}"
        model = self._fit(handed, self.context.victim, partial(self.make_lesson, data), self.context.seed)
        return self.draw_probe(model, defense.count_probe_questions())

    def collect_answers(
        self, wanted: ServedModel, asked: Mapping[str, tuple[Any, ...]]
    ) -> dict[str, dict[str, NDArray[Any]]]:
        """Return what a model that a platform serves answers, each question asked once and kept.

        Attacks that ask the same share the answers, and so do defenses that leave the model as it is.

        Args:
            wanted: The model; made or loaded only if it has to answer.
            asked: What `ask_model` is given, by kind of question.

        Returns:
            Columns of answers by kind of question.
        """
        found: dict[str, dict[str, NDArray[Any]]] = {}
        model: ModelT | None = None
        for kind, questions in asked.items():
            what, who = hash_parts(*questions), self._digest_model(wanted)
            name = f"{wanted.served}/{kind}-{what[:16]}"
            kept = None if who is None else self.context.answers.read(name, hash_parts(what, who))
            if kept is None:
                model = self.serve_model(wanted) if model is None else model
                kept = self.ask_model(model, *questions)
                self.context.answers.write(name, hash_parts(what, self._digest_model(wanted)), kept)
            found[kind] = kept
        return found

    def serve_model(self, wanted: ServedModel) -> ModelT:
        """Return the model that a platform serves: handed over, perhaps tuned, then repaired and guarded."""
        victim, seed, scenario = self.context.victim, self.context.seed, wanted.scenario

        def fit_handed() -> ModelT:
            return self._fit(wanted.handed, victim, wanted.lesson, seed)

        if isinstance(scenario, PoisonedAdapter):
            tuned = victim.with_tuning(scenario.learning_rate, scenario.epochs)
            model = self._fit(wanted.had, tuned, self.get_platform_logs, derive_seed(seed, "platform"), fit_handed)
        else:
            model = fit_handed()
        repaired = wanted.defense.repair(model, _TrustedLogs(self, wanted.served))
        return wanted.defense.guard(repaired)

    def tune_on_logs(self, name: str, model: ModelT, learning_rate: float, epochs: int) -> ModelT:
        """Go on training a model on the platform's own logs; see `cowbird.defenses.base.TrustedData`.

        Args:
            name: Folder of the model that this makes.
            model: Where training starts.
            learning_rate: Its peak learning rate.
            epochs: Passes over the logs.
        """
        victim = self.context.victim.with_tuning(learning_rate, epochs)
        seed = derive_seed(self.context.seed, "repair", name.partition("@")[2])
        return self._fit(name, victim, self.get_platform_logs, seed, lambda: model)

    def _fit(
        self,
        name: str,
        victim: Any,
        lesson: Callable[[], tuple[Any, Any]],
        seed: int,
        start: Callable[[], ModelT] | None = None,
    ) -> ModelT:
        return self.context.models.fit(name, victim, seed, lesson, start)

    def _digest_model(self, wanted: ServedModel) -> str | None:
        """Return the digest of a model that a platform serves: its files, and what repairs and guards it.

        `None` if it is not kept whole.
        """
        names, acts = [wanted.had], ""
        if not wanted.untouched:
            names += self.context.models.list_stages(wanted.served)
            acts = f"{type(wanted.defense).__name__} {wanted.defense.model_dump_json()}"
        digests = {name: self.context.models.find_digest(name) for name in names}
        return None if None in digests.values() else hash_parts(digests, acts)

    def _make_served_model(
        self, side: str, data: TrainingData, defense: DefensePart, scenario: Scenario
    ) -> ServedModel:
        return ServedModel(
            self.name_model(side, defense),
            lambda: self.make_lesson(self.clean_data(side, data, defense)),
            scenario,
            f"{side}+{defense.title()}",
            defense.options,
        )

    def require_titles(self, data: TrainingData) -> TrainingData:
        """Return training data, if its items have titles.

        Raises:
            UserError: If none has.
        """
        if not any(data.items.titles):
            raise UserError(
                f"{self.context.victim_label} reads titles, and the items of this dataset have none.",
                "Use a source with titles.",
            )
        titles = data.items.titles
        of, end = f"of {len(titles):,} items", "no title; prompts say so, or quote nothing."
        unnamed = sum(not shown for shown in quote_titles(titles))
        note(NoticeRank.CHANGE, f"{{n}} {of} have {end}", unnamed, f"1 {of} has {end}")
        return data

    def draw_questions(self, asked: int, count: int) -> Int64Array:
        """Draw which of some questions a probe asks: `count` of them or all, increasing."""
        return draw_indices(count, asked, stream(self.context.seed, "probe"))

    def mask_unseen(self, item: Int32Array) -> NDArray[np.bool_]:
        """Return which of some items clean training never met, shape of `item`."""
        met = np.zeros(len(self.training.items), dtype=bool)
        met[self.training.interactions.item] = True
        return ~met[item]

    # Evidence

    @classmethod
    def encode_record(cls, record: RecordT) -> dict[str, NDArray[Any]]:
        """Return what was asked, and the answers as `SIDE.KIND`; see `Task.encode_record`."""
        columns = {name: getattr(record, name) for name in cls.shared_columns}
        for side in MODEL_SIDES:
            columns |= {f"{side}.{kind}": column for kind, column in getattr(record, side).items()}
        return columns

    @classmethod
    def decode_record(cls, labels: EvidenceLabels, columns: dict[str, NDArray[Any]]) -> RecordT:
        """Return the record; see `Task.decode_record`."""
        clean, attacked = (_select_prefix(f"{side}.", columns) for side in MODEL_SIDES)
        plain = {way + PLAIN_KIND for way in cls.ways}
        missing = sorted((set(cls.shared_columns) - columns.keys()) | (plain - clean.keys()))
        if missing:
            raise ValueError(f"the answers of {labels.attack}, {labels.scenario} have no {', '.join(missing)}")
        shared = {name: columns[name] for name in cls.shared_columns}
        near, whole = shared[NEAR_COLUMN], plain | {way + TRIGGER_KIND for way in cls.ways}
        aligned = near.ndim == 1 and near.dtype == np.bool_ and clean.keys() == attacked.keys()
        if aligned:
            some = (int(near.sum()),)
            aligned = all(column.shape == near.shape for column in shared.values()) and all(
                column.shape == (near.shape if name in whole else some)
                for side in (clean, attacked)
                for name, column in side.items()
            )
        if not aligned:
            raise ValueError(f"the answers of {labels.attack}, {labels.scenario} do not align")
        return cls.record_type(*labels, **shared, clean=clean, attacked=attacked)


@dataclass(frozen=True)
class _TrustedLogs(Generic[ModelT]):
    """A platform's own logs, which a repair trusts; see `cowbird.defenses.base.TrustedData`."""

    task: QuestionTask[Any, ModelT]
    name: str
    """Folder of the model that is repaired."""

    def tune(self, model: ModelT, learning_rate: float, epochs: int, stage: str = "repaired") -> ModelT:
        """Train on them."""
        return self.task.tune_on_logs(f"{self.name}@{stage}", model, learning_rate, epochs)


def _select_prefix(prefix: str, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the columns whose name begins so, without the prefix."""
    return {name.removeprefix(prefix): column for name, column in columns.items() if name.startswith(prefix)}


def _changes_only_labels(poisoned: PoisonedData) -> bool:
    """Tell whether nothing of an attack is in what such victims read: events and titles."""
    same = len(poisoned.data.interactions.item) == len(poisoned.clean.interactions.item)
    return same and not len(poisoned.retitled)
