"""Finished cells in a store: the real one, as files; and stores that fail or never answer."""

import json
import threading
from pathlib import Path

import pytest

from cowbird.errors import UserError
from cowbird.experiments import run as run_module
from cowbird.experiments import tracking
from cowbird.experiments.cell import list_cells
from cowbird.experiments.run import run
from cowbird.experiments.spec import parse_spec
from cowbird.experiments.tracking import CellTracker, MlflowStore, check_tracker, describe_cell

TABLE = {
    "name": "lists",
    "seeds": [0, 1],
    "ks": [5],
    "dataset": {"name": "synthetic", "users": 40, "items": 20, "events_per_user": 6},
    "victims": [{"name": "doubles.counted_lists:CountedList", "label": "a", "length": 4}],
    "attacks": [{"name": "basic_replacement", "targets": {"count": 2}}],
}


@pytest.fixture
def lists():
    return parse_spec(TABLE, allow_plugins=True)


class ListStore:
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    def write(self, cell):
        self.told.append(cell)


def test_each_cell_is_told_once_at_its_end(lists, tmp_path, monkeypatch):
    store = ListStore()
    monkeypatch.setattr(run_module, "MlflowStore", lambda name, folder: store)
    monkeypatch.setattr(run_module, "check_tracker", lambda name: None)
    outcome = run(lists, tmp_path / "run", device="cpu", track="mlflow")
    assert outcome.warnings == []
    assert [cell.name for cell in store.told] == ["a-0", "a-1"]
    told = store.told[1]
    assert told.params["seed"] == "1"
    assert told.params["victim.options.length"] == "4"
    assert told.params["attacks.basic_replacement.options.targets.count"] == "2"
    rows = [json.loads(line) for line in told.rows.splitlines()]
    assert {row["seed"] for row in rows} == {1}
    kept = (tmp_path / "run" / "results.jsonl").read_text()
    assert all(line in kept.splitlines() for line in told.rows.splitlines())
    read = next(row for row in rows if row["metric"] == "list_read")
    assert told.measures["basic_replacement/none/direct/all/list_read"] == read["value"]
    run(lists, tmp_path / "run", device="cpu", track="mlflow", resume=True)
    assert len(store.told) == 2, "what was done before is not told again"


@pytest.mark.parametrize("when", ["opening", "writing"])
def test_a_store_that_fails_is_a_warning(lists, tmp_path, monkeypatch, when):
    class Broken(ListStore):
        def write(self, cell):
            raise RuntimeError("the disk is full\nmore")

    def open_store(name, folder):
        if when == "opening":
            raise ValueError("no such server.")
        return Broken()

    monkeypatch.setattr(run_module, "MlflowStore", open_store)
    monkeypatch.setattr(run_module, "check_tracker", lambda name: None)
    outcome = run(lists, tmp_path / "run", device="cpu", track="mlflow")
    assert (outcome.done, outcome.errors) == (2, [])
    what = "no such server" if when == "opening" else "the disk is full"
    assert outcome.warnings == [f"2 cells were not tracked: a-0: {what}."]


def test_a_store_that_never_answers_is_left(lists, tmp_path, monkeypatch):
    answer, said = threading.Event(), []
    run(lists, tmp_path / "run", device="cpu")
    monkeypatch.setattr(tracking, "SECONDS_TO_FINISH", 0.05)

    class Slow:
        def write(self, cell):
            answer.wait(20)

    tracker = CellTracker(Slow, said.append)
    for cell in list_cells(lists, tmp_path / "run"):
        tracker.add(cell)
    tracker.finish()
    answer.set()
    assert said == ["2 cells were not tracked: the store did not take them in 0 s."]


def test_an_unknown_store_and_a_missing_library(monkeypatch, tmp_path, lists):
    with pytest.raises(UserError, match="'wandb'") as error:
        check_tracker("wandb")
    assert error.value.hint == "Known: mlflow."
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="mlflow-skinny") as error:
        run(lists, tmp_path / "run", device="cpu", track="mlflow")
    assert "cowbird[tracking]" in error.value.hint
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_real_store_keeps_files(lists, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setattr(tracking, "SECONDS_TO_FINISH", 120.0)
    outcome = run(lists, tmp_path / "run", device="cpu", track="mlflow")
    assert (outcome.done, outcome.warnings) == (2, [])
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(tmp_path / "run" / "mlruns").as_uri())
    found = client.search_runs([client.get_experiment_by_name("lists").experiment_id])
    told = {each.info.run_name: each for each in found}
    assert sorted(told) == ["a-0", "a-1"]
    for cell in list_cells(lists, tmp_path / "run"):
        wanted, kept = describe_cell(cell), told[cell.folder.name]
        assert kept.data.params == dict(wanted.params)
        assert kept.data.metrics == pytest.approx(dict(wanted.measures))
        assert kept.info.status == "FINISHED"
        file = Path(client.download_artifacts(kept.info.run_id, "results.jsonl", str(tmp_path)))
        assert file.read_text() == wanted.rows
    again = MlflowStore("lists", tmp_path / "run" / "mlruns")
    again.write(describe_cell(list_cells(lists, tmp_path / "run")[0]))
    assert len(client.search_runs([found[0].info.experiment_id])) == 3


@pytest.mark.parametrize("address", ["http://bob:s3cr%2Ft@host:1/x", "http://s3cr%2Ft:s3cr%2Ft@host:1/x"])
def test_no_password_of_an_address_is_told(monkeypatch, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    told = tracking.hide_address(f"no answer of {address}; s3cr/t was refused")
    assert "host:1/x" in told
    assert "s3cr" not in told
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://[bad")
    assert "bad" not in tracking.hide_address("http://[bad")
