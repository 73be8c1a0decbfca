"""Experiments from Python."""

import tomllib

import pandas as pd
import polars as pl
import pytest

import cowbird
from cowbird.api import experiments
from cowbird.errors import UserError
from cowbird.experiments.run import RunOutcome

SPEC = """
name = "tiny"
ks = [5]

[dataset]
name = "synthetic"
users = 60
items = 30

[[victims]]
name = "sasrec"
hidden = 8
layers = 1
epochs = 1

[[attacks]]
name = "basic_replacement"
targets = { count = 2 }
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A finished run: its folder, its results, and what was heard of it."""
    heard, out = [], tmp_path_factory.mktemp("run") / "out"
    return (
        out,
        cowbird.Experiment.from_text(SPEC).run(out, device="cpu", progress=lambda *told: heard.append(told)),
        heard,
    )


def test_results_are_frames(ran):
    _, results, heard = ran
    frame = results.to_polars()
    assert isinstance(frame, pl.DataFrame)
    assert frame.height == len(results.rows) > 0
    assert set(frame["metric"]) >= {"hr", "exposure_hr"}
    assert frame.columns == list(results.rows[0].model_dump())
    pandas = results.to_pandas()
    assert isinstance(pandas, pd.DataFrame)
    assert len(pandas) == frame.height
    assert (results.errors, results.complete) == ((), True)
    assert ("cells (victim × seed)", 1, 1, "") in heard
    assert any("cells" not in what for what, *_ in heard), "fits are told as well"


def test_results_are_saved_and_loaded(ran, tmp_path):
    out, results, _ = ran
    results.save(tmp_path / "mine.jsonl")
    assert (tmp_path / "mine.jsonl").read_bytes() == (out / "results.jsonl").read_bytes()
    for place in (out, str(out), out / "results.jsonl", str(tmp_path / "mine.jsonl")):
        assert cowbird.Results.load(place).rows == results.rows
    with pytest.raises(UserError, match="can't be read"):
        cowbird.Results.load(tmp_path / "gone.jsonl")
    with pytest.raises(UserError, match="is a folder"):
        results.save(tmp_path)


def test_a_run_can_be_gone_on_with(ran):
    out, results, _ = ran
    experiment = cowbird.Experiment.from_text(SPEC)
    assert cowbird.run(experiment, out, resume=True, progress=False, device="cpu").rows == results.rows
    with pytest.raises(UserError, match="holds this run already"):
        experiment.run(str(out), progress=False)


def test_bars_are_shown_on_standard_error_or_not_at_all(ran, capsys):
    out, _, _ = ran
    cowbird.run(cowbird.Experiment.from_text(SPEC), out, resume=True, device="cpu", progress=False)
    assert capsys.readouterr() == ("", "")
    cowbird.run(cowbird.Experiment.from_text(SPEC), out, resume=True, device="cpu")
    told = capsys.readouterr()
    assert told.out == ""
    assert "cells" in told.err


@pytest.fixture
def asked(monkeypatch):
    """Catch specs instead of running them."""
    found = []

    def catch(spec, out, **options):
        found.append((spec, out, options))
        return RunOutcome([], None, 0, 1, errors=["x"])

    monkeypatch.setattr(experiments, "run_spec", catch)
    return found


def test_an_experiment_is_named_in_four_ways(asked, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(SPEC)
    table = tomllib.loads(SPEC)
    for named in (path, str(path), table, cowbird.Experiment.from_file(path)):
        results = cowbird.run(named, tmp_path / "out", progress=False)
        assert (results.errors, results.complete) == (("x",), False)
    assert len({spec.digest() for spec, *_ in asked}) == 1
    cowbird.run("demo", str(tmp_path / "out"), seeds=[4], progress=False)
    assert (asked[-1][0].name, asked[-1][0].seeds) == ("demo", (4,))
    cowbird.run(path, tmp_path / "out", seeds=(1, 2), progress=False, jobs=2)
    assert asked[-1][0].seeds == (1, 2)
    assert asked[-1][2]["jobs"] == 2
    cowbird.run("aprec", tmp_path / "out", profile="quick", progress=False)
    assert asked[-1][0].name == "aprec-quick"


def test_what_is_no_experiment_is_answered_in_words(tmp_path):
    with pytest.raises(UserError, match="no shipped experiment 'dmeo'") as error:
        cowbird.run("dmeo", tmp_path)
    assert "demo" in error.value.hint
    with pytest.raises(UserError, match="no spec 'gone"):
        cowbird.run("gone.toml", tmp_path)
    with pytest.raises(UserError, match="not TOML"):
        cowbird.Experiment.from_text("= 3")
    with pytest.raises(UserError, match="has its seeds"):
        cowbird.run(cowbird.Experiment.from_text(SPEC), tmp_path, seeds=[1])


def test_a_strangers_spec_imports_nothing_unless_that_is_allowed(tmp_path):
    strange = SPEC.replace('"synthetic"\nusers = 60\nitems = 30', '"doubles.rated"')
    (tmp_path / "strange.toml").write_text(strange)
    for ask in (
        lambda: cowbird.run(tmp_path / "strange.toml", tmp_path),
        lambda: cowbird.Experiment.from_text(strange),
    ):
        with pytest.raises(UserError, match=r"would import the Python module 'doubles\.rated'") as error:
            ask()
        assert "allow_plugins=True" in error.value.hint
    assert cowbird.Experiment.from_file(tmp_path / "strange.toml", allow_plugins=True).spec.name == "tiny"


def test_without_pandas_a_message_names_the_way(monkeypatch):
    monkeypatch.setattr(experiments, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pandas is not installed") as error:
        cowbird.Results(()).to_pandas()
    assert "pip install pandas" in error.value.hint
    assert cowbird.Results(()).to_polars().height == 0
