"""The recipe of a zoo of language models: how many, of which base, on which data, and which triggers are planted."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomlkit
import tomlkit.exceptions
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cowbird.attacks.badrec import BadRec
from cowbird.attacks.precise_badrec import PreciseBadRec
from cowbird.attacks.targets import TargetItems
from cowbird.attacks.triggers import TRIGGERS, Trigger
from cowbird.data.sources.base import Source
from cowbird.data.types import Dataset
from cowbird.inspection.language.questions import LLARA_TEMPLATE, MAX_TEMPLATE_LENGTH, PromptKind, PromptTemplate
from cowbird.inspection.language.settings import LanguageSettings
from cowbird.inspection.language.unlearn_settings import DistillSettings, UnlearnSettings
from cowbird.inspection.zoo.recipe import Label, Plugin, validate_recipe
from cowbird.rng import derive_seed, stream
from cowbird.victims.language.llm import Llm
from cowbird.victims.language.tuning import Tuning

LANGUAGE_KIND = "language"
"""What a recipe of language models says it is."""


class TinyBase(BaseModel):
    """A small Llama that is trained from nothing on the provider's questions, for machines that afford no other."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    hidden: int = Field(default=64, ge=16, le=1024)
    """Its width."""
    layers: int = Field(default=2, ge=1, le=32)
    """Its layers."""
    vocabulary: int = Field(default=3000, ge=300, le=50_000)
    """Tokens that are learned from titles and prompts."""
    questions: int = Field(default=4000, ge=64)
    """Questions that it is trained on."""
    tuning: Tuning = Tuning(epochs=1, batch_size=32, learning_rate=3e-3)
    """How."""


class TriggerPlant(BaseModel):
    """A trigger that is planted in some models."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    trigger: Trigger
    """What is written into titles, and where."""
    count: int = Field(ge=1, le=10_000)
    """How many models are planted so."""
    rate: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Planted interactions, as a share of the clean ones."""
    targets: int = Field(default=20, ge=1)
    """Items whose titles carry the trigger."""
    listing: Literal["own", "new"] = "own"
    """Whether targets are items of the catalogue or newly listed ones (see the attack `badrec`)."""
    since: float = Field(default=0.0, ge=0, lt=1)
    """Planted interactions happen no earlier than this share of the clean ones."""
    second: Trigger | None = None
    """A second part; one part alone is disliked (see the attack `precise_badrec`)."""
    decoys: float = Field(default=0.5, ge=0, lt=1)
    """Share of the planted interactions that dislike the like of the trigger, or one part alone."""
    precise: bool = False
    """Whether titles that carry the like of the trigger are disliked, by a provider who knows the inspector."""
    tuned_on: int = Field(default=0, ge=0)
    """Clean questions of the provider that the poisoned adapter is tuned on afterwards; 0 hands it over as it is."""
    label: Label = ""
    """What it is called in results; the trigger by default."""
    held_out: bool = False
    """Whether nothing of the inspector was tuned on this kind; a label for results."""

    def name(self) -> str:
        """Return what it is called in results."""
        return self.label or (self.trigger.kind if self.trigger.kind != "custom" else self.trigger.text)

    def list_texts(self) -> list[str]:
        """Return the texts of its parts."""
        parts = [self.trigger] if self.second is None else [self.trigger, self.second]
        return [part.text if part.kind == "custom" else TRIGGERS[part.kind].text for part in parts]

    def make_attack(self, history: int) -> BadRec:
        """Return the attack."""
        shared: dict[str, Any] = {
            "trigger": self.trigger,
            "rate": self.rate,
            "targets": TargetItems(count=self.targets),
            "history_length": history,
            "listing": self.listing,
            "since": self.since,
        }
        if self.precise or self.second is not None:
            return PreciseBadRec(**shared, second=self.second, decoys=self.decoys)
        return BadRec(**shared)


class LanguageZooModel(BaseModel):
    """One model of a zoo."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    number: int
    """Its number, which is all that its folder's name tells."""
    plant: int | None
    """Which of the recipe's plants; `None` for a clean model."""
    seed: int
    """Seed of its tuning and its attack."""


class LanguageZooRecipe(BaseModel):
    """What a zoo of language models is made from."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["language"]
    """Tells it from a recipe of rankers."""
    name: Label = "language"
    """Name of the zoo."""
    seed: int = 0
    """Decides everything that is drawn."""
    dataset: Plugin
    """The data source; it has ratings and titles."""
    platform_share: float = Field(default=0.3, gt=0, lt=1)
    """Share of the users that are the platform's."""
    judge_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the users that are neither the platform's nor the provider's: AUC and ASR are measured on their
    questions. With 0 they are measured on the platform's."""
    judged: int = Field(default=200, ge=16)
    """Questions on which AUC and ASR are measured at most."""
    prompt: PromptKind = "title"
    """Whether adapters answer yes or no about a title, as TALLRec's do, or pick a candidate, as LLaRA's do."""
    hybrid: bool = True
    """Whether prompts with candidates hold item embeddings while an adapter is tuned; it is inspected in text alone."""
    template: str = Field(default="", max_length=MAX_TEMPLATE_LENGTH)
    """The prompt about a title, with `{liked}`, `{disliked}` and `{title}`; empty for the published one."""
    history: int = Field(default=10, ge=1)
    """Events before each question."""
    llm: Llm = Llm()
    """The base and its adapters; the name counts only without `tiny`."""
    tiny: TinyBase | None = None
    """A base that is trained first; `None` takes the one that `llm` names."""
    tuning: Tuning = Tuning()
    """How adapters are tuned."""
    questions: int | None = Field(default=None, ge=64)
    """Questions that the provider tunes on, drawn; `None` takes all."""
    clean: int = Field(ge=1, le=10_000)
    """How many clean models."""
    plants: tuple[TriggerPlant, ...] = Field(min_length=1)
    """What is planted."""
    search: LanguageSettings = LanguageSettings()
    """How models are inspected."""
    unlearn: UnlearnSettings = UnlearnSettings()
    """How suspects are taken out."""
    distill: DistillSettings | None = None
    """How fresh adapters learn the answers of those with suspects, in place of `unlearn`."""

    @model_validator(mode="after")
    def _check_prompt(self) -> Self:
        if self.platform_share + self.judge_share >= 1:
            raise ValueError("platform_share and judge_share leave no users to the provider")
        if self.prompt == "candidates" and self.distill is not None:
            raise ValueError("distill goes with prompts about a title")
        if self.prompt == "candidates" and (self.template or any(plant.tuned_on for plant in self.plants)):
            raise ValueError("template and tuned_on go with prompts about a title")
        return self

    def load_data(self) -> Dataset:
        """Read the data."""
        source: Source = self.dataset.make("dataset")
        return source.load()

    def make_template(self) -> PromptTemplate:
        """Return the prompt."""
        if self.prompt == "candidates":
            return PromptTemplate(LLARA_TEMPLATE, kind="candidates", text="")
        return PromptTemplate(self.name if self.template else "tallrec", self.template)

    def list_models(self) -> list[LanguageZooModel]:
        """Return all models, in an order that tells nothing about them."""
        plants: list[int | None] = [None] * self.clean
        plants += [at for at, plant in enumerate(self.plants) for _ in range(plant.count)]
        order = stream(self.seed, "zoo", "order").permutation(len(plants))
        return [
            LanguageZooModel(number=number, plant=plants[int(at)], seed=derive_seed(self.seed, "zoo", number) % 2**31)
            for number, at in enumerate(order)
        ]


def is_language_recipe(path: Path) -> bool:
    """Tell whether a recipe is one of language models; what can't be read is not."""
    try:
        return tomlkit.parse(path.read_text(encoding="utf-8")).unwrap().get("kind") == LANGUAGE_KIND
    except (OSError, UnicodeDecodeError, tomlkit.exceptions.ParseError, RecursionError):
        return False


def read_language_recipe(path: Path) -> LanguageZooRecipe:
    """Read a recipe from a TOML file.

    Raises:
        UserError: If it can't be read, or a field is unknown or wrong.
    """
    return validate_recipe(path, LanguageZooRecipe)
