"""Exposure and lift against hand-made numbers, loops and simulation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cowbird.errors import UserError
from cowbird.metrics.exposure import Exposure, ExposureCell, exposures, lift, mask_seen, pool_seeds, selectivity
from cowbird.metrics.intervals import zero_limit

RANKS = np.array([[1, 4], [6, 2], [3, 3]])
SEEN = np.array([[False, True], [False, False], [False, True]])


def rng():
    return np.random.default_rng(11)


def exposed(sums, pairs=10):
    sums = np.asarray(sums, dtype=float)
    return Exposure(sums, np.full(len(sums), pairs) if np.isscalar(pairs) else np.asarray(pairs))


def test_exposure_by_hand():
    table = exposures(RANKS, SEEN, [True, True, False], ks=(2, 3))
    target = table[ExposureCell("target", "hr", 2)]
    assert (target.sums.tolist(), target.pairs.tolist(), target.n) == ([1, 1], [1, 2], 3)
    assert target.value == pytest.approx(2 / 3)
    assert table[ExposureCell("other", "hr", 2)].value == 0
    assert table[ExposureCell("other", "hr", 3)].value == 1
    assert table[ExposureCell("all", "hr", 3)].value == pytest.approx(3 / 4)
    assert table[ExposureCell("target", "ndcg", 3)].value == pytest.approx((1 + 1 / math.log2(3)) / 3)
    assert table[ExposureCell("other", "ndcg", 3)].value == pytest.approx(0.5)
    assert len(table) == 3 * 2 * 2


def test_without_a_group_everyone_is_a_target():
    table = exposures(torch.from_numpy(RANKS), torch.from_numpy(SEEN), ks=(3,))
    assert table[ExposureCell("target", "hr", 3)].value == table[ExposureCell("all", "hr", 3)].value
    assert table[ExposureCell("other", "hr", 3)].value is None
    assert exposures(RANKS, np.ones_like(SEEN))[ExposureCell("all", "hr", 5)].value is None


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(0, 6), st.integers(0, 4), st.integers(1, 8))
def test_exposure_follows_the_definition(data, users, targets, k):
    ranks = data.draw(arrays(np.int32, (users, targets), elements=st.integers(1, 9)))
    seen = data.draw(arrays(np.bool_, (users, targets)))
    group = data.draw(arrays(np.bool_, users))
    table = exposures(ranks, seen, group, ks=(k,))
    for name, member in (("target", group), ("other", ~group), ("all", np.ones(users, dtype=bool))):
        gains = [
            (rank <= k, (rank <= k) / math.log2(1 + rank))
            for u in range(users)
            for rank, hidden in zip(ranks[u].tolist(), seen[u].tolist(), strict=True)
            if member[u] and not hidden
        ]
        for position, metric in enumerate(("hr", "ndcg")):
            cell = table[ExposureCell(name, metric, k)]
            assert len(cell.sums) == member.sum()
            expected = sum(gain[position] for gain in gains) / len(gains) if gains else None
            assert cell.value == (None if expected is None else pytest.approx(expected))


def test_seen_mask():
    got = mask_seen([0, 2, 2, 1], [7, 3, 7, 9], targets=[9, 7, 3, 7], users=4)
    assert got.astype(int).tolist() == [[0, 1, 0, 1], [1, 0, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]]
    assert not mask_seen([], [], [1], 2).any()
    assert mask_seen([0], [1], [], 2).shape == (2, 0)


def test_lift_is_a_ratio_of_sums():
    attacked, clean = exposed([4, 0, 2, 6], [10, 5, 10, 10]), exposed([1, 0, 0, 2], [10, 5, 10, 10])
    assert lift(attacked, clean, rng()).value == pytest.approx(12 / 3)


def test_lift_is_paired():
    # Users differ wildly, but each is shown the target exactly three times as often: a paired interval has no width.
    sums = np.random.default_rng(1).exponential(size=200)
    got = lift(exposed(3 * sums), exposed(sums), rng())
    assert [got.value, got.low, got.high] == pytest.approx([3, 3, 3])
    assert (got.n, got.lower_bound, got.zero_share) == (200, False, 0)
    apart = selectivity(exposed(3 * sums), exposed(sums), rng())
    assert apart.value == pytest.approx(3)
    assert apart.high - apart.low > 0.4


@pytest.mark.slow
def test_lift_interval_equals_a_plain_loop():
    draw = np.random.default_rng(2)
    pairs = draw.integers(0, 5, 60)
    attacked, clean = draw.binomial(pairs, 0.6), draw.binomial(pairs, 0.2)
    got = lift(exposed(attacked, pairs), exposed(clean, pairs), rng(), resamples=20_000)
    kept = np.flatnonzero(pairs)
    loop = []
    for _ in range(20_000):
        users = draw.choice(kept, len(kept))
        loop.append(attacked[users].sum() / clean[users].sum())
    assert got.n == len(kept)
    assert [got.low, got.high] == pytest.approx(np.quantile(loop, [0.025, 0.975]), rel=0.03)


def test_lift_interval_covers_as_often_as_it_says():
    draw = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        chance = draw.beta(2, 8, 150)
        attacked, clean = draw.binomial(10, np.minimum(1, 2 * chance)), draw.binomial(10, chance)
        got = lift(exposed(attacked), exposed(clean), draw, resamples=300)
        hits += got.low <= TRUE_LIFT <= got.high
    assert 0.90 <= hits / 300 <= 0.985


def _true_lift():
    chance = np.random.default_rng(4).beta(2, 8, 1_000_000)
    return np.minimum(1, 2 * chance).mean() / chance.mean()


TRUE_LIFT = _true_lift()


def test_lift_over_zero_is_a_lower_bound():
    attacked, clean = exposed([2, 4, 0, 5, 1] * 20), exposed([0] * 100)
    got = lift(attacked, clean, rng())
    limit = 1 - 0.05 ** (1 / 1000)
    assert got.value == pytest.approx(0.24 / limit)
    assert (got.lower_bound, got.high, got.zero_share, got.n) == (True, None, 1, 100)
    # The low end is the attacked exposure's own: its mean less about 1.96 standard errors.
    error = np.std([2, 4, 0, 5, 1]) / 10 / math.sqrt(100)
    assert got.low == pytest.approx((0.24 - 1.96 * error) / limit, rel=0.02)


def test_lift_of_a_handful_of_clean_hits_stays_finite():
    clean = np.zeros(100)
    clean[0] = 1
    got = lift(exposed([3] * 100), exposed(clean), rng())
    assert got.value == pytest.approx(300)
    assert got.zero_share == pytest.approx(math.exp(-1), abs=0.05)
    # A resample without a clean hit counts as a clean rate of zero_limit(1000), three hits' worth.
    assert got.low == pytest.approx(0.3 / zero_limit(1000), rel=0.01)
    assert math.isfinite(got.high) and not got.lower_bound


def test_lift_that_was_not_measured_is_none():
    zero, some = exposed([0, 0, 0]), exposed([1, 2, 3])
    both = lift(zero, zero, rng())
    assert (both.value, both.low, both.high, both.lower_bound, both.n) == (None, None, None, False, 3)
    assert lift(exposed([], []), exposed([], []), rng()).value is None
    assert lift(exposed([0, 0], [0, 0]), exposed([0, 0], [0, 0]), rng()).n == 0
    assert selectivity(some, exposed([], []), rng()).value is None
    gone = lift(zero, some, rng())
    assert (gone.value, gone.low, gone.high) == (0, 0, None)
    alone = lift(exposed([2]), exposed([1]), rng())
    assert (alone.value, alone.low, alone.high, alone.n) == (2, None, None, 1)


@pytest.mark.parametrize("ratio", [lift, selectivity])
def test_users_without_pairs_are_not_drawn(ratio):
    idle = [0] * 30
    got = ratio(exposed([1, 2, 3, *idle], [3, 4, 5, *idle]), exposed([1, 1, 2, *idle], [3, 4, 5, *idle]), rng())
    assert got == ratio(exposed([1, 2, 3], [3, 4, 5]), exposed([1, 1, 2], [3, 4, 5]), rng())


def test_seeds_are_averaged_for_each_user():
    attacked = [exposed([4, 0, 1, 2]), exposed([2, 2, 3, 0])]
    clean = [exposed([1, 0, 0, 1])]
    assert pool_seeds(attacked).sums.tolist() == [3, 1, 2, 1]
    got = lift(attacked, clean, rng())
    assert got == lift(exposed([3, 1, 2, 1]), exposed([1, 0, 0, 1]), rng())
    assert got.value == pytest.approx(7 / 2)
    # Pooling zeros adds no pairs: the limit stays that of the 40 pairs there are.
    assert lift(attacked, [exposed([0] * 4)] * 3, rng()).value == pytest.approx(7 / 40 / zero_limit(40))


def test_selectivity():
    got = selectivity([exposed([6, 2], 4), exposed([4, 4], 4)], exposed([1, 0, 1], 5), rng())
    assert got.value == pytest.approx(1 / (2 / 15))
    assert got.n == 2
    bound = selectivity(exposed([6, 2]), exposed([0, 0, 0], 5), rng())
    assert bound.lower_bound
    assert bound.value == pytest.approx(0.4 / zero_limit(15))


def test_same_stream_same_interval():
    attacked, clean = exposed(np.arange(40.0)), exposed(np.arange(40.0)[::-1].copy())
    assert lift(attacked, clean, rng()) == lift(attacked, clean, rng())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exposures(RANKS, SEEN[:2]), r"seen must have shape \(3, 2\)"),
        (lambda: exposures(RANKS, SEEN, [0, 1, 2]), "group must be a mask"),
        (lambda: exposures(RANKS, SEEN, [0, 2]), "group must have shape"),
        (lambda: exposures(RANKS[0], SEEN[0]), "users, targets"),
        (lambda: exposures(RANKS, SEEN, metrics=["recall"]), "'recall' is not a metric"),
        (lambda: exposures(RANKS - 1, SEEN), "from 1"),
        (lambda: mask_seen([0, 1], [1], [1], 2), "2 users of events and 1 items"),
        (lambda: mask_seen([2], [1], [1], 2), "outside 0"),
        (lambda: lift(exposed([1, 2]), exposed([1]), rng()), "same users"),
        (lambda: lift(exposed([1, 2], [3, 4]), exposed([1, 2], [4, 3]), rng()), "same users"),
        (lambda: lift([], exposed([1]), rng()), "no exposure"),
        (lambda: lift(exposed([1, 2]), exposed([1, 2]), rng(), level=95), "between 0 and 1"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()
