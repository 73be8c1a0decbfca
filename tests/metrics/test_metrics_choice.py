"""Shares of picks against counts made by hand, and intervals against a plain bootstrap over users."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cowbird.errors import UserError
from cowbird.metrics.choice import pick_difference, pick_rate, valid_ratio
from cowbird.metrics.intervals import bootstrap_mean, clopper_pearson


def rng():
    return np.random.default_rng(0)


def test_by_hand():
    picked, right, user = [0, 3, -1, 2, 1], [0, 1, 2, 2, 1], [4, 4, 7, 7, 9]
    found = pick_rate(picked, right, user, rng())
    assert (found.value, found.n) == (3 / 5, 5)
    # Shares of the three users: 1/2, 1/2 and 1.
    assert (found.low, found.high) == (0.5, 1.0)
    among = pick_rate(picked, right, user, rng(), among=[True, True, False, True, False])
    assert (among.value, among.n) == (2 / 3, 3)
    valid = valid_ratio(picked, user, rng())
    assert (valid.value, valid.n) == (4 / 5, 5)
    assert valid.low == 0.5
    difference = pick_difference(picked, [0, 1, 2, -1, 0], right, user, rng())
    assert (difference.value, difference.n) == (0.0, 5)
    assert (difference.low, difference.high) == (-0.5, 1.0)


def test_minus_one_is_never_a_hit():
    assert pick_rate([-1, -1], [0, 1], [0, 1], rng()).value == 0
    assert valid_ratio([-1, -1], [0, 1], rng()).value == 0


def test_one_question_a_user_is_the_usual_bootstrap():
    draws = np.random.default_rng(5)
    picked, user = draws.integers(0, 3, 300), draws.permutation(300)
    found = pick_rate(picked, np.zeros(300, int), user, rng(), resamples=4000)
    usual = bootstrap_mean(picked == 0, np.random.default_rng(1), resamples=4000)
    assert found.value == usual.value
    assert found.low == pytest.approx(usual.low, abs=0.01)
    assert found.high == pytest.approx(usual.high, abs=0.01)


def test_questions_of_one_user_are_one_observation():
    """Asking everybody the same four times says no more than asking once."""
    once = np.random.default_rng(6).integers(0, 2, 100)
    user, zeros = np.arange(100), np.zeros(100, int)
    single = pick_rate(once, zeros, user, rng(), resamples=4000)
    fourfold = pick_rate(np.repeat(once, 4), np.repeat(zeros, 4), np.repeat(user, 4), rng(), resamples=4000)
    naive = pick_rate(np.repeat(once, 4), np.repeat(zeros, 4), np.arange(400), rng(), resamples=4000)
    assert (fourfold.value, fourfold.n) == (single.value, 400)
    assert fourfold.high - fourfold.low == pytest.approx(single.high - single.low, abs=0.01)
    assert naive.high - naive.low == pytest.approx((single.high - single.low) / 2, abs=0.02)


@pytest.mark.parametrize("hit", [0, 1])
def test_where_all_users_are_alike_the_exact_interval_of_users_stands_in(hit):
    found = pick_rate([0] * 40, [1 - hit] * 40, np.repeat(np.arange(20), 2), rng())
    exact = clopper_pearson(20 * hit, 20)
    assert (found.value, found.low, found.high, found.n) == (hit, exact.low, exact.high, 40)
    difference = pick_difference([0] * 4, [0] * 4, [0] * 4, [1, 2, 3, 4], rng())
    assert (difference.value, difference.low, difference.high) == (0, None, None)


def test_users_alike_in_between_have_no_interval():
    found = pick_rate([0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 2, 2], rng())
    assert (found.value, found.low, found.high) == (0.5, None, None)


def test_too_little():
    for found in (
        pick_rate([], [], [], rng()),
        valid_ratio([], [], rng()),
        pick_difference([], [], [], [], rng()),
        pick_rate([1], [1], [1], rng(), among=[False]),
    ):
        assert (found.value, found.low, found.high, found.n) == (None, None, None, 0)
    single = pick_rate([0, 1], [0, 0], [5, 5], rng())
    assert (single.value, single.low, single.high, single.n) == (0.5, None, None, 2)
    single = pick_difference([0, 1], [1, 1], [0, 0], [5, 5], rng())
    assert (single.value, single.low, single.high) == (0.5, None, None)


def test_takes_tensors_and_small_integers():
    found = pick_rate(torch.tensor([1, 0]), np.array([1, 1], np.int8), np.array([0, 1], np.uint16), rng())
    assert found.value == 0.5


def test_refuses_what_does_not_align():
    with pytest.raises(UserError, match="align"):
        pick_rate([1, 2], [1], [1, 2], rng())
    with pytest.raises(UserError, match="align"):
        valid_ratio([[1], [2]], [1, 2], rng())
    with pytest.raises(UserError, match="whole numbers"):
        valid_ratio([1.0, 2.0], [1, 2], rng())
    with pytest.raises(UserError, match="among"):
        pick_rate([1, 2], [1, 1], [1, 2], rng(), among=[True])
    with pytest.raises(UserError, match="level"):
        pick_rate([1, 2], [1, 1], [1, 2], rng(), level=2)


answers = st.lists(st.tuples(st.integers(-1, 2), st.integers(-1, 2), st.integers(0, 2), st.integers(0, 4)), min_size=1)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(answers)
def test_properties(rows):
    picked, others, right, user = (np.array(column) for column in zip(*rows, strict=True))
    found = pick_rate(picked, right, user, rng(), resamples=200)
    assert found == pick_rate(picked, right, user, rng(), resamples=200), "draws come from the generator alone"
    assert found.value == np.mean(picked == right)
    assert found.value <= valid_ratio(picked, user, rng()).value
    if found.low is not None:
        assert 0 <= found.low <= found.high <= 1
    here, there = (pick_difference(*pair, right, user, rng()) for pair in ((picked, others), (others, picked)))
    assert here.value == -there.value
    assert here.value == pytest.approx(found.value - np.mean(others == right))
    if here.low is not None:
        assert -1 <= here.low <= here.high <= 1
