import numpy as np
import pytest

from cowbird.inspection.statistics import (
    GUMBEL_VARIANCE,
    USUAL_DEVIATION,
    estimate_p_value,
    find_threshold,
    standardize_counts,
    standardize_ranks,
)


def draw_counts(seed, items=400):
    rng = np.random.default_rng(seed)
    return rng.poisson(np.geomspace(0.1, 500, items) * np.exp(rng.normal(0, 0.3, items)))


def test_scores_of_honest_models_have_the_spread_of_one():
    expected = np.mean([draw_counts(seed) for seed in range(8)], axis=0)
    scores = standardize_counts(draw_counts(99), expected)[expected > 20]
    assert 0.7 < scores.std() < 1.5
    assert abs(np.median(scores)) < 0.5


def draw_ranks(seed, shift=0.0):
    """Return mean logarithms of ranks of a model; data of its own moves all of them alike and each a little."""
    rng = np.random.default_rng(seed)
    return np.linspace(2, 7, 400) + shift + rng.normal(0, 0.2, 400)


def test_an_item_that_is_lifted_and_still_not_shown_stands_out():
    nulls = np.array([draw_ranks(seed) for seed in range(5)])
    ranks = draw_ranks(99, shift=0.4)
    honest = standardize_ranks(ranks, nulls)
    assert 0.7 < honest.std() < 1.3 and abs(np.median(honest)) < 1e-9
    assert np.abs(honest).max() < 5
    ranks[390] -= 2.0  # from rank 1,000 to rank 130
    lifted = standardize_ranks(ranks, nulls)
    assert lifted.argmax() == 390 and lifted[390] > 7
    noisy = draw_ranks(98) + np.random.default_rng(1).normal(0, 1.0, 400)
    assert np.abs(standardize_ranks(noisy, nulls)).max() < 5, "a model is held against its own spread"


def test_few_items_have_a_usual_spread():
    counts, expected = np.array([10, 0, 40]), np.array([10.0, 0.0, 10.0])
    found = standardize_counts(counts, expected)
    assert found[0] == 0 == found[1]
    assert found[2] == pytest.approx(np.log(44 / 14) / np.sqrt(1 / 14 + 0.25))


@pytest.mark.parametrize("usual", [0, USUAL_DEVIATION], ids=["of unknown width", "about as wide as usual"])
def test_p_values_are_what_they_say_for_maxima(usual):
    rng = np.random.default_rng(0)
    drawn = 3 + (USUAL_DEVIATION / GUMBEL_VARIANCE**0.5) * rng.gumbel(size=(2000, 6))
    p = np.array([estimate_p_value(row[0], row[1:], usual) for row in drawn])
    for level in (0.01, 0.05, 0.2):
        assert (p <= level).mean() <= 1.2 * level + 0.005
    assert (p <= 0.2).mean() > 0.12, "a p-value that is never small says nothing"


def test_the_threshold_is_where_p_is_the_level():
    nulls = np.array([8.0, 9.0, 9.5, 10.0, 11.0])
    at = find_threshold(nulls, 0.01)
    assert estimate_p_value(at + 1e-6, nulls) <= 0.0101
    assert estimate_p_value(at - 0.2, nulls) > 0.01


def test_null_models_that_agree_to_the_bit_divide_by_nothing():
    assert 0 < estimate_p_value(5.0, np.full(3, 5.0)) <= 1
    assert estimate_p_value(6.0, np.full(3, 5.0), usual=0) < 1e-4
    assert estimate_p_value(6.0, np.full(3, 5.0)) > 0.1, "three that agree are no proof that all do"
