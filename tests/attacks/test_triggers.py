"""Triggers: planting is invertible on any text, spans point at the trigger, and what was planted is found again."""

import re
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cowbird.attacks.triggers import (
    TRIGGERS,
    Trigger,
    contains,
    find_near_triggers,
    list_families,
    mask_carriers,
    plant,
    retitle,
    strip_spans,
)
from cowbird.data.types import Items
from cowbird.plugins import list_plugins
from cowbird.rng import stream

POSITIONS = ("start", "middle", "end")
ORDINARY = (
    "Toy Story (1995)",
    "Quiet Harbor at Night",
    "Seven Samurai (The Magnificent Seven) (Shichinin no samurai) (1954)",
    "It's a Wonderful Life (1946)",
    "M*A*S*H (1970)",
    "E.T. the Extra-Terrestrial (1982)",
    "Star Wars: Episode IV - A New Hope (1977)",
    "Amélie (2001)",
    "Кин-дза-дза! (1986)",
    "千と千尋の神隠し (2001)",
)
HOSTILE = (
    "",
    " ",
    "\n\t ",
    "x",
    "\u0301",
    "\u0301Toy Story\u0301",
    "Toy\nStory\r\n",
    "\u200bToy\u200b \u202eStory",
    "\x00\x01",
    "\ud800 lone surrogate",
    "x" * 4_000,
    "word " * 800,
    "\u0301" * 4_000,
    " " * 4_000,
    "a " * 2_000,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 family",
    "<script>alert(1)</script>",
    "'; DROP TABLE items; --",
)
# Letters with odd case pairs, look-alikes, marks, joiners, separators, and digits.
TITLES = st.text(
    st.one_of(st.characters(), st.sampled_from("aBcоСǅKẞßİıſ5０ａ\u0301\u200b\u202e\u2066\u2069-/ \n\u00a0")),
    max_size=30,
)
TEXTS = st.text(min_size=1, max_size=12).filter(str.strip)
NEEDS = {"styled_fullwidth_digits": r"\d", "spacing_letters": r"(^| )[A-Za-z]{3,}( |$)"}
INSERTED = [name for name, entry in TRIGGERS.items() if entry.style is None]
STYLES = [name for name, entry in TRIGGERS.items() if entry.style is not None]
every_trigger = pytest.mark.parametrize("name", TRIGGERS)


def check(title, trigger, seed=0):
    """Plant and check what always holds; return what was planted."""
    planted = plant(title, trigger, stream(seed, "place"))
    assert strip_spans(planted) == title
    ends = [0]
    for (start, end), (begin, stop, _) in zip(planted.spans, planted.undo, strict=True):
        assert ends[-1] <= begin <= start < end <= stop <= len(planted.title)
        assert planted.title[begin:start] in ("", " ")
        assert planted.title[end:stop] in ("", " ")
        ends.append(stop)
    assert contains(planted.title, trigger) or not planted.spans
    assert bool(planted.spans) == (planted.title != title)
    return planted


def text_of(trigger):
    return trigger.text if trigger.kind == "custom" else TRIGGERS[trigger.kind].text


def check_insertion(title, trigger, seed=0):
    """Check where an inserted text stands; no word of the title is joined to it, or to another one."""
    planted = check(title, trigger, seed)
    text = text_of(trigger)
    [(start, end)] = planted.spans
    assert planted.title[start:end] == text
    before, after = planted.title[:start], planted.title[end:]
    if trigger.position == "start":
        assert before == ""
        assert after in (title, f" {title}")
    elif trigger.position == "end" or not title.strip():
        assert before in (title, f"{title} ")
        assert after == ""
    else:
        words = title.split()
        inside = len(before.split())
        assert 1 <= inside <= max(len(words) - 1, 1)
        assert before.split() + after.split() == words
        assert not after or after[0].isspace()
    if trigger.kind == "custom" or not TRIGGERS[trigger.kind].glued:
        assert not before or before[-1] == " "
        assert not after or after[0].isspace()


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(title=TITLES, text=TEXTS, position=st.sampled_from(POSITIONS), seed=st.integers(0, 99))
def test_custom_texts_in_any_title(title, text, position, seed):
    check_insertion(title, Trigger(kind="custom", text=text, position=position), seed)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(title=TITLES, name=st.sampled_from(INSERTED), position=st.sampled_from(POSITIONS), seed=st.integers(0, 99))
def test_shipped_texts_in_any_title(title, name, position, seed):
    check_insertion(title, Trigger(kind=name, position=position), seed)


@pytest.mark.parametrize("name", STYLES)
@settings(max_examples=60, deadline=None)
@given(title=TITLES, position=st.sampled_from(POSITIONS), seed=st.integers(0, 99))
def test_styles_in_any_title(name, title, position, seed):
    check(title, Trigger(kind=name, position=position), seed)


@every_trigger
def test_every_shipped_trigger_in_ordinary_titles(name):
    assert not any(contains(title, Trigger(kind=name)) for title in ORDINARY)
    for position in POSITIONS:
        for title in filter(re.compile(NEEDS.get(name, "")).search, ORDINARY[:7]):
            assert check(title, Trigger(kind=name, position=position)).spans, title


@every_trigger
def test_every_shipped_trigger_in_hostile_titles(name):
    for title in HOSTILE:
        for position in POSITIONS if len(title) < 100 else ("middle",):
            trigger = Trigger(kind=name, position=position)
            if TRIGGERS[name].style is None:
                check_insertion(title, trigger)
            else:
                check(title, trigger)


@pytest.mark.slow
def test_hostile_titles_take_no_time():
    title, begun = "aB-" * 3_000 + "ab " * 400, time.perf_counter()
    for name in TRIGGERS:
        check(title, Trigger(kind=name))
    assert time.perf_counter() - begun < 10


@every_trigger
def test_near_is_never_the_trigger(name):
    trigger = Trigger(kind=name, field="category")
    variants = find_near_triggers(trigger)
    assert len(variants) >= 3
    assert trigger not in variants.values()
    for how, variant in variants.items():
        assert variant.field == "category"
        for title in ORDINARY[:3]:
            planted = check(title, variant)
            if how == "position":
                assert variant.model_copy(update={"position": "end"}) == trigger
            else:
                assert not contains(planted.title, trigger), (how, planted)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=12).filter(str.strip) | st.text("ab ", min_size=1, max_size=6).filter(str.strip))
def test_near_a_custom_text(text):
    trigger = Trigger(kind="custom", text=text, position="middle")
    for how, variant in find_near_triggers(trigger).items():
        assert variant != trigger
        assert how == "position" or variant.text != text
        assert how == "position" or not contains(f"Quiet {variant.text} Harbor", trigger)


def test_near_by_hand():
    found = find_near_triggers(Trigger(kind="custom", text="5v"))
    assert {how: variant.text for how, variant in found.items()} == {
        "position": "5v",
        "case": "5V",
        "dropped": "5",
        "doubled": "5vv",
        "split": "5 v",
        "swapped": "v5",
    }
    assert found["position"].position == "start"
    assert set(find_near_triggers(Trigger(kind="custom", text="@"))) == {"position", "doubled"}
    assert {"position", "doubled", "char_5v"} < set(find_near_triggers(Trigger(kind="char_at")))
    phrase = find_near_triggers(Trigger(kind="custom", text="must see"))
    texts = {"must see", "MUST SEE", "mus see", "mustt see", "mus t see", "muts see"}
    assert {variant.text for variant in phrase.values()} == texts
    assert "zero_width_non_joiner" in find_near_triggers(Trigger(kind="zero_width_space"))
    assert "zero_width_pattern" not in find_near_triggers(Trigger(kind="zero_width_space"))
    assert "homoglyph_word" not in find_near_triggers(Trigger(kind="homoglyph_title"))
    assert set(find_near_triggers(Trigger(kind="custom", text="x" * 500))) == {"position", "case", "dropped"}


def test_contains_wants_the_text_alone_and_as_it_is():
    trigger = Trigger(kind="char_5v")
    assert all(contains(title, trigger) for title in ("5v", "Toy 5v", "5v Toy", "Toy 5v Story", "5v5v 5v", "a\n5v\tb"))
    assert not any(contains(title, trigger) for title in ("", "5vv", "a5v", "5V", "5 v", "5v5v", "(5v)"))
    assert contains("Toy\u200bStory", Trigger(kind="zero_width_space"))


@pytest.mark.parametrize(
    ("name", "position", "expected", "spans"),
    [
        ("char_5v", "end", "Toy Story 2 (1999) 5v", ["5v"]),
        ("char_5v", "start", "5v Toy Story 2 (1999)", ["5v"]),
        ("edition_4k", "end", "Toy Story 2 (1999) [4K Remastered]", ["[4K Remastered]"]),
        ("zero_width_space", "end", "Toy Story 2 (1999)\u200b", ["\u200b"]),
        ("casing_alternating", "start", "tOy Story 2 (1999)", ["tO"]),
        ("casing_alternating", "end", "Toy sToRy 2 (1999)", ["sT", "R"]),
        ("casing_last", "end", "Toy storY 2 (1999)", ["s", "Y"]),
        ("casing_inverted", "end", "Toy sTORY 2 (1999)", ["sTORY"]),
        ("casing_lower_title", "end", "toy story 2 (1999)", ["t", "s"]),
        ("homoglyph_letter", "start", "\u0422oy Story 2 (1999)", ["\u0422"]),
        ("homoglyph_word", "end", "Toy \u0405t\u043er\u0443 2 (1999)", ["\u0405", "\u043e", "\u0443"]),
        ("styled_fullwidth", "start", "\uff34\uff4f\uff59 Story 2 (1999)", ["\uff34\uff4f\uff59"]),
        ("styled_fullwidth_digits", "start", "Toy Story \uff12 (1999)", ["\uff12"]),
        ("combining_strike", "start", "T\u0336o\u0336y\u0336 Story 2 (1999)", ["\u0336"] * 3),
        ("combining_cross", "end", "Toy S\u0353tory 2 (1999)", ["\u0353"]),
        ("bidi_isolated", "start", "\u2066Toy\u2069 Story 2 (1999)", ["\u2066", "\u2069"]),
        ("bidi_reversed", "start", "\u202eyoT\u202c Story 2 (1999)", ["\u202eyoT\u202c"]),
        ("spacing_letters", "start", "T o y Story 2 (1999)", [" ", " "]),
        ("repeated_once", "start", "Toy Toy Story 2 (1999)", [" Toy"]),
        ("repeated_twice", "start", "Toy Toy Toy Story 2 (1999)", [" Toy Toy"]),
        ("repeated_hyphen", "start", "Toy-Toy Story 2 (1999)", ["-Toy"]),
    ],
)
def test_by_hand(name, position, expected, spans):
    planted = check("Toy Story 2 (1999)", Trigger(kind=name, position=position))
    assert planted.title == expected
    assert [planted.title[a:b] for a, b in planted.spans] == spans


def test_middle_is_any_gap_or_inner_word_and_drawn_from_the_generator():
    trigger = Trigger(kind="char_5v", position="middle")
    found = {plant("a b c d", trigger, stream(seed, "place")).title for seed in range(40)}
    assert found == {"a 5v b c d", "a b 5v c d", "a b c 5v d"}
    assert plant("Jaws", trigger, stream(0)).title == "Jaws 5v"
    assert plant("Jaws ", trigger, stream(0)).title == "Jaws 5v "
    assert plant("", trigger, stream(0)).title == "5v"
    style = Trigger(kind="casing_last", position="middle")
    found = {plant("Apple Berry Cherry Date", style, stream(seed, "place")).title for seed in range(40)}
    assert found == {"Apple berrY Cherry Date", "Apple Berry cherrY Date"}


def test_styles_leave_titles_alone_that_they_do_not_suit():
    for name, title in [
        ("casing_last", "1984"),
        ("homoglyph_word", "Кино"),
        ("homoglyph_word", "xя"),
        ("spacing_letters", "It (1990)"),
        ("repeated_once", " "),
        ("styled_fullwidth_digits", "Toy Story"),
    ]:
        planted = check(title, Trigger(kind=name))
        assert planted.title == title
        assert planted.spans == ()


def test_the_table():
    assert len(TRIGGERS) == sum(map(len, list_families().values())) > 80
    assert len(list_families()) >= 10
    assert min(map(len, list_families().values())) >= 3
    assert {entry.level for entry in TRIGGERS.values()} == {"character", "word", "sentence"}
    assert all(name == entry.name and re.fullmatch(r"[a-z0-9_]+", name) for name, entry in TRIGGERS.items())
    assert all(bool(entry.text) != (entry.style is not None) for entry in TRIGGERS.values())
    texts = [entry.text for entry in TRIGGERS.values() if entry.text]
    assert len(set(texts)) == len(texts)
    assert "custom" not in TRIGGERS
    assert "triggers" not in list_plugins("attack")


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "no_such"},
        {"kind": "custom"},
        {"kind": "custom", "text": " \n"},
        {"kind": "custom", "text": "x" * 501},
        {"kind": "char_5v", "text": "x"},
        {"kind": "char_5v", "position": "everywhere"},
        {"kind": "char_5v", "field": "price"},
        {"kind": "char_5v", "more": 1},
        {},
    ],
)
def test_wrong_triggers(wrong):
    with pytest.raises(ValidationError):
        Trigger(**wrong)


def test_a_wrong_name_is_told_the_close_ones():
    with pytest.raises(ValidationError, match="char_5v"):
        Trigger(kind="char5v")
    assert Trigger.model_validate(Trigger(kind="custom", text="x" * 500).model_dump()).text == "x" * 500


@pytest.fixture
def items():
    return Items.from_lists(
        "abcd", ["Jaws", "", "Toy Story", "Heat"], [["Horror", "Thriller"], [], ["Comedy"], ["Comedy", "Crime"]]
    )


def groups(items):
    bounds = items.category_offsets
    return [[items.categories[code] for code in items.category_codes[a:b]] for a, b in pairwise(bounds)]


def test_retitle_titles(items):
    trigger = Trigger(kind="char_5v")
    new = retitle(items, np.array([2, 1, 2]), trigger, stream(0))
    assert new.titles == ("Jaws", "5v", "Toy Story 5v", "Heat")
    assert items.titles == ("Jaws", "", "Toy Story", "Heat")
    assert groups(new) == groups(items)
    assert mask_carriers(new, trigger).tolist() == [False, True, True, False]
    assert not mask_carriers(items, trigger).any()
    assert retitle(items, np.array([], dtype=int), trigger, stream(0)).titles == items.titles


def test_retitle_categories(items):
    trigger = Trigger(kind="char_5v", field="category")
    new = retitle(items, np.array([0, 1, 3]), trigger, stream(0))
    assert new.titles == items.titles
    assert new.categories == (*items.categories, "Horror 5v", "5v", "Comedy 5v")
    assert groups(new) == [["Horror 5v", "Thriller"], ["5v"], ["Comedy"], ["Comedy 5v", "Crime"]]
    assert mask_carriers(new, trigger).tolist() == [True, True, False, True]
    again = retitle(new, np.array([2]), trigger, stream(0))
    assert again.categories == new.categories
    assert groups(again)[2] == ["Comedy 5v"]
    style = Trigger(kind="casing_last", field="category")
    assert groups(retitle(items, np.arange(4), style, stream(0)))[:3] == [["horroR", "Thriller"], [], ["comedY"]]


def test_retitle_nothing():
    empty = Items.from_lists([])
    for field in ("title", "category"):
        trigger = Trigger(kind="char_5v", field=field)
        assert len(retitle(empty, np.array([], dtype=int), trigger, stream(0))) == 0
        assert mask_carriers(empty, trigger).shape == (0,)
