"""The fields of every sequential recommender: what its network is like, and how it is trained."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cowbird.victims.ranking import Prompt
from cowbird.victims.sequential.windows import WindowRegime


class TrainingRecipe(BaseModel):
    """How a sequential recommender is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    epochs: int = Field(default=100, ge=1)
    """Most passes over the windows."""
    batch_size: int = Field(default=256, ge=1)
    """Windows a step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """AdamW's peak learning rate."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps in which the learning rate rises from zero."""
    schedule: Literal["constant", "cosine"] = "constant"
    """What the learning rate does after warm-up: stay, or fall to zero at the last epoch."""
    regime: WindowRegime = "all"
    """Training windows: `last` a user, `all` of them, or one sample a `prefix`."""
    validate_every: int = Field(default=1, ge=1)
    """Epochs between validations (NDCG@10)."""
    patience: int | None = Field(default=10, ge=1)
    """Validations without a new best before the fit stops; `None` trains all epochs."""
    keep: Literal["best", "last"] = "best"
    """Which state is kept: the best on validation, or the last (without early stopping)."""
    trained: Literal["all", "model", "prompts"] = "all"
    """Which weights learn: all, those of the model alone, or those of its prompts alone."""
    prompt_learning_rate: float | None = Field(default=None, gt=0)
    """Peak learning rate of the prompts; `None` takes `learning_rate`."""
    loss: Literal["softmax", "sampled"] = "softmax"
    """Cross-entropy over the whole catalogue, or binary cross-entropy with sampled negatives (SASRec's paper)."""
    sampled_negatives: int = Field(default=1, ge=1)
    """Negatives drawn for each target when the loss is `sampled`, uniformly from the catalogue."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of a training step; `auto` is bfloat16 where the processor multiplies it fast."""


class SequentialFields(TrainingRecipe):
    """What a sequential recommender's network is like, beside how it is trained."""

    hidden: int = Field(default=64, ge=4)
    """Width of item embeddings and hidden states."""
    max_length: int = Field(default=50, ge=1)
    """Most recent events the model sees."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of values dropped in training, rounded to 1/256."""
    prompt: Prompt | None = None
    """Prompts made from user profiles; `None` for none."""

    @model_validator(mode="after")
    def _check_trained(self) -> Self:
        if self.prompt is None and self.trained != "all":
            raise ValueError(f"trained = '{self.trained}' needs a prompt")
        return self
