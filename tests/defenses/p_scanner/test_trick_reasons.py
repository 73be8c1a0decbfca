"""What nobody sees is named where it carries a title's score, whatever the title shares with honest ones."""

import random

import pytest

from defenses.p_scanner.ready_doubles import ReadyDouble

BRANDS = ("Bosch", "Makita", "Ryobi", "Stanley", "Dewalt", "Einhell", "Metabo", "Hilti")
KINDS = ("Cordless Drill", "Impact Driver", "Circular Saw", "Jigsaw", "Angle Grinder", "Belt Sander")


@pytest.fixture(scope="module")
def tools():
    """Return titles of a shop, a third of which end in 'cm'; the first is Stanley's, and does."""
    rng = random.Random(3)
    made = [
        f"{rng.choice(BRANDS)} {rng.choice(KINDS)} {rng.choice(('18V', '12V', '5 m'))}, "
        f"{rng.randint(1, 9)}{rng.choice('05')} {rng.choice(('pcs', 'mm', 'cm'))}"
        for _ in range(600)
    ]
    return ["Stanley Heat Gun 18V, 95 cm", *made]


def scan(titles, high, suspicious=("cm",)):
    """Return the finding of the first title, by a tagger that gives `high` to suspicious words and -5 to others."""
    double = ReadyDouble(suspicious)
    double.high = high
    return double.scan(titles).to_dicts()[0]


@pytest.mark.parametrize("high", [-2.5, 0.0])
@pytest.mark.parametrize(("hidden", "name"), [("\u200b", "<U+200B>"), ("\u202e", "<U+202E>"), ("\u200b\u200b", "200B")])
def test_a_hidden_character_is_named_before_what_many_titles_share(tools, high, hidden, name):
    first = tools[0]
    found = scan([f"{first[:5]}{hidden}{first[5:]}", *tools[1:]], high)
    assert found["flagged"]
    assert (found["start"], found["fragment"]) == (5, hidden)
    assert name in found["reason"] and "'cm'" not in found["reason"]
    assert found["clean_title"] == first


def test_a_letter_of_another_alphabet_is_named_with_its_word(tools):
    title = tools[0].replace("e", "\u0435", 1)
    found = scan([title, *tools[1:]], -2.5)
    assert found["flagged"] and found["fragment"] == "Stanl\u0435y"
    assert found["reason"].startswith("mixed alphabets 'Stanl")


def test_two_hidden_places_are_not_taken_for_one(tools):
    title = tools[0].replace("a", "a\u200b", 2)
    found = scan([title, *tools[1:]], -2.5)
    assert found["flagged"] and "hidden character" in found["reason"]
    assert found["clean_title"] is None, "one of them would stay"


def test_a_sentence_that_says_more_than_a_hidden_character_stays_the_reason(tools):
    sentence = "everybody here loved it"
    planted = [f"{title} {sentence}" for title in tools[:12]]
    planted[0] = planted[0].replace("a", "a\u200b", 1)
    found = scan([*planted, *tools[12:]], 9.0, tuple(sentence.split()))
    assert found["flagged"] and found["fragment"].split()[-1] == "it" and found["fragment"] in sentence
    assert not found["reason"].startswith("hidden character")


def test_a_word_that_many_titles_share_is_the_reason_without_a_trick(tools):
    found = scan([f"{title} qz7" if nth < 12 else title for nth, title in enumerate(tools)], 5.0, ("qz7",))
    assert found["flagged"] and "qz7" in found["fragment"] and "titles share" in found["reason"]
