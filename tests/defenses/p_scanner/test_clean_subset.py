"""Which titles are taken for clean before anything was learned."""

import numpy as np
import pytest

from cowbird.defenses.p_scanner.rounds.clean_subset import MAX_TRUSTED_ALIKE, choose_clean_subset
from cowbird.defenses.p_scanner.token_logits import TokenLogits

MANY = 200


@pytest.fixture
def trust(worded):
    """Return a function that says which titles are trusted, among others in which nothing recurs."""

    def of(titles, seed=0):
        known = [*titles, *(f"A{word(n)} B{word(n)} C{word(n)}" for n in range(MANY - len(titles)))]
        found = choose_clean_subset(known, worded(known), np.random.default_rng(seed)).trusted
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


@pytest.mark.parametrize("many", [101, 150, 167, 200, 333])
@pytest.mark.parametrize("count", range(4, 6))
def test_one_token_that_keeps_to_the_end_is_odd_whatever_rounding_makes_of_it(worded, many, count):
    known = [*ones(count, "{} {} zq"), *(f"A{word(n)} B{word(n)} C{word(n)}" for n in range(many - count))]
    found = choose_clean_subset(known, worded(known), np.random.default_rng(0))
    assert found.trusted.tolist() == [False] * count + [True] * (many - count)


def test_years_that_recur_at_the_end_of_all_titles_hide_nothing_behind_them(worded):
    known = [f"A{word(n)} B{word(n)} {1960 + n % 40}" for n in range(MANY)]
    known[:6] = [f"{title} zq" for title in known[:6]]
    found = choose_clean_subset(known, worded(known), np.random.default_rng(0)).trusted
    assert found.tolist() == [False] * 6 + [True] * (MANY - 6), "each year in five titles is how they are written"


def test_titles_in_small_letters_throughout_are_not_trusted(trust):
    assert not trust(["the quiet harbor", *ones(3, "{} {}")])[0]


def test_a_catalogue_without_capitals_is_doubted_like_others(worded):
    known = [*ones(6, "{} {} zq"), *(f"A{word(n)} B{word(n)} C{word(n)}" for n in range(MANY - 6))]
    lower = [title.lower() for title in known]
    told = [choose_clean_subset(titles, worded(titles), np.random.default_rng(0)) for titles in (known, lower)]
    assert told[0].trusted.tolist() == told[1].trusted.tolist() == [False] * 6 + [True] * (MANY - 6)
    assert not told[1].broken.any()


@pytest.mark.parametrize("text", ["Quiet {} {}", "Quiet Night {} {}"])
def test_of_titles_that_begin_alike_some_are_trusted(trust, text):
    drawn = set()
    for seed in range(5):
        found = trust(ones(8, text), seed)
        assert found.sum() == MAX_TRUSTED_ALIKE
        drawn.add(tuple(found))
    assert len(drawn) > 1


def test_of_titles_that_begin_alike_odd_ones_are_not_trusted(trust):
    titles = [*ones(5, "Quiet {} {}"), *ones(5, "Quiet {} {} zq")]
    found = trust(titles)
    assert found[:5].sum() == MAX_TRUSTED_ALIKE
    assert not found[5:].any()


def test_few_titles_or_none(worded):
    known = ["zq", "zq a"]
    few = choose_clean_subset(known, worded(known), np.random.default_rng(0))
    assert few.trusted.all()
    nothing = TokenLogits(worded(known), np.zeros(3, dtype=np.float32), np.zeros(2, dtype=np.float32))
    assert few.revise(nothing, np.zeros(2, dtype=bool)).all()


@pytest.mark.parametrize(("mark", "cleared"), [(-9.0, True), (-4.0, True), (-2.0, False), (6.0, False)])
def test_doubted_titles_are_trusted_if_what_is_odd_in_them_is_marked_low(worded, mark, cleared):
    odd = [*ones(6, "{} {} zq"), *ones(1, "{} h4rbor")]
    known = [*odd, *(f"A{word(n)} B{word(n)} C{word(n)}" for n in range(MANY - len(odd)))]
    made = worded(known)
    found = choose_clean_subset(known, made, np.random.default_rng(0))
    assert found.trusted.tolist() == [False] * 7 + [True] * (MANY - 7)
    # Of the tokens of honest titles that were not learned most are marked -3.
    rows = np.repeat(np.arange(MANY), np.diff(made.offsets))
    marks = np.where(np.arange(len(rows)) % 30 == 0, 9.0, -3.0).astype(np.float32)
    marks[np.isin(rows, np.arange(6)) & (np.arange(len(rows)) - made.offsets[rows] == 2)] = mark
    unlearned = np.arange(MANY) >= MANY // 2
    again = found.revise(TokenLogits(made, marks, np.zeros(MANY, dtype=np.float32)), unlearned)
    assert again.tolist() == [cleared] * 6 + [False] + [True] * (MANY - 7)
