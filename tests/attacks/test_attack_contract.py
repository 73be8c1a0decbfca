"""What every attack promises, and what `Attack.poison` does to one that breaks its promise."""

import inspect

import numpy as np
import pytest
from pydantic import ValidationError

from cowbird.attacks.base import Attack, AttackError, Plan, PoisonedData
from cowbird.attacks.targets import UserGroup
from cowbird.data.sources.synthetic import Synthetic
from cowbird.data.split import Split
from cowbird.data.types import Interactions, Items, TrainingData, Users
from cowbird.plugins import find_plugin, list_plugins, summarize_plugin
from cowbird.rng import stream

ATTACKS = list_plugins("attack")
every_attack = pytest.mark.parametrize("name", ATTACKS)


@pytest.fixture(scope="module")
def clean():
    """Return training data with enough items for the attacks' defaults."""
    data = Synthetic(users=60, items=160, events_per_user=9, noise=0.3).load()
    return Split(cold_fraction=0).apply(data, 0).pretrain.training()


def arrays(data):
    return [np.array(a) for a in (data.interactions.item, data.interactions.offsets, data.label)]


@every_attack
def test_described(name):
    cls = find_plugin("attack", name)
    assert summarize_plugin(cls)
    assert inspect.getmodule(cls).__doc__
    assert all(field.description for field in cls.model_fields.values())
    assert cls.__doc__ != Attack.__doc__


@every_attack
def test_frozen_and_strict(name):
    cls = find_plugin("attack", name)
    spec = cls()
    with pytest.raises(ValidationError):
        cls(no_such_field=1)
    for field in cls.model_fields:
        with pytest.raises(ValidationError):
            setattr(spec, field, getattr(spec, field))
    assert cls.model_validate(spec.model_dump()) == spec


@every_attack
def test_poison_is_the_bases(name):
    assert find_plugin("attack", name).poison is Attack.poison


@every_attack
def test_promise(name, clean):
    attack, before = find_plugin("attack", name)(), arrays(clean)
    poisoned = attack.poison(clean, stream(0, "attack"))
    assert all(np.array_equal(a, b) for a, b in zip(arrays(clean), before, strict=True))
    assert poisoned.clean is clean
    assert len(poisoned.rows) == poisoned.budget > 0
    assert (np.diff(poisoned.rows) > 0).all()
    known = clean.interactions.events
    changed = np.flatnonzero(poisoned.data.label[:known] != clean.label)
    assert set(changed) <= set(poisoned.rows)
    assert len(changed) or poisoned.data.interactions.events > known, "the attack did nothing"
    assert np.isin(poisoned.data.label[poisoned.rows], poisoned.targets).any()
    assert (np.diff(poisoned.targets) > 0).all()
    assert poisoned.targets.max() < len(clean.items)
    assert not poisoned.rows.flags.writeable
    assert not poisoned.targets.flags.writeable


@every_attack
def test_same_generator_same_plan(name, clean):
    attack = find_plugin("attack", name)()
    one, again, other = (attack.poison(clean, stream(seed, "attack")) for seed in (1, 1, 2))
    assert one.describe_plan() == again.describe_plan()
    assert one.hash_plan() == again.hash_plan() != other.hash_plan()


@every_attack
def test_target_users_by_default_or_group(name, clean):
    users = find_plugin("attack", name)().find_target_users(clean)
    assert users.shape == (len(clean.users),)
    assert users.dtype == bool
    assert users.any()


def test_what_an_attack_aims_at_and_writes_is_what_its_hooks_say(clean):
    group = UserGroup(attribute="gender", value="F")
    aimed = find_plugin("attack", "basic_replacement")(scope="group", group=group)
    assert aimed.get_target_group() == group
    assert np.array_equal(aimed.find_target_users(clean), group.find_members(clean))
    assert aimed.get_title_trigger() is None
    badrec = find_plugin("attack", "badrec")
    assert badrec().get_target_group() is None
    assert badrec().get_title_trigger() == badrec().trigger
    assert badrec(trigger={"kind": "char_5v", "field": "category"}).get_title_trigger() is None


# Attacks that break their promise


class Liar(Attack):
    """Does what its function says."""

    def run(self, data, rng):
        return self._act(data, rng)

    @staticmethod
    def doing(act):
        return type("Liar", (Liar,), {"_act": staticmethod(act), "__module__": __name__})()


def relabeled(data, rows, to=0):
    label = np.array(data.label)
    label[rows] = (label[rows] + 1 + to) % len(data.items)
    return TrainingData(data.interactions, data.users, data.items, label)


def plan(data, rows, budget, targets=(0,)):
    return Plan(data, np.array(targets), np.array(rows), budget)


def with_fake_user(data, history):
    interactions, time = data.interactions, data.interactions.timestamp
    grown = Interactions(
        np.concatenate([interactions.item, history]),
        np.append(interactions.offsets, interactions.events + len(history)),
        None,
        None if time is None else np.concatenate([time, np.full(len(history), time.max())]),
    )
    return TrainingData.from_interactions(grown, Users((*data.users.ids, "fake")), data.items)


def test_an_honest_one_passes(clean):
    poisoned = Liar.doing(lambda d, r: plan(relabeled(d, [5, 3]), [5, 3], 2)).poison(clean, stream(0))
    assert poisoned.rows.tolist() == [3, 5]


def test_relabeling_with_the_same_item_counts(clean):
    poisoned = Liar.doing(lambda d, r: plan(relabeled(d, [3]), [3, 4], 2)).poison(clean, stream(0))
    assert poisoned.rows.tolist() == [3, 4]


def test_fake_users_come_after_and_are_owned_up_to(clean):
    events = clean.interactions.events
    rows = [events, events + 1, events + 2]
    poisoned = Liar.doing(lambda d, r: plan(with_fake_user(d, [1, 2, 3]), rows, 3)).poison(clean, stream(0))
    assert poisoned.describe_plan()["user"] == [len(clean.users)] * 3
    assert poisoned.describe_plan()["item"] == [1, 2, 3]


def mutate(array):
    """Write through whatever still lets itself be written."""
    while array.base is not None and not array.flags.writeable:
        array = array.base
    array[0] += 1


def removed_user(data):
    keep = np.arange(1, len(data.users))
    return TrainingData.from_interactions(data.interactions.select(keep), data.users.take(keep), data.items)


def moved_events(data):
    offsets = np.array(data.interactions.offsets)
    offsets[1] -= 1
    return TrainingData.from_interactions(Interactions(data.interactions.item, offsets), data.users, data.items)


def changed_history(data):
    item = np.array(data.interactions.item)
    item[7] = (item[7] + 1) % len(data.items)
    return TrainingData(Interactions(item, data.interactions.offsets), data.users, data.items, data.label)


BROKEN = {
    "more rows than budget": lambda d, r: plan(relabeled(d, [1, 2, 3]), [1, 2, 3], 2),
    "fewer rows than budget": lambda d, r: plan(relabeled(d, [1, 2]), [1, 2], 3),
    "a row twice": lambda d, r: plan(relabeled(d, [1, 2]), [1, 2, 2], 3),
    "a row unclaimed": lambda d, r: plan(relabeled(d, [1, 2, 3]), [1, 2], 2),
    "a negative row": lambda d, r: plan(relabeled(d, [-1]), [-1], 1),
    "a history changed": lambda d, r: plan(changed_history(relabeled(d, [1])), [1], 1),
    "users removed": lambda d, r: plan(removed_user(d), [1], 1),
    "users removed and events added": lambda d, r: plan(with_fake_user(removed_user(d), [1] * 30), [1], 1),
    "events moved": lambda d, r: plan(moved_events(d), [1], 1),
    "fake users unclaimed": lambda d, r: plan(with_fake_user(d, [1, 2]), [d.interactions.events], 1),
    "label changed in place": lambda d, r: (mutate(d.label), plan(d, [0], 1))[1],
    "item changed in place": lambda d, r: (mutate(d.interactions.item), plan(d, [0], 1))[1],
    "offsets changed in place": lambda d, r: (mutate(d.interactions.offsets[1:]), plan(d, [0], 1))[1],
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_promise_is_an_attack_error(how, clean):
    own = TrainingData(
        Interactions(np.array(clean.interactions.item), np.array(clean.interactions.offsets)),
        clean.users,
        clean.items,
        np.array(clean.label),
    )
    with pytest.raises(AttackError):
        Liar.doing(BROKEN[how]).poison(own, stream(0))


def test_a_row_beyond_the_data_is_an_attack_error(clean):
    with pytest.raises(AttackError):
        Liar.doing(lambda d, r: plan(relabeled(d, [1]), [1, 10**6], 2)).poison(clean, stream(0))


@pytest.mark.parametrize("label", [10**6, -1])
def test_a_label_outside_the_catalogue_is_an_attack_error(label, clean):
    def act(data, rng):
        changed = np.array(data.label)
        changed[1] = label
        return plan(TrainingData(data.interactions, data.users, data.items, changed), [1], 1)

    with pytest.raises((AttackError, ValueError)):
        Liar.doing(act).poison(clean, stream(0))


def test_plan_and_hash():
    data = TrainingData.from_interactions(
        Interactions.from_lists([[0, 1], [], [2, 1, 0]]), Users(("a", "b", "c")), Items.from_lists("xyz")
    )

    def poisoned(label, rows):
        changed = np.array(data.label)
        changed[rows] = label
        new = TrainingData(data.interactions, data.users, data.items, changed)
        return PoisonedData(data, new, np.array([2]), np.array(rows), len(rows))

    found = poisoned(2, [1, 3])
    assert found.describe_plan() == {"targets": [2], "row": [1, 3], "user": [0, 2], "item": [1, 1], "label": [2, 2]}
    hashes = {poisoned(*how).hash_plan() for how in ((2, [1, 3]), (2, [1, 4]), (2, [1]), (0, [1, 3]))}
    assert len(hashes) == 4
    assert poisoned(2, [1, 3]).hash_plan() == found.hash_plan()
    assert len(found.hash_plan()) == 64
