"""Shapes of titles as arrays equal those that a walk through every title finds, and there is a bound on how many."""

import numpy as np
from ready_doubles import make_titles
from walked_titles import walk_rules

from cowbird.defenses.p_scanner.fragment_index import HEAD_WORDS, TAIL_WORDS
from cowbird.defenses.p_scanner.title_rules import RULES, write_shape
from cowbird.defenses.p_scanner.title_words import apply_rules, split_titles
from cowbird.defenses.p_scanner.word_shapes import (
    ANY_WORD,
    FIRST_WORD,
    LAST_WORD,
    RULE_MET,
    TITLE_END,
    list_shapes,
    name_shape,
    size_word,
)

TITLES = [
    "The Winter Song x7",
    "x7 The Winter Song",
    'the "Winter" Song.',
    "Σ 東京 Ünder  Über 9",
    "wiNtEr wiNtEr",
    "",
    " ",
    "A",
    "soooo good!",
    " ".join(f"w{nth}" for nth in range(HEAD_WORDS)) + " Left-Out" + " w" * TAIL_WORDS,
    "a\u200bb c",
]


def walk_shapes(title):
    """Return the shapes of a title."""
    words = title.split()
    counted = words if len(words) <= HEAD_WORDS + TAIL_WORDS else [*words[:HEAD_WORDS], *words[-TAIL_WORDS:]]
    found = {name_shape(ANY_WORD, size_word(word)) for word in counted}
    if words:
        found |= {name_shape(FIRST_WORD, size_word(words[0])), name_shape(LAST_WORD, size_word(words[-1]))}
    if title:
        found.add(name_shape(TITLE_END, write_shape(title[-1])))
    return found | {name_shape(RULE_MET, name) for name, met in zip(RULES, walk_rules(title), strict=True) if met}


def list_names(titles, **options):
    cut = split_titles(titles)
    sets = list_shapes(cut, apply_rules(cut), **options)
    return [
        {sets.names[number] for number in sets.number[first:after].tolist()}
        for first, after in zip(sets.offsets[:-1].tolist(), sets.offsets[1:].tolist(), strict=True)
    ]


def test_shapes_are_those_that_a_walk_finds():
    titles = [*TITLES, *make_titles(50)]
    assert list_names(titles) == [walk_shapes(title) for title in titles]
    assert name_shape(LAST_WORD, "2 a9") in walk_shapes(TITLES[0])
    assert name_shape(ANY_WORD, "5 A-A") not in walk_shapes(TITLES[9])  # between beginning and end of a long title


def test_no_titles_have_no_shapes():
    assert list_names([]) == []


def test_of_too_many_shapes_the_most_frequent_are_listed():
    titles = ["Winter Song"] * 5 + ["a1" * nth for nth in range(1, 9)]
    words = [{name for name in found if name.startswith(ANY_WORD)} for found in list_names(titles, most=2)]
    assert words[:5] == [{name_shape(ANY_WORD, "5 Aa"), name_shape(ANY_WORD, "4 Aa")}] * 5
    assert not any(words[5:])  # all that stand as seldom are left out
    assert all({name for name in found if name.startswith(RULE_MET)} for found in list_names(titles, most=2)[5:])


def test_long_shapes_count_as_their_beginning():
    long, longer = "a1" * 20, "a1" * 19 + "--"
    assert size_word(long) == size_word(longer)
    assert np.diff(list_shapes(split_titles([long]), np.zeros((1, len(RULES)), dtype=bool)).offsets).tolist() == [4]
