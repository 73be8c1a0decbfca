"""A packed step computes what plain transformers compute for one example at a time."""

from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from cowbird.errors import UserError
from cowbird.victims.language.attention import plug_in
from cowbird.victims.language.examples import IGNORED_LABEL, Tokens
from cowbird.victims.language.llm import Llm, add_adapters, load_llm
from cowbird.victims.language.packing import answer_loss, compute_hidden_states, pack, split_runs

pytestmark = pytest.mark.slow

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

CPU = torch.device("cpu")
LENGTHS = [(1, 1), (9, 2), (1, 5), (33, 3), (2, 1), (60, 4), (17, 2)]
"""Tokens of prompt and answer of each example; the longest has more than `CAPACITY`."""
CAPACITY = 40
quick = settings(max_examples=100, deadline=None)


def build(lengths, seed=0):
    """Return examples of random tokens."""
    total = [prompt + answer for prompt, answer in lengths]
    offsets = np.cumsum([0, *total])
    token = np.random.default_rng(seed).integers(3, 390, offsets[-1])
    return Tokens(token, offsets, offsets[:-1] + [prompt for prompt, _ in lengths])


def rows(tokens):
    return [torch.from_numpy(row.astype(np.int64)) for row in np.split(tokens.token, tokens.offsets[1:-1])]


def everything(tokens):
    return np.arange(len(tokens))


def generator():
    return torch.Generator().manual_seed(5)


@pytest.fixture(params=["full", "lora"])
def twins(request, llama):
    """Return a function that gives the same model twice, in float64: for packs, and plain with an attention."""
    llm = Llm(name=str(llama), tuning=request.param, rank=3)

    def make(attention):
        packed = load_llm(llm, CPU, torch.float64).model
        plain = transformers.AutoModelForCausalLM.from_pretrained(
            llama, dtype=torch.float64, attn_implementation=attention
        )
        pair = [add_adapters(model, llm, generator()).eval() for model in (packed, plain)]
        for model in pair:
            drawn = generator()
            with torch.no_grad():
                for name, weight in model.named_parameters():
                    if "lora_B" in name:
                        weight.copy_(torch.randn(weight.shape, generator=drawn, dtype=weight.dtype) / 4)
        return pair

    return make


def gradients(model):
    return {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_loss_and_gradients_are_those_of_one_example_at_a_time(twins, attention):
    packed, plain = twins(attention)
    tokens, losses = build(LENGTHS), []
    assert any(length > CAPACITY for length in tokens.lengths)
    for row, (prompt, _) in zip(rows(tokens), LENGTHS, strict=True):
        logits = plain(input_ids=row[None], use_cache=False).logits[0]
        losses.append(F.cross_entropy(logits[prompt - 1 : -1], row[prompt:]))
        losses[-1].backward()
    causal = plug_in(packed)
    found = [
        answer_loss(causal, pack(tokens, part, CPU)) for part in split_runs(tokens.lengths, everything(tokens), 40)
    ]
    assert 1 < len(found) < len(tokens)
    torch.stack(found).sum().backward()
    torch.testing.assert_close(torch.stack(found).sum().item(), torch.stack(losses).sum().item(), rtol=1e-6, atol=0)
    wanted = gradients(plain)
    assert wanted.keys() == gradients(packed).keys()
    assert len(wanted) == (2 * 7 * 2 if hasattr(plain, "peft_config") else len(list(plain.parameters())))
    for name, gradient in gradients(packed).items():
        largest = wanted[name].abs().max()
        assert largest > 1e-3, name
        # Norms and logits are float32 in any model, so sums in another order show.
        assert (gradient - wanted[name]).abs().max() < 1e-5 * largest, name


def test_attention_both_ways_is_that_of_a_plain_model_without_a_mask(twins):
    packed, plain = twins("eager")
    tokens, losses = replace(build(LENGTHS), both_ways=True), []
    for row, (prompt, _) in zip(rows(tokens), LENGTHS, strict=True):
        nothing_hidden = torch.zeros(1, 1, len(row), len(row), dtype=torch.float64)
        logits = plain(input_ids=row[None], attention_mask=nothing_hidden, use_cache=False).logits[0]
        losses.append(F.cross_entropy(logits[prompt - 1 : -1], row[prompt:]))
        losses[-1].backward()
    causal = plug_in(packed)
    found = torch.stack(
        [answer_loss(causal, pack(tokens, part, CPU)) for part in split_runs(tokens.lengths, everything(tokens), 40)]
    )
    found.sum().backward()
    torch.testing.assert_close(found.sum().item(), torch.stack(losses).sum().item(), rtol=1e-6, atol=0)
    wanted = gradients(plain)
    for name, gradient in gradients(packed).items():
        assert (gradient - wanted[name]).abs().max() < 1e-5 * wanted[name].abs().max(), name


@pytest.fixture
def causal(llama):
    return plug_in(load_llm(Llm(name=str(llama)), CPU, torch.float32).model).eval()


def states(causal, tokens, index):
    """Return the states of every token of some examples, one tensor an example."""
    row = pack(tokens, index, CPU)
    with torch.inference_mode():
        found = compute_hidden_states(causal, row, torch.arange(row.token.shape[1]))
    return found.split(tokens.lengths[index].tolist())


def test_states_are_those_of_the_plain_model(causal, llama):
    plain, tokens = transformers.AutoModelForCausalLM.from_pretrained(llama), build(LENGTHS)
    for row, found in zip(rows(tokens), states(causal, tokens, everything(tokens)), strict=True):
        with torch.inference_mode():
            wanted = plain.base_model(input_ids=row[None]).last_hidden_state[0]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_what_nobody_asks_for_is_not_computed(causal):
    row, many = pack(build(LENGTHS), np.arange(len(LENGTHS)), CPU), []
    everywhere = torch.arange(row.token.shape[1])
    parts = [layer.mlp for layer in causal.base_model.layers]
    hooks = [part.down_proj.register_forward_hook(lambda *seen: many.append(seen[2].shape[1])) for part in parts]
    with torch.inference_mode():
        wanted = compute_hidden_states(causal, row, everywhere)
        found = compute_hidden_states(causal, row, row.predict)
        again = compute_hidden_states(causal, row, everywhere)
    for hook in hooks:
        hook.remove()
    tokens, few = len(everywhere), len(row.predict)
    assert many == [tokens, tokens, tokens, few, tokens, tokens] and 2 * few < tokens
    torch.testing.assert_close(found, wanted[row.predict], rtol=1e-5, atol=1e-6)
    assert again.equal(wanted), "the model is left as it was"


def test_examples_do_not_see_each_other(causal):
    tokens = build(LENGTHS)
    before = states(causal, tokens, everything(tokens))
    for changed in range(len(tokens)):
        token = np.array(tokens.token)
        part = slice(tokens.offsets[changed], tokens.offsets[changed + 1])
        token[part] = (token[part] + 100) % 390
        after = states(causal, Tokens(token, tokens.offsets, tokens.answer), everything(tokens))
        for n, (one, other) in enumerate(zip(before, after, strict=True)):
            assert one.equal(other) == (n != changed)


def test_nothing_looks_ahead(causal):
    tokens = build([(3, 1), (8, 4), (2, 2)])
    before = states(causal, tokens, everything(tokens))[1]
    for place in range(12):
        token = np.array(tokens.token)
        token[4 + place :] = (token[4 + place :] + 100) % 390
        after = states(causal, Tokens(token, tokens.offsets, tokens.answer), everything(tokens))[1]
        assert after[:place].equal(before[:place])
        assert (after - before)[place:].abs().amax(dim=1).min() > 1e-5


@pytest.mark.parametrize("order", [[6, 5, 4, 3, 2, 1, 0], [3, 0, 6, 1, 5, 2, 4]])
def test_order_and_company_do_not_matter(causal, order):
    tokens = build(LENGTHS)
    together = states(causal, tokens, everything(tokens))
    for n, found in zip(order, states(causal, tokens, np.array(order)), strict=True):
        torch.testing.assert_close(found, together[n], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(states(causal, tokens, np.array([n]))[0], together[n], rtol=1e-5, atol=1e-6)
    with torch.inference_mode():
        one, other = (answer_loss(causal, pack(tokens, np.array(n), CPU)) for n in (range(7), order))
        each = [answer_loss(causal, pack(tokens, np.array([n]), CPU)) for n in range(7)]
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one, torch.stack(each).sum())


def test_a_cut_model_is_packed_too(llama):
    llm, tokens = Llm(name=str(llama), layers=1), build(LENGTHS)
    with torch.inference_mode():
        plain = load_llm(llm, CPU, torch.float32).model
        wanted = [plain.base_model(input_ids=row[None]).last_hidden_state[0] for row in rows(tokens)]
    found = states(plug_in(load_llm(llm, CPU, torch.float32).model), tokens, everything(tokens))
    torch.testing.assert_close(torch.cat(found), torch.cat(wanted), rtol=1e-4, atol=1e-5)


def test_a_plugged_model_does_not_run_without_documents(causal):
    with pytest.raises(RuntimeError, match="without documents"):
        causal(input_ids=torch.tensor([[3, 4, 5]]))


# What a pack holds


def test_a_pack_by_hand():
    tokens = Tokens(np.arange(10, 21), np.array([0, 3, 5, 11]), np.array([2, 4, 7]))
    row = pack(tokens, np.array([2, 0]), CPU)
    assert row.token.tolist() == [[15, 16, 17, 18, 19, 20, 10, 11, 12]]
    assert row.position.tolist() == [[0, 1, 2, 3, 4, 5, 0, 1, 2]]
    assert row.predict.tolist() == [1, 2, 3, 4, 7]
    assert row.label.tolist() == [17, 18, 19, 20, 12]
    assert row.weight.tolist() == [0.25] * 4 + [1]
    assert row.documents.bounds == (0, 6, 9)
    assert row.documents.offsets.tolist() == [0, 6, 9]
    assert row.documents.longest == 6
    assert pack(tokens, np.array([2, 0]), CPU, 4).weight.tolist() == [1 / 16] * 4 + [0.25]
    dtypes = [row.token.dtype, row.position.dtype, row.documents.offsets.dtype, row.weight.dtype]
    assert dtypes == [torch.int64, torch.int64, torch.int32, torch.float32]


@pytest.mark.parametrize("among", [(), (17, 300, 5)])
def test_labels_are_learned_in_place_of_answers(twins, among):
    packed, plain = twins("eager")
    tokens, rng = build(LENGTHS), np.random.default_rng(3)
    label = rng.integers(len(among) or 390, size=len(tokens.token))
    label[rng.random(len(label)) < 0.4] = IGNORED_LABEL
    labeled, losses = Tokens(tokens.token, tokens.offsets, tokens.answer, None, label, among), []
    parts = np.split(label, tokens.offsets[1:-1])
    for row, held, (prompt, answer) in zip(rows(tokens), parts, LENGTHS, strict=True):
        logits = plain(input_ids=row[None], use_cache=False).logits[0]
        for at in range(prompt, prompt + answer):
            if held[at] != IGNORED_LABEL:
                odds = logits[at - 1][list(among)] if among else logits[at - 1]
                losses.append((torch.logsumexp(odds, 0) - odds[held[at]]) / answer)
    assert len(losses) < sum(answer for _, answer in LENGTHS)
    torch.stack(losses).sum().backward()
    causal = plug_in(packed)
    found = [
        answer_loss(causal, pack(labeled, part, CPU)) for part in split_runs(tokens.lengths, everything(tokens), 40)
    ]
    torch.stack(found).sum().backward()
    torch.testing.assert_close(torch.stack(found).sum().item(), torch.stack(losses).sum().item(), rtol=1e-6, atol=0)
    wanted = gradients(plain)
    for name, gradient in gradients(packed).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-5 * float(wanted[name].abs().max()))


def test_labels_and_places_among_few_tokens_are_packed():
    tokens = Tokens([5, 6, 7, 8, 9], [0, 3, 5], [1, 4], None, [-100, 1, -100, -100, 0], (40, 41))
    row = pack(tokens, np.array([1, 0]), CPU)
    assert (row.label.tolist(), row.among) == ([0, 1, IGNORED_LABEL], (40, 41))
    assert row.weight.tolist() == [1, 0.5, 0.5]


shapes = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 6)), min_size=1, max_size=12)


@quick
@given(shapes, st.randoms(use_true_random=False))
def test_a_pack_against_lists(lengths, random):
    tokens, order = build(lengths), list(range(len(lengths)))
    random.shuffle(order)
    row = pack(tokens, np.array(order), CPU)
    each = [rows(tokens)[n].tolist() for n in order]
    assert row.token[0].tolist() == [token for part in each for token in part]
    assert row.position[0].tolist() == [place for part in each for place in range(len(part))]
    assert row.label.tolist() == [t for n, part in zip(order, each, strict=True) for t in part[lengths[n][0] :]]
    assert row.token[0][row.predict + 1].equal(row.label)
    weights = row.weight.split([lengths[n][1] for n in order])
    for weight in weights:
        assert len(set(weight.tolist())) == 1
        assert weight.sum().item() == pytest.approx(1), "examples count alike, whatever their answers' lengths"


@quick
@given(st.lists(st.integers(1, 30), max_size=30), st.integers(1, 60), st.randoms(use_true_random=False))
def test_split_covers_each_example_once(lengths, capacity, random):
    lengths, order = np.array(lengths, dtype=np.int64), list(range(len(lengths)))
    random.shuffle(order)
    parts = [part.tolist() for part in split_runs(lengths, np.array(order, dtype=np.int64), capacity)]
    assert [n for part in parts for n in part] == order
    assert all(parts)
    totals = [lengths[part].sum() for part in parts]
    for part, total in zip(parts, totals, strict=True):
        assert total <= capacity or len(part) == 1
    for part, after in pairwise(parts):
        assert lengths[part].sum() + lengths[after[0]] > capacity, "no row ends before it is full"


SMALL = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


@pytest.mark.parametrize("window", [1, 4, 40, 100])
def test_windows_are_those_of_the_plain_model(window):
    kinds = ["sliding_attention", "full_attention"]
    config = transformers.Gemma3TextConfig(**SMALL, sliding_window=window, layer_types=kinds)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    plain, packed = (transformers.Gemma3ForCausalLM(deepcopy(config)).eval() for _ in range(2))
    packed.load_state_dict(plain.state_dict())
    causal, tokens = plug_in(packed), build(LENGTHS)
    for row, found in zip(rows(tokens), states(causal, tokens, everything(tokens)), strict=True):
        with torch.inference_mode():
            wanted = plain.base_model(input_ids=row[None], use_cache=False).last_hidden_state[0]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_what_packed_attention_can_not_do_is_refused():
    config = transformers.Gemma2Config(**SMALL, attn_logit_softcapping=50.0)
    causal, tokens = plug_in(transformers.Gemma2ForCausalLM(config)), build([(9, 1)])
    with pytest.raises(UserError, match="caps"):
        states(causal, tokens, everything(tokens))
