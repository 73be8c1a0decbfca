"""Measures: declared once, and everything about a row follows from that."""

import pytest

from cowbird.experiments import detection, measures, results
from cowbird.experiments.measures import (
    CLEAN,
    EXCESS,
    LOST,
    LOWER_BOUND,
    MEASURES,
    OVER_SEEDS,
    declare_measure,
    find_measure,
)
from cowbird.experiments.results import Row, summarize_seeds
from cowbird.experiments.tasks import candidates, pointwise


@pytest.fixture
def registry(monkeypatch):
    """A copy of the registry that a test may add to."""
    monkeypatch.setattr(measures, "MEASURES", dict(MEASURES))
    monkeypatch.setattr(results, "MEASURES", measures.MEASURES)
    return measures.MEASURES


def test_a_family_is_one_declaration(registry):
    found = declare_measure("coverage", "share", "coverage", "Share of the items shown to anybody.", CLEAN, LOST)
    assert [name for name in registry if name.startswith("coverage")] == [
        "coverage",
        "coverage_clean",
        "coverage_lost",
        "coverage_over_seeds",
        "coverage_clean_over_seeds",
        "coverage_lost_over_seeds",
    ]
    assert (found[CLEAN].unit, found[LOST].unit) == ("share", "difference")
    assert found[LOST][OVER_SEEDS].unit == "difference"
    assert found[None] is found
    assert find_measure("coverage_clean").title == "coverage, clean"
    with pytest.raises(KeyError):
        found[EXCESS]


def test_one_name_is_one_measure(registry):
    first = declare_measure("coverage", "share", "coverage", "Share of the items shown to anybody.")
    assert declare_measure("coverage", "share", "coverage", "Share of the items shown to anybody.") == first
    with pytest.raises(ValueError, match="'coverage'"):
        declare_measure("coverage", "count", "coverage", "Items shown to anybody.")


def test_a_new_measure_needs_its_declaration_alone(registry):
    """Seeds are summed up, and values are printed, as its unit says."""
    share = declare_measure("coverage", "share", "coverage", "Share of the items shown to anybody.")
    count = declare_measure("shown", "count", "shown", "Items shown to anybody.")
    fields = {"experiment": "e", "dataset": "d", "victim": "v", "attack": "a", "defense": "n", "scenario": "s"}
    fields |= {"group": "all", "k": 0, "low": None, "high": None, "n": 5}
    rows = [
        Row(**fields, metric=one.name, seed=seed, value=value)
        for one in (share, count)
        for seed, value in ((0, 0.9), (1, 1))
    ]
    kept, free = summarize_seeds(rows)
    assert (kept.metric, kept.high) == ("coverage_over_seeds", 1.0)
    assert free.metric == "shown_over_seeds"
    assert free.high > 1


@pytest.mark.parametrize(
    ("unit", "value", "shown"),
    [
        ("share", 0.12345, "0.123"),
        ("difference", 0.12345, "+0.123"),
        ("ratio", 12.34, "12.3×"),
        ("ratio", 123.4, "123×"),
        ("relative change", -0.1234, "-12.3%"),
        ("count", 1234.0, "1,234"),
        ("count", 0.5, "0.5"),
    ],
)
def test_a_value_is_shown_as_its_unit_says(registry, unit, value, shown):
    assert declare_measure("m", unit, "m", "M.").format_value(value) == shown


def test_a_lower_bound_is_marked(registry):
    bound = declare_measure("m", "ratio", "m", "M.", LOWER_BOUND)[LOWER_BOUND]
    assert bound.format_value(3.0) == "≥3.0×"
    assert bound[OVER_SEEDS].lower_bound


def test_every_measure_says_what_it_is():
    assert {pointwise.AUC.name, detection.RECALL.name, *(one.name for one in candidates.HIT_RATIO)} <= MEASURES.keys()
    for measure in MEASURES.values():
        assert measure.title
        assert measure.doc.endswith(".")
        assert "{" not in measure.title + measure.doc


def test_bounds_follow_the_unit():
    assert MEASURES["lost_clean_events"].clip_interval(-0.5, 1.5) == (0, 1)
    assert MEASURES["auc_lost"].clip_interval(-0.5, 1.5) == (-0.5, 1.5)
    assert MEASURES["asr"].clip_interval(None, None) == (None, None)
