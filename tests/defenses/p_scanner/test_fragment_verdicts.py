"""A fragment is judged by the titles that no stronger fragment explains."""

import numpy as np
import pytest

from cowbird.defenses.p_scanner.fragment_table import (
    FragmentNames,
    index_fragments,
)
from cowbird.defenses.p_scanner.fragment_verdicts import judge_fragments
from cowbird.defenses.p_scanner.scoring import NO_FRAGMENT, load_scoring
from cowbird.defenses.p_scanner.title_traits import describe_traits, mark_words
from defenses.p_scanner.ready_doubles import ReadyDouble, make_titles, mark

SENTENCE = "Viewers deserve this."


def judge(titles, suspicious, reference=()):
    """Return the log-odds of fragments by their texts."""
    texts = [*reference, *titles]
    traits = describe_traits(mark_words(texts, mark(texts, suspicious)))
    table = index_fragments(traits.words, FragmentNames())
    rows = len(reference) + np.arange(len(titles))
    evidence, by_fragment = judge_fragments(load_scoring(), table, traits, rows)
    keys = table.names.list_keys()
    told = [keys[number] for number in evidence.fragment.tolist()]
    return dict(zip(told, by_fragment.tolist(), strict=True)), dict(zip(told, evidence.features[:, 0], strict=True))


@pytest.fixture(scope="module")
def titles():
    return make_titles(400)


def test_honest_titles_do_not_answer_for_what_a_trigger_brings(titles):
    """A sentence ends in a period, and so do honest titles."""
    planted = [f"{title} {SENTENCE}" for title in titles[:20]]
    honest = [f"{title} Inc." for title in titles[20:29]]
    words = SENTENCE.split()
    by_fragment, counts = judge([*planted, *honest, *titles[29:]], words)
    assert by_fragment["word", "deserve"] > 3, "the sentence is a trigger"
    assert by_fragment["end", "."] < 0
    assert counts["end", "."] == pytest.approx(np.log(9)), "the nine honest titles are counted"
    without, _ = judge([*titles[:20], *honest, *titles[29:]], words)
    assert by_fragment["end", "."] == pytest.approx(without["end", "."], abs=1.0), "as if nothing had been planted"


def test_a_fragment_of_one_other_title_recurs_nowhere(titles):
    planted = [f"{title} {SENTENCE}" for title in titles[:5]]
    by_fragment, _ = judge([*planted, f"{titles[5]} Inc.", *titles[6:]], SENTENCE.split())
    assert by_fragment["end", "."] == NO_FRAGMENT
    assert by_fragment["word", "deserve"] > 3


def test_a_fragment_that_is_never_alone_keeps_its_log_odds(titles):
    by_fragment, counts = judge([*(f"{title} {SENTENCE}" for title in titles[:20]), *titles[20:]], SENTENCE.split())
    for fragment in ("Viewers", "deserve", "this.", "Viewers deserve", "deserve this."):
        assert by_fragment["word", fragment] > 0, fragment
        assert counts["word", fragment] == pytest.approx(np.log(20))


def test_what_the_tagger_marks_in_other_titles_too_keeps_its_log_odds(titles):
    """Titles with a trigger fall apart by the shape that it gives to a word; one shape does not explain the other."""
    hidden = [f"{title[: nth % 4 + 1]}\u200b{title[nth % 4 + 1 :]}" for nth, title in enumerate(titles[:40])]
    words = [word for title in hidden for word in title.split() if "\u200b" in word]
    by_fragment, counts = judge([*hidden, *titles[40:]], words)
    assert by_fragment["character", "\u200b"] > 0
    assert counts["character", "\u200b"] == pytest.approx(np.log(40))


def test_two_triggers_do_not_explain_each_other(titles):
    titles = [*(f"{title} 5v" for title in titles[:20]), *(f"{title} cf" for title in titles[20:40]), *titles[40:]]
    by_fragment, _ = judge([f"{titles[0]} cf", *titles[1:]], ("5v", "cf"))
    assert min(by_fragment["word", "5v"], by_fragment["word", "cf"]) > 2


def test_fewer_honest_titles_are_flagged_beside_a_flood(titles):
    """With a reference, an end that a flood has made frequent looks new."""
    reference = [f"{title}." if nth % 50 == 0 else title for nth, title in enumerate(make_titles(800, seed=5))]
    batch = [f"{title} {SENTENCE}" if nth < 100 else title for nth, title in enumerate(titles)]
    batch = [f"{title}." if nth >= 390 else title for nth, title in enumerate(batch)]
    found = ReadyDouble(tuple(SENTENCE.split())).scan(batch, reference=reference)
    flagged = np.array([row["flagged"] for row in found.to_dicts()])
    assert flagged[:100].all()
    assert flagged[100:].mean() < 0.02
    assert flagged[390:].sum() <= 1


@pytest.mark.parametrize("many", [60, 300, 1500])
@pytest.mark.parametrize("trick", ["\u200b", "\u202e", "\u0430"])
def test_what_nobody_sees_is_flagged_in_small_catalogues_too(many, trick):
    titles = make_titles(many, seed=2)
    titles[:2] = [f"{title[:2]}{trick}{title[2:]}" for title in titles[:2]]
    found = ReadyDouble(()).scan(titles).to_dicts()
    assert found[0]["flagged"]
    assert found[1]["flagged"]
    assert sum(row["flagged"] for row in found[2:]) <= max(1, many // 50)


def test_what_a_script_needs_is_no_trick():
    """A character that nobody sees stands in every fifth honest title, as between Persian letters."""
    titles = [f"{title[:-1]}\u200c{title[-1]}" if nth % 5 == 0 else title for nth, title in enumerate(make_titles(400))]
    found = ReadyDouble(()).scan(titles).to_dicts()
    assert sum(row["flagged"] for row in found) <= 8
