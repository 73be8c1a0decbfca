"""What a scan says of a reference that is too small for the catalogue: that it is, and how many titles it takes."""

import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from cowbird.defenses.p_scanner.calibrated import CalibratedScanner
from cowbird.scanning.ready_scorer import ReadySettings, describe_basis, format_ready_basis, open_ready_scanner
from defenses.p_scanner.ready_doubles import ContextDouble, ReadyDouble, make_titles

MANY = 300


def make_catalog(folder, titles, name="catalog.jsonl"):
    (folder / name).write_text("".join(json.dumps({"title": title}) + "\n" for title in titles))
    return folder / name


def say(scorer):
    console = Console(width=500, record=True, file=io.StringIO())
    console.print(format_ready_basis(scorer))
    return " ".join(console.export_text().split())


def scan(folder, reference, double=None, titles=None):
    catalog = make_catalog(folder, titles or make_titles(MANY, seed=3))
    before = make_catalog(folder, make_titles(reference, seed=4), "before.jsonl")
    return open_ready_scanner(double or ReadyDouble(), catalog, "cpu", ReadySettings(before))


def test_a_reference_that_is_too_small_is_told(tmp_path):
    scorer = scan(tmp_path, 60)
    said, basis = say(scorer), describe_basis(scorer)
    assert "The reference is too small: 60 titles beside 300 of this catalogue. No rate can be promised by it" in said
    assert "So titles were judged as without it, and set their own thresholds." in said
    assert "It takes 256 titles or more: --reference FILE." in said
    assert "says what is new and sets thresholds" not in said
    assert (basis["reference"], basis["reference_role"], basis["flaggable"]) == (60, "too small", 2)
    cascade = say(replace(scorer, tagger="cascade"))
    assert "With a reference as large as the catalogue it flagged all" in cascade


@pytest.mark.parametrize("reference", [60, 150])
def test_about_as_many_clean_titles_are_flagged_as_is_said(reference, tmp_path):
    titles = make_titles(MANY, seed=3)
    scorer = scan(tmp_path, reference, titles=titles)
    found = re.search(r"about (\d+) of 300 clean titles are flagged", say(scorer))
    assert found is not None
    expected = int(found.group(1))
    assert expected - 1 <= scorer.scan(titles).flagged.sum() <= expected + 1


def test_a_reference_that_sets_no_thresholds_is_told(tmp_path):
    scorer = scan(tmp_path, 150)
    said = say(scorer)
    assert "A reference of 150 titles, taken for clean, says what is new. It is too small to set thresholds" in said
    assert "for 300 titles, so they set their own. That takes 256 titles or more." in said
    assert "It rests on 300 titles." in said
    assert describe_basis(scorer)["reference_role"] == "says what is new"


def test_a_reference_that_is_large_enough_is_told_as_before(tmp_path):
    scorer = scan(tmp_path, 256)
    assert "A reference of 256 titles, taken for clean, says what is new and sets thresholds." in say(scorer)
    assert describe_basis(scorer)["reference_role"] == "sets thresholds"
    alone = open_ready_scanner(ReadyDouble(), make_catalog(tmp_path, make_titles(MANY)), "cpu")
    assert describe_basis(alone)["reference_role"] is None
    assert "too small" not in say(alone)


def test_a_small_calibration_is_told(tmp_path):
    known = CalibratedScanner.calibrate(ReadyDouble(), make_titles(100, seed=4))
    scorer = open_ready_scanner(known, make_catalog(tmp_path, make_titles(MANY, seed=3)), "cpu")
    said = say(scorer)
    assert "The calibration is too small: 100 titles beside 300 of this catalogue." in said
    assert "It takes 256 titles or more: cowbird calibrate CATALOG." in said


def test_the_titles_that_a_language_model_was_shown_are_those_of_the_small_reference(tmp_path):
    said = say(scan(tmp_path, 60, ContextDouble()))
    assert "titles of those that are taken for clean" in said
