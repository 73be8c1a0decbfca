"""The ready scanner as a defense: it flags what is planted, alone or beside a calibration."""

import numpy as np
import pytest

from cowbird.defenses import ready_scanner
from cowbird.defenses.p_scanner.calibrated import CalibratedScanner
from cowbird.defenses.ready_scanner import ReadyScannerDefense
from cowbird.errors import UserError
from cowbird.notices import collect_notices
from cowbird.scanning.detectors import make_detector
from defenses.p_scanner.ready_doubles import ReadyDouble, make_titles

PLANTED = [f"{title} 5v" if nth < 8 else title for nth, title in enumerate(make_titles(160))]


@pytest.fixture(scope="module")
def double():
    return ReadyDouble()


@pytest.fixture(autouse=True)
def loaded(monkeypatch, double):
    monkeypatch.setattr(ready_scanner, "_load_scanner", lambda place, tagger: double)


def test_what_is_planted_is_flagged_without_a_fit():
    verdict = ReadyScannerDefense(device="cpu").judge(["", *PLANTED])
    assert verdict.flagged[1:9].all()
    assert verdict.flagged[9:].mean() < 0.03
    assert verdict.found.score[0] == -np.inf


def test_a_flagged_span_can_be_stripped():
    verdict = ReadyScannerDefense(device="cpu", action="strip").judge(PLANTED)
    assert verdict.titles[0] == PLANTED[0].removesuffix(" 5v")
    assert not verdict.dropped[:8].any()


@pytest.mark.slow
def test_a_calibration_tells_what_is_new(double, tmp_path):
    CalibratedScanner.calibrate(double, make_titles(400, seed=3)).save(tmp_path / "before")
    flooded = [f"{title} Deluxe" if nth < 48 else title for nth, title in enumerate(make_titles(160))]
    alone = ReadyScannerDefense(device="cpu").judge(flooded)
    beside = ReadyScannerDefense(device="cpu", calibration=tmp_path / "before").judge(flooded)
    assert beside.flagged[:48].mean() > 0.9 > alone.flagged[:48].mean()
    one = ReadyScannerDefense(device="cpu", calibration=tmp_path / "before").judge(["Red River 5v"])
    assert one.flagged.all()
    with pytest.raises(UserError, match="does not hold a calibrated scanner"):
        ReadyScannerDefense(device="cpu", calibration=tmp_path).judge(flooded)


def test_few_titles_are_judged_by_rules_and_that_is_told():
    with collect_notices() as told:
        verdict = ReadyScannerDefense(device="cpu").judge(["Red River", "Blue \u200bGarden"])
    assert verdict.flagged.tolist() == [False, True]
    assert any("rules for characters judge" in str(each) for each in told.list())


def test_the_tagger_is_chosen(monkeypatch, double):
    asked = []
    monkeypatch.setattr(ready_scanner, "_load_scanner", lambda place, tagger: asked.append(tagger) or double)
    for tagger in ("llm", "small"):
        ReadyScannerDefense(device="cpu", tagger=tagger).judge(PLANTED)
    assert asked == ["llm", "small"]


def test_a_scan_says_how_it_uses_it():
    with pytest.raises(UserError, match="learns from a whole catalogue first") as error:
        make_detector("ready_scanner")
    assert "leave --detector out" in error.value.hint
