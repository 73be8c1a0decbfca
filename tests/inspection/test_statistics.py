import numpy as np
import pytest

from cowbird.inspection.statistics import (
    compute_null_statistics,
    estimate_p_value,
    find_threshold,
    score_items,
    standardize_counts,
    sum_scores,
)


def draw_counts(seed, items=400, planted=()):
    rng = np.random.default_rng(seed)
    mean = np.geomspace(0.1, 500, items) * np.exp(rng.normal(0, 0.3, items))
    counts = {name: rng.poisson(mean) for name in ("own", "single")}
    for count in counts.values():
        count[list(planted)] += 200
    return counts


def test_scores_of_honest_models_have_the_spread_of_one():
    nulls = [draw_counts(seed) for seed in range(8)]
    scores = score_items(draw_counts(99), nulls)
    common = np.mean([null["own"] for null in nulls], axis=0) > 20
    assert 0.7 < scores["own"][common].std() < 1.5
    assert abs(np.median(scores["own"][common])) < 0.5


def test_an_item_that_is_shown_more_stands_out():
    nulls = [draw_counts(seed) for seed in range(5)]
    total = sum_scores(score_items(draw_counts(99, planted=[10]), nulls))
    assert total.argmax() == 10
    assert estimate_p_value(total.max(), compute_null_statistics(nulls)) < 0.01


def test_few_items_have_a_usual_spread():
    counts, expected = np.array([10, 0, 40]), np.array([10.0, 0.0, 10.0])
    found = standardize_counts(counts, expected)
    assert found[0] == 0 == found[1]
    assert found[2] == pytest.approx(np.log(44 / 14) / np.sqrt(1 / 14 + 0.25))


def test_p_values_are_what_they_say_for_maxima():
    rng = np.random.default_rng(0)
    drawn = 3 + 2 * rng.gumbel(size=(2000, 6))
    p = np.array([estimate_p_value(row[0], row[1:]) for row in drawn])
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
    assert estimate_p_value(6.0, np.full(3, 5.0)) < 1e-4
