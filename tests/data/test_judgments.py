"""Questions from ratings, and the split of them by time, against lists."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cowbird.data.judgments import TemporalSplit, make_judgments
from cowbird.data.types import Dataset, Interactions, Items, Users
from cowbird.errors import UserError

quick = settings(max_examples=60, deadline=None)


def dataset(times, ratings=None, rated=True):
    """Return data in which every event is an item of its own, from one list of times a user."""
    flat = np.array([time for row in times for time in row], dtype=np.float64)
    given = np.arange(len(flat)) % 5 + 1 if ratings is None else np.array(ratings)
    interactions = Interactions(np.arange(len(flat)), np.cumsum([0, *map(len, times)]), given if rated else None, flat)
    users = Users(tuple(f"u{n}" for n in range(len(times))))
    return Dataset("numbered", interactions, users, Items.from_lists(f"i{n}" for n in range(len(flat))))


def lists(interactions):
    return [interactions.item[a:b].tolist() for a, b in pairwise(interactions.offsets.tolist())]


def questions(judgments):
    """Return what was shown and asked; an item's number is its event's."""
    return list(zip(lists(judgments.history), judgments.target.tolist(), strict=True))


def test_questions_by_hand():
    data = dataset([[0, 1, 2, 3], [9], [5, 6, 7]], [1, 5, 3, 4, 5, 3.5, 2, 3])
    judgments = make_judgments(data.interactions, 2, 3.0)
    assert questions(judgments) == [([0, 1], 2), ([1, 2], 3), ([5, 6], 7)]
    assert len(judgments) == 3
    assert judgments.liked.tolist() == [False, True, False], "a rating at the threshold is no like"
    assert judgments.likes.tolist() == [False, True, True, False, True, False]
    assert judgments.history.rating.tolist() == [1, 5, 5, 3, 3.5, 2]
    assert judgments.history.timestamp.tolist() == [0, 1, 1, 2, 5, 6]
    assert make_judgments(data.interactions, 2, 3.6).likes.tolist() == [False, True, True, False, False, False]
    assert questions(make_judgments(data.interactions, 2, 3.0, first=3)) == questions(judgments)[1:]
    assert questions(make_judgments(data.interactions, 2, 3.0, first=4)) == questions(judgments)[2:]
    assert len(make_judgments(data.interactions, 4, 3.0)) == 0


def test_some_questions():
    judgments = make_judgments(dataset([range(4), range(5)]).interactions, 2, 3.0)
    some = judgments.select(np.array([4, 0, 4]))
    assert questions(some) == [questions(judgments)[n] for n in (4, 0, 4)]
    assert some.liked.tolist() == [judgments.liked[n] for n in (4, 0, 4)]
    assert some.likes.tolist() == [judgments.likes[2 * n + k] for n in (4, 0, 4) for k in (0, 1)]
    assert len(judgments.select(np.array([], dtype=np.int64))) == 0


def test_a_split_by_hand():
    data = dataset([[0, 10, 20, 30, 40], [5, 15, 25, 35, 45]])
    parts = TemporalSplit(training=0.6, validation=0.2, history=1).apply(data)
    assert lists(parts.training.interactions) == [[0, 1, 2], [5, 6, 7]]
    assert parts.training.interactions.timestamp.tolist() == [0, 10, 20, 5, 15, 25]
    assert parts.training.label.tolist() == parts.training.interactions.item.tolist()
    assert parts.training.users is data.users
    assert parts.training.items is data.items
    assert questions(parts.validation) == [([2], 3), ([7], 8)]
    assert questions(parts.test) == [([3], 4), ([8], 9)]
    assert questions(TemporalSplit(history=1).ask(parts.training.interactions)) == [
        ([0], 1),
        ([1], 2),
        ([5], 6),
        ([6], 7),
    ]


def test_ties_in_time_are_broken_by_place():
    data = dataset([[7] * 5, [7] * 5])
    parts = TemporalSplit(training=0.7, validation=0.1, history=1).apply(data)
    assert lists(parts.training.interactions) == [[0, 1, 2, 3, 4], [5, 6]]
    assert questions(parts.validation) == [([6], 7)]
    assert questions(parts.test) == [([7], 8), ([8], 9)]


def test_no_validation_and_users_on_one_side():
    data = dataset([[0, 1, 2], [8, 9, 10], [3, 4, 11]])
    parts = TemporalSplit(training=0.6, validation=0, history=1).apply(data)
    assert lists(parts.training.interactions) == [[0, 1, 2], [], [6, 7]]
    assert len(parts.validation) == 0
    assert questions(parts.test) == [([3], 4), ([4], 5), ([7], 8)]


times = st.lists(st.lists(st.integers(0, 12), max_size=9).map(sorted), min_size=1, max_size=6)
splits = st.tuples(st.integers(1, 8), st.integers(0, 8), st.integers(1, 3)).filter(lambda given: sum(given[:2]) < 10)


@pytest.mark.slow
@quick
@given(times, splits)
def test_a_split_leaks_nothing_and_keeps_shares(rows, given):
    training, validation, history = given
    data, split = dataset(rows), TemporalSplit(training=training / 10, validation=validation / 10, history=history)
    try:
        parts = split.apply(data)
    except UserError:
        assume(False)
    everything, user, time = data.interactions, data.interactions.user_of_event(), data.interactions.timestamp
    ranked = sorted(range(everything.events), key=lambda event: (time[event], event))
    cuts = [0, round(training / 10 * len(ranked)), round((training / 10 + validation / 10) * len(ranked)), len(ranked)]
    sides = [set(ranked[a:b]) for a, b in pairwise(cuts)]
    early = lists(parts.training.interactions)
    assert early == [[event for event in row if event in sides[0]] for row in lists(everything)]
    asked = [questions(split.ask(parts.training.interactions)), questions(parts.validation), questions(parts.test)]
    for side, found in zip(sides, asked, strict=True):
        wanted = [event for event in range(len(ranked)) if event in side and event - history >= 0]
        wanted = [event for event in wanted if user[event - history] == user[event]]
        assert [target for _, target in found] == wanted
        for shown, target in found:
            assert shown == list(range(target - history, target))
            assert all((time[event], event) < (time[target], target) for event in shown)
    last = max((time[event], event) for event in sides[0])
    assert all((time[target], target) > last for found in asked[1:] for _, target in found)
    for judgments in (parts.validation, parts.test):
        assert judgments.liked.tolist() == [everything.rating[target] > 3 for target in judgments.target]
        assert judgments.likes.tolist() == [rating > 3 for rating in judgments.history.rating]


@quick
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(1, 4), st.integers(0, 30))
def test_every_event_with_enough_before_it_is_asked(sizes, history, first):
    data = dataset([range(size) for size in sizes])
    found = questions(make_judgments(data.interactions, history, 3.0, first))
    wanted = [(row[n - history : n], row[n]) for row in lists(data.interactions) for n in range(history, len(row))]
    assert found == [question for question in wanted if question[1] >= first]


def test_test_questions_are_drawn():
    data = dataset([range(20), range(20), range(20)])
    everything = TemporalSplit(history=2).apply(data)
    drawn = [TemporalSplit(history=2, asked=5).apply(data, seed) for seed in (1, 1, 2)]
    one, again, other = (questions(parts.test) for parts in drawn)
    assert one == again
    assert one != other
    assert len(one) == 5
    places = [questions(everything.test).index(question) for question in one]
    assert places == sorted(set(places))
    assert len(questions(everything.test)) == 6
    for kept in (6, 7):
        assert questions(TemporalSplit(history=2, asked=kept).apply(data, 1).test) == questions(everything.test)
    for parts in drawn:
        assert questions(parts.validation) == questions(everything.validation)
        assert lists(parts.training.interactions) == lists(everything.training.interactions)


# What is refused


def test_ratings_and_times_are_needed():
    unrated = dataset([range(20)], rated=False)
    untimed = Dataset("x", Interactions(np.arange(20), np.array([0, 20]), np.ones(20)), unrated.users, unrated.items)
    for start in (
        lambda: make_judgments(unrated.interactions, 2, 3.0),
        lambda: TemporalSplit(history=2).apply(unrated),
        lambda: TemporalSplit(history=2).apply(untimed),
    ):
        with pytest.raises(UserError, match="none") as error:
            start()
        assert error.value.hint


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [[], []],
        [range(3)],
        [range(10), range(10)],  # nobody has more than 10 events
        [range(11)] * 3,  # nobody has them before the cut
        [range(40), range(90, 100)],  # nobody has them after it
    ],
)
def test_too_few_events(rows):
    with pytest.raises(UserError) as error:
        TemporalSplit().apply(dataset(rows))
    assert error.value.hint


def test_nobody_to_validate_on():
    data = dataset([range(30), [40, 41], range(50, 53)])
    split = TemporalSplit(training=30 / 35, validation=2 / 35, history=2)
    with pytest.raises(UserError) as error:
        split.apply(data)
    assert error.value.hint


@pytest.mark.parametrize(
    "fields",
    [
        {"training": 0},
        {"training": 1},
        {"training": 0.9, "validation": 0.1},
        {"validation": -0.1},
        {"history": 0},
        {"asked": 0},
        {"x": 1},
    ],
)
def test_wrong_fields_are_refused(fields):
    with pytest.raises(ValidationError):
        TemporalSplit(**fields)


def test_a_split_by_users_goes_by_their_order():
    data = dataset([[5, 6, 7, 8], [1, 2, 3, 4], [9, 10, 11, 12]], rated=True)
    split = TemporalSplit(order="users", training=0.5, validation=0.2, history=1)
    parts = split.apply(data)
    assert lists(parts.training.interactions) == [[0, 1, 2, 3], [4, 5], []]
    assert questions(parts.validation) == [([5], 6), ([6], 7)]
    assert questions(parts.test) == [([8], 9), ([9], 10), ([10], 11)]
    untimed = Dataset(
        "d",
        Interactions(data.interactions.item, data.interactions.offsets, data.interactions.rating),
        data.users,
        data.items,
    )
    assert questions(split.apply(untimed).test) == questions(parts.test)
    with pytest.raises(UserError, match="needs timestamps"):
        split.model_copy(update={"order": "time"}).apply(untimed)
