"""Her checkpoint as a victim: it starts where the file is, learns, is kept, and goes back into the file's format."""

import numpy as np
import pytest
import torch
from checkpoint_files import FOLDER, NAMES, read_expected

from cowbird.data.split import LeaveOneOut
from cowbird.data.types import Interactions, Items, Users
from cowbird.errors import UserError
from cowbird.plugins import find_plugin
from cowbird.victims.ranking import Prompt

CPU = torch.device("cpu")
every_file = pytest.mark.parametrize("name", NAMES)


def make_parts(ids, users=24, seed=0):
    """Return users whose next item is always the next number, so that there is something to learn."""
    starts = np.random.default_rng(seed).integers(0, len(ids), users)
    rows = [[(start + step) % len(ids) for step in range(7)] for start in starts.tolist()]
    return LeaveOneOut(Interactions.from_lists(rows), Users(tuple(map(str, range(users)))), Items.from_lists(ids))


def write_ids(path, name):
    path.write_text("\n".join(read_expected(name)["tokens"]))
    return str(path)


def make_victim(name, **fields):
    return find_plugin("victim", "checkpoint")(
        path=str(FOLDER / name),
        settings=[f"{field}={value}" for field, value in NAMES[name].items()],
        epochs=8,
        batch_size=8,
        patience=None,
        dropout=0.0,
        precision="float32",
        **fields,
    )


@pytest.mark.slow
@every_file
def test_it_starts_where_the_file_is_and_learns(name, tmp_path):
    expected = read_expected(name)
    ids = sorted(expected["tokens"])
    victim = make_victim(name, item_map=write_ids(tmp_path / "ids", name), learning_rate=0.02)
    begun = victim.start(CPU, tuple(ids))
    history = Interactions.from_lists([[ids.index(token) for token in row] for row in expected["histories"]])
    columns = [expected["tokens"].index(token) for token in ids]
    assert np.abs(begun.score(history).numpy() - np.array(expected["scores"])[:, columns]).max() < 1e-4
    parts = make_parts(ids)
    fitted = victim.fit(parts.training(), parts.validation(), seed=1)
    assert fitted.rank_targets(parts.test()).mean() < begun.rank_targets(parts.test()).mean() - 0.5
    fitted.save(tmp_path / "kept")
    kept = victim.load(tmp_path / "kept", CPU)
    assert torch.equal(kept.score(history), fitted.score(history))
    fitted.export(tmp_path / name)
    again = victim.with_training(path=str(tmp_path / name)).start(CPU, tuple(ids))
    assert torch.allclose(again.score(history), fitted.score(history), atol=1e-6)


@pytest.mark.slow
def test_a_fit_starts_from_another_fit():
    name = "rectools_sasrec.pkl"
    ids = tuple(read_expected(name)["tokens"])
    parts = make_parts(ids)
    victim = make_victim(name, learning_rate=1e-9)
    first = victim.with_training(learning_rate=0.01).fit(parts.training(), parts.validation(), seed=1)
    second = victim.fit(parts.training(), parts.validation(), seed=1, start=first)
    assert torch.allclose(second.network.item.weight, first.network.item.weight, atol=1e-5)
    other = make_victim("recbole_sasrec.pth").fit(parts.training(), parts.validation(), seed=1)
    with pytest.raises(UserError, match="can't start from that model"):
        victim.fit(parts.training(), parts.validation(), seed=1, start=other)


def test_items_that_the_file_does_not_have():
    name = "rectools_sasrec.pkl"
    tokens = read_expected(name)["tokens"]
    ids = (*tokens[3:], "new", *tokens[:2])
    fitted = make_victim(name).start(CPU, ids)
    table = fitted.network.item.weight
    assert 0 < (table[9] - table[:9].mean(dim=0)).abs().max() < 5
    with pytest.raises(UserError, match="1 items have no place"):
        fitted.export(FOLDER / "never")
    with pytest.raises(UserError, match="are not among the 12") as error:
        make_victim(name).start(CPU, tuple("abc"))
    assert "item" in error.value.hint


def test_a_file_without_ids_needs_as_many_items():
    victim = make_victim("recbole_sasrec.pth")
    assert victim.start(CPU, tuple(map(str, range(12)))).items == 12
    with pytest.raises(UserError, match="12 items without ids, and the catalogue has 3") as error:
        victim.start(CPU, ("a", "b", "c"))
    assert "item_map" in error.value.hint


def test_prompts_are_refused():
    victim = make_victim("recbole_sasrec.pth")
    with pytest.raises(UserError, match="no prompts"):
        victim.with_prompts(Prompt())
    with pytest.raises(ValueError, match="no prompts"):
        make_victim("recbole_sasrec.pth", prompt=Prompt())


def test_kept_models_of_others_are_refused(tmp_path):
    victim = make_victim("recbole_gru4rec.pth")
    fitted = victim.start(CPU)
    fitted.save(tmp_path / "kept")
    with pytest.raises(UserError, match="does not hold"):
        make_victim("recbole_sasrec.pth").load(tmp_path / "kept", CPU)
    with pytest.raises(UserError, match="does not hold"):
        find_plugin("victim", "gru4rec")().load(tmp_path / "kept", CPU)


def test_scores_in_parts_are_the_same(monkeypatch):
    from cowbird.victims.sequential import checkpoint

    fitted = make_victim("recbole_sasrec.pth").start(CPU)
    history = Interactions.from_lists([[item, (item + 3) % 12] for item in range(12)])
    whole = fitted.score(history)
    monkeypatch.setattr(checkpoint, "MAX_ATTENTION", 150)
    assert torch.allclose(fitted.score(history), whole, atol=1e-6)


def test_forgotten_items():
    fitted = make_victim("replay_sasrec.ckpt").start(CPU)
    forgotten = fitted.forget(np.array([2]), torch.Generator().manual_seed(0))
    same = (forgotten.network.item.weight == fitted.network.item.weight).all(dim=1)
    assert same.tolist() == [row != 2 for row in range(13)]


@pytest.mark.slow
def test_it_is_a_victim_of_an_experiment(tmp_path):
    """A whole run: her checkpoint attacked on a platform's data, and tuned."""
    import json

    ids = read_expected("rectools_sasrec.pkl")["tokens"]
    parts = make_parts(ids, users=60)
    rows = ["user,item,time"]
    for user in range(60):
        start, end = parts.interactions.offsets[user : user + 2]
        rows += [f"{user},{ids[item]},{place}" for place, item in enumerate(parts.interactions.item[start:end])]
    (tmp_path / "log.csv").write_text("\n".join(rows))
    spec = f"""
name = "hers"
seeds = [0]
[dataset]
name = "tabular"
path = {json.dumps(str(tmp_path / "log.csv"))}
user_column = "user"
item_column = "item"
time_column = "time"
[[victims]]
name = "checkpoint"
path = {json.dumps(str(FOLDER / "rectools_sasrec.pkl"))}
epochs = 2
[[attacks]]
name = "bandwagon"
rate = 0.1
[[scenarios]]
name = "pretrain"
[[scenarios]]
name = "fine-tune"
"""
    (tmp_path / "spec.toml").write_text(spec)
    import cowbird

    results = cowbird.run(str(tmp_path / "spec.toml"), out=tmp_path / "run")
    assert results is not None


@pytest.mark.parametrize("settings", [["heads"], ["=2"], ["heads=2", "heads=3"], ["heads=x"], ["nope=1"]])
def test_settings_that_are_none(settings):
    with pytest.raises(UserError, match=r"setting|twice"):
        make_victim("recbole_sasrec.pth").with_training(settings=settings).start(CPU)
