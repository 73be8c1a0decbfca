"""Which titles are taken for clean before anything was learned."""

import numpy as np
import pytest

from cowbird.defenses.p_scanner.trust import BEGINS, trusted

MANY = 200


@pytest.fixture
def trust(worded):
    """Return a function that says which titles are trusted, among others in which nothing recurs."""

    def of(titles, seed=0):
        known = [*titles, *(f"A{word(n)} B{word(n)} C{word(n)}" for n in range(MANY - len(titles)))]
        found = trusted(known, worded(known), np.random.default_rng(seed))
        assert found[len(titles) :].all(), "in these nothing is odd"
        return found[: len(titles)]

    return of


def word(number):
    """Spell a number."""
    return "".join("abcdefghij"[int(digit)] for digit in str(number))


def ones(count, text):
    return [text.format(f"D{word(n)}", f"E{word(n)}", f"F{word(n)}") for n in range(count)]


@pytest.mark.parametrize(
    ("count", "text", "doubted"),
    [
        (4, "{} {} zq", True),
        (3, "{} {} zq", False),
        (11, "{} {} zq", False),
        (6, "{} zq {}", False),
        (6, "{} zq xq {}", True),
        (3, "{} zq xq {}", False),
        (6, "{} {} zq xq", True),
        (1, "{} h4rbor", True),
        (1, "{} \u200b", True),
    ],
)
def test_what_is_odd_is_not_trusted(trust, count, text, doubted):
    assert (trust(ones(count, text)) == (not doubted)).all()


@pytest.mark.parametrize("text", ["Quiet {} {}", "Quiet Night {} {}"])
def test_of_titles_that_begin_alike_some_are_trusted(trust, text):
    drawn = set()
    for seed in range(5):
        found = trust(ones(8, text), seed)
        assert found.sum() == BEGINS
        drawn.add(tuple(found))
    assert len(drawn) > 1


def test_of_titles_that_begin_alike_odd_ones_are_not_trusted(trust):
    titles = [*ones(5, "Quiet {} {}"), *ones(5, "Quiet {} {} zq")]
    found = trust(titles)
    assert found[:5].sum() == BEGINS
    assert not found[5:].any()


def test_few_titles_or_none(worded):
    assert trusted(["zq", "zq a"], worded(["zq", "zq a"]), np.random.default_rng(0)).all()
