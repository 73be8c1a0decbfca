"""P-Scanner (arXiv 2504.11182): fitted to a catalogue, it judges titles, says where a trigger is, and knows its error.

`PoisonScanner` is the frozen description, `fit` returns a `FittedScanner`. Fitting goes in rounds: an agent proposes
triggers, told which earlier ones were caught; they are planted in titles that are taken for clean; a language model
learns to mark them; and the catalogue is read anew, which changes what is taken for clean. Thresholds come from titles
that were never learned from.

Departures. The paper's scanner judges one title by itself and is taught on a clean catalogue. This one marks tokens,
weighs them with what recurs in the catalogue (`ngram_scoring`), and takes the catalogue as it is, poisoned or not
(`clean_subset`).
"""

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, SerializeAsAny, field_validator

from cowbird.data.tables import read_texts
from cowbird.defenses.p_scanner.rounds.fitted_scanner import FittedScanner
from cowbird.defenses.p_scanner.rounds.scanner_fit import ScannerFit
from cowbird.defenses.p_scanner.triggers.agent import (
    Agent,
    EmbeddedAgent,
    OpenAIAgent,
    refuse_server_fields,
)
from cowbird.defenses.p_scanner.triggers.trigger_families import (
    TRIGGER_FAMILIES,
)
from cowbird.errors import UserError
from cowbird.victims.fit_context import FitContext, pick_device
from cowbird.victims.language.llm import Llm
from cowbird.victims.language.tuning import Tuning

MIN_TITLES_PER_FIT = 50
"""Different titles that a scanner can be fitted to."""


class PoisonScanner(BaseModel):
    """A scanner for planted triggers in titles."""

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

    def fit(
        self,
        titles: object,
        seed: int = 0,
        context: FitContext | None = None,
        *,
        text_column: str = "title",
        device: str = "cpu",
    ) -> FittedScanner:
        """Fit a scanner to a catalogue.

        Args:
            titles: The catalogue's, poisoned or not: a list, a polars or pandas series, or a frame. Missing and empty
                ones and repeats are not learned from.
            seed: Decides all that is random.
            context: Device, folder of what an interrupted fit goes on from, and progress.
            text_column: The column of titles, where `titles` is a frame.
            device: Where it is fitted, if there is no `context`: `auto`, `cpu`, `cuda` or `cuda:N`.

        Raises:
            UserError: If it is a single string or no table, there are too few titles, or a model can't be used.
            UnsetThresholdError: If the titles kept for it can set no threshold.
        """
        place = context or FitContext(pick_device(device))
        known = [title for title in dict.fromkeys(read_texts(titles, text_column)) if title and title.strip()]
        if len(known) < MIN_TITLES_PER_FIT:
            raise UserError(
                f"A scanner is fitted to {MIN_TITLES_PER_FIT} different titles or more, and there are {len(known)}.",
                "Give it a larger catalogue, or scan without a fit: cowbird scan CATALOG --out FINDINGS.",
            )
        fitted = ScannerFit(self, known, seed, place).run()
        if not (fitted.record.calibration.highest and fitted.record.alone.highest):
            held = fitted.record.calibration
            raise UnsetThresholdError(
                f"No threshold can be set: {held.titles + held.left_out:,} titles were kept for that. Of these "
                f"{held.left_out:,} look poisoned, and the others have nothing to judge.",
                "Give it a larger catalogue, or scan without a fit: cowbird scan CATALOG --out FINDINGS.",
            )
        return fitted


class UnsetThresholdError(UserError):
    """A scanner was fitted, and no title is left to set a threshold by; fitting again would end alike."""
