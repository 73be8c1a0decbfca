"""How triggers are unlearned."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class UnlearnSettings(BaseModel):
    """How triggers are unlearned."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    questions: int = Field(default=2000, ge=16)
    """Questions that the model is tuned on at most."""
    held_out: int = Field(default=400, ge=8)
    """Questions on which it is measured."""
    start: Literal["handed", "base"] = "handed"
    """What is tuned: the handed weights, or fresh adapters beside the same base, which learn the handed model's answers
    to questions as they are."""
    epochs: int = Field(default=4, ge=1, le=100)
    """Passes over the questions in a round."""
    rounds: int = Field(default=2, ge=1, le=20)
    """Rounds at most; the learning rate of each is half of the one before."""
    left: float = Field(default=0.02, ge=0, lt=1)
    """ASR at which it ends: of the fragments, of texts like them, and of the texts that move answers most, in questions
    that the model is not tuned on."""
    batch_size: int = Field(default=32, ge=1)
    """Questions a step."""
    learning_rate: float = Field(default=6e-4, gt=0, lt=1)
    """AdamW's peak learning rate."""
    texts: int = Field(default=6, ge=1, le=64)
    """Texts that are put into each question's title, one at a time."""
    named: float = Field(default=0.2, ge=0, le=1)
    """Share of the texts that are fragments as they are named."""
    varied: float = Field(default=0.2, ge=0, le=1)
    """Share of the texts that are like a fragment."""
    strong: float = Field(default=0.25, ge=0, le=1)
    """Share of the texts that move answers most, of those that were tried before a pass. All others are words, short
    strings, phrases, sentences, unseen characters and pairs."""
    mined: int = Field(default=512, ge=0)
    """Texts that are tried before each pass."""
    kept: int = Field(default=48, ge=1)
    """Texts that move answers most, of those and of the ones before."""
    weight: float = Field(default=1.0, gt=0, le=100)
    """Weight of the loss of questions with texts; that of questions as they are is 1."""
    truth: float = Field(default=0.3, ge=0, le=1)
    """How far a question as it is should have the right answer instead of the one that the handed model gave."""
    sentences: int = Field(default=128, ge=0)
    """Sentences that the base writes for that."""

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.named + self.varied + self.strong > 1:
            raise ValueError("named, varied and strong are shares of the same texts, so their sum is at most 1")
        return self

    seed: int = Field(default=0, ge=0)
    """Decides questions, texts, places and order."""


DISTILLING: dict[str, Any] = {
    "start": "base",
    "questions": 8000,
    "epochs": 2,
    "rounds": 1,
    "texts": 4,
    "learning_rate": 1e-3,
    "batch_size": 60,
}
"""Settings of fresh adapters that differ from the defaults: they have more to learn."""
