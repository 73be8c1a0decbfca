"""The models of a cell whose victim answers questions (TALLRec, LLaRA), each kept in its folder when it is fitted.

A model's folder is `ATTACK+DEFENSE` for what is handed over (`clean+DEFENSE` for the clean model), `…+SCENARIO` for
what the platform made of it, and `…+SCENARIO@STAGE` for what a defense repaired after that. A defense that takes
nothing out of the data shares the models of no defense. A model whose files are not those recorded is fitted again.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from cowbird.data.types import Index, Offset, TrainingData
from cowbird.defenses.base import Defense
from cowbird.errors import UserError
from cowbird.experiments.scenarios import PoisonedAdapter, Scenario
from cowbird.files import sha256, write_text
from cowbird.rng import derive, stream
from cowbird.victims.base import FittedChooser, FittedJudge, Probe, Workplace


class Kept(Protocol):
    """A fitted model that can be kept."""

    def save(self, folder: Path) -> None:
        """Write the model into a folder."""
        ...


First = TypeVar("First")
Second = TypeVar("Second")
First_contra = TypeVar("First_contra", contravariant=True)
Second_contra = TypeVar("Second_contra", contravariant=True)
Fitted = TypeVar("Fitted", FittedJudge, FittedChooser)
Fitted_co = TypeVar("Fitted_co", bound=Kept, covariant=True)


class Learner(Protocol[First_contra, Second_contra, Fitted_co]):
    """A victim that learns from a lesson of two parts; `Judge` and `Chooser` are some."""

    def fit(
        self,
        first: First_contra,
        second: Second_contra,
        seed: int,
        workplace: Workplace | None = None,
        start: Any = None,
        /,
    ) -> Fitted_co:
        """Train a model."""
        ...

    def load(self, folder: Path, device: torch.device, /) -> Fitted_co:
        """Read what a fitted model's `save` wrote."""
        ...

    def retuned(self, learning_rate: float, epochs: int, /) -> Self:
        """Return the same model, tuned at another learning rate for other epochs."""
        ...


@dataclass(frozen=True)
class Bench:
    """Where the models of one cell are made."""

    seed: int
    """The cell's seed."""
    folder: Path
    """Where models are kept."""
    device: torch.device
    """Where they run."""
    report: Callable[[str, int, int, str], None]
    """Told of progress: model, steps done, steps in all, a remark."""
    warn: Callable[[str], None]
    """Told of trouble that was worked around."""


@dataclass(frozen=True)
class Wanted(Generic[First, Second]):
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


class Adapters(ABC, Generic[First, Second, Fitted]):
    """Fits the models of one cell, each once.

    Args:
        victim: The victim's spec.
        bench: Where models are made.
    """

    def __init__(self, victim: Learner[First, Second, Fitted], bench: Bench) -> None:
        self.victim, self.bench = victim, bench
        self.seconds: dict[str, float] = {}
        """How long each fit took."""

    @abstractmethod
    def platform(self) -> tuple[First, Second]:
        """Return the lesson that a platform of its own logs goes on with, in the clean catalogue.

        Raises:
            UserError: If there are no such logs.
        """

    @abstractmethod
    def _asked(self, model: Fitted, questions: int) -> Probe:
        """Return a probe that asks some questions of the platform's own logs."""

    def model(self, wanted: Wanted[First, Second]) -> Fitted:
        """Return the model that a platform serves: handed over, perhaps tuned, then repaired and guarded."""

        def handed() -> Fitted:
            return self._fit(wanted.handed, self.victim, wanted.lesson, self.bench.seed)

        scenario, title = wanted.scenario, wanted.scenario.title()
        if isinstance(scenario, PoisonedAdapter):
            tuned = self.victim.retuned(scenario.learning_rate, scenario.epochs)
            seed = derive(self.bench.seed, "platform")
            model = self._fit(f"{wanted.handed}+{title}", tuned, self.platform, seed, handed)
        else:
            model = handed()
        repaired = wanted.defense.repair(model, _Logs(self, f"{wanted.name}+{title}"))
        return wanted.defense.guard(repaired)

    def probe(self, handed: str, lesson: Callable[[], tuple[First, Second]], questions: int) -> Probe:
        """Return a probe of a model that is handed over; arguments as in `Wanted`.

        Raises:
            UserError: If the platform has no logs to draw questions from, or the victim can't be probed.
        """
        return self._asked(self._fit(handed, self.victim, lesson, self.bench.seed), questions)

    def repaired(self, name: str, model: Fitted, learning_rate: float, epochs: int) -> Fitted:
        """Go on training a model on the platform's own logs; see `cowbird.defenses.base.Trusted`.

        Args:
            name: Folder of the model that this makes.
            model: Where training starts.
            learning_rate: Its peak learning rate.
            epochs: Passes over the logs.
        """
        spec, seed = (
            self.victim.retuned(learning_rate, epochs),
            derive(self.bench.seed, "repair", name.partition("@")[2]),
        )
        return self._fit(name, spec, self.platform, seed, lambda: model)

    def _fit(
        self,
        name: str,
        spec: Learner[First, Second, Fitted],
        lesson: Callable[[], tuple[First, Second]],
        seed: int,
        start: Callable[[], Fitted] | None = None,
    ) -> Fitted:
        folder, bench = self.bench.folder / name, self.bench
        seal = folder / "model.sha256"
        if seal.exists():
            try:
                if _sealed(folder / "model") == seal.read_text(encoding="utf-8"):
                    return spec.load(folder / "model", bench.device)
                bench.warn(f"'{folder / 'model'}' is damaged: its SHA-256 is not the recorded one. Fitting it again.")
            except (UserError, OSError, UnicodeDecodeError) as error:
                bench.warn(f"{error} Fitting it again.")
            seal.unlink()
        taught, begun = lesson(), start() if start else None
        began = time.perf_counter()
        place = Workplace(
            bench.device, folder, lambda done, total, remark: bench.report(name, done, total, remark), bench.warn
        )
        fitted = spec.fit(*taught, seed, place, begun)
        fitted.save(folder / "model")
        write_text(seal, _sealed(folder / "model"))
        self.seconds[name] = round(time.perf_counter() - began, 2)
        return fitted


@dataclass(frozen=True)
class _Logs(Generic[First, Second, Fitted]):
    """A platform's own logs, which a repair trusts; see `cowbird.defenses.base.Trusted`."""

    models: Adapters[First, Second, Fitted]
    name: str
    """Folder of the model that is repaired."""

    def tune(self, model: Fitted, learning_rate: float, epochs: int, stage: str = "repaired") -> Fitted:
        """Train on them."""
        return self.models.repaired(f"{self.name}@{stage}", model, learning_rate, epochs)


def _sealed(folder: Path) -> str:
    """Return the SHA-256 of a folder's files, a line each."""
    return "".join(f"{sha256(path)} {path.name}\n" for path in sorted(folder.iterdir()) if path.is_file())


def never_met(training: TrainingData, item: Index) -> NDArray[np.bool_]:
    """Return which of some items training never met, shape of `item`."""
    met = np.zeros(len(training.items), dtype=bool)
    met[training.interactions.item] = True
    return ~met[item]


def draw_questions(asked: int, count: int, seed: int) -> Offset:
    """Draw which of some questions a probe asks: `count` of them or all, increasing."""
    return np.sort(stream(seed, "probe").choice(asked, min(count, asked), replace=False))
