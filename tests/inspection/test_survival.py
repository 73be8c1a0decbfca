"""Fine-tuning is replayed on a handed model: what is shown before and after, and each failure of the command."""

import json

import numpy as np
import pytest
import torch

from cowbird.cli import app as app_module
from cowbird.data.types import Interactions, Items, Users
from cowbird.errors import UserError
from cowbird.inspection import survival
from cowbird.inspection.model import OpenedModel
from cowbird.inspection.own_model import OwnModel
from cowbird.inspection.platform_log import PlatformLog
from cowbird.inspection.survival import SurvivalSettings, measure_survival
from cowbird.victims.sequential.base import FittedSequential
from cowbird.victims.sequential.sasrec import SASRec

CPU = torch.device("cpu")
ITEMS = 12


def make_model():
    """Return a model that shows item 3 to everybody first."""
    spec = SASRec(hidden=8, max_length=6, layers=1, heads=1, dropout=0.0, precision="float32")
    network = spec.make_network(ITEMS)
    network.reset(torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.norm.bias.fill_(1.0)
        network.item.weight[3] = 1.0
    return FittedSequential(spec, network, ITEMS, CPU)


def make_log(users=40):
    rows = [[(start + step) % ITEMS for step in range(5)] for start in np.arange(users) % ITEMS]
    ids = tuple(f"i{item}" for item in range(ITEMS))
    people = Users(tuple(map(str, range(users))))
    return PlatformLog(Interactions.from_lists(rows), people, Items.from_lists(ids), 0, "")


@pytest.fixture
def two_places(monkeypatch):
    monkeypatch.setattr(survival, "CUTOFF", 2)


@pytest.mark.slow
def test_exposure_before_and_after(two_places):
    fitted = make_model()
    opened = OpenedModel(OwnModel(fitted), "Cowbird SASRec", "0" * 64)
    weights = {name: weight.clone() for name, weight in fitted.network.state_dict().items()}
    settings = SurvivalSettings(learning_rates=(1e-7, 0.05), epochs=(6,), seeds=2, batch_size=16)
    told = []
    found = measure_survival(opened, make_log(), [3], settings, CPU, lambda *given: told.append(given[0]))
    assert found.before.exposure.value == 1, "item 3 is the first of everybody who has not seen it"
    assert found.before.exposure.n == 24, "of 40 users 16 have seen it"
    slow, fast = found.after
    assert (slow.learning_rate, fast.learning_rate) == (1e-7, 0.05), "most exposure first"
    assert slow.kept == pytest.approx(1)
    assert fast.kept < 0.7
    assert fast.exposure.low <= fast.exposure.value <= fast.exposure.high
    assert fast.ndcg.value > found.before.ndcg.value
    assert found.suspects == ["i3"]
    assert all(torch.equal(weights[name], weight) for name, weight in fitted.network.state_dict().items())
    assert told


def test_the_strangers_own_training_fields_do_not_count(two_places):
    fitted = make_model()
    fitted.spec = fitted.spec.with_training(epochs=10**6, batch_size=1, warmup_steps=10**6, schedule="cosine")
    opened = OpenedModel(OwnModel(fitted), "Cowbird SASRec", "")
    found = measure_survival(opened, make_log(), [3], SurvivalSettings(learning_rates=(0.05,), epochs=(1,)), CPU)
    assert len(found.after) == 1


class Served:
    items = ITEMS

    def score(self, histories):
        return np.zeros((len(histories), ITEMS), dtype=np.float32)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"learning_rates": (0.0,)}, "learning rate"),
        ({"learning_rates": (2.0,)}, "learning rate"),
        ({"epochs": (0,)}, "epochs"),
    ],
)
def test_settings_that_are_none(fields, told):
    opened = OpenedModel(OwnModel(make_model()), "Cowbird SASRec", "")
    with pytest.raises(UserError, match=told):
        measure_survival(opened, make_log(), [3], SurvivalSettings(**fields), CPU)


def test_a_served_model_can_not_be_tuned():
    with pytest.raises(UserError, match="weights are not here"):
        measure_survival(OpenedModel(Served(), "process 'x'", ""), make_log(), [3], SurvivalSettings(), CPU)


@pytest.fixture
def files(tmp_path):
    """Return a folder with a model, a log and suspects."""
    make_model().save(tmp_path / "model.safetensors")
    log = make_log()
    rows = ["user_id,item_id,timestamp"]
    for user in range(log.interactions.users):
        first, last = log.interactions.offsets[user : user + 2]
        rows += [f"{user},i{item},{place}" for place, item in enumerate(log.interactions.item[first:last].tolist())]
    (tmp_path / "log.csv").write_text("\n".join(rows))
    (tmp_path / "items.txt").write_text("\n".join(log.items.ids))
    (tmp_path / "suspects.txt").write_text("i3\n")
    (tmp_path / "empty.txt").write_text("")
    return tmp_path


def run(files, monkeypatch, capsys, **changes):
    """Run the command and return its exit code and what it printed."""
    options = {"model": "model.safetensors", "--logs": "log.csv", "--items": "items.txt", "--suspects": "suspects.txt"}
    options |= {"--rate": "0.01", "--epochs": "1", "--out": "out.json"} | changes
    model = options.pop("model")
    words = ["cowbird", "survive", model, *(word for pair in options.items() for word in pair), "-q"]
    monkeypatch.chdir(files)
    monkeypatch.setattr("sys.argv", words)
    code = app_module._run_app()
    told = capsys.readouterr()
    assert "Traceback" not in told.out + told.err
    return int(code), told.out + told.err


def test_the_command(files, monkeypatch, capsys):
    code, told = run(files, monkeypatch, capsys)
    assert (code, told) == (0, "")
    record = json.loads((files / "out.json").read_text())["content"]
    assert record["schema_version"] == 1
    assert record["suspects"] == ["i3"]
    assert [row["learning_rate"] for row in record["after"]] == [0.01]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": "nope"}, "there is none"),
        ({"model": "log.csv"}, "no model that can be read"),
        ({"model": "function:os:getcwd"}, "runs its code"),
        ({"--logs": "nope.csv"}, "not there"),
        ({"--suspects": "nope.txt"}, "can't be read"),
        ({"--suspects": "empty.txt"}, "names no suspect"),
        ({"--suspects": "items.txt", "--rate": "7"}, "learning rate"),
        ({"--epochs": "0"}, "epochs"),
        ({"--out": "."}, "is a folder"),
        ({"--set": "heads"}, "no setting"),
        ({"--seeds": "0"}, "--seeds"),
    ],
    ids=str,
)
def test_failures_of_the_command(files, monkeypatch, capsys, changes, told):
    code, said = run(files, monkeypatch, capsys, **changes)
    assert code == 2
    assert told in " ".join(said.split())


@pytest.mark.parametrize("out", ["model.safetensors", "log.csv", "items.txt", "sub/../suspects.txt"])
def test_a_result_never_replaces_what_is_read(files, monkeypatch, capsys, out):
    (files / "sub").mkdir()
    before = {path: path.read_bytes() for path in files.iterdir() if path.is_file()}
    code, said = run(files, monkeypatch, capsys, **{"--out": out})
    assert code == 2
    assert f"--out would replace '{out}'" in " ".join(said.split())
    assert {path: path.read_bytes() for path in files.iterdir() if path.is_file()} == before
