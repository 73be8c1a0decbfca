"""The models of one cell: the provider's, the platform's, each kept in the cell's folder when it is fitted.

A model's folder is `ATTACK+DEFENSE` for what is handed over (`clean+DEFENSE` for the clean model), `…@STAGE` for a
stage on the way there, `…+SCENARIO` for what the platform made of it, and `…+SCENARIO@STAGE` for what a defense
repaired after that. A defense that takes nothing out of the data shares the models of no defense. Labels have neither
`+` nor `@`.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from cowbird.attacks.base import Attack
from cowbird.attacks.provider import Provider
from cowbird.data.split import LeaveOneOut, SplitParts
from cowbird.data.types import TrainingData
from cowbird.defenses.base import Defense
from cowbird.errors import UserError
from cowbird.files import hash_file, write_text
from cowbird.rng import derive_seed
from cowbird.victims.base import FittedRecommender, Recommender
from cowbird.victims.fit_context import FitContext

Progress = Callable[[str, int, int, str], None]
"""Told of progress: what is being fitted, steps done, steps in all, a remark."""


@dataclass
class ModelStore:
    """Fits a model once and keeps it; a damaged file is fitted again."""

    folder: Path
    device: torch.device
    title: str
    progress: Progress
    warn: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    """How long each fit took."""

    def fit(
        self,
        name: str,
        spec: Recommender,
        seed: int,
        users: Callable[[], LeaveOneOut],
        data: Callable[[], TrainingData] | None = None,
        start: FittedRecommender | None = None,
    ) -> FittedRecommender:
        """Fit, or load what an earlier call or run fitted.

        Args:
            name: The model's folder.
            spec: What to fit.
            seed: Decides the fit.
            users: Makes the users whose validation events choose the state; asked only if there is something to fit.
            data: Makes the training data, if it is not simply these users'.
            start: Where training starts.
        """
        folder = self.folder / name
        path, seal = folder / "model.safetensors", folder / "model.sha256"
        if path.exists() and seal.exists():
            try:
                if hash_file(path) == seal.read_text(encoding="utf-8"):
                    return spec.load(path, self.device)
                self.warn(f"'{path}' is damaged: its SHA-256 is not the recorded one. Fitting it again.")
            except (UserError, OSError, UnicodeDecodeError) as error:
                self.warn(f"{error} Fitting it again.")
        started = time.perf_counter()
        place = FitContext(
            self.device,
            folder,
            lambda done, total, remark: self.progress(f"{self.title}: {name}", done, total, remark),
            self.warn,
        )
        side = users()
        fitted = spec.fit(data() if data else side.training(), side.validation(), seed, place, start)
        fitted.save(path)
        write_text(seal, hash_file(path))
        self.seconds[name] = round(time.perf_counter() - started, 2)
        return fitted


@dataclass
class ProviderTraining(Provider):
    """One provider: its users, the attack on its training (or none), and the defense it cleans data with."""

    shelf: ModelStore
    victim: Recommender
    parts: SplitParts
    seed: int
    label: str
    """Label of the attack; `clean` for none."""
    defense_label: str
    defense: Defense
    attack: Attack | None
    planted: TrainingData
    """What the provider trains on, before the defense."""
    short_events: int
    """Events of a short history."""
    honest: "ProviderTraining | None" = None
    """The clean provider beside it; `None` if this is the one."""

    @property
    def name(self) -> str:
        """Folder of the model that is handed over."""
        return f"{self.label}+{self.defense_label}"

    @cached_property
    def _data(self) -> TrainingData:
        return self.defense.clean(self.planted)

    @cached_property
    def _model(self) -> FittedRecommender:
        return self.fit_poisoned(self.victim) if self.attack is None else self.attack.pretrain(self)

    def get_model(self) -> FittedRecommender:
        """Return what is handed over, trained once."""
        return self._model

    def fit_clean(self) -> FittedRecommender:
        """Return the victim trained on clean data."""
        return (self.honest or self).get_model()

    def fit_poisoned(self, spec: Recommender, start: FittedRecommender | None = None) -> FittedRecommender:
        """Train on the poisoned data; see `Provider.fit_poisoned`."""
        return self.shelf.fit(self.name, spec, self.seed, lambda: self.parts.pretrain, lambda: self._data, start)

    def fit_short(self, stage: str, spec: Recommender, start: FittedRecommender) -> FittedRecommender:
        """Train on short clean histories; see `Provider.fit_short`."""
        return self.shelf.fit(
            f"{self.name}@{stage}",
            spec,
            derive_seed(self.seed, "provider", stage),
            lambda: self.parts.pretrain.shorten(self.short_events),
            start=start,
        )

    def add_prompts(self, spec: Recommender) -> FittedRecommender:
        """Return the model with the provider's prompts: its training's, or some learned for the finished model."""
        model = self.get_model()
        if model.prompt is not None:
            return model
        recipe = hashlib.sha256(spec.model_dump_json().encode()).hexdigest()
        return self.fit_short(f"prompts-{recipe[:8]}", spec, model)


@dataclass(frozen=True)
class Deployment:
    """One platform that deploys a provider's model."""

    shelf: ModelStore
    name: str
    """Folder of the model that it makes."""
    users: LeaveOneOut
    seed: int

    def tune(self, spec: Recommender, start: FittedRecommender) -> FittedRecommender:
        """Train on the platform's own users."""
        return self.shelf.fit(self.name, spec, self.seed, lambda: self.users, start=start)


@dataclass(frozen=True)
class PlatformLogs:
    """A platform's own users, whom a repair trusts; see `cowbird.defenses.base.Trusted`."""

    shelf: ModelStore
    victim: Recommender
    """The recommender as a clean provider trains it."""
    name: str
    """Folder of the model that is repaired."""
    users: LeaveOneOut
    seed: int

    def tune(
        self, model: FittedRecommender, learning_rate: float, epochs: int, stage: str = "repaired"
    ) -> FittedRecommender:
        """Train on the users' training events, with the model's prompts if it has some."""
        recipe = {"learning_rate": learning_rate, "epochs": epochs, "patience": None, "keep": "last"}
        recipe |= {"warmup_steps": 0, "schedule": "constant"}
        spec = self.victim.with_training(**recipe)
        if model.prompt is not None:
            spec = self.victim.with_prompts(model.prompt, trained="all", **recipe)
        seed = derive_seed(self.seed, "repair", stage)
        return self.shelf.fit(f"{self.name}@{stage}", spec, seed, lambda: self.users, start=model)
