"""Words that are written unlike known ones, and what titles with such words come to."""

import numpy as np
import pytest

from cowbird.defenses.p_scanner.small_tagger import place_pieces
from cowbird.defenses.p_scanner.spelling import (
    MAX_LETTERS,
    MIN_TITLES_KNOWN,
    SPELLINGS,
    CatalogSpelling,
    find_plain_spelling,
    list_plain_words,
    shorten_words,
)
from cowbird.defenses.p_scanner.title_evidence import TITLE_FEATURES, CatalogProfile, describe_titles
from cowbird.defenses.p_scanner.title_spelling import find_spellings
from cowbird.defenses.p_scanner.title_traits import describe_traits, mark_words
from cowbird.defenses.p_scanner.token_logits import TokenLogits


def name(place):
    return SPELLINGS[place] if place >= 0 else ""


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("cofee", "letter dropped"),
        ("cofffee", "letter doubled"),
        ("coxffee", "letter added"),
        ("cofefe", "letters swapped"),
        ("coffée", "accent on a known word"),
        ("coffee", ""),
        ("offee", ""),  # the first letter
        ("coffeex", ""),  # behind the last letter
        ("cat", ""),
        ("c0ffee", "digits in a known word"),
        ("c0ffee9", ""),
        ("f1lm", "digits in a known word"),
        ("1234", ""),
        ("кофе", ""),
        ("", ""),
        ("coffe" * 2000, ""),
    ],
)
def test_a_plain_word_is_found_behind_its_spelling(word, wanted):
    assert "coffee" in list_plain_words()
    assert name(find_plain_spelling(word)) == wanted


def test_words_without_an_inner_letter_keep_their_ends():
    assert shorten_words(["abcd"]) == {"acd": "abcd", "abd": "abcd"}


def test_words_of_the_catalogue_are_known_from_some_titles_on():
    spelling = CatalogSpelling({"shinji": MIN_TITLES_KNOWN, "totoro": MIN_TITLES_KNOWN - 1, "x" * (MAX_LETTERS + 1): 9})
    assert [spelling.knows(word) for word in ("shinji", "totoro", "x" * (MAX_LETTERS + 1))] == [True, False, False]
    found = [name(spelling.find(word)) for word in ("shiinji", "shinnji", "shínji", "shinij", "shini", "totorro")]
    assert found == ["letter doubled", "letter doubled", "accent on a known word", "", "letter dropped", ""]


def test_no_more_words_are_known_than_the_most_common_ones(monkeypatch):
    monkeypatch.setattr("cowbird.defenses.p_scanner.spelling.MAX_WORDS_KNOWN", 2)
    spelling = CatalogSpelling({"shinji": 3, "totoro": 5, "nausica": 4})
    assert [spelling.knows(word) for word in ("shinji", "totoro", "nausica")] == [False, True, True]


def describe(titles, asked):
    """Return the features of titles beside others, by name, and what was found in them."""
    texts = [*titles, *asked]
    pieces = place_pieces(texts)
    marks = TokenLogits(pieces, np.zeros(len(pieces.first), dtype=np.float32), np.zeros(len(texts), dtype=np.float32))
    traits = describe_traits(mark_words(texts, marks))
    profile = CatalogProfile.measure(traits, np.arange(len(titles)))
    rows = np.arange(len(titles), len(texts))
    found = describe_titles(traits, rows, profile)
    spelled = find_spellings(traits.words.cut, rows, profile.words, profile.spelling, 0)
    return dict(zip(TITLE_FEATURES, found.T, strict=True)), spelled, profile


def test_a_rare_spelling_is_rarer_than_a_usual_one():
    titles = [f"Coffee pot {nth}" for nth in range(80)] + [f"Kofeee mill {nth}" for nth in range(20)]
    titles += [f"Watter glass {nth}" for nth in range(20)]
    features, spelled, profile = describe(titles, ["Cofee pot 7", "Coffee pot 7", "Winndow pane"])
    assert spelled.any(axis=1).tolist() == [True, False, True]
    assert profile.spellings[SPELLINGS.index("letter dropped")] == 0
    rare = features["rarest spelling"]
    assert rare[0] > 4 and rare[1] == 0 and rare[2] > 4


def test_a_mark_and_quotes_count_around_known_words_alone():
    titles = [f"Zorblax {nth}" for nth in range(50)]
    _, spelled, _ = describe(titles, ["Red coffee.", '"Coffee" red', "Coffee. red", "Red qqwxz.", "cOFFEE, zORBLAX"])
    ways = ("mark behind a known word", "known word in quotes", "capitals inside a known word")
    marked, quoted, capitals = (SPELLINGS.index(way) for way in ways)
    assert spelled[:, marked].tolist() == [True, False, False, False, False]
    assert spelled[:, quoted].tolist() == [False, True, False, False, False]
    assert spelled[:, capitals].tolist() == [False, False, False, False, True]
    _, spelled, _ = describe(titles, ["cOFFEE red", "zORBLAX", "qQWXZ", "Zorblax!"])
    assert spelled[:, capitals].tolist() == [True, True, False, False]
    assert spelled[:, marked].tolist() == [False, False, False, True]


def test_a_plain_word_is_no_slip_of_a_word_of_the_catalogue():
    titles = [f"Trainee handbook {nth}" for nth in range(50)] + [f"Glaas {nth}" for nth in range(9)]
    assert {"house", "hose"} <= list_plain_words()
    _, spelled, _ = describe([*titles, *(f"House {nth}" for nth in range(9))], ["Hose", "Gaas", "Hoouse"])
    assert spelled.any(axis=1).tolist() == [False, True, True]


def test_capitals_unlike_those_of_the_catalogue_are_rare():
    titles = [f"Coffee Mill {nth}" for nth in range(100)]
    features, _, _ = describe(titles, ["COFFEE MILL", "Coffee Mill", "coffee mill", "Coffee MILL"])
    rare = features["rarity of its capitals"]
    assert rare[1] < 0.1 and all(rare[row] > 4 for row in (0, 2, 3))


def test_a_word_that_stands_in_other_titles_is_no_slip():
    titles = [f"Coffee {nth}" for nth in range(50)] + ["The Cofee house", "A Cofee house"]
    _, spelled, _ = describe(titles, ["Cofee bar"])
    assert not spelled.any()
