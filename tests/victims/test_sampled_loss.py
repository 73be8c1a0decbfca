"""The sampled loss: values and gradients against float64, whose negatives, and that models learn from it and resume."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from cowbird.data.types import TrainingData
from cowbird.metrics.ranking import hit_ratio
from cowbird.plugins import find_plugin
from cowbird.victims import checkpoint, training_loop
from cowbird.victims.base import FitContext, Prompt
from cowbird.victims.sequential import training
from cowbird.victims.sequential.negatives import sampled_loss
from cowbird.victims.sequential.noise import Noise
from rankers import in_each_precision

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
ITEMS, TARGETS, WIDTH = 9, 30, 5
both_victims = pytest.mark.parametrize("name", ["sasrec", "gru4rec"])


# The loss


def case(negatives, spread=1.0):
    rng = torch.Generator().manual_seed(negatives)
    hidden, items = (torch.randn(n, WIDTH, generator=rng) * spread for n in (TARGETS, ITEMS))
    label = torch.randint(ITEMS, (TARGETS,), generator=rng)
    negative = torch.randint(ITEMS, (TARGETS, negatives), generator=rng)
    weight = torch.rand(TARGETS, generator=rng)
    weight[::4] = 0
    return hidden.requires_grad_(), items.requires_grad_(), label, negative, weight


def naive(hidden, items, label, negative, weight):
    """Return the loss and its gradients in float64, by hand, a target at a time."""
    hidden, items, weight = (tensor.detach().double().numpy() for tensor in (hidden, items, weight))
    total, d_hidden, d_items = 0.0, np.zeros_like(hidden), np.zeros_like(items)
    for n in range(len(hidden)):
        for item, wanted in [(int(label[n]), 1.0), *((int(item), 0.0) for item in negative[n])]:
            score = hidden[n] @ items[item]
            chance = 1 / (1 + np.exp(-score))
            total -= weight[n] * np.log(chance if wanted else 1 - chance)
            slope = weight[n] * (chance - wanted)
            d_hidden[n] += slope * items[item]
            d_items[item] += slope * hidden[n]
    return total, d_hidden, d_items


def with_gradients(loss, hidden, items):
    return (loss.item(), *(tensor.double().numpy() for tensor in torch.autograd.grad(loss, (hidden, items))))


@pytest.mark.parametrize("negatives", [1, 3])
@pytest.mark.parametrize("spread", [0.05, 1.0, 2.0])
def test_as_by_hand(negatives, spread):
    given = case(negatives, spread)
    found = with_gradients(sampled_loss(*given), *given[:2])
    for value, wanted in zip(found, naive(*given), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=2e-5, atol=2e-6)
    assert sampled_loss(*given).dtype is torch.float32


def test_bfloat16_is_summed_in_float32():
    hidden, items, *rest = case(2, 0.5)
    low = [tensor.detach().bfloat16().requires_grad_() for tensor in (hidden, items)]
    loss = sampled_loss(*low, *rest)
    assert loss.dtype is torch.float32
    found = with_gradients(loss, *low)
    for value, wanted in zip(found, naive(*low, *rest), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=0.03, atol=0.02)
    nothing = torch.zeros(1, WIDTH, dtype=torch.bfloat16)
    even = sampled_loss(nothing, low[1], torch.tensor([0]), torch.tensor([[1]]), torch.ones(1))
    assert even.item() == pytest.approx(2 * np.log(2), rel=1e-6)


def test_rows_without_weight_neither_count_nor_move():
    hidden, items, label, negative, weight = case(2)
    idle = weight == 0
    wanted = with_gradients(sampled_loss(hidden, items, label, negative, weight), hidden, items)
    assert not wanted[1][idle].any()
    rows = ~idle
    kept = with_gradients(sampled_loss(hidden[rows], items, label[rows], negative[rows], weight[rows]), hidden, items)
    for a, b in zip(kept, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert sampled_loss(hidden[:0], items, label[:0], negative[:0], weight[:0]) == 0


def test_large_scores_do_not_overflow():
    items, one = torch.tensor([[1.0], [0.5]]), torch.ones(1)
    label, negative = torch.tensor([0]), torch.tensor([[1]])
    for score, wanted in ((400.0, 200.0), (-400.0, 400.0)):
        assert sampled_loss(torch.tensor([[score]]), items, label, negative, one).item() == wanted


# The draws


def draws(noise, seed, high=1000, shape=(6, 4)):
    noise.begin(seed)
    return noise.draw_integers(high, shape), noise.draw_integers(high, shape)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_draws_depend_on_the_step_alone(rate):
    wanted = {seed: draws(Noise(rate, CPU), seed) for seed in (3, 4)}
    assert not wanted[3][0].equal(wanted[3][1]), "each draw of a step is another"
    assert not wanted[3][0].equal(wanted[4][0])
    for masks in (0, 1, 50, 5000):
        used = Noise(rate, CPU)
        for seed in (7, 3):
            used.begin(seed)
            used(torch.ones(masks))
            used.draw_integers(5, (masks,))
        used.begin(3)
        used(torch.ones(3 * masks))  # masks are drawn before, between and after, and change nothing
        first = used.draw_integers(1000, (6, 4))
        used(torch.ones(2, masks))
        assert first.equal(wanted[3][0])
        assert used.draw_integers(1000, (6, 4)).equal(wanted[3][1])


def test_draws_change_no_mask():
    def masks(drawn):
        noise, found = Noise(0.5, CPU), []
        for seed in (1, 2, 2):
            noise.begin(seed)
            found.append(noise(torch.ones(40)))
            noise.draw_integers(9, (drawn,))
            found.append(noise(torch.ones(40)))
        return torch.cat(found)

    assert masks(0).equal(masks(100))


def test_draws_are_uniform_and_global_state_stays():
    before, noise = torch.get_rng_state(), Noise(0.2, CPU)
    noise.begin(5)
    found = noise.draw_integers(8, (10_000, 4))
    assert found.dtype is torch.int64
    counts = torch.bincount(found.flatten(), minlength=8).double()
    assert counts.shape == (8,)
    assert ((counts / counts.sum() - 1 / 8).abs() < 0.01).all()
    assert torch.get_rng_state().equal(before)


# What a step is given


def seen_by_the_loss(spec, data, queries, monkeypatch):
    """Return what each step of a fit hands to the loss, rows with weight alone, as (label, negatives)."""
    calls = []

    def spy(hidden, items, label, negative, weight):
        kept = weight > 0
        calls.append((label[kept].clone(), negative[kept].clone()))
        return sampled_loss(hidden, items, label, negative, weight)

    monkeypatch.setattr(training, "sampled_loss", spy)
    spec.fit(data, queries, 0)
    return calls


@pytest.mark.parametrize("negatives", [1, 3])
@pytest.mark.parametrize("regime", ["all", "last", "prefix"])
def test_planted_negatives_stand_in_the_first_place(negatives, regime, tiny, parts, monkeypatch):
    side = parts.pretrain
    clean, spec = side.training(), tiny("sasrec", loss="sampled", sampled_negatives=negatives, regime=regime, epochs=2)
    # A label tells which negative is planted there: the next item where the label divides by 3, else none.
    negative = np.where(clean.label % 3 == 0, (clean.label + 1) % 24, -1)
    planted = TrainingData(clean.interactions, clean.users, clean.items, clean.label, negative)
    plain = seen_by_the_loss(spec, clean, side.validation(), monkeypatch)
    found = seen_by_the_loss(spec, planted, side.validation(), monkeypatch)
    assert len(plain) == len(found) > 2
    pushed = 0
    for (label, drawn), (same, given) in zip(plain, found, strict=True):
        assert label.equal(same)
        assert given.shape == drawn.shape == (len(label), negatives)
        here = label % 3 == 0
        assert given[here, 0].equal((label[here] + 1) % 24)
        assert given[~here].equal(drawn[~here]), "others keep what was sampled"
        assert given[:, 1:].equal(drawn[:, 1:]), "and so do further negatives"
        pushed += int(here.sum())
    assert pushed > 10
    assert len(torch.cat([drawn for _, drawn in plain]).unique()) == 24, "the whole catalogue, and no padding"


def test_the_loss_is_the_one_asked_for(tiny, parts, monkeypatch):
    side = parts.pretrain
    assert not seen_by_the_loss(tiny("sasrec", epochs=1), side.training(), side.validation(), monkeypatch)
    for fields in ({"loss": "hinge"}, {"sampled_negatives": 0}):
        with pytest.raises(ValidationError):
            tiny("sasrec", **fields)


# What is learned


@in_each_precision
def test_it_learns(name, precision, learnable):
    common = {"hidden": 32, "max_length": 10, "batch_size": 32, "learning_rate": 8e-3, "dropout": 0.1}
    spec = find_plugin("victim", name)(
        loss="sampled", sampled_negatives=4, epochs=12, validate_every=12, precision=precision, **common
    )
    side = learnable.pretrain
    fitted = spec.fit(side.training(), side.validation(), 0)
    chance = 10 / len(side.items)
    for asked in (side.test(), learnable.downstream.test()):
        assert hit_ratio(fitted.rank_targets(asked), 10).mean() > 3 * chance


# Resuming


class StopError(Exception):
    pass


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        pytest.param("gru4rec", {}, marks=pytest.mark.slow),
        ("sasrec", {"precision": "bfloat16", "sampled_negatives": 2}),
    ],
)
def test_it_resumes(name, recipe, tiny, parts, monkeypatch, tmp_path):
    monkeypatch.setattr(training_loop, "CHECKPOINT_SECONDS", -1.0)
    steps, stop, original = [], [0], training._Fit._report_and_save

    def housekeeping(self):
        original(self)
        steps.append(self.step)
        if self.step == stop[0]:
            raise StopError

    monkeypatch.setattr(training._Fit, "_report_and_save", housekeeping)
    side = parts.pretrain
    clean = side.training()
    negative = np.where(np.arange(len(clean.label)) % 3 == 0, 5, -1)
    data = TrainingData(clean.interactions, clean.users, clean.items, clean.label, negative)
    spec = tiny(name, loss="sampled", epochs=3, dropout=0.3, weight_decay=0.1, **recipe).with_prompts(Prompt())

    def run(folder=None):
        fitted = spec.fit(data, side.validation(), 3, FitContext(folder=folder, warn=pytest.fail))
        return {key: tensor.clone() for key, tensor in fitted.network.state_dict().items()}, fitted.validations

    wanted = run()
    total = steps[-1]
    per_epoch = total // 3
    for done in (1, per_epoch, per_epoch + 1, total - 1):
        stop[0] = done
        with pytest.raises(StopError):
            run(tmp_path)
        stop[0] = 0
        steps.clear()
        weights, validations = run(tmp_path)
        assert steps == list(range(done + 1, total + 1))
        checkpoint.clear(tmp_path)
        assert validations == wanted[1]
        assert weights.keys() == wanted[0].keys()
        assert all(weights[key].equal(wanted[0][key]) for key in weights)
