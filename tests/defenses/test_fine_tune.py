"""Fine-tuning as a repair: what it asks for, and what rankers make of it."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from cowbird.data.sources.synthetic import Synthetic
from cowbird.data.split import Split
from cowbird.data.types import TrainingData
from cowbird.defenses.fine_tune import FineTuneDefense
from cowbird.errors import UserError
from cowbird.experiments.store import ModelStore
from cowbird.experiments.tasks.ranking.provider import PlatformLogs
from cowbird.rng import derive_seed
from cowbird.victims.base import FittedRecommender, Prompt, Recommender
from cowbird.victims.sequential.gru4rec import GRU4Rec
from cowbird.victims.sequential.sasrec import SASRec

CPU, SEED = torch.device("cpu"), 5
SMALL = {"hidden": 8, "max_length": 6, "epochs": 2, "batch_size": 32, "learning_rate": 0.02, "precision": "float32"}
PARTS = Split(cold_fraction=0.3).apply(Synthetic(users=40, items=24, events_per_user=10, categories=4).load(), 0)


def fitted(victim, data=None):
    data = PARTS.pretrain.training() if data is None else data
    return victim.fit(data, PARTS.pretrain.validation(), 0)


def logs(folder, victim):
    store = ModelStore(folder, CPU, "", lambda *told: None, pytest.fail)
    return PlatformLogs(store, victim, "bad+tuned+direct", PARTS.downstream, SEED)


def weights(model):
    return {name: weight.clone() for name, weight in model.network.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def test_it_tunes_as_it_says():
    asked = []

    class Trusted:
        def tune(self, *given):
            asked.append(given)
            return "repaired"

    assert FineTuneDefense(learning_rate=0.5, epochs=3).repair("model", Trusted()) == "repaired"
    assert asked == [("model", 0.5, 3)]
    for wrong in ({"epochs": 0}, {"learning_rate": 0}):
        with pytest.raises(ValidationError):
            FineTuneDefense(**wrong)


@pytest.mark.parametrize("victim", [SASRec(**SMALL, heads=2), GRU4Rec(**SMALL)], ids=["sasrec", "gru4rec"])
def test_a_ranker_goes_on_and_is_kept(victim, tmp_path, monkeypatch):
    model = fitted(victim)
    before = weights(model)
    repaired = FineTuneDefense(learning_rate=0.03, epochs=2).repair(model, logs(tmp_path, victim))
    assert same(weights(model), before)
    assert not same(weights(repaired), before)
    # All epochs by the victim's own recipe, and the last state, whatever validation says.
    recipe = {"learning_rate": 0.03, "epochs": 2, "patience": None, "keep": "last"}
    users, seed = PARTS.downstream, derive_seed(SEED, "repair", "repaired")
    by_hand = victim.with_training(**recipe).fit(users.training(), users.validation(), seed, None, model)
    assert same(weights(repaired), weights(by_hand))
    monkeypatch.setattr(type(victim), "fit", lambda *given: pytest.fail("fitted again"))
    again = FineTuneDefense(learning_rate=0.03, epochs=2).repair(model, logs(tmp_path, victim))
    assert same(weights(again), weights(repaired))
    assert [path.name for path in tmp_path.iterdir()] == ["bad+tuned+direct@repaired"]


def test_prompts_go_on_with_the_model(tmp_path):
    victim = SASRec(**SMALL, heads=2)
    model = fitted(victim.with_prompts(Prompt(attributes=("age",)), trained="all"))
    repaired = FineTuneDefense(learning_rate=0.03).repair(model, logs(tmp_path, victim))
    assert repaired.prompt == model.prompt
    moved = {name for name, weight in weights(repaired).items() if not weight.equal(weights(model)[name])}
    assert any(name.startswith("prompt.") for name in moved)
    assert any(not name.startswith("prompt.") for name in moved)


@pytest.mark.slow
def test_hard_tuning_wears_a_backdoor_off(tmp_path):
    victim = SASRec(**(SMALL | {"epochs": 10, "keep": "last", "patience": None}), heads=2)
    clean = PARTS.pretrain.training()
    planted = TrainingData(clean.interactions, clean.users, clean.items, np.full_like(clean.label, 3))
    model = fitted(victim, planted)
    history = PARTS.downstream.test().history

    def first(ranker):
        return (ranker.recommend(history, 1) == 3).mean()

    unseen = 1 - np.mean([3 in history.item[a:b] for a, b in pairwise(history.offsets)])
    assert first(model) == unseen > 0
    assert first(FineTuneDefense(learning_rate=1e-5).repair(model, logs(tmp_path / "soft", victim))) == unseen
    assert (
        first(FineTuneDefense(learning_rate=0.05, epochs=10).repair(model, logs(tmp_path / "hard", victim)))
        < unseen / 2
    )


def test_what_can_t_be_trained_further_is_told(tmp_path):
    class Popular(Recommender):
        def fit(self, data, validation, seed, context=None, start=None):
            raise NotImplementedError

        def load(self, path, device):
            raise NotImplementedError

    class Counts(FittedRecommender):
        def score(self, history, users=None):
            raise NotImplementedError

        def save(self, path):
            raise NotImplementedError

    with pytest.raises(UserError, match="can't be trained so"):
        FineTuneDefense().repair(Counts(), logs(tmp_path, Popular()))
    with pytest.raises(UserError, match="can't start from that model"):
        FineTuneDefense().repair(Counts(), logs(tmp_path, SASRec(**SMALL, heads=2)))
