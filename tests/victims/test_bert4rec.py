"""BERT4Rec reads sequences in blocks and answers for the mask alone; the numbers are those of the plain network."""

import pytest
import torch
from torch.nn import functional as F

from cowbird.victims.sequential import bert4rec
from cowbird.victims.sequential.bert4rec import BERT4Rec
from cowbird.victims.sequential.noise import Noise

CPU = torch.device("cpu")
QUIET = Noise(0.0, CPU)
ITEMS, LENGTH = 30, 9


def make_network(layers=2):
    network = BERT4Rec(hidden=8, max_length=LENGTH, layers=layers).make_network(ITEMS)
    network.reset(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(10 if parameter.dim() > 1 else 1)
    return network


def answer_plainly(network, history, prefix=None):
    """Return what stands in the mask's place behind one history, with every layer made for every place."""
    tokens = [network.item.weight[item] for item in history] + [network.mask.weight[0]]
    away = torch.arange(len(history), -1, -1)
    x = network.start_norm(torch.stack(tokens) + network.position(away))
    for number, block in enumerate(network.blocks):
        seen = x if prefix is None else torch.cat([prefix[number], x])
        query, key, value = block.project(block.attention_norm(seen)).view(len(seen), 3, block.heads, -1).unbind(1)
        query = query[len(seen) - len(x) :]
        logits = torch.einsum("qhd,khd->hqk", query, key) * query.shape[-1] ** -0.5
        mixed = torch.einsum("hqk,khd->qhd", torch.softmax(logits, dim=-1), value).flatten(1)
        x = x + block.merge(mixed)
        x = x + block.narrow(F.gelu(block.widen(block.feed_norm(x))))
    return network.norm(F.gelu(network.head(x[-1])))


@pytest.fixture
def windows():
    rng = torch.Generator().manual_seed(1)
    item = torch.randint(ITEMS, (4, LENGTH), generator=rng)
    for row, size in enumerate((9, 1, 4, 6)):
        item[row, size:] = ITEMS
    return item


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_answers_are_those_of_the_plain_network(layers, blocks, windows, monkeypatch):
    monkeypatch.setattr(bert4rec, "MAX_SEQUENCE_BLOCKS", blocks)
    monkeypatch.setattr(bert4rec, "MIN_BLOCK_TOKENS", {"cpu": 1})
    network = make_network(layers)
    prefix = torch.randn(4, layers, 2, 8, generator=torch.Generator().manual_seed(2))
    for given in (None, prefix):
        found = network(windows, QUIET, given)
        assert found.shape == (4, LENGTH, 8)
        for row, size in enumerate((9, 1, 4, 6)):
            for end in range(1, size + 1):
                plain = answer_plainly(network, windows[row, :end], None if given is None else given[row])
                torch.testing.assert_close(found[row, end - 1], plain, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_the_plain_network(windows):
    network = make_network()
    wanted = windows != ITEMS
    (network(windows, QUIET)[wanted] ** 3).sum().backward()
    found = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    network.zero_grad()
    rows = [answer_plainly(network, windows[row, : end + 1]) for row in range(4) for end in wanted[row].nonzero()[:, 0]]
    (torch.stack(rows) ** 3).sum().backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-4 * parameter.grad.abs().max())
    assert found["item.weight"][-1].eq(0).all()


def test_histories_of_several_lengths_at_their_last_events(windows):
    network = make_network()
    last = torch.tensor([8, 0, 3, 5])
    found = network.encode_last(windows, last, QUIET, None)
    for row, end in enumerate(last.tolist()):
        plain = answer_plainly(network, windows[row, : end + 1])
        torch.testing.assert_close(found[row], plain, rtol=1e-4, atol=1e-5)


def test_columns_without_events_are_not_computed(monkeypatch):
    network, seen = make_network(), []
    original = type(network)._fill_in
    monkeypatch.setattr(
        type(network),
        "_fill_in",
        lambda self, item, blocks, *rest: seen.append(blocks) or original(self, item, blocks, *rest),
    )
    item = torch.full((2, LENGTH), ITEMS)
    item[:, :3] = 4
    found = network(item, QUIET)
    assert found.shape == (2, LENGTH, 8)
    assert found[:, 3:].eq(0).all()
    assert max(seen[0].width) == 4
