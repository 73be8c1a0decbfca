"""Texts behind shared beginnings in one row give what rows with a mask give."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cowbird.victims.language import shared_beginnings
from cowbird.victims.language.attention import plug_in
from cowbird.victims.language.examples import IGNORED_LABEL, Tokens
from cowbird.victims.language.llm import Llm, load_llm
from cowbird.victims.language.packing import answer_loss, lay_out, unfold
from cowbird.victims.language.shared_beginnings import JointAttention, SharedBeginnings

ROW = 48
ROWS = [(20, (5, 9, 1, 7)), (0, (3, 30)), (31, (2,)), (6, (4, 4, 4, 4, 4, 4, 4, 4))]
"""Tokens of the beginning and of each text behind it."""
HEADS, KEY_HEADS, WIDTH, SCALE = 6, 2, 8, 0.3


def build(rows=ROWS, seed=0):
    """Return rows of random tokens; the last token of each is a border that nobody asks about."""
    rng, parts = np.random.default_rng(seed), []
    for begin, texts in rows:
        branch = np.concatenate([np.zeros(begin), *(np.full(many, nth + 1) for nth, many in enumerate(texts)), [-1]])
        label = np.where((branch != 0) & (rng.random(len(branch)) < 0.8), rng.integers(2, size=len(branch)), -1)
        label = np.where(label < 0, IGNORED_LABEL, label)
        label[begin] = IGNORED_LABEL  # what stands before it is no text's
        parts.append((rng.integers(3, 390, len(branch)), branch, label, rng.integers(1, 9, len(branch))))
    token, branch, label, share = (np.concatenate(each).astype(np.int32) for each in zip(*parts, strict=True))
    offsets = np.concatenate([[0], np.cumsum([len(part[0]) for part in parts])]).astype(np.int64)
    begins = np.array([max(1, int(np.argmax(part[2] != IGNORED_LABEL))) for part in parts])
    return Tokens(
        *(token, offsets, offsets[:-1] + begins),
        **{"label": label, "among": (5, 9), "both_ways": True, "share": share, "branch": branch, "row": ROW},
    )


def lay(tokens, gpu, index=None):
    index = np.arange(len(tokens)) if index is None else np.asarray(index)
    sheet = lay_out(tokens, index, gpu, len(index))
    return unfold(torch.from_numpy(sheet.flat), sheet.sizes, sheet.bounds)


@pytest.mark.parametrize("index", [[0, 1, 2, 3], [1], [2, 0], [1, 1]])
def test_loss_and_gradients_are_those_of_rows_with_a_mask(llama, index):
    causal = plug_in(load_llm(Llm(name=str(llama)), torch.device("cpu"), torch.float32).model).eval()
    tokens, found = build(), []
    for gpu in (False, True):
        row = lay(tokens, gpu, index)
        assert isinstance(row.documents, SharedBeginnings) == gpu
        causal.zero_grad()
        loss = answer_loss(causal, row)
        loss.backward()
        found.append((loss.item(), {name: weight.grad.clone() for name, weight in causal.named_parameters()}))
    (wanted, gradients), (got, others) = found
    assert got == pytest.approx(wanted, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()))


def test_a_text_changes_no_other_and_no_beginning(llama):
    causal = plug_in(load_llm(Llm(name=str(llama)), torch.device("cpu"), torch.float32).model).eval()
    tokens, states = build(), []
    for changed in (False, True):
        row = lay(tokens, True)
        token = row.token.clone()
        first = int(row.documents.texts[0])
        if changed:
            token[0, first : int(row.documents.texts[1])] += 1
        with torch.inference_mode():
            out = causal.base_model(input_ids=token, position_ids=row.position, documents=row.documents)
        states.append(out.last_hidden_state[0])
    same = (states[0] == states[1]).all(dim=1)
    assert not same[first : int(row.documents.texts[1])].any()
    assert same[:first].all()
    assert same[int(row.documents.texts[1]) :].all()


def test_rows_of_other_lengths_have_the_sizes_of_one_recording():
    sizes = {lay_out(build(seed=seed), np.arange(4), True, 4).sizes._replace(predicted=0) for seed in range(3)}
    assert len(sizes) == 1


def mix(query, key, value, asks, told, scale):
    """Attend within documents, as the kernel does: what stands in none is left as it was, here not a number."""
    groups = query.shape[1] // key.shape[1]
    key, value = (held.repeat_interleave(groups, dim=1) for held in (key, value))
    out = torch.full_like(query, torch.nan)
    total = torch.full((query.shape[1], len(query)), torch.nan)
    for (a, b), (c, d) in zip(asks.unfold(0, 2, 1).tolist(), told.unfold(0, 2, 1).tolist(), strict=True):
        if c == d:
            out[a:b], total[:, a:b] = 0.0, torch.inf  # as Flash Attention says that there is nothing to see
            continue
        scores = torch.einsum("qhw,khw->hqk", query[a:b], key[c:d]) * scale
        total[:, a:b] = scores.logsumexp(-1)
        out[a:b] = torch.einsum("hqk,khw->qhw", scores.softmax(-1), value[c:d])
    return out, total


def differentiate(grad, query, key, value, out, total, asks, told, longest, scale):
    """Return gradients of one pass by the joint sums, as the kernel does."""
    groups = query.shape[1] // key.shape[1]
    keys, values = (held.repeat_interleave(groups, dim=1) for held in (key, value))
    given = [torch.full_like(held, torch.nan) for held in (query, keys, values)]
    for (a, b), (c, d) in zip(asks.unfold(0, 2, 1).tolist(), told.unfold(0, 2, 1).tolist(), strict=True):
        scores = torch.einsum("qhw,khw->hqk", query[a:b], keys[c:d]) * scale
        share = torch.exp(scores - total[:, a:b, None])
        change = share * (
            torch.einsum("qhw,khw->hqk", grad[a:b], values[c:d]) - (grad[a:b] * out[a:b]).sum(-1).T[:, :, None]
        )
        given[0][a:b] = torch.einsum("hqk,khw->qhw", change, keys[c:d]) * scale
        given[1][c:d] = torch.einsum("hqk,qhw->khw", change, query[a:b]) * scale
        given[2][c:d] = torch.einsum("hqk,qhw->khw", share, grad[a:b])
    asked, keyed, valued = given
    shape = (len(key), key.shape[1], groups, key.shape[2])
    return asked, keyed.view(shape).sum(2), valued.view(shape).sum(2)


@pytest.mark.parametrize("rows", [ROWS, [ROWS[1]], ROWS[:1]])
def test_passes_joined_by_their_sums_are_one_softmax(rows, monkeypatch):
    def attend(query, key, value, asks, told, longest, scale, causal=True, window=None):
        assert not causal
        return mix(query, key, value, asks, told, scale)

    monkeypatch.setattr(shared_beginnings, "flash_attention", attend)
    monkeypatch.setattr(shared_beginnings, "flash_gradients", differentiate)
    borders, drawn = lay(build(rows), True).documents, torch.Generator().manual_seed(3)
    many = int(borders.texts[-1])
    q, k, v = (
        torch.randn(1, heads, many, WIDTH, generator=drawn, requires_grad=True)
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    )
    wanted = borders.attend(q, k, v, SCALE)[0]
    grad = torch.randn(wanted.shape, generator=drawn)
    gradients = torch.autograd.grad((wanted * grad).sum(), (q, k, v))

    at = torch.arange(many)
    run = torch.bucketize(at, borders.runs, right=True) - 1
    first, after = borders.beginnings[run.clamp(0, len(rows) - 1)], borders.beginnings[run.clamp(0, len(rows) - 1) + 1]
    behind = (run >= 0) & (run < len(rows)) & (after > first)
    flat = [held.detach()[0].transpose(0, 1).requires_grad_() for held in (q, k, v)]
    found = JointAttention.apply(
        *(*flat, borders.texts, borders.runs, borders.beginnings),
        *(at < borders.texts[0], behind, borders.longest, borders.longest_run, SCALE),
    )
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    for got, right in zip(torch.autograd.grad((found * grad).sum(), flat), gradients, strict=True):
        torch.testing.assert_close(got, right[0].transpose(0, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_the_kernel_gives_what_a_mask_gives():
    borders = lay(build(), True).documents
    many, drawn, device = int(borders.texts[-1]), torch.Generator().manual_seed(3), torch.device("cuda")
    moved = {name: getattr(borders, name).to(device) for name in ("texts", "runs", "beginnings")}
    borders = replace(borders, **moved)
    q, k, v = (torch.randn(1, heads, many, 64, generator=drawn).to(device).requires_grad_() for heads in (9, 3, 3))
    grad = torch.randn(1, many, 9, 64, generator=drawn).to(device)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        out = borders.attend(*(held.to(dtype) for held in (q, k, v)), 0.125)
        found.append([out.float(), *torch.autograd.grad((out.float() * grad).sum(), (q, k, v))])
    for wanted, got in zip(*found, strict=True):
        assert float((got - wanted).norm() / wanted.norm()) < 1e-2
