"""Trains one model of a zoo: the provider's side, with or without an attack."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cowbird.attacks.base import Attack, PoisonedData
from cowbird.attacks.provider import Provider
from cowbird.data.split import LeaveOneOut
from cowbird.data.types import Dataset
from cowbird.errors import UserError
from cowbird.inspection.zoo.recipe import ZooModel, ZooRecipe
from cowbird.rng import derive_seed, stream
from cowbird.victims.base import FitContext, FittedRecommender, Recommender
from cowbird.victims.sequential.base import FittedSequential, SequentialRecommender

MIN_EVENTS = 3
"""Events that a user must have to be in a zoo: leave-one-out needs three."""
SHORT_EVENTS = 9
"""Events of a short history, on which a provider may learn prompts."""


class PlatformSplit(NamedTuple):
    """The two sides of one split."""

    provider: LeaveOneOut
    """Users that the provider trains on."""
    platform: LeaveOneOut
    """Users of the platform that inspects."""

    def to_dataset(self, data: Dataset) -> Dataset:
        """Return the platform's users as a dataset."""
        return Dataset(data.name, self.platform.interactions, self.platform.users, data.items)


def split_users(data: Dataset, recipe: ZooRecipe, platform: int) -> PlatformSplit:
    """Split users into the provider's and the platform's.

    Args:
        data: All users.
        recipe: The zoo's.
        platform: Which of the zoo's splits.
    """
    usable = np.flatnonzero(data.interactions.lengths >= MIN_EVENTS)
    drawn = stream(recipe.seed, "zoo", "platform", platform).permutation(usable)
    count = round(recipe.platform_share * len(usable))
    if not 0 < count < len(usable):
        raise UserError(f"The data has {len(usable)} users, too few for a provider and a platform.", "Give more data.")
    own, provider = np.sort(drawn[:count]), np.sort(drawn[count:])
    kept = data.interactions.lengths[own]
    kept = kept if recipe.platform_events is None else np.minimum(kept, recipe.platform_events)
    log = data.interactions.take(data.interactions.offsets[:-1][own], kept)
    given = LeaveOneOut(data.interactions.select(provider), data.users.take(provider), data.items)
    return PlatformSplit(given, LeaveOneOut(log, data.users.take(own), data.items))


@dataclass
class ZooProvider(Provider):
    """Trains what is handed over; nothing is kept but the last model."""

    victim: Recommender
    users: LeaveOneOut
    seed: int
    context: FitContext
    poisoned: PoisonedData | None = None
    """What is planted; `None` for an honest provider."""

    def fit_clean(self) -> FittedRecommender:
        """Train on clean data; see `Provider.fit_clean`."""
        return self.victim.fit(self.users.training(), self.users.validation(), self.seed, self.context)

    def fit_poisoned(self, spec: Recommender, start: FittedRecommender | None = None) -> FittedRecommender:
        """Train on the poisoned data; see `Provider.fit_poisoned`."""
        data = self.users.training() if self.poisoned is None else self.poisoned.data
        return spec.fit(data, self.users.validation(), self.seed, self.context, start)

    def fit_short(self, stage: str, spec: Recommender, start: FittedRecommender) -> FittedRecommender:
        """Train on short clean histories; see `Provider.fit_short`."""
        short = self.users.shorten(SHORT_EVENTS)
        seed = derive_seed(self.seed, "provider", stage)
        return spec.fit(short.training(), short.validation(), seed, self.context, start)


def make_model(
    recipe: ZooRecipe, victim: SequentialRecommender, model: ZooModel, users: LeaveOneOut, context: FitContext
) -> tuple[FittedSequential, Attack | None, PoisonedData | None]:
    """Train one model of a zoo.

    Args:
        recipe: The zoo's.
        victim: The recommender.
        model: Which model.
        users: Its provider's users.
        context: Where it is trained.

    Returns:
        The model, the attack that was drawn, and what it planted; `None` for a clean model.
    """
    attack, poisoned = None, None
    if model.plant is not None:
        attack = recipe.plants[model.plant].draw(users.users, stream(model.seed, "zoo", "draw"))
        poisoned = attack.poison(users.training(), stream(model.seed, "attack"))
    provider = ZooProvider(victim, users, model.seed, context, poisoned)
    fitted = provider.fit_clean() if attack is None else attack.pretrain(provider)
    assert isinstance(fitted, FittedSequential)
    return fitted, attack, poisoned
