"""Reading off what a model would write: against `generate`, a walk through the trie, and plain masked attention."""

import sys
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cowbird.victims.base import FitContext
from cowbird.victims.language import attention, candidate_decoding
from cowbird.victims.language.attention import Documents, plug_in
from cowbird.victims.language.candidate_decoding import BranchBorders, decode_answers
from cowbird.victims.language.examples import Tokens
from cowbird.victims.language.llm import Llm, load_llm
from cowbird.victims.language.tuning import Tuning, tune

pytestmark = pytest.mark.slow

transformers = pytest.importorskip("transformers")
CPU = torch.device("cpu")
END, ITEMS = 2, 5
WORDS = {
    "first": [31, 32, 33],
    "a prefix": [41, 42],
    "longer": [41, 42, 43, 44],
    "one": [51],
    "nothing": [],
    "unknown": [61, 62, 63, 64, 65, 66],
    "twice": [71, 72],
}
"""What the tuned model writes after the prompt of that number."""
BRANCHES = (
    [[31, 32, 33], [31, 32], [31, 33, 33], [99]],  # followed to the end, another ends on the way
    [[41, 42, 43, 44], [41, 42], [41], [40]],  # ends where another goes on
    [[41, 42, 43, 44], [41, 42], [41], [40, 41, 42, 43, 44, 45]],  # goes on where another ends
    [[50], [51, 52], [51], [52]],  # one token
    [[31], [32, 33], [41, 42], [31, 32]],  # ends before any has begun
    [[61, 62, 63, 64, 65], [61, 62], [62, 62, 63], [61, 62, 63, 99, 99]],  # leaves them late
    [[70], [71, 72], [71, 72], [71, 73]],  # of two that are equal, the first
)


def tokens(rows, borders=None, items=None):
    offsets = np.cumsum([0, *map(len, rows)])
    ends = offsets[1:] if borders is None else offsets[:-1] + borders
    flat = None if items is None else np.concatenate(items)
    return Tokens(np.concatenate(rows), offsets, ends, flat)


def drawn(count, seed=0, shortest=2, longest=9):
    rng = np.random.default_rng(seed)
    return [rng.integers(3, 390, rng.integers(shortest, longest)).tolist() for _ in range(count)]


PROMPTS = drawn(len(WORDS), seed=3)
STAND_INS = [[nth % ITEMS if place in (1, 4) else -1 for place in range(len(p))] for nth, p in enumerate(PROMPTS)]
"""The items that some tokens of the prompts stand for."""


@pytest.fixture(scope="module", params=["text", "items"])
def learned(request, llama):
    """Return a model that writes `WORDS`, the same as transformers run it, prompts, and what makes inputs of items."""
    made = load_llm(Llm(name=str(llama), tuning="full"), CPU, torch.float32).model
    items = STAND_INS if request.param == "items" else None
    rows = [[*prompt, *words, END] for prompt, words in zip(PROMPTS, WORDS.values(), strict=True)]
    borders = [len(prompt) for prompt in PROMPTS]
    table = torch.nn.Embedding(ITEMS, 32) if items else None
    if table is not None:
        table.weight.data.normal_(0, 0.2, generator=torch.Generator().manual_seed(1))
        table.weight.requires_grad_(False)
    slots = items and [[*item, *[-1] * (len(row) - len(item))] for item, row in zip(items, rows, strict=True)]
    recipe = Tuning(epochs=40, batch_size=7, learning_rate=1e-2, precision="float32")
    with pytest.MonkeyPatch.context() as patch:
        if table is not None:  # it does not learn
            original = sys.modules["cowbird.victims.language.engine"].answer_loss
            patch.setattr("cowbird.victims.language.engine.answer_loss", lambda c, row, _: original(c, row, table))
        tune(made, tokens(rows, borders, slots), recipe, 0, FitContext())
    plain = transformers.AutoModelForCausalLM.from_pretrained(llama, attn_implementation="eager").eval()
    plain.load_state_dict(made.state_dict())
    return plug_in(made).eval(), plain, tokens(PROMPTS, items=items), table


def embedded(plain, prompt, item, table):
    """Return inputs of one prompt."""
    text = plain.get_input_embeddings()(torch.tensor(prompt))
    if table is None:
        return text[None]
    slots = torch.tensor(item)
    return torch.where(slots[:, None] >= 0, table(slots.clamp(min=0)), text)[None]


def prompt_of(prompts, nth):
    here = slice(prompts.offsets[nth], prompts.offsets[nth + 1])
    return prompts.token[here].tolist(), None if prompts.item is None else prompts.item[here].tolist()


def generated(plain, prompts, table, longest=64):
    """Return what `generate` writes after each prompt alone."""
    found = []
    for nth in range(len(prompts)):
        given_inputs = embedded(plain, *prompt_of(prompts, nth), table)
        with torch.inference_mode():
            written = plain.generate(
                inputs_embeds=given_inputs,
                attention_mask=torch.ones(given_inputs.shape[:2]),
                do_sample=False,
                max_new_tokens=longest,
                eos_token_id=END,
                pad_token_id=END,
            )[0].tolist()
        found.append(written[: written.index(END)] if END in written else written)
    return found


def narrowed(plain, prompts, table, known):
    """Return the branch that a walk through the trie ends with, token by token."""
    found = []
    for nth, question in enumerate(known):
        rows = [[*branch, END] for branch in question]
        first, written = embedded(plain, *prompt_of(prompts, nth), table), []
        while written not in rows:
            told = torch.cat([first, embedded(plain, written, None, None)], dim=1) if written else first
            with torch.inference_mode():
                logits = plain(inputs_embeds=told).logits[0, -1]
            place = len(written)
            written.append(max({row[place] for row in rows if row[:place] == written}, key=lambda t: logits[t].item()))
        found.append(rows.index(written))
    return found


def asked(learned, known=BRANCHES, prompts=None, **more):
    causal, _, given_prompts, table = learned
    with torch.inference_mode():
        return decode_answers(causal, given_prompts if prompts is None else prompts, known, END, CPU, table, **more)


# Answers


def test_answers_are_those_of_generate_and_of_the_trie(learned):
    _, plain, prompts, table = learned
    found = asked(learned)
    assert generated(plain, prompts, table) == list(WORDS.values()), "or the fixture taught nothing"
    assert found.texts == list(WORDS.values())
    assert found.free.tolist() == [0, 1, 0, 2, -1, -1, 1]
    assert found.constrained.tolist() == narrowed(plain, prompts, table, BRANCHES)
    assert (found.free.dtype, found.constrained.dtype) == (np.int32, np.int32)


@pytest.mark.parametrize("shift", [1, 3])
def test_answers_that_are_no_branches(learned, shift):
    _, plain, prompts, table = learned
    known = BRANCHES[shift:] + BRANCHES[:shift]
    found = asked(learned, known)
    assert found.texts == list(WORDS.values())
    free = [row.index(words) if words in row else -1 for row, words in zip(known, WORDS.values(), strict=True)]
    assert found.free.tolist() == free
    assert -1 in free
    assert found.constrained.tolist() == narrowed(plain, prompts, table, known)


@pytest.mark.parametrize("capacity", [1, 40, 60, 120])
def test_several_rows_are_one(learned, capacity):
    one, other = asked(learned), asked(learned, capacity=capacity)
    assert np.array_equal(one.free, other.free)
    assert np.array_equal(one.constrained, other.constrained)
    assert one.texts == other.texts


def test_logits_are_made_in_parts(learned, monkeypatch):
    one = asked(learned)
    for held in (0, 400 * 3):
        monkeypatch.setattr(candidate_decoding, "DECODING_CHUNK_LOGITS", held)
        other = asked(learned)
        assert np.array_equal(one.free, other.free)
        assert np.array_equal(one.constrained, other.constrained)


@pytest.mark.parametrize("longest", [1, 2, 4, 6, 7])
def test_long_answers_are_cut_unless_they_are_branches(learned, longest):
    _, plain, prompts, table = learned
    found = asked(learned, longest=longest)
    cut = generated(plain, prompts, table, longest)
    whole = list(WORDS.values())
    assert found.texts == [w if free >= 0 else c for w, c, free in zip(whole, cut, found.free, strict=True)]
    assert len(found.texts[5]) == min(longest, 6)


def test_what_never_ends_is_cut(learned):
    _, plain, prompts, table = learned
    never, causal = 399, learned[0]
    with torch.inference_mode():
        found = decode_answers(causal, prompts, [[[5]]] * len(prompts), never, CPU, table, longest=5)
    assert [len(text) for text in found.texts] == [5] * len(prompts)
    plain.generation_config.eos_token_id = None
    for text, words in zip(found.texts, generated(plain, prompts, table), strict=True):
        assert text[: len(words)] == words[:5]


def test_one_question_and_none(learned):
    found = asked(learned, BRANCHES[2:3], tokens(PROMPTS[2:3], items=None if learned[3] is None else STAND_INS[2:3]))
    assert (found.free.tolist(), found.texts) == ([0], [WORDS["longer"]])
    nothing = Tokens(np.zeros(0), np.zeros(1), np.zeros(0))
    for known in ([], ()):
        none = asked(learned, known, nothing)
        assert (none.free.shape, none.constrained.shape, none.texts) == ((0,), (0,), [])


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 6), st.sampled_from([1, 60, 10**6]))
def test_random_branches(learned, seed, count, each, capacity):
    rng = np.random.default_rng(seed)
    prompts = tokens(drawn(count, seed))
    # Of few tokens, so that branches share beginnings, end within others and come twice.
    known = [[rng.integers(30, 33, rng.integers(1, 5)).tolist() for _ in range(each)] for _ in range(count)]
    causal, plain, *_ = learned
    with torch.inference_mode():
        found = decode_answers(causal, prompts, known, END, CPU, capacity=capacity, longest=6)
    assert found.constrained.tolist() == narrowed(plain, prompts, None, known)
    written = generated(plain, prompts, None, 7)
    for text, words, free, question in zip(found.texts, written, found.free.tolist(), known, strict=True):
        assert text == words[:6]
        assert free == (question.index(text) if len(words) < 7 and text in question else -1)


@pytest.mark.parametrize("window", [2, 5, 9])
def test_branches_are_seen_through_windows(window):
    config = transformers.MistralConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=window,
    )
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    plain, made = (transformers.MistralForCausalLM(deepcopy(config)).eval() for _ in range(2))
    made.load_state_dict(plain.state_dict())
    prompts = tokens(drawn(6, seed=2, shortest=1, longest=12))
    known = [[[*first, *more] for more in ([], [7], [8, 9])] for first in ([3], [4, 5], [6], [3], [4], [5])]
    with torch.inference_mode():
        found = decode_answers(plug_in(made), prompts, known, END, CPU, longest=6)
        assert found.constrained.tolist() == narrowed(plain, prompts, None, known)
        for text, words in zip(found.texts, generated(plain, prompts, None, 7), strict=True):
            assert text == words[:6]


def test_only_a_window_that_hides_something_keeps_the_kernel_away(monkeypatch):
    """All branches of a question together may be longer than a window that each of them fits into."""
    monkeypatch.setattr(candidate_decoding, "flash_attention", kernel)
    asks, told = (0, 4, 7), (0, 2, 5, 7, 9)
    made = BranchBorders(asks, told, 2, (whole(asks), whole(told), whole(told[::2])), 5)
    assert made.reach == 7
    query, key, value = states(4, 2, 16)
    query = query.as_subclass(OnGpu)
    with monkeypatch.context() as patch:
        patch.setattr(BranchBorders, "_attend_on_cpu", lambda *given: pytest.fail("no kernel"))
        for window in (None, 7, 8):
            attention.packed_attention(None, query, key, value, None, documents=made, sliding_window=window)
    monkeypatch.setattr(BranchBorders, "_attend_on_cpu", lambda self, q, k, v, scale, window: q * window)
    found, _ = attention.packed_attention(None, query, key, value, None, documents=made, sliding_window=6)
    assert found.shape == (1, 16, 4, 8)
    assert torch.equal(found[0].as_subclass(torch.Tensor), 6 * query.as_subclass(torch.Tensor)[0].transpose(0, 1))


# Attention


def kernel(query, key, value, asks, told, longest, scale, causal=True, window=None):
    """Compute what `attention.flash_attention` does, in plain torch."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    assert (asks.dtype, told.dtype, len(asks)) == (torch.int32, torch.int32, len(told))
    assert (len(query), len(key)) == (asks[-1], told[-1])
    out, total = torch.zeros_like(query), torch.zeros(query.shape[1], len(query), dtype=query.dtype)
    for a, b, c, d in zip(asks, asks[1:], told, told[1:], strict=False):
        assert max(b - a, d - c) <= longest, "the kernel would leave out tokens"
        scores = torch.einsum("qhw,khw->hqk", query[a:b], key[c:d]) * scale
        if causal:
            assert (a, b) == (c, d)
            scores = scores.masked_fill(torch.ones_like(scores[0]).triu(1).bool(), -torch.inf)
        if window is not None:
            assert (a, b) == (c, d)
            far = (torch.arange(b - a)[:, None] - torch.arange(b - a)).abs() >= window
            scores = scores.masked_fill(far, -torch.inf)
        total[:, a:b] = scores.logsumexp(dim=-1)
        out[a:b] = torch.einsum("hqk,khw->qhw", scores.softmax(dim=-1), value[c:d])
    return out, total


class OnGpu(torch.Tensor):
    """A tensor that says that it is on a GPU."""

    device = property(lambda self: SimpleNamespace(type="cuda"))


def states(heads, shared, count, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return [
        torch.randn(1, n, count, 8, generator=rng, dtype=torch.float64) * 2
        for n in (heads, heads // shared, heads // shared)
    ]


def masked(query, key, value, seen, scale):
    """Attend with a mask over everything."""
    groups = query.shape[1] // key.shape[1]
    key, value = key[0].repeat_interleave(groups, dim=0), value[0].repeat_interleave(groups, dim=0)
    scores = (query[0] @ key.transpose(1, 2) * scale).masked_fill(~seen, -torch.inf)
    return (scores.softmax(dim=-1) @ value).transpose(0, 1)[None]


def borders(widths):
    return tuple(np.cumsum([0, *widths]).tolist())


def whole(bounds):
    return torch.tensor(bounds, dtype=torch.int32)


lengths = st.lists(
    st.tuples(st.integers(1, 6), st.lists(st.integers(1, 4), min_size=3, max_size=3)), min_size=1, max_size=4
)


@settings(max_examples=30, deadline=None)
@given(lengths, st.sampled_from([(4, 1), (4, 2), (4, 4)]), st.booleans(), st.sampled_from([None, 1, 2, 3, 6]))
def test_prompts_and_branches_see_what_they_may(questions, heads, gpu, window):
    asks = borders(prompt for prompt, _ in questions)
    told = borders(width for _, row in questions for width in row)
    groups = told[::3]
    longest = max([prompt for prompt, _ in questions] + [sum(row) for _, row in questions])
    made = BranchBorders(asks, told, 3, (whole(asks), whole(told), whole(groups)), longest)
    count = asks[-1] + told[-1]
    owner = np.repeat(np.arange(len(questions)), np.diff(asks)).tolist()
    branch = np.repeat(np.arange(3 * len(questions)), np.diff(told)).tolist()
    # Question and branch of each token, and its place; -1 for the prompt.
    what = [(q, -1) for q in owner] + [(b // 3, b) for b in branch]
    seen = torch.tensor(
        [[j <= i and q == p and c in (-1, b) for j, (p, c) in enumerate(what)] for i, (q, b) in enumerate(what)]
    )
    place = [n for prompt, _ in questions for n in range(prompt)]
    place += [prompt + n for prompt, row in questions for width in row for n in range(width)]
    if window is not None:
        seen &= torch.tensor(place)[:, None] - torch.tensor(place) < window
    query, key, value = states(*heads, count)
    wanted = masked(query, key, value, seen, 0.3)
    with pytest.MonkeyPatch.context() as patch:
        gpu &= window is None
        patch.setattr(candidate_decoding, "flash_attention", kernel if gpu else pytest.fail)
        found = made.attend(query.as_subclass(OnGpu) if gpu else query, key, value, 0.3, window)
    assert found.shape == (1, count, 4, 8)
    # Shares of the two parts are float32 on a GPU.
    tolerance = 1e-5 if gpu else 1e-12
    torch.testing.assert_close(found.as_subclass(torch.Tensor), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("heads", [(4, 1), (4, 2), (4, 4)])
@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize("causal", [False, True])
def test_documents_see_themselves(heads, gpu, window, causal, monkeypatch):
    monkeypatch.setattr(attention, "flash_attention", kernel if gpu else pytest.fail)
    bounds = borders([3, 1, 5])
    owner = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2, 2])
    seen = owner[:, None] == owner
    if causal:
        seen &= torch.ones(9, 9).tril().bool()
    if window is not None:
        seen &= (torch.arange(9)[:, None] - torch.arange(9)).abs() < window
    query, key, value = states(*heads, 9)
    wanted = masked(query, key, value, seen, 0.3)
    documents = Documents(() if gpu else bounds, whole(bounds), 5, causal)
    found = documents.attend(query.as_subclass(OnGpu) if gpu else query, key, value, 0.3, window)
    torch.testing.assert_close(found.as_subclass(torch.Tensor), wanted, rtol=1e-12, atol=1e-12)


def test_float32_on_a_gpu_takes_no_kernel(monkeypatch):
    for module in (attention, candidate_decoding):
        monkeypatch.setattr(module, "flash_attention", lambda *given, **more: pytest.fail("kernel"))
    monkeypatch.setattr(attention, "_attend_on_cpu", lambda query, *more: query)
    monkeypatch.setattr(BranchBorders, "_attend_on_cpu", lambda self, query, *more: query)
    query, key, value = (state.float() for state in states(4, 2, 6))
    made = BranchBorders((0, 2), (0, 2, 4), 2, (whole([0, 2]), whole([0, 2, 4]), whole([0, 4])), 4)
    for each in (made, Documents((), whole([0, 6]), 6)):
        each.attend(query.as_subclass(OnGpu), key, value, 0.3)
        with pytest.raises(BaseException, match="kernel"):
            each.attend(query.half().as_subclass(OnGpu), key.half(), value.half(), 0.3)
    made.attend(query.half().as_subclass(OnGpu), key.half(), value.half(), 0.3, 2)


def test_answers_by_a_gpu_s_kernel(learned, monkeypatch):
    one = asked(learned)
    monkeypatch.setattr(candidate_decoding, "flash_attention", kernel)
    monkeypatch.setattr(BranchBorders, "_attend_on_cpu", lambda self, *given: self._attend_on_gpu(*given[:-1]))
    for capacity in (1, 60, 10**6):
        other = asked(learned, capacity=capacity)
        assert np.array_equal(one.free, other.free)
        assert np.array_equal(one.constrained, other.constrained)
        assert one.texts == other.texts
