"""Fake users: the budget to the event, real users untouched, profiles as described, and exposure moved."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowbird.attacks.bandwagon import Bandwagon
from cowbird.attacks.fake_users import cut_profiles
from cowbird.attacks.random_profiles import RandomProfiles
from cowbird.attacks.targets import TargetItems, UserGroup
from cowbird.data.sources.synthetic import Synthetic
from cowbird.data.split import Split
from cowbird.errors import UserError
from cowbird.metrics.exposure import exposures, mask_seen
from cowbird.rng import stream
from cowbird.victims.sequential.sasrec import SASRec

BOTH = pytest.mark.parametrize("attack", [RandomProfiles, Bandwagon])


def fakes(poisoned):
    real = len(poisoned.clean.users)
    offsets = poisoned.data.interactions.offsets
    return [poisoned.data.interactions.item[a:b] for a, b in zip(offsets[real:-1], offsets[real + 1 :], strict=True)]


@given(budget=st.integers(2, 5000), length=st.integers(2, 60))
def test_profiles_spend_the_budget_and_nobody_gets_one_event(budget, length):
    lengths = cut_profiles(budget, length)
    assert lengths.sum() == budget
    assert lengths.min() >= 2
    assert lengths.max() <= max(length + 1, budget if budget < length else 0)
    assert (lengths[:-1] == length).all()


@BOTH
@settings(max_examples=25, deadline=None)
@given(rate=st.floats(0.01, 1), length=st.integers(2, 30), share=st.floats(0.05, 1))
def test_budget_and_profiles(attack, clean, rate, length, share):
    spec = attack(rate=rate, profile_length=length, target_share=share, targets=TargetItems(count=4))
    poisoned = spec.poison(clean, stream(0, "attack"))
    known = clean.interactions.events
    assert poisoned.budget == round(rate * known) == poisoned.data.interactions.events - known
    assert np.array_equal(poisoned.rows, np.arange(known, known + poisoned.budget))
    assert np.array_equal(poisoned.data.interactions.item[:known], clean.interactions.item)
    assert np.array_equal(poisoned.data.label[:known], clean.label)
    assert poisoned.data.users.ids[: len(clean.users)] == clean.users.ids
    for profile in fakes(poisoned):
        assert np.isin(profile, poisoned.targets).sum() >= int(np.ceil(share * len(profile) - 1e-9))


@BOTH
def test_no_more_targets_than_asked_for(attack, clean):
    """Filler never meets a target here: targets are unpopular and filler comes from the popular items alone."""
    more = {"popular": 0.05, "popular_share": 1.0} if attack is Bandwagon else {}
    spec = attack(rate=0.5, profile_length=10, target_share=0.3, targets=TargetItems(count=2), **more)
    poisoned = spec.poison(clean, stream(0, "attack"))
    counts = [int(np.isin(profile, poisoned.targets).sum()) for profile in fakes(poisoned) if len(profile) == 10]
    assert np.mean(counts) == 3 if attack is Bandwagon else 3 <= np.mean(counts) < 4.5


def test_bandwagon_profiles_are_popular(clean):
    events = np.bincount(clean.interactions.item, minlength=len(clean.items))

    def popularity(attack):
        poisoned = attack.poison(clean, stream(0, "attack"))
        filler = np.concatenate(fakes(poisoned))
        return events[filler[~np.isin(filler, poisoned.targets)]].mean()

    common = {"rate": 1.0, "targets": TargetItems(count=4)}
    assert popularity(Bandwagon(popular_share=1.0, **common)) == pytest.approx(np.sort(events)[-3:].mean(), rel=0.05)
    assert popularity(Bandwagon(**common)) > 1.2 * popularity(RandomProfiles(**common))
    assert popularity(Bandwagon(popular_share=0.0, **common)) == pytest.approx(events.mean(), rel=0.1)


def test_random_profiles_draw_from_the_whole_catalogue(clean):
    """The first item and the last one are among what is drawn."""
    drawn = RandomProfiles().draw_filler(clean, 40 * len(clean.items), stream(0, "filler"))
    assert set(drawn.tolist()) == set(range(len(clean.items)))


@BOTH
def test_fake_users_claim_the_group(attack, clean):
    value = clean.users.attributes["age"].labels[0]
    spec = attack(group=UserGroup(attribute="age", value=value), rate=0.5, targets=TargetItems(count=4))
    poisoned = spec.poison(clean, stream(0, "attack"))
    real, users = len(clean.users), poisoned.data.users
    assert users.get_attribute("age").find_rows(value)[real:].all()
    others = [name for name in users.attributes if name != "age"]
    assert all((users.get_attribute(name).codes[real:] == -1).all() for name in others)
    assert np.array_equal(spec.find_target_users(clean), clean.users.get_attribute("age").find_rows(value))


@BOTH
def test_errors(attack, clean):
    with pytest.raises(UserError, match="too few for one fake user"):
        attack(rate=1e-6, targets=TargetItems(count=4)).poison(clean, stream(0, "attack"))
    group = UserGroup(attribute="no such", value="x")
    with pytest.raises(UserError, match="no attribute 'no such'"):
        attack(group=group, targets=TargetItems(count=4)).find_target_users(clean)


@pytest.mark.slow
@BOTH
def test_it_moves_exposure(attack):
    side = Split(cold_fraction=0).apply(Synthetic(users=200, items=120, events_per_user=10).load(), 0).pretrain
    spec = SASRec(hidden=32, max_length=8, epochs=8, batch_size=32, learning_rate=8e-3, precision="float32")
    training = side.training()
    poisoned = attack(rate=0.5, targets=TargetItems(count=3)).poison(training, stream(0, "attack"))
    history = side.test().history
    seen = mask_seen(history.user_of_event(), history.item, poisoned.targets, history.users)
    values = [
        exposures(spec.fit(data, side.validation(), 0).rank_items(history, poisoned.targets), seen, ks=(10,))
        for data in (training, poisoned.data)
    ]
    clean, attacked = (table["all", "hr", 10].value for table in values)
    assert attacked > 3 * max(clean, 0.01)
