"""Models of a cell: fitted once, kept, and loaded again."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cowbird.experiments.store.seals import SealedStore
from cowbird.victims import checkpoint
from cowbird.victims.fit_context import FitContext

if TYPE_CHECKING:
    import torch

ProgressReport = Callable[[str, int, int, str], None]
"""Told of progress: what is being fitted, steps done, steps in all, a remark."""


class SavableModel(Protocol):
    """A fitted model that can be kept."""

    def save(self, path: Path, /) -> None:
        """Write the model, as a file or a folder."""
        ...


ModelT_co = TypeVar("ModelT_co", bound=SavableModel, covariant=True)
ModelT = TypeVar("ModelT", bound=SavableModel)


class FittableVictim(Protocol[ModelT_co]):
    """A victim that learns from a lesson of two parts, such as training and validation data; all victims are some."""

    def fit(
        self, first: Any, second: Any, seed: int, context: FitContext | None = None, start: Any = None, /
    ) -> ModelT_co:
        """Train a model."""
        ...

    def load(self, path: Path, device: "torch.device", /) -> ModelT_co:
        """Read what a fitted model's `save` wrote."""
        ...


@dataclass
class ModelStore:
    """Fits a model once and keeps it; one that is damaged is fitted again. Checkpoints lie beside it meanwhile.

    A model's folder is `ATTACK+DEFENSE` for what is handed over (`clean+DEFENSE` for the clean model), `…@STAGE` for a
    stage on the way there, `…+SCENARIO` for what the platform made of it, and `…+SCENARIO@STAGE` for what a defense
    repaired after that. A defense that takes nothing out of the data shares the models of no defense. Labels have
    neither `+` nor `@`.
    """

    folder: Path
    device: "torch.device"
    title: str
    """What a person calls the cell."""
    progress: ProgressReport
    warn: Callable[[str], None]
    artifact: str = "model.safetensors"
    """What a model's file is called in its folder, or its folder if it has several."""
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    """How long each fit took."""

    def __post_init__(self) -> None:
        self._kept = SealedStore(self.folder, self.warn, "another model", "Fitting it again.")

    def fit(
        self,
        name: str,
        victim: FittableVictim[ModelT],
        seed: int,
        lesson: Callable[[], tuple[Any, Any]],
        start: Callable[[], Any] | None = None,
    ) -> ModelT:
        """Fit a model, or load what an earlier call or run fitted.

        Args:
            name: The model's folder.
            victim: What to fit.
            seed: Decides the fit.
            lesson: Makes what it learns from; asked only if there is something to fit.
            start: Makes where training starts; asked only then, too.
        """

        def make() -> ModelT:
            first, second = lesson()
            begun = start() if start else None
            began = time.perf_counter()
            context = FitContext(
                self.device,
                self.folder / name,
                lambda done, total, remark: self.progress(f"{self.title}: {name}", done, total, remark),
                self.warn,
            )
            fitted = victim.fit(first, second, seed, context, begun)
            self.seconds[name] = round(time.perf_counter() - began, 2)
            return fitted

        kept = self._kept.make(
            f"{name}/{self.artifact}",
            "",
            lambda path: victim.load(path, self.device),
            make,
            lambda path, model: model.save(path),
        )
        checkpoint.clear(self.folder / name)  # the model is kept now, and not before
        return kept

    def find_digest(self, name: str) -> str | None:
        """Return the digest of a kept model's files, or `None` if there is none that is whole."""
        return self._kept.find_digest(f"{name}/{self.artifact}", "")

    def list_stages(self, name: str) -> list[str]:
        """Return the folders of the stages of a model, sorted."""
        return sorted(path.name for path in self.folder.glob("*") if path.name.startswith(f"{name}@"))
