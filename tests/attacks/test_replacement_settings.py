"""Category promotion and demotion, as fields of basic replacement."""

import numpy as np
import pytest
from pydantic import ValidationError

from cowbird.attacks.basic_replacement import BasicReplacement
from cowbird.attacks.targets import TargetItems, UserGroup
from cowbird.data.sources.synthetic import Synthetic
from cowbird.data.split import Split
from cowbird.errors import UserError
from cowbird.metrics.exposure import exposures, mask_seen
from cowbird.rng import stream
from cowbird.victims.sequential.sasrec import SASRec

POPULAR = TargetItems(count=6, popularity=(0.5, 1))


def test_a_whole_category_is_promoted(clean):
    name = clean.items.categories[2]
    poisoned = BasicReplacement(targets=TargetItems(category=name), rate=0.5).poison(clean, stream(0, "attack"))
    assert np.array_equal(poisoned.targets, np.flatnonzero(clean.items.memberships()[:, 2]))
    assert set(poisoned.data.label[poisoned.rows]) == set(poisoned.targets.tolist())


def test_unknown_category_names_close_ones(clean):
    name = clean.items.categories[0]
    with pytest.raises(UserError) as caught:
        BasicReplacement(targets=TargetItems(category=name + "x")).poison(clean, stream(0, "attack"))
    assert repr(name) in caught.value.hint
    with pytest.raises(ValidationError, match="not both"):
        TargetItems(ids=("i1",), category=name)


@pytest.mark.parametrize("scope", ["global", "group"])
@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_demotion_replaces_targets_alone_and_exactly(clean, scope, rate):
    group = UserGroup(attribute="age", value=clean.users.attributes["age"].labels[0]) if scope == "group" else None
    attack = BasicReplacement(scope=scope, group=group, direction="demote", rate=rate, targets=POPULAR)
    poisoned = attack.poison(clean, stream(0, "attack"))
    events = np.arange(clean.interactions.events)
    predicted = ~np.isin(events, clean.interactions.offsets[:-1])
    aimed = attack.find_target_users(clean)[clean.interactions.user_of_event()]
    eligible = events[predicted & aimed & np.isin(clean.label, poisoned.targets)]
    assert len(poisoned.rows) == round(rate * len(eligible))
    assert set(poisoned.rows) <= set(eligible)
    assert not np.isin(poisoned.data.label[poisoned.rows], poisoned.targets).any()
    assert np.array_equal(poisoned.data.interactions.item, clean.interactions.item)
    if scope == "global":
        member = clean.items.memberships()
        assert (member[clean.label[poisoned.rows]] & member[poisoned.data.label[poisoned.rows]]).any(axis=1).all()


def test_a_category_cannot_be_demoted_within_itself(clean):
    targets = TargetItems(category=clean.items.categories[0])
    attack = BasicReplacement(direction="demote", targets=targets)
    with pytest.raises(UserError, match="no other item of its categories"):
        attack.poison(clean, stream(0, "attack"))


@pytest.mark.slow
def test_demotion_lowers_exposure():
    side = Split(cold_fraction=0).apply(Synthetic(users=200, items=60, events_per_user=12).load(), 0).pretrain
    spec = SASRec(hidden=32, max_length=10, epochs=10, batch_size=32, learning_rate=8e-3, precision="float32")
    training = side.training()
    poisoned = BasicReplacement(direction="demote", rate=1.0, targets=POPULAR).poison(training, stream(0, "attack"))
    history = side.test().history
    seen = mask_seen(history.user_of_event(), history.item, poisoned.targets, history.users)
    clean, attacked = (
        exposures(spec.fit(data, side.validation(), 0).rank_items(history, poisoned.targets), seen, ks=(5,))[
            "all", "hr", 5
        ].value
        for data in (training, poisoned.data)
    )
    assert attacked < 0.5 * clean
