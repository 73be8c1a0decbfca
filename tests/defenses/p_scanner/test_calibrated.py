"""A calibration on clean titles: single titles get a threshold and a verdict, batches tell what is new, and the file is
sealed and holds no title."""

import json

import numpy as np
import pytest
import torch
from ready_doubles import ReadyDouble, make_titles

import cowbird
from cowbird.defenses.p_scanner import ready
from cowbird.defenses.p_scanner.calibrated import CalibratedScanner, load_calibrated_scanner
from cowbird.defenses.p_scanner.calibration_file import _seal, read_calibration
from cowbird.defenses.p_scanner.clean_scores import extrapolate_scores, set_threshold
from cowbird.defenses.p_scanner.inventory import MIN_BATCH_TITLES, choose_batch_sizes, measure_spread
from cowbird.errors import UserError
from cowbird.storage import read_tensors, write_tensors

CLEAN = make_titles(700)


@pytest.fixture(scope="module")
def double():
    return ReadyDouble()


@pytest.fixture(scope="module")
def calibrated(double):
    return CalibratedScanner.calibrate(double, CLEAN[:400], fpr=0.02)


@pytest.fixture
def saved(calibrated, tmp_path):
    calibrated.save(tmp_path / "scanner.calibrated")
    return tmp_path / "scanner.calibrated"


def test_a_single_upload_gets_a_verdict_and_a_reason(calibrated):
    found = calibrated.judge_apart(["Red River 5v", "The Winter Song"])
    assert found.flagged.tolist() == [True, False]
    assert found.start[0] == 10
    assert "tagger" in found.reason[0]
    assert not found.reason[1]


def test_titles_that_are_judged_apart_say_nothing_of_each_other(calibrated):
    titles = [f"{title} 5v" for title in CLEAN[400:480]]
    apart = calibrated.judge_apart(titles)
    alone = calibrated.judge_apart(titles[7:8])
    assert apart.score[7] == alone.score[0]
    together = calibrated.judge_titles(titles)
    assert "80 titles share '5v'; log-odds" in together.reason[7]
    assert together.reason[7].endswith("on average, not in the reference")
    assert "titles share" not in apart.reason[7]


@pytest.mark.slow
@pytest.mark.parametrize("together", [1, 300])
def test_fresh_clean_titles_are_flagged_at_about_the_rate_asked_for(double, together):
    rates = []
    for seed in range(2):
        titles = make_titles(700, seed + 5)
        made = CalibratedScanner.calibrate(double, titles[:400], fpr=0.05)
        fresh = titles[400:]
        rates.append((made.judge_apart(fresh) if together == 1 else made.judge_titles(fresh)).flagged.mean())
    assert 0.025 < np.mean(rates) < 0.09


def test_thresholds_lie_between_those_of_known_batches(calibrated):
    inventory = calibrated.inventory
    assert sorted(inventory.scores) == [1, MIN_BATCH_TITLES, 200, 400]
    assert all(len(scores) == 400 for scores in inventory.scores.values())
    bars = [set_threshold(inventory.scores[size], 0.02) for size in (1, MIN_BATCH_TITLES, 200, 400)]
    asked = [inventory.set_threshold(0.02, many) for many in (1, MIN_BATCH_TITLES - 1, MIN_BATCH_TITLES, 200, 400, 999)]
    assert asked == pytest.approx([bars[0], bars[0], bars[1], bars[2], bars[3], bars[3]])
    assert min(bars[1:3]) <= inventory.set_threshold(0.02, 110) <= max(bars[1:3])
    assert choose_batch_sizes(50) == (1, 25, 50)


def test_scores_of_a_whole_batch_are_as_far_from_those_of_halves_as_these_from_those_of_quarters():
    quarter = np.linspace(4, -4, 200, dtype=np.float32)
    np.testing.assert_allclose(extrapolate_scores(quarter, quarter + 0.5), quarter + 1, atol=1e-5)
    assert (np.diff(extrapolate_scores(quarter, quarter + 0.5)) <= 0).all()
    one = quarter.copy()
    one[0] += 10  # a single outlier moves its neighbors little
    assert extrapolate_scores(quarter, one)[10] < quarter[10] + 1


def test_what_is_read_back_judges_alike(calibrated, saved, double, monkeypatch):
    monkeypatch.setattr(ready.ReadyScanner, "load", lambda place="cpu", tagger="llm": double)
    read = cowbird.load_scanner(saved)
    assert isinstance(read, cowbird.CalibratedScanner)
    assert read.key == calibrated.key
    titles = ["Red River 5v", *CLEAN[390:520], "日本語", "", "half \ud800"]
    for ask in ("judge_apart", "judge_titles"):
        first, second = getattr(calibrated, ask)(titles), getattr(read, ask)(titles)
        assert (first.score == second.score).all()
        assert first.reason == second.reason
    assert read.scan(["Red River 5v", None])["flagged"].to_list() == [True, False]


def test_the_file_holds_no_title(saved):
    text = saved.read_bytes()
    assert not any(title.encode() in text for title in CLEAN[:400])


def test_half_characters_are_calibrated_on(double, tmp_path):
    made = CalibratedScanner.calibrate(double, [*CLEAN[:80], "half \ud800 and \udc00"])
    made.save(tmp_path / "scanner")
    assert load_calibrated_scanner(tmp_path / "scanner", scanner=double).inventory.size == 81


def test_what_cannot_be_calibrated_is_refused(double, calibrated):
    with pytest.raises(UserError, match="50 different titles"):
        CalibratedScanner.calibrate(double, [*CLEAN[:30], *CLEAN[:30], " "])
    for rate in (0, 1, float("nan")):
        with pytest.raises(UserError, match="between 0 and 1"):
            CalibratedScanner.calibrate(double, CLEAN[:60], fpr=rate)
        with pytest.raises(UserError, match="between 0 and 1"):
            calibrated.judge_apart(["x"], fpr=rate)


def seal_anew(path, change):
    tensors, header = read_tensors(path)
    record = json.loads(header["record"])
    change(record, tensors)
    header["record"] = json.dumps(record)
    header["seal"] = _seal(header["record"], {name: value.numpy() for name, value in tensors.items()})
    write_tensors(path, tensors, header)


def set_infinite(record, tensors):
    tensors["verdict"][0] = float("inf")


CHANGES = {
    "a number is not finite": set_infinite,
    "an array is missing": lambda record, tensors: tensors.pop("rules"),
    "no scores": lambda record, tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("scores")],
    "a size is no number": lambda record, tensors: tensors.update({"scores x": tensors["scores 1"]}),
    "a size is negative": lambda record, tensors: tensors.update({"scores -1": tensors["scores 1"]}),
    "too few scores": lambda record, tensors: tensors.update({"scores 1": tensors["scores 1"][:9].clone()}),
    "a count is negative": lambda record, tensors: tensors["fragment counts"].fill_(-1),
    "another kind of numbers": lambda record, tensors: tensors.update({"rules": tensors["rules"].to(torch.int32)}),
    "another version": lambda record, tensors: record.update(version="1"),
    "a rate is no share": lambda record, tensors: record.update(fpr=2.0),
    "counts are no numbers": lambda record, tensors: record["words"].update(x="many"),
    "an unknown field": lambda record, tensors: record.update(more=1),
    "more titles than arrays": lambda record, tensors: record.update(titles=401),
    "the record is a list": lambda record, tensors: record.clear(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_hostile_files_are_refused_though_they_are_sealed(saved, change):
    seal_anew(saved, change)
    with pytest.raises(UserError, match="does not hold a calibrated scanner"):
        read_calibration(saved)


def test_damage_and_edits_are_found(saved, double):
    data = saved.read_bytes()
    for broken in (b"", b"{}", data[:200], data[:-8] + bytes(8), data.replace(b"fpr", b"fqr", 1)):
        saved.write_bytes(broken)
        with pytest.raises(UserError):
            load_calibrated_scanner(saved, scanner=double)
    saved.write_bytes(data)
    assert load_calibrated_scanner(saved, scanner=double).record.titles == 400


def test_another_ready_scanner_is_refused_with_the_command_that_mends_it(saved):
    other = ReadyDouble()
    other.identity = "e" * 64
    with pytest.raises(UserError, match="another version of the ready scanner") as caught:
        load_calibrated_scanner(saved, scanner=other)
    assert f"cowbird calibrate CATALOG --tagger llm --fpr 0.02 --out {saved}" in caught.value.hint


def test_a_calibration_of_an_older_form_is_refused_in_words(saved):
    tensors, header = read_tensors(saved)
    write_tensors(saved, tensors, header | {"cowbird": "calibration 1"})
    with pytest.raises(UserError, match="made by another version of Cowbird") as caught:
        read_calibration(saved)
    assert "cowbird calibrate" in caught.value.hint


def test_batches_of_clean_titles_tell_how_far_they_are_from_the_rate(calibrated, saved):
    """Of eight batches two hold a brand, whose titles pass together."""
    parts = [np.arange(50, dtype=np.float32) / 50 for _ in range(8)]
    for part in parts[:2]:
        part[:10] += 5
    clean = np.sort(np.concatenate(parts))[::-1]
    spread = measure_spread(parts, clean)
    assert spread.shape == (40, 2)
    assert spread[20].tolist() == pytest.approx([0, 0.2])  # below the brands' scores, above all others
    assert (np.diff(spread, axis=0) >= 0).all()
    told = calibrated.inventory.tell_spread(0.02, 400)
    assert told is not None and 0 <= told[0] <= 0.02 <= told[1] <= 1
    assert read_calibration(saved)[1].tell_spread(0.02, 400) == pytest.approx(told)
    assert calibrated.learn_baseline(CLEAN[400:]).spread == pytest.approx(calibrated.inventory.tell_spread(0.02, 300))
    assert calibrated.inventory.tell_spread(0.02, 1) is None
    assert calibrated.inventory.tell_spread(0.5, 400) is None


def test_a_larger_batch_never_gets_a_lower_threshold():
    """A brand stood in a quarter and in no half, so scores seem to fall."""
    quarter, half = (np.sort(np.random.default_rng(0).normal(size=200).astype(np.float32))[::-1] + up for up in (2, 0))
    assert (extrapolate_scores(quarter, half) == half).all()
    assert (extrapolate_scores(half, quarter) > quarter).all()


@pytest.mark.slow
def test_a_reason_tells_how_much_more_frequent_a_fragment_is(double):
    before = [f"{title} 5v" if nth < 2 else title for nth, title in enumerate(CLEAN[:400])]
    calibrated = CalibratedScanner.calibrate(double, before)
    titles = [f"{title} 5v" if nth < 40 else title for nth, title in enumerate(CLEAN[400:600])]
    reason = calibrated.judge_titles(titles).reason[3]
    assert reason.startswith("40 titles share '5v'; log-odds")
    assert ", 40.0 times as frequent as in the reference; 40 of 200 titles end in " in reason  # before it 2 of 400
