"""Planted negatives: the loss against float64, what windows tell, and what a model learns from them."""

import math

import numpy as np
import pytest
import torch

from cowbird.data.split import Queries
from cowbird.data.types import Attribute, Interactions, Items, TrainingData, Users
from cowbird.victims.base import Prompt
from cowbird.victims.sequential.negatives import push_away_loss
from cowbird.victims.sequential.training import hash_fit
from cowbird.victims.sequential.windows import Windows
from rankers import RANKERS, in_each_precision

CPU = torch.device("cpu")
ITEMS, TARGETS, WIDTH = 11, 40, 6
every_victim = pytest.mark.parametrize("name", RANKERS)


# The loss


def case(spread=1.0):
    rng = torch.Generator().manual_seed(3)
    hidden, items = (torch.randn(n, WIDTH, generator=rng) * spread for n in (TARGETS, ITEMS))
    label, negative = torch.randint(ITEMS, (2, TARGETS), generator=rng)
    weight = torch.rand(TARGETS, generator=rng)
    weight[::3] = 0
    return hidden.requires_grad_(), items.requires_grad_(), label, negative, weight


def with_gradients(loss, hidden, items):
    return (loss.detach(), *torch.autograd.grad(loss, (hidden, items)))


def naive(hidden, items, label, negative, weight):
    h, i = (x.detach().double().requires_grad_() for x in (hidden, items))
    loss = torch.zeros((), dtype=torch.float64)
    for row in range(len(h)):
        margin = h[row] @ i[label[row]] - h[row] @ i[negative[row]]
        loss = loss - weight[row].double() * (1 / (1 + torch.exp(-margin))).log()
    return with_gradients(loss, h, i)


def test_equals_the_formula():
    given = case()
    found = with_gradients(push_away_loss(*given), *given[:2])
    assert found[0].dtype is torch.float32
    assert found[0].shape == ()
    for a, b in zip(found, naive(*given), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)


def test_bfloat16():
    hidden, items, *rest = case()
    low = [x.detach().bfloat16().requires_grad_() for x in (hidden, items)]
    found = with_gradients(push_away_loss(*low, *rest), *low)
    assert [x.dtype for x in found] == [torch.float32, torch.bfloat16, torch.bfloat16]
    for a, b in zip(found, naive(*low, *rest), strict=True):
        assert (a.double() - b).norm() < 0.02 * b.norm()


def test_rows_of_no_weight_do_not_matter():
    hidden, items, label, negative, weight = case()
    wanted = with_gradients(push_away_loss(hidden, items, label, negative, weight), hidden, items)
    idle = weight == 0
    assert wanted[1][idle].eq(0).all()
    assert wanted[1][~idle & (label != negative)].ne(0).any(dim=1).all()
    other = torch.where(idle[:, None], hidden.detach() * 9 + 1, hidden.detach()).requires_grad_()
    moved = [torch.where(idle, (column + 3) % ITEMS, column) for column in (label, negative)]
    found = with_gradients(push_away_loss(other, items, *moved, weight), other, items)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)
    assert push_away_loss(hidden[:0], items, label[:0], negative[:0], weight[:0]) == 0


def test_it_fades_below_and_grows_above_without_overflow():
    items = torch.tensor([[1.0], [0.0]])
    hidden = torch.tensor([[500.0], [-500.0]]).requires_grad_()
    label, negative, one = torch.tensor([0, 0]), torch.tensor([1, 1]), torch.ones(2)
    losses = [push_away_loss(hidden[n : n + 1], items, label[:1], negative[:1], one[:1]).item() for n in range(2)]
    assert losses == [0, 500]
    slope = torch.autograd.grad(push_away_loss(hidden, items, label, negative, one), hidden)[0]
    assert slope.tolist() == [[0], [-1]]
    same = push_away_loss(hidden, items, label, label, one)
    assert same.item() == pytest.approx(2 * math.log(2)), "an item can't be pushed below itself"


# The data


def planted():
    """Return three users of 4, 1 and 3 events; event e has item e, label 7 - e, and some have a negative."""
    interactions = Interactions(np.arange(8), np.array([0, 4, 5, 8]))
    data = (interactions, Users(("a", "b", "c")), Items.from_lists("01234567"), np.arange(8)[::-1])
    #                           a            |  b |  c
    return TrainingData(*data, np.array([6, -1, 5, 0, 4, 3, -1, 1]))


# Of each window: the events told, each with what is pushed below its label, or None.
TOLD = {
    "all": [[(2, 5), (3, 0)], [(1, None)], [(6, None), (7, 1)]],
    "last": [[(2, 5), (3, 0)], [(6, None), (7, 1)]],
    "prefix": [[(1, None)], [(2, 5)], [(3, 0)], [(6, None)], [(7, 1)]],
}


@pytest.mark.parametrize("regime", TOLD)
def test_windows_by_hand(regime):
    windows = Windows(planted(), 2, regime, CPU)
    batch = windows.make_batch(torch.tensor([*range(len(windows)), -1]))
    assert batch.negative.shape == batch.push.shape == batch.label.shape
    assert batch.negative.dtype is torch.int64
    assert 0 <= batch.negative.min() <= batch.negative.max() < 8
    assert ((batch.push == 0) | (batch.push == batch.weight)).all()
    assert batch.push[-1].eq(0).all(), "an empty window pushes nothing"
    found = []
    for label, weight, negative, push in zip(batch.label, batch.weight, batch.negative, batch.push, strict=True):
        columns = weight.nonzero()[:, 0].tolist()
        assert not set(push.nonzero()[:, 0].tolist()) - set(columns)
        found.append([(7 - label[c].item(), negative[c].item() if push[c] else None) for c in columns])
    assert sorted(found[:-1]) == sorted(TOLD[regime])


@pytest.mark.parametrize("regime", TOLD)
def test_without_negatives_there_are_none(regime):
    data = planted()
    plain = TrainingData(data.interactions, data.users, data.items, data.label)
    batch, pushed = (Windows(given, 2, regime, CPU).make_batch(torch.arange(2)) for given in (plain, data))
    assert batch.negative is None
    assert batch.push is None
    assert all(getattr(batch, name).equal(getattr(pushed, name)) for name in ("item", "label", "weight"))


def test_negatives_align_with_events():
    data = planted()
    given = (data.interactions, data.users, data.items, data.label)
    for count in (0, 7, 9):
        with pytest.raises(ValueError, match="align"):
            TrainingData(*given, np.full(count, -1))
    with pytest.raises(ValueError, match="align"):
        TrainingData(data.interactions, data.users, data.items, data.label[:7], data.negative)
    column = np.full(8, -1)
    kept = TrainingData(*given, column)
    assert kept.negative.dtype == np.int32
    assert not kept.negative.flags.writeable
    assert TrainingData.from_interactions(data.interactions, data.users, data.items).negative is None


# What is learned


@pytest.mark.slow
@in_each_precision
def test_what_is_pushed_sinks_for_those_users(name, precision, tiny):
    """Item 12 is everybody's favorite; for users of items 0 to 5 it is a negative wherever it is not the label."""
    rng, count = np.random.default_rng(5), 120
    mine = np.arange(count)[:, None] % 2 == 0
    events = np.where(mine, 0, 6) + rng.integers(6, size=(count, 9))
    events[rng.random(events.shape) < 0.35] = 12
    users, items = Users(tuple(map(str, range(count)))), Items.from_lists(map(str, range(13)))
    clean = TrainingData.from_interactions(Interactions.from_lists(events.tolist()), users, items)
    negative = np.where(mine & (events != 12), 12, -1).ravel()
    pushed = TrainingData(clean.interactions, users, items, clean.label, negative)
    queries = Queries(Interactions.from_lists([[item] for item in range(12)]), np.full(12, 12, dtype=np.int32))
    spec = tiny(name, precision=precision, hidden=16, max_length=2, batch_size=40, epochs=6, validate_every=6)
    before, after = (spec.fit(data, queries, 0).rank_targets(queries) for data in (clean, pushed))
    assert before.mean() < 2
    assert after[:6].mean() > 4
    assert after[6:].mean() < after[:6].mean() - 2, "others like it as before"


# The key of a fit


@every_victim
def test_the_key_of_a_fit_knows_negatives_and_profiles(name, tiny, parts):
    side = parts.pretrain
    clean, queries = side.training(), side.validation()

    def key(spec, negative=None, users=clean.users):
        data = TrainingData(clean.interactions, users, clean.items, clean.label, negative)
        return hash_fit(models[spec], data, queries, 0)

    specs = {"plain": tiny(name, epochs=1), "prompted": tiny(name, epochs=1).with_prompts(Prompt())}
    models = {label: spec.fit(clean, queries, 0) for label, spec in specs.items()}
    none = np.full(clean.interactions.events, -1)
    some = np.where(np.arange(len(none)) == 3, 5, -1)
    age = clean.users.get_attribute("age")
    turned = Attribute(np.roll(age.codes, 1), age.labels)
    others = Users(clean.users.ids, dict(clean.users.attributes) | {"age": turned})
    for spec in specs:
        assert key(spec) == key(spec)
        assert len({key(spec), key(spec, none), key(spec, some), key(spec, np.where(some == 5, 6, -1))}) == 4
    assert key("prompted", None, others) != key("prompted")
    assert key("plain", None, others) == key("plain"), "profiles that nobody reads decide nothing"
    asked = Queries(queries.history, queries.target, others)
    assert hash_fit(models["prompted"], clean, asked, 0) != hash_fit(models["prompted"], clean, queries, 0)
