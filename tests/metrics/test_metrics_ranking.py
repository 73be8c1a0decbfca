"""Ranks against their definition, metrics against hand-made and third-party numbers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cowbird.errors import UserError
from cowbird.metrics.ranking import exclude_seen, hit_ratio, mrr, ndcg, ranking_metrics, ranks, topk_ranks

FEW = settings(max_examples=150, deadline=None)
VALUES = st.sampled_from([-math.inf, -1.0, -0.0, 0.0, 0.5, 1.0, math.inf, math.nan])


@st.composite
def tables(draw, dtypes=(np.float16, np.float32, np.float64)):
    """Small tables full of ties, NaN and infinities."""
    rows, items = draw(st.integers(0, 4)), draw(st.integers(1, 7))
    flat = draw(st.lists(VALUES, min_size=rows * items, max_size=rows * items))
    return np.array(flat, dtype=draw(st.sampled_from(dtypes))).reshape(rows, items)


@st.composite
def tables_and_pairs(draw):
    """A table, a target a row, and pairs to exclude (repeated at times, and at times the target)."""
    table = draw(tables())
    rows, items = table.shape
    target = draw(st.lists(st.integers(0, items - 1), min_size=rows, max_size=rows))
    pair = st.tuples(st.integers(0, max(rows, 1) - 1), st.integers(0, items - 1))
    pairs = draw(st.lists(pair, max_size=8 if rows else 0))
    return table, np.array(target, dtype=np.int32), pairs


def naive_rank(row, target, excluded=()):
    """The definition, word by word."""
    row = [-math.inf if item in excluded and item != target else float(value) for item, value in enumerate(row)]
    if math.isnan(row[target]):
        return len(row)
    return 1 + sum(math.isnan(v) or v >= row[target] for item, v in enumerate(row) if item != target)


@pytest.mark.slow
@FEW
@given(tables_and_pairs())
def test_ranks_follow_the_definition(given_):
    table, target, pairs = given_
    before = table.copy()
    expected = [naive_rank(table[r], target[r], {item for row, item in pairs if row == r}) for r in range(len(table))]
    exclude = ([row for row, _ in pairs], [item for _, item in pairs])
    got = ranks(table, target, exclude)
    assert got.dtype == np.int64
    assert got.tolist() == expected
    assert ranks(torch.from_numpy(table), torch.from_numpy(target), exclude).tolist() == expected
    np.testing.assert_array_equal(table, before)
    plain = [naive_rank(table[r], target[r]) for r in range(len(table))]
    assert ranks(table, target).tolist() == plain


@pytest.mark.slow
@FEW
@given(tables(), st.data())
def test_topk_ranks_equal_ranks_up_to_k_max(table, data):
    items = table.shape[1]
    targets = data.draw(st.lists(st.integers(0, items - 1), max_size=4))
    k_max = data.draw(st.integers(1, 9))
    got = topk_ranks(table, targets, k_max)
    assert got.shape == (len(table), len(targets))
    for row in range(len(table)):
        for column, target in enumerate(targets):
            excluded = table[row, target] == -math.inf
            expected = k_max + 1 if excluded else min(naive_rank(table[row], target), k_max + 1)
            assert got[row, column] == expected


def test_topk_ranks_equal_ranks_on_a_large_table_with_ties():
    rng = np.random.default_rng(5)
    table = torch.from_numpy(np.round(rng.normal(size=(40, 600)), 1).astype(np.float32))
    exclude_seen(table, rng.integers(0, 40, 2000), rng.integers(0, 600, 2000))
    targets = [3, 17, 599]
    got = topk_ranks(table, targets, 100)
    assert (got <= 100).any() and (got == 101).any()
    for column, target in enumerate(targets):
        expected = ranks(table, torch.full((40,), target)).clamp(max=101)
        assert torch.equal(got[:, column].long(), expected)


def test_topk_ranks_take_bfloat16_and_results_stay_what_scores_were():
    table = torch.tensor([[3.0, 1.0, 2.0]], dtype=torch.bfloat16)
    got = topk_ranks(table, [0, 2, 1], 2)
    assert isinstance(got, torch.Tensor) and got.tolist() == [[1, 2, 3]]
    assert isinstance(topk_ranks(table.float().numpy(), [0], 2), np.ndarray)
    assert isinstance(ranks(table, [0]), torch.Tensor)


def test_constant_scores_earn_nothing():
    assert ranks(np.zeros((2, 30)), [0, 29]).tolist() == [30, 30]
    assert topk_ranks(np.zeros((2, 30)), [0, 29], 10).tolist() == [[11, 11], [11, 11]]


def test_target_that_was_seen_is_still_ranked():
    table = np.array([[0.1, 0.9, 0.5, 0.7]])
    assert ranks(table, [1], ([0, 0], [1, 3])).tolist() == [1]
    assert ranks(table, [2], ([0, 0, 0], [2, 3, 3])).tolist() == [2]


def test_excluded_target_is_never_a_hit_even_in_a_tiny_catalogue():
    table = exclude_seen(np.array([[1.0, 2.0]]), [0], [1])
    assert topk_ranks(table, [0, 1], 10).tolist() == [[1, 11]]


def test_exclude_seen_works_in_place():
    table = np.ones((2, 3), dtype=np.float32)
    assert exclude_seen(table, [0, 1, 1], [2, 0, 0]) is table
    assert np.isneginf(table).tolist() == [[False, False, True], [True, False, False]]
    tensor = torch.ones(2, 3, requires_grad=True)
    assert exclude_seen(tensor, np.array([1]), torch.tensor([1])) is tensor
    assert tensor.isneginf().nonzero().tolist() == [[1, 1]]
    column_major = np.asfortranarray(np.ones((2, 3)))
    exclude_seen(column_major, [1], [2])
    assert np.argwhere(np.isneginf(column_major)).tolist() == [[1, 2]]
    exclude_seen(table, [], [])


def test_read_only_scores_are_ranked_but_not_changed():
    table = np.array([[1.0, 2.0]])
    table.flags.writeable = False
    target = np.array([0], dtype=np.int32)
    target.flags.writeable = False
    assert ranks(table, target).tolist() == [2]
    with pytest.raises(UserError, match="read-only"):
        exclude_seen(table, [0], [0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exclude_seen(np.ones((2, 3)), [0], [-1]), "from -1 to -1, outside 0 … 2"),
        (lambda: exclude_seen(np.ones((2, 3)), [2], [0]), "rows run from 2"),
        (lambda: exclude_seen(np.ones((2, 3)), [0, 1], [0]), "2 rows and 1 items"),
        (lambda: exclude_seen(np.ones((2, 3), dtype=np.int64), [0], [0]), "floating point"),
        (lambda: ranks(np.ones((2, 3)), [0]), "2 rows of scores and 1 targets"),
        (lambda: ranks(np.ones((2, 3)), [0, 3]), "outside 0 … 2"),
        (lambda: ranks(np.ones((2, 3)), [True, False]), "whole numbers"),
        (lambda: ranks(np.ones((2, 3)), [[0, 1]]), "one list"),
        (lambda: ranks(np.ones(3), [0]), "shape"),
        (lambda: topk_ranks(np.ones((2, 3)), [0], 0), "at least 1"),
        (lambda: hit_ratio([1], 0), "at least 1"),
        (lambda: ndcg([0], 5), "whole numbers from 1"),
        (lambda: mrr([1.5], 5), "whole numbers from 1"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_metrics_by_hand():
    places = np.array([1, 2, 3, 4, 7])
    assert hit_ratio(places, 3).tolist() == [1, 1, 1, 0, 0]
    assert ndcg(places, 3) == pytest.approx([1, 0.6309297535714575, 0.5, 0, 0])
    assert mrr(places, 3) == pytest.approx([1, 1 / 2, 1 / 3, 0, 0])
    assert ndcg(places, 1000)[4] == pytest.approx(1 / 3)
    assert hit_ratio(torch.tensor([[1, 9], [3, 2]]), 2).tolist() == [[1, 0], [0, 1]]


# ranx 0.3.21, `evaluate(Qrels, Run, ["hit_rate@5", ...])` over 12 users and 60 items, one relevant item each:
# scores = stack([rng.permutation(60)] * 12 draws), target = rng.integers(0, 60, 12), rng = default_rng(20260).
RANX = {
    ("hr", 5): 0.16666666666666666,
    ("hr", 10): 0.25,
    ("hr", 20): 0.5,
    ("hr", 50): 1.0,
    ("ndcg", 5): 0.11557106726954514,
    ("ndcg", 10): 0.14525499952854698,
    ("ndcg", 20): 0.2093056295157977,
    ("ndcg", 50): 0.30507672703313066,
    ("mrr", 5): 0.09999999999999999,
    ("mrr", 10): 0.11388888888888889,
    ("mrr", 20): 0.1318070818070818,
    ("mrr", 50): 0.14582711802341544,
}


def test_metrics_agree_with_ranx():
    rng = np.random.default_rng(20260)
    scores = np.stack([rng.permutation(60).astype(float) for _ in range(12)])
    places = ranks(scores, rng.integers(0, 60, 12))
    assert places.tolist() == [43, 1, 5, 15, 6, 14, 42, 35, 22, 48, 13, 38]
    got = {(row.metric, row.k): row.value for row in ranking_metrics(places)}
    assert got == pytest.approx(RANX, rel=1e-12)
    assert {row.n for row in ranking_metrics(places)} == {12}


def test_no_rows_is_not_measured():
    rows = ranking_metrics(np.empty(0, dtype=np.int64), ks=(1, 3))
    assert [(row.metric, row.k, row.value, row.n) for row in rows] == [
        (metric, k, None, 0) for metric in ("hr", "ndcg", "mrr") for k in (1, 3)
    ]
    assert ranking_metrics([], ks=(1,))[0].value is None
    assert ranks(np.empty((0, 4)), []).shape == (0,)
    assert topk_ranks(np.empty((0, 4)), [1, 2], 3).shape == (0, 2)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_accelerator_agrees_with_host(dtype):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    generator = torch.Generator().manual_seed(3)
    table = (torch.randn(64, 3000, generator=generator) * 4).round().to(dtype) / 4
    spoiled = torch.rand(table.shape, generator=generator)
    table[spoiled < 0.01] = torch.nan
    table[(spoiled > 0.01) & (spoiled < 0.05)] = -torch.inf
    table[(spoiled > 0.05) & (spoiled < 0.051)] = torch.inf
    rows, items = np.repeat(np.arange(64), 20), np.arange(64 * 20) * 7 % 3000
    target = torch.arange(64) * 11
    there, exclude = table.cuda(), (rows, items)
    assert torch.equal(ranks(there, target, exclude).cpu(), ranks(table, target, exclude))
    assert torch.equal(topk_ranks(there, range(200), 100).cpu(), topk_ranks(table, range(200), 100))
    expected = exclude_seen(table, rows, items)
    assert torch.equal(exclude_seen(there, *exclude).cpu().nan_to_num(7), expected.nan_to_num(7))
    with pytest.raises(UserError):
        exclude_seen(there, torch.tensor([0]).cuda(), torch.tensor([-1]).cuda())
