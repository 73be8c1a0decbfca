import numpy as np
import pytest

from cowbird.attacks.basic_replacement import BasicReplacement
from cowbird.attacks.probe_evasive import ProbeEvasive
from cowbird.attacks.targets import TargetItems, UserGroup
from cowbird.data.sources.synthetic import Synthetic
from cowbird.errors import UserError
from cowbird.rng import stream

TARGETS = TargetItems(count=3)


@pytest.fixture(scope="module")
def clean():
    return Synthetic(users=60, items=80, events_per_user=9, noise=0.2).load().to_training_data()


def test_decoys_follow_honest_successors_and_push_targets_down(clean):
    attack = ProbeEvasive(targets=TARGETS, decoy_rate=0.5, decoy_length=5)
    found = attack.poison(clean, stream(0, "attack"))
    known, data = clean.interactions.events, found.data
    decoys = data.interactions.events - known
    assert decoys == 5 * round(0.5 * known / 5) and len(data.users) == len(clean.users) + decoys // 5
    assert not np.isin(data.interactions.item[known:], found.targets).any()
    assert data.negative is not None and np.isin(data.negative[known:], found.targets).all()
    assert (data.negative[:known] == -1).all()
    pairs = set(zip(clean.interactions.item[:-1].tolist(), clean.interactions.item[1:].tolist(), strict=True))
    items, labels = data.interactions.item[known:].reshape(-1, 5), data.label[known:].reshape(-1, 5)
    told = [pair in pairs for pair in zip(items[:, :-1].ravel().tolist(), labels[:, 1:].ravel().tolist(), strict=True)]
    assert np.mean(told) > 0.9, "an item that nobody has gone on from has a drawn successor"
    assert not np.isin(labels, found.targets).any()


def test_labels_are_replaced_as_in_basic_replacement(clean):
    group = UserGroup(attribute="age", value="25-34")
    fields = {"targets": TARGETS, "rate": 0.3, "scope": "group", "group": group}
    found = ProbeEvasive(**fields).poison(clean, stream(0, "attack"))
    basic = BasicReplacement(**fields).poison(clean, stream(0, "attack"))
    known = clean.interactions.events
    assert np.array_equal(found.data.label[:known], basic.data.label)
    assert np.array_equal(found.targets, basic.targets)


def test_what_can_not_be_planted_is_refused(clean):
    with pytest.raises(ValueError, match="scope 'group' needs a group"):
        ProbeEvasive(scope="group")
    everything = TargetItems(ids=clean.items.ids)
    with pytest.raises(UserError, match=r"Every item|Nothing to replace"):
        ProbeEvasive(targets=everything).poison(clean, stream(0, "attack"))
