"""What follows from suspicion: which titles are flagged, and what becomes of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cowbird.data.types import Interactions, Items, TrainingData, Users
from cowbird.defenses._reading import map_to_raw
from cowbird.defenses.titles import Suspicion, TitleDefense, strip_span
from cowbird.metrics.detection import threshold_at_fpr
from cowbird.text import quote_for_prompt

TITLES = ("Red Harbor", "Blue Garden xq", "xq", "Night", "", "Xq Mirror")


class Finds(TitleDefense):
    """Suspects titles with `xq`, the more the shorter they are."""

    def suspect(self, titles):
        at = np.array([title.find("xq") for title in titles])
        score = np.where(at < 0, -np.inf, [-len(title) for title in titles])
        return Suspicion(score, at, np.where(at < 0, -1, at + 2))


class Guesses(Finds):
    """Knows no spans."""

    def suspect(self, titles):
        none = np.full(len(titles), -1)
        return Suspicion(super().suspect(titles).score, none, none)


def training(label=None, negative=None, rich=True):
    events = Interactions(
        np.array([0, 1, 3, 2, 1, 2, 0, 5]),
        np.array([0, 3, 3, 6, 8]),
        np.arange(8) / 2 if rich else None,
        np.arange(8) * 10 if rich else None,
    )
    items = Items.from_lists("abcdef", TITLES, [["x"], ["y"], [], ["x", "y"], [], ["x"]])
    label = events.item if label is None else np.array(label)
    return TrainingData(events, Users(tuple("wxyz")), items, label, None if negative is None else np.array(negative))


def test_dropped_items_leave_all_lessons_and_the_rest_stays_aligned():
    data = training(label=[0, 1, 2, 2, 1, 2, 3, 5], negative=[3, 3, -1, 0, 0, 0, 1, 2])
    cleaned = Finds(share=1).clean(data)
    kept = [0, 6, 7]  # event 2 shows a clean item and is labelled with a flagged one
    assert cleaned.interactions.item.tolist() == [0, 0, 5]
    assert cleaned.interactions.offsets.tolist() == [0, 1, 1, 1, 3]
    assert cleaned.interactions.rating.tolist() == [at / 2 for at in kept]
    assert cleaned.interactions.timestamp.tolist() == [at * 10 for at in kept]
    assert cleaned.label.tolist() == [0, 3, 5]
    assert cleaned.negative.tolist() == [3, -1, -1]
    assert cleaned.items is data.items
    assert cleaned.users is data.users
    assert data.interactions.events == 8


def test_columns_that_are_not_there_stay_away():
    cleaned = Finds(share=1).clean(training(rich=False))
    assert (cleaned.interactions.rating, cleaned.interactions.timestamp, cleaned.negative) == (None, None, None)
    assert cleaned.label.tolist() == cleaned.interactions.item.tolist() == [0, 3, 0, 5]


def test_all_can_go():
    class All(Finds):
        def suspect(self, titles):
            return Suspicion(np.ones(len(titles)), *np.full((2, len(titles)), -1))

    cleaned = All(threshold=0.5).clean(training())
    assert cleaned.interactions.offsets.tolist() == [0] * 5
    assert len(cleaned.items) == 6


def test_strip_mends_titles_and_drops_items_that_can_t_be_mended():
    data = training(negative=[3, 3, -1, 0, 0, 0, 1, 2])
    cleaned = Finds(share=1, action="strip").clean(data)
    assert cleaned.items.titles == ("Red Harbor", "Blue Garden", "xq", "Night", "", "Xq Mirror")
    assert data.items.titles == TITLES
    assert cleaned.items.ids == data.items.ids
    assert cleaned.items.category_codes is data.items.category_codes
    assert cleaned.interactions.item.tolist() == [0, 1, 3, 1, 0, 5], "item 2 is nothing but the span"
    assert cleaned.interactions.timestamp.tolist() == [0, 10, 20, 40, 60, 70]
    assert cleaned.negative.tolist() == [3, 3, -1, 0, 1, -1]
    unknown = Guesses(share=1, action="strip").clean(data)
    assert unknown.items.titles == TITLES
    assert unknown.interactions.item.tolist() == [0, 3, 0, 5]


def test_a_verdict_tells_what_clean_does():
    data, defense = training(), Finds(share=1, action="strip")
    verdict = defense.judge(data.items.titles)
    assert verdict.flagged.tolist() == [False, True, True, False, False, False]
    assert verdict.dropped.tolist() == [False, False, True, False, False, False]
    assert verdict.titles == ("Red Harbor", "Blue Garden", "xq", "Night", "", "Xq Mirror")
    again = defense.decide(data.items.titles, verdict.found)
    for one in (verdict, again):
        applied, cleaned = defense.apply(data, one), defense.clean(data)
        assert applied.items.titles == cleaned.items.titles
        assert applied.interactions.item.tolist() == cleaned.interactions.item.tolist()
    dropping = Finds(share=1).judge(data.items.titles)
    assert (dropping.dropped == dropping.flagged).all()
    assert dropping.titles == TITLES


def test_a_probe_reaches_those_that_ask_and_nobody_else():
    class Asks(Finds):
        asks_victim = True

        def suspect(self, titles, probe=None):
            asked.append(probe)
            return super().suspect(titles)

    asked, data = [], training()
    assert Asks(share=1).clean(data, "probe").interactions.item.tolist() == [0, 3, 0, 5]
    assert asked == ["probe"]
    assert Finds(share=1).clean(data, "probe").interactions.item.tolist() == [0, 3, 0, 5]


def test_nothing_flagged_changes_nothing():
    data = training()
    assert Finds().clean(data) is data, "one of six is more than 1 %"
    assert Finds(threshold=0).clean(data) is data
    none = Items.from_lists([], [])
    empty = TrainingData(Interactions.from_lists([[]]), Users(("u",)), none, np.empty(0, dtype=np.int32))
    assert Finds(share=1).clean(empty) is empty


def test_the_share_is_a_bound():
    scores = np.float32([5, 1, 3, 3, 2, -np.inf])
    assert Finds(share=0.17).flag(scores).tolist() == [True, *[False] * 5]
    assert Finds(share=0.34).flag(scores).sum() == 1, "titles that tie at the threshold are not flagged"
    assert Finds(share=0.5).flag(scores).sum() == 3
    assert Finds(share=1).flag(scores).sum() == 5, "with nothing to judge there is nothing to flag"
    assert Finds(share=0).flag(scores).sum() == 0
    assert Finds(share=1, threshold=3).flag(scores).tolist() == [True, *[False] * 5]
    assert Finds(share=0.29).flag(np.arange(100)).sum() == 29
    assert Finds().flag([]).shape == (0,)


@given(st.lists(st.integers(-5, 5), min_size=1), st.floats(0, 1))
def test_thresholds_are_those_of_the_metrics(scores, share):
    flagged = Finds(share=share).flag(scores)
    assert flagged.tolist() == (np.array(scores) > threshold_at_fpr(scores, share)).tolist()


@pytest.mark.parametrize(
    ("title", "span", "rest"),
    [
        ("Red xq Harbor", (4, 6), "Red Harbor"),
        ("Red  xq  Harbor", (5, 7), "Red Harbor"),
        ("xq Red  Harbor", (0, 2), "Red  Harbor"),
        ("Red\u200b Harbor", (3, 4), "Red Harbor"),
        ("Har\u200bbor", (3, 4), "Harbor"),
        ("Red \u00a0Harbor", (3, 5), "Red Harbor"),
        ("Red\u00a0", (3, 4), "Red"),
        ("xq", (0, 2), ""),
        (" xq\n", (1, 3), ""),
    ],
)
def test_stripping(title, span, rest):
    assert strip_span(title, *span) == rest


def test_suspicion_is_checked():
    found = Suspicion([1, -np.inf], [0, -1], [2, -1])
    assert (found.score.dtype, found.start.dtype, found.end.dtype) == (np.float32, np.int32, np.int32)
    for wrong in (
        ([np.nan], [0], [1]),
        ([1], [0], [0]),
        ([1], [-1], [3]),
        ([1], [0, 0], [1, 1]),
        ([[1]], [[0]], [[1]]),
    ):
        with pytest.raises(ValueError):
            Suspicion(*wrong)
    with pytest.raises(ValidationError):
        Finds(share=1.5)
    with pytest.raises(ValidationError):
        Finds(threshold=float("nan"))
    with pytest.raises(TypeError):
        TitleDefense()


def test_a_defense_that_forgets_titles_is_told():
    class Forgets(Finds):
        def suspect(self, titles):
            return super().suspect(titles[1:])

    with pytest.raises(ValueError, match="5 scores for 6 titles"):
        Forgets().clean(training())


@given(st.text(st.sampled_from(' \t\n\x00\x85\u2028\u00a0\ud800\udfff"a\u200b\U0001f525'), max_size=20))
def test_places_in_raw_titles(title):
    text, places = quote_for_prompt(title), list(map_to_raw(title))
    assert len(places) == len(text)
    assert places == sorted(set(places))
    for shown, at in zip(text, places, strict=True):
        assert shown in (title[at], "'" if title[at] == '"' else "\ufffd" if title[at] > "\ud7ff" else " ")


def test_places_in_a_long_title():
    assert list(map_to_raw("\n" * 20 + "x" * 500)) == list(range(20, 300))
