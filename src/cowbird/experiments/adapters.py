"""The models of a cell whose victim answers questions (TALLRec, LLaRA), and their answers, kept as they are made.

A model's folder is `ATTACK+DEFENSE` for what is handed over (`clean+DEFENSE` for the clean model), `…+SCENARIO` for
what the platform made of it, and `…+SCENARIO@STAGE` for what a defense repaired after that. A defense that takes
nothing out of the data shares the models of no defense. A model whose files are not those recorded is fitted again.

What a served model answers to one kind of question is a file, sealed with what was asked and with the hash of the model
that answered. A model that has answered everything is not even loaded.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from cowbird.data.types import Int32Array, Int64Array, TrainingData
from cowbird.defenses.base import Defense
from cowbird.errors import UserError
from cowbird.experiments.keeping import ColumnStore, hash_parts
from cowbird.experiments.scenarios import PoisonedAdapter, Scenario
from cowbird.files import hash_file, write_text
from cowbird.rng import derive_seed, draw_indices, stream
from cowbird.victims.base import FittedCandidate, FittedPointwise, Probe
from cowbird.victims.fit_context import FitContext


class Saveable(Protocol):
    """A fitted model that can be kept."""

    def save(self, folder: Path) -> None:
        """Write the model into a folder."""
        ...


First = TypeVar("First")
Second = TypeVar("Second")
First_contra = TypeVar("First_contra", contravariant=True)
Second_contra = TypeVar("Second_contra", contravariant=True)
Fitted = TypeVar("Fitted", FittedPointwise, FittedCandidate)
Fitted_co = TypeVar("Fitted_co", bound=Saveable, covariant=True)


class AnsweringVictim(Protocol[First_contra, Second_contra, Fitted_co]):
    """A victim that learns from a lesson of two parts; `PointwiseRecommender` and `CandidateRecommender` are some."""

    def fit(
        self,
        first: First_contra,
        second: Second_contra,
        seed: int,
        context: FitContext | None = None,
        start: Any = None,
        /,
    ) -> Fitted_co:
        """Train a model."""
        ...

    def load(self, folder: Path, device: torch.device, /) -> Fitted_co:
        """Read what a fitted model's `save` wrote."""
        ...

    def with_tuning(self, learning_rate: float, epochs: int, /) -> Self:
        """Return the same model, tuned at another learning rate for other epochs."""
        ...


@dataclass(frozen=True)
class StoreContext:
    """Where the models of one cell are made."""

    seed: int
    """The cell's seed."""
    folder: Path
    """Where models are kept."""
    answers: Path
    """Where answers are kept."""
    device: torch.device
    """Where they run."""
    report: Callable[[str, int, int, str], None]
    """Told of progress: model, steps done, steps in all, a remark."""
    warn: Callable[[str], None]
    """Told of trouble that was worked around."""


@dataclass(frozen=True)
class ServedModel(Generic[First, Second]):
    """A model that a platform serves."""

    handed: str
    """Folder of the model that is handed over."""
    lesson: Callable[[], tuple[First, Second]]
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


class AnsweringModels(ABC, Generic[First, Second, Fitted]):
    """Fits the models of one cell, each once.

    Args:
        victim: The victim's spec.
        bench: Where models are made.
    """

    def __init__(self, victim: AnsweringVictim[First, Second, Fitted], bench: StoreContext) -> None:
        self.victim, self.bench = victim, bench
        self.seconds: dict[str, float] = {}
        """How long each fit took."""
        other = "of other questions or another model"
        self._answers = ColumnStore(bench.answers, bench.warn, other, "Asking again.")
        self._seals: dict[str, str] = {}

    @abstractmethod
    def get_platform_logs(self) -> tuple[First, Second]:
        """Return the lesson that a platform of its own logs goes on with, in the clean catalogue.

        Raises:
            UserError: If there are no such logs.
        """

    @abstractmethod
    def _draw_probe(self, model: Fitted, questions: int) -> Probe:
        """Return a probe that asks some questions of the platform's own logs."""

    @abstractmethod
    def _ask_model(self, model: Fitted, *asked: Any) -> dict[str, NDArray[Any]]:
        """Ask a model questions of one kind; return its answers in columns, shape `[questions]` each."""

    def collect_answers(
        self, wanted: ServedModel[First, Second], asked: Mapping[str, tuple[Any, ...]]
    ) -> dict[str, dict[str, NDArray[Any]]]:
        """Return what a model that a platform serves answers, each question asked once and kept.

        Args:
            wanted: The model; made or loaded only if it has to answer.
            asked: What `_ask_model` is given, by kind of question. Attacks that ask the same share the answers, and so
            do
                defenses that leave the model as it is.

        Returns:
            Columns of answers by kind of question.
        """
        found: dict[str, dict[str, NDArray[Any]]] = {}
        model: Fitted | None = None
        for kind, questions in asked.items():
            what, who = hash_parts(*questions), self._digest_model(wanted)
            name = f"{wanted.served}/{kind}-{what[:16]}"
            kept = None if who is None else self._answers.read(name, hash_parts(what, who))
            if kept is None:
                model = self.serve_model(wanted) if model is None else model
                kept = self._ask_model(model, *questions)
                self._answers.write(name, hash_parts(what, self._digest_model(wanted)), kept)
            found[kind] = kept
        return found

    def _digest_model(self, wanted: ServedModel[First, Second]) -> str | None:
        """Return the digest of a model that a platform serves: its files, and what repairs and guards it.

        `None` if it is not kept whole.
        """
        names, acts = [wanted.had], ""
        if not wanted.untouched:
            stage = f"{wanted.served}@"
            names += sorted(path.name for path in self.bench.folder.glob("*") if path.name.startswith(stage))
            acts = f"{type(wanted.defense).__name__} {wanted.defense.model_dump_json()}"
        seals = {name: self._verify_seal(name) for name in names}
        return None if None in seals.values() else hash_parts(seals, acts)

    def _verify_seal(self, name: str) -> str | None:
        """Return the SHA-256 of a kept model's files, looked at once, or `None` if they are not those recorded."""
        if name not in self._seals:
            folder = self.bench.folder / name
            try:
                seal = (folder / "model.sha256").read_text(encoding="utf-8")
                if _seal_folder(folder / "model") != seal:
                    return None
            except (OSError, UnicodeDecodeError):
                return None
            self._seals[name] = seal
        return self._seals[name]

    def serve_model(self, wanted: ServedModel[First, Second]) -> Fitted:
        """Return the model that a platform serves: handed over, perhaps tuned, then repaired and guarded."""

        def fit_handed() -> Fitted:
            return self._fit(wanted.handed, self.victim, wanted.lesson, self.bench.seed)

        scenario = wanted.scenario
        if isinstance(scenario, PoisonedAdapter):
            tuned = self.victim.with_tuning(scenario.learning_rate, scenario.epochs)
            seed = derive_seed(self.bench.seed, "platform")
            model = self._fit(wanted.had, tuned, self.get_platform_logs, seed, fit_handed)
        else:
            model = fit_handed()
        repaired = wanted.defense.repair(model, _TrustedLogs(self, wanted.served))
        return wanted.defense.guard(repaired)

    def make_probe(self, handed: str, lesson: Callable[[], tuple[First, Second]], questions: int) -> Probe:
        """Return a probe of a model that is handed over; arguments as in `ServedModel`.

        Raises:
            UserError: If the platform has no logs to draw questions from, or the victim can't be probed.
        """
        return self._draw_probe(self._fit(handed, self.victim, lesson, self.bench.seed), questions)

    def tune_on_logs(self, name: str, model: Fitted, learning_rate: float, epochs: int) -> Fitted:
        """Go on training a model on the platform's own logs; see `cowbird.defenses.base.Trusted`.

        Args:
            name: Folder of the model that this makes.
            model: Where training starts.
            learning_rate: Its peak learning rate.
            epochs: Passes over the logs.
        """
        spec, seed = (
            self.victim.with_tuning(learning_rate, epochs),
            derive_seed(self.bench.seed, "repair", name.partition("@")[2]),
        )
        return self._fit(name, spec, self.get_platform_logs, seed, lambda: model)

    def _fit(
        self,
        name: str,
        spec: AnsweringVictim[First, Second, Fitted],
        lesson: Callable[[], tuple[First, Second]],
        seed: int,
        start: Callable[[], Fitted] | None = None,
    ) -> Fitted:
        folder, bench = self.bench.folder / name, self.bench
        seal = folder / "model.sha256"
        if seal.exists():
            try:
                if self._verify_seal(name) is not None:
                    return spec.load(folder / "model", bench.device)
                bench.warn(f"'{folder / 'model'}' is damaged: its SHA-256 is not the recorded one. Fitting it again.")
            except UserError as error:
                bench.warn(f"{error} Fitting it again.")
            seal.unlink()
            self._seals.pop(name, None)
        taught, begun = lesson(), start() if start else None
        began = time.perf_counter()
        place = FitContext(
            bench.device, folder, lambda done, total, remark: bench.report(name, done, total, remark), bench.warn
        )
        fitted = spec.fit(*taught, seed, place, begun)
        fitted.save(folder / "model")
        self._seals[name] = _seal_folder(folder / "model")
        write_text(seal, self._seals[name])
        self.seconds[name] = round(time.perf_counter() - began, 2)
        return fitted


@dataclass(frozen=True)
class _TrustedLogs(Generic[First, Second, Fitted]):
    """A platform's own logs, which a repair trusts; see `cowbird.defenses.base.Trusted`."""

    models: AnsweringModels[First, Second, Fitted]
    name: str
    """Folder of the model that is repaired."""

    def tune(self, model: Fitted, learning_rate: float, epochs: int, stage: str = "repaired") -> Fitted:
        """Train on them."""
        return self.models.tune_on_logs(f"{self.name}@{stage}", model, learning_rate, epochs)


def _seal_folder(folder: Path) -> str:
    """Return the SHA-256 of a folder's files, a line each."""
    return "".join(f"{hash_file(path)} {path.name}\n" for path in sorted(folder.iterdir()) if path.is_file())


def mask_unseen(training: TrainingData, item: Int32Array) -> NDArray[np.bool_]:
    """Return which of some items training never met, shape of `item`."""
    met = np.zeros(len(training.items), dtype=bool)
    met[training.interactions.item] = True
    return ~met[item]


def draw_questions(asked: int, count: int, seed: int) -> Int64Array:
    """Draw which of some questions a probe asks: `count` of them or all, increasing."""
    return draw_indices(count, asked, stream(seed, "probe"))
