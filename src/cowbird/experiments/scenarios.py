"""Scenarios: what happens between the provider's model and the users that it serves.

For recommenders that rank a catalogue:

- `pretrain`: the provider's own (warm) users, with the model as trained and the prompts that its training had, if any.
- `direct`: the platform's (cold) users, with the model as it came; without prompts, or with the provider's untouched.
- `fine-tune`: the cold users, after the model was tuned on their training events, without prompts.
- `prompt-tune`: the cold users, with the model frozen; prompts made from user profiles are learned on the same events.
- `prompt-tune-full`: the cold users, after prompts and model were learned together.

Tuning keeps the epoch that is best on the cold users' validation events. `item_overlap` says which share of the
platform's items the provider's model knows: the others are new to it.

For language models that answer questions: `direct`, the platform tunes on the poisoned data, and `poisoned-adapter`, a
provider hands over a tuned adapter that the platform goes on tuning.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cowbird.data.split import LeaveOneOut, SplitParts
from cowbird.data.types import IntArray
from cowbird.errors import UserError
from cowbird.rng import stream, torch_stream
from cowbird.victims.base import FittedRecommender, Prompt, Recommender

LABEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What labels look like: they name folders, stand in tables, and never start a formula."""
MAX_LABEL_LENGTH = 60


class Handover(Protocol):
    """What the provider hands over."""

    victim: Recommender
    """The recommender as a clean provider trains it."""

    def get_model(self) -> FittedRecommender:
        """Return the pre-trained model, with prompts if its training had them."""
        ...

    def add_prompts(self, spec: Recommender) -> FittedRecommender:
        """Return the model with the provider's prompts: its own, or some learned as `spec` says on short histories."""
        ...


class Platform(Protocol):
    """Where the model is deployed."""

    @property
    def seed(self) -> int:
        """Decides everything random on the platform."""
        ...

    def tune(self, spec: Recommender, start: FittedRecommender) -> FittedRecommender:
        """Train on the platform's own users."""
        ...


class Scenario(BaseModel, ABC):
    """Which users are served, and by what."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    label: str = Field(default="", pattern=LABEL_PATTERN + "|^$", max_length=MAX_LABEL_LENGTH)
    """Name in result rows; the scenario's own if empty."""

    def title(self) -> str:
        """Return the name used in result rows."""
        return self.label or str(getattr(self, "name", ""))

    @abstractmethod
    def select_users(self, parts: SplitParts) -> LeaveOneOut:
        """Return who is served."""

    def draw_absent(self, items: int, seed: int) -> IntArray:
        """Return the provider's items that the platform does not have, of a catalogue of `items`; sorted."""
        return np.empty(0, dtype=np.int64)

    @abstractmethod
    def serve(self, handed: Handover, platform: Platform) -> FittedRecommender:
        """Return the model that serves the users."""


class Pretrain(Scenario):
    """The provider's own users, with the model as trained."""

    name: Literal["pretrain"]

    def select_users(self, parts: SplitParts) -> LeaveOneOut:
        """Return the warm users."""
        return parts.pretrain

    def serve(self, handed: Handover, platform: Platform) -> FittedRecommender:
        """Return the model with the prompts that its training had, if any."""
        return handed.get_model()


class Downstream(Scenario):
    """The downstream platform's cold users."""

    item_overlap: float = Field(default=1.0, gt=0, le=1)
    """Share of the platform's items that the provider's model was trained on; in the places of the others stand new
    items. Targets that the platform does not have are not counted in exposures."""

    def select_users(self, parts: SplitParts) -> LeaveOneOut:
        """Return the cold users."""
        if parts.downstream is None:
            raise UserError(
                "This split holds no cold users, and the scenario serves them.",
                "Set cold_fraction above 0 under [split], or use the scenario 'pretrain' alone.",
            )
        return parts.downstream

    def draw_absent(self, items: int, seed: int) -> IntArray:
        """Draw which of the provider's items the platform lacks."""
        count = round((1 - self.item_overlap) * items)
        return np.sort(stream(seed, "overlap").permutation(items)[:count])

    def forget_absent(self, model: FittedRecommender, platform: Platform) -> FittedRecommender:
        """Return a model as the platform gets it, with untrained items in the places of those it does not share."""
        absent = self.draw_absent(model.items, platform.seed)
        return model.forget(absent, torch_stream(platform.seed, "new items")) if len(absent) else model


class TunedScenario(Downstream):
    """The cold users, after tuning on their training events; the epoch is chosen on their validation events."""

    learning_rate: float = Field(default=1e-4, gt=0)
    """AdamW's peak learning rate while tuning."""
    epochs: int = Field(default=30, ge=1)
    """Most passes over the cold users."""
    patience: int | None = Field(default=5, ge=1)
    """Validations without a new best before tuning stops."""
    batch_size: int = Field(default=256, ge=1)
    """Windows a step."""

    def make_recipe(self) -> dict[str, Any]:
        """Return the training fields that tuning puts in place of the pre-training ones."""
        return {
            "learning_rate": self.learning_rate,
            "epochs": self.epochs,
            "patience": self.patience,
            "keep": "best",
            "batch_size": self.batch_size,
            "validate_every": 1,
            "warmup_steps": 0,
            "schedule": "constant",
        }


class FineTune(TunedScenario):
    """The cold users, after tuning the model on them."""

    name: Literal["fine-tune"]

    def serve(self, handed: Handover, platform: Platform) -> FittedRecommender:
        """Tune the model."""
        return platform.tune(
            handed.victim.with_training(**self.make_recipe()),
            self.forget_absent(handed.get_model().without_prompts(), platform),
        )


class PromptScenario(TunedScenario):
    """What the two prompt scenarios share: whose prompts they are, and what they are made from."""

    prompt: Prompt = Prompt()
    """The prompts; provided ones of an attack that has its own are what that attack says."""
    prompts: Literal["fresh", "provided"] = "fresh"
    """Where tuning starts: prompts of the platform's own, drawn anew, or those that the provider hands over with the
    model, learned on its own users' short histories."""

    def prepare_start(self, handed: Handover, platform: Platform) -> FittedRecommender:
        """Return the model that tuning starts from."""
        if self.prompts == "fresh":
            return self.forget_absent(handed.get_model().without_prompts(), platform)
        # However the platform tunes, the provider learns its prompts alone and by the default recipe.
        spec = handed.victim.with_prompts(
            self.prompt, trained="prompts", **PromptTune(name="prompt-tune").make_recipe()
        )
        return self.forget_absent(handed.add_prompts(spec), platform)


class Direct(Downstream):
    """The cold users, with the model as it came."""

    name: Literal["direct"]
    prompts: Literal["none", "provided"] = "none"
    """Whether the provider's prompts serve with the model; without, a model trained with prompts serves bare."""
    prompt: Prompt = Prompt()
    """What prompts a provider learns for a model whose training had none."""

    def serve(self, handed: Handover, platform: Platform) -> FittedRecommender:
        """Return the model as it came."""
        if self.prompts == "none":
            return self.forget_absent(handed.get_model().without_prompts(), platform)
        tuned = PromptTune(name="prompt-tune", prompts="provided", prompt=self.prompt, item_overlap=self.item_overlap)
        return tuned.prepare_start(handed, platform)


class PromptTune(PromptScenario):
    """The cold users, after learning prompts for the frozen model."""

    name: Literal["prompt-tune"]
    learning_rate: float = Field(default=1e-3, gt=0)
    """AdamW's peak learning rate while tuning."""

    def serve(self, handed: Handover, platform: Platform) -> FittedRecommender:
        """Learn prompts alone."""
        start = self.prepare_start(handed, platform)
        spec = handed.victim.with_prompts(start.prompt or self.prompt, trained="prompts", **self.make_recipe())
        return platform.tune(spec, start)


class PromptTuneFull(PromptScenario):
    """The cold users, after learning prompts and tuning the model with them."""

    name: Literal["prompt-tune-full"]
    prompt_learning_rate: float = Field(default=1e-3, gt=0)
    """AdamW's peak learning rate of the prompts; `learning_rate` is the model's."""

    def serve(self, handed: Handover, platform: Platform) -> FittedRecommender:
        """Learn prompts and model together."""
        start, rates = self.prepare_start(handed, platform), {"prompt_learning_rate": self.prompt_learning_rate}
        spec = handed.victim.with_prompts(start.prompt or self.prompt, trained="all", **self.make_recipe(), **rates)
        return platform.tune(spec, start)


class PoisonedAdapter(Scenario):
    """For victims that answer questions: the platform is handed a tuned adapter and goes on tuning it on its own logs.

    The provider tunes on the early events, clean or poisoned; the platform's logs are the clean events of the
    validation period, or (for victims that choose among candidates) of the validation users.
    """

    name: Literal["poisoned-adapter"]
    learning_rate: float = Field(default=3e-4, gt=0)
    """AdamW's peak learning rate of the platform's tuning."""
    epochs: int = Field(default=1, ge=1)
    """Passes over the platform's questions."""

    def select_users(self, parts: SplitParts) -> LeaveOneOut:
        """Refuse: this scenario is not for recommenders that rank."""
        raise UserError(
            f"Scenario '{self.title()}' hands over a language model's adapter, and this victim has none.",
            "Use it with victims that answer questions, such as tallrec.",
        )

    def serve(self, handed: Handover, platform: Platform) -> FittedRecommender:
        """Refuse, as `select_users` does."""
        raise UserError(f"Scenario '{self.title()}' hands over a language model's adapter, and this victim has none.")


AnyScenario = Annotated[
    Pretrain | Direct | FineTune | PromptTune | PromptTuneFull | PoisonedAdapter,
    Field(discriminator="name"),
]
