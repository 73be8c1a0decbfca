"""What is kept of a catalogue is bounded, whatever its titles hold, and bounds change no verdict on honest titles."""

import numpy as np
import pytest
from ready_doubles import ReadyDouble, make_titles, mark

from cowbird.defenses.p_scanner import catalog_judge, title_index
from cowbird.defenses.p_scanner.catalog_judge import CatalogJudge, judge_once
from cowbird.defenses.p_scanner.fragment_evidence import describe_fragments
from cowbird.defenses.p_scanner.fragment_index import HEAD_WORDS, TAIL_WORDS
from cowbird.defenses.p_scanner.fragment_table import (
    FragmentNames,
    find_recurring,
    index_fragments,
)
from cowbird.defenses.p_scanner.small_tagger import cut_batches
from cowbird.defenses.p_scanner.title_sample import TitleSample
from cowbird.defenses.p_scanner.title_traits import describe_traits, mark_words
from cowbird.rng import stream


def traits_of(titles):
    return describe_traits(mark_words(titles, mark(titles)))


def test_a_sample_has_so_many_characters_and_no_order():
    rng = stream(0, "sample")
    titles = [f"{title} {'x' * int(rng.integers(0, 60))}" for title in make_titles(300)]
    found = []
    for turn in range(4):
        sample = TitleSample(1000, most_characters=3000)
        order = stream(turn, "order").permutation(len(titles)).tolist()
        sample.add([titles[nth] for nth in order])
        found.append(sample.list_titles())
        assert sum(map(len, found[-1])) <= 3000
        assert not sample.complete
    assert found[0] == found[1] == found[2] == found[3]
    assert sum(map(len, found[0])) > 2900 - 100


def test_an_interrupted_sample_goes_on_with_its_bound():
    titles = [f"{title} {'x' * (nth % 40)}" for nth, title in enumerate(make_titles(300))]
    whole, first, second = (TitleSample(1000, most_characters=3000) for _ in range(3))
    whole.add(titles)
    first.add(titles[:150])
    second.bound = first.bound
    second.add(first.list_titles())
    second.add(titles[150:])
    assert second.list_titles() == whole.list_titles()


def test_what_recurs_is_described_alike_without_the_rest():
    titles = [*make_titles(120), *(f"{title} zq" for title in make_titles(130)[120:])]
    traits, rows = traits_of(titles), np.arange(len(titles))
    everything, few = FragmentNames(), FragmentNames()
    whole = describe_fragments(index_fragments(traits.words, everything), traits, rows)
    small = describe_fragments(index_fragments(traits.words, few, find_recurring(traits.words)), traits, rows)
    assert len(few.fragments) == len(small.fragment) < len(everything.fragments)
    by_key = {everything.list_keys()[number]: row for number, row in zip(whole.fragment, whole.features, strict=True)}
    for number, row in zip(small.fragment, small.features, strict=True):
        np.testing.assert_array_equal(row, by_key[few.list_keys()[number]])


def test_of_too_many_recurring_fragments_the_most_common_stay():
    titles = [*make_titles(200), *(f"{title} zq" for title in make_titles(260)[200:])]
    words = traits_of(titles).words
    for most in (50, 400):
        kept = find_recurring(words, most)
        assert len(kept) <= most
        assert ("word", "zq") in kept


def test_words_inside_a_very_long_title_are_not_kept():
    names = FragmentNames()
    titles = [" ".join(f"w{nth}x{row}" for nth in range(700)) for row in range(3)]
    table = index_fragments(traits_of(titles).words, names)
    assert np.diff(table.word_offsets).tolist() == [HEAD_WORDS + TAIL_WORDS] * 3
    texts = {text for kind, text in names.fragments if kind == "word"}
    assert {"w47x0", "w684x2", "w47x1 w48x1 w49x1 w50x1"} <= texts
    assert not {"w48x0", "w683x2", "w48x1 w49x1"} & texts


@pytest.mark.slow
def test_verdicts_do_not_depend_on_the_bounds(monkeypatch):
    titles = [f"{title} 5v" if nth < 5 else title for nth, title in enumerate(make_titles(300))]
    want = judge_once(ReadyDouble(), titles, make_titles(600)[300:], 0.02, 0.05)
    monkeypatch.setattr(title_index.index_titles, "__defaults__", (None, 0))
    found = judge_once(ReadyDouble(), titles, make_titles(600)[300:], 0.02, 0.05)
    assert found.score.tolist() == want.score.tolist()
    assert found.reason == want.reason


@pytest.mark.parametrize("most", [1, 40, 10_000])
def test_titles_are_judged_in_parts_of_so_many_characters(monkeypatch, most):
    titles = make_titles(400)
    judge = CatalogJudge.learn(ReadyDouble(), titles[:200])
    want = judge.judge(titles)
    monkeypatch.setattr(catalog_judge, "MAX_CHARACTERS_AT_ONCE", most)
    assert judge.judge(titles).score.tolist() == want.score.tolist()


@pytest.mark.parametrize(("most", "characters"), [(7, 10_000), (1000, 60), (1, 1), (1000, 10_000)])
def test_batches_hold_so_many_titles_and_characters(most, characters):
    titles = [*make_titles(50), "x" * 500, *make_titles(80)[50:]]
    parts = [titles[begin:end] for begin, end in cut_batches(titles, most, characters)]
    assert [title for part in parts for title in part] == titles
    assert all(0 < len(part) <= most for part in parts)
    assert all(len(part) == 1 or sum(map(len, part)) <= characters for part in parts)
    assert len(parts) == 1 or most < len(titles) or characters < 10_000
    assert not list(cut_batches([], most, characters))
