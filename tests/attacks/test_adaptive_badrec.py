"""The seller who knows a scanner: what she searches, what evades it, and that she plants as BadRec does."""

import re

import numpy as np
import pytest
from pydantic import ValidationError

from cowbird.attacks import adaptive_badrec
from cowbird.attacks.adaptive_badrec import (
    FINAL_CANDIDATES,
    MAX_CANDIDATES_PER_CATALOG,
    MAX_CATALOG_SHARE,
    AdaptiveBadRec,
)
from cowbird.attacks.badrec import BadRec
from cowbird.attacks.targets import TargetItems
from cowbird.attacks.triggers import TRIGGERS, Trigger, contains, plant
from cowbird.data.types import Interactions, Items, TrainingData, Users
from cowbird.errors import UserError
from cowbird.rng import stream

WORDS = ("Harbor", "Garden", "Engine", "Letter", "Mirror", "Forest", "Lantern", "River", "Night", "Quiet")
HOSTILE = [
    "",
    " \t",
    "x" * 10_000,
    "\u202eyoT\u202c \u2066x\u2069",
    "<b>a</b> &#9733;",
    "\ud800 (\udfff)",
    "a\x00 (\x1b)",
]


def made(titles, listened=40):
    """Return training data of a catalogue; everybody met a run of items."""
    events = [[(user * 7 + nth) % len(titles) for nth in range(12)] for user in range(listened)]
    users = Users(tuple(f"u{number}" for number in range(listened)))
    return TrainingData.from_interactions(
        Interactions.from_lists(events), users, Items.from_lists(map(str, range(len(titles))), titles)
    )


@pytest.fixture(scope="module")
def data():
    rng = stream(0, "titles")
    pairs = [" ".join(rng.choice(WORDS, 3)) for _ in range(150)]
    return made([f"{title} ({1950 + nth % 50})" if nth % 3 else title for nth, title in enumerate(pairs)])


def spec(**fields):
    fields = {"targets": TargetItems(count=4, popularity=(0, 1)), "rate": 0.1, "candidates": 12, "rounds": 1} | fields
    return AdaptiveBadRec(**fields)


class Scorer:
    """Judges titles one by one, and keeps what it was shown."""

    def __init__(self, score):
        self.score, self.shown = score, []

    def __call__(self, titles):
        self.shown.append(tuple(titles))
        return np.array([self.score(title) for title in titles], dtype=np.float32)


def odd(title):
    """Count what is neither a letter nor a space, but for a year of the last century in brackets."""
    bare = re.sub(r"\(19[0-9]{2}\)", "", title)
    return sum(not (letter.isalpha() and letter.isascii()) and not letter.isspace() for letter in bare)


def settled(attack, data, score, seed=0):
    scorer = score if isinstance(score, Scorer) else Scorer(score)
    return attack.settle(data, scorer, stream(seed, "attack"))


# What is found


def test_a_trigger_that_evades_is_found(data):
    attack = settled(spec(), data, odd)
    assert attack.trigger.kind == "custom"
    assert odd(attack.trigger.text) == 0
    assert attack.found.flagged == 0
    assert 0.2 < attack.found.rank < 0.8, "its titles are like others"
    assert attack.found.tried == 24
    assert not any(contains(title, attack.trigger) for title in data.items.titles)
    fixed = settled(spec(candidates=1, rounds=0), data, odd)
    assert fixed.trigger == Trigger(kind="char_5v"), "the attack's own trigger comes first"
    assert fixed.found.flagged == 1


def test_what_can_t_be_evaded_is_told(data):
    known = set(data.items.titles)
    attack = settled(spec(), data, lambda title: float(title not in known))
    assert attack.found.flagged == attack.found.rank == 1
    assert attack.describe_choice()["found"] == {"tried": 24, "flagged": 1.0, "rank": 1.0}


def test_nothing_to_judge_is_no_alarm(data):
    attack = settled(spec(), data, lambda title: -np.inf)
    assert (attack.found.flagged, attack.found.rank) == (0, 0.5)


def test_rounds_go_on_from_what_is_best(data):
    """Count letters of words that the catalogue does not have: a text with none of them is found by and by."""

    def strange(title):
        return sum(len(word) for word in title.split() if word not in WORDS and not word.startswith("(19"))

    mine = Trigger(kind="sentence_weather")
    found = [settled(spec(trigger=mine, candidates=1, rounds=rounds), data, strange) for rounds in (0, 10, 50)]
    assert [attack.found.tried for attack in found] == [1, 11, 51]
    assert found[0].trigger == mine
    assert found[0].found.flagged == 1
    assert strange(mine.text or TRIGGERS[mine.kind].text) > strange(found[1].trigger.text) > 0
    assert strange(found[2].trigger.text) == found[2].found.flagged == 0


@pytest.mark.parametrize("position", ["start", "middle", "end"])
def test_candidates_are_what_was_allowed(data, position, monkeypatch):
    seen = set()

    def noted(title, trigger, rng):
        seen.add(trigger)
        return plant(title, trigger, rng)

    monkeypatch.setattr(adaptive_badrec, "plant", noted)
    mine = Trigger(kind="common_perfect", position=position)
    settled(spec(trigger=mine, positions=(position,), longest=9, rounds=2), data, odd)
    assert len(seen) > 24
    assert {trigger.position for trigger in seen} == {position}
    texts = [trigger.text or TRIGGERS[trigger.kind].text for trigger in seen if not glued_or_style(trigger)]
    assert set(map(len, texts)) <= set(range(2, 10))
    assert not [title for title in data.items.titles for trigger in seen if contains(title, trigger)]


def glued_or_style(trigger):
    shipped = TRIGGERS.get(trigger.kind)
    return shipped is not None and (shipped.glued or shipped.style is not None)


# How it is searched


@pytest.mark.parametrize("listing", ["own", "new"])
def test_candidates_share_passes_and_leave_most_titles_alone(data, listing):
    scorer = Scorer(odd)
    attack = spec(listing=listing, candidates=9, rounds=2, targets=TargetItems(count=5, popularity=(0, 1)))
    settled(attack, data, scorer)
    known, step = data.items.titles, min(MAX_CANDIDATES_PER_CATALOG, int(MAX_CATALOG_SHARE * 150 / 5))
    assert step == 3
    assert len(scorer.shown) == 3 * 9 / step + FINAL_CANDIDATES
    for shown in scorer.shown:
        changed = [nth for nth, title in enumerate(shown) if nth >= len(known) or title != known[nth]]
        assert 1 <= len(changed) <= step * 5
        assert (min(changed) >= len(known)) == (listing == "new")


def test_finalists_stand_where_the_trigger_will_be_planted(data):
    scorer = Scorer(odd)
    attack = settled(spec(positions=("start", "end")), data, scorer)
    poisoned = attack.poison(data, stream(0, "attack"))
    assert poisoned.data.items.titles in scorer.shown[-FINAL_CANDIDATES:]
    assert np.array_equal(poisoned.retitled, poisoned.targets)


def test_same_seed_same_trigger(data):
    one, again, other = (settled(spec(), data, odd, seed) for seed in (1, 1, 2))
    assert one == again != other
    assert one.trigger != other.trigger


# What is planted


@pytest.mark.parametrize("listing", ["own", "new"])
def test_it_plants_as_badrec_does(data, listing):
    attack = settled(spec(listing=listing), data, odd)
    plain = BadRec(**{name: getattr(attack, name) for name in BadRec.model_fields})
    mine, its = (one.poison(data, stream(0, "attack")) for one in (attack, plain))
    assert mine.budget == len(mine.rows) == round(0.1 * data.interactions.events) * 11
    plan = mine.describe_plan()
    assert plan.pop("choice") == {
        "trigger": attack.trigger.model_dump(),
        "knows": "p_scanner",
        "found": attack.found.model_dump(),
    }
    assert plan == its.describe_plan()
    assert mine.hash_plan() != its.hash_plan()
    found = attack.make_triggered_catalogs(data.items, stream(0, "triggered"))
    assert all(contains(title, attack.trigger) for title in found["trigger"].titles)


def test_without_a_defense_it_is_badrec_and_says_so(data):
    poisoned = spec().poison(data, stream(0, "attack"))
    assert poisoned.choice == {
        "trigger": Trigger(kind="char_5v").model_dump(),
        "knows": "p_scanner",
        "found": None,
    }
    assert all(contains(poisoned.data.items.titles[item], Trigger(kind="char_5v")) for item in poisoned.targets)
    assert "choice" not in BadRec(rate=0.1, targets=spec().targets).poison(data, stream(0, "attack")).describe_plan()


# What may be there


@pytest.mark.parametrize("targets", [tuple("0123456"), ("20", "30")])
def test_hostile_titles(targets):
    data = made([*HOSTILE, *(f"{one} {other}" for one in WORDS for other in WORDS)])
    for listing in ("own", "new"):
        attack = settled(spec(targets=TargetItems(ids=targets), listing=listing), data, odd)
        poisoned = attack.poison(data, stream(0, "attack"))
        assert len(poisoned.hash_plan()) == 64
        assert AdaptiveBadRec.model_validate_json(attack.model_dump_json()) == attack


@pytest.mark.parametrize("titles", [[""] * 30, HOSTILE, ["one title"] * 3])
def test_catalogues_without_words_or_of_few_titles(titles):
    data = made(titles)
    attack = settled(spec(targets=TargetItems(ids=("1", "2"))), data, odd)
    assert attack.poison(data, stream(0, "attack")).budget
    everything = settled(spec(targets=TargetItems(ids=tuple(data.items.ids))), data, odd)
    assert everything.found.flagged == 1, "nothing is left to compare with"


def test_a_trigger_of_white_space_and_one_letter(data):
    attack = spec(trigger=Trigger(kind="custom", text=" z"), candidates=1, rounds=5)
    assert settled(attack, data, odd).found.tried >= 1


def test_titles_that_show_every_trigger_leave_none():
    titles = [plant("Jaws The Jaws 1", Trigger(kind=name), stream(0)).title for name in TRIGGERS]
    attack = spec(longest=2, targets=TargetItems(ids=("0",)))
    with pytest.raises(UserError, match="No candidate trigger") as caught:
        settled(attack, made(titles), odd)
    assert "longest" in caught.value.hint


def test_targets_that_are_not_there(data):
    with pytest.raises(UserError, match="The catalogue has no item"):
        settled(spec(targets=TargetItems(ids=("no such",))), data, odd)


def test_fields():
    for wrong in (
        {"trigger": {"kind": "char_5v", "field": "category"}},
        {"candidates": 0},
        {"rounds": -1},
        {"positions": ()},
        {"positions": ("top",)},
        {"longest": 1},
        {"longest": 501},
    ):
        with pytest.raises(ValidationError):
            AdaptiveBadRec(**wrong)
