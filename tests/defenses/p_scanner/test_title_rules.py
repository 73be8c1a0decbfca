"""Rules, shapes and kinds: what a title's characters say, for honest and hostile ones."""

import random
import string

import pytest

from cowbird.defenses.p_scanner.title_rules import (
    HARD_RULES,
    RULES,
    WORD_KINDS,
    _describe_any,
    _describe_plain,
    classify_text,
    count_word,
    write_shape,
)
from cowbird.defenses.p_scanner.title_words import apply_rules, split_titles


def rules_of(title):
    return {name for name, met in zip(RULES, apply_rules(split_titles([title]))[0], strict=True) if met}


@pytest.mark.parametrize(
    ("title", "rule"),
    [
        ("He\u200bat", "hidden character"),
        ("Heat\u3164", "hidden character"),
        ("Heat\U000e0041", "hidden character"),
        ("\u202eHeat", "direction control"),
        ("𝐇eat", "styled letters"),
        ("Ｈeat", "styled letters"),
        ("He\u0336at", "combining mark"),
        ("Heat 🔥", "emoji"),
        ("Heat ™", "symbol"),
        ("Heat ∑", "symbol"),
        ("Heat  Two", "odd space"),
        ("Heat\u00a0Two", "odd space"),
        ("Heat at www.shop.com", "address"),
        ("Heat <b>now</b>", "markup"),
        ("Heat heat", "word repeated"),
        ("The HEAT", "word in capitals"),
        ("Heat tonight", "word in small letters"),
        ("Hе\u0430t", "mixed alphabets"),
        ("hEAT", "capital inside a word"),
        ("HeaT", "camel case"),
        ("hEaTeR", "alternating case"),
        ("h3at", "digit inside a word"),
        ("Heat 5v", "letters and digits"),
        ("Heat. Two", "mark behind a word"),
        ("Heeeat", "character tripled"),
        ("He@at", "mark inside a word"),
        ("“Heat”", "word in quotes"),
        ("Heat ||", "marks alone"),
        ("Héat", "accented letter"),
        ("Heat!", "mark at the end"),
        ("(Heat", "mark at the start"),
        ("He\x07at", "control character"),
    ],
)
def test_a_rule_is_met(title, rule):
    assert rule in rules_of(title)


@pytest.mark.parametrize("title", ["Heat", "Toy Story 2", "Die Hard", "世界の中心", "東京ドリフト", "", "   ".strip()])
def test_honest_titles_meet_no_hard_rule(title):
    assert not rules_of(title) & set(HARD_RULES)


@pytest.mark.parametrize("text", ["\ud800", "\x00" * 50, "a" * 100_000, "\U0010ffff", "\u202e" * 9, "\n\t"])
def test_hostile_text_has_rules_a_shape_and_a_kind(text):
    assert apply_rules(split_titles([text])).shape == (1, len(RULES))
    assert 0 <= classify_text(text) < len(WORD_KINDS)
    assert len(write_shape(text)) <= 40


def test_shapes_and_kinds_and_counted_words():
    assert write_shape("Top10.") == "Aa9."
    assert write_shape("ÄÖü") == "Ää"
    assert [
        WORD_KINDS[classify_text(text)] for text in ("", "5v", "42", "--", "don't", "heat", "HEAT", "A", "Heat")
    ] == [
        "none",
        "letters and digits",
        "digits",
        "marks",
        "letters and marks",
        "small letters",
        "capitals",
        "one capital",
        "capitalized",
    ]
    assert count_word("(Heat),") == "heat"


def test_plain_words_are_described_as_all_others():
    draw, compared = random.Random(1), 0
    for _ in range(4000):
        letters = draw.choice([string.ascii_lowercase, string.digits, "ab", "7", string.ascii_letters, "A"])
        word = "".join(draw.choices(letters, k=draw.choice([1, 2, 3, 5, 45])))
        word = word.capitalize() if draw.random() < 0.3 else word
        found = _describe_plain(word)
        if found is not None:
            compared += 1
            assert found == _describe_any(word)
    assert compared > 2000
