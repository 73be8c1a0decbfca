"""How sure a number is: bootstrap, binomial and t intervals, and those of differences, without SciPy.

Binomial and t intervals match SciPy's to nine digits (`tests/metrics/test_metrics_intervals.py`).
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from cowbird.errors import UserError
from cowbird.metrics._arrays import Array, Counts, Floats, to_floats
from cowbird.metrics._special import beta_quantile, t_quantile

BOOTSTRAP_RESAMPLES = 2000
"""Bootstrap resamples unless another number is asked for."""
CONFIDENCE_LEVEL = 0.95
"""Coverage unless another is asked for."""
_CHUNK = 1 << 22
"""Most weights held at a time by the bootstrap (32 MiB each for draws and counts)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and the two-sided interval around it; `None` where it was not measured."""

    value: float | None
    """The point estimate."""
    low: float | None
    """Lower end."""
    high: float | None
    """Upper end."""
    n: int
    """How many observations it rests on."""


@dataclass(frozen=True, slots=True)
class Spread(Interval):
    """A mean over seeds with its t interval and standard deviation."""

    sd: float | None
    """Sample standard deviation (n - 1 in the denominator), `None` below two values."""


def check_level(level: float) -> float:
    """Return a coverage.

    Raises:
        UserError: If it does not lie strictly between 0 and 1.
    """
    if not 0 < level < 1:
        raise UserError(f"A level must lie between 0 and 1, and is {level}.", "95 % is 0.95.")
    return level


def bootstrap_sums(table: Floats, rng: np.random.Generator, resamples: int = BOOTSTRAP_RESAMPLES) -> Floats:
    """Draw rows with replacement and add them up, many times (Efron, Annals of Statistics 1979).

    How often each row is drawn is multinomial, so a resample is a row of weights and all of them are one matrix
    product. Equal rows are merged first, which changes no distribution and makes mostly-zero tables cheap.

    Args:
        table: What to add up, shape `[rows, columns]`; the columns are resampled together.
        rng: Generator to draw from.
        resamples: Number of resamples.

    Returns:
        Sums of each resample, shape `[resamples, columns]`. Memory beyond that is bounded whatever the size.

    Raises:
        UserError: If `resamples` is below 1.
    """
    if resamples < 1:
        raise UserError(f"At least one resample is needed, and {resamples} were asked for.", "2000 is usual.")
    n = len(table)
    values, counts = np.unique(table, axis=0, return_counts=True)
    merged = len(values) <= n // 8
    rows = values if merged else table
    sums = np.empty((resamples, table.shape[1]))
    step = max(1, _CHUNK // max(1, len(rows)))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        weights = rng.multinomial(n, counts / n, size=size) if merged else _count_draws(n, size, rng)
        sums[start : start + size] = weights.astype(np.float64) @ rows
    return sums


def _count_draws(n: int, size: int, rng: np.random.Generator) -> Counts:
    """Count how often each of `n` rows is drawn in each of `size` resamples (ten times faster than `multinomial`)."""
    drawn = rng.integers(0, n, size=(size, n))
    drawn += np.arange(size)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.int64, copy=False)


def percentiles(draws: Floats, level: float = CONFIDENCE_LEVEL) -> tuple[float, float]:
    """Return the ends of the central `level` of some draws, shape `[resamples]`."""
    tail = (1 - check_level(level)) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_mean(
    values: Array, rng: np.random.Generator, resamples: int = BOOTSTRAP_RESAMPLES, level: float = CONFIDENCE_LEVEL
) -> Interval:
    """Return a mean and its percentile bootstrap interval (Efron and Tibshirani, 1993, chapter 13).

    The interval of values that are all alike has no width, for nothing in them shows how they vary; for rates of zero
    or one use `clopper_pearson`.

    Args:
        values: One value a user, shape `[n]`, in any unit.
        rng: Generator to draw from.
        resamples: Number of resamples.
        level: Coverage.

    Returns:
        The interval in the unit of the values; all `None` without values, and no ends for a single one.

    Raises:
        UserError: If a value is missing, NaN or infinite, or an option is out of range.
    """
    check_level(level)
    sample = to_floats(values, "values")
    n = len(sample)
    if n < 2:
        return Interval(float(sample[0]) if n else None, None, None, n)
    low, high = percentiles(bootstrap_sums(sample[:, None], rng, resamples)[:, 0] / n, level)
    return Interval(float(sample.mean()), low, high, n)


def _check_counts(successes: int, n: int) -> None:
    if not 0 <= successes <= n:
        raise UserError(f"There cannot be {successes} successes in {n} trials.", "Pass successes, then trials.")


def wilson(successes: int, n: int, level: float = CONFIDENCE_LEVEL) -> Interval:
    """Return a rate and its score interval (Wilson, JASA 1927), without continuity correction.

    Args:
        successes: Number of successes.
        n: Number of independent trials.
        level: Coverage, met on average; `clopper_pearson` never falls below it.

    Returns:
        The interval within 0 … 1; all `None` if `n` is 0.

    Raises:
        UserError: If the counts are impossible or `level` is out of range.
    """
    z = NormalDist().inv_cdf((1 + check_level(level)) / 2)
    _check_counts(successes, n)
    if n == 0:
        return Interval(None, None, None, 0)
    rate = successes / n
    center = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, center - half)
    high = 1.0 if successes == n else min(1.0, center + half)
    return Interval(rate, low, high, n)


def clopper_pearson(successes: int, n: int, level: float = CONFIDENCE_LEVEL) -> Interval:
    """Return a rate and its exact interval (Clopper and Pearson, Biometrika 1934), from beta quantiles.

    Args:
        successes: Number of successes.
        n: Number of independent trials.
        level: Coverage, never fallen below.

    Returns:
        The interval within 0 … 1; all `None` if `n` is 0.

    Raises:
        UserError: If the counts are impossible or `level` is out of range.
    """
    tail = (1 - check_level(level)) / 2
    _check_counts(successes, n)
    if n == 0:
        return Interval(None, None, None, 0)
    low = 0.0 if successes == 0 else beta_quantile(tail, successes, n - successes + 1)
    high = 1.0 if successes == n else beta_quantile(1 - tail, successes + 1, n - successes)
    return Interval(successes / n, low, high, n)


def subtract_rates(one: Interval, other: Interval) -> Interval:
    """Return one rate less another (Newcombe, Statistics in Medicine 1998, method 10).

    The interval is made of the rates' own, as if the two were independent. Rates of the same questions go up and down
    together, so for those it is rather too wide.

    Args:
        one: A rate and its interval, such as from `wilson` or `clopper_pearson`.
        other: The rate to take away, of the same coverage.

    Returns:
        The difference within -1 … 1. Its `n` is the smaller of the two; all else is `None` if a rate was not measured.
    """
    ends = one.value, one.low, one.high, other.value, other.low, other.high
    n = min(one.n, other.n)
    if None in ends:
        return Interval(None, None, None, n)
    p, low, high, q, bottom, top = (end or 0.0 for end in ends)
    gap = p - q
    return Interval(gap, gap - math.hypot(p - low, top - q), gap + math.hypot(high - p, q - bottom), n)


def zero_limit(n: int, level: float = CONFIDENCE_LEVEL) -> float:
    """Return the largest rate that still yields no success in `n` trials with probability `1 - level`.

    This is the one-sided Clopper-Pearson limit, `1 - (1 - level) ** (1 / n)`, about 3 / n at 95 % (the rule of three:
    Hanley and Lippman-Hand, JAMA 1983).

    Raises:
        UserError: If `n` is below 1 or `level` is out of range.
    """
    if n < 1:
        raise UserError(f"A limit needs at least one trial, and there are {n}.")
    return -math.expm1(math.log1p(-check_level(level)) / n)


def measure_spread(values: Array, level: float = CONFIDENCE_LEVEL) -> Spread:
    """Return mean, standard deviation and t interval over seeds (Student, Biometrika 1908).

    Args:
        values: One value a seed, shape `[n]`, in any unit.
        level: Coverage.

    Returns:
        The spread in the unit of the values; all `None` without values; no ends and no deviation for a single one.

    Raises:
        UserError: If a value is missing, NaN or infinite, or `level` is out of range.
    """
    check_level(level)
    sample = to_floats(values, "values")
    n = len(sample)
    if n < 2:
        return Spread(float(sample[0]) if n else None, None, None, n, None)
    mean, deviation = float(sample.mean()), float(sample.std(ddof=1))
    half = t_quantile((1 + level) / 2, n - 1) * deviation / math.sqrt(n)
    return Spread(mean, mean - half, mean + half, n, deviation)
