"""Dropout masks: how many, how large, whose, and the same again."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cowbird.victims.sequential.noise import Noise

CPU = torch.device("cpu")


def masks(noise, seed, shapes):
    noise.begin(seed)
    return [noise(torch.ones(shape, dtype=noise._masks.dtype)) for shape in shapes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_rate_and_scale(rate, dtype):
    noise = Noise(rate, CPU, dtype)
    (mask,) = masks(noise, 1, [(400, 500)])
    assert mask.dtype is dtype
    exact = round(rate * 256) / 256
    dropped = (mask == 0).double().mean().item()
    assert dropped == pytest.approx(exact, abs=5 * (exact * (1 - exact) / mask.numel()) ** 0.5)
    (kept,) = mask[mask != 0].unique().tolist()
    assert kept == pytest.approx(1 / (1 - exact), rel=1e-6 if dtype is torch.float32 else 4e-3)


def test_values_are_scaled_not_replaced():
    noise = Noise(0.5, CPU)
    noise.begin(0)
    x = torch.arange(1.0, 1001.0)
    y = noise(x)
    assert y[y != 0].equal(2 * x[y != 0])
    assert 300 < int((y != 0).sum()) < 700


def test_rate_zero_is_the_identity():
    noise = Noise(0.0, CPU)
    x = torch.randn(7)
    noise.begin(3)
    assert noise(x) is x


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(ValueError, match="rate"):
        Noise(rate, CPU)


@pytest.mark.parametrize("rate", [0.998, 0.999, 1 - 1e-9])
def test_every_rate_below_one_works(rate):
    (mask,) = masks(Noise(rate, CPU), 0, [(10_000,)])
    assert mask.isfinite().all()
    assert 0 < int((mask != 0).sum()) < 200


SHAPES = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(SHAPES, SHAPES, st.integers(0, 2**63 - 1))
def test_a_seed_gives_the_same_masks_whatever_came_before(shapes, others, seed):
    """A resumed fit begins with a fresh `Noise`, an uninterrupted one with a used one."""
    used = Noise(0.5, CPU)
    for earlier in range(3):
        masks(used, earlier, others)
    fresh = masks(Noise(0.5, CPU), seed, shapes)
    for again in (masks(used, seed, shapes), masks(used, seed, shapes)):
        assert all(a.equal(b) for a, b in zip(fresh, again, strict=True))


def test_steps_and_calls_differ():
    noise = Noise(0.5, CPU)
    for _ in range(2):  # the first step draws call by call, later ones at once
        first, second = masks(noise, 1, [(100,), (100,)])
        assert not first.equal(second)
        assert not masks(noise, 2, [(100,)])[0].equal(first)


def test_backward_uses_the_mask_of_forward():
    noise = Noise(0.3, CPU)
    for step in range(2):
        noise.begin(step)
        x = torch.randn(50, 4, generator=torch.Generator().manual_seed(step)).requires_grad_()
        y = noise(x)
        noise(torch.ones(13))
        y.sum().backward()
        assert x.grad.ne(0).any()
        assert x.grad.eq(0).any()
        torch.testing.assert_close(x.grad * x.detach(), y.detach())


def test_an_earlier_steps_masks_are_not_overwritten():
    noise = Noise(0.5, CPU)
    masks(noise, 0, [(64,)])
    noise.begin(1)
    x = torch.ones(64, requires_grad=True)
    y = noise(x)
    noise.begin(2)
    noise(torch.ones(64))
    y.sum().backward()
    assert x.grad.equal(y.detach())


def test_global_random_state_is_untouched():
    before = torch.get_rng_state()
    masks(Noise(0.5, CPU), 1, [(64,), (3, 5)])
    assert torch.get_rng_state().equal(before)


def test_no_two_steps_of_a_fit_share_their_masks(tiny, parts, monkeypatch):
    seeds, begin = [], Noise.begin
    monkeypatch.setattr(Noise, "begin", lambda self, seed: seeds.append(seed) or begin(self, seed))
    spec, side = tiny("sasrec", dropout=0.2), parts.pretrain
    for seed in (0, 1):
        spec.fit(side.training(), side.validation(), seed)
    assert len(seeds) == len(set(seeds)) > 2 * spec.epochs
