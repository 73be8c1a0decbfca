"""Thresholds from scores of titles that were never learned from.

If those titles and a new clean one came from the same source in random order, and no title were left out, the new
one's score would be above the k-th highest of n with a probability of at most k / (n + 1) (split conformal prediction,
Vovk et al. 2005, chapter 2). Neither holds in use: scores depend on what else is scanned, and suspicious titles are
left out. Of fresh clean titles, 3.7 to 13.7 % were flagged where 1 % was asked for.

A catalogue may be poisoned, and poisoned titles among those that calibrate push thresholds up, to fewer false alarms
and more misses: with one title in a hundred poisoned, the threshold for one in a hundred would stand just above them.
So titles with a score above `SURE` are taken for poisoned and do not calibrate, nor do those above `SURE_TOGETHER` that
share with others what they are suspicious for, as titles with a trigger do, up to `POISONED` of all. Clean titles like
them are false alarms beyond that share.
"""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, field_validator

SURE = 4.0
"""Log-odds from which a title is taken for poisoned."""
SURE_TOGETHER, MIN_TITLES_TOGETHER = 1.0, 4
"""Log-odds from which it is taken for poisoned if what it is suspicious for stands in so many titles."""
POISONED = 0.05
"""Share of the titles that is taken for poisoned at most, but for those above `SURE`."""
MIN_SCORES_KEPT, KEPT_SHARE = 2000, 0.1
"""Scores that are kept: the highest ones, this many or this share."""
LOWEST_SCORE = -1e6
"""No score of a title is below that."""


class Calibration(BaseModel):
    """Scores of clean titles."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    titles: int = Field(ge=0, le=10**12)
    """How many calibrate."""
    left_out: int = Field(default=0, ge=0, le=10**12)
    """How many were taken for poisoned."""
    highest: tuple[float, ...]
    """The highest of their scores, highest first."""

    @field_validator("highest")
    @classmethod
    def _are_scores(cls, highest: tuple[float, ...]) -> tuple[float, ...]:
        """Refuse what no calibration holds; a threshold above `SURE` would let through what is surely poisoned."""
        if any(not LOWEST_SCORE <= score <= SURE for score in highest):
            raise ValueError(f"scores of titles that calibrate lie between {LOWEST_SCORE:g} and {SURE:g}")
        if any(after > before for before, after in pairwise(highest)):
            raise ValueError("the highest score comes first")
        return highest

    @staticmethod
    def of(scores: ArrayLike, shared: ArrayLike = 0) -> "Calibration":
        """Calibrate by scores.

        Args:
            scores: Of titles that were not learned from, -inf among them, shape `[titles]`.
            shared: How many titles share what each is suspicious for, shape `[titles]` or a number.
        """
        values = np.asarray(scores, dtype=np.float64)
        poisoned = values > SURE
        alike = np.flatnonzero(~poisoned & (values > SURE_TOGETHER) & (np.asarray(shared) >= MIN_TITLES_TOGETHER))
        most = max(0, math.ceil(POISONED * len(values)) - int(poisoned.sum()))
        poisoned[alike[np.argsort(-values[alike], kind="stable")[:most]]] = True
        clean = np.sort(values[~poisoned])[::-1]
        kept: list[float] = clean[np.isfinite(clean)][: max(MIN_SCORES_KEPT, int(KEPT_SHARE * len(values)))].tolist()
        return Calibration(titles=len(clean), left_out=int(poisoned.sum()), highest=tuple(kept))

    def threshold(self, fpr: float) -> float:
        """Return the score above which at most the share `fpr` of the titles that calibrate are.

        Where so few titles calibrate that none could be above it, the highest score is returned; `promised` then says
        what it stands for.
        """
        allowed = max(1, math.floor(fpr * (self.titles + 1) + 1e-9))
        if not self.highest:
            return math.inf
        return self.highest[min(allowed, len(self.highest)) - 1]

    def promise_rate(self, fpr: float) -> float:
        """Return the share of titles that the threshold stands for: `fpr`, or 1 / (titles + 1) if that is larger."""
        return max(fpr, 1 / (self.titles + 1))
