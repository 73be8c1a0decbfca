"""Long histories cut down to what a new user would have, against lists."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowbird.data.split import LeaveOneOut
from cowbird.data.types import Attribute, Interactions, Items, Users
from cowbird.errors import UserError


def side(sizes):
    """Return users whose every event is an item of its own and whose profile is their number."""
    total = sum(sizes)
    people = Users(tuple(f"u{n}" for n in range(len(sizes))), {"n": Attribute.from_values(map(str, range(len(sizes))))})
    times = np.arange(total, dtype=np.float64)
    interactions = Interactions(np.arange(total), np.cumsum([0, *sizes]), times / 2, times)
    return LeaveOneOut(interactions, people, Items.from_lists(f"i{n}" for n in range(total)))


def lists(interactions):
    return [interactions.item[a:b].tolist() for a, b in pairwise(interactions.offsets.tolist())]


def test_by_hand():
    long = side([4, 5, 9, 30, 0])
    short = long.shorten(4)
    assert lists(short.interactions) == [[4, 5, 6], [9, 10, 11, 12], [18, 19, 20, 21]]
    assert short.users.ids == ("u1", "u2", "u3")
    assert short.interactions.timestamp.tolist() == short.interactions.item.tolist()
    assert (short.interactions.rating * 2).tolist() == short.interactions.item.tolist()
    assert short.items is long.items
    assert lists(short.training().interactions) == [[4], [9, 10], [18, 19]]
    assert short.test().target.tolist() == [6, 12, 21]
    assert short.validation().users.ids == short.users.ids
    assert lists(long.interactions)[1] == [4, 5, 6, 7, 8], "the long histories stay"


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 14), max_size=10), st.integers(0, 13))
def test_the_first_training_events_and_nothing_else(sizes, events):
    long = side(sizes)
    training = {
        user: row[: max(0, len(row) - 2)] for user, row in zip(long.users.ids, lists(long.interactions), strict=True)
    }
    wanted = {user: row[:events] for user, row in training.items() if len(row) >= 3 and events >= 3}
    if not wanted:
        with pytest.raises(UserError):
            long.shorten(events)
        return
    short = long.shorten(events)
    assert dict(zip(short.users.ids, lists(short.interactions), strict=True)) == wanted
    profile = short.users.get_attribute("n")
    assert [f"u{profile.labels[code]}" for code in profile.codes] == list(short.users.ids) == list(wanted)
    kept = set(short.interactions.item.tolist())
    if min(sizes) >= 3:
        assert not kept & {*long.validation().target.tolist(), *long.test().target.tolist()}
    assert short.training().interactions.lengths.min() >= 1


@pytest.mark.parametrize(("sizes", "events"), [([], 9), ([4, 4, 2], 9), ([20, 20], 2), ([0], 3)])
def test_nobody_is_left(sizes, events):
    with pytest.raises(UserError, match="three training events"):
        side(sizes).shorten(events)
