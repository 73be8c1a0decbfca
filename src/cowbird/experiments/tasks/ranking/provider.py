"""Who trains the models of victims that rank: the provider, the platform, and a repair on the platform's logs.

How their folders are called is told by `cowbird.experiments.store.ModelStore`.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from cowbird.attacks.base import Attack
from cowbird.attacks.provider import Provider
from cowbird.data.split import LeaveOneOut, Queries, SplitParts
from cowbird.data.types import TrainingData
from cowbird.defenses.base import Defense
from cowbird.experiments.store import ModelStore
from cowbird.rng import derive_seed
from cowbird.victims.base import FittedRecommender, Recommender


def _fit_on_users(
    store: ModelStore, name: str, spec: Recommender, seed: int, users: LeaveOneOut, start: FittedRecommender | None
) -> FittedRecommender:
    """Train on some users' events, choosing the state on their validation events; kept under a name."""
    return store.fit(name, spec, seed, lambda: (users.training(), users.validation()), lambda: start)


@dataclass
class ProviderTraining(Provider):
    """One provider: its users, the attack on its training (or none), and the defense it cleans data with."""

    store: ModelStore
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
        users = self.parts.pretrain
        return self.store.fit(self.name, spec, self.seed, lambda: (self._data, users.validation()), lambda: start)

    def fit_short(self, stage: str, spec: Recommender, start: FittedRecommender) -> FittedRecommender:
        """Train on short clean histories; see `Provider.fit_short`."""

        def make_lesson() -> tuple[TrainingData, Queries]:
            short = self.parts.pretrain.shorten(self.short_events)
            return short.training(), short.validation()

        seed = derive_seed(self.seed, "provider", stage)
        return self.store.fit(f"{self.name}@{stage}", spec, seed, make_lesson, lambda: start)

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

    store: ModelStore
    name: str
    """Folder of the model that it makes."""
    users: LeaveOneOut
    seed: int

    def tune(self, spec: Recommender, start: FittedRecommender) -> FittedRecommender:
        """Train on the platform's own users."""
        return _fit_on_users(self.store, self.name, spec, self.seed, self.users, start)


@dataclass(frozen=True)
class PlatformLogs:
    """A platform's own users, whom a repair trusts; see `cowbird.defenses.base.Trusted`."""

    store: ModelStore
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
        return _fit_on_users(self.store, f"{self.name}@{stage}", spec, seed, self.users, model)
