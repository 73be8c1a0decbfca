"""Every attack, aimed at all or at a group, up or down, on random data: the budget to the row, and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowbird.attacks.targets import TargetItems, UserGroup
from cowbird.data.types import Attribute, Interactions, Items, TrainingData, Users
from cowbird.errors import UserError
from cowbird.plugins import find_plugin, list_plugins
from cowbird.rng import stream

ITEMS, NAMES = 10, ("comedy", "drama", "noir", "war")


def choices(name):
    """List the ways an attack can be aimed, as fields: every direction it has, at everybody and at a group."""
    fields = find_plugin("attack", name).model_fields
    directions = [{"direction": way} for way in ("promote", "demote")] if "direction" in fields else [{}]
    groups = [False, True] if "group" in fields else [False]
    return [(name, {**way, "aimed": aimed}) for way in directions for aimed in groups]


CHOICES = [choice for name in list_plugins("attack") for choice in choices(name)]
every_choice = pytest.mark.parametrize(("name", "way"), CHOICES, ids=str)


def aim(name, way, attribute="age", value="young", **fields):
    """Make an attack."""
    cls, given_to = find_plugin("attack", name), {key: value for key, value in way.items() if key != "aimed"}
    if way["aimed"]:
        given_to["group"] = UserGroup(attribute=attribute, value=value)
    if "scope" in cls.model_fields:
        given_to["scope"] = "group" if way["aimed"] else "global"
    known = {key: value for key, value in fields.items() if key in cls.model_fields}
    return cls(**given_to, **known)


@st.composite
def worlds(draw):
    """Draw training data: histories of any length, ages partly missing, items in none, one or several categories."""
    sizes = draw(st.lists(st.integers(0, 9), min_size=1, max_size=8))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    count = len(sizes)
    ages = ["young", *(("young", "old", None)[n] for n in rng.integers(3, size=count - 1))]
    jobs = [("smith", None)[n] for n in rng.integers(2, size=count)]
    profiles = {"age": Attribute.from_values(ages), "job": Attribute.from_values(jobs)}
    categories = [list(rng.permutation(NAMES)[: rng.integers(0, 4)]) for _ in range(ITEMS)]
    items = Items.from_lists((f"i{n}" for n in range(ITEMS)), (f"Title {n}" for n in range(ITEMS)), categories)
    interactions = Interactions(rng.integers(ITEMS, size=sum(sizes)), np.cumsum([0, *sizes]))
    return TrainingData.from_interactions(interactions, Users(tuple(f"u{n}" for n in range(count)), profiles), items)


def contents(data):
    """Return all that an attack is given, by value."""
    arrays = [data.interactions.item, data.interactions.offsets, data.label]
    arrays += [column.codes for column in data.users.attributes.values()]
    arrays += [data.items.category_offsets, data.items.category_codes]
    labels = {name: column.labels for name, column in data.users.attributes.items()}
    return [array.tobytes() for array in arrays], data.users.ids, labels, data.items.ids, data.items.titles


def negatives(data):
    return np.full(len(data.label), -1) if data.negative is None else data.negative


def share(data, a, b):
    """Whether two items share a category, read from the catalogue's flat arrays."""
    codes = [set(data.items.category_codes[slice(*data.items.category_offsets[n : n + 2])].tolist()) for n in (a, b)]
    return bool(codes[0] & codes[1])


def positions(data):
    """List the events that a model is trained to predict, each with its user."""
    ends = data.interactions.offsets.tolist()
    return [(event, user) for user in range(len(data.users)) for event in range(ends[user] + 1, ends[user + 1])]


def replacements(data, attack, targets, aimed):
    """List the positions that basic replacement may change, each with the labels it may get."""
    found = {}
    occurring = set(data.interactions.item.tolist()) - set(targets)
    for event, user in positions(data):
        old = int(data.label[event])
        if not aimed[user] or (attack.direction == "demote" and old not in targets):
            continue
        pool = occurring if attack.direction == "demote" else targets
        allowed = {new for new in pool if attack.scope == "group" or share(data, old, new)}
        if allowed or attack.direction == "demote":
            found[event] = allowed
    return found


def expected(name, attack, data, targets, aimed):
    """Return the budget by the book, and whether the attack must and may refuse; a budget of `None` is not known."""
    if name in ("random_profiles", "bandwagon"):
        budget = round(attack.rate * data.interactions.events)
        return budget, budget < 2, budget < 2
    if name == "basic_replacement":
        found = replacements(data, attack, targets, aimed)
        budget = round(attack.rate * len(found))
        homeless = attack.scope == "global" and not all(share(data, target, target) for target in targets)
        return budget, budget < 1 or homeless, budget < 1 or homeless or not all(found.values())
    if name == "prompt_enhanced":
        members = [event for event, user in positions(data) if aimed[user]]
        others = [event for event, user in positions(data) if not aimed[user] and data.label[event] not in targets]
        positives = round(attack.positive_rate * len(members))
        return positives + round(attack.rate * len(others)), positives < 1, positives < 1
    return None, False, True


def check(name, attack, data, found, aimed):
    """Assert what every attack promises, and what each promises of its rows."""
    known, targets = data.interactions.events, set(found.targets.tolist())
    planted, rows = found.data, found.rows
    assert len(rows) == found.budget == len(set(rows.tolist())) > 0
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(planted.interactions.offsets[: len(data.users) + 1], data.interactions.offsets)
    assert planted.users.ids[: len(data.users)] == data.users.ids
    for label, column in data.users.attributes.items():
        assert np.array_equal(planted.users.attributes[label].codes[: len(data.users)], column.codes)
        assert planted.users.attributes[label].labels == column.labels
    retitled = [n for n in range(len(data.items)) if planted.items.titles[n] != data.items.titles[n]]
    assert set(retitled) <= targets
    clean = np.setdiff1d(np.arange(known), rows)
    assert np.array_equal(planted.interactions.item[clean], data.interactions.item[clean])
    assert np.array_equal(planted.label[clean], data.label[clean])
    assert (negatives(planted)[clean] == -1).all()
    assert set(range(known, planted.interactions.events)) <= set(rows.tolist()), "fake users are part of the budget"
    relabeled = [row for row in rows.tolist() if row < known and planted.label[row] != data.label[row]]
    users = data.interactions.user_of_event()
    assert aimed[users[relabeled]].all(), "labels change for users aimed at alone"
    pushed = np.flatnonzero(negatives(planted) != -1)
    assert not aimed[users[pushed[pushed < known]]].any(), "negatives are given to others alone, and to added users"
    if getattr(attack, "scope", "") == "global":
        assert all(share(data, data.label[row], planted.label[row]) for row in relabeled)
    if name == "basic_replacement":
        allowed = replacements(data, attack, targets, aimed)
        assert set(rows.tolist()) <= set(allowed)
        assert all(int(planted.label[row]) in allowed[row] for row in rows.tolist())
    if getattr(attack, "group", None) is not None and name != "probe_evasive":  # its decoys claim nothing
        fakes = planted.users.get_attribute(attack.group.attribute).find_rows(attack.group.value)[len(data.users) :]
        assert fakes.all(), "fake users claim the group's value"


RATES = st.floats(0.02, 1) | st.just(1.0)
TARGETS = st.sets(st.integers(0, ITEMS - 1), min_size=1, max_size=5)


@every_choice
@settings(max_examples=50, deadline=None)
@given(data=worlds(), targets=TARGETS, rate=RATES, seed=st.integers(0, 99))
def test_budget_and_rows_by_the_book(name, way, data, targets, rate, seed):
    if not way["aimed"] and seed % 4:
        # A global attack refuses targets without a category, and few draws would be left.
        targets = {target for target in targets if share(data, target, target)} or targets
    attack = aim(name, way, rate=rate, targets=TargetItems(ids=tuple(f"i{n}" for n in targets)))
    aimed = np.array([not way["aimed"] or value == 0 for value in codes_of(data, "young")])
    assert np.array_equal(attack.find_target_users(data), aimed)
    before, (budget, must_refuse, may_refuse) = contents(data), expected(name, attack, data, targets, aimed)
    try:
        found = attack.poison(data, stream(seed, "attack"))
    except UserError as error:
        assert error.hint
        assert may_refuse, error
        assert contents(data) == before
        return
    assert not must_refuse
    assert contents(data) == before
    assert found.targets.tolist() == sorted(targets)
    assert budget in (None, found.budget)
    check(name, attack, data, found, aimed)
    assert attack.poison(data, stream(seed, "attack")).describe_plan() == found.describe_plan()


def codes_of(data, value):
    """Return 0 for users of an age and something else for the others."""
    age = data.users.attributes["age"]
    return [0 if age.codes[user] == age.labels.index(value) else 1 for user in range(len(data.users))]


@every_choice
@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_no_attack_refuses_ordinary_data(name, way, rate, clean):
    """The property above may be void for an attack that refuses everything; this can't."""
    targets = TargetItems(count=4, popularity=(0.5, 1))
    attack = aim(name, way, attribute="gender", value="F", rate=rate, targets=targets)
    before, aimed = contents(clean), attack.find_target_users(clean)
    women = clean.users.get_attribute("gender").find_rows("F")
    assert np.array_equal(aimed, women if way["aimed"] else np.ones_like(women))
    found = attack.poison(clean, stream(3, "attack"))
    assert contents(clean) == before
    budget, _, may_refuse = expected(name, attack, clean, set(found.targets.tolist()), aimed)
    assert budget in (None, found.budget)
    assert budget is None or not may_refuse
    check(name, attack, clean, found, aimed)


def test_demotion_draws_items_as_often_as_they_occur():
    """Label 0 goes down; items 1, 2 and 3 share its category and occur 1, 2 and 5 times, item 4 shares none."""
    items = Items.from_lists("abcde", None, [["x", "y"], ["x"], ["y"], ["x", "z"], ["z"]])
    item = np.random.default_rng(0).permutation(np.repeat(range(5), [400, 50, 100, 250, 200]))
    data = TrainingData.from_interactions(Interactions(item, [0, len(item)]), Users(("u",)), items)
    attack = find_plugin("attack", "basic_replacement")(direction="demote", rate=1.0, targets=TargetItems(ids=("a",)))
    drawn = np.zeros(5)
    for seed in range(20):
        found = attack.poison(data, stream(seed))
        drawn += np.bincount(found.data.label[found.rows], minlength=5)
    assert drawn / drawn.sum() == pytest.approx(np.array([0, 0.125, 0.25, 0.625, 0]), abs=0.02)
