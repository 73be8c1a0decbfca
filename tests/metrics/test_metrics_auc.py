"""AUC against counting pairs, and its interval against the bootstrap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowbird.errors import UserError
from cowbird.metrics.auc import auc, auc_difference


def counted(scores, liked):
    scores, liked = np.array(scores), np.array(liked)
    above, below = scores[liked][:, None], scores[~liked]
    return float((above > below).mean() + 0.5 * (above == below).mean())


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_counts_pairs(rows):
    scores, liked = [float(score) for score, _ in rows], [yes for _, yes in rows]
    found = auc(scores, liked)
    if len(set(liked)) < 2:
        assert found.value is None
        return
    assert found.value == pytest.approx(counted(scores, liked))
    if found.low is not None:
        assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.fixture(scope="module")
def two():
    rng = np.random.default_rng(0)
    liked = rng.random(300) < 0.4
    scores = rng.normal(size=300) + 0.8 * liked
    return scores, scores + rng.normal(size=300) * 0.5, liked


@pytest.mark.slow
def test_intervals_agree_with_the_bootstrap(two):
    scores, others, liked = two
    rng, areas, differences = np.random.default_rng(1), [], []
    for _ in range(1500):
        row = rng.integers(len(liked), size=len(liked))
        one, other = counted(scores[row], liked[row]), counted(others[row], liked[row])
        areas.append(one)
        differences.append(one - other)
    for found, draws in ((auc(scores, liked), areas), (auc_difference(scores, others, liked), differences)):
        low, high = np.percentile(draws, [2.5, 97.5])
        assert found.low == pytest.approx(low, abs=0.006)
        assert found.high == pytest.approx(high, abs=0.006)


def test_pairing_narrows_the_difference(two):
    scores, others, liked = two
    found, apart = auc_difference(scores, others, liked), [auc(column, liked) for column in (scores, others)]
    assert found.value == pytest.approx(apart[0].value - apart[1].value)
    assert found.high - found.low < apart[0].high - apart[0].low
    assert auc_difference(scores, scores, liked).value == 0


def test_what_does_not_align_is_refused():
    with pytest.raises(UserError):
        auc_difference([1.0, 2.0], [1.0], [True, False])
    with pytest.raises(UserError):
        auc([1.0, 2.0], [True])
    assert auc([1.0, 2.0], [True, True]).value is None
    assert auc([1.0, 2.0], [True, False]).low is None
