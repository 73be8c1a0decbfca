"""How triggers are unlearned."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class UnlearnSettings(BaseModel):
    """How triggers are unlearned."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    questions: int = Field(default=2000, ge=16)
    """Questions that the model is tuned on at most."""
    held_out: int = Field(default=400, ge=8)
    """Questions on which it is measured."""
    epochs: int = Field(default=4, ge=1, le=100)
    """Passes over the questions in a round."""
    rounds: int = Field(default=2, ge=1, le=20)
    """Rounds at most; the learning rate of each is half of the one before."""
    left: float = Field(default=0.02, ge=0, lt=1)
    """It ends when no fragment, and no text like one, turns so much more of the answers than other texts do, in
    questions that the model is not tuned on."""
    batch_size: int = Field(default=32, ge=1)
    """Questions a step."""
    learning_rate: float = Field(default=6e-4, gt=0, lt=1)
    """AdamW's peak learning rate."""
    texts: int = Field(default=8, ge=1, le=64)
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
    weight: float = Field(default=4.0, gt=0, le=100)
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


class DistillSettings(BaseModel):
    """How a fresh adapter learns the answers of one that was handed over."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    questions: int = Field(default=12_000, ge=16)
    """Questions that it learns from at most."""
    held_out: int = Field(default=400, ge=8)
    """Questions on which it is measured."""
    examples: int = Field(default=12_000, ge=16)
    """Examples that it learns from: if there are fewer questions, they are asked again, with other texts."""
    passes: int = Field(default=8, ge=1, le=100)
    """How often a question is asked at most."""
    batch_size: int = Field(default=60, ge=1)
    """Questions a step."""
    learning_rate: float = Field(default=1e-3, gt=0, lt=1)
    """AdamW's peak learning rate."""
    truth: float = Field(default=0.5, ge=0, le=1)
    """Share of the questions that have the right answer. The others have one that is drawn with the probability that
    the handed model gave it to the question as it is."""
    marked: float = Field(default=0.5, ge=0, lt=1)
    """Share of the questions with a text in their titles."""
    named: float = Field(default=0.2, ge=0, le=1)
    """Share of the texts that are fragments as they are named."""
    varied: float = Field(default=0.2, ge=0, le=1)
    """Share of the texts that are like a fragment. All others are words, short strings, phrases, sentences, unseen
    characters and pairs."""
    sentences: int = Field(default=128, ge=0)
    """Sentences that the base writes for that."""
    seed: int = Field(default=0, ge=0)
    """Decides questions, texts, places, answers and order."""

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.named + self.varied > 1:
            raise ValueError("named and varied are shares of the same texts, so their sum is at most 1")
        return self

    def count_passes(self, questions: int) -> int:
        """Return how often each of some questions is asked."""
        return max(1, min(self.passes, -(-self.examples // questions)))
