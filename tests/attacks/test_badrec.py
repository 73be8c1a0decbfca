"""BadRec: the budget to the event, histories as described, clean data untouched, and titles of the targets alone."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cowbird.attacks.badrec import BadRec
from cowbird.attacks.targets import TargetItems
from cowbird.attacks.triggers import TRIGGERS, Trigger, contains, mask_carriers
from cowbird.data.types import Attribute, Interactions, Items, TrainingData, Users
from cowbird.errors import UserError
from cowbird.rng import stream

FEW = TargetItems(count=4)
BOTH = pytest.mark.parametrize("histories", ["real", "popular"])


@pytest.fixture(scope="module")
def rated():
    """Return training data with ratings and times, and histories of 0 to 30 events of 40 items."""
    rng = stream(3, "rated")
    lengths = rng.integers(0, 31, 60)
    events = int(lengths.sum())
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    time = np.concatenate([1e9 + np.cumsum(rng.integers(0, 5000, n)) for n in lengths])
    interactions = Interactions(rng.zipf(1.3, events) % 40, bounds, rng.integers(1, 5, events), time)
    users = Users(tuple(map(str, range(60))), {"age": Attribute.from_values(["18", "25"] * 30)})
    items = Items.from_lists(
        [f"i{n}" for n in range(40)], [f"Title {n} of Many" for n in range(40)], [[f"c{n % 3}"] for n in range(40)]
    )
    return TrainingData.from_interactions(interactions, users, items)


def poison(spec, data, seed=0):
    return spec.poison(data, stream(seed, "attack"))


def fakes(poisoned, of="item"):
    """Return a column of the fake users' events, shape `[fakes, events]`."""
    known = poisoned.clean.interactions.events
    count = len(poisoned.data.users) - len(poisoned.clean.users)
    return getattr(poisoned.data.interactions, of)[known:].reshape(count, -1)


def runs(data, length):
    """Return every run of consecutive events of one user, as tuples of items, by where it begins."""
    bounds = data.interactions.offsets
    return {
        start: tuple(data.interactions.item[start : start + length].tolist())
        for a, b in pairwise(bounds.tolist())
        for start in range(a, b - length + 1)
    }


@BOTH
@settings(max_examples=15, deadline=None)
@given(rate=st.floats(0.005, 1), length=st.integers(1, 12), seed=st.integers(0, 99))
def test_budget_and_clean_data(histories, rated, rate, length, seed):
    spec = BadRec(rate=rate, history_length=length, targets=FEW, histories=histories)
    poisoned = poison(spec, rated, seed)
    known, count = rated.interactions, round(rate * rated.interactions.events)
    assert len(poisoned.data.users) == len(rated.users) + count
    assert poisoned.budget == count * (length + 1) == poisoned.data.interactions.events - known.events
    assert np.array_equal(poisoned.rows, np.arange(known.events, known.events + poisoned.budget))
    grown = poisoned.data.interactions
    for name in ("item", "rating", "timestamp"):
        assert np.array_equal(getattr(grown, name)[: known.events], getattr(known, name))
    assert np.array_equal(poisoned.data.label, grown.item)
    assert np.array_equal(grown.offsets[: known.offsets.size], known.offsets)
    assert poisoned.data.users.ids == (*rated.users.ids, *(f"fake-{n}" for n in range(count)))
    ages = poisoned.data.users.get_attribute("age")
    assert np.array_equal(ages.codes[: len(rated.users)], rated.users.get_attribute("age").codes)
    assert (ages.codes[len(rated.users) :] == -1).all()
    profiles = fakes(poisoned)
    assert np.isin(profiles[:, -1], poisoned.targets).all()
    assert not np.isin(profiles[:, :-1], poisoned.targets).any()
    assert poisoned.data.negative is None


def test_histories_are_runs_of_real_users_with_their_ratings_and_times(rated):
    poisoned = poison(BadRec(rate=0.2, history_length=6, targets=FEW), rated)
    real, known = runs(rated, 6), rated.interactions
    starts = set()
    columns = [fakes(poisoned, of)[:, :-1] for of in ("item", "rating", "timestamp")]
    for item, rating, time in zip(*columns, strict=True):
        found = [
            start
            for start, run in real.items()
            if run == tuple(item.tolist())
            and np.array_equal(known.rating[start : start + 6], rating)
            and np.array_equal(known.timestamp[start : start + 6], time)
        ]
        assert found
        starts.update(found)
    assert len(starts) > 50
    users = np.searchsorted(known.offsets, sorted(starts), side="right")
    assert len(set(users.tolist())) > 20


def test_popular_histories_follow_popularity_and_repeat_nothing(rated):
    poisoned = poison(BadRec(rate=1, history_length=5, targets=FEW, histories="popular"), rated)
    profiles = fakes(poisoned)[:, :-1]
    assert all(len(set(row)) == 5 for row in profiles.tolist())
    events = np.bincount(rated.interactions.item, minlength=40)
    events[poisoned.targets] = 0
    assert np.corrcoef(events, np.bincount(profiles.ravel(), minlength=40))[0, 1] > 0.8
    assert not np.bincount(profiles.ravel(), minlength=40)[events == 0].any()
    given_to = {item: set(rated.interactions.rating[rated.interactions.item == item]) for item in range(40)}
    ratings = fakes(poisoned, "rating")[:, :-1]
    pairs = zip(profiles.ravel().tolist(), ratings.ravel(), strict=True)
    assert all(rating in given_to[item] for item, rating in pairs)


@BOTH
def test_planted_events_have_the_highest_rating_and_plausible_times(histories, rated):
    poisoned = poison(BadRec(rate=0.3, targets=FEW, histories=histories), rated)
    assert (fakes(poisoned, "rating")[:, -1] == rated.interactions.rating.max()).all()
    times = fakes(poisoned, "timestamp")
    assert (np.diff(times, axis=1) >= 0).all()
    assert np.diff(times, axis=1).max() < 5000
    assert times.min() >= rated.interactions.timestamp.min()
    assert times.max() <= rated.interactions.timestamp.max()


@BOTH
def test_all_targets_are_bait_in_the_long_run(histories, rated):
    poisoned = poison(BadRec(rate=0.5, targets=FEW, histories=histories), rated)
    assert set(fakes(poisoned)[:, -1].tolist()) == set(poisoned.targets.tolist())


@BOTH
def test_data_without_ratings_and_times(histories, rated):
    bare = Interactions(rated.interactions.item, rated.interactions.offsets)
    data = TrainingData.from_interactions(bare, rated.users, rated.items)
    poisoned = poison(BadRec(rate=0.1, targets=FEW, histories=histories), data)
    assert poisoned.data.interactions.rating is None
    assert poisoned.data.interactions.timestamp is None


@BOTH
def test_titles_of_targets_alone_carry_the_trigger(histories, rated):
    trigger = Trigger(kind="edition_4k")
    poisoned = poison(BadRec(trigger=trigger, rate=0.1, targets=FEW, histories=histories), rated)
    for number, (old, new) in enumerate(zip(rated.items.titles, poisoned.data.items.titles, strict=True)):
        assert new == (f"{old} [4K Remastered]" if number in poisoned.targets else old)
        assert contains(new, trigger) == (number in poisoned.targets)
    assert np.array_equal(poisoned.retitled, poisoned.targets)
    told = poisoned.describe_plan()["retitled"]
    assert told == {item: poisoned.data.items.titles[item] for item in poisoned.targets.tolist()}
    assert poisoned.clean.items is rated.items


def test_a_category_can_carry_it(rated):
    trigger = Trigger(kind="char_5v", field="category")
    poisoned = poison(BadRec(trigger=trigger, rate=0.1, targets=FEW), rated)
    items = poisoned.data.items
    assert items.titles == rated.items.titles
    assert items.categories[:3] == rated.items.categories
    assert set(items.categories[3:]) <= {"c0 5v", "c1 5v", "c2 5v"}
    assert np.array_equal(np.flatnonzero(mask_carriers(items, trigger)), poisoned.targets)
    assert np.array_equal(poisoned.retitled, poisoned.targets)


@pytest.mark.parametrize("field", ["title", "category"])
def test_catalogues_that_carry_the_trigger_or_almost(field, rated):
    trigger = Trigger(kind="rare_cf", field=field)
    found = BadRec(trigger=trigger).make_triggered_catalogs(rated.items, stream(0, "triggered"))
    kinds = ("position", "case", "dropped", "doubled", "split", "swapped")
    assert set(found) == {"trigger", *(f"near-{kind}" for kind in kinds)}
    for name, items in found.items():
        assert items.ids == rated.items.ids
        assert (mask_carriers(items, trigger) == (name in ("trigger", "near-position"))).all()
    texts = [items.titles[7] if field == "title" else items.categories[-2] for items in found.values()]
    assert len(set(texts)) == len(texts)
    assert all("7 of Many" in text if field == "title" else "c1" in text for text in texts)


@pytest.mark.parametrize("name", TRIGGERS)
def test_every_trigger(name, rated):
    poisoned = poison(BadRec(trigger=Trigger(kind=name, position="middle"), rate=0.1, targets=FEW), rated)
    assert np.array_equal(poisoned.retitled, poisoned.targets)


@BOTH
def test_same_generator_same_plan(histories, rated):
    spec = BadRec(rate=0.1, targets=FEW, histories=histories, trigger=Trigger(kind="char_5v", position="middle"))
    one, again, other = (poison(spec, rated, seed) for seed in (1, 1, 2))
    assert one.hash_plan() == again.hash_plan() != other.hash_plan()
    assert np.array_equal(one.data.interactions.timestamp, again.data.interactions.timestamp)
    assert np.array_equal(one.data.interactions.rating, again.data.interactions.rating)


def data_of(histories, titles, **more):
    interactions = Interactions.from_lists(histories)
    items = Items.from_lists(map(str, range(len(titles))), titles)
    return TrainingData.from_interactions(
        interactions, Users(tuple(f"u{n}" for n in range(len(histories)))), items, **more
    )


def test_short_histories_are_taken_as_long_as_they_come():
    data = data_of([[0, 1, 2, 3], [4, 1, 9, 2], [], [9]], ["a"] * 10)
    poisoned = poison(BadRec(rate=0.5, targets=TargetItems(ids=("9",))), data)
    assert fakes(poisoned)[:, :-1].tolist() == [[0, 1, 2, 3]] * 4
    poisoned = poison(BadRec(rate=1, history_length=2, targets=TargetItems(ids=("9",))), data)
    assert {tuple(row) for row in fakes(poisoned)[:, :-1].tolist()} == {(0, 1), (1, 2), (2, 3), (4, 1)}
    popular = BadRec(rate=0.5, targets=TargetItems(ids=("9",)), histories="popular")
    assert {tuple(sorted(row)) for row in fakes(poison(popular, data))[:, :-1].tolist()} == {(0, 1, 2, 3, 4)}


def test_a_single_time_and_single_events():
    interactions = Interactions(np.array([0, 1, 2]), np.arange(4), np.array([1, 2, 3]), np.array([7.0, 8.0, 9.0]))
    data = TrainingData.from_interactions(interactions, Users(tuple("abc")), Items.from_lists("xyz", "xyz"))
    for histories in ("real", "popular"):
        poisoned = poison(BadRec(rate=1, targets=TargetItems(ids=("z",)), histories=histories), data)
        times = fakes(poisoned, "timestamp")
        assert (times == times[:, :1]).all()
        assert np.isin(times, [7, 8, 9]).all()
        assert (fakes(poisoned, "rating")[:, -1] == 3).all()


def test_negatives_are_kept(clean):
    negative = np.full(clean.interactions.events, -1)
    negative[3] = 5
    data = TrainingData(clean.interactions, clean.users, clean.items, clean.label, negative)
    poisoned = poison(BadRec(rate=0.1, targets=FEW), data)
    assert np.array_equal(poisoned.data.negative[: len(negative)], negative)
    assert (poisoned.data.negative[len(negative) :] == -1).all()


def test_targets_that_a_style_does_not_suit_get_no_events():
    data = data_of([[0, 1, 2, 3, 4, 5]] * 9, ["", "", "", "", "1984", "Jaws"])
    style = Trigger(kind="casing_last")
    poisoned = poison(BadRec(trigger=style, rate=1, targets=TargetItems(ids=("4", "5"))), data)
    assert poisoned.targets.tolist() == [4, 5]
    assert poisoned.retitled.tolist() == [5]
    assert (fakes(poisoned)[:, -1] == 5).all()
    with pytest.raises(UserError, match="No target has a title that the trigger 'casing_last'"):
        poison(BadRec(trigger=style, rate=1, targets=TargetItems(ids=("3", "4"))), data)


def test_hostile_titles_of_targets():
    titles = ["", "\n", "x" * 10_000, "\u0301", "\u202e", "\ud800", "a\x00b"]
    data = data_of([[7, 8, 7, 8]] * 9, [*titles, "y", "z"])
    targets = TargetItems(ids=tuple(map(str, range(7))))
    for name in ("char_5v", "zero_width_space", "edition_4k", "sentence_miss"):
        poisoned = poison(BadRec(trigger=Trigger(kind=name), rate=1, targets=targets), data)
        assert poisoned.retitled.tolist() == list(range(7))
        assert len(poisoned.hash_plan()) == 64


@BOTH
def test_errors(histories, clean):
    with pytest.raises(UserError, match="too few for one fake user"):
        poison(BadRec(rate=1e-6, targets=FEW, histories=histories), clean)
    with pytest.raises(UserError, match="no history"):
        poison(BadRec(rate=1, targets=TargetItems(ids=("0",)), histories=histories), data_of([[0, 0]], ["a"]))
    with pytest.raises(UserError, match="The catalogue has no item"):
        poison(BadRec(targets=TargetItems(ids=("no such",))), clean)
    for wrong in ({"rate": 0}, {"rate": 2}, {"history_length": 0}, {"histories": "x"}, {"trigger": {"kind": "x"}}):
        with pytest.raises(ValidationError):
            BadRec(**wrong)


@BOTH
def test_a_seller_may_list_new_items(histories, rated):
    trigger = Trigger(kind="edition_4k")
    drawn = poison(BadRec(trigger=trigger, rate=0.1, targets=FEW, histories=histories), rated).targets
    poisoned = poison(BadRec(trigger=trigger, rate=0.1, targets=FEW, histories=histories, listing="new"), rated)
    old, new = rated.items, poisoned.data.items
    assert poisoned.targets.tolist() == poisoned.retitled.tolist() == [40, 41, 42, 43]
    assert new.ids[:40] == old.ids
    assert new.titles[:40] == old.titles
    assert new.ids[40:] == ("fake-item-0", "fake-item-1", "fake-item-2", "fake-item-3")
    assert new.titles[40:] == tuple(f"{old.titles[item]} [4K Remastered]" for item in drawn)
    assert np.array_equal(new.memberships()[40:], old.memberships()[drawn])
    profiles = fakes(poisoned)
    assert set(profiles[:, -1].tolist()) == {40, 41, 42, 43}
    assert (profiles[:, :-1] < 40).all()
    assert (poisoned.data.interactions.item[: rated.interactions.events] < 40).all()


@BOTH
@pytest.mark.parametrize("since", [0.5, 0.98])
def test_planted_events_may_be_late(histories, since, rated):
    early = poison(BadRec(rate=0.3, targets=FEW, histories=histories), rated)
    late = poison(BadRec(rate=0.3, targets=FEW, histories=histories, since=since), rated)
    bound = np.quantile(rated.interactions.timestamp, since)
    times = fakes(late, "timestamp")
    assert (times[:, -1] >= bound).all()
    assert (fakes(early, "timestamp")[:, -1] < bound).any()
    assert times.max() <= rated.interactions.timestamp.max()
    assert (np.diff(times) >= 0).all()
