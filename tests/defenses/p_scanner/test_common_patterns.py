"""Habits: which tokens are digits, and rules for characters by how often honest titles break them."""

import numpy as np
import pytest

from cowbird.defenses.p_scanner.rounds.common_patterns import MAX_RULE_ODDS, find_digit_tokens, judge_by_characters
from cowbird.defenses.p_scanner.token_logits import tokenize_titles


def test_digits_are_found_wherever_a_tokenizer_puts_them(loaded):
    titles = ["Red 1995", "", "x (2001) \ud800 7", "²³ ٣ 4th", "caf\u00e9 12"]
    made = tokenize_titles(loaded.tokenizer, titles)
    found = find_digit_tokens(titles, made)
    rows = np.repeat(np.arange(len(titles)), np.diff(made.offsets))
    for nth, row in enumerate(rows):
        text = titles[row][made.first[nth] : made.after[nth]].strip(" ")
        assert found[nth] == (text != "" and text.isascii() and text.isdigit()), text
    assert found.sum() >= 7


def test_a_rule_counts_by_how_much_more_often_it_is_broken_than_by_honest_titles():
    honest = ["Duran Duran", "Liar Liar", *(f"Red Harbor {nth}" for nth in range(510))]
    assert np.isneginf(judge_by_characters(honest)[0].score).all(), "two echoes in 512 titles are honest: 8 bits"
    echoes = [f"Harbor Harbor {chr(97 + nth)}x" for nth in range(10)]
    found, shared = judge_by_characters(honest[:2] + echoes + honest[12:])
    assert found.score[:12] == pytest.approx([np.log((12 - 2) / 2)] * 12)
    assert shared[:12].tolist() == [12] * 12
    assert not shared[12:].any()
    assert (found.start[2], found.end[2]) == (7, 13)


def test_what_honest_titles_do_less_often_is_louder():
    honest = ["Duran Duran", "Liar Liar", *(f"Red Harbor {nth}" for nth in range(510))]
    for echo, odds in (("Harbor Harbor {}x", 2.5), ("{}x Harbor Harbor", 9.0), ("Harbor Harbor Harbor {}x", 39.0)):
        found, _ = judge_by_characters(honest[:507] + [echo.format(chr(97 + nth)) for nth in range(5)])
        assert found.score[507:] == pytest.approx([np.log(odds if odds > 3 else 5 / 2)] * 5), echo
        assert found.score[0] == pytest.approx(np.log(5 / 2)), "echoes that begin their titles, or are all of them"


def test_a_rule_that_a_tenth_of_the_titles_break_is_none():
    lower, plain = "red harbor", "Red Harbor"
    few, many = (
        judge_by_characters([f"{lower} {nth}" for nth in range(n)] + [plain] * (1000 - n))[0].score for n in (100, 101)
    )
    assert np.isfinite(few[:100]).all() and np.isneginf(few[100:]).all()
    assert np.isneginf(many).all()
    assert np.isneginf(judge_by_characters([lower] * 1000)[0].score).all(), "a catalogue without capitals"
    assert np.isfinite(judge_by_characters(["Red\u00a0Harbor"] * 20)[0].score).all(), "twenty titles are no habit"


def test_what_honest_titles_never_break_is_loud_alone():
    found, shared = judge_by_characters(["Red H\u200brb", "Red Harbor"])
    assert (found.score[0], found.score[1], shared.tolist()) == (MAX_RULE_ODDS, -np.inf, [1, 0])


def test_titles_are_judged_apart():
    titles = ["Duran Duran", "h4rbor"] * 40
    found, shared = judge_by_characters(titles, apart=True)
    assert np.isneginf(found.score[::2]).all(), "an echo alone is honest"
    assert found.score[1::2] == pytest.approx([np.log(3)] * 40), "however many there are"
    assert set(shared.tolist()) == {0, 1}
    assert judge_by_characters(titles[:20])[0].score.min() > 2, "together they are too many"
    assert len(judge_by_characters([])[0]) == len(judge_by_characters([], apart=True)[0]) == 0


def test_small_letters_throughout_are_odd_where_they_are_rare():
    titles = [f"Red Harbor {nth}" for nth in range(500)]
    assert judge_by_characters([f"red {nth}" for nth in range(12)] + titles)[0].score[0] == pytest.approx(
        np.log(10 / 2)
    )
    assert judge_by_characters([f"red harbor {nth}" for nth in range(12)] + titles)[0].score[0] == pytest.approx(
        np.log(95)
    )
    assert judge_by_characters([f"RED HARBOR {nth}" for nth in range(7)] + titles)[0].score[0] == -np.inf
