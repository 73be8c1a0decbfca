"""What a defense is: a frozen spec with three hooks, each doing nothing unless a subclass overrides it."""

from abc import ABC

from pydantic import BaseModel, ConfigDict

from cowbird.data.types import TrainingData
from cowbird.victims.base import FittedRecommender


class Defense(BaseModel, ABC):
    """Acts before training, after it, or while the model serves."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def clean(self, data: TrainingData) -> TrainingData:
        """Return the training data without what looks planted."""
        return data

    def repair(self, model: FittedRecommender, data: TrainingData) -> FittedRecommender:
        """Return the trained model with the backdoor weakened, given data that is trusted."""
        return model

    def guard(self, model: FittedRecommender) -> FittedRecommender:
        """Return a model that watches its inputs or answers."""
        return model
