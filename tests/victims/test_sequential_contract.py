"""What every sequential victim promises; a new file in the package is tested by being there."""

import functools
import inspect
import json
import pickle
import random

import numpy as np
import pytest
import safetensors.torch
import torch
from pydantic import ValidationError

from cowbird.data.split import Queries
from cowbird.data.types import Interactions, TrainingData
from cowbird.errors import UserError
from cowbird.metrics.ranking import hit_ratio
from cowbird.plugins import find_plugin, summarize_plugin
from cowbird.victims.base import FitContext, pick_device
from cowbird.victims.sequential.base import FittedSequential
from cowbird.victims.sequential.noise import Noise
from rankers import RANKERS

CPU = torch.device("cpu")
QUIET = Noise(0.0, CPU)
VICTIMS = RANKERS
every_victim = pytest.mark.parametrize("name", VICTIMS)


def weights(fitted):
    return {name: tensor.clone() for name, tensor in fitted.network.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


def fit(spec, side, seed=0, **more):
    return spec.fit(side.training(), side.validation(), seed, **more)


def random_network(spec, items=30, seed=0):
    """Return a network with weights large enough that every input matters."""
    network = spec.make_network(items)
    network.reset(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(10 if parameter.dim() > 1 else 1)
    return network


@pytest.fixture(scope="session")
def drawn():
    """Return a function that makes a victim of 64 items whose weights are drawn, for what needs no learning."""

    def make(name):
        spec = find_plugin("victim", name)(hidden=32, max_length=10, precision="float32")
        return FittedSequential(spec, random_network(spec, items=64), 64, CPU)

    return functools.cache(make)


def test_there_are_victims():
    assert {"sasrec", "gru4rec"} <= set(VICTIMS)


@every_victim
def test_described(name):
    cls = find_plugin("victim", name)
    assert cls.__doc__
    assert summarize_plugin(cls)
    assert inspect.getmodule(cls).__doc__
    assert all(field.description for field in cls.model_fields.values())


@every_victim
def test_frozen_and_strict(name):
    spec = find_plugin("victim", name)()
    with pytest.raises(ValidationError):
        spec.hidden = 3
    with pytest.raises(ValidationError):
        find_plugin("victim", name)(hiden=3)
    assert spec == find_plugin("victim", name)()
    assert spec.with_training(learning_rate=0.5).learning_rate == 0.5
    with pytest.raises(ValidationError):
        spec.with_training(learning_rate=-1)


@every_victim
def test_causal(name, tiny):
    network = random_network(tiny(name, max_length=7))
    item = torch.randint(30, (5, 7), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before = network(item, QUIET)
        for place in range(7):
            changed = item.clone()
            changed[:, place] = (changed[:, place] + 11) % 30
            after = network(changed, QUIET)
            torch.testing.assert_close(after[:, :place], before[:, :place], rtol=0, atol=1e-6)
            assert not torch.allclose(after[:, place], before[:, place], atol=1e-3)
            assert not torch.allclose(after[:, -1], before[:, -1], atol=1e-4), "the past is forgotten"


@every_victim
def test_padding_changes_nothing(name, tiny):
    network = random_network(tiny(name, max_length=9))
    item = torch.randint(30, (4, 5), generator=torch.Generator().manual_seed(1))
    padded = torch.cat([item, torch.full((4, 4), 30)], dim=1)
    with torch.inference_mode():
        torch.testing.assert_close(network(padded, QUIET)[:, :5], network(item, QUIET), rtol=0, atol=1e-6)


@every_victim
def test_a_users_scores_do_not_depend_on_the_batch(name, tiny):
    spec = tiny(name)
    fitted = FittedSequential(spec, random_network(spec), 30, CPU)
    histories = [[3], [1, 2, 3, 4, 5, 6, 7], [9, 8], [5, 5, 5, 5]]
    together = fitted.score(Interactions.from_lists(histories))
    alone = torch.cat([fitted.score(Interactions.from_lists([row])) for row in histories])
    assert together.shape == (4, 30)
    assert together.dtype is torch.float32
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


@every_victim
def test_scores_see_the_most_recent_events_only(name, tiny):
    spec = tiny(name, max_length=3)
    fitted = FittedSequential(spec, random_network(spec), 30, CPU)
    long, cut, other = ([7, 1, 2, 3], [1, 2, 3], [1, 2, 4])
    scores = fitted.score(Interactions.from_lists([long, cut, other]))
    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=1e-6)
    assert not torch.allclose(scores[0], scores[2], atol=1e-3)


@pytest.mark.slow
@every_victim
def test_scores_are_the_callers_to_change(name, learned, learnable):
    history = learnable.downstream.test().history
    scores = learned(name).score(history)
    scores[:, 0] = 5
    scores.mul_(2)
    assert scores[:, 0].eq(10).all()
    assert not learned(name).score(history)[:, 0].eq(10).any()
    assert not scores.requires_grad


@every_victim
def test_an_empty_history_is_a_user_error(name, tiny):
    spec = tiny(name)
    fitted = FittedSequential(spec, random_network(spec), 30, CPU)
    for rows in ([[1], []], []):
        with pytest.raises(UserError):
            fitted.score(Interactions.from_lists(rows))


@pytest.mark.slow
@every_victim
def test_learns_what_follows(name, learned, learnable):
    fitted, test = learned(name), learnable.pretrain.test()
    found = hit_ratio(fitted.rank_targets(test), 1).mean()
    popular = np.bincount(learnable.pretrain.training().interactions.item, minlength=64).argsort()[::-1]
    baseline = np.isin(test.target, popular[:1]).mean()
    assert found > 0.8, "one in ten targets is noise, the others follow from the last item"
    assert found > 10 * baseline


@every_victim
def test_recommend_gives_the_best_unseen(name, drawn, learnable):
    fitted, history = drawn(name), learnable.pretrain.test().history
    found = fitted.recommend(history, 10)
    assert found.shape == (history.users, 10)
    scores = fitted.score(history).clone()
    for user in range(history.users):
        seen = history.item[history.offsets[user] : history.offsets[user + 1]]
        assert not set(seen.tolist()) & set(found[user].tolist())
        scores[user, seen.astype(np.int64)] = -torch.inf
    assert found.tolist() == scores.topk(10, dim=1).indices.tolist()


@every_victim
def test_recommend_to_somebody_who_has_seen_nearly_all(name, tiny):
    spec = tiny(name)
    fitted = FittedSequential(spec, random_network(spec, items=6), 6, CPU)
    found = fitted.recommend(Interactions.from_lists([[0, 1, 2, 3], [5]]), 10)
    assert found.shape == (2, 6)
    assert sorted(found[0].tolist()) == [-1, -1, -1, -1, 4, 5]
    assert sorted(found[1].tolist()) == [-1, 0, 1, 2, 3, 4]
    assert found[0, 2:].tolist() == [-1] * 4


@every_victim
def test_batched_ranks_equal_one_by_one(name, drawn, learnable, monkeypatch):
    from cowbird.victims import ranking

    fitted, test = drawn(name), learnable.downstream.test()
    items = np.array([3, 60, 7])
    whole = fitted.rank_targets(test), fitted.rank_items(test.history, items, 20), fitted.recommend(test.history)
    monkeypatch.setattr(ranking, "MAX_HELD_SCORES", {"cpu": 1})
    parts = fitted.rank_targets(test), fitted.rank_items(test.history, items, 20), fitted.recommend(test.history)
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
    scores = fitted.score(test.history).numpy()
    for user in range(0, test.history.users, 7):
        seen = test.history.item[test.history.offsets[user] : test.history.offsets[user + 1]]
        rest = np.delete(np.arange(64), np.append(seen, test.target[user]))
        assert whole[0][user] == 1 + (scores[user, rest] >= scores[user, test.target[user]]).sum()


@pytest.mark.slow
@every_victim
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_same_seed_same_weights(name, precision, tiny, parts):
    spec = tiny(name, precision=precision, dropout=0.3)
    first, again, other = (weights(fit(spec, parts.pretrain, seed)) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)
    assert all(tensor.dtype is torch.float32 and tensor.isfinite().all() for tensor in first.values())


@pytest.mark.slow
@every_victim
def test_bfloat16_learns_as_float32_does(name, learned, learnable):
    spec = learned(name).spec.with_training(precision="bfloat16")
    fitted = fit(spec, learnable.pretrain)
    assert hit_ratio(fitted.rank_targets(learnable.pretrain.test()), 1).mean() > 0.8


@every_victim
def test_no_global_random_state_is_used(name, tiny, parts):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    one = weights(fit(tiny(name), parts.pretrain))
    assert torch.get_rng_state().equal(before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert same(weights(fit(tiny(name), parts.pretrain)), one)


@every_victim
def test_padding_row_stays_zero(name, tiny, parts):
    fitted = fit(tiny(name, weight_decay=0.1), parts.pretrain)
    assert fitted.network.item.weight[-1].eq(0).all()


@every_victim
@pytest.mark.parametrize("regime", ["all", "last", "prefix"])
def test_poisoned_labels_are_learned(name, regime, tiny, parts):
    clean = parts.pretrain.training()
    poisoned = TrainingData(clean.interactions, clean.users, clean.items, np.full_like(clean.label, 5))
    batch = {"all": 10, "last": 10, "prefix": 60}[regime]  # of sequences; a prefix is one of its own
    spec = tiny(name, regime=regime, epochs=8, learning_rate=3e-2, validate_every=8, batch_size=batch)
    history = parts.downstream.test().history
    fitted = spec.fit(poisoned, parts.pretrain.validation(), 0)
    assert fitted.score(history).argmax(dim=1).eq(5).all()


# Which state is kept


@pytest.fixture
def scripted(monkeypatch):
    """Return a function that replaces validation by given ranks and a list of the weights at each."""

    def script(ranks):
        seen = []

        def rank_targets(fitted, queries):
            seen.append(weights(fitted))
            return np.full(len(queries.target), ranks[len(seen) - 1])

        monkeypatch.setattr(FittedSequential, "rank_targets", rank_targets)
        return seen

    return script


@every_victim
def test_the_best_validation_is_kept(name, tiny, parts, scripted):
    seen = scripted([5, 2, 9, 2, 4])
    fitted = fit(tiny(name, epochs=5), parts.pretrain)
    assert len(seen) == 5
    assert same(weights(fitted), seen[1]), "of equals, the first"
    assert not same(seen[1], seen[4])
    assert [epoch for epoch, _ in fitted.validations] == [1, 2, 3, 4, 5]
    assert fitted.validations[1][1] == pytest.approx(1 / np.log2(3))


@pytest.mark.slow
def test_patience(tiny, parts, scripted):
    seen = scripted([5, 4, 9, 9, 3, 9, 9, 9, 1])
    fitted = fit(tiny("sasrec", epochs=9, patience=3), parts.pretrain)
    assert [epoch for epoch, _ in fitted.validations] == list(range(1, 9))
    assert same(weights(fitted), seen[4])


def test_validate_every_and_at_the_end(tiny, parts, scripted):
    scripted([5, 6, 4])
    fitted = fit(tiny("sasrec", epochs=7, validate_every=3), parts.pretrain)
    assert [epoch for epoch, _ in fitted.validations] == [3, 6, 7]


def test_the_test_set_has_no_say(tiny, parts):
    """Only the validation queries are asked, and they are those given."""
    asked = []

    class Watched(FittedSequential):
        pass

    original = FittedSequential.rank_targets
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FittedSequential, "rank_targets", lambda self, q: asked.append(q) or original(self, q))
        queries = parts.pretrain.validation()
        tiny("sasrec").fit(parts.pretrain.training(), queries, 0)
    assert asked
    assert all(q is queries for q in asked)


def test_progress_is_told(tiny, parts):
    told = []
    fit(tiny("sasrec"), parts.pretrain, context=FitContext(report=lambda *args: told.append(args)))
    done, total, remark = told[-1]
    assert done == total > 0
    assert "NDCG@10" in remark


# Fine-tuning


@every_victim
def test_tuning_begins_at_the_start(name, tiny, parts):
    start = FittedSequential(tiny(name), random_network(tiny(name), items=24), 24, CPU)
    before = weights(start)
    tuned = fit(start.spec.with_training(epochs=1, learning_rate=1e-12), parts.downstream, seed=5, start=start)
    for key, tensor in weights(tuned).items():
        torch.testing.assert_close(tensor, before[key], rtol=0, atol=1e-7)
    moved = fit(start.spec.with_training(epochs=2, learning_rate=1e-2), parts.downstream, seed=5, start=start)
    assert not same(weights(moved), before)
    assert same(weights(start), before), "the model it started from is left alone"


@every_victim
@pytest.mark.parametrize("fields", [{"hidden": 16}, {"layers": 3}])
def test_a_start_of_another_shape_is_a_user_error(name, fields, tiny, parts):
    start = FittedSequential(tiny(name), random_network(tiny(name), items=24), 24, CPU)
    with pytest.raises(UserError) as error:
        fit(tiny(name, **fields), parts.pretrain, start=start)
    assert error.value.hint


def test_a_start_of_another_kind_or_catalogue_is_a_user_error(tiny, parts):
    for start in (
        FittedSequential(tiny("gru4rec"), random_network(tiny("gru4rec"), items=24), 24, CPU),
        FittedSequential(tiny("sasrec"), random_network(tiny("sasrec"), items=23), 23, CPU),
        FittedSequential(tiny("sasrec", heads=1), random_network(tiny("sasrec", heads=1), items=24), 24, CPU),
    ):
        with pytest.raises(UserError) as error:
            fit(tiny("sasrec"), parts.pretrain, start=start)
        assert error.value.hint


# Files


@every_victim
def test_save_and_load(name, drawn, learnable, tmp_path):
    fitted, path = drawn(name), tmp_path / "new" / "model.safetensors"
    history = learnable.downstream.test().history
    fitted.save(path)
    loaded = fitted.spec.load(path, CPU)
    assert loaded.score(history).equal(fitted.score(history))
    assert loaded.items == 64
    assert [entry.name for entry in path.parent.iterdir()] == ["model.safetensors"]
    fitted.spec.with_training(epochs=3, dropout=0.0).load(path, CPU)  # the recipe is not part of the model


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a model file was unpickled",))


def _header(path, text):
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file(tensors, path, {"cowbird": text} if text is not None else {})


def _record(path):
    with safetensors.safe_open(path, framework="pt") as opened:
        return json.loads(opened.metadata()["cowbird"])


DAMAGE = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "cut in the header": lambda path: path.write_bytes(path.read_bytes()[:50]),
    "text": lambda path: path.write_text("hello " * 50),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "pickle": lambda path: path.write_bytes(pickle.dumps(Bomb())),
    "torch.save": lambda path: torch.save({"x": torch.zeros(3)}, path),
    "no header": lambda path: _header(path, None),
    "header is not JSON": lambda path: _header(path, "{"),
    "header is a list": lambda path: _header(path, "[]"),
    "more items than weights": lambda path: _header(path, json.dumps(_record(path) | {"items": 99})),
    "negative items": lambda path: _header(path, json.dumps(_record(path) | {"items": -5})),
    "missing weights": lambda path: safetensors.torch.save_file(
        {"item.weight": torch.zeros(65, 32)}, path, {"cowbird": json.dumps(_record(path))}
    ),
}


@every_victim
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_a_user_error(name, damage, drawn, tmp_path):
    path = tmp_path / "model.safetensors"
    drawn(name).save(path)
    DAMAGE[damage](path)
    with pytest.raises(UserError) as error:
        drawn(name).spec.load(path, CPU)
    assert str(path) in str(error.value)


@every_victim
def test_another_victims_file_is_a_user_error(name, drawn, tmp_path):
    path = tmp_path / "model.safetensors"
    for other in VICTIMS:
        drawn(other).save(path)
        if other != name:
            with pytest.raises(UserError):
                drawn(name).spec.load(path, CPU)
    drawn(name).save(path)
    for fields in ({"hidden": 16}, {"layers": 3}, {"max_length": 5}):
        with pytest.raises(UserError):
            drawn(name).spec.with_training(**fields).load(path, CPU)


def test_other_heads_are_another_model(drawn, tmp_path):
    """The weights of one head fit two, and would give other scores without a word."""
    path = tmp_path / "model.safetensors"
    drawn("sasrec").save(path)
    with pytest.raises(UserError):
        drawn("sasrec").spec.with_training(heads=1).load(path, CPU)


def test_devices():
    assert pick_device("cpu") == CPU
    assert pick_device("auto").type in ("cpu", "cuda")
    for wrong in ("gpu", "cuda:99", ""):
        with pytest.raises(UserError) as error:
            pick_device(wrong)
        assert "cpu" in error.value.hint


def test_fit_needs_two_events(tiny, parts):
    clean = parts.pretrain.training()
    first = clean.interactions.take(clean.interactions.offsets[:-1], np.ones(clean.interactions.users, dtype=np.int64))
    data = TrainingData.from_interactions(first, clean.users, clean.items)
    with pytest.raises(UserError):
        tiny("sasrec").fit(data, Queries(first, parts.pretrain.validation().target), 0)
