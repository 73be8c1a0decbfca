"""`--tagger small`: scans and calibrations without a language model."""

import json

import numpy as np
import polars
import pytest

import cowbird
from cowbird.cli.options import choose_tagger
from cowbird.defenses.p_scanner import loading, ready
from cowbird.errors import ExitCode, UserError
from doubles.command import call_command

WORDS = ("Silver", "River", "Garden", "Winter", "Paper", "Orange", "Window", "Mountain", "Letter", "Stone", "Cloud")


def draw_titles(many, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=4, replace=False)) for _ in range(many)]


@pytest.fixture
def call(monkeypatch, capsys):
    return lambda *words: call_command(monkeypatch, capsys, *words)


@pytest.fixture
def catalog(tmp_path):
    titles = draw_titles(300)
    titles[7] += "\u200b"
    titles[8] += " x9q!!"
    polars.DataFrame({"id": range(300), "title": titles}).write_csv(tmp_path / "items.csv")
    return tmp_path / "items.csv"


def test_a_catalogue_is_scanned_without_a_language_model(call, catalog, tmp_path, monkeypatch):
    monkeypatch.setattr("cowbird.defenses.p_scanner.tagger.load_reader", None)
    out = tmp_path / "findings.csv"
    code, said, err = call("scan", catalog, "--out", out, "--tagger", "small", "--json")
    assert code == ExitCode.FINDINGS, err
    told = json.loads(said)
    rows = polars.read_csv(out)
    assert told["flagged"] == rows["flagged"].sum()
    assert rows["flagged"][7]


@pytest.mark.slow
def test_a_calibration_knows_its_tagger(call, tmp_path):
    polars.DataFrame({"title": draw_titles(300)}).write_csv(tmp_path / "clean.csv")
    code, _, err = call("calibrate", tmp_path / "clean.csv", "--out", tmp_path / "scanner", "--tagger", "small")
    assert code == ExitCode.CLEAN, err
    polars.DataFrame({"title": [draw_titles(1, 5)[0] + "\u200b"]}).write_csv(tmp_path / "new.csv")
    code, _, err = call("scan", tmp_path / "new.csv", "--scanner", tmp_path / "scanner", "--out", tmp_path / "f.csv")
    assert code == ExitCode.FINDINGS, err
    scanner = cowbird.load_scanner(tmp_path / "scanner")
    assert scanner.scanner.tagger_name == "small"


@pytest.mark.parametrize("other", [("--detector", "character_rules"), ("--scanner", "x")])
def test_what_has_its_own_way_to_read_takes_no_tagger(call, catalog, tmp_path, other):
    code, _, err = call("scan", catalog, "--out", tmp_path / "f.csv", "--tagger", "small", *other)
    assert code == ExitCode.ERROR
    assert "--tagger" in err
    assert not (tmp_path / "f.csv").exists()


def test_an_unknown_tagger_is_told(call, catalog, tmp_path):
    code, _, err = call("scan", catalog, "--out", tmp_path / "f.csv", "--tagger", "large")
    assert code == ExitCode.ERROR
    assert "small" in err


def test_a_list_is_scanned(catalog):
    titles = polars.read_csv(catalog)["title"].to_list()
    found = cowbird.load_scanner(tagger="small").scan(titles)
    assert found["flagged"][7]
    assert found.height == len(titles)


@pytest.mark.slow
def test_a_shape_that_is_new_is_marked_where_it_stands():
    before, titles = draw_titles(400), draw_titles(300, seed=1)
    rng = np.random.default_rng(0)
    for nth in range(6):
        titles[nth] += f" {rng.integers(1, 9)}v"
    found = cowbird.load_scanner(tagger="small").scan(titles, reference=before)
    assert set(found["fragment"][:6].to_list()) - {None}
    assert all(text in (None, title.split()[-1]) for title, text in zip(titles[:6], found["fragment"][:6], strict=True))


def test_the_tagger_that_suits_a_device_is_taken(monkeypatch, capsys):
    monkeypatch.setattr(loading, "locate_model", lambda name: "here")
    monkeypatch.setattr(loading, "find_spec", lambda name: object())
    assert [choose_tagger(given, device) for given in (None, "auto") for device in ("cpu", "cuda:1")] == [
        "cascade",
        "llm",
    ] * 2
    assert choose_tagger("small", "cuda") == "small"
    assert not capsys.readouterr().err


def test_without_the_language_model_the_small_tagger_reads_and_that_is_told(call, catalog, tmp_path, monkeypatch):
    def fail(name):
        raise UserError("There is no such model.", "cowbird assets download")

    for room in (loading, ready):
        monkeypatch.setattr(room, "locate_model", fail)
    monkeypatch.setattr(loading, "find_spec", lambda name: object())
    code, out, err = call("scan", catalog, "--out", tmp_path / "f.csv", "--device", "cpu")
    assert code == ExitCode.FINDINGS, err
    assert "The small tagger reads alone" in err
    assert "cowbird assets download" in err
    assert "by the small tagger alone" in " ".join(out.split())
    code, _, err = call("scan", catalog, "--out", tmp_path / "g.csv", "--device", "cpu", "--tagger", "cascade")
    assert code == ExitCode.ERROR  # whoever names it gets it, or is told
    assert "There is no such model" in err


def test_a_cascade_is_not_tuned(call, catalog, tmp_path):
    code, _, err = call("fit-scanner", catalog, "--out", tmp_path / "s", "--tagger", "cascade", "--tune")
    assert code == ExitCode.ERROR
    assert "--tagger small" in err
