"""What P-Scanner's fit is told; every field has its place in a spec of an experiment."""

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, SerializeAsAny, field_validator

from cowbird.defenses.p_scanner.triggers.agent import (
    Agent,
    EmbeddedAgent,
    OpenAIAgent,
    refuse_server_fields,
)
from cowbird.defenses.p_scanner.triggers.trigger_families import (
    TRIGGER_FAMILIES,
)
from cowbird.victims.language.llm import Llm
from cowbird.victims.language.tuning import Tuning


class ScannerSpec(BaseModel):
    """How a scanner for planted triggers in titles is fitted."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    llm: Llm = Llm(layers=4, rank=32, alpha=64)
    """The language model that reads titles, and what of it learns. More layers read no better and take longer."""
    tuning: Tuning = Tuning(epochs=4, batch_size=128, learning_rate=1e-3, compiled=False)
    """How it is tuned in the first round."""
    refresh: int = Field(default=2, ge=1)
    """Epochs of each later round, which goes on from what earlier ones learned; else they are tuned as in the first."""
    agent: EmbeddedAgent | OpenAIAgent | SerializeAsAny[InstanceOf[Agent]] = EmbeddedAgent()
    """What proposes triggers."""
    rounds: int = Field(default=3, ge=1)
    """Rounds at most."""
    proposals: int = Field(default=512, ge=1)
    """Triggers wanted of the agent in each round."""
    stop_at: float = Field(default=0.99, gt=0, le=1)
    """Share of titles with new triggers that is caught at once, from which there are no more rounds."""
    without: tuple[str, ...] = ()
    """Families of triggers that the agent must not propose, to measure the scanner on triggers it was not taught."""
    fpr: float = Field(default=0.01, gt=0, lt=1)
    """Share of clean titles that may be flagged."""
    review_fpr: float = Field(default=0.05, gt=0, lt=1)
    """Share of clean titles that may be flagged or put up for review."""
    held: float = Field(default=0.2, gt=0, lt=1)
    """Share of the titles that are never learned from, and calibrate."""
    doubted: float = Field(default=0.05, ge=0, lt=0.5)
    """Share of the titles, the most suspicious ones, that are not learned from after the first round."""
    plantings: int = Field(default=48, ge=1)
    """Triggers that the weighing of evidence is learned from."""
    context_gain: bool = True
    """Whether the whole language model, as published, says which recurring phrases titles need (`context_gain`)."""

    @field_validator("agent", mode="before")
    @classmethod
    def _names_no_server(cls, agent: object) -> object:
        return refuse_server_fields(agent)

    @field_validator("without")
    @classmethod
    def _check_families(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(names) - TRIGGER_FAMILIES.keys())
        if unknown:
            raise ValueError(f"there are no families {', '.join(unknown)}; use some of {', '.join(TRIGGER_FAMILIES)}")
        return names
