"""The recipe of a zoo: how many models, of which recommenders, on which data, and what is planted in them."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
import tomlkit
import tomlkit.exceptions
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cowbird.attacks.base import Attack
from cowbird.data.sources.base import Source
from cowbird.data.types import Dataset, Users
from cowbird.errors import UserError
from cowbird.faults import raise_outage
from cowbird.plugins import find_plugin
from cowbird.rng import derive_seed, stream
from cowbird.victims.sequential.base import SequentialRecommender

Share = Annotated[float, Field(ge=0, le=1)]
Label = Annotated[str, Field(pattern=r"^[\w ,.:;%()+=-]{0,100}$")]
"""What something is called in results: words, and no path."""
MIN_GROUP_SHARE = 0.05
"""Share of the users that a group must have to be aimed at."""


class Plugin(BaseModel):
    """A plug-in by its name, with its fields beside it."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    name: str
    """Name of the plug-in."""

    def make(self, kind: str) -> Any:
        """Return the plug-in with its fields.

        Raises:
            UserError: If there is none of the name, or a field is wrong.
        """
        try:
            return find_plugin(kind, self.name).model_validate(self.model_extra or {})
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise UserError(
                f"The {kind} '{self.name}' can't be made so: {place}: {first['msg']}.",
                f"See cowbird describe {kind} {self.name}.",
            ) from None


class Plant(BaseModel):
    """A way to plant, of which every model draws its own strength, targets and group."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    attack: str
    """Name of an attack with the fields `rate` and `targets`."""
    count: int = Field(ge=1, le=10_000)
    """How many models are planted so."""
    label: Label = ""
    """What it is called in results; the attack's name by default."""
    group: Literal["never", "always"] = "never"
    """Whether one user group is aimed at."""
    rate: tuple[Share, Share] = (0.02, 0.3)
    """Lowest and highest `rate`, drawn evenly on a logarithmic scale."""
    targets: tuple[int, int] = (1, 20)
    """Fewest and most target items, drawn evenly on a logarithmic scale."""
    strata: tuple[tuple[Share, Share], ...] = ((0.0, 0.25), (0.25, 0.6), (0.6, 0.95))
    """Popularity ranges of the targets, one of which is drawn."""
    held_out: bool = False
    """Whether nothing of the inspector was tuned on this kind; a label for results."""
    fields: dict[str, Any] = Field(default_factory=dict)
    """Other fields of the attack."""

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        if not 0 < self.rate[0] <= self.rate[1] or not 1 <= self.targets[0] <= self.targets[1]:
            raise ValueError("ranges run from a low to a high number above 0")
        return self

    def name(self) -> str:
        """Return what it is called in results."""
        return self.label or self.attack

    def draw(self, users: Users, rng: np.random.Generator) -> Attack:
        """Draw the attack of one model."""
        rate = _draw_evenly(*self.rate, rng)
        count = round(_draw_evenly(*self.targets, rng))
        stratum = self.strata[int(rng.integers(len(self.strata)))]
        fields = {"rate": round(rate, 4), "targets": {"count": count, "popularity": stratum}, **self.fields}
        if self.group == "always":
            fields["group"] = _draw_group(users, rng)
            if "scope" in find_plugin("attack", self.attack).model_fields:
                fields["scope"] = "group"
        return Plugin(name=self.attack, **fields).make("attack")


def _draw_evenly(low: float, high: float, rng: np.random.Generator) -> float:
    """Draw a number evenly on a logarithmic scale."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _draw_group(users: Users, rng: np.random.Generator) -> dict[str, str]:
    """Draw an attribute's value that enough users have."""
    found = [
        {"attribute": name, "value": label}
        for name, column in sorted(users.attributes.items())
        for code, label in enumerate(column.labels)
        if MIN_GROUP_SHARE <= np.count_nonzero(column.codes == code) / max(len(users), 1) <= 1 - MIN_GROUP_SHARE
    ]
    if not found:
        raise UserError("No group of users is large enough to aim at.", "Use data with profiles, or group = 'never'.")
    return found[int(rng.integers(len(found)))]


class ZooModel(BaseModel):
    """One model of a zoo."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    number: int
    """Its number, which is all that its file's name tells."""
    victim: int
    """Which of the recipe's victims it is."""
    platform: int
    """Which split of the users it is made for: the others are its provider's."""
    plant: int | None
    """Which of the recipe's plants; `None` for a clean model."""
    seed: int
    """Seed of its training and of its attack."""


class ZooRecipe(BaseModel):
    """What a zoo is made from."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: Label = "rankers"
    """Name of the zoo."""
    seed: int = 0
    """Decides everything that is drawn."""
    dataset: Plugin
    """The data source."""
    clean: int = Field(ge=1, le=10_000)
    """How many clean models."""
    platforms: int = Field(default=4, ge=1)
    """How many splits into the provider's and the platform's users there are; models take turns."""
    platform_share: float = Field(default=0.3, gt=0, lt=1)
    """Share of the users that are the platform's."""
    platform_events: int | None = Field(default=None, ge=3)
    """Events that the platform has of each of its users, the first ones; `None` for all."""
    victims: tuple[Plugin, ...] = Field(min_length=1)
    """Recommenders, of which models take turns."""
    plants: tuple[Plant, ...] = Field(min_length=1)
    """What is planted."""
    beside: tuple[Literal["group", "inversion"], ...] = ()
    """Statistics that inspection measures beside those of its verdict."""

    def load_data(self) -> Dataset:
        """Read the data."""
        source: Source = self.dataset.make("dataset")
        return source.load()

    def make_victims(self) -> list[SequentialRecommender]:
        """Return the recommenders."""
        made = [victim.make("victim") for victim in self.victims]
        wrong = [self.victims[at].name for at, each in enumerate(made) if not isinstance(each, SequentialRecommender)]
        if wrong:
            raise UserError(f"The victim '{wrong[0]}' ranks no catalogue.", "Use sasrec or gru4rec.")
        return made

    def list_models(self) -> list[ZooModel]:
        """Return all models, in an order that tells nothing about them."""
        plants: list[int | None] = [None] * self.clean
        plants += [at for at, plant in enumerate(self.plants) for _ in range(plant.count)]
        turns = dict.fromkeys(plants, 0)
        drawn: list[tuple[int, int, int | None]] = []
        for plant in plants:
            turn = turns[plant] + (0 if plant is None else plant)
            turns[plant] += 1
            victim = turn % len(self.victims)
            drawn.append((victim, turn // len(self.victims) % self.platforms, plant))
        order = stream(self.seed, "zoo", "order").permutation(len(drawn))
        return [
            ZooModel(number=number, victim=v, platform=s, plant=p, seed=derive_seed(self.seed, "zoo", number) % 2**31)
            for number, (v, s, p) in enumerate(drawn[int(at)] for at in order)
        ]


RecipeT = TypeVar("RecipeT", bound=BaseModel)


def read_recipe(path: Path) -> ZooRecipe:
    """Read a recipe from a TOML file.

    Raises:
        UserError: If it can't be read, or a field is unknown or wrong.
    """
    return validate_recipe(path, ZooRecipe)


def validate_recipe(path: Path, kind: type[RecipeT]) -> RecipeT:
    """Read a recipe of some kind from a TOML file.

    Raises:
        UserError: If it can't be read, or a field is unknown or wrong.
    """
    try:
        return kind.model_validate(tomlkit.parse(path.read_text(encoding="utf-8")).unwrap())
    except OSError as error:
        raise_outage(error, f"'{path}' can't be read")
        reason = error.strerror or "it can't be read"
        raise UserError(f"'{path}' should be a recipe in TOML: {reason}.", "Check the path.") from None
    except UnicodeDecodeError:
        raise UserError(
            f"'{path}' should be a recipe in TOML, and it is no text in UTF-8.", "Check what it holds."
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"The recipe '{path}' is wrong at {place}: {first['msg']}.", "Change that field.") from None
    except (tomlkit.exceptions.ParseError, RecursionError) as error:
        raise UserError(f"'{path}' is not TOML: {error}.", "Check the file.") from None
