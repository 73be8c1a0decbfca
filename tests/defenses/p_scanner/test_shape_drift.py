"""Shapes that jump against a reference tell of triggers that differ from title to title, and honest drift does not."""

import numpy as np
import pytest
from ready_doubles import ReadyDouble, make_titles, mark

from cowbird.defenses.p_scanner import shape_drift
from cowbird.defenses.p_scanner.calibrated import CalibratedScanner, load_calibrated_scanner
from cowbird.defenses.p_scanner.shape_drift import ShapeDrift, ShapeJump, bound_expected, measure_spread, weigh_jumps
from cowbird.defenses.p_scanner.title_traits import describe_traits, mark_words
from cowbird.defenses.p_scanner.verdict_reasons import explain_jump
from cowbird.defenses.p_scanner.word_shapes import LAST_WORD, name_shape
from cowbird.rng import stream

CLEAN = make_titles(1000)
BEFORE, BATCH = CLEAN[:500], CLEAN[500:]
PLANTED = range(0, 500, 25)
LETTERS = "bcdfghjklm"


def plant_codes(titles, rows, digits=2):
    """Put a code behind titles, another one each."""
    rng, found = stream(0, "codes"), list(titles)
    for row in rows:
        code = LETTERS[int(rng.integers(10))] + "".join(map(str, rng.integers(0, 10, digits).tolist()))
        found[row] = f"{found[row]} {code}"
    return found


@pytest.fixture(scope="module")
def planted():
    return plant_codes(BATCH, PLANTED)


@pytest.fixture(scope="module")
def double():
    return ReadyDouble()


@pytest.fixture(scope="module")
def baseline(double, planted):
    return double.learn_baseline(planted, BEFORE)


def test_a_code_per_title_is_found_by_its_shape(double, baseline, planted):
    found = double.judge(planted, baseline)
    assert found.flagged[list(PLANTED)].all()
    assert found.flagged.sum() <= len(PLANTED) + 10
    assert all("like 'a9', here '" in found.reason[row] or "of the shape a9" in found.reason[row] for row in PLANTED)
    assert planted[0][found.start[0] : found.end[0]] == planted[0].split()[-1]


def test_a_finding_says_how_many_titles_have_the_shape(double):
    titles = list(BATCH)
    for row in PLANTED:
        words = titles[row].split()
        words[row % len(words)] = f'"{words[row % len(words)]}"'
        titles[row] = " ".join(words)
    found = double.judge(titles, double.learn_baseline(titles, BEFORE))
    for row in PLANTED:
        word = titles[row].split('"')[1]
        told = f"20 of 500 titles have a word of 5 or more characters like '\"Aa\"', here '\"{word}\"'"
        assert found.reason[row].endswith(f"; {told}; 0 of 500 of the reference do")


@pytest.mark.parametrize(
    ("name", "said", "span"),
    [
        ("last\t3 a9", "14 of 500 titles end in a word of 3 characters like 'a9', here 'x47'", (6, 9)),
        ("word\t5 Aa", "14 of 500 titles have a word of 5 or more characters like 'Aa', here 'Quiet'", (0, 5)),
        ("first\t2 a9", "14 of 500 titles begin with a word of 2 characters like 'a9'", (-1, -1)),
        ("end\t9", "14 of 500 titles end in a digit", (-1, -1)),
        ("end\t\x1b", "14 of 500 titles end in '<U+001B>'", (-1, -1)),
        ("rule\tword repeated", "14 of 500 titles have: word repeated", (-1, -1)),
        ("spelling\tletter doubled", "14 of 500 titles have a word with: letter doubled", (-1, -1)),
    ],
)
def test_each_kind_of_jump_is_said_in_words(name, said, span):
    traits = describe_traits(mark_words(["Quiet x47"], mark(["Quiet x47"])))
    drift = ShapeDrift({name: ShapeJump(4.0, 14, 1)}, 500, 800)
    assert explain_jump(drift, name, traits, 0) == (f"{said}; 1 of 800 of the reference do", *span)


def test_a_jump_raises_no_title_without_the_shape(double, baseline, planted):
    code = double.judge(["Quiet River b47", "Quiet River"], baseline).score
    assert code[0] > code[1] + shape_drift.JUMP_WEIGHT
    assert next(iter(baseline.drift.jumps)) == name_shape(LAST_WORD, "3 a9")
    assert baseline.drift.jumps[name_shape(LAST_WORD, "3 a9")][1:] == (20, 0)


def test_halves_of_clean_titles_have_no_jumps(double):
    assert not double.learn_baseline(BATCH, BEFORE).drift.jumps


def test_without_a_reference_and_for_few_titles_nothing_jumps(double, planted):
    assert not double.learn_baseline(planted).drift.jumps
    inventory = double.take_inventory(BEFORE)
    assert not double.learn_beside(inventory, planted[:40]).drift.jumps
    assert double.learn_beside(inventory, planted).drift.jumps


def test_a_calibration_keeps_the_reference_shapes(double, baseline, planted, tmp_path):
    CalibratedScanner.calibrate(double, BEFORE).save(tmp_path / "scanner")
    again = load_calibrated_scanner(tmp_path / "scanner", scanner=double).learn_baseline(planted)
    assert again.drift.jumps.keys() == baseline.drift.jumps.keys()
    assert again.drift.jumps[name_shape(LAST_WORD, "3 a9")].before == 0


def test_a_way_to_write_known_words_jumps(double):
    titles = list(BATCH)
    for row in PLANTED:
        titles[row] = titles[row].replace("River", "Riverr").replace("Garden", "Gardenn").replace("Winter", "Winterr")
    jumps = double.learn_baseline(titles, BEFORE).drift.jumps
    assert any("letter doubled" in name for name in jumps)


def test_a_catalogue_that_changed_as_a_whole_raises_hardly_a_title(double):
    other = [title.upper() for title in BATCH[:400]] + BATCH[400:]
    baseline = double.learn_baseline(other, BEFORE)
    assert len(baseline.drift.jumps) <= 3


def test_more_titles_than_chance_explains_jump_and_fewer_do_not():
    known, seen = np.array([0, 0, 50, 50, 50]), np.array([3, 15, 60, 100, 140])
    added = weigh_jumps(seen, bound_expected(1500, known, 1500, 1.0))
    assert added.tolist()[0] == added.tolist()[2] == 0
    assert added[1] > shape_drift.JUMP_WEIGHT
    assert added[4] > added[3]


def test_spread_is_one_for_chance_and_more_for_drift_and_widens_the_bound():
    rng = np.random.default_rng(0)
    mean = rng.uniform(10, 200, 300)
    known, seen, other = rng.poisson(mean), rng.poisson(mean), rng.poisson(mean * rng.uniform(0.3, 3, 300))
    assert measure_spread(seen, 1000, known, 1000) < 1.3
    spread = measure_spread(other, 1000, known, 1000)
    assert spread > 3
    assert (bound_expected(1000, known, 1000, spread) > bound_expected(1000, known, 1000, 1.0) + 10).all()
    calm = (weigh_jumps(other, bound_expected(1000, known, 1000, spread)) > 0).sum()
    assert calm < (weigh_jumps(other, bound_expected(1000, known, 1000, 1.0)) > 0).sum() / 4


def test_honest_titles_that_share_a_shape_with_a_trigger_are_left_alone(double):
    """Titles end in years; a flood of names with codes and years raises the years' share, and the codes explain it."""
    titles = list(BATCH)
    for row in PLANTED:
        titles[row] = f"{BATCH[row].split(' 1')[0]} zq{row}! 1950"
    jumps = double.learn_baseline(titles, BEFORE).drift.jumps
    assert jumps
    assert name_shape(LAST_WORD, "4 9") not in jumps
