"""Basic replacement: which positions, which labels, how many; and that it works on a model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cowbird.attacks.basic_replacement import BasicReplacement
from cowbird.attacks.targets import TargetItems, UserGroup
from cowbird.data.sources.synthetic import Synthetic
from cowbird.data.split import Split
from cowbird.data.types import Attribute, Interactions, Items, TrainingData, Users
from cowbird.errors import UserError
from cowbird.metrics.exposure import exposures, mask_seen
from cowbird.rng import stream
from cowbird.victims.sequential.sasrec import SASRec

ITEMS, NAMES = 12, ("comedy", "drama", "noir", "war")
quick = settings(max_examples=80, deadline=None)


@st.composite
def worlds(draw):
    """Draw training data: histories of any length, ages partly missing, items in none, one or several categories."""
    sizes = draw(st.lists(st.integers(0, 9), min_size=1, max_size=8))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    interactions = Interactions(rng.integers(ITEMS, size=sum(sizes)), np.cumsum([0, *sizes]))
    groups = [list(rng.permutation(NAMES)[: rng.integers(0, 4)]) for _ in range(ITEMS)]
    groups[0] = ["comedy", "drama"]
    ages = [("young", "old", None)[n] for n in rng.integers(3, size=len(sizes))]
    ages[0] = "young"
    users = Users(tuple(f"u{n}" for n in range(len(sizes))), {"age": Attribute.from_values(ages)})
    items = Items.from_lists((f"i{n}" for n in range(ITEMS)), None, groups)
    return TrainingData.from_interactions(interactions, users, items)


def categories(data, item):
    a, b = data.items.category_offsets[item : item + 2]
    return set(data.items.category_codes[a:b].tolist())


def eligible(data, targets, group):
    """List the eligible positions by the book."""
    found = []
    for user in range(len(data.users)):
        a, b = data.interactions.offsets[user : user + 2].tolist()
        if group and data.users.attributes["age"].codes[user] != data.users.attributes["age"].labels.index(group):
            continue
        for event in range(a + 1, b):
            own = categories(data, data.label[event])
            if group or any(own & categories(data, target) for target in targets):
                found.append(event)
    return found


def poison(attack, data, seed=0):
    return attack.poison(data, stream(seed, "attack"))


@quick
@given(worlds(), st.sets(st.integers(0, ITEMS - 1), min_size=1, max_size=5), st.floats(0.01, 1), st.booleans())
def test_plan_by_the_book(data, targets, rate, group):
    if not group:
        targets = {target for target in targets if categories(data, target)} or {0}
    attack = BasicReplacement(
        scope="group" if group else "global",
        group=UserGroup(attribute="age", value="young") if group else None,
        targets=TargetItems(ids=tuple(f"i{n}" for n in targets)),
        rate=rate,
    )
    allowed = eligible(data, targets, "young" if group else None)
    budget = round(rate * len(allowed))
    if not budget:
        with pytest.raises(UserError, match=f"{len(allowed)} positions") as error:
            poison(attack, data)
        assert error.value.hint
        return
    found = poison(attack, data)
    assert found.targets.tolist() == sorted(targets)
    assert len(found.rows) == found.budget == budget
    assert set(found.rows.tolist()) <= set(allowed)
    assert np.array_equal(found.data.interactions.item, data.interactions.item)
    assert np.array_equal(found.data.interactions.offsets, data.interactions.offsets)
    untouched = np.setdiff1d(np.arange(data.interactions.events), found.rows)
    assert np.array_equal(found.data.label[untouched], data.label[untouched])
    for row in found.rows.tolist():
        planted = int(found.data.label[row])
        assert planted in targets
        assert group or categories(data, planted) & categories(data, data.label[row])
    if rate == 1:
        assert found.rows.tolist() == allowed
    everybody = attack.find_target_users(data)
    assert everybody.tolist() == [
        (data.users.attributes["age"].codes[u] == data.users.attributes["age"].labels.index("young")) if group else True
        for u in range(len(data.users))
    ]


@pytest.mark.parametrize("scope", ["global", "group"])
def test_every_eligible_position_is_replaced_at_rate_one(clean, scope):
    group = UserGroup(attribute="age", value="18-24") if scope == "group" else None
    targets = ("i0", "i1", "i9")
    found = poison(BasicReplacement(scope=scope, group=group, rate=1, targets=TargetItems(ids=targets)), clean)
    events = clean.interactions
    first = np.isin(np.arange(events.events), events.offsets[:-1])
    if group:
        allowed = clean.users.get_attribute("age").find_rows("18-24")[events.user_of_event()] & ~first
    else:
        allowed = np.isin(clean.label % 8, [0, 1]) & ~first
    assert found.rows.tolist() == np.flatnonzero(allowed).tolist()


def test_positions_are_drawn_evenly(clean):
    attack = BasicReplacement(rate=0.3, targets=TargetItems(ids=("i0", "i1", "i2", "i3")))
    counts = np.zeros(clean.interactions.events)
    for seed in range(200):
        counts[poison(attack, clean, seed).rows] += 1
    drawn = counts[counts > 0] / 200
    assert drawn.mean() == pytest.approx(0.3, abs=0.01)
    assert drawn.min() > 0.3 - 6 * (0.3 * 0.7 / 200) ** 0.5
    assert drawn.max() < 0.3 + 6 * (0.3 * 0.7 / 200) ** 0.5


@pytest.mark.parametrize("scope", ["global", "group"])
def test_targets_are_used_evenly(clean, scope):
    """In group scope over all targets; in global scope over those of the replaced item's category."""
    group = UserGroup(attribute="gender", value="F") if scope == "group" else None
    ids = ("i0", "i8", "i16", "i24", "i1", "i9")
    attack = BasicReplacement(scope=scope, group=group, rate=0.9, targets=TargetItems(ids=ids))
    planted, replaced = [], []
    for seed in range(60):
        found = poison(attack, clean, seed)
        planted.append(found.data.label[found.rows])
        replaced.append(clean.label[found.rows])
    planted, replaced = np.concatenate(planted), np.concatenate(replaced)
    cases = [((0, 8, 16, 24, 1, 9), planted)]
    if scope == "global":
        cases = [((0, 8, 16, 24), planted[replaced % 8 == 0]), ((1, 9), planted[replaced % 8 == 1])]
        assert len(cases[0][1]) + len(cases[1][1]) == len(planted)
    for targets, found in cases:
        n, share = len(found), 1 / len(targets)
        assert n > 500
        for target in targets:
            assert (found == target).mean() == pytest.approx(share, abs=5 * (share * (1 - share) / n) ** 0.5)


def test_an_item_of_two_categories_reaches_the_targets_of_both():
    items = Items.from_lists("abcd", None, [["x", "y"], ["x"], ["y"], ["z"]])
    data = TrainingData.from_interactions(Interactions.from_lists([[3, 0, 3, 1, 2] * 40]), Users(("u",)), items)
    found = poison(BasicReplacement(rate=1, targets=TargetItems(ids=("b", "c"))), data)
    label = found.data.label
    assert set(label[clean_at(data, 0, found)].tolist()) == {1, 2}
    assert set(label[clean_at(data, 1, found)].tolist()) == {1}
    assert set(label[clean_at(data, 2, found)].tolist()) == {2}
    assert not clean_at(data, 3, found).size


def clean_at(data, item, found):
    return found.rows[data.label[found.rows] == item]


def test_first_events_are_never_relabeled(clean):
    attack = BasicReplacement(
        scope="group", group=UserGroup(attribute="gender", value="M"), rate=1, targets=TargetItems(count=3)
    )
    found = poison(attack, clean)
    assert not np.isin(found.rows, clean.interactions.offsets[:-1]).any()


# Targets


def skewed(counts):
    """Return data in which item n occurs `counts[n]` times."""
    item = np.repeat(np.arange(len(counts)), counts)
    interactions = Interactions(np.random.default_rng(0).permutation(item), [0, len(item)])
    return TrainingData.from_interactions(
        interactions, Users(("u",)), Items.from_lists(f"i{n}" for n in range(len(counts)))
    )


@pytest.mark.slow
@quick
@given(st.lists(st.integers(0, 40), min_size=8, max_size=40).filter(lambda c: np.count_nonzero(c) >= 8), st.data())
def test_targets_lie_in_their_popularity_range(counts, draw):
    counts = np.array(counts)
    known = np.sort(counts[counts > 0])
    low = draw.draw(st.sampled_from([0.0, 0.25, 0.5]))
    spec = TargetItems(count=2, popularity=(low, low + 0.25))
    begin, end = round(low * len(known)), round((low + 0.25) * len(known))
    found = spec.choose(skewed(counts), stream(draw.draw(st.integers(0, 99))))
    assert found.dtype == np.int32
    assert (np.diff(found) > 0).all()
    assert len(found) == 2
    assert (counts[found] >= max(1, known[begin])).all()
    assert (counts[found] <= known[end - 1]).all()


def test_unpopular_by_default():
    counts = np.arange(1, 101)[::-1]
    drawn = set()
    for seed in range(40):
        found = TargetItems(count=5).choose(skewed(counts), stream(seed))
        assert (counts[found] <= 25).all()
        drawn |= set(found.tolist())
    assert drawn == set(range(75, 100)), "and each of the range is drawn at times"


def test_items_that_never_occur_are_not_drawn():
    counts = np.array([0] * 50 + [1] * 8)
    assert TargetItems(count=2).choose(skewed(counts), stream(0)).min() >= 50


def test_explicit_ids(clean):
    found = TargetItems(ids=("i7", "i3", "i7"), count=20).choose(clean, stream(0))
    assert found.tolist() == [3, 7]
    before = stream(0)
    TargetItems(ids=("i7",)).choose(clean, before)
    assert before.random() == stream(0).random(), "nothing is drawn"


# Mistakes


def user_error(data, **fields):
    with pytest.raises(UserError) as error:
        poison(BasicReplacement(**fields), data)
    assert error.value.hint
    return str(error.value)


def test_user_errors(clean):
    group = {"scope": "group", "targets": TargetItems(ids=("i1",))}
    assert "'nope'" in user_error(clean, targets=TargetItems(ids=("i1", "nope")))
    text = user_error(clean, **group, group=UserGroup(attribute="job", value="x"))
    assert "'job'" in text
    assert "age" in text
    text = user_error(clean, **group, group=UserGroup(attribute="age", value="17"))
    assert "'17'" in text
    assert "18-24" in text
    assert "holds 12" in user_error(clean, targets=TargetItems(count=13))
    bare = TrainingData.from_interactions(
        clean.interactions, Users(clean.users.ids), Items.from_lists(clean.items.ids, clean.items.titles)
    )
    assert "category" in user_error(bare, targets=TargetItems(ids=("i1",)))
    assert "no profiles" in user_error(bare, **group, group=UserGroup(attribute="age", value="18-24"))
    assert "Nothing to replace" in user_error(clean, rate=1e-6, targets=TargetItems(ids=("i1",)))


def test_one_target_without_a_category_is_enough_for_an_error():
    items = Items.from_lists("abc", None, [["x"], [], ["x"]])
    data = TrainingData.from_interactions(Interactions.from_lists([[0, 1, 2]]), Users(("u",)), items)
    assert "category" in user_error(data, targets=TargetItems(ids=("a", "b")))


@pytest.mark.parametrize(
    "fields",
    [
        {"scope": "group"},
        {"scope": "global", "group": {"attribute": "age", "value": "x"}},
        {"rate": 0},
        {"rate": 1.01},
        {"rate": float("nan")},
        {"scope": "all"},
        {"targets": {"count": 0}},
        {"targets": {"popularity": (0.5, 0.5)}},
        {"targets": {"popularity": (0.0, 1.2)}},
        {"targets": {"id": ("a",)}},
    ],
)
def test_wrong_fields_are_refused(fields):
    with pytest.raises(ValidationError):
        BasicReplacement(**fields)


def test_the_plan_depends_on_parameters(clean):
    specs = [BasicReplacement(targets=TargetItems(count=count), rate=rate) for count in (2, 3) for rate in (0.4, 0.5)]
    assert len({poison(spec, clean).hash_plan() for spec in specs}) == 4


# Does it work?


def exposure(model, served, poisoned, group):
    history = served.test().history
    seen = mask_seen(history.user_of_event(), history.item, poisoned.targets, history.users)
    table = exposures(model.rank_items(history, poisoned.targets), seen, group, ks=(10,))
    return {cell.group: table[cell] for cell in table if cell.metric == "hr"}


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["group", "global"])
def test_it_moves_exposure(scope):
    """At nearly the same accuracy, the targets reach the users aimed at far more often than before."""
    source = Synthetic(users=240, items=160, events_per_user=10, categories=16, noise=0.1)
    parts = Split(cold_fraction=0.2).apply(source.load(), 0)
    side, training = parts.pretrain, parts.pretrain.training()
    spec = SASRec(
        hidden=32, max_length=8, epochs=8, batch_size=32, learning_rate=8e-3, dropout=0.1, precision="float32"
    )
    if scope == "group":
        # Targets of a category that this age bracket never meets.
        group = UserGroup(attribute="age", value="18-24")
        targets = TargetItems(ids=tuple(source_id(n) for n in source.find_preferred(1)[:4].tolist()))
        attack = BasicReplacement(scope="group", group=group, rate=0.5, targets=targets)
    else:
        attack = BasicReplacement(rate=0.5, targets=TargetItems(count=10, popularity=(0, 0.3)))
    poisoned = attack.poison(training, stream(0, "attack"))
    clean, attacked = (spec.fit(data, side.validation(), 0) for data in (training, poisoned.data))
    aimed = attack.find_target_users(side.training())
    before, after = (exposure(model, side, poisoned, aimed) for model in (clean, attacked))
    floor = 1 / before["target"].n
    factor = after["target"].value / max(before["target"].value, floor)
    assert factor > (10 if scope == "group" else 2), factor
    if scope == "group":
        assert after["target"].value > 0.5
        assert after["target"].value > 2 * after["other"].value
    hits = [float((model.rank_targets(side.test()) <= 10).mean()) for model in (clean, attacked)]
    assert hits[1] > hits[0] - 0.15


def source_id(number):
    return f"i{number}"
