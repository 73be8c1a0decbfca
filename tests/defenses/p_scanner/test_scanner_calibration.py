"""Thresholds: known answers, and the promise about false alarms by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowbird.defenses.p_scanner.rounds.calibration import (
    MIN_SCORES_KEPT,
    MIN_TITLES_TOGETHER,
    SURE,
    SURE_TOGETHER,
    Calibration,
)


def test_known_thresholds():
    found = Calibration.of([0.5, -2.0, 3.0, -np.inf, 1.0, SURE + 1, SURE])
    assert (found.titles, found.left_out, found.highest) == (6, 1, (4.0, 3.0, 1.0, 0.5, -2.0))
    assert found.threshold(0.01) == 4.0, "of so few titles less than 1 in 7 can't be promised"
    assert found.promise_rate(0.01) == 1 / 7
    assert found.threshold(2 / 7) == 3.0, "despite floating point"
    assert found.threshold(0.42) == 3.0
    assert found.threshold(3 / 7) == 1.0
    assert found.promise_rate(0.3) == 0.3
    assert found.threshold(0.99) == -2.0, "what is not known can't be gone below"


def test_nothing_to_calibrate_by_flags_nothing():
    for scores in ([], [-np.inf], [SURE + 1]):
        assert Calibration.of(scores).threshold(0.5) == math.inf


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60), st.floats(0.001, 0.999))
def test_a_threshold_is_that_of_a_sorted_list(scores, fpr):
    kept = sorted((score for score in scores if score <= SURE), reverse=True)
    found = Calibration.of(scores)
    if kept:
        nth = max(1, math.floor(fpr * (len(kept) + 1) + 1e-9))
        assert found.threshold(fpr) == kept[min(nth, len(kept)) - 1]
        assert sum(score > found.threshold(fpr) for score in kept) < nth


@pytest.mark.parametrize(("fpr", "titles"), [(0.01, 99), (0.05, 150), (0.1, 37)])
def test_the_promise_holds_for_titles_in_random_order(fpr, titles):
    rng = np.random.default_rng(0)
    alarms = []
    for _ in range(2000):
        scores = rng.normal(size=titles + 1)
        alarms.append(scores[-1] > Calibration.of(scores[:-1]).threshold(fpr))
    promised = math.floor(fpr * (titles + 1)) / (titles + 1)
    assert promised <= fpr
    assert abs(np.mean(alarms) - promised) < 4 * math.sqrt(promised * (1 - promised) / 2000)


def test_it_is_read_back():
    found = Calibration.of([0.1, 1 / 3, -np.inf])
    assert Calibration.model_validate_json(found.model_dump_json()) == found


def test_scores_that_are_not_kept_make_thresholds_careful():
    scores = np.linspace(-3, 3, 10 * MIN_SCORES_KEPT)
    found = Calibration.of(scores)
    assert len(found.highest) == MIN_SCORES_KEPT
    assert (scores > found.threshold(0.05)).mean() <= 0.05
    assert (scores > found.threshold(0.5)).mean() <= 0.5


def test_titles_that_share_what_they_are_suspicious_for_do_not_calibrate():
    scores = np.append(np.linspace(-5, 0, 392), np.full(8, 3.5))  # a trigger in 2 % of the titles
    assert Calibration.of(scores).threshold(0.01) == 3.5, "nothing with the trigger is above that"
    shared = np.append(np.full(392, MIN_TITLES_TOGETHER), np.full(8, MIN_TITLES_TOGETHER))
    found = Calibration.of(scores, shared)
    assert (found.titles, found.left_out) == (392, 8)
    assert found.threshold(0.01) < 0
    assert Calibration.of(scores, np.where(scores > 3, MIN_TITLES_TOGETHER - 1, 0)).left_out == 0
    assert Calibration.of([SURE_TOGETHER, SURE_TOGETHER + 0.1], 9).left_out == 1


def test_no_more_than_some_are_taken_for_poisoned():
    scores = np.append(np.linspace(-5, 0, 700), np.linspace(1.5, 3.5, 300))  # a third shares a letter
    found = Calibration.of(scores, MIN_TITLES_TOGETHER)
    assert found.left_out == 50
    assert (scores > found.threshold(0.01)).mean() < 0.07
    sure = np.append(scores, np.full(80, 8.0))
    assert Calibration.of(sure, MIN_TITLES_TOGETHER).left_out == 80, "there is no doubt about these"
