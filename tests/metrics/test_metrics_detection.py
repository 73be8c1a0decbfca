"""Detection measures against their definitions and at their edges."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cowbird.errors import UserError
from cowbird.metrics.detection import (
    auroc,
    count_detections,
    count_detections_at,
    recall_at_fpr,
    span_iou,
    threshold_at_fpr,
)

ROWS = st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=25)


def split(rows):
    return [float(score) for score, _ in rows], [poisoned for _, poisoned in rows]


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_auroc_is_the_share_of_pairs_in_order(rows):
    scores, truth = split(rows)
    bad = [s for s, p in zip(scores, truth, strict=True) if p]
    clean = [s for s, p in zip(scores, truth, strict=True) if not p]
    pairs = [1.0 if b > c else 0.5 if b == c else 0.0 for b in bad for c in clean]
    assert auroc(scores, truth) == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.sampled_from([0, 0.01, 0.1, 0.25, 0.5, 0.75, 1]))
def test_recall_at_fpr_is_the_best_of_all_thresholds_that_keep_it(rows, fpr):
    scores, truth = split(rows)
    values, bad = np.array(scores), np.array(truth, dtype=bool)
    got = recall_at_fpr(scores, truth, fpr)
    if bad.all() or not bad.any():
        assert got is None
        return
    allowed = [t for t in [-math.inf, *values[~bad]] if (values[~bad] > t).mean() <= fpr]
    assert got == pytest.approx(max((values[bad] > t).mean() for t in allowed))


def test_threshold_never_exceeds_the_rate_and_ties_are_not_flagged():
    clean = [0.1, 0.2, 0.9, 0.9, 0.9]
    assert threshold_at_fpr(clean, 0.4) == 0.9
    assert threshold_at_fpr(clean, 0.6) == 0.2
    assert threshold_at_fpr(clean, 1) == -math.inf
    assert threshold_at_fpr([], 0.1) is None
    # 0.29 * 100 is 28.999999999999996: twenty-nine rows may still be flagged.
    assert threshold_at_fpr(np.arange(100.0), 0.29) == 70


def test_counts_by_hand():
    got = count_detections_at(torch.tensor([0.9, 0.8, 0.3, 0.7, 0.5]), [1, 0, 1, 1, 0], 0.5)
    assert (got.true_positives, got.false_positives, got.false_negatives, got.true_negatives) == (2, 1, 1, 1)
    assert (got.precision, got.recall, got.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert got.false_positive_rate == 0.5
    uneven = count_detections([True, False, False, False], [True, True, True, False])
    assert (uneven.precision, uneven.recall, uneven.f1) == pytest.approx((1, 1 / 3, 0.5))


def test_what_cannot_be_measured_is_none():
    nothing = count_detections([False, False], [False, False])
    assert (nothing.precision, nothing.recall, nothing.f1, nothing.false_positive_rate) == (None, None, None, 0)
    missed = count_detections([False, False], [True, False])
    assert (missed.precision, missed.recall, missed.f1) == (None, 0, 0)
    assert count_detections([], []).false_positive_rate is None
    assert auroc([], []) is None


@pytest.mark.parametrize(
    ("found", "truth", "expected"),
    [
        ([(2, 6)], [(4, 8)], 2 / 6),
        ([(2, 6)], [(2, 6)], 1),
        ([(0, 2)], [(2, 4)], 0),
        ([], [(2, 4)], 0),
        ([(2, 4)], [], 0),
        ([(3, 3)], [], None),
        ([], [], None),
        ([(0, 3), (2, 5)], [(0, 4), (8, 9)], 4 / 6),
    ],
)
def test_span_iou(found, truth, expected):
    assert span_iou(found, truth) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: auroc([0.1, math.nan], [0, 1]), "NaN"),
        (lambda: auroc([0.1], [0, 1]), "shape"),
        (lambda: auroc([0.1, 0.2], [1, 2]), "mask"),
        (lambda: recall_at_fpr([0.1, 0.2], [0, 1], 5), "from 0 to 1"),
        (lambda: count_detections([True], [True, False]), "shape"),
        (lambda: span_iou([(4, 2)], []), "not a span"),
        (lambda: span_iou([], [(-1, 2)]), "not a span"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()
