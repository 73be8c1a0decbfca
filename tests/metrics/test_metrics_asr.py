"""Both definitions of the attack success rate, against counts made by hand."""

import numpy as np
import pytest
import torch

from cowbird.errors import UserError
from cowbird.metrics.asr import candidate_asr, pointwise_asr
from cowbird.metrics.choice import pick_rate


def test_by_hand():
    plain = [-1.0, -2.0, 0.0, 3.0, -1.0]
    triggered = [2.0, -1.0, 0.5, 9.0, 0.0]
    found = pointwise_asr(plain, triggered)
    assert (found.value, found.n) == (0.5, 4), "the question answered yes without the trigger doesn't count"
    assert found.low < 0.5 < found.high


def test_threshold():
    assert pointwise_asr([0.4, 0.6], [0.7, 0.7], threshold=0.5).n == 1


def test_nobody_to_turn():
    found = pointwise_asr([1.0, 2.0], [3.0, 4.0])
    assert (found.value, found.low, found.high, found.n) == (None, None, None, 0)


def test_takes_tensors():
    assert pointwise_asr(torch.tensor([-1.0]), np.array([1.0])).value == 1


def test_refuses_what_does_not_align():
    with pytest.raises(UserError, match="2 plain and 1 triggered"):
        pointwise_asr([1.0, 2.0], [1.0])
    with pytest.raises(UserError, match="NaN"):
        pointwise_asr([float("nan")], [1.0])


def test_a_picked_trigger_counts_where_it_is_not_the_right_answer():
    found = candidate_asr([0, 1, 2, -1], [0, 1, 0, 1], [1, 1, 2, 0], [0, 1, 2, 3], np.random.default_rng(0))
    assert (found.value, found.n) == (pytest.approx(1 / 3), 3), "in question 1 the right candidate has the trigger"
    assert found.low <= found.value <= found.high


def test_where_the_trigger_is_never_right_it_is_a_rate_of_picks():
    picked, triggered, user = [0, 1, 2, -1, 1], [0, 1, 0, 1, 0], [0, 0, 1, 2, 2]
    found = candidate_asr(picked, triggered, [3] * 5, user, np.random.default_rng(0))
    assert found == pick_rate(picked, triggered, user, np.random.default_rng(0))


def test_no_question_that_counts():
    found = candidate_asr([0], [1], [1], [0], np.random.default_rng(0))
    assert (found.value, found.low, found.high, found.n) == (None, None, None, 0)


def test_refuses_candidates_that_do_not_align():
    with pytest.raises(UserError, match="right ones"):
        candidate_asr([0, 1], [0, 1], [1], [0, 0], np.random.default_rng(0))
    with pytest.raises(UserError, match="must align"):
        candidate_asr([0], [0, 1], [1, 0], [0, 0], np.random.default_rng(0))
