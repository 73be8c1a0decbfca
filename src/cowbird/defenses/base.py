"""What a defense is: a frozen spec with three hooks, each doing nothing unless a subclass overrides it.

`clean` acts on training data, `repair` on the model that a platform was handed or made, `guard` on the model while it
serves. All three act on the clean model as on the attacked one, so that what a defense costs is measured as well.
"""

from abc import ABC
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from cowbird.data.types import TrainingData

if TYPE_CHECKING:
    from cowbird.victims.base import FittedModel, Probe

Model = TypeVar("Model", bound="FittedModel")
"""A fitted model of any kind. A hook returns one of the kind it was given, perhaps of another class."""


PROBE_QUESTIONS = 8
"""Questions that a probe asks about every text, unless a defense says otherwise."""


class TrustedData(Protocol[Model]):
    """A platform's own logs, which nobody poisoned, as a repair may use them."""

    def tune(self, model: Model, learning_rate: float, epochs: int, stage: str = "repaired") -> Model:
        """Go on training a model on them; kept when it is done, and resumed where it was interrupted.

        Args:
            model: Where training starts; left as it is.
            learning_rate: Its learning rate, without warm-up or decay.
            epochs: Passes over the logs, all of them.
            stage: Name of the step, different for each of a repair.

        Raises:
            UserError: If there are no such logs, or this kind of model can't be trained further.
        """
        ...


class Defense(BaseModel, ABC):
    """Acts before training, after it, or while the model serves."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    asks_victim: ClassVar[bool] = False
    """Whether `clean` needs a probe of the victim trained on the data as it came; see `count_probe_questions`."""

    def count_probe_questions(self) -> int:
        """Return how many questions the probe asks about every text, if the class `asks_victim`."""
        return PROBE_QUESTIONS

    def clean(self, data: TrainingData, probe: "Probe | None" = None) -> TrainingData:
        """Return the training data without what looks planted.

        Args:
            data: The training data as it came.
            probe: The victim trained on it; given to defenses that ask for it.
        """
        return data

    def repair(self, model: Model, trusted: TrustedData[Model]) -> Model:
        """Return the trained model with the backdoor weakened.

        Args:
            model: The model; left as it is.
            trusted: Data of the platform that serves it.
        """
        return model

    def guard(self, model: Model) -> Model:
        """Return a model that watches its inputs or answers, of the same kind; the one given is left as it is."""
        return model
