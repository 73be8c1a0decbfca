"""Scores of clean titles, highest first: one a title from several splits, those of a larger batch, and thresholds."""

import math
from collections.abc import Sequence

import numpy as np

from cowbird.data.types import Float32Array
from cowbird.defenses.p_scanner.baseline import rank_threshold


def set_threshold(clean: Float32Array, fpr: float) -> float:
    """Return the score that a fresh clean title passes with a probability of `fpr` at most; the highest if so few.

    Split conformal prediction (Vovk et al. 2005, chapter 2).

    Args:
        clean: Scores of clean titles, highest first.
        fpr: The rate.
    """
    if not len(clean):
        return math.inf
    return float(clean[rank_threshold(len(clean), fpr) - 1])


def thin_scores(parts: Sequence[Float32Array], titles: int) -> Float32Array:
    """Return one score a title, highest first, of scores from several splits; each is a mean of neighbors in rank."""
    together = np.sort(np.concatenate(parts))[::-1]
    return together.reshape(titles, -1).mean(axis=1).astype(np.float32)


def extrapolate_scores(quarter: Float32Array, half: Float32Array) -> Float32Array:
    """Return scores as of a batch twice as large as a half, highest first.

    What is added to each score is the mean change among those near it, for single ones are noisy. It is never less than
    nothing: a larger batch shares more, and where scores seem to fall, a brand stood in one part and not in another.

    Args:
        quarter: Scores of clean titles as of batches of a quarter, highest first.
        half: The same as of halves.
    """
    many = len(half)
    total = np.concatenate([[0.0], np.cumsum(half.astype(np.float64) - quarter)])
    rank = np.arange(many)
    first, after = (rank + 1) // 2, np.minimum(2 * rank + 5, many)
    change = np.maximum((total[after] - total[first]) / (after - first), 0)
    return np.sort((half + change).astype(np.float32))[::-1]
