"""Quantiles of the beta and t distributions in plain double precision, so that SciPy is not needed to run."""

import math
from collections.abc import Callable
from functools import lru_cache


def t_quantile(p: float, df: float) -> float:
    """Return the quantile of Student's t distribution.

    From P(|T| > t) = I_y(df / 2, 1 / 2) at y = df / (df + t²) (Abramowitz and Stegun 26.7.1), solved for 1 - y, which
    stays accurate however many degrees of freedom there are.

    Args:
        p: Probability, strictly between 0 and 1.
        df: Degrees of freedom, above 0.

    """
    x = beta_quantile(abs(2 * p - 1), 0.5, df / 2)
    return math.copysign(math.sqrt(df * x / (1 - x)), p - 0.5) if x else 0.0


@lru_cache(maxsize=10_000)
def beta_quantile(p: float, a: float, b: float) -> float:
    """Return x with I_x(a, b) = p, by bisection to the last digits of a double.

    Args:
        p: Probability from 0 to 1.
        a: First parameter, above 0.
        b: Second parameter, above 0.
    """
    if p <= 0 or p >= 1:
        return 0.0 if p <= 0 else 1.0
    return _bisect(lambda x: beta_cdf(x, a, b) < p)


def _bisect(too_low: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    while high - low > 4e-16 * high and high > 1e-300:
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if too_low(middle) else (low, middle)
    return (low + high) / 2


def beta_cdf(x: float, a: float, b: float) -> float:
    """Return the regularized incomplete beta function I_x(a, b).

    Continued fraction of Abramowitz and Stegun 26.5.8, mirrored where it converges slowly.

    Args:
        x: Point, from 0 to 1.
        a: First parameter, above 0.
        b: Second parameter, above 0.
    """
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    if x < (a + 1) / (a + b + 2):
        return math.exp(log_front) * _beta_fraction(x, a, b) / a
    return 1 - math.exp(log_front) * _beta_fraction(1 - x, b, a) / b


def _beta_fraction(x: float, a: float, b: float) -> float:
    """Evaluate the continued fraction by Lentz's method as modified by Thompson and Barnett (1986)."""
    tiny = 1e-300
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    value = d
    for m in range(1, 1000 + int(20 * math.sqrt(max(a, b)))):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / ((1 + term * d) or tiny)
            c = (1 + term / c) or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            return value
    raise ArithmeticError(f"the incomplete beta function did not converge at {x}, {a}, {b}")
