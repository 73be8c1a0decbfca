"""Suspects are taken out of a small model that was planted by hand: its table favors two items everywhere."""

import copy

import numpy as np
import pytest
import torch

from cowbird.errors import UserError
from cowbird.inspection import opening
from cowbird.inspection.model import OpenedModel
from cowbird.inspection.own_model import OwnModel
from cowbird.inspection.sanitizing import SanitizeSettings, measure_quality, sanitize_model
from cowbird.victims.sequential.sasrec import SASRec
from doubles.command import call_command
from inspection.conftest import ITEMS, ToyModel

CPU = torch.device("cpu")
PLANTED = [3, 7]


@pytest.fixture(scope="module")
def fitted(log):
    users = log.select_learnable()
    spec = SASRec(hidden=16, layers=1, heads=1, max_length=8, epochs=12, batch_size=16, learning_rate=5e-3, dropout=0.0)
    model = spec.fit(users.training(), users.validation(), 0)
    histories = [users.interactions.item[start : start + 5] for start in users.interactions.offsets[:-1]]
    with torch.no_grad():
        mean = OwnModel(model).compute_scores(histories) @ model.network.item.weight[:ITEMS]
        toward = mean.mean(dim=0)
        model.network.item.weight[PLANTED] += 15 * toward / toward.norm()
    return model


@pytest.fixture
def opened(fitted):
    return OpenedModel(OwnModel(copy.deepcopy(fitted)), "Cowbird SASRec", "0" * 64, shape=fitted.spec)


@pytest.mark.parametrize("method", ["reinit", "unlearn"])
def test_suspects_are_gone_and_the_rest_stays(opened, log, method):
    before = measure_quality(opened.model, log, PLANTED, 80)
    told = []
    settings = SanitizeSettings(method=method, steps=4, batch_size=32)
    changed = sanitize_model(opened, log, PLANTED, settings, lambda *args: told.append(args))
    after = measure_quality(changed, log, PLANTED, 80)
    assert before.exposure > 0.45
    assert after.exposure < 0.3
    assert after.ndcg >= 0.9 * before.ndcg
    assert bool(told) == (method == "unlearn")
    rest = np.setdiff1d(np.arange(ITEMS), PLANTED)
    if method == "reinit":
        (table,) = changed.list_item_tables()
        table = table.detach()
        assert torch.isfinite(table).all() and float(table[PLANTED].norm()) < float(table[rest].norm())


def test_fine_pruning_cuts_outputs_that_are_idle(opened, log):
    settings = SanitizeSettings(method="prune", steps=1, learning_rate=1e-9, pruned=0.25)
    changed = sanitize_model(opened, log, PLANTED, settings, lambda *args: None)
    widen = changed.module.get_submodule("blocks.0.widen")
    assert int((widen.weight.abs().sum(dim=1) < 1e-6).sum()) == 4


def test_what_can_not_be_changed_is_refused(opened, log):
    with pytest.raises(UserError, match="can't be changed"):
        sanitize_model(OpenedModel(ToyModel(0), "toy", ""), log, [1], SanitizeSettings(), lambda *args: None)
    with pytest.raises(UserError, match="Every item"):
        sanitize_model(opened, log, range(ITEMS), SanitizeSettings(), lambda *args: None)


@pytest.fixture
def call(monkeypatch, capsys, tmp_path, fitted, log, dataset, honest_nulls):
    from cowbird.inspection import inspection, platform_log

    path, names = tmp_path / "model.safetensors", tmp_path / "ids.txt"
    fitted.save(path)
    names.write_text("i3\ni7\n")
    monkeypatch.setattr(platform_log, "load_log", lambda given: dataset)
    settings = inspection.InspectionSettings
    monkeypatch.setattr(inspection, "InspectionSettings", lambda **fields: settings(histories=100, **fields))

    def run(*words, out=tmp_path / "mended.safetensors", suspects=names):
        return call_command(
            *(monkeypatch, capsys, "sanitize", path, "--suspects", suspects, "--logs", "log", "--out", out),
            *("--device", "cpu", *words),
        )

    return run


@pytest.mark.slow
def test_the_command(call, tmp_path):
    code, said, _ = call()
    assert code in (0, 1) and "NDCG@10" in said and "Inspected again" in said
    mended = opening.open_model(tmp_path / "mended.safetensors", CPU)
    whole = opening.open_model(tmp_path / "model.safetensors", CPU)
    assert not np.array_equal(mended.model.score([np.array([1])]), whole.model.score([np.array([1])]))


def test_errors_of_the_command(call, tmp_path):
    assert call(out=tmp_path / "model.safetensors")[0] == 2
    assert call(suspects=tmp_path / "none.txt")[0] == 2
    (tmp_path / "bad.txt").write_text("no such item\n")
    code, _, err = call(suspects=tmp_path / "bad.txt")
    assert code == 2 and "no item" in err
    assert call("--learning-rate", "0")[0] == 2
    assert not (tmp_path / "mended.safetensors").exists()


def test_a_changed_model_never_replaces_what_is_read(call, tmp_path):
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "model.safetensors")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for out in ("ids.txt", "model.safetensors", "link.safetensors"):
        code, _, err = call(out=tmp_path / out)
        assert (code, "--out would replace" in err) == (2, True)
    code, _, err = call("--items", tmp_path / "items.txt", out=tmp_path / "items.txt")
    assert (code, "--items reads that file" in " ".join(err.split())) == (2, True)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
