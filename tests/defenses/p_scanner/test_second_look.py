"""A cascade: few titles are open, the language model counts there, and thresholds are those of the joined scores."""

from dataclasses import replace

import numpy as np
import pytest
from ready_doubles import ReadyDouble, make_titles, mark

from cowbird.defenses.p_scanner import second_look
from cowbird.defenses.p_scanner.calibrated import CalibratedScanner, load_calibrated_scanner
from cowbird.defenses.p_scanner.catalog_judge import judge_once
from cowbird.defenses.p_scanner.scoring import READY_SMALL_SCORING, load_scoring
from cowbird.defenses.p_scanner.second_look import (
    MAX_LOOK,
    OPEN_TITLES,
    OpenBand,
    SecondLook,
    cut_title,
    join_looks,
)
from cowbird.errors import UserError

CLEAN = make_titles(900)


class Reader:
    """A language model that is sure of one word, and counts what it reads."""

    record = None

    def __init__(self, word="Falcon"):
        self.word, self.asked = word, []

    def read(self, titles):
        self.asked += titles
        return mark(titles, (self.word,), high=6.0, low=-8.0)


class Cascade(ReadyDouble):
    """A small tagger that knows nothing, and a reader behind it."""

    def __init__(self, word="Falcon"):
        super().__init__(suspicious=())
        self.scoring = load_scoring(READY_SMALL_SCORING)
        self.reader = Reader(word)
        self.second = SecondLook(lambda: self.reader, "reader")


def share_with(word, titles, chosen):
    return np.mean([word in title.split() for title, here in zip(titles, chosen, strict=True) if here])


@pytest.mark.parametrize("reference", [(), pytest.param(tuple(CLEAN[:400]), marks=pytest.mark.slow)])
def test_the_language_models_word_decides_among_open_titles(reference):
    titles, told = CLEAN[400:], {}
    for word in ("never", "Falcon"):
        found = judge_once(Cascade(word), titles, reference, 0.02, 0.05)
        told[word] = share_with("Falcon", titles, found.flagged)
        assert 0 < found.flagged.sum() <= 20
        said = [reason for reason, flag in zip(found.reason, found.flagged, strict=True) if flag]
        assert ("language model 6" in " ".join(said)) == (word == "Falcon")
    assert told["Falcon"] > 0.6
    assert told["never"] < 0.2


def test_few_titles_are_read_and_each_once(monkeypatch):
    monkeypatch.setattr(second_look, "OPEN_TITLES", 30)
    cascade = Cascade()
    judge_once(cascade, CLEAN[:300], (), 0.02, 0.05)
    assert cascade.second.looked == len(set(cascade.reader.asked))
    assert 30 <= cascade.second.looked <= 33
    assert len(cascade.reader.asked) == cascade.second.looked, "what is shown is not read again"


def test_the_language_model_says_where():
    """The small tagger marks nothing here; what is shown is the place that the language model means."""
    found = judge_once(Cascade(), CLEAN[400:], CLEAN[:400], 0.02, 0.05)
    for title, start, end, reason, flag in zip(
        CLEAN[400:], found.start, found.end, found.reason, found.flagged, strict=True
    ):
        if flag and "language model 6" in reason:
            assert title[start:end].strip() == "Falcon"
            assert "at 'Falcon'" in reason
    assert found.flagged.any()


def test_nothing_is_loaded_before_a_title_is_open():
    look = SecondLook(lambda: pytest.fail("loaded"), "reader")
    band = OpenBand(0.0, 1.0)
    score = np.array([-3.0, 4.0], dtype=np.float32)
    assert look.join(["a", "b"], score, band).tolist() == [-3 - MAX_LOOK, 4 + MAX_LOOK]


def test_titles_that_are_not_open_keep_their_place():
    score = np.array([-5, -1, 0, 0.5, 1, 3], dtype=np.float32)
    for looks in (-MAX_LOOK, 0.0, MAX_LOOK):
        opened = np.where((score >= 0) & (score <= 1), looks, np.nan).astype(np.float32)
        joined = join_looks(score, opened, OpenBand(0.0, 1.0))
        assert (np.diff(joined) > 0).all()


@pytest.mark.parametrize("many", [1, 7, 100, 1000, 10_000])
def test_a_band_leaves_so_many_titles_open_or_all_of_fewer(many):
    score = np.random.default_rng(0).normal(size=many).astype(np.float32)
    band = OpenBand.choose(score)
    assert band.covers(score).sum() == min(many, OPEN_TITLES)
    assert band.limit(score) is band


def test_a_flood_of_open_titles_narrows_the_band():
    band = OpenBand(0.0, 10.0)
    score = np.random.default_rng(0).uniform(0, 10, 2000).astype(np.float32)
    assert band.limit(score).covers(score).sum() == OPEN_TITLES
    assert band.limit(score).high == band.high
    assert band.limit(np.full(2000, 5, dtype=np.float32)).covers(np.full(2000, 5, dtype=np.float32)).sum() == 0


def test_no_titles_leave_nothing_open():
    band = OpenBand.choose(np.empty(0, dtype=np.float32))
    assert not band.covers(np.array([-1.0, 0.0, 9.0], dtype=np.float32)).any()


def test_of_a_long_title_both_ends_are_read():
    assert cut_title("short") == "short"
    cut = cut_title("a" * 5000 + "z")
    assert len(cut) < 400
    assert cut.startswith("a")
    assert cut.endswith("z")


@pytest.mark.slow
def test_a_calibration_keeps_its_bands(tmp_path):
    cascade = Cascade()
    made = CalibratedScanner.calibrate(cascade, CLEAN[:400], fpr=0.02)
    assert made.record.tagger == "cascade"
    made.save(tmp_path / "scanner")
    again = load_calibrated_scanner(tmp_path / "scanner", scanner=cascade)
    assert again.inventory.bands == made.inventory.bands
    assert again.key == made.key
    for judge in ("judge_titles", "judge_apart"):
        first, second = getattr(made, judge)(CLEAN[400:]), getattr(again, judge)(CLEAN[400:])
        assert first.score.tolist() == second.score.tolist()
        assert first.flagged.tolist() == second.flagged.tolist()


def test_a_calibration_of_a_cascade_without_bands_is_refused(tmp_path):
    made = CalibratedScanner.calibrate(Cascade(), CLEAN[:200], fpr=0.02)
    made.inventory = replace(made.inventory, bands={})
    made.save(tmp_path / "scanner")
    with pytest.raises(UserError, match="does not hold a calibrated scanner"):
        load_calibrated_scanner(tmp_path / "scanner", scanner=Cascade())


@pytest.mark.slow
def test_fresh_clean_titles_of_a_cascade_are_flagged_at_about_the_rate_asked_for():
    rates = []
    for seed in range(3):
        titles = make_titles(900, seed)
        made = CalibratedScanner.calibrate(Cascade("Castle"), titles[:500], fpr=0.05)
        rates += [made.judge_apart(titles[500:]).flagged.mean(), made.judge_titles(titles[500:]).flagged.mean()]
    assert 0.02 < np.mean(rates) < 0.09
