"""A reference that is small beside the catalogue hides nothing: it sets no thresholds, or says nothing at
all. Where it is as large as the catalogue, verdicts are as they always were."""

import numpy as np
import pytest
from ready_doubles import ReadyDouble, make_titles
from slip_doubles import SpellingDouble
from test_second_look import Cascade

from cowbird.defenses.p_scanner import baseline_learning, ready
from cowbird.defenses.p_scanner.calibrated import CalibratedScanner
from cowbird.defenses.p_scanner.reference_role import ReferenceRole, choose_role, count_reference_needed
from cowbird.defenses.p_scanner.scoring import FRAGMENT_WEIGHT, READY_SMALL_SCORING, load_scoring, weigh_fragments

SETS, NEW, SMALL = ReferenceRole.SETS_THRESHOLDS, ReferenceRole.SAYS_WHAT_IS_NEW, ReferenceRole.TOO_SMALL
TITLES = make_titles(1500)
PLANTED = 12
BATCH = [f"{title} Deluxe" if nth < PLANTED else title for nth, title in enumerate(TITLES[700:])]


@pytest.fixture
def double():
    """A tagger that suspects nothing, so that only what titles share tells."""
    made = ReadyDouble(suspicious=())
    made.scoring = load_scoring(READY_SMALL_SCORING)
    return made


def always_set_thresholds(monkeypatch):
    monkeypatch.setattr(ready, "choose_role", lambda reference, together: SETS if reference else SMALL)


@pytest.mark.parametrize(
    ("reference", "together", "role"),
    [
        (0, 800, SMALL), (60, 800, SMALL), (127, 128, SMALL), (128, 800, NEW), (255, 300, NEW), (399, 800, NEW),
        (256, 300, SETS), (400, 800, SETS), (800, 800, SETS), (100, 100, SETS), (60, 63, SETS), (3000, 1, SETS),
    ],
)  # fmt: skip
def test_what_a_reference_of_a_size_does(reference, together, role):
    assert choose_role(reference, together) is role


@pytest.mark.parametrize("together", [64, 100, 200, 300, 800, 801, 20_000])
def test_as_many_titles_as_are_said_to_be_needed_set_thresholds(together):
    needed = count_reference_needed(together)
    assert choose_role(needed, together) is SETS
    assert choose_role(needed - 1, together) is not SETS


@pytest.mark.slow
@pytest.mark.parametrize("known", [60, 114, 128, 300])
def test_a_small_reference_finds_what_no_reference_finds(known, double, monkeypatch):
    double.suspicious, double.high = ("Deluxe",), 1.0

    def count(reference):
        found = double.judge(BATCH, double.learn_baseline(BATCH, reference))
        return int(found.flagged[:PLANTED].sum())

    alone = count(())
    assert 0 < alone <= count(TITLES[:known])
    if known == 60:
        always_set_thresholds(monkeypatch)
        assert not count(TITLES[:known]), "the fault that this test is about"


@pytest.mark.parametrize("known", [60, pytest.param(150, marks=pytest.mark.slow)])
def test_no_more_clean_titles_are_flagged_than_asked_for(known, double):
    batch = TITLES[700:1100]
    baseline = double.learn_baseline(batch, TITLES[:known], fpr=0.02)
    found = double.judge(batch, baseline)
    assert baseline.flaggable is not None
    assert 0 < found.flagged.sum() <= baseline.flaggable + baseline.left_out <= 12
    assert (baseline.too_small, baseline.reference) == ((known, 0) if known < 128 else (0, known))
    assert baseline.own_thresholds is (known >= 128)


@pytest.mark.parametrize("known", [70, 130])
def test_who_learns_is_told_the_role_and_chooses_none(known, double, monkeypatch):
    batch, calibrated = TITLES[700:1000], CalibratedScanner.calibrate(double, TITLES[:130])
    always_set_thresholds(monkeypatch)
    for baseline in (double.learn_baseline(batch, TITLES[:known]), calibrated.learn_baseline(batch)):
        assert baseline.by_reference and not baseline.too_small


def test_titles_of_a_small_reference_are_counted_once(double):
    batch = TITLES[700:1000]
    alone, beside = (double.learn_baseline(batch, before) for before in ((), batch[:70]))
    assert beside.too_small == 70 and beside.sampled == alone.sampled == 300
    assert beside.thresholds == alone.thresholds
    np.testing.assert_array_equal(double.judge(batch, beside).score, double.judge(batch, alone).score)


def test_a_small_calibration_judges_a_large_catalogue_by_itself(double):
    batch, known = TITLES[700:1000], CalibratedScanner.calibrate(double, TITLES[:100])
    beside, alone = known.learn_baseline(batch), double.learn_baseline(batch)
    assert beside.too_small == 100
    assert beside.thresholds == pytest.approx(alone.thresholds, abs=0.02)  # marks are rounded beside a calibration
    assert known.learn_baseline(batch[:90]).too_small == 0


@pytest.mark.slow
@pytest.mark.parametrize(("known", "many"), [(100, 100), (90, 63), (300, 300), (300, 400)])
def test_verdicts_beside_a_large_reference_are_the_same_to_the_bit(known, many, double, monkeypatch):
    def judge():
        found = double.learn_baseline(BATCH[:many], TITLES[:known])
        return found, double.judge(BATCH[:many], found)

    (now, found), _ = judge(), always_set_thresholds(monkeypatch)
    before, known_found = judge()
    assert now.thresholds == before.thresholds
    np.testing.assert_array_equal(found.score, known_found.score)
    assert found.reason == known_found.reason


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "cascade", "slips"])
def test_own_thresholds_are_those_of_the_scores_that_titles_are_judged_by(kind, double, monkeypatch):
    """Beside a reference that sets none: fragments, a second look and slips count in learning as in judging."""
    scanner = {
        "plain": lambda: double,
        "cascade": Cascade,
        "slips": lambda: SpellingDouble(monkeypatch, "cpu"),
    }[kind]()
    baseline = scanner.learn_baseline(BATCH, TITLES[:200])
    assert baseline.own_thresholds and (baseline.band is not None) == (kind == "cascade")
    found = scanner.judge(BATCH, baseline)
    above = (found.score > baseline.thresholds[0]).sum()
    assert baseline.flaggable is not None
    assert baseline.flaggable <= above <= baseline.flaggable + baseline.left_out
    if kind == "slips":
        assert baseline.slips is not None and baseline.slips.batch_size == len(BATCH)


def test_fragments_weigh_as_much_as_without_a_reference_where_thresholds_are_the_titles_own(double):
    beside = double.learn_baseline(BATCH, TITLES[:200])
    rows, table = np.arange(len(BATCH)), beside.index
    traits = ready.describe_traits(ready.mark_words(BATCH, double.read(BATCH)))
    shared = table.find(traits.words.cut)
    scored = baseline_learning.score_rows(double.scoring, beside, traits, rows, shared)
    by_reference = baseline_learning.replace(beside, own_thresholds=False)
    plain = baseline_learning.score_rows(double.scoring, by_reference, traits, rows, shared)
    log_odds = baseline_learning.take_log_odds(beside, scored.worst)
    np.testing.assert_allclose(scored.score - plain.score, weigh_fragments(log_odds, FRAGMENT_WEIGHT), atol=1e-5)
    own = baseline_learning.take_own_scores(beside, scored.score, scored.worst)
    np.testing.assert_allclose(own, plain.score, atol=1e-5)
