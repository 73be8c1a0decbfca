"""What happens between the provider's model and the users it serves.

- `pretrain`: the provider's own warm users, the model as trained; what a model card would show.
- `direct`: the downstream platform's cold users, the model as it came.
- `fine-tune`: the same users after tuning on their training events, the epoch chosen on their validation events.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cowbird.data.split import LeaveOneOut, Parts
from cowbird.errors import UserError
from cowbird.victims.base import Recommender

LABEL = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What labels look like: they name folders, stand in tables, and never start a formula."""
LABEL_SIZE = 60


class Scenario(BaseModel, ABC):
    """Which users are served, and whether the model is tuned on them first."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    label: str = Field(default="", pattern=LABEL + "|^$", max_length=LABEL_SIZE)
    """Name in result rows; the scenario's own if empty."""

    def title(self) -> str:
        """Return the name used in result rows."""
        return self.label or str(getattr(self, "name", ""))

    @abstractmethod
    def users(self, parts: Parts) -> LeaveOneOut:
        """Return who is served."""


class Pretrain(Scenario):
    """The provider's own users."""

    name: Literal["pretrain"]

    def users(self, parts: Parts) -> LeaveOneOut:
        """Return the warm users."""
        return parts.pretrain


class Direct(Scenario):
    """The downstream platform's cold users, with the model as it came."""

    name: Literal["direct"]

    def users(self, parts: Parts) -> LeaveOneOut:
        """Return the cold users."""
        if parts.downstream is None:
            raise UserError(
                "This split holds no cold users, and the scenario serves them.",
                "Set cold_fraction above 0 under [split], or use the scenario 'pretrain' alone.",
            )
        return parts.downstream


class FineTune(Direct):
    """The downstream platform's cold users, after tuning on their training events."""

    name: Literal["fine-tune"]  # type: ignore[assignment]
    learning_rate: float = Field(default=1e-4, gt=0)
    """AdamW's peak learning rate while tuning."""
    epochs: int = Field(default=30, ge=1)
    """Most passes over the cold users."""
    patience: int | None = Field(default=5, ge=1)
    """Validations without a new best before tuning stops."""
    batch_size: int = Field(default=256, ge=1)
    """Windows a step."""

    def recommender(self, victim: Recommender) -> Recommender:
        """Return the victim's spec with the tuning recipe in place of the pre-training one."""
        return victim.tuned(
            learning_rate=self.learning_rate,
            epochs=self.epochs,
            patience=self.patience,
            batch_size=self.batch_size,
            validate_every=1,
            warmup_steps=0,
            schedule="constant",
        )


AnyScenario = Annotated[Pretrain | Direct | FineTune, Field(discriminator="name")]
