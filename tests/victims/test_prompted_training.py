"""Fits of prompted recommenders: what learns and what stays, where a fit may start, which state is kept, resuming."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from cowbird.data.split import Queries
from cowbird.data.types import Attribute, Interactions, Items, TrainingData, Users
from cowbird.errors import UserError
from cowbird.metrics.ranking import hit_ratio
from cowbird.rng import torch_stream
from cowbird.victims import checkpoint, training_loop
from cowbird.victims.base import FitContext, Prompt, Recommender
from cowbird.victims.sequential import training
from cowbird.victims.sequential.base import FittedSequential
from cowbird.victims.sequential.prompting import ProfileVocabulary, PromptGenerator
from rankers import RANKERS, in_each_precision

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
every_victim = pytest.mark.parametrize("name", RANKERS)


def weights(fitted):
    return {name: tensor.clone() for name, tensor in fitted.network.state_dict().items()}


def fit(spec, side, seed=0, **more):
    return spec.fit(side.training(), side.validation(), seed, **more)


def prompts_of(given):
    return {name: tensor for name, tensor in given.items() if name.startswith("prompt.")}


def model_of(given):
    return {name: tensor for name, tensor in given.items() if not name.startswith("prompt.")}


def same(a, b):
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


@pytest.fixture(scope="module")
def plain(tiny, parts):
    """Return a function that fits a victim without prompts once a module."""
    known = {name: fit(tiny(name), parts.pretrain) for name in RANKERS}
    return known.__getitem__


# What learns


def begun(start, data, seed):
    """Return what a fit of prompts should begin with: a plain model's weights, and prompts made from its items."""
    generator = PromptGenerator(ProfileVocabulary.of(data.users, Prompt()), 8, start.network.layers, 1)
    generator.reset(torch_stream(seed, "prompt"), data, start.network.item.weight[:-1])
    return weights(start) | {f"prompt.{name}": tensor for name, tensor in generator.state_dict().items()}


@every_victim
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("trained", ["prompts", "model", "all"])
def test_what_is_not_trained_stays_bit_for_bit(name, precision, trained, plain, parts):
    start, side = plain(name), parts.downstream
    left, before = weights(start), begun(start, side.training(), 4)
    recipe = {"trained": trained, "precision": precision, "keep": "last", "epochs": 2, "weight_decay": 0.1}
    fitted = fit(start.spec.with_prompts(Prompt(), **recipe), side, 4, start=start)
    after = weights(fitted)
    assert after.keys() == before.keys()
    assert len(prompts_of(after)) == 5
    wanted = {"prompts": prompts_of, "model": model_of, "all": dict}[trained](after).keys()
    assert {name for name in after if not after[name].equal(before[name])} == wanted
    assert all(tensor.dtype is torch.float32 and tensor.isfinite().all() for tensor in after.values())
    assert after["item.weight"][-1].eq(0).all()
    assert same(weights(start), left), "the model it started from is left alone"
    bare, history = fitted.without_prompts(), side.test().history
    assert same(weights(bare), model_of(after))
    assert bare.score(history).equal(start.score(history)) == (trained == "prompts")


@every_victim
def test_prompts_from_nothing(name, tiny, parts):
    """Without a start, prompts are made from the items as drawn; the same seed gives the same weights."""
    spec = tiny(name).with_prompts(Prompt())
    one, again, other = (weights(fit(spec, parts.pretrain, seed)) for seed in (1, 1, 2))
    assert same(one, again)
    assert not same(one, other)
    first = weights(fit(spec.with_training(epochs=1, learning_rate=1e-12), parts.pretrain, 1))
    generator = PromptGenerator(ProfileVocabulary.of(parts.pretrain.users, Prompt()), 8, spec.build(3).layers, 1)
    generator.reset(torch_stream(1, "prompt"), parts.pretrain.training(), first["item.weight"][:-1])
    for key, tensor in generator.state_dict().items():
        torch.testing.assert_close(first[f"prompt.{key}"], tensor, rtol=0, atol=1e-7)


def by_age(count):
    """Return users who all did the same first; what they do next is decided by their age alone."""
    age = np.arange(count) % 4
    profiles = {"age": list(map(str, age)), "gender": list("ffffmmmm" * (count // 8))}
    users = Users(tuple(map(str, range(count))), {k: Attribute.from_values(v) for k, v in profiles.items()})
    events = Interactions.from_lists([[0, 1 + a] for a in age])
    queries = Queries(Interactions.from_lists([[0]] * count), 1 + age.astype(np.int32), users)
    return TrainingData.from_interactions(events, users, Items.from_lists(map(str, range(12)))), queries


@in_each_precision
def test_prompts_alone_teach_a_frozen_model(name, precision, tiny):
    (data, queries), (_, others) = by_age(48), by_age(16)
    # The frozen model has met the four next items after items of their own, so it tells them apart.
    told = [[first, 1 + age] for age in range(4) for first in [0, 5 + age] * 12]
    past = TrainingData.from_interactions(Interactions.from_lists(told), Users(tuple(map(str, range(96)))), data.items)
    spec = tiny(name, hidden=16, epochs=20, batch_size=16, dropout=0.1, keep="last", validate_every=20)
    start = spec.fit(past, queries, 0)
    lift = {"trained": "prompts", "precision": precision, "prompt_learning_rate": 2e-2, "learning_rate": 1e-9}
    fitted = spec.with_prompts(Prompt(), **lift).fit(data, queries, 0, start=start)
    before, after, bare = (
        hit_ratio(model.rank_targets(others), 1).mean() for model in (start, fitted, fitted.without_prompts())
    )
    assert before == bare == 0.25, "without the age it's one in four"
    assert after > 0.7


# The recipe


@every_victim
@pytest.mark.parametrize("rate", [None, 1e-4])
@pytest.mark.parametrize("warmup", [0, 4])
def test_prompts_learn_at_a_rate_of_their_own(name, rate, warmup, plain, parts):
    """AdamW's first step moves every weight that has a gradient by the learning rate."""
    start, data = plain(name), parts.pretrain.training()
    recipe = {"epochs": 1, "batch_size": 1000, "learning_rate": 1e-2, "prompt_learning_rate": rate}
    spec = start.spec.with_prompts(Prompt(), warmup_steps=warmup, **recipe)
    before, after = begun(start, data, 0), weights(fit(spec, parts.pretrain, start=start))
    for key, tensor in after.items():
        wanted = rate if rate and key.startswith("prompt.") else 1e-2
        assert (tensor - before[key]).abs().max().item() == pytest.approx(wanted / max(1, warmup), rel=0.02), key


@every_victim
@pytest.mark.parametrize("keep", ["last", "best"])
def test_which_state_is_kept(name, keep, plain, parts, monkeypatch):
    seen, ranks = [], [1, 9, 9, 9, 9]

    def rank_targets(fitted, queries):
        seen.append(weights(fitted))
        return np.full(len(queries.target), ranks[len(seen) - 1])

    monkeypatch.setattr(FittedSequential, "rank_targets", rank_targets)
    spec = plain(name).spec.with_prompts(Prompt(), trained="prompts", keep=keep, epochs=5, patience=2)
    fitted = fit(spec, parts.downstream, start=plain(name))
    assert [epoch for epoch, _ in fitted.validations] == ([1, 2, 3, 4, 5] if keep == "last" else [1, 2, 3])
    assert not same(seen[0], seen[-1])
    assert same(weights(fitted), seen[-1 if keep == "last" else 0])


def test_trained_is_about_prompts(tiny):
    for trained in ("prompts", "model"):
        with pytest.raises(ValidationError, match="prompt"):
            tiny("sasrec", trained=trained)
        with pytest.raises(ValidationError, match="prompt"):
            tiny("sasrec").with_prompts(Prompt(), trained=trained).with_training(prompt=None)
    with pytest.raises(ValidationError):
        Prompt(length=0)


def test_a_recommender_without_prompts_says_so():
    class Plain(Recommender):
        """Takes no prompts."""

        def fit(self, data, validation, seed, context=None, start=None):
            raise NotImplementedError

        def load(self, path, device):
            raise NotImplementedError

    with pytest.raises(UserError, match="Plain takes no prompts") as error:
        Plain().with_prompts(Prompt())
    assert error.value.hint


# Where a fit may start


@every_victim
def test_starts_with_and_without_prompts(name, plain, parts):
    """A fit that learns next to nothing shows where it began."""
    side, still = parts.downstream, {"epochs": 1, "learning_rate": 1e-12}
    bare = plain(name)
    spec = bare.spec.with_prompts(Prompt())
    prompted = fit(spec.with_training(trained="prompts"), parts.pretrain, start=bare)
    known = prompted.network.prompt.vocabulary
    young = side.users.get_attribute("age").codes == 0
    some = TrainingData.from_interactions(
        side.training().interactions.select(np.flatnonzero(young)), side.users.take(np.flatnonzero(young)), side.items
    )
    for recipe, data, start, wanted in (
        (spec, side.training(), bare, begun(bare, side.training(), 6)),
        (spec, some, prompted, weights(prompted)),
        (bare.spec, side.training(), prompted, model_of(weights(prompted))),
    ):
        found = recipe.with_training(**still).fit(data, side.validation(), 6, start=start)
        assert found.network.state_dict().keys() == wanted.keys()
        for key, tensor in wanted.items():
            torch.testing.assert_close(found.network.state_dict()[key], tensor, rtol=0, atol=1e-7)
        if recipe is spec:
            assert found.network.prompt.vocabulary == known, "values are numbered as the start numbers them"


@every_victim
def test_a_start_that_does_not_fit_is_a_user_error(name, plain, tiny, parts):
    bare, side = plain(name), parts.downstream
    prompted = fit(bare.spec.with_prompts(Prompt(), epochs=1), side, start=bare)
    for spec, start in (
        (bare.spec.with_prompts(Prompt(attributes=("age",))), prompted),
        (bare.spec.with_prompts(Prompt(length=2)), prompted),
        (tiny(name, hidden=16).with_prompts(Prompt()), prompted),
        (tiny(name, hidden=16).with_prompts(Prompt()), bare),
        (tiny(name, hidden=16), prompted),
        (tiny(name, layers=3).with_prompts(Prompt()), bare),
    ):
        with pytest.raises(UserError, match="can't start") as error:
            fit(spec, side, start=start)
        assert error.value.hint
    nobody = TrainingData.from_interactions(side.training().interactions, Users(side.users.ids), side.items)
    with pytest.raises(UserError, match="age"):
        prompted.spec.fit(nobody, side.validation(), 0, start=prompted)


def test_a_state_is_one_vector(plain, parts):
    fit(plain("sasrec").spec.with_prompts(Prompt(length=2), epochs=1), parts.downstream, start=plain("sasrec"))
    for start in (None, plain("gru4rec")):
        with pytest.raises(UserError, match="at most 1") as error:
            fit(plain("gru4rec").spec.with_prompts(Prompt(length=2)), parts.downstream, start=start)
        assert error.value.hint


# Resuming


class StopError(Exception):
    pass


@every_victim
@pytest.mark.parametrize("recipe", [{}, {"precision": "bfloat16", "keep": "last", "prompt_learning_rate": 3e-2}])
def test_prompts_resume(name, recipe, plain, parts, monkeypatch, tmp_path):
    monkeypatch.setattr(training_loop, "CHECKPOINT_SECONDS", -1.0)
    start, steps, stop = plain(name), [], [0]
    original = training._Fit._report_and_save

    def housekeeping(self):
        original(self)
        steps.append(self.step)
        if self.step == stop[0]:
            raise StopError

    monkeypatch.setattr(training._Fit, "_report_and_save", housekeeping)
    spec = start.spec.with_prompts(Prompt(), trained="prompts", epochs=2, dropout=0.3, weight_decay=0.1, **recipe)

    def run(folder=None, start=start):
        return fit(spec, parts.pretrain, 3, context=FitContext(folder=folder, warn=pytest.fail), start=start)

    wanted = run()
    total = steps[-1]
    for done in (2, total // 2, total - 1):
        stop[0] = done
        with pytest.raises(StopError):
            run(tmp_path)
        stop[0] = 0
        steps.clear()
        found = run(tmp_path)
        assert steps == list(range(done + 1, total + 1))
        checkpoint.clear(tmp_path)
        assert same(weights(found), weights(wanted))
        assert found.validations == wanted.validations
        assert same(model_of(weights(found)), weights(start))
