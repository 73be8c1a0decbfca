"""Evidence: what is known of fragments, the logistic fit, what plantings teach, and verdicts against loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cowbird.defenses.p_scanner.rounds import ngram_scoring as evidence
from cowbird.defenses.p_scanner.rounds.common_patterns import MAX_RULE_ODDS, judge_by_characters, list_tokens
from cowbird.defenses.p_scanner.rounds.ngram_scoring import (
    COMMON_NGRAM_ODDS,
    MAX_SECONDED_ODDS,
    NGRAM_FEATURES,
    RIDGE_WEIGHT,
    SPAN_ODDS_MARGIN,
    NgramClassifier,
    describe_ngrams,
    fit_classifier,
    judge_titles,
    list_examples,
)
from cowbird.defenses.p_scanner.rounds.ngrams import NGRAM_LENGTHS, TokenSequences, find_ngrams
from cowbird.defenses.p_scanner.token_logits import read_logits


def weights(offset=0.0, **told):
    """Return weights of which all but those told are zero."""
    held = [told.get(name.replace(" ", "_"), 0.0) for name in NGRAM_FEATURES]
    return NgramClassifier(
        center=(0.0,) * len(NGRAM_FEATURES), scale=(1.0,) * len(NGRAM_FEATURES), weight=tuple(held), offset=offset
    )


MARK = weights(mark=1.0)


def found_of(marks):
    return find_ngrams(TokenSequences(marks.tokenized.token, marks.tokenized.offsets))


def runs(found, marks, titles):
    """Return the words of each fragment, in their order."""
    words = [word for title in titles for word in title.split()]
    return {n: tuple(words[s : s + k]) for s, k, n in zip(found.start, found.length, found.number, strict=True)}


def test_what_is_known_of_fragments(marked):
    titles = ["a zq", "b zq", "c d zq", "e zq f", "g"]
    marks = marked(titles, {"zq": 2.0, "d": 1.0}, -1.0)
    found = found_of(marks)
    known, of = describe_ngrams(found, marks), {run: n for n, run in runs(found, marks, titles).items()}
    assert known.shape == (len(of), len(NGRAM_FEATURES))
    often, together, edge = np.log(4), np.log(4) + np.log(10 / 4) - np.log(10), 0.75
    wanted = [2.0, often, 2 * often, together, together * often, edge, edge * often, 1.0, 2.0, 0.0, 0.0]
    np.testing.assert_allclose(known[of["zq",]], wanted, atol=1e-9)
    wanted = [1.5, *[0.0] * 8, np.log(2), 1.5 * np.log(2)]
    np.testing.assert_allclose(known[of["d", "zq"]], wanted, atol=1e-9, err_msg="what does not recur tells no more")


def problem(seed, count=300, columns=5):
    rng = np.random.default_rng(seed)
    given = rng.normal(size=(count, columns)) * [1, 5, 0.1, 1, 0][:columns] + 2
    planted = given[:, 0] + given[:, 1] + rng.normal(size=count) > 8
    return given, planted, rng.uniform(0.1, 2, count)


def loss(held, columns, planted, share):
    odds = columns @ held[:-1] + held[-1]
    ridge = RIDGE_WEIGHT * share.sum() / 2 * (np.square(held[:-1]).sum() + 1e-6 * held[-1] ** 2)
    return share @ (np.logaddexp(0, odds) - planted * odds) + ridge


@pytest.mark.parametrize("seed", range(3))
def test_the_fit_is_that_of_a_general_optimizer(seed):
    from scipy.optimize import minimize

    given, planted, share = problem(seed)
    found = fit_classifier(given, planted, share)
    center = np.average(given, axis=0, weights=share)
    np.testing.assert_allclose(found.center, center)
    spread = np.sqrt(np.average((given - center) ** 2, axis=0, weights=share))
    np.testing.assert_allclose(found.scale, spread, atol=2e-6)
    columns = (given - center) / (spread + 1e-6)
    best = minimize(loss, np.zeros(given.shape[1] + 1), (columns, planted, share), tol=1e-10).x
    np.testing.assert_allclose([*found.weight, found.offset], best, atol=1e-3)
    np.testing.assert_allclose(found.odds(given), columns @ best[:-1] + best[-1], atol=1e-2)


@pytest.mark.parametrize("case", ["apart", "none planted", "wild"])
def test_the_fit_comes_to_rest(case):
    rng = np.random.default_rng(0)
    given = rng.normal(size=(200, 4)) if case != "wild" else np.exp(3 * rng.normal(size=(200, 4)))
    planted = given[:, 0] > (np.inf if case == "none planted" else np.quantile(given[:, 0], 0.97))
    share = np.where(planted, 20.0, 1.0)
    found = fit_classifier(given, planted, share)
    columns = (given - found.center) / found.scale
    off = share * (1 / (1 + np.exp(-found.odds(given))) - planted)
    slope = columns.T @ off + RIDGE_WEIGHT * share.sum() * np.array(found.weight)
    assert np.abs(slope).max() < 1e-6 * share.sum()
    assert abs(off.sum()) < 1e-4 * share.sum()
    assert NgramClassifier.model_validate_json(found.model_dump_json()) == found


def test_what_a_planting_teaches(marked, monkeypatch):
    titles = ["a zq xq", "b zq xq", "c zq", "d", "a d", "b d", "zq e"]
    marks = marked(titles, {"zq": 2.0, "xq": 1.0})
    inside = np.isin([word for title in titles for word in title.split()], ["zq", "xq"])
    inside[-2] = False  # this title has the word by itself
    found = found_of(marks)
    of = {run: n for n, run in runs(found, marks, titles).items()}
    known, planted, share = list_examples(found, marks, inside, np.random.default_rng(0))
    every = describe_ngrams(found, marks)
    # `zq` is inside in three of four places, which is neither here nor there.
    wanted = [every[of[run]] for run in (("xq",), ("zq", "xq"))]
    np.testing.assert_allclose(sorted(known[planted].tolist()), sorted(np.array(wanted).tolist()))
    assert (~planted).sum() == len(of) - 3
    np.testing.assert_allclose(share[planted], (~planted).sum() / 2 / 4)
    assert (share[~planted] == 1).all()
    monkeypatch.setattr(evidence, "RARE_NGRAMS_TAUGHT", 2)
    few, planted, _ = list_examples(found, marks, inside, np.random.default_rng(0))
    assert (~planted).sum() == 2 + 1, "two that are rare, and `d`, which recurs"
    assert any(np.array_equal(row, every[of["d",]]) for row in few[~planted])


def naive(titles, marks, odds_of):
    """Return score and span of each title by loops; `odds_of` gives the odds of a run of words from its mean mark."""
    words = [title.split() for title in titles]
    at = np.split(marks.mark, marks.tokenized.offsets[1:-1])
    means = {}
    for row, mark in zip(words, at, strict=True):
        for k in NGRAM_LENGTHS:
            for start in range(len(row) - k + 1):
                means.setdefault(tuple(row[start : start + k]), []).append(np.mean(mark[start : start + k]))
    told = []
    for nth, row in enumerate(words):
        odds = {
            (start, start + k): odds_of(np.mean(means[tuple(row[start : start + k])]))
            for k in NGRAM_LENGTHS
            for start in range(len(row) - k + 1)
        }
        worst = max(odds.values())
        near = {place for (a, b), value in odds.items() if value >= worst - SPAN_ODDS_MARGIN for place in range(a, b)}
        first = min(
            ((a, b) for (a, b), value in odds.items() if abs(value - worst) < 1e-9),
            key=lambda place: (place[1] - place[0], place[0]),
        )[0]
        low = high = first
        while low - 1 in near:
            low -= 1
        while high + 1 in near:
            high += 1
        begin = marks.tokenized.offsets[nth]
        told.append((worst, marks.tokenized.first[begin + low], marks.tokenized.after[begin + high]))
    return told


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=8), min_size=1, max_size=5), st.integers(0, 9))
def test_verdicts_against_loops(marked, rows, seed):
    titles = [" ".join("Abcdefghij"[letter] + "o" for letter in row) for row in rows]
    told = dict(
        zip([letter + "o" for letter in "Abcdefghij"], np.random.default_rng(seed).normal(0, 3, 10), strict=True)
    )
    marks = marked(titles, told)
    found = judge_titles(titles, marks, weights(1.0, mark=1.0))
    quiet = judge_by_characters(titles)[0].score == -np.inf
    for nth, (score, start, end) in enumerate(naive(titles, marks, lambda mean: mean + 1.0)):
        if quiet[nth]:
            np.testing.assert_allclose(found.score[nth], score, atol=1e-4)
            assert (found.start[nth], found.end[nth]) == (start, end)
        else:
            assert found.score[nth] >= score - 1e-4


def test_spans_take_in_what_is_nearly_as_bad(marked):
    titles = ["Red zq xq Harbor", "Blue zq", "Garden"]
    found = judge_titles(titles, marked(titles, {"zq": 2.0, "xq": 0.5}), MARK)
    np.testing.assert_allclose(found.score, [2.0, 2.0, -3.0])
    assert list(zip(found.start.tolist(), found.end.tolist(), strict=True)) == [(4, 9), (5, 7), (0, 6)]
    found = judge_titles(titles, marked(titles, {"zq": 2.0, "xq": -2.5}), MARK)
    assert (found.start[0], found.end[0]) == (4, 6), "too far behind"


def test_a_rule_that_speaks_louder_gives_score_and_span(marked):
    titles = ["Red H\u200brb zq", "Red  h zq", "Red zq"]
    doubled = np.log(2.0**12 - 1)
    for mark, scores, starts in ((1.9, [MAX_RULE_ODDS, doubled, 1.9], [5, 4, 4]), (13.0, [13.0] * 3, [9, 7, 4])):
        found = judge_titles(titles, marked(titles, {"zq": mark}), MARK)
        np.testing.assert_allclose(found.score, scores, rtol=1e-6)
        assert found.start.tolist() == starts


def test_marks_second_a_rule(marked):
    titles = ["Red h4rbor", "Red Blue", "Garden Letter"] + [f"w{nth}" for nth in range(8)]
    for mark, more in ((-3.0, 0.0), (-2.4, 0.6), (1.0, MAX_SECONDED_ODDS)):
        found = judge_titles(titles, marked(titles, {"h4rbor": mark}), MARK)
        assert found.score[0] == pytest.approx(np.log(3) + more), "a title's worst word is -3 in the median"
        apart = judge_titles(titles, marked(titles, {"h4rbor": mark}), MARK, np.arange(14))
        assert apart.score[0] == pytest.approx(max(np.log(3), mark)), "what a title is by itself, others do not change"


def test_nothing_is_left_of_blank_titles(loaded, marked):
    titles = ["", " ", "\t", "zq"]
    found = judge_titles(titles, marked(titles, {}), weights(9.0))
    assert found.score[:2].tolist() == [-np.inf, -np.inf]
    assert found.score[2] == MAX_RULE_ODDS, "a tab breaks a rule"
    assert found.start.tolist() == [-1, -1, 0, 0]
    assert len(judge_titles([], read_logits(loaded, [], torch.device("cpu")), MARK)) == 0


def test_recurrence_counts_unless_tokens_are_told_apart(marked):
    titles = [f"{word} zq" for word in "abcdef"]
    marks = marked(titles, {}, 0.0)
    often = weights(often=1.0)
    np.testing.assert_allclose(judge_titles(titles, marks, often).score, np.log(6), rtol=1e-6)
    apart = np.arange(12, dtype=np.int32)
    np.testing.assert_allclose(judge_titles(titles, marks, often, apart).score, 0, atol=1e-7)


@pytest.mark.parametrize(("count", "score"), [(2, 0.0), (3, 5.0), (4, 5.0)])
def test_three_titles_are_recurrence(marked, count, score):
    titles = [f"{letter} zq" for letter in "abcd"[:count]]
    assert (judge_titles(titles, marked(titles, {}, 0.0), weights(recurs=5.0)).score == score).all()


# Marks of a reader that knows less


def test_marks_of_triggers_fade_each_by_a_share_of_its_own(marked):
    marks = marked(["a b zq zq", "c xv", "d e"], {"zq": 9.0, "xv": 7.0}, -5.0)
    trigger = np.array([-1, -1, 0, 0, -1, 1, -1, -1])
    whole = 0
    for seed in range(60):
        found = evidence.fade_logits(marks, trigger, np.random.default_rng(seed)).mark
        assert (found[trigger < 0] == -5).all()
        share = (found[[2, 3, 5]] + 5) / (marks.mark[[2, 3, 5]] + 5)
        assert share[0] == pytest.approx(share[1], abs=1e-5), "all tokens of a trigger alike"
        assert (share >= evidence.MIN_LOGIT_SHARE - 1e-5).all()
        assert (share <= 1 + 1e-5).all()
        whole += int((share[[0, 2]] > 1 - 1e-5).sum())
    assert 25 <= whole <= 55, "one trigger in three keeps its marks"


def test_where_nothing_is_clean_or_planted_marks_stay(marked):
    marks = marked(["zq zq"], {"zq": 9.0})
    rng = np.random.default_rng(0)
    assert (evidence.fade_logits(marks, np.zeros(2, dtype=int), rng).mark == 9).all()
    assert (evidence.fade_logits(marks, np.full(2, -1), rng).mark == 9).all()


def test_what_many_titles_share_is_a_habit_and_digits_are_told_alike(marked):
    titles = [f"Red a{nth} {1980 + nth % 5}" for nth in range(30)] + [f"zq B{nth}" for nth in range(5)]
    recurs = weights(recurs=5.0)
    found = judge_titles(titles, marked(titles, {}, 0.0), recurs)
    assert (found.score[:30] == 0).all(), "Red is a habit, and so are the years"
    assert (found.score[30:] == 5).all()
    few = [title for nth, title in enumerate(titles) if nth % 3]
    assert (judge_titles(few, marked(few, {}, 0.0), recurs).score == 5).all(), "a few titles have none"
    only = [f"{nth:03d}" for nth in range(25)]
    assert (judge_titles(only, marked(only, {}, 9.0), MARK).score == COMMON_NGRAM_ODDS).all()


def test_habits_teach_nothing(marked):
    titles = [f"Red a{nth} zq" if nth < 5 else f"Red a{nth}" for nth in range(30)]
    marks = marked(titles, {"zq": 3.0})
    found = find_ngrams(list_tokens(titles, marks.tokenized))
    inside = np.array([word == "zq" for title in titles for word in title.split()])
    known, planted, _ = list_examples(found, marks, inside, np.random.default_rng(0))
    assert planted.sum() == 1
    assert known[:, NGRAM_FEATURES.index("often")].max() == np.log(5), "Red, in thirty titles, is not among them"
