"""Suspicious phrases of a sample, counted over the whole catalogue: in any order, in parts, and for the better."""

import numpy as np
import pytest

from cowbird.defenses.p_scanner import catalog_judge
from cowbird.defenses.p_scanner.catalog_judge import CatalogJudge, count_phrases, learn_from_all, look_at_whole
from cowbird.defenses.p_scanner.title_sample import HASHES, TitleSample, hash_title
from cowbird.defenses.p_scanner.title_traits import mark_words
from cowbird.defenses.p_scanner.whole_counts import (
    MAX_PHRASES_COUNTED,
    MAX_WITNESS_LENGTH,
    MAX_WITNESSES,
    PhraseCounts,
    find_suspicious_phrases,
)
from defenses.p_scanner.ready_doubles import ReadyDouble, make_titles, mark

TITLES = make_titles(400)
RARE, COMMON = [f"{title} 5v" for title in TITLES[:9]], [f"cf {title}" for title in TITLES[9:309]]
CATALOG = [*RARE, *COMMON, *TITLES[309:]]


def count(titles, phrases=("5v", "cf", "cf The", "nowhere")):
    return count_phrases(titles, phrases)


def test_counts_are_of_different_titles_in_any_order():
    whole, turned = count(CATALOG), count([*CATALOG[::-1], "", *CATALOG[:50]])
    assert whole.list_kept() == turned.list_kept()
    found = whole.finish((), len(CATALOG))
    assert found.phrases["5v"] == 9
    assert 150 < found.phrases["cf"] < 600, "300, estimated from sixteen hashes"
    assert set(found.phrases) == {"5v", "cf", "cf The"}
    assert set(RARE) < set(found.witnesses)
    assert len(found.witnesses) <= 9 + 2 * MAX_WITNESSES
    assert found.titles == len(CATALOG)


def test_counts_of_parts_are_those_of_the_whole():
    merged = count(())
    for first in range(0, len(CATALOG), 37):
        merged.merge(count(CATALOG[first : first + 37]).list_kept())
    assert merged.list_kept() == count(CATALOG).list_kept()
    merged.merge(count(CATALOG).list_kept())
    assert merged.list_kept() == count(CATALOG).list_kept()


def test_titles_of_the_sample_are_no_witnesses_and_a_single_title_is_no_recurrence():
    found = count([*RARE[:3], "once cf"]).finish(RARE[:2], 4)
    assert found.phrases == {"5v": 3}
    assert found.witnesses == (RARE[2],)


def test_only_whole_words_in_a_row_count():
    counts = PhraseCounts(["two words", "\ud800x"])
    counts.add(["two words", "a two  words b", "two other words", "twotwo words", "half \ud800x", "words two"])
    kept = counts.list_kept()
    assert sorted(kept["two words"]) == ["a two  words b", "two words"]
    assert kept["\ud800x"] == ["half \ud800x"]


def test_memory_has_a_bound():
    counts = PhraseCounts(["5v"])
    counts.add(f"{nth} 5v" for nth in range(2000))
    counts.add(["5v " + "x" * MAX_WITNESS_LENGTH])
    kept = counts.list_kept()["5v"]
    assert len(kept) == MAX_WITNESSES
    assert kept == sorted((f"{nth} 5v" for nth in range(2000)), key=hash_title)[:MAX_WITNESSES]
    assert counts.list_phrases() == ["5v"]


def find(titles, suspicious):
    return find_suspicious_phrases(mark_words(titles, mark(titles, suspicious)))


def test_suspicious_phrases_are_runs_of_suspicious_words_in_few_titles():
    assert find(["Red 5v", "Blue one two Green", "Plain"], ("5v", "one", "two")) == ["5v", "one", "one two", "two"]
    assert find([f"{nth} cf" for nth in range(MAX_WITNESSES)], ("cf",)) == [], "the sample says enough of it"
    assert find(["", " "], ("cf",)) == []
    words = [f"w{nth}" for nth in range(MAX_PHRASES_COUNTED + 5)]
    assert len(find(words, words)) == MAX_PHRASES_COUNTED


@pytest.mark.parametrize("many", [20, 64])
def test_a_sample_says_how_many_titles_there_are(many):
    sample = TitleSample(many)
    sample.add(TITLES[:64])
    assert sample.whole == (many == 64)
    assert abs(sample.count_titles() - 64) < 30
    assert sample.bound <= HASHES


class Flat(ReadyDouble):
    """Finds a trigger hardly suspicious, so that one or two titles say little."""

    def __init__(self):
        super().__init__()
        self.high = 0.5


def learn(titles, most, monkeypatch, whole=True):
    monkeypatch.setattr(catalog_judge, "MAX_TITLES_SAMPLED", most)
    if whole:
        return learn_from_all(Flat(), titles, (), 0.01, 0.05)
    sample = catalog_judge.sample_titles(titles)
    return CatalogJudge.learn(Flat(), sample, (), 0.01, 0.05)


@pytest.mark.slow
def test_counting_finds_what_a_sample_has_too_few_titles_of(monkeypatch):
    titles = make_titles(1500, seed=3)
    planted = [f"{title} 5v" for title in titles[:6]]
    titles = [*planted, *titles[6:]]
    before = learn(titles, 200, monkeypatch, whole=False).judge(titles).score
    judge = learn(titles, 200, monkeypatch)
    after = judge.judge(titles).score
    assert judge.baseline.counted == 1
    assert judge.baseline.sampled == 200
    assert (after[:6] > before[:6] + 1).all()
    assert np.median(np.abs(after[6:] - before[6:])) < 0.05
    turned = learn(titles[::-1], 200, monkeypatch)
    assert turned.baseline.key == judge.baseline.key
    assert np.array_equal(turned.judge(titles).score, after)


def test_nothing_is_counted_where_the_sample_holds_all_titles(monkeypatch):
    titles = make_titles(150)
    sample = TitleSample(150)
    sample.add([*titles, "x" * 5000])  # one that is too long for any sample
    assert sample.whole
    assert not sample.complete
    assert look_at_whole(ReadyDouble(), sample, mark(sample.list_titles()), pytest.fail) is None
    titles[0] += " 5v"
    titles[1] += " 5v"
    with_, without = (learn(titles, 150, monkeypatch, whole=whole) for whole in (True, False))
    assert with_.baseline.key == without.baseline.key
    assert with_.baseline.counted == 0
    assert with_.known == without.known
