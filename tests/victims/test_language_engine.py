"""What a GPU does otherwise: padded rows, and adapters merged into weights; checked on the CPU in float32."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cowbird.errors import UserError
from cowbird.victims import training_loop
from cowbird.victims.base import FitContext
from cowbird.victims.language import tuning
from cowbird.victims.language.attention import plug_in
from cowbird.victims.language.engine import GradientAccumulator, prepare_inference
from cowbird.victims.language.examples import Tokens
from cowbird.victims.language.llm import Llm, add_adapters, load_llm
from cowbird.victims.language.packing import (
    MAX_PADDING_TOKENS,
    PREDICTIONS_MULTIPLE,
    TOKENS_MULTIPLE,
    answer_loss,
    lay_out,
    pack,
    unfold,
)
from cowbird.victims.language.tuning import Tuning, tune
from cowbird.victims.language.weights import CopiedWeights, MergedAdapters

pytest.importorskip("transformers")
pytest.importorskip("peft")
CPU = torch.device("cpu")


def examples(lengths, answers, items=False, seed=0):
    """Return random examples of some lengths, the last tokens of which are answers."""
    rng = np.random.default_rng(seed)
    offsets = np.cumsum([0, *lengths])
    token = rng.integers(3, 390, offsets[-1])
    item = np.where(rng.random(offsets[-1]) < 0.3, rng.integers(5, size=offsets[-1]), -1) if items else None
    return Tokens(token, offsets, offsets[1:] - answers, item)


@pytest.fixture
def model(llama):
    """Return a function that makes the tiny model with adapters that already do something."""

    def make():
        llm = Llm(name=str(llama), rank=2, alpha=6, modules=("q_proj", "v_proj", "down_proj"))
        made = add_adapters(load_llm(llm, CPU, torch.float32).model, llm, torch.Generator().manual_seed(4))
        noise = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for name, weight in made.named_parameters():
                if "lora_B" in name:
                    weight.copy_(torch.empty(weight.shape).normal_(0, 0.05, generator=noise))
        return made

    return make


# Padded rows


@given(st.lists(st.integers(2, 300), min_size=1, max_size=12), st.integers(0, 9), st.booleans())
def test_padded_rows_keep_their_promises(lengths, room, items):
    tokens, index = examples(lengths, 1, items), np.arange(len(lengths))
    sheet = lay_out(tokens, index, True, 2, room)
    row = unfold(torch.from_numpy(sheet.flat), sheet.sizes, sheet.bounds)
    assert row.token.shape[1] % TOKENS_MULTIPLE == 0
    assert len(row.predict) % PREDICTIONS_MULTIPLE == 0
    borders = row.documents.offsets.tolist()
    assert borders[: len(lengths) + 1] == tokens.offsets.tolist()
    assert borders[-1] == row.token.shape[1]
    assert all(0 <= b - a <= row.documents.longest for a, b in pairwise(borders)), "no kernel leaves out a token"
    assert len(borders) - 1 == max(room, len(lengths)) + TOKENS_MULTIPLE // MAX_PADDING_TOKENS
    for a, b in pairwise(borders):
        assert row.position[0, a:b].tolist() == list(range(b - a))
    assert row.weight.sum().item() == pytest.approx(len(lengths) / 2)
    assert (row.item is not None) == items
    if row.item is not None:
        assert row.item[: len(tokens.token)].tolist() == tokens.item.tolist()
        assert (row.item[len(tokens.token) :] == -1).all()


def test_rows_of_alike_batches_are_of_few_sizes():
    rng = np.random.default_rng(0)
    sizes = set()
    for _ in range(50):
        lengths = rng.integers(120, 230, 64)
        sizes.add(lay_out(examples(lengths, 3), np.arange(64), True, 64, 64).sizes)
    assert len(sizes) <= 6


def test_long_rows_are_of_few_sizes_and_hardly_padded():
    rng = np.random.default_rng(0)
    sizes = set()
    for _ in range(40):
        lengths = rng.integers(10, 60, 500) + 400 * (rng.random(500) < 0.02)
        tokens = examples(lengths, lengths - 1)
        made = lay_out(tokens, np.arange(500), True, 500, 512).sizes
        assert made.tokens < 1.07 * lengths.sum()
        sizes.add(made)
    assert len(sizes) <= 12


@pytest.mark.parametrize("items", [False, True])
def test_padding_changes_neither_loss_nor_gradients(model, items):
    tokens, index, results = examples([5, 9, 3, 14], 2, items), np.array([2, 0, 3]), []
    table = torch.nn.Embedding(5, 32)
    for gpu in (False, True):
        made = model()
        causal = plug_in(made)
        sheet = lay_out(tokens, index, gpu, 3, 8)
        loss = answer_loss(causal, unfold(torch.from_numpy(sheet.flat), sheet.sizes, sheet.bounds), table)
        loss.backward()
        results.append((loss.item(), {n: p.grad for n, p in made.named_parameters() if p.requires_grad}))
    (one, grads), (other, padded) = results
    assert other == pytest.approx(one, rel=1e-5)
    for name, grad in grads.items():
        torch.testing.assert_close(padded[name], grad, rtol=1e-4, atol=1e-6)


# Merged adapters


def test_merged_adapters_have_the_gradients_of_adapters(model):
    tokens, index = examples([5, 9, 3, 14], 2), np.arange(4)
    plain, merged = model(), model()
    answer_loss(plug_in(plain), pack(tokens, index, CPU)).backward()
    weights = MergedAdapters(merged)
    assert not any("lora" in name for name, _ in plug_in(merged).named_parameters()), "plain layers stand there"
    loss = answer_loss(plug_in(merged), pack(tokens, index, CPU))
    loss.backward()
    weights.gather()
    weights.close()
    wanted = {name: weight.grad for name, weight in plain.named_parameters() if weight.requires_grad}
    names = {id(weight): name for name, weight in merged.named_parameters()}
    seen = 0
    for group in weights.groups:
        for nth, layer in enumerate(group.layers):
            for side, master in (("lora_A", group.a), ("lora_B", group.b)):
                name = names[id(getattr(layer, side)["default"].weight)]
                torch.testing.assert_close(master.grad[nth], wanted[name], rtol=1e-4, atol=1e-6)
                seen += 1
    assert seen == len(wanted)


def test_tuning_merged_adapters_is_tuning_adapters(model, monkeypatch):
    tokens, recipe = examples([5, 9, 3, 14, 7, 6], 2), Tuning(epochs=3, batch_size=4, precision="float32")
    results = []
    for merged in (False, True):
        made = model()
        if merged:
            monkeypatch.setattr(tuning, "make_master_weights", lambda model, device: MergedAdapters(model))
        curve = tune(made, tokens, recipe, 3, FitContext())
        results.append((curve.losses, {name: weight.detach() for name, weight in made.named_parameters()}))
    (one, weights), (other, found) = results
    assert other == pytest.approx(one, rel=1e-4)
    assert weights.keys() == found.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=2e-5)
    assert len(set(one)) > 1


def test_a_model_that_serves_is_left_as_it_was(model):
    made = model()
    before = {name: weight.detach().clone() for name, weight in made.named_parameters()}
    row = torch.arange(3, 9)[None]
    wanted = made(input_ids=row).logits
    merged = MergedAdapters(made, learns=False)
    torch.testing.assert_close(made(input_ids=row).logits, wanted, rtol=1e-4, atol=1e-4)
    assert not any(layer.base_layer.weight.requires_grad for group in merged.groups for layer in group.layers)
    merged.close()
    after = dict(made.named_parameters())
    assert before.keys() == after.keys()
    assert all(weight.equal(after[name]) for name, weight in before.items())
    with prepare_inference(made, CPU) as causal:
        assert causal is made.get_base_model()
        assert torch.is_inference_mode_enabled()
    assert not torch.is_inference_mode_enabled()


# Gradients


def test_gradients_of_rows_add_up_until_they_are_cleared(model):
    made, tokens = model(), examples([5, 9, 3, 14], 2)
    causal = plug_in(made)
    copied = CopiedWeights({n: p for n, p in made.named_parameters() if p.requires_grad})
    work = GradientAccumulator(causal, copied, copied.masters, CPU, True, None)
    assert not work.recorded, "nothing is recorded on a CPU"
    for part in ([0, 1], [2, 3]):
        work(lay_out(tokens, np.array(part), examples=4))
    split = {name: weight.grad.clone() for name, weight in copied.masters.items()}
    total = work.total.item()
    work.clear()
    work.total.zero_()
    assert all(not weight.grad.any() for weight in copied.masters.values())
    work(lay_out(tokens, np.arange(4), examples=4))
    assert work.total.item() == pytest.approx(total, rel=1e-5)
    for name, weight in copied.masters.items():
        torch.testing.assert_close(weight.grad, split[name], rtol=1e-4, atol=1e-6)


def test_tuning_that_goes_astray_is_told(model, monkeypatch):
    monkeypatch.setattr(training_loop, "REPORT_SECONDS", -1.0)
    made = model()
    with torch.no_grad():
        next(weight for name, weight in made.named_parameters() if "lora_B" in name).fill_(torch.nan)
    with pytest.raises(UserError, match="astray") as told:
        tune(made, examples([5, 9, 3], 2), Tuning(precision="float32"), 0, FitContext())
    assert "learning rate" in told.value.hint
