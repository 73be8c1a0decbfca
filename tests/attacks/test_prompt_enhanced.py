"""The prompt-enhanced attack: whose labels and whose negatives, how many, and that the plan owns up to all of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cowbird.attacks.base import Attack, AttackError, Plan, PoisonedData
from cowbird.attacks.prompt_enhanced import PromptEnhanced
from cowbird.attacks.targets import TargetItems, UserGroup
from cowbird.data.types import Attribute, Interactions, Items, TrainingData, Users
from cowbird.errors import UserError
from cowbird.rng import stream

ITEMS = 12
YOUNG = UserGroup(attribute="age", value="young")
WOMEN = UserGroup(attribute="gender", value="F")


@st.composite
def worlds(draw):
    """Draw training data: histories of any length, ages partly missing."""
    sizes = draw(st.lists(st.integers(0, 9), min_size=1, max_size=8))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    ages = ["young", *(("young", "old", None)[n] for n in rng.integers(3, size=len(sizes) - 1))]
    users = Users(tuple(f"u{n}" for n in range(len(sizes))), {"age": Attribute.from_values(ages)})
    interactions = Interactions(rng.integers(ITEMS, size=sum(sizes)), np.cumsum([0, *sizes]))
    return TrainingData.from_interactions(interactions, users, Items.from_lists((f"i{n}" for n in range(ITEMS)), None))


def poison(attack, data, seed=0):
    return attack.poison(data, stream(seed, "attack"))


def negatives(poisoned):
    given_to = poisoned.data.negative
    return np.full(len(poisoned.data.label), -1) if given_to is None else given_to


def by_the_book(data, targets, group):
    """List the positions whose label may become a target, and those that may get a target as their negative."""
    shown, pushed = [], []
    for user in range(len(data.users)):
        first, end = data.interactions.offsets[user : user + 2].tolist()
        age = data.users.attributes["age"]
        aimed = group is None or age.codes[user] == age.labels.index("young")
        for event in range(first + 1, end):
            if aimed:
                shown.append(event)
            elif data.interactions.item[event] not in targets:
                pushed.append(event)
    return shown, pushed


RATES = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0])


@settings(max_examples=80, deadline=None)
@given(
    worlds(), st.sets(st.integers(0, ITEMS - 1), min_size=1, max_size=6), RATES, RATES, st.sampled_from([YOUNG, None])
)
def test_plan_by_the_book(data, targets, rate, positive_rate, group):
    ids = TargetItems(ids=tuple(f"i{n}" for n in targets))
    attack = PromptEnhanced(rate=rate, positive_rate=max(positive_rate, 1e-3), targets=ids, group=group)
    shown, pushed = by_the_book(data, targets, group)
    positives, pushes = round(attack.positive_rate * len(shown)), round(rate * len(pushed))
    if not positives:
        with pytest.raises(UserError, match=f"the group has {len(shown)} positions") as error:
            poison(attack, data)
        assert error.value.hint
        return
    found = poison(attack, data)
    assert found.targets.tolist() == sorted(targets)
    given_to = np.flatnonzero(negatives(found) != -1)
    relabeled = np.setdiff1d(found.rows, given_to)
    assert (len(relabeled), len(given_to)) == (positives, pushes)
    assert found.budget == len(found.rows) == positives + pushes
    assert set(relabeled.tolist()) <= set(shown)
    assert set(given_to.tolist()) <= set(pushed), "to others alone, and never where the label is a target"
    assert (found.data.negative is None) == (pushes == 0)
    assert set(found.data.label[relabeled].tolist()) | set(negatives(found)[given_to].tolist()) <= targets
    untouched = np.setdiff1d(np.arange(data.interactions.events), relabeled)
    assert np.array_equal(found.data.label[untouched], data.label[untouched])
    assert np.array_equal(found.data.interactions.item, data.interactions.item)
    assert np.array_equal(found.data.interactions.offsets, data.interactions.offsets)
    assert found.data.users.ids == data.users.ids
    assert np.array_equal(found.data.users.attributes["age"].codes, data.users.attributes["age"].codes)
    assert found.data.items.ids == data.items.ids
    if attack.positive_rate == rate == 1:
        assert found.rows.tolist() == sorted(shown + pushed)


@pytest.mark.parametrize("count", [1, 4, 12])
def test_positions_and_targets_are_drawn_evenly(clean, count):
    attack = PromptEnhanced(rate=0.2, positive_rate=0.6, group=WOMEN, targets=TargetItems(count=count))
    labels, pushed = np.zeros((2, len(clean.items)))
    taken = np.zeros(clean.interactions.events)
    rounds = 150
    for seed in range(rounds):
        found = poison(attack, clean, seed)
        given_to = negatives(found)
        rows = found.rows[given_to[found.rows] == -1]
        assert len(found.targets) == count
        # What was drawn as the n-th target, whichever item that is.
        labels += np.bincount(np.searchsorted(found.targets, found.data.label[rows]), minlength=len(labels))
        rows = np.flatnonzero(given_to != -1)
        pushed += np.bincount(np.searchsorted(found.targets, given_to[rows]), minlength=len(pushed))
        taken[found.rows] += 1
    for drawn in (labels, pushed):
        assert not drawn[count:].any()
        assert drawn[:count] / drawn.sum() == pytest.approx(np.full(count, 1 / count), abs=0.02)
    aimed = attack.find_target_users(clean)[clean.interactions.user_of_event()]
    for share, counts in ((0.6, taken[aimed]), (0.2, taken[~aimed])):
        rows = counts[counts > 0] / rounds
        assert rows.mean() == pytest.approx(share, abs=0.03)
        assert np.abs(rows - share).max() < 6 * (share * (1 - share) / rounds) ** 0.5 + 0.03


def test_a_rate_of_zero_and_no_group_push_nobody(clean):
    for fields in ({"rate": 0.0, "group": WOMEN}, {"rate": 1.0}):
        found = poison(PromptEnhanced(targets=TargetItems(count=3), **fields), clean)
        assert found.data.negative is None
        assert "negative" not in found.describe_plan()
    assert found.budget == round(0.5 * (clean.interactions.events - len(clean.users))), "everybody is aimed at"
    assert PromptEnhanced().find_target_users(clean).all()
    assert len(np.unique(clean.interactions.user_of_event()[found.rows])) > 0.9 * len(clean.users)


def test_the_plan_tells_negatives_and_its_hash_depends_on_them(clean):
    found = poison(PromptEnhanced(group=WOMEN, targets=TargetItems(count=3)), clean)
    plan = found.describe_plan()
    assert plan["row"] == found.rows.tolist()
    assert plan["negative"] == negatives(found)[found.rows].tolist()
    women = clean.users.get_attribute("gender").find_rows("F")
    assert [value == -1 for value in plan["negative"]] == women[plan["user"]].tolist()

    def replanted(negative):
        data = TrainingData(clean.interactions, clean.users, clean.items, found.data.label, negative)
        return PoisonedData(clean, data, found.targets, found.rows, found.budget).hash_plan()

    row = found.rows[negatives(found)[found.rows] != -1][0]
    other = np.array(found.data.negative)
    other[row] = found.targets[found.targets != other[row]][0]
    assert replanted(found.data.negative) == found.hash_plan()
    assert len({found.hash_plan(), replanted(other), replanted(None)}) == 3


def test_a_group_with_nothing_to_replace_is_told(clean):
    users = Users(("a", "b"), {"age": Attribute.from_values(["young", "old"])})
    data = TrainingData.from_interactions(Interactions.from_lists([[1], [0, 1, 2]]), users, Items.from_lists("xyz"))
    for attack, given_data in (
        (PromptEnhanced(group=YOUNG, targets=TargetItems(ids=("x",))), data),
        (PromptEnhanced(group=WOMEN, positive_rate=1e-4, targets=TargetItems(count=2)), clean),
    ):
        with pytest.raises(UserError, match="Nothing to replace") as error:
            poison(attack, given_data)
        assert "positive_rate" in error.value.hint
    with pytest.raises(UserError, match="'ancient'"):
        poison(PromptEnhanced(group=YOUNG.model_copy(update={"value": "ancient"}), targets=TargetItems(count=1)), data)


@pytest.mark.parametrize(
    "fields",
    [
        {"rate": -0.1},
        {"rate": 1.1},
        {"positive_rate": 0},
        {"positive_rate": float("nan")},
        {"epochs": 0},
        {"prompt_epochs": 0},
        {"learning_rate": 0},
        {"prompt": {"length": 0}},
        {"scope": "group"},
    ],
)
def test_wrong_fields_are_refused(fields):
    with pytest.raises(ValidationError):
        PromptEnhanced(**fields)


# Negatives that nobody owns up to


class Planter(Attack):
    """Gives negatives as told, and owns up to some rows."""

    given_to: dict[int, int]
    rows: tuple[int, ...]

    def run(self, data, rng):
        negative = np.full(len(data.label), -1, dtype=np.int32)
        negative[list(self.given_to)] = list(self.given_to.values())
        planted = TrainingData(data.interactions, data.users, data.items, data.label, negative)
        return Plan(planted, np.array([5]), np.array(self.rows, dtype=np.int64), len(self.rows))


def test_negatives_are_part_of_the_promise(clean):
    honest = poison(Planter(given_to={3: 5, 7: 0}, rows=(3, 7)), clean)
    assert honest.describe_plan()["negative"] == [5, 0]
    for given_to, rows in (({3: 5, 7: 5}, (3,)), ({3: 5}, ()), ({3: 5}, (4,))):
        with pytest.raises(AttackError, match="rows other than"):
            poison(Planter(given_to=given_to, rows=rows), clean)
    for item in (len(clean.items), -2):
        with pytest.raises(AttackError, match="catalogue"):
            poison(Planter(given_to={3: item}, rows=(3,)), clean)
