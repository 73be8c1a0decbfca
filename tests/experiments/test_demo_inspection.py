"""The end of the demo: a planted model of a run is found, and its ranking is held against what was planted."""

import numpy as np
import pytest

import cowbird
from cowbird.data.split import Split
from cowbird.errors import UserError
from cowbird.experiments import demo_inspection as parts
from cowbird.experiments.run import run
from cowbird.experiments.spec import Spec, parse_spec

TABLE = {
    "name": "small",
    "seeds": [3],
    "dataset": {"name": "synthetic", "users": 150, "items": 40},
    "split": {"cold_fraction": 0.4, "max_cold_events": 5},
    "victims": [{"name": "sasrec", "hidden": 16, "layers": 1, "epochs": 4, "learning_rate": 5e-3}],
    "attacks": [{"name": "basic_replacement", "label": "global", "rate": 0.3, "targets": {"count": 2}}],
    "scenarios": [{"name": "direct"}],
}


def test_the_platform_has_all_events_of_the_users_that_were_held_out():
    spec = parse_spec(TABLE)
    data, logs = spec.dataset.options.load(), parts.load_platform(spec)
    assert len(logs.users) == 60
    rows = [data.users.ids.index(user) for user in logs.users.ids]
    assert np.array_equal(logs.interactions.lengths, data.interactions.lengths[rows])
    assert logs.interactions.lengths.max() > 5


def test_without_users_held_out_there_are_no_logs(monkeypatch):
    spec = parse_spec(TABLE)
    monkeypatch.setattr(Spec, "get_split", lambda self, task: Split(cold_fraction=0))
    with pytest.raises(UserError, match="no platform has logs"):
        parts.load_platform(spec)


@pytest.mark.slow
def test_a_planted_model_is_inspected_and_its_places_are_told(tmp_path):
    spec = parse_spec(TABLE)
    assert parts.find_planted_model(spec, tmp_path / "run") is None
    assert not run(spec, tmp_path / "run", device="cpu").errors
    planted = parts.find_planted_model(spec, tmp_path / "run")
    assert len(planted.targets) == 2
    found = cowbird.inspect_model(
        planted.path, parts.load_platform(spec), nulls=3, histories=100, level=0.05, device="cpu"
    )
    told = parts.format_ranks(found, planted.targets)
    places = sorted(item.rank for item in found.ranking if item.id in planted.targets)
    assert len(places) == 2
    assert told.startswith(f"2 items were planted. In the ranking of 40 they have the places {places[0]}, {places[1]}.")
    (record,) = tmp_path.glob("run/cells/*/cell.json")
    record.write_text("{")
    with pytest.raises(UserError, match="can't be read"):
        parts.find_planted_model(spec, tmp_path / "run")
