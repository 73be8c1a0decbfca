"""Intervals against SciPy, against theory, and at their edges."""

import math

import numpy as np
import pytest
import torch

from cowbird.errors import UserError
from cowbird.metrics import intervals
from cowbird.metrics._special import beta_cdf, beta_quantile, t_quantile
from cowbird.metrics.intervals import (
    Interval,
    bootstrap_mean,
    bootstrap_sums,
    clopper_pearson,
    measure_spread,
    subtract_rates,
    wilson,
    zero_limit,
)

COUNTS = [(0, 1), (1, 1), (0, 20), (20, 20), (1, 20), (7, 20), (19, 20), (3, 6040), (6000, 6040), (40, 2_000_000)]


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(("successes", "n"), COUNTS)
def test_binomial_intervals_match_scipy(successes, n, level):
    stats = pytest.importorskip("scipy.stats")
    tail, failures = (1 - level) / 2, n - successes
    # Not binomtest's "exact": it stops its root finding at 2e-12, too early for rates this small.
    exact = clopper_pearson(successes, n, level)
    low = float(stats.beta.ppf(tail, successes, failures + 1)) if successes else 0
    high = float(stats.beta.ppf(1 - tail, successes + 1, failures)) if failures else 1
    assert [exact.low, exact.high] == pytest.approx([low, high], rel=1e-9)
    score = wilson(successes, n, level)
    expected = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    assert [score.low, score.high] == pytest.approx([expected.low, expected.high], rel=1e-9, abs=1e-15)
    assert (exact.value, exact.n) == (score.value, score.n) == (successes / n, n)


def test_binomial_intervals_by_hand():
    # Five of ten: Wilson by its formula with z = 1.959964, Clopper-Pearson from the published table.
    assert [wilson(5, 10).low, wilson(5, 10).high] == pytest.approx([0.236593, 0.763407], abs=1e-6)
    assert [clopper_pearson(5, 10).low, clopper_pearson(5, 10).high] == pytest.approx([0.187086, 0.812914], abs=1e-6)
    assert clopper_pearson(0, 10).high == pytest.approx(1 - 0.025**0.1)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (1, 1), (2, 5), (0.5, 3000), (40, 1e6), (1e5, 1e5)])
def test_beta_functions_match_scipy(a, b):
    special = pytest.importorskip("scipy.special")
    for p in (1e-6, 0.025, 0.3, 0.5, 0.975, 0.999):
        x = float(special.betaincinv(a, b, p))
        assert beta_quantile(p, a, b) == pytest.approx(x, rel=1e-9)
        assert beta_cdf(x, a, b) == pytest.approx(p, rel=1e-8)
    assert (beta_cdf(0, a, b), beta_cdf(1, a, b), beta_quantile(0, a, b), beta_quantile(1, a, b)) == (0, 1, 0, 1)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 9, 30, 1000, 1e6])
def test_t_quantiles_match_scipy(df):
    stats = pytest.importorskip("scipy.stats")
    for p in (0.001, 0.2, 0.5, 0.6, 0.9, 0.975, 0.9995):
        assert t_quantile(p, df) == pytest.approx(float(stats.t.ppf(p, df)), rel=1e-8, abs=1e-12)


def test_zero_limit_is_the_rule_of_three():
    assert zero_limit(1) == pytest.approx(0.95)
    assert zero_limit(100) == pytest.approx(1 - 0.05**0.01)
    assert zero_limit(10**9) == pytest.approx(3e-9, rel=2e-3)
    assert (1 - zero_limit(40, 0.9)) ** 40 == pytest.approx(0.1)


def test_spread_by_hand_and_by_scipy():
    values = [0.10, 0.12, 0.11, 0.15, 0.12]
    got = measure_spread(values)
    assert (got.value, got.sd, got.n) == (pytest.approx(0.12), pytest.approx(math.sqrt(0.00035)), 5)
    half = 2.7764451052 * math.sqrt(0.00035 / 5)
    assert [got.low, got.high] == pytest.approx([0.12 - half, 0.12 + half])
    stats = pytest.importorskip("scipy.stats")
    assert [got.low, got.high] == pytest.approx(stats.t.interval(0.95, 4, np.mean(values), stats.sem(values)))


@pytest.mark.slow
def test_bootstrap_mean_is_close_to_theory():
    values = np.random.default_rng(1).exponential(size=4000)
    got = bootstrap_mean(torch.from_numpy(values), np.random.default_rng(2), resamples=4000)
    half = 1.959964 * values.std() / math.sqrt(4000)
    assert got.value == pytest.approx(values.mean())
    assert got.low == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert got.high == pytest.approx(values.mean() + half, abs=0.06 * half)
    narrow = bootstrap_mean(values, np.random.default_rng(2), level=0.5)
    assert narrow.high - narrow.low == pytest.approx(2 * 0.674490 * values.std() / math.sqrt(4000), rel=0.08)


@pytest.mark.parametrize("merged", [True, False])
def test_resampled_sums_have_the_moments_of_drawing_with_replacement(merged):
    rng = np.random.default_rng(3)
    first = rng.integers(0, 3, 300).astype(float) if merged else rng.normal(size=300)
    table = np.stack([first, 2 * first - 1], axis=1)
    sums = bootstrap_sums(table, np.random.default_rng(4), 20_000)
    assert sums[:, 1] == pytest.approx(2 * sums[:, 0] - 300)
    deviation = math.sqrt(300) * first.std()
    assert sums[:, 0].mean() == pytest.approx(first.sum(), abs=4 * deviation / math.sqrt(20_000))
    assert sums[:, 0].std() == pytest.approx(deviation, rel=0.03)


@pytest.mark.parametrize("values", [np.arange(50.0), np.arange(50.0) % 2])
def test_resamples_do_not_depend_on_how_memory_is_bounded(values, monkeypatch):
    whole = bootstrap_sums(values[:, None], np.random.default_rng(5), 101)
    monkeypatch.setattr(intervals, "_CHUNK", 70)
    np.testing.assert_allclose(bootstrap_sums(values[:, None], np.random.default_rng(5), 101), whole)


@pytest.mark.slow
def test_bootstrap_covers_as_often_as_it_says():
    rng = np.random.default_rng(6)
    found = [bootstrap_mean(rng.normal(size=80), rng, resamples=400) for _ in range(400)]
    assert 0.91 <= np.mean([one.low <= 0 <= one.high for one in found]) <= 0.98


def test_nothing_measured_is_none():
    rng = np.random.default_rng(0)
    nothing = Interval(None, None, None, 0)
    assert bootstrap_mean([], rng) == nothing
    assert wilson(0, 0) == nothing
    assert clopper_pearson(0, 0) == nothing
    assert (measure_spread([]).value, measure_spread([]).sd, measure_spread([]).n) == (None, None, 0)
    assert bootstrap_mean([3.0], rng) == Interval(3.0, None, None, 1)
    assert (measure_spread([3.0]).value, measure_spread([3.0]).low, measure_spread([3.0]).sd) == (3.0, None, None)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wilson(3, 2), "3 successes in 2"),
        (lambda: clopper_pearson(-1, 2), "-1 successes"),
        (lambda: wilson(1, 2, level=95), "between 0 and 1"),
        (lambda: zero_limit(0), "at least one"),
        (lambda: measure_spread([0.1, None]), "1 of 2 values are missing"),
        (lambda: measure_spread([[0.1]]), "one list"),
        (lambda: measure_spread(["a"]), "numbers"),
        (lambda: bootstrap_mean([0.1, math.inf], np.random.default_rng(0)), "infinite"),
        (lambda: bootstrap_mean([0.1, 0.2], np.random.default_rng(0), resamples=0), "At least one"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_a_difference_of_rates_by_hand():
    one, other = clopper_pearson(9, 10), clopper_pearson(2, 10)
    found = subtract_rates(one, other)
    assert found.value == pytest.approx(0.7)
    assert found.low == pytest.approx(0.7 - math.hypot(0.9 - one.low, other.high - 0.2))
    assert found.high == pytest.approx(0.7 + math.hypot(one.high - 0.9, 0.2 - other.low))
    assert found.n == 10
    assert -1 <= found.low < found.value < found.high <= 1


def test_a_difference_of_what_was_not_measured():
    found = subtract_rates(wilson(1, 2), wilson(0, 0))
    assert (found.value, found.low, found.high, found.n) == (None, None, None, 0)
