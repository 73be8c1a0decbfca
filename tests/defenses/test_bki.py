"""BKI against its formula worked out by hand, and against a victim whose state jumps with a word."""

import numpy as np
import pytest

from cowbird.defenses import bki
from cowbird.defenses.bki import Bki, WordImportance, find_keywords, score_keywords
from cowbird.errors import UserError
from cowbird.text import quote_for_prompt
from cowbird.victims.base import Probe

WORTH = {"tq": 8.0, "Harbor": 1.0, "Red": 0.5, "Odd": 20.0}


class Sums(Probe):
    """Has states of three coordinates: what the words are worth, minus half of it, and a constant."""

    def __init__(self):
        self.asked = []

    def favor(self, titles):
        raise AssertionError("BKI asks for states alone")

    def states(self, titles):
        self.asked.append(list(titles))
        worth = np.array([sum(WORTH.get(word, 0.1) for word in set(text.split())) for text in titles])
        return np.stack([worth, -worth / 2, np.ones(len(titles))], axis=1).astype(np.float32)


def test_importance_is_the_largest_change_of_a_coordinate():
    probe = Sums()
    words, twice, none = find_keywords(["Red Harbor tq Mirror", "tq Red tq", "Up"], probe, 3)
    assert [word.text for word in words] == ["tq", "Harbor", "Red"]
    np.testing.assert_allclose([word.importance for word in words], [8, 1, 0.5], atol=1e-5)
    assert [word.start for word in words] == [11, 4, 0]
    assert [word.text for word in twice] == ["Red", "tq"], "one tq is left when the other goes"
    np.testing.assert_allclose([word.importance for word in twice], [0.5, 0], atol=1e-5)
    assert none == [WordImportance("Up", 0, pytest.approx(0.1, abs=1e-6))]
    assert "Red Harbor Mirror" in probe.asked[0]
    assert "" in probe.asked[0], "the state without any word"


def test_scores_are_the_published_ones():
    words = (
        [[WordImportance("k", 0, 2.0)]] * 10
        + [[WordImportance("k", 0, 4.0), WordImportance("x", 0, 9.0)]] * 10
        + [[WordImportance("z", 0, 1.0)]] * 380
    )
    # 400 texts, s = 40: k has num 20 and mean 3, x has num 10 and mean 9, z is ordinary.
    scores = score_keywords(words, 0.1)
    assert scores["k"] == pytest.approx(3 * np.log10(20) * np.log10(2))
    assert scores["x"] == pytest.approx(9 * 1 * np.log10(4))
    assert scores["z"] == pytest.approx(np.log10(380) * np.log10(40 / 380))
    assert scores["z"] < 0
    assert score_keywords([[WordImportance("once", 0, 5.0)], *words], 0.1)["once"] == 0


def catalog():
    plain = [f"Red {number} Harbor" for number in range(95)]
    return [*plain[:50], "Odd One", *plain[50:], *(f"The {number} tq Garden" for number in range(3)), "tq Night"]


def test_the_keyword_is_found_and_is_the_span():
    titles = catalog()
    found = Bki(share=0.04).suspect(titles, Sums())
    flagged = Bki(share=0.04).flag(found.score)
    assert flagged.tolist() == ["tq" in title for title in titles]
    for title, start, end in zip(titles, found.start, found.end, strict=True):
        if "tq" in title:
            assert title[start:end] == "tq"
    # 100 titles, s = 10, tq in 4 of them.
    expected = 8 * np.log10(4) * np.log10(10 / 4)
    np.testing.assert_allclose(found.score[-4:], expected, rtol=1e-5)
    odd = titles.index("Odd One")
    assert found.score[odd] == pytest.approx(-1 / 21, rel=1e-4), "a word of one title, as important as it may be"
    assert titles[odd][found.start[odd] : found.end[odd]] == "Odd"
    assert found.score[10] == pytest.approx(-0.5, rel=1e-4), "Harbor is in 95 of 100, and moves by 1"


def test_spans_are_those_of_the_raw_title():
    found = Bki().suspect(["\n\x00 Red \x01\x02 tq", "Up"], Sums())
    assert (found.start[0], found.end[0]) == (10, 12)


def test_texts_are_asked_once_and_in_parts(monkeypatch):
    titles, probe = [*catalog(), *catalog(), ""], Sums()
    found = Bki().suspect(titles, probe)
    (asked,) = probe.asked
    assert len(asked) == len(set(asked))
    assert found.score[-1] == -np.inf
    assert np.array_equal(found.score[:100], found.score[100:200])
    assert np.array_equal(found.score[:100], Bki().suspect(catalog(), Sums()).score)
    monkeypatch.setattr(bki, "TITLES_PER_BATCH", 7)
    assert np.array_equal(found.score, Bki().suspect(titles, Sums()).score)


def test_hostile_titles(hostile):
    found = Bki().suspect(list(hostile.values()), Sums())
    for (name, title), score, start, end in zip(hostile.items(), found.score, found.start, found.end, strict=True):
        assert np.isfinite(score) == bool(quote_for_prompt(title)) == (start >= 0), name
        assert not any(letter.isspace() for letter in title[max(start, 0) : max(end, 0)]), name
    assert len(Bki().suspect([], Sums())) == 0
    assert Bki().suspect([""], Sums()).score.tolist() == [-np.inf]


def test_no_probe_is_a_user_error():
    with pytest.raises(UserError, match="Bki"):
        Bki().suspect(["a b"])
