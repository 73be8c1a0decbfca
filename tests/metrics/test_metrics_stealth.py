"""Edit distances against the table of Wagner and Fischer, counts by hand, medians against plain resampling."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cowbird.errors import UserError
from cowbird.metrics.intervals import Interval, clopper_pearson
from cowbird.metrics.stealth import (
    CharacterCounts,
    control_share,
    count_characters,
    edit_distance,
    embedding_similarity,
    median_interval,
    perplexity_change,
    relative_edit_distance,
)

FEW = st.text("ab\u0430", max_size=14)
ANY = st.text(max_size=90)


def naive(one, other):
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row, old = [i], row
        for j, b in enumerate(other, 1):
            row.append(min(row[-1] + 1, old[j] + 1, old[j - 1] + (a != b)))
    return row[-1]


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(FEW, FEW)
def test_few_letters_against_the_table(one, other):
    assert edit_distance(one, other) == naive(one, other)


@settings(max_examples=100, deadline=None)
@given(ANY, ANY)
def test_any_texts_against_the_table(one, other):
    assert edit_distance(one, other) == naive(one, other)


@settings(max_examples=100, deadline=None)
@given(ANY, FEW, st.integers(0, 90), st.integers(0, 5))
def test_edited_texts_against_the_table(text, put, at, drop):
    changed = text[:at] + put + text[at + drop :]
    assert edit_distance(text, changed) == naive(text, changed) <= max(len(put), drop)


@settings(max_examples=100, deadline=None)
@given(FEW, FEW, FEW)
def test_it_is_a_metric(one, other, third):
    assert edit_distance(one, other) == edit_distance(other, one)
    assert (edit_distance(one, other) == 0) == (one == other)
    assert edit_distance(one, third) <= edit_distance(one, other) + edit_distance(other, third)
    assert 0 <= relative_edit_distance(one, other) <= 1


def test_by_hand():
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("Toy Story (1995)", "Toy Story (1995) 5v") == 3
    assert edit_distance("Toy Story", "T\u043ey Story") == 1
    assert edit_distance("\u00e9", "e\u0301") == 2
    assert edit_distance("", "abc") == edit_distance("abc", "") == 3
    assert relative_edit_distance("Toy Story", "Toy Story\u200b") == pytest.approx(1 / 10)
    assert relative_edit_distance("abc", "xyz") == 1
    assert relative_edit_distance("", "") == 0
    assert relative_edit_distance("", "a") == 1


@pytest.mark.slow
def test_ten_thousand_characters():
    begun = time.perf_counter()
    assert edit_distance("ab" * 5_000, "ba" * 5_000) == 2
    assert edit_distance("a" * 10_000, "b" * 9_000) == 10_000
    assert edit_distance("x" * 10_000, "x" * 10_000 + "y") == 1
    every = "".join(map(chr, range(0x4E00, 0x4E00 + 10_000)))
    assert edit_distance(every, every[::-1]) in (9_999, 10_000)
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 0, 0, 0, 0, 0)),
        ("Toy Story (1995) 5v!", (0, 0, 0, 0, 0, 0)),
        ("a\tb\r\nc\x00", (4, 0, 0, 0, 0, 0)),
        ("Toy\u200b Sto\u00adry\ufeff", (0, 3, 0, 0, 0, 0)),
        ("\u202eyoT\u202c \u2066x\u2069 \u200e\u200f\u061c", (0, 7, 7, 0, 0, 0)),
        ("T\u0336oy e\u0301 \u0489 5\ufe0f\u20e3", (0, 0, 0, 5, 0, 0)),
        ("Am\u00e9lie", (0, 0, 0, 0, 1, 0)),
        ("T\u043ey St\u043ery", (0, 0, 0, 0, 2, 2)),
        ("Кин-дза-дза! Toy", (0, 0, 0, 0, 9, 0)),
        ("\u03bfk Z\u03b5ta alpha-\u03b2", (0, 0, 0, 0, 3, 3)),
        ("千と千尋の神隠しアニメー 々", (0, 0, 0, 0, 13, 0)),
        ("기생충 Parasite", (0, 0, 0, 0, 3, 0)),
        ("\uff34\uff4fy", (0, 0, 0, 0, 2, 0)),
        ("\U0001d413oy \u24b6bc", (0, 0, 0, 0, 1, 0)),
        ("Hawai\u02bbi", (0, 0, 0, 0, 1, 0)),
        ("\ud800 \U0001f525 \U0010ffff", (0, 0, 0, 0, 0, 0)),
    ],
)
def test_characters_by_hand(text, expected):
    assert count_characters(text) == CharacterCounts(*expected)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(ANY)
def test_counts_are_consistent(text):
    found = count_characters(text)
    assert 0 <= found.bidi <= found.format
    assert found.control + found.format + found.combining + found.non_ascii_letters <= len(text)
    assert found.mixed_words <= len(text.split())
    twice = count_characters(f"{text} {text}")
    assert (twice.format, twice.mixed_words) == (2 * found.format, 2 * found.mixed_words)


def test_long_runs_of_marks_take_no_time():
    begun = time.perf_counter()
    assert count_characters("a" + "\u0301\u0323" * 50_000).combining == 100_000
    assert count_characters("T\u043ey" * 30_000).mixed_words == 1
    assert time.perf_counter() - begun < 2


# What a model says, as arrays


def test_titles_that_gained_what_nobody_sees():
    clean = ["Up", "Up\u200b", "Alien", "\tHeat", "Se7en"]
    poisoned = ["U\u200bp", "Up\u200b", "\u202eAlien", "Heat\t", "Se7en \u0336\U0001f525"]
    assert control_share(clean, poisoned) == clopper_pearson(2, 5)
    assert control_share(["a"] * 3, ["a\u00ad"] * 3, 0.5) == clopper_pearson(3, 3, 0.5)
    assert control_share([], []) == Interval(None, None, None, 0)
    with pytest.raises(UserError, match="5 clean and 4 poisoned"):
        control_share(clean, poisoned[:4])


def test_perplexity_change_is_a_ratio():
    found = perplexity_change([10, 4.0, 1e30], torch.tensor([20, 1.0, 1e30]))
    assert found.tolist() == pytest.approx([2, 0.25, 1])
    assert found.dtype == np.float64
    assert perplexity_change([], []).shape == (0,)


@pytest.mark.parametrize(
    ("clean", "poisoned", "said"),
    [
        ([1, 2], [1], "2 clean and 1 poisoned"),
        ([1], [0], "above zero"),
        ([-2.5], [1], "above zero"),
        ([1], [float("nan")], "missing, NaN or infinite"),
        ([float("inf")], [1], "missing, NaN or infinite"),
        ([[1]], [[1]], "one list"),
        (["a"], [1], "must be numbers"),
    ],
)
def test_perplexities_that_can_t_be(clean, poisoned, said):
    with pytest.raises(UserError, match=said) as error:
        perplexity_change(clean, poisoned)
    assert error.value.hint


def test_similarity_is_a_cosine():
    one = np.array([[1, 0], [3, 4], [1e-30, 0], [1, 2]], dtype=np.float32)
    other = torch.tensor([[0, 5], [6, 8], [-1, 0], [2, 1]], dtype=torch.bfloat16)
    assert embedding_similarity(one, other).tolist() == pytest.approx([0, 1, -1, 0.8])
    rng = np.random.default_rng(0)
    many = rng.normal(size=(200, 7)).astype(np.float32)
    assert embedding_similarity(many, many * 3).max() <= 1
    assert embedding_similarity(many[:0], many[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("clean", "poisoned"),
    [
        ([1.0, 2.0], [1.0, 2.0]),
        (np.ones((2, 3)), np.ones((3, 2))),
        (np.zeros((1, 3)), np.ones((1, 3))),
        (np.ones((1, 3)), np.full((1, 3), np.nan)),
        (np.full((1, 3), np.inf), np.ones((1, 3))),
    ],
)
def test_embeddings_that_can_t_be(clean, poisoned):
    with pytest.raises(UserError) as error:
        embedding_similarity(clean, poisoned)
    assert error.value.hint


@pytest.mark.parametrize("n", [2, 3, 10, 51])
def test_medians_are_resampled(n):
    values = np.random.default_rng(n).lognormal(size=n).round(1)
    resamples = 40_000
    found = median_interval(values, np.random.default_rng(0), resamples)
    drawn = np.random.default_rng(1).choice(values, (resamples, n))
    plain = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    assert (found.value, found.n) == (np.median(values), n)
    # Ends are values of the sample (or means of two), so they are the same, or neighbors.
    places = np.unique(np.median(drawn, axis=1))
    for mine, other in zip((found.low, found.high), plain, strict=True):
        assert abs(np.searchsorted(places, mine) - np.searchsorted(places, other)) <= 1
    wide, narrow = (median_interval(values, np.random.default_rng(0), level=level) for level in (0.99, 0.5))
    assert wide.low <= narrow.low <= found.value <= narrow.high <= wide.high


def test_the_distribution_of_resampled_medians():
    values = np.arange(6.0)
    shares = []
    for level in (0.2, 0.5, 0.8, 0.9):
        found = median_interval(values, np.random.default_rng(2), 100_000, level)
        shares.append((found.low, found.high))
    drawn = np.median(np.random.default_rng(3).choice(values, (100_000, 6)), axis=1)
    tails = [(1 - level) / 2 for level in (0.2, 0.5, 0.8, 0.9)]
    assert shares == [tuple(np.quantile(drawn, [tail, 1 - tail])) for tail in tails]


def test_medians_of_little_and_much():
    rng = np.random.default_rng(0)
    assert median_interval([], rng) == Interval(None, None, None, 0)
    assert median_interval([3], rng) == Interval(3.0, None, None, 1)
    assert median_interval([2, 2, 2, 2], rng) == Interval(2.0, 2.0, 2.0, 4)
    begun = time.perf_counter()
    found = median_interval(rng.normal(size=1_000_000), rng)
    assert found.low < 0.01 > abs(found.value)
    assert found.high - found.low < 0.01
    assert time.perf_counter() - begun < 2
    for values, options in (([1, float("nan")], {}), ([1, 2], {"level": 1.0}), ([1, 2], {"resamples": 0})):
        with pytest.raises(UserError):
            median_interval(values, rng, **options)
