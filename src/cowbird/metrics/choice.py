"""How often a recommender that chooses among candidates picks a certain one: HitRatio@1, ValidRatio, ASR.

A question has some candidates, numbered by column; an answer is the column picked, or -1 if it is no candidate. Several
questions may go to one user, so intervals come from resampling users, each with all her questions.
"""

import numpy as np

from cowbird.errors import UserError
from cowbird.metrics._arrays import Array, Counts, Flags, Floats, to_flags, to_numpy
from cowbird.metrics.intervals import (
    BOOTSTRAP_RESAMPLES,
    CONFIDENCE_LEVEL,
    Interval,
    bootstrap_sums,
    clopper_pearson,
    percentiles,
)


def pick_rate(
    picked: Array,
    column: Array,
    user: Array,
    rng: np.random.Generator,
    among: Array | None = None,
    resamples: int = BOOTSTRAP_RESAMPLES,
    level: float = CONFIDENCE_LEVEL,
) -> Interval:
    """Share of the questions in which one candidate is picked.

    With `column` the right candidate this is HitRatio@1 (Liao et al., SIGIR 2024), and with `among` the valid answers
    it is what their code reports; with `column` the candidate that carries a trigger it is the attack's success rate.

    Args:
        picked: Column picked in each question, -1 for none, shape `[questions]`.
        column: The column to count, shape `[questions]`, 0 or more.
        user: Number of the user asked, shape `[questions]`.
        rng: Generator to draw from.
        among: Which questions count, shape `[questions]`; all by default.
        resamples: Bootstrap resamples.
        level: Coverage of the interval.

    Returns:
        The share, with a percentile bootstrap interval over users. Where all users are alike, with a share of zero or
        one, the bootstrap says nothing, and the exact interval of that many users out of all stands in. All `None`
        without questions, and no ends with a single user. Its `n` is the number of questions.

    Raises:
        UserError: If the arrays do not align or are not whole numbers, or an option is out of range.
    """
    found, right, asked = _align_columns(picked, column, user)
    kept = _to_mask(among, len(found))
    return _measure_rate((found == right)[kept], asked[kept], rng, resamples, level)


def valid_ratio(
    picked: Array,
    user: Array,
    rng: np.random.Generator,
    resamples: int = BOOTSTRAP_RESAMPLES,
    level: float = CONFIDENCE_LEVEL,
) -> Interval:
    """Share of the answers that are a candidate (ValidRatio; Liao et al., SIGIR 2024).

    Args:
        picked: Column picked in each question, -1 for none, shape `[questions]`.
        user: Number of the user asked, shape `[questions]`.
        rng: Generator to draw from.
        resamples: Bootstrap resamples.
        level: Coverage of the interval.

    Returns:
        The share and its interval, as in `pick_rate`.

    Raises:
        UserError: If the arrays do not align or are not whole numbers, or an option is out of range.
    """
    found, asked = _align_columns(picked, user)
    return _measure_rate(found >= 0, asked, rng, resamples, level)


def pick_difference(
    picked: Array,
    others: Array,
    column: Array,
    user: Array,
    rng: np.random.Generator,
    resamples: int = BOOTSTRAP_RESAMPLES,
    level: float = CONFIDENCE_LEVEL,
) -> Interval:
    """Share of the questions in which one candidate is picked, less that of other answers to the same questions.

    Args:
        picked: Column picked in each question, -1 for none, shape `[questions]`.
        others: The column picked by the model to compare with, shape `[questions]`.
        column: The column to count, shape `[questions]`, 0 or more.
        user: Number of the user asked, shape `[questions]`.
        rng: Generator to draw from.
        resamples: Bootstrap resamples.
        level: Coverage of the interval.

    Returns:
        The difference, paired, with a percentile bootstrap interval over users; no ends where all users are alike, for
        nothing then shows how the difference varies. All `None` without questions. Its `n` is the number of questions.

    Raises:
        UserError: If the arrays do not align or are not whole numbers, or an option is out of range.
    """
    found, compared, right, asked = _align_columns(picked, others, column, user)
    gained = (found == right).astype(np.float64) - (compared == right)
    if not len(gained):
        return Interval(None, None, None, 0)
    sums, counts = _sum_by_user(gained, asked)
    shares = sums / counts
    ends = _bootstrap_ends(sums, counts, rng, resamples, level) if (shares != shares[0]).any() else (None, None)
    return Interval(float(gained.mean()), *ends, len(gained))


def _measure_rate(hits: Flags, user: Counts, rng: np.random.Generator, resamples: int, level: float) -> Interval:
    if not len(hits):
        return Interval(None, None, None, 0)
    value, n = float(hits.mean()), len(hits)
    sums, counts = _sum_by_user(hits.astype(np.float64), user)
    users = len(counts)
    if users < 2:
        return Interval(value, None, None, n)
    if value in (0.0, 1.0):
        exact = clopper_pearson(users if value else 0, users, level)
        return Interval(value, exact.low, exact.high, n)
    shares = sums / counts
    if (shares == shares[0]).all():
        return Interval(value, None, None, n)
    return Interval(value, *_bootstrap_ends(sums, counts, rng, resamples, level), n)


def _sum_by_user(values: Floats, user: Counts) -> tuple[Floats, Floats]:
    """Return the sum of each user's values and how many there are, shape `[users]` each."""
    _, place, counts = np.unique(user, return_inverse=True, return_counts=True)
    return np.bincount(place, values, len(counts)).astype(np.float64), counts.astype(np.float64)


def _bootstrap_ends(
    sums: Floats, counts: Floats, rng: np.random.Generator, resamples: int, level: float
) -> tuple[float, float]:
    draws = bootstrap_sums(np.stack([sums, counts], axis=1), rng, resamples)
    return percentiles(draws[:, 0] / draws[:, 1], level)


def _align_columns(*columns: Array) -> list[Counts]:
    """Return lists of whole numbers, one a question."""
    found = [to_numpy(column) for column in columns]
    if {column.shape for column in found} != {(len(found[0]),)}:
        shapes = ", ".join(str(column.shape) for column in found)
        raise UserError(f"Answers, columns and users must align, and have the shapes {shapes}.", "Give one a question.")
    for column in found:
        if column.size and column.dtype.kind not in "iu":
            raise UserError(f"Columns and users must be whole numbers, and are {column.dtype}.", "Pass indices.")
    return [column.astype(np.int64) for column in found]


def _to_mask(among: Array | None, size: int) -> Flags:
    return np.ones(size, dtype=bool) if among is None else to_flags(among, "among", (size,))
