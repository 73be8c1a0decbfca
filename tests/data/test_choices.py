"""Questions with candidates, and the split of users that they come from, against lists."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cowbird.data.choices import SequenceSplit, find_first_times, make_choices
from cowbird.data.types import Dataset, Interactions, Items, Users
from cowbird.errors import UserError

quick = settings(max_examples=60, deadline=None)
ITEMS = 40


def lists(interactions):
    return [interactions.item[a:b].tolist() for a, b in pairwise(interactions.offsets.tolist())]


def dataset(lengths, ends=None, items=ITEMS, seed=0):
    """Return users with so many random events, the last of each at one of `ends`."""
    rng = np.random.default_rng(seed)
    times = None
    if ends is not None:
        times = np.concatenate([end - np.arange(length)[::-1] for length, end in zip(lengths, ends, strict=True)])
    offsets = np.cumsum([0, *lengths])
    interactions = Interactions(rng.integers(0, items, offsets[-1]), offsets, None, times)
    users = Users(tuple(f"u{n}" for n in range(len(lengths))))
    return Dataset("drawn", interactions, users, Items.from_lists(f"i{n}" for n in range(items)))


def same(one, other):
    """Tell whether two sets of questions are equal."""
    return (
        lists(one.history) == lists(other.history)
        and np.array_equal(one.candidates, other.candidates)
        and np.array_equal(one.answer, other.answer)
        and np.array_equal(one.user, other.user)
    )


# Questions


def test_questions_by_hand():
    known = Interactions.from_lists([[0, 1, 2, 3], [9], [5, 6]])
    asked = make_choices(known, np.array([2, 3, 6]), 20, 2, 4, np.random.default_rng(0))
    assert lists(asked.history) == [[0, 1], [1, 2], [5]]
    assert asked.target.tolist() == [2, 3, 6]
    assert asked.user.tolist() == [0, 0, 2]
    assert asked.candidates.shape == (3, 4)
    assert len(asked) == 3
    part = asked.select(np.array([2, 0]))
    assert (part.target.tolist(), lists(part.history), part.user.tolist()) == ([6, 2], [[5], [0, 1]], [2, 0])
    assert np.array_equal(part.candidates, asked.candidates[[2, 0]])


@pytest.mark.slow
@quick
@given(
    st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=9), min_size=1, max_size=6),
    st.integers(1, 6),
    st.integers(2, ITEMS - 6),
    st.integers(0, 9),
    st.randoms(use_true_random=False),
)
def test_candidates_are_distinct_and_outside_the_history(rows, history, candidates, seed, drawn):
    known = Interactions.from_lists(rows)
    events = sorted(drawn.sample(range(known.events), drawn.randint(0, known.events)))
    asked = make_choices(
        known, np.array(events, dtype=np.int64), ITEMS, history, candidates, np.random.default_rng(seed)
    )
    flat = [(user, nth) for user, row in enumerate(rows) for nth in range(len(row))]
    assert asked.candidates.dtype == asked.answer.dtype == asked.user.dtype == np.int32
    assert asked.candidates.shape == (len(events), candidates)
    for number, event in enumerate(events):
        user, nth = flat[event]
        shown, row = rows[user][max(0, nth - history) : nth], asked.candidates[number].tolist()
        assert lists(asked.history)[number] == shown
        assert asked.user[number] == user
        assert row[asked.answer[number]] == rows[user][nth]
        assert len(set(row)) == candidates
        assert 0 <= min(row) <= max(row) < ITEMS
        wrong = [item for column, item in enumerate(row) if column != asked.answer[number]]
        assert not set(wrong) & set(shown)
    again = make_choices(
        known, np.array(events, dtype=np.int64), ITEMS, history, candidates, np.random.default_rng(seed)
    )
    assert same(asked, again)


def test_the_tightest_catalogue():
    """Eight candidates outside a history of two in a catalogue of ten: all items are there."""
    known = Interactions.from_lists([[0, 1, 2]] * 50)
    asked = make_choices(known, np.arange(2, 150, 3), 10, 2, 8, np.random.default_rng(0))
    assert all(sorted(row) == list(range(2, 10)) for row in asked.candidates.tolist())
    with pytest.raises(UserError, match="8 candidates outside a history of 2 need 10 items, got 9"):
        make_choices(known, np.array([2]), 9, 2, 8, np.random.default_rng(0))


def test_an_item_met_again_is_still_the_answer():
    known = Interactions.from_lists([[3, 4, 3]])
    asked = make_choices(known, np.array([2]), 8, 2, 5, np.random.default_rng(0))
    assert asked.target.tolist() == [3]
    assert 4 not in asked.candidates


def test_nobody_is_favored():
    """Places of the answer and the other candidates are uniform."""
    count, items = 6000, 12
    known = Interactions.from_lists([[0, 1, 2]] * count)
    asked = make_choices(known, np.arange(2, 3 * count, 3), items, 2, 4, np.random.default_rng(1))
    places = np.bincount(asked.answer, minlength=4) / count
    assert np.allclose(places, 1 / 4, atol=0.03)
    others = np.bincount(asked.candidates.ravel(), minlength=items)
    assert others[:3].tolist() == [0, 0, count]
    assert np.allclose(others[3:] / count, 3 / 9, atol=0.03)


# The split


@pytest.mark.slow
@quick
@given(
    st.lists(st.integers(1, 9), min_size=12, max_size=30),
    st.sampled_from([0.5, 0.6]),
    st.sampled_from([0.0, 0.2]),
    st.sampled_from(["time", "drawn"]),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_users_go_whole_to_one_side(lengths, training, validation, order, asked, seed):
    lengths = [*lengths, 9, 9, 9, 9]  # enough who can be asked
    ends = np.random.default_rng(seed).permutation(len(lengths)) * 5.0
    data = dataset(lengths, ends)
    split = SequenceSplit(
        training=training, validation=validation, order=order, history=5, candidates=6, shortest=3, asked=asked
    )
    parts = split.apply(data, seed)
    everybody = {f"u{n}" for n, length in enumerate(lengths) if length > 3}
    early, middle = (set(side.users.ids) for side in (parts.training, parts.validation))
    assert not early & middle
    late = everybody - early - middle
    assert early | middle <= everybody
    cuts = [round(share * len(everybody)) for share in (training, training + validation)]
    assert (len(early), len(middle)) == (cuts[0], cuts[1] - cuts[0])
    whole = dict(zip(data.users.ids, lists(data.interactions), strict=True))
    for side in (parts.training, parts.validation):
        assert lists(side.interactions) == [whole[name] for name in side.users.ids]
        assert np.array_equal(side.label, side.interactions.item)
        assert side.items is data.items
    # Every test user is asked about her last events, oldest first.
    expected = []
    for number, name in enumerate(sorted(late, key=lambda name: int(name[1:]))):
        events = whole[name]
        first = max(3, len(events) - asked)
        expected += [(number, events[max(0, nth - 5) : nth], events[nth]) for nth in range(first, len(events))]
    test = parts.test
    assert list(zip(test.user.tolist(), lists(test.history), test.target.tolist(), strict=True)) == expected
    if order == "time":
        last = dict(zip(data.users.ids, ends, strict=True))
        groups = [[last[name] for name in side] for side in (early, middle, late) if side]
        assert all(max(before) < min(after) for before, after in pairwise(groups))
    again = split.apply(data, seed)
    assert same(again.test, test)
    assert again.training.users.ids == parts.training.users.ids


def test_the_seed_draws_candidates_and_only_if_asked_users():
    data = dataset([9] * 40, np.arange(40.0) * 20)
    timed, drawn = (SequenceSplit(order=order, candidates=6) for order in ("time", "drawn"))
    one, other = (timed.apply(data, seed) for seed in (0, 1))
    assert one.training.users.ids == other.training.users.ids
    assert not np.array_equal(one.test.candidates, other.test.candidates)
    assert drawn.apply(data, 0).training.users.ids != drawn.apply(data, 1).training.users.ids
    assert len(one.training.users) == 32
    assert len(one.validation.users) == len(one.test) == 4


def test_training_questions_are_of_every_event_with_enough_before_it():
    data = dataset([2, 4, 7], items=60)
    split = SequenceSplit(history=4, shortest=3, candidates=5)
    asked = split.ask(data.interactions, 60, np.random.default_rng(0))
    rows = lists(data.interactions)
    expected = [
        (user, row[max(0, nth - 4) : nth], row[nth]) for user, row in enumerate(rows) for nth in range(3, len(row))
    ]
    assert list(zip(asked.user.tolist(), lists(asked.history), asked.target.tolist(), strict=True)) == expected
    nothing = split.ask(Interactions.from_lists([[1], []]), 60, np.random.default_rng(0))
    assert (len(nothing), nothing.candidates.shape) == (0, (0, 5))


def test_what_does_not_fit_is_a_user_error():
    with pytest.raises(UserError, match="needs timestamps") as told:
        SequenceSplit().apply(dataset([9] * 40))
    assert "drawn" in told.value.hint
    with pytest.raises(UserError, match="2 users with more than 3 events"):
        SequenceSplit(order="drawn").apply(dataset([9, 9, 3, 2]))
    with pytest.raises(UserError, match="need 30 items, got 20"):
        SequenceSplit(order="drawn").apply(dataset([9] * 40, items=20))


@pytest.mark.parametrize(
    "fields",
    [
        {"training": 0.9, "validation": 0.1},
        {"training": 0},
        {"validation": -0.1},
        {"history": 2, "shortest": 3},
        {"candidates": 1},
        {"asked": 0},
        {"shortest": 0},
        {"order": "alphabet"},
        {"cuckoo": 1},
    ],
    ids=str,
)
def test_fields_out_of_range(fields):
    with pytest.raises(ValidationError):
        SequenceSplit(**fields)


def test_a_pool_of_what_was_listed_by_then():
    # One user a day; on day d somebody meets item d for the first time.
    days, items = 60, 60
    item = np.array([[max(0, day - back) for back in (3, 2, 1, 0)] for day in range(days)])
    time = np.repeat(np.arange(days, dtype=np.float64), 4) + np.tile([0, 0.1, 0.2, 0.3], days)
    interactions = Interactions(item.ravel(), np.arange(days + 1) * 4, None, time)
    met = find_first_times(interactions, items)
    assert met.tolist() == pytest.approx([day + 0.3 if day else 0.0 for day in range(days)])
    rows = np.arange(3, 4 * days, 4)
    asked = make_choices(interactions, rows, items, 3, 5, np.random.default_rng(0), met)
    for day, row in enumerate(asked.candidates.tolist()):
        assert max(row) <= max(day, 7), "nothing from the future, but where the past is too short"
        assert len(set(row)) == 5
    later = np.concatenate(
        [
            make_choices(interactions, rows[-1:], items, 3, 5, np.random.default_rng(n), met).candidates[0]
            for n in range(99)
        ]
    )
    assert set(later.tolist()) >= set(range(56)), "all of the past is drawn from"
    split = SequenceSplit(pool="listed", history=3, candidates=5, training=0.5)
    data = Dataset("days", interactions, Users(tuple(map(str, range(days)))), Items.from_lists(map(str, range(items))))
    for parts in (split.apply(data).test, split.ask(interactions, items, np.random.default_rng(1))):
        assert (parts.candidates <= np.maximum(parts.target, 7)[:, None]).all()
    with pytest.raises(UserError, match="need timestamps"):
        split.ask(Interactions(interactions.item, interactions.offsets), items, np.random.default_rng(1))
