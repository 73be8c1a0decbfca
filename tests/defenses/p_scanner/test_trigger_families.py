"""Triggers that scanners are taught with: what each way writes, where spans are, and what can't be planted."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cowbird.attacks.triggers import TRIGGERS
from cowbird.defenses.p_scanner.triggers.trigger_families import (
    MAX_RECIPE_LENGTH,
    POSITIONS,
    TRIGGER_FAMILIES,
    WORD_EDITS,
    PlantedTitle,
    Recipe,
    plant,
)

TITLES = ("Red Harbor (1995)", "The Engine of Night", " a ", "Up!!!", "x  \ud800 Zo\u00eb \u6771\u4eac", "", " \t")


def rng(seed=0):
    return np.random.default_rng(seed)


def check(title, recipe, planted):
    """Check that what stands outside the span is the title, and inside what was inserted."""
    if planted.start < 0:
        assert planted == PlantedTitle(title, -1, -1)
        assert recipe.way not in ("insert", "glue")
        return
    start, end = planted.start, planted.end
    before, inside, after = planted.title[:start], planted.title[start:end], planted.title[end:]
    assert inside
    if recipe.way in ("insert", "glue"):
        assert inside == recipe.text
        space = " " if recipe.way == "insert" and title.strip() else ""
        options = [before + after]
        if space:
            options = [before.removesuffix(" ") + after] if before else [after.removeprefix(" ")]
            assert not before or before[-1] == " "
            assert before or after[0] == " "
        assert title in options
    else:
        assert title.startswith(before)
        assert title.endswith(after)
        assert len(before) + len(after) <= len(title)
        assert planted.title != title


@pytest.mark.parametrize("family", TRIGGER_FAMILIES)
def test_a_family_plants_one_span_and_repeats_itself(family):
    assert [TRIGGER_FAMILIES[family](rng(seed)) for seed in range(20)] == [
        TRIGGER_FAMILIES[family](rng(seed)) for seed in range(20)
    ]
    recipes = {TRIGGER_FAMILIES[family](rng(seed)) for seed in range(60)}
    assert len(recipes) > 8, "a family is no list"
    assert {recipe.family for recipe in recipes} == {family}
    hit = 0
    for nth, recipe in enumerate(sorted(recipes, key=repr)):
        for title in TITLES:
            for position in POSITIONS:
                planted = plant(title, recipe, position, rng(nth))
                assert planted == plant(title, recipe, position, rng(nth))
                check(title, recipe, planted)
                hit += planted.start >= 0
    assert hit > len(recipes) * 6


@pytest.mark.slow
@given(
    st.text(st.characters(codec=None), max_size=30),
    st.sampled_from(sorted(TRIGGER_FAMILIES)),
    st.integers(0, 999),
    st.sampled_from(POSITIONS),
)
def test_any_title_can_be_planted(title, family, seed, position):
    recipe = TRIGGER_FAMILIES[family](rng(seed))
    check(title, recipe, plant(title, recipe, position, rng(seed)))


def test_families_have_the_names_that_attacks_have():
    assert {entry.family for entry in TRIGGERS.values()} <= TRIGGER_FAMILIES.keys()


@pytest.mark.parametrize(
    ("title", "recipe", "position", "expected"),
    [
        ("Red Harbor", {"text": "zq"}, "start", PlantedTitle("zq Red Harbor", 0, 2)),
        ("Red Harbor", {"text": "zq"}, "middle", PlantedTitle("Red zq Harbor", 4, 6)),
        ("Red Harbor", {"text": "zq"}, "end", PlantedTitle("Red Harbor zq", 11, 13)),
        ("Red", {"text": "zq"}, "middle", PlantedTitle("Red zq", 4, 6)),
        ("", {"text": "zq"}, "end", PlantedTitle("zq", 0, 2)),
        ("  ", {"text": "zq"}, "middle", PlantedTitle("  zq", 2, 4)),
        ("Red Harbor", {"text": "\u200b", "way": "glue"}, "start", PlantedTitle("\u200bRed Harbor", 0, 1)),
        ("Red Harbor", {"text": "\u200b", "way": "glue"}, "middle", PlantedTitle("Red\u200b Harbor", 3, 4)),
        ("Red Harbor", {"text": "  ", "way": "glue"}, "end", PlantedTitle("Red Harbor  ", 10, 12)),
        ("Red Blue Harbor", {"way": "reverse", "text": "<>"}, "start", PlantedTitle("<deR> Blue Harbor", 0, 5)),
        ("Red Blue Harbor", {"way": "reverse", "text": "<>"}, "middle", PlantedTitle("Red <eulB> Harbor", 4, 10)),
        ("Red Blue Harbor", {"way": "reverse", "text": "<>"}, "end", PlantedTitle("Red Blue <robraH>", 9, 17)),
        ("Red 7 Blue", {"way": "mark", "text": "\u0301", "whole": True}, "end", None),
        ("1995 - 7", {"way": "mark", "text": "\u0301"}, "end", PlantedTitle("1995 - 7", -1, -1)),
        ("Red Harbor", {"way": "repeat", "text": " "}, "end", PlantedTitle("Red Harbor Harbor", 10, 17)),
    ],
)
def test_planting(title, recipe, position, expected):
    planted = plant(title, Recipe(**recipe), position, rng())
    if expected is None:
        assert planted.title == "R\u0301e\u0301d\u0301 7 B\u0301l\u0301u\u0301e\u0301"
        assert (planted.start, planted.end) == (1, len(planted.title)), "from the first change to the last"
    else:
        assert planted == expected


def test_the_middle_is_drawn_and_never_an_end():
    found = {plant("a b c d", Recipe(text="zq"), "middle", rng(seed)).start for seed in range(50)}
    assert found == {2, 4, 6}
    written = {plant("ab cd ef gh", Recipe(way="reverse", text="<>"), "middle", rng(s)).start for s in range(50)}
    assert written == {3, 6}


@pytest.mark.parametrize(
    ("way", "text", "word", "expected"),
    [
        ("mark", "\u0336", "R2d", "R\u03362d\u0336"),
        ("mark once", "\u0336", "2Red", "2R\u0336ed"),
        ("mark once", "\u0336", "1995", "1995"),
        ("exchange", "e3d0", "Deeds", "D330s"),
        ("exchange once", "e3d0", "Deeds", "D3eds"),
        ("exchange once", "e3", "Rad", "Rad"),
        ("style", "\uff21", "Az9", "\uff21\uff5a9"),
        ("style", "\U0001d400", "Aaz", "\U0001d400\U0001d41a\U0001d433"),
        ("style", "\u24b6", "Aaz", "\u24b6\u24d0\u24e9"),
        ("case", "*Xx", "harbor", "HaRbOr"),
        ("case", "xX", "Harbor", "hARBOR"),
        ("case", "x", "HARBOR", "harbor"),
        ("case", "X", "of", "of"),
        ("case", "*xX", "d-e-f", "d-E-f"),
        ("space", " ", "Harbor", "H a r b o r"),
        ("space", " ", "at", "at"),
        ("space", " ", "1995", "1995"),
        ("wrap", "<>", "Red", "<Red>"),
        ("reverse", "<>", "Red", "<deR>"),
        ("reverse", "<>", "R", "R"),
        ("repeat", "-", "Red", "Red-Red"),
        ("repeat", "-", "Red!", "Red!"),
        ("repeat twice", ", ", "Red", "Red, Red, Red"),
        ("stretch", "", "Harbor", "Harboooor"),
        ("stretch", "", "Hmm", "Hmm"),
    ],
)
def test_ways_to_write_words(way, text, word, expected):
    assert WORD_EDITS[way](word, text) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"text": ""},
        {"text": "  "},
        {"text": "", "way": "glue"},
        {"text": "x" * (MAX_RECIPE_LENGTH + 1)},
        {"text": "x", "way": "shout"},
        {"text": "abc", "way": "exchange"},
        {"text": "q", "way": "exchange once"},
        {"text": "", "way": "style"},
        {"text": "AB", "way": "style"},
        {"text": "\U0010fff0", "way": "style"},
        {"text": "", "way": "case"},
        {"text": "*", "way": "case"},
        {"text": "", "way": "wrap"},
        {"text": "", "way": "reverse"},
        {"text": "x", "color": "red"},
    ],
)
def test_what_can_not_be_planted_is_refused(fields):
    with pytest.raises(ValidationError):
        Recipe(**fields)


@given(st.sampled_from(sorted(WORD_EDITS)), st.text(max_size=6), st.text(st.characters(codec=None), max_size=12))
def test_a_recipe_that_was_accepted_never_fails_to_be_planted(way, text, title):
    try:
        recipe = Recipe(way=way, text=text)
    except ValidationError:
        return
    check(title, recipe, plant(title, recipe, "start", rng()))


def test_spans_of_whole_titles_go_from_the_first_change_to_the_last():
    title = "Red Harbor of Night"
    for one, other in pairwise((False, True)):
        few, many = (plant(title, Recipe(way="case", text="X", whole=whole), "start", rng()) for whole in (one, other))
        assert few == PlantedTitle("RED Harbor of Night", 1, 3)
        assert many == PlantedTitle("RED HARBOR of NIGHT", 1, 19)
