"""Rates before and after an attack: both intervals, counts, and words where they show nothing."""

import pytest

from cowbird.experiments.results import Row
from cowbird.report.rates import format_counts, format_rates, judge_rates


def rate(value, low, high, n):
    return Row(
        experiment="e", dataset="d", victim="v", attack="a", defense="none", scenario="direct", group="trigger",
        metric="asr", k=0, seed=0, value=value, low=low, high=high, n=n,
    )  # fmt: skip


NOTHING = rate(None, None, None, 0)
LOW, HIGH = rate(0.1, 0.06, 0.15, 240), rate(1.0, 0.98, 1.0, 250)


def test_both_intervals_stand_there():
    assert format_rates(LOW, HIGH) == "0.100 [0.06, 0.15] → 1.000 [0.98, 1.00]"
    assert format_rates(None, HIGH) == "– → 1.000 [0.98, 1.00]"
    assert format_rates(NOTHING, rate(0.5, None, None, 3)) == "– → 0.500"


def test_counts():
    assert format_counts(LOW, HIGH) == "240 → 250"
    assert format_counts(HIGH, HIGH) == "250"
    assert format_counts(None, rate(1, 1, 1, 1200)) == "– → 1,200"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (LOW, HIGH, ""),
        (HIGH, LOW, ""),
        (None, HIGH, ""),
        (rate(1.0, 0.16, 1.0, 2), HIGH, "shows nothing: the intervals of clean and attacked model overlap, and it "
         "rests on only 2 questions"),
        (LOW, rate(0.16, 0.11, 0.22, 250), "shows nothing: the intervals of clean and attacked model overlap"),
        (rate(0.0, 0.0, 0.31, 10), rate(1.0, 0.69, 1.0, 10), "shows little: only 10 questions"),
        (None, rate(1.0, 0.02, 1.0, 1), "shows little: only 1 question"),
        (LOW, NOTHING, "not measured: no question was answered so that the trigger could turn it"),
        (NOTHING, rate(1.0, 0.98, 1.0, 250), "shows little: only 0 questions"),
    ],
)  # fmt: skip
def test_what_shows_nothing_is_said(before, after, said):
    assert judge_rates(before, after) == said
