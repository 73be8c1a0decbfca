"""Warm and cold users, and leave-one-out, against lists."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cowbird.data.split import LeaveOneOut, Split
from cowbird.data.types import Attribute, Dataset, Interactions, Items, Users
from cowbird.errors import UserError

quick = settings(max_examples=80, deadline=None)


def dataset(sizes):
    """Return data in which every event is an item of its own, so that rows can be told apart."""
    total = sum(sizes)
    users = Users(tuple(f"u{n}" for n in range(len(sizes))), {"n": Attribute.from_values(map(str, range(len(sizes))))})
    times = np.arange(total, dtype=np.float64)
    interactions = Interactions(np.arange(total), np.cumsum([0, *sizes]), times / 2, times)
    return Dataset("numbered", interactions, users, Items.from_lists(f"i{n}" for n in range(total)))


def lists(interactions):
    offsets = interactions.offsets.tolist()
    return [interactions.item[a:b].tolist() for a, b in pairwise(offsets)]


def by_id(side):
    return dict(zip(side.users.ids, lists(side.interactions), strict=True))


def test_leave_one_out_by_hand():
    data = dataset([3, 5])
    side = LeaveOneOut(data.interactions, data.users, data.items)
    training, validation, test = side.training(), side.validation(), side.test()
    assert lists(training.interactions) == [[0], [3, 4, 5]]
    assert training.label.tolist() == [0, 3, 4, 5]
    assert lists(validation.history) == [[0], [3, 4, 5]]
    assert validation.target.tolist() == [1, 6]
    assert lists(test.history) == [[0, 1], [3, 4, 5, 6]]
    assert test.target.tolist() == [2, 7]
    assert training.users is data.users
    assert test.history.timestamp.tolist() == [0, 1, 3, 4, 5, 6]
    assert test.history.rating.tolist() == [0, 0.5, 1.5, 2, 2.5, 3]


@quick
@given(st.lists(st.integers(3, 12), min_size=1, max_size=8))
def test_leave_one_out_leaks_nothing(sizes):
    data = dataset(sizes)
    side = LeaveOneOut(data.interactions, data.users, data.items)
    known = set(side.training().interactions.item.tolist())
    validation, test = side.validation(), side.test()
    assert not known & set(validation.target.tolist())
    assert not known & set(test.target.tolist())
    assert not set(validation.history.item.tolist()) & set(test.target.tolist())
    for row, events in enumerate(lists(data.interactions)):
        assert [*lists(validation.history)[row], validation.target[row]] == events[:-1]
        assert [*lists(test.history)[row], test.target[row]] == events


SPLITS = st.builds(
    Split,
    cold_fraction=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9]),
    max_cold_events=st.integers(3, 12),
    cut=st.sampled_from(["first", "last"]),
    min_events=st.integers(3, 6),
)


@quick
@given(st.lists(st.integers(0, 15), min_size=1, max_size=25), SPLITS, st.integers(0, 99))
def test_everybody_is_warm_cold_or_too_short(sizes, split, seed):
    data = dataset(sizes)
    usable = [n for n, size in enumerate(sizes) if size >= split.min_events]
    held = round(split.cold_fraction * len(usable))
    if len(usable) - held < 1 or (split.cold_fraction > 0 and held < 1):
        with pytest.raises(UserError, match=f"has {len(usable)} users") as error:
            split.apply(data, seed)
        assert error.value.hint
        return
    parts = split.apply(data, seed)
    events = dict(zip(data.users.ids, lists(data.interactions), strict=True))
    warm, cold = by_id(parts.pretrain), by_id(parts.downstream) if parts.downstream else {}
    assert (parts.downstream is None) == (split.cold_fraction == 0)
    assert len(cold) == held
    assert not warm.keys() & cold.keys()
    assert warm.keys() | cold.keys() == {f"u{n}" for n in usable}
    assert parts.too_short == len(sizes) - len(usable)
    assert all(row == events[user] for user, row in warm.items())
    for user, row in cold.items():
        whole, kept = events[user], min(len(events[user]), split.max_cold_events)
        assert row == (whole[:kept] if split.cut == "first" else whole[len(whole) - kept :])
    for side in (parts.pretrain, parts.downstream):
        if side is not None:
            profile = side.users.get_attribute("n")
            assert [f"u{profile.labels[code]}" for code in profile.codes] == list(side.users.ids)
            assert side.items is data.items


def test_cold_users_have_fewer_than_ten_events_by_default():
    parts = Split().apply(dataset([30] * 10), 0)
    assert parts.downstream.interactions.lengths.tolist() == [9, 9]
    assert parts.pretrain.interactions.lengths.tolist() == [30] * 8


def test_cold_histories_keep_times_and_ratings_aligned():
    for cut in ("first", "last"):
        side = Split(cut=cut, max_cold_events=4).apply(dataset([7, 8, 9, 10, 11]), 0).downstream
        assert side.interactions.timestamp.tolist() == side.interactions.item.tolist()
        assert (side.interactions.rating * 2).tolist() == side.interactions.item.tolist()


def test_seeds():
    data, split = dataset([5] * 60), Split(cold_fraction=0.3)
    one, again, other = (split.apply(data, seed).downstream.users.ids for seed in (1, 1, 2))
    assert one == again
    assert one != other
    firsts = {split.apply(data, seed).downstream.users.ids[0] for seed in range(20)}
    assert len(firsts) > 2, "who is cold is drawn, not the first users"


def test_the_cut_does_not_change_who_is_cold():
    data = dataset([5] * 40)
    ids = [
        Split(cut=cut, max_cold_events=n).apply(data, 4).downstream.users.ids
        for cut in ("first", "last")
        for n in (3, 4)
    ]
    assert len(set(ids)) == 1


@pytest.mark.parametrize("sizes", [[], [2, 2], [5], [5, 5]])
def test_too_few_users(sizes):
    with pytest.raises(UserError, match="'numbered'") as error:
        Split().apply(dataset(sizes), 0)
    assert error.value.hint


@pytest.mark.parametrize(
    "fields",
    [
        {"cold_fraction": 1},
        {"cold_fraction": -0.1},
        {"max_cold_events": 2},
        {"min_events": 2},
        {"cut": "mid"},
        {"x": 1},
    ],
)
def test_wrong_fields_are_refused(fields):
    with pytest.raises(ValidationError):
        Split(**fields)
