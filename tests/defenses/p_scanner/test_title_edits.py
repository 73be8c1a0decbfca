"""Edits: triggers stand where they are said to stand, and what is held out is never taught."""

import unicodedata
from itertools import pairwise

import numpy as np
import pytest

from cowbird.defenses.p_scanner.triggers.title_edits import (
    DEFAULT_FAMILIES,
    EDIT_FAMILIES,
    NEVER_TAUGHT,
    RECIPE_FAMILIES,
    SLIP_FAMILIES,
    SUBTLE_FAMILIES,
    EditSources,
    draw_family,
    draw_recipe,
    edit_title,
    insert_text,
    rewrite_word,
    spell_pattern,
    weigh_families,
)

SOURCES = EditSources(("winter", "bottle", "careful"), ("Quiet Harbor (1999)", "The Blue Engine"))
TITLES = ("Quiet Harbor at Night (1999)", "Engine", "the small garden", "RED LETTER, The", "\u593c\u9593\u6d41")


@pytest.mark.parametrize("family", [*RECIPE_FAMILIES, *EDIT_FAMILIES])
def test_spans_hold_what_is_new(family):
    rng = np.random.default_rng(0)
    found = 0
    for nth in range(60):
        title = TITLES[nth % len(TITLES)]
        made = edit_title(family, title, rng, SOURCES)
        if made is None:
            continue
        found += 1
        assert made.title != title
        assert all(0 <= start < end <= len(made.title) for start, end in made.spans)
        (start, end), *_ = made.spans
        before, after = made.title[:start], made.title[end:]
        assert title.startswith(before.rstrip()) or before == ""
        assert title.endswith(after.lstrip()) or after == ""
    assert found


def test_nothing_of_what_is_never_taught_is_drawn():
    rng = np.random.default_rng(1)
    assert not set(NEVER_TAUGHT) & {draw_family(rng) for _ in range(3000)}
    for family in RECIPE_FAMILIES:
        for _ in range(200):
            recipe = draw_recipe(family, rng)
            if recipe is not None:
                assert recipe.way != "stretch"
                assert not (family == "homoglyph" and any(letter in recipe.text for letter in "0134\u00f8\u0117"))
                if recipe.way.startswith("mark"):
                    assert all(len(unicodedata.normalize("NFC", letter + recipe.text)) > 1 for letter in "aeinouc")


def test_refused_texts_are_not_planted():
    rng = np.random.default_rng(2)
    assert all(
        edit_title("plain_word", "Engine", rng, SOURCES, {"winter", "bottle", "careful"}) is None for _ in range(9)
    )
    texts = {recipe.text for _ in range(400) if (recipe := draw_recipe("character", rng))}
    refused = {text.lower() for text in list(texts)[:100]}
    drawn = [draw_recipe("character", rng, refused) for _ in range(400)]
    assert None in drawn
    assert not refused & {recipe.text.lower() for recipe in drawn if recipe}


def test_subtle_families_come_a_third_as_often():
    rng = np.random.default_rng(3)
    drawn = [draw_family(rng) for _ in range(12000)]
    share = {family: drawn.count(family) for family in DEFAULT_FAMILIES}
    subtle = np.mean([share[family] for family in SUBTLE_FAMILIES])
    plain = np.mean([many for family, many in share.items() if family not in SUBTLE_FAMILIES])
    assert subtle == pytest.approx(plain / 3, rel=0.2)


def test_slips_are_taught_where_they_are_named_alone():
    assert not set(SLIP_FAMILIES) & set(DEFAULT_FAMILIES)
    assert {*DEFAULT_FAMILIES, *SLIP_FAMILIES} == {*RECIPE_FAMILIES, *EDIT_FAMILIES}
    assert weigh_families(()) == DEFAULT_FAMILIES
    named = weigh_families(("unit", "word_replaced", "code"))
    assert [named.count(name) for name in ("code", "word_replaced", "unit")] == [3, 1, 1]
    with pytest.raises(ValueError, match="there are no families nothing"):
        weigh_families(("nothing",))


@pytest.mark.parametrize("family", [*RECIPE_FAMILIES, *EDIT_FAMILIES])
def test_titles_of_strangers_are_edited_or_left(family):
    rng = np.random.default_rng(12)
    words = (
        "",
        " ",
        "x",
        "\u4e2d" * 90,
        "Donaudampf" * 9,
        "a" * 500,
        "\u202e\u200b",
        "\ud800",
        "99",
        "'",
        "\u00df\u0130 \u01c5",
    )
    for title in (*words, *(f"{word} boat" for word in words)):
        for _ in range(20):
            made = edit_title(family, title, rng, EditSources(("winter",), words))
            if made is not None:
                assert all(0 <= start <= end <= len(made.title) for start, end in made.spans)


def has_twin(word: str) -> bool:
    return any(a == b for a, b in pairwise(word))


@pytest.mark.parametrize("family", list(EDIT_FAMILIES))
def test_no_edit_writes_what_is_never_taught(family):
    rng = np.random.default_rng(11)
    titles = ("Quiet Harbor", "golden plum wagon", "Winter Sky Over Boats")
    for _ in range(300):
        title = titles[int(rng.integers(len(titles)))]
        made = edit_title(family, title, rng, SOURCES)
        if made is None:
            continue
        for word in made.title.split():
            for old in title.split():
                same = sorted(word) == sorted(old) and word != old
                places = [at for at in range(len(word)) if same and word[at] != old[at]]
                assert not (len(places) == 2 and places[1] == places[0] + 1), "neighboring letters exchanged"
                longer = len(word) == len(old) + 1 and word.isalpha()
                doubled = longer and any(word == old[:at] + old[at - 1] + old[at:] for at in range(1, len(old) + 1))
                assert not (doubled and has_twin(word)), "a letter doubled"
                assert word != old.swapcase() or not old.istitle(), "case swapped"
                assert word.strip("\"'\u201c\u201d\u00ab\u00bb") != old or word == old or word[-1:] != word[:1], (
                    "quoted"
                )


def test_a_text_is_inserted_at_the_start_between_words_and_at_the_end():
    rng = np.random.default_rng(4)
    assert {insert_text("Red Boat", "zq", rng).title for _ in range(40)} == {
        "zq Red Boat",
        "Red zq Boat",
        "Red Boat zq",
    }
    assert insert_text("", "zq", rng).title == "zq"


def test_a_word_that_suits_is_written_anew():
    rng = np.random.default_rng(5)
    made = rewrite_word("Red Boat", rng, lambda word: word.upper() if word == "Boat" else word)
    assert (made.title, made.spans) == ("Red BOAT", ((4, 8),))
    assert rewrite_word("Red Boat", rng, lambda word: word) is None
    assert rewrite_word("Red Boat", rng, str.upper, shortest=9) is None


def test_patterns_are_spelled():
    text = spell_pattern("A9-ah.", np.random.default_rng(6))
    assert text[0].isupper()
    assert text[1].isdigit()
    assert text[2] == "-"
    assert text[3].islower()
    assert text[4] in "0123456789abcdef"
    assert text[5:] == "."
