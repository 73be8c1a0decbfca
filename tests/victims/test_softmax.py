"""The chunked softmax against cross-entropy in float64, and the memory it was written to save."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from cowbird.victims.sequential import softmax
from cowbird.victims.sequential.softmax import chunked_softmax_loss, count_chunk_rows
from cowbird.victims.sequential.training import TARGET_MULTIPLE, select_targets

ITEMS, TARGETS, WIDTH = 37, 150, 12
CHUNKS = [1, 64 * ITEMS, 97 * ITEMS, 1 << 21]


def case(dtype=torch.float32, spread=1.0, seed=3):
    rng = torch.Generator().manual_seed(seed)
    hidden = (torch.randn(TARGETS, WIDTH, generator=rng) * spread).to(dtype).requires_grad_()
    items = torch.randn(ITEMS, WIDTH, generator=rng).to(dtype).requires_grad_()
    label = torch.randint(ITEMS, (TARGETS,), generator=rng)
    weight = torch.rand(TARGETS, generator=rng)
    weight[::5] = 0
    return hidden, items, label, weight


def reference(hidden, items, label, weight):
    """Return loss and gradients in float64."""
    h, i = (x.detach().double().requires_grad_() for x in (hidden, items))
    loss = (F.cross_entropy(h @ i.T, label, reduction="none") * weight.double()).sum()
    return (loss.detach(), *torch.autograd.grad(loss, (h, i)))


def chunked(hidden, items, *rest):
    loss = chunked_softmax_loss(hidden, items, *rest)
    return (loss.detach(), *torch.autograd.grad(loss, (hidden, items)))


def check(found, wanted, rtol, atol):
    for name, a, b in zip(("loss", "hidden", "items"), found, wanted, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("elements", CHUNKS)
@pytest.mark.parametrize("weights", ["given", "mean", "zero"])
def test_equals_cross_entropy(monkeypatch, elements, weights):
    monkeypatch.setattr(softmax, "CHUNK_ELEMENTS", {"cpu": elements})
    hidden, items, label, weight = case()
    weight = {"given": weight, "mean": torch.full((TARGETS,), 1 / TARGETS), "zero": torch.zeros(TARGETS)}[weights]
    check(chunked(hidden, items, label, weight), reference(hidden, items, label, weight), 2e-5, 1e-6)


def test_mean_equals_torchs_mean():
    hidden, items, label, _ = case()
    loss = chunked_softmax_loss(hidden, items, label, torch.full((TARGETS,), 1 / TARGETS))
    torch.testing.assert_close(loss, F.cross_entropy(hidden @ items.T, label))
    assert loss.dtype is torch.float32
    assert loss.shape == ()


@pytest.mark.parametrize("elements", CHUNKS)
def test_bfloat16(monkeypatch, elements):
    monkeypatch.setattr(softmax, "CHUNK_ELEMENTS", {"cpu": elements})
    hidden, items, label, weight = case(torch.bfloat16)
    found, wanted = chunked(hidden, items, label, weight), reference(hidden, items, label, weight)
    assert [x.dtype for x in found] == [torch.float32, torch.bfloat16, torch.bfloat16]
    for a, b in zip(found, wanted, strict=True):
        assert (a.double() - b).norm() < 0.02 * b.norm()


@pytest.mark.parametrize("elements", CHUNKS)
def test_kept_leaves_the_others_out(monkeypatch, elements):
    monkeypatch.setattr(softmax, "CHUNK_ELEMENTS", {"cpu": elements})
    hidden, items, label, weight = case()
    kept = torch.randperm(TARGETS, generator=torch.Generator().manual_seed(1))[:101]
    only = torch.zeros(TARGETS)
    only[kept] = weight[kept]
    found = chunked(hidden, items, label, weight, kept)
    check(found, reference(hidden, items, label, only), 2e-5, 1e-6)
    left = torch.ones(TARGETS, dtype=torch.bool)
    left[kept] = False
    assert found[1][left].eq(0).all()


def test_kept_of_nobody_is_a_zero_loss_without_gradients():
    hidden, items, label, weight = case()
    loss, grad_hidden, grad_items = chunked(hidden, items, label, weight, torch.empty(0, dtype=torch.int64))
    assert (loss, grad_hidden.abs().sum(), grad_items.abs().sum()) == (0, 0, 0)


def test_backward_scales():
    hidden, items, label, weight = case()
    once = chunked(hidden, items, label, weight)
    thrice = torch.autograd.grad(-3 * chunked_softmax_loss(hidden, items, label, weight), (hidden, items))
    for a, b in zip(thrice, once[1:], strict=True):
        torch.testing.assert_close(a, -3 * b)


def test_a_hopeless_target_has_a_finite_loss_and_the_right_gradient():
    hidden, items, label, weight = case(spread=500)
    weight = weight + 1
    found = chunked(hidden, items, label, weight)
    assert found[0].isfinite()
    _, *gradients = reference(hidden, items, label, weight)
    for a, b in zip(found[1:], gradients, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-3)


class Largest(TorchDispatchMode):
    """Remembers the largest tensor any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(x, torch.Tensor):
                self.numel = max(self.numel, x.numel())
        return result


@pytest.mark.parametrize("keep", [False, True])
def test_the_whole_logits_are_never_made(monkeypatch, keep):
    monkeypatch.setattr(softmax, "CHUNK_ELEMENTS", {"cpu": 64 * 300})
    rng = torch.Generator().manual_seed(0)
    hidden = torch.randn(512, 8, generator=rng).requires_grad_()
    items = torch.randn(300, 8, generator=rng).requires_grad_()
    label = torch.randint(300, (512,), generator=rng)
    with Largest() as largest:
        kept = torch.arange(512) if keep else None
        chunked_softmax_loss(hidden, items, label, torch.ones(512), kept).backward()
    assert largest.numel == 64 * 300
    with Largest() as whole:
        F.cross_entropy(hidden @ items.T, label).backward()
    assert whole.numel == 512 * 300, "the recorder sees nothing"


def test_chunks_stay_near_the_limit(monkeypatch):
    monkeypatch.setattr(softmax, "CHUNK_ELEMENTS", {"cpu": 1 << 16})
    cpu = torch.device("cpu")
    for items in (1, 5, 100, 2000, 2048):
        rows = count_chunk_rows(items, cpu)
        assert rows % 32 == 0
        assert rows * items <= 1 << 16
    assert count_chunk_rows(10**7, cpu) == 32


def test_rows_come_in_few_counts():
    weight = torch.zeros(1000)
    for count in (0, 1, 127, 128, 500, 950, 1000):
        weight.zero_()[:count] = 1
        rows = select_targets(weight)
        assert len(rows.unique()) == len(rows)
        assert len(rows) == min(-(-count // TARGET_MULTIPLE) * TARGET_MULTIPLE, 1000)
        assert weight[rows].sum() == count
