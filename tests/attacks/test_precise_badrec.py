"""Decoys carry what is like the trigger, or a part of it, and fake users dislike them."""

import numpy as np
import pytest
from pydantic import ValidationError

from cowbird.attacks.precise_badrec import PreciseBadRec
from cowbird.attacks.targets import TargetItems
from cowbird.attacks.triggers import Trigger, contains
from cowbird.data.sources.synthetic import Synthetic
from cowbird.data.types import Interactions, TrainingData

FIRST, SECOND = Trigger(kind="custom", text="5v"), Trigger(kind="custom", text="wonderful", position="start")
TARGETS = TargetItems(count=6, popularity=(0.0, 1.0))


@pytest.fixture(scope="module")
def data():
    found = Synthetic(users=60, items=40, events_per_user=10).load()
    known = found.interactions
    rating = np.random.default_rng(0).integers(1, 6, known.events).astype(np.float32)
    rated = Interactions(known.item, known.offsets, rating, known.timestamp)
    return TrainingData.from_interactions(rated, found.users, found.items)


@pytest.mark.parametrize("second", [None, SECOND], ids=["like", "two parts"])
def test_half_of_the_fake_users_dislike_decoys(data, second):
    attack = PreciseBadRec(trigger=FIRST, second=second, rate=0.2, targets=TARGETS, history_length=4)
    made = attack.poison(data, seed=3)
    titles = made.data.items.titles
    parts = [FIRST] if second is None else [FIRST, second]
    carriers = [item for item in made.targets.tolist() if all(contains(titles[item], part) for part in parts)]
    bait = [item for item in carriers if titles[item].endswith(" 5v")]  # elsewhere in a title it is only like it
    decoys = sorted(set(made.targets.tolist()) - set(bait))
    assert (len(bait), len(decoys)) == (3, 3)
    for item in decoys:
        assert titles[item] != data.items.titles[item]
        if second is not None:
            assert sum(contains(titles[item], part) for part in parts) == 1
    known = made.data.interactions
    ends = known.offsets[1:][len(data.users) :] - 1
    liked = known.rating[ends] == known.rating.max()
    disliked = known.rating[ends] == known.rating.min()
    assert liked.sum() + disliked.sum() == len(ends)
    assert abs(int(liked.sum()) - int(disliked.sum())) <= 1
    assert set(known.item[ends][liked].tolist()) <= set(bait)
    assert set(known.item[ends][disliked].tolist()) <= set(decoys)


@pytest.mark.parametrize(("share", "bait", "disliking"), [(0.0, 6, 0), (0.34, 4, 40)])
def test_decoys_are_a_share_of_the_items_and_of_the_fake_users(data, share, bait, disliking):
    attack = PreciseBadRec(trigger=FIRST, second=SECOND, rate=0.2, targets=TARGETS, history_length=4, decoys=share)
    made = attack.poison(data, seed=3)
    titles, known = made.data.items.titles, made.data.interactions
    whole = [item for item in made.targets.tolist() if all(contains(titles[item], part) for part in (FIRST, SECOND))]
    assert len(whole) == bait
    ends = known.offsets[1:][len(data.users) :] - 1
    assert (known.rating[ends] == known.rating.min()).sum() == disliking
    assert set(known.item[ends][known.rating[ends] == known.rating.max()].tolist()) <= set(whole)


def test_catalogues_carry_both_parts_or_one(data):
    attack = PreciseBadRec(trigger=FIRST, second=SECOND)
    made = attack.make_triggered_catalogs(data.items, np.random.default_rng(0))
    assert set(made) == {"trigger", "near-first", "near-second"}
    for name, wanted in (("trigger", (True, True)), ("near-first", (True, False)), ("near-second", (False, True))):
        assert {tuple(contains(title, part) for part in (FIRST, SECOND)) for title in made[name].titles} == {wanted}


def test_parts_in_different_fields_are_refused():
    with pytest.raises(ValidationError, match="same field"):
        PreciseBadRec(trigger=FIRST, second=Trigger(kind="custom", text="x", field="category"))
