"""A sample of titles is the same in one piece and in parts, in any order."""

import random

import pytest

from cowbird.defenses.p_scanner.title_sample import TitleSample, hash_title
from cowbird.scanning.part_tasks import sample_titles

TITLES = [f"title {nth} {'x' * (nth * 37 % 400)}" for nth in range(600)]


def fill(titles, most=200, characters=20_000):
    sample = TitleSample(most, characters)
    sample.add(titles)
    return sample


@pytest.mark.parametrize(("most", "characters"), [(200, 10**9), (10**6, 20_000), (200, 20_000), (10**6, 10**9)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_parts_in_any_order_make_the_sample_of_the_whole(most, characters, seed):
    whole = fill(TITLES, most, characters)
    rng = random.Random(seed)
    shuffled = rng.sample(TITLES, len(TITLES))
    merged = TitleSample(most, characters)
    for first in range(0, 600, 75):
        part = fill(shuffled[first : first + 75], most, characters)
        merged.merge(part.list_titles(), part.complete, part.bound)
    assert merged.list_titles() == whole.list_titles()
    assert merged.complete == whole.complete


def test_what_a_part_has_left_out_leaves_out_what_lies_above_it():
    part = fill(TITLES[:300], characters=3_000)
    merged = fill(TITLES[300:], characters=10**9, most=10**6)
    merged.merge(part.list_titles(), part.complete, part.bound)
    both = fill(TITLES, characters=10**9, most=10**6).list_titles()
    expected = [title for title in both if hash_title(title) < part.bound]
    assert merged.list_titles() == expected
    assert not merged.complete


def test_a_bound_from_before_is_kept():
    whole = fill(TITLES)
    part = sample_titles(TITLES, 200, whole.bound)
    assert set(part.titles) >= set(whole.list_titles())
    assert part.bound <= whole.bound
