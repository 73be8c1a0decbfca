"""Windows against loops over the histories: what is covered, what is told, what is padding."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cowbird.data.types import Interactions, Items, TrainingData, Users
from cowbird.errors import UserError
from cowbird.victims.sequential.windows import Windows

CPU = torch.device("cpu")
HISTORIES = st.lists(st.integers(0, 11), min_size=1, max_size=7).filter(lambda sizes: max(sizes) > 1)
LENGTHS = st.integers(1, 6)
quick = settings(max_examples=60, deadline=None)


def numbered(sizes):
    """Return training data in which every event has an item of its own and every label another one."""
    total = sum(sizes)
    interactions = Interactions(np.arange(total), np.cumsum([0, *sizes]))
    items = Items.from_lists(f"i{n}" for n in range(total))
    users = Users(tuple(f"u{n}" for n in range(len(sizes))))
    return TrainingData(interactions, users, items, np.arange(total)[::-1])


def rows(windows):
    """Return (inputs, labels, weights) of each window without padding, checking the padding on the way."""
    batch = windows.make_batch(torch.arange(len(windows)))
    assert batch.item.shape == batch.label.shape == batch.weight.shape == (len(windows), windows.length)
    assert batch.weight.sum().item() == pytest.approx(1, abs=1e-5)
    assert len(batch.weight[batch.weight > 0].unique()) == 1
    assert batch.label[batch.weight == 0].eq(0).all()
    found = []
    for item, label, weight in zip(batch.item, batch.label, batch.weight, strict=True):
        inside = item != windows._pad
        size = int(inside.sum())
        assert size > 0
        assert inside[:size].all(), "a sequence starts at column 0 and has no holes"
        assert weight[size:].eq(0).all()
        found.append((item[:size].tolist(), label[:size].tolist(), (weight[:size] > 0).tolist()))
    return found


def transitions(sizes):
    """Return each user's (input event, target event) pairs."""
    starts = np.cumsum([0, *sizes])
    return [[(e, e + 1) for e in range(a, b - 1)] for a, b in pairwise(starts)]


@quick
@given(HISTORIES, LENGTHS)
def test_all_covers_every_transition_once(sizes, length):
    data = numbered(sizes)
    windows = Windows(data, length, "all", CPU)
    told = []
    for items, labels, counted in rows(windows):
        assert items == list(range(items[0], items[0] + len(items))), "inputs are consecutive events"
        assert len(items) <= length
        assert all(counted)
        told += zip(items, labels, strict=True)
    wanted = [(e, int(data.label[f])) for user in transitions(sizes) for e, f in user]
    assert sorted(told) == wanted
    assert windows.targets == len(wanted)


@quick
@given(HISTORIES, LENGTHS)
def test_last_is_the_end_of_each_history(sizes, length):
    data = numbered(sizes)
    found = [list(zip(i, y, strict=True)) for i, y, counted in rows(Windows(data, length, "last", CPU)) if all(counted)]
    assert found == [[(e, int(data.label[f])) for e, f in user[-length:]] for user in transitions(sizes) if user]


@quick
@given(HISTORIES, LENGTHS)
def test_prefix_tells_each_transition_once_at_the_last_position(sizes, length):
    data = numbered(sizes)
    found = rows(Windows(data, length, "prefix", CPU))
    wanted = [
        ([e for e, _ in user[max(0, n + 1 - length) : n + 1]], int(data.label[f]))
        for user in transitions(sizes)
        for n, (_, f) in enumerate(user)
    ]
    assert [(items, labels[-1]) for items, labels, _ in found] == wanted
    assert all(counted == [False] * (len(counted) - 1) + [True] for *_, counted in found)


@pytest.mark.slow
@quick
@given(HISTORIES, LENGTHS, st.sampled_from(["all", "last", "prefix"]), st.data())
def test_an_empty_window_has_no_weight_and_changes_no_other(sizes, length, regime, draw):
    windows = Windows(numbered(sizes), length, regime, CPU)
    index = torch.tensor(draw.draw(st.lists(st.integers(0, len(windows) - 1), min_size=1, max_size=5)))
    plain, filled = windows.make_batch(index), windows.make_batch(torch.cat([index, torch.tensor([-1, -1])]))
    for name in ("item", "label", "weight"):
        assert getattr(filled, name)[:-2].equal(getattr(plain, name)), name
    assert filled.weight[-2:].eq(0).all()
    assert filled.label[-2:].eq(0).all()
    assert filled.item[-2:].eq(windows._pad).all()


def test_a_batch_of_empty_windows_has_no_weight():
    batch = Windows(numbered([4]), 3, "all", CPU).make_batch(torch.tensor([-1, -1]))
    assert batch.weight.eq(0).all()


def test_padding_is_no_item_of_the_catalogue():
    data = numbered([2, 7])
    batch = Windows(data, 5, "all", CPU).make_batch(torch.arange(3))
    assert batch.item.max() == len(data.items)
    assert batch.item[batch.weight > 0].max() < len(data.items)


def test_poisoned_labels_are_told_and_histories_stay():
    clean = numbered([5])
    clean = TrainingData.from_interactions(clean.interactions, clean.users, clean.items)
    label = np.array(clean.label)
    label[3] = 0
    poisoned = TrainingData(clean.interactions, clean.users, clean.items, label)
    before, after = (Windows(data, 4, "all", CPU).make_batch(torch.tensor([0])) for data in (clean, poisoned))
    assert after.item.tolist() == before.item.tolist() == [[0, 1, 2, 3]]
    assert before.label.tolist() == [[1, 2, 3, 4]]
    assert after.label.tolist() == [[1, 2, 0, 4]]


@pytest.mark.parametrize("regime", ["all", "last", "prefix"])
def test_nothing_to_train_on(regime):
    with pytest.raises(UserError) as error:
        Windows(numbered([1, 0, 1]), 4, regime, CPU)
    assert error.value.hint
