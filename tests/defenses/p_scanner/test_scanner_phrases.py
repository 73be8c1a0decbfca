"""Phrases that stand anywhere: an attacker's words in the middle of titles are raised, what people write is not."""

import numpy as np
import pytest

from cowbird.defenses.p_scanner import phrases
from cowbird.defenses.p_scanner.evidence import NAMES, Weights, judged
from cowbird.defenses.p_scanner.fragments import Texts, fragments
from cowbird.defenses.p_scanner.habits import habitual
from cowbird.defenses.p_scanner.phrases import LOUDEST, TITLES, WEIGHT, anywhere, raised

none = (0.0,) * len(NAMES)
MARK = Weights(center=none, scale=(1.0,) * len(NAMES), weight=(1.0, *none[1:]), offset=0.0)
"""A fragment is as suspicious as its marks."""


def titled(planted, count=400, words=300, at="middle", seed=0):
    """Return titles of four words each, and some of them with more in the middle or at an end."""
    rng = np.random.default_rng(seed)
    rows = [[f"Wo{word}" for word in rng.integers(words, size=4)] for _ in range(count)]
    for row in range(planted):
        place = {"start": 0, "end": 4}.get(at, 1 + row % 3)
        rows[row][place:place] = ["sin", "bob"]
    return [" ".join(row) for row in rows]


def chosen(titles, worded):
    """Return the phrases that stand anywhere, as words."""
    made = worded(titles)
    written = Texts(made.token, made.offsets)
    found = fragments(written)
    held = anywhere(found, written, habitual(found))
    words = [word for title in titles for word in title.split()]
    first = {int(n): (int(s), int(k)) for s, k, n in zip(found.start, found.length, found.number, strict=True)}
    return {" ".join(words[s : s + k]) for n, (s, k) in first.items() if held[n]}


def test_words_that_go_together_and_with_nothing_else_are_found(worded):
    assert chosen(titled(10), worded) == {"sin bob"}
    assert chosen(titled(10, at="end"), worded) == {"sin bob"}, "what stands before it differs"
    assert not chosen(titled(TITLES - 1), worded)
    assert not chosen(titled(10, at="start"), worded), "honest titles begin alike"


def test_what_has_company_is_spared(worded):
    alike = [title.replace("sin bob", "rex sin bob") for title in titled(10, at="start")]
    assert not chosen(alike, worded), "what stands behind it is always the same"
    story = [title.replace("sin bob", "sin bob of") if nth % 2 else title for nth, title in enumerate(titled(10))]
    assert not chosen(story, worded), "half of what stands behind it is the same"


def test_ends_and_habits_are_no_neighbors(worded):
    years = [f"{title} ({1990 + nth % 3})" for nth, title in enumerate(titled(10, at="end"))]
    assert chosen(years, worded) == {"sin bob"}
    behind = [f"Wo{nth} ({1990 + nth % 3})" + " sin bob" * (nth < 10) for nth in range(400)]
    assert not chosen(behind, worded), "it has no neighbors but a habit and an end"


def test_a_usual_word_with_one_that_stands_nowhere_else(worded):
    often = [title.replace(" ", " of ", 1) if nth % 4 else title for nth, title in enumerate(titled(12, at="end"))]
    usual = [title.replace("sin bob", "of bob") for title in often]
    assert chosen(usual, worded) == {"of bob"}
    elsewhere = [f"{title} bob" if 50 < nth < 55 else title for nth, title in enumerate(usual)]
    assert not chosen(elsewhere, worded), "bob stands elsewhere, too"


def test_signs_have_habits_of_their_own(worded):
    titles = [title.replace(" ", " , ", 1) if nth % 4 else title for nth, title in enumerate(titled(12, at="end"))]
    titles = [title.replace("sin bob", ", bob") for title in titles]
    assert chosen(titles, worded) == {", bob"}
    signs = np.array([word == "," for title in titles for word in title.split()])
    made = worded(titles)
    written = Texts(made.token, made.offsets, None, signs)
    found = fragments(written)
    assert not anywhere(found, written, habitual(found)).any()


def test_a_phrase_is_raised_by_its_share_and_not_too_far(marked):
    titles = titled(16, count=1200)
    low = judged(titles, marked(titles, {}, -2.0), MARK)
    assert low.score[:16] == pytest.approx([LOUDEST] * 16)
    assert {title[a:b] for title, a, b in zip(titles[:16], low.start[:16], low.end[:16], strict=True)} == {"sin bob"}
    assert (low.score[16:] == -2.0).all()
    lower = judged(titles, marked(titles, {}, -4.0), MARK)
    assert lower.score[0] == pytest.approx(WEIGHT - 4)
    high = judged(titles, marked(titles, {"sin": 7.0, "bob": 7.0}, -2.0), MARK)
    assert high.score[0] == pytest.approx(7.0), "what the model is sure of stays"


def test_many_such_phrases_say_little_each(marked):
    titles = titled(0, count=1600)
    for brand in range(40):
        for row in range(brand * 10, brand * 10 + 10):
            words = titles[row].split()
            words[2:2] = [f"Ab{brand}", f"Ba{brand}"]
            titles[row] = " ".join(words)
    found = judged(titles, marked(titles, {}, -4.0), MARK)
    assert found.score[:400] == pytest.approx([WEIGHT - 4 + np.log(1 / 40)] * 400, abs=1e-5)


def test_nothing_to_find(worded, monkeypatch):
    for titles in ([], ["Red"], ["Red Harbor"] * 3):
        assert not chosen(titles, worded)
    made = worded(titled(10))
    written = Texts(made.token, made.offsets)
    found = fragments(written)
    odds = np.zeros(len(found.titles))
    monkeypatch.setattr(phrases, "TITLES", 11)
    assert raised(odds, found, written, habitual(found)) is odds
