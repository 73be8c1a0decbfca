"""How triggers of a language model are looked for."""

import string

import torch
from pydantic import BaseModel, ConfigDict, Field

from cowbird.inspection.language.title_edits import FRAGMENT_POSITIONS, FragmentPosition

CPU_WORDS = 4000
"""Words that are tried on a CPU, if the settings don't say."""
CPU_SENTENCES, GPU_SENTENCES = 256, 4096
"""Sentences that are tried, if the settings don't say."""
FRAGMENT_FAMILIES = ("word", "string", "token", "sentence", "phrase", "character", "style", "pair")
"""Kinds of fragments, in the order in which they are looked for."""


class LanguageNullSettings(BaseModel):
    """How null tunings are made: honest adapters of the same base, tuned on the platform's own questions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    count: int = Field(default=5, ge=3, le=100)
    """How many."""
    questions: int = Field(default=2000, ge=8)
    """Questions each learns from at most."""
    epochs: int = Field(default=1, ge=1, le=100)
    """Passes over them."""
    batch_size: int = Field(default=32, ge=1)
    """Questions a step."""
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """AdamW's peak learning rate."""


class LanguageSettings(BaseModel):
    """What is tried, on how many questions, and when a fragment is a suspect."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    words: int | None = Field(default=None, ge=0)
    """Words tried at most; `None` tries all on a GPU, and `CPU_WORDS` on a CPU."""
    characters: str = Field(default="".join(sorted(set(string.printable) - set(string.whitespace) - {'"'})))
    """Characters of short strings: all strings of two are tried, and those of three that go on from the best."""
    beam: int = Field(default=24, ge=0)
    """Strings of two characters that are made longer."""
    token_starts: int = Field(default=4, ge=0)
    """Random beginnings of the search that follows gradients."""
    token_steps: int = Field(default=8, ge=1)
    """Steps of each."""
    tokens: int = Field(default=3, ge=1, le=16)
    """Tokens of a fragment that gradients look for."""
    token_candidates: int = Field(default=64, ge=1)
    """Replacements that are tried in a step."""
    sentences: int | None = Field(default=None, ge=0, le=100_000)
    """Sentences that the base model writes; `None` tries `GPU_SENTENCES` on a GPU, and `CPU_SENTENCES` on a CPU."""
    phrase_words: int = Field(default=4, ge=1, le=12)
    """Words of a phrase that the best words grow into; the best sentences grow by as many, less one."""
    continued: int = Field(default=24, ge=0)
    """Words that the model finds likely behind a phrase, and that it grows by as well."""
    edits: bool = True
    """Whether unseen characters, look-alikes and styles are tried (`title_edits`)."""
    pair_parts: int = Field(default=32, ge=0)
    """Words and strings that pairs are made of: those that raise the score most, and those that lower it most."""
    pair_beam: int = Field(default=4, ge=0)
    """Pairs in which each part is exchanged for others."""
    pair_exchanges: int = Field(default=96, ge=0)
    """Others that a part is exchanged for."""
    screening: int = Field(default=2, ge=1, le=64)
    """Questions in which every fragment is tried."""
    screened: tuple[FragmentPosition, ...] | None = None
    """Places in the title where every fragment is tried. `None` tries the end, and the start as well if the model picks
    a candidate: it writes an answer from its beginning."""
    rescreening: int = Field(default=12, ge=1)
    """Questions in which the best of each family are tried, at all places."""
    kept: int = Field(default=48, ge=1)
    """How many of each family those are."""
    confirmed: int = Field(default=4, ge=1)
    """How many of each family are confirmed on questions that were held out."""
    held_out: int = Field(default=200, ge=8)
    """Questions that are held out."""
    level: float = Field(default=0.01, gt=0, lt=0.5)
    """Share of honest models that may be accused."""
    nulls: LanguageNullSettings = LanguageNullSettings()
    """How null tunings are made."""
    seed: int = Field(default=0, ge=0)
    """Decides which questions are asked, what is drawn, and the null tunings."""

    def count_words(self, device: torch.device) -> int | None:
        """Return how many words are tried on a device; `None` for all."""
        return CPU_WORDS if self.words is None and device.type == "cpu" else self.words

    def count_sentences(self, device: torch.device) -> int:
        """Return how many sentences are tried on a device."""
        if self.sentences is None:
            return CPU_SENTENCES if device.type == "cpu" else GPU_SENTENCES
        return self.sentences

    @property
    def places(self) -> tuple[FragmentPosition, ...]:
        """Places in the title where every fragment is tried."""
        return self.screened or ("end",)

    def choose_places(self, picks: bool) -> "LanguageSettings":
        """Return settings that name the places, for a model that picks candidates or answers yes or no."""
        if self.screened is not None or not picks:
            return self
        return self.model_copy(update={"screened": ("start", "end")})

    @property
    def elsewhere(self) -> tuple[FragmentPosition, ...]:
        """Places where the best are tried, and not every fragment."""
        return tuple(place for place in FRAGMENT_POSITIONS if place not in self.places)
