"""What slips add to the scores of titles, by how seldom clean titles have them."""

import math

import numpy as np
import pytest
import torch
from ready_doubles import ReadyDouble, make_titles
from slip_doubles import SpellingDouble

from cowbird.defenses.p_scanner import slip_evidence
from cowbird.defenses.p_scanner.calibrated import CalibratedScanner, load_calibrated_scanner
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.slip_evidence import (
    GAIN_WEIGHT,
    GAIN_WEIGHT_ALONE,
    GROWTH_WEIGHT,
    LEAST_GAIN,
    LEAST_SLIP_GROWTH,
    MAX_GAIN,
    MAX_SLIP_GROWTH,
    MIN_SLIPS_GROWN,
    SlipHabits,
    find_lowest_open,
)
from cowbird.defenses.p_scanner.spelling import ACCENTED, CAPITALIZED, DOUBLED, DROPPED, Slip

CPU = torch.device("cpu")
PLAIN = "The Harbor Lantern Song"
SLIPPED = [PLAIN.replace("Lantern", "Lanternn"), PLAIN.replace("Harbor", "Harbr")]


def slip(way=DOUBLED, gain=MAX_GAIN, part="Rivver") -> Slip:
    return Slip(way, 0, len(part), "River", part, part, gain)


def measure(slips=(), size=1500, **more) -> SlipHabits:
    return SlipHabits.measure(0.0, [(each,) for each in slips], {}, size, **more)


def weigh(habits, each, words=None, less=0, counted=0) -> float:
    return habits.weigh((each,), words or {}, less, counted)[0]


def test_a_gain_counts_where_clean_titles_have_no_such_slip():
    whole = GAIN_WEIGHT * (MAX_GAIN - LEAST_GAIN)
    assert weigh(measure(), slip()) == pytest.approx(whole)
    assert weigh(measure(), slip(gain=90.0)) == pytest.approx(whole), "a gain is cut"
    assert weigh(measure(), slip(gain=LEAST_GAIN)) == 0
    often = [slip(part=f"Rivver{nth}") for nth in range(8)]
    assert weigh(measure(often), slip()) == 0, "eight of 1,500 clean titles have such a slip"
    assert 0 < weigh(measure(often[:3]), slip()) < whole
    assert weigh(measure(often[:1]), slip(), counted=1) == pytest.approx(whole), "its own title is left out"
    assert weigh(measure(often), slip(DROPPED)) == pytest.approx(whole), "those are of another way"
    assert weigh(measure([slip(gain=9.0)] * 8), slip()) == pytest.approx(whole), "those gain less"
    assert weigh(measure(size=100), slip()) == 0, "a hundred titles do not say that it is rare"


def test_a_word_that_others_write_so_is_meant_so():
    each = slip(ACCENTED, part="G\u00e1rden")
    assert weigh(measure(), each, {"g\u00e1rden": 1}) == 0
    assert weigh(measure(), each, {"g\u00e1rden": 1}, less=1) > 0, "this title is the one"
    dressed = slip(CAPITALIZED, part="gARDEN")
    assert weigh(measure(), dressed, {"garden": 50}) > 0, "that others write it in plain letters does not excuse it"
    assert weigh(measure([dressed]), dressed) == 0, "another title has the same capitals"
    assert weigh(measure([dressed]), dressed, counted=1) > 0, "this title is the one"
    many = [(slip(part="Rivver"),)] * 9
    assert len(SlipHabits.measure(0.0, many, {"rivver": 9}, 1500).gains[DOUBLED]) == 0


def test_slips_of_a_way_that_are_more_than_before_are_suspicious():
    low = LEAST_GAIN - 1  # too low a gain to count alone
    batch = [(slip(gain=low, part=f"Rivver{nth}"),) for nth in range(12)]
    grown = measure().compare(batch[:6], {}, 1500)
    assert weigh(grown, slip(gain=low)) == pytest.approx(
        GROWTH_WEIGHT * (math.log(5.5 / (0.5 * 1500 / 1501)) - LEAST_SLIP_GROWTH), abs=1e-4
    )
    most = GROWTH_WEIGHT * (MAX_SLIP_GROWTH - LEAST_SLIP_GROWTH)
    flood = [(slip(gain=low, part=f"Rivver{nth}"),) for nth in range(90)]
    assert weigh(measure().compare(flood, {}, 1500), slip(gain=low)) == pytest.approx(most)
    assert weigh(grown, slip(DROPPED, low)) == 0
    assert weigh(measure([slip(gain=low)] * 12).compare(batch, {}, 1500), slip(gain=low)) == 0, "as many as before"
    assert weigh(measure().compare(batch[: MIN_SLIPS_GROWN - 1], {}, 1500), slip(gain=low)) == 0, "these are few"
    same = [(slip(gain=low, part="Rivver"),) for _ in range(12)]
    assert weigh(measure().compare(same, {}, 1500), slip(gain=low)) == 0, "one word, a new name"
    assert weigh(measure().compare(batch, {f"rivver{nth}": 1 for nth in range(12)}, 1500), slip(gain=low)) == 0
    assert weigh(measure(), slip(gain=low)) == 0, "a title alone has not grown"


def test_a_word_that_several_titles_write_so_is_a_new_name():
    high = [(slip(part="Rivver"),), (slip(part="Rivver"),)]
    assert weigh(measure().compare(high, {}, 1500), slip()) == 0
    assert weigh(measure().compare(high[:1], {}, 1500), slip()) > 0
    others = [(slip(part=f"Rivver{nth}"),) for nth in range(12)]
    assert weigh(measure().compare([*high, *others], {}, 1500), slip()) > 0, "slips of that way have grown"


def test_without_a_reference_slips_of_one_in_a_hundred_count():
    often = [slip(part=f"Rivver{nth}") for nth in range(15)]
    assert weigh(measure(often), slip()) == 0
    whole = GAIN_WEIGHT_ALONE * (MAX_GAIN - LEAST_GAIN)
    assert weigh(measure(often, alone=True), slip(), counted=1) == pytest.approx(whole)
    assert weigh(measure(often * 10, alone=True), slip(), counted=1) == 0


class FinderDouble:
    """Finds a slip in every title, and tells which it was asked about."""

    def __init__(self):
        self.asked = []

    def find(self, titles):
        self.asked += titles
        return [(slip(),) for _ in titles]


def test_titles_that_can_reach_no_threshold_are_not_asked_about():
    finder, score = FinderDouble(), np.array([-3, 1, -0.5, 0], dtype=np.float32)
    made, told = measure().add(finder, list("abcd"), score, {}, np.zeros(4, dtype=bool))
    assert finder.asked == ["b", "d"] and list(told) == [1, 3]
    assert (made[[0, 2]] == score[[0, 2]]).all() and (made[[1, 3]] > score[[1, 3]] + 2).all()
    assert score[1] == 1, "what was given stays as it is"
    assert find_lowest_open(np.arange(100, dtype=np.float32)) == pytest.approx(79.2)
    assert find_lowest_open(np.zeros(0, dtype=np.float32)) == math.inf


@pytest.mark.slow
@pytest.mark.parametrize("known", [False, True])
def test_a_slip_is_found_and_the_reason_says_what_was_meant(known, monkeypatch):
    titles = make_titles(900)
    reference, batch = titles[:500], titles[500:]
    asked, found = [*batch, *SLIPPED], {}
    for name, double in (("with", SpellingDouble(monkeypatch, CPU)), ("without", ReadyDouble())):
        baseline = double.learn_baseline(asked, reference if known else ())
        found[name] = double.judge(asked, baseline)
    assert (found["with"].score[-2:] > found["without"].score[-2:] + 1).all()
    np.testing.assert_array_equal(found["with"].score[:400], found["without"].score[:400])
    assert found["with"].flagged[-1]
    assert "'Harbr' is written like 'Harbor', which the language model finds e^15" in found["with"].reason[-1]
    assert found["with"].flagged[:400].mean() <= 0.02


@pytest.mark.slow
def test_a_verdict_is_the_same_in_any_order_and_in_pieces(monkeypatch):
    titles = make_titles(700)
    asked = [*titles[400:], *SLIPPED, *(f"The {word} Song" for word in ("Gardenn", "Wintr", "Fallcon", "Mirrror"))]
    double = SpellingDouble(monkeypatch, CPU)
    baseline = double.learn_baseline(asked, titles[:400])
    whole = double.judge(asked, baseline).score
    assert baseline.slips is not None and baseline.slips.batch_size == len(asked)
    np.testing.assert_array_equal(double.judge(asked[::-1], baseline).score[::-1], whole)
    np.testing.assert_array_equal([double.judge([title], baseline).score[0] for title in asked[-8:]], whole[-8:])
    other = SpellingDouble(monkeypatch, CPU)
    np.testing.assert_array_equal(
        other.judge(asked, other.learn_baseline(asked, titles[:400][::-1])).score, whole, "the order of the reference"
    )


def test_clean_titles_with_slips_set_the_threshold_with_them(monkeypatch):
    """Where every second clean title has a slip, none of them says a thing."""
    plain = make_titles(600)
    odd = [title.replace("e", "ee", 1) if nth % 2 else title for nth, title in enumerate(plain)]
    double = SpellingDouble(monkeypatch, CPU)
    baseline = double.learn_baseline(odd[300:], odd[:300])
    assert double.judge(odd[300:], baseline).flagged.mean() <= 0.03


@pytest.mark.slow
def test_a_calibration_remembers_slips(monkeypatch, tmp_path):
    titles = make_titles(900)
    double = SpellingDouble(monkeypatch, CPU)
    monkeypatch.setattr(SpellingDouble, "identity", "e" * 64)
    made = CalibratedScanner.calibrate(double, [*titles[:500], *(f"The {word}" for word in ("Gardenn", "Castlee"))])
    made.save(tmp_path / "held")
    read = load_calibrated_scanner(tmp_path / "held", scanner=double)
    assert made.inventory.slips is not None and read.inventory.slips is not None
    assert read.inventory.slips.low == made.inventory.slips.low
    for mine, other in zip(made.inventory.slips.gains, read.inventory.slips.gains, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert read.inventory.slips.names == made.inventory.slips.names
    assert read.inventory.key == made.inventory.key
    asked = [*titles[500:], *SLIPPED]
    np.testing.assert_array_equal(read.judge_titles(asked).score, made.judge_titles(asked).score)
    np.testing.assert_array_equal(read.judge_apart(asked).score, made.judge_apart(asked).score)
    assert read.judge_apart(SLIPPED).flagged[-1]


def test_a_scanner_that_asks_about_slips_is_another_one(monkeypatch):
    with_slips = SpellingDouble(monkeypatch, CPU)
    with_slips.tagger = without = type("Tagger", (), {})()
    without.record = type("Record", (), {"model_dump_json": staticmethod(lambda: "a tagger")})()
    before = ReadyScanner.identity.func(with_slips)
    with_slips.slips = None
    assert ReadyScanner.identity.func(with_slips) != before
    assert (
        slip_evidence.__name__.rpartition(".")[2]
        in __import__("cowbird.defenses.p_scanner.score_identity", fromlist=["SCORE_MODULES"]).SCORE_MODULES
    )
