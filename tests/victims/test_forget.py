"""Items that are forgotten, and new ones in their places."""

import numpy as np
import pytest
import torch

from cowbird.data.split import Queries
from cowbird.errors import UserError
from cowbird.victims.base import FittedRecommender, Prompt
from rankers import RANKERS

every_victim = pytest.mark.parametrize("name", RANKERS)
GONE = [3, 17, 20]


def weights(fitted):
    return {name: tensor.clone() for name, tensor in fitted.network.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


def forgetting(fitted, seed=1, items=(17, 3, 3, 20)):
    return fitted.forget(np.array(items, dtype=np.int32), torch.Generator().manual_seed(seed))


@pytest.fixture
def make(tiny, parts):
    """Return a function that fits a small victim, with prompts or without."""

    def fit(name, prompted):
        spec = tiny(name, epochs=1).with_prompts(Prompt()) if prompted else tiny(name, epochs=1)
        fitted = spec.fit(parts.pretrain.training(), parts.pretrain.validation(), 0)
        with torch.no_grad():
            fitted.network.item.weight[:-1] += 2  # so that padding, a row of zeros, shows in the mean
            fitted.network.item.weight[GONE] += 5  # what is forgotten is not part of the mean
        return fitted

    return fit


@every_victim
@pytest.mark.parametrize("prompted", [False, True])
def test_new_items_are_near_the_mean_of_those_that_stay(name, prompted, make):
    fitted = make(name, prompted)
    before, after = weights(fitted), weights(forgetting(fitted))
    assert after.keys() == before.keys()
    assert all(after[key].equal(before[key]) for key in after if key != "item.weight")
    old, new = before["item.weight"], after["item.weight"]
    assert (new != old).any(dim=1).nonzero()[:, 0].tolist() == GONE
    assert new[-1].eq(0).all(), "padding is no item"
    stay = [n for n in range(24) if n not in GONE]
    away = new[GONE] - old[stay].mean(dim=0)
    assert 0.01 < away.std() < 0.03
    assert away.abs().max() < 0.08
    assert len(away.unique(dim=0)) == len(GONE)


@every_victim
@pytest.mark.parametrize("prompted", [False, True])
def test_the_model_itself_forgets_nothing(name, prompted, make, parts):
    fitted, test = make(name, prompted), parts.downstream.test()
    before, scores = weights(fitted), fitted.score(test.history, test.users)
    other = forgetting(fitted)
    found = other.score(test.history, test.users)
    assert not found[:, GONE].eq(scores[:, GONE]).any()
    assert other.spec is fitted.spec
    with torch.no_grad():
        for parameter in other.network.parameters():
            parameter.add_(1)
    assert same(weights(fitted), before)
    assert fitted.score(test.history, test.users).equal(scores)
    seen = Queries(test.history, np.full(len(test.target), 5, dtype=np.int32), test.users)
    assert other.rank_targets(seen).shape == test.target.shape


@every_victim
def test_the_generator_decides(name, make):
    fitted, state = make(name, False), torch.get_rng_state()
    one, again, other = (weights(forgetting(fitted, seed)) for seed in (1, 1, 2))
    assert same(one, again)
    assert not one["item.weight"][GONE].eq(other["item.weight"][GONE]).any()
    assert same(one, weights(forgetting(fitted, 1, (20, 3, 17)))), "the order of the items does not"
    assert torch.get_rng_state().equal(state)


@every_victim
def test_all_and_none(name, make):
    fitted = make(name, False)
    assert same(weights(forgetting(fitted, items=())), weights(fitted))
    table = weights(forgetting(fitted, items=range(24)))["item.weight"]
    assert table.abs().max() < 0.12
    assert table[:-1].ne(0).all()
    assert table[-1].eq(0).all()


def test_other_models_forget_nothing():
    class Stub(FittedRecommender):
        def score(self, history, users=None):
            raise NotImplementedError

        def save(self, path):
            raise NotImplementedError

    stub = Stub()
    with pytest.raises(UserError, match="Stub") as error:
        stub.forget(np.array([1]), torch.Generator())
    assert error.value.hint
    assert stub.without_prompts() is stub
