"""What a run came to, in lines and in words: clean, attacked, defended, the cost, and never more than is shown."""

from pathlib import Path

import pytest

from cowbird.report.outcomes import Effect, judge_effect, list_outcomes
from cowbird.report.plots import make_axis, make_scatter, make_strips
from cowbird.report.run_files import RunFiles
from cowbird.report.verdicts import Tone, bound_zero, make_verdicts, summarize_verdicts
from doubles.result_rows import make_answers, make_rate, make_row

UNDEFENDED, CURED = make_answers(), make_answers(defense="cure", attacked=6, accuracy=70, lost=(0.02, 0.01, 0.03))


def outcomes(*rows, label="run"):
    return list_outcomes(RunFiles(label, Path("x"), tuple(row for part in rows for row in part), "0" * 64))


def judge(*rows):
    (verdict,) = make_verdicts(outcomes(*rows))
    return verdict


def test_a_line_a_defense_with_its_numbers():
    first, second = outcomes(CURED, UNDEFENDED)
    assert (first.defense, first.bare, second.defense, second.bare) == ("none", True, "cure", False)
    assert (first.clean.value, first.attacked.value, first.value.value) == (0.05, 0.95, 0.95)
    assert (second.clean.value, second.attacked.value, second.value.value) == (0.05, 0.95, 0.06)
    assert (second.accuracy_clean.value, second.accuracy_value.value) == (0.72, 0.70)
    assert (second.cost.value, second.cost.low, second.cost.high) == (0.02, 0.01, 0.03)


def test_the_cost_of_an_undefended_model_is_its_difference_turned_round():
    more = make_row(metric="auc_difference", group="all", value=-0.02, low=-0.05, high=0.01)
    (found,) = outcomes([*UNDEFENDED, more])
    assert (found.cost.value, found.cost.low, found.cost.high) == (0.02, -0.01, 0.05)


def test_a_cost_that_no_row_tells_is_made_of_the_accuracies():
    (found,) = outcomes(UNDEFENDED)
    assert found.cost.value == pytest.approx(0.02)
    assert found.cost.low < 0 < found.cost.high


def test_the_strongest_attack_comes_first():
    weak = make_answers(attack="weak", attacked=20)
    assert [each.attack for each in outcomes(weak, UNDEFENDED)] == ["word", "weak"]


def test_victims_that_rank_are_read_at_the_cutoff():
    ranks = {"k": 10, "victim": "ranker"}
    rows = [make_rate(30, metric="exposure_hr", group=group, **ranks) for group in ("target", "other", "all")]
    rows += [make_rate(1, metric="exposure_hr_clean", group="target", **ranks)]
    rows += [make_rate(40, metric="ndcg", group="all", **ranks)]
    rows += [make_rate(42, metric="ndcg", group="all", attack="none", **ranks)]
    (found,) = outcomes(rows)
    assert (found.group, found.k, found.clean.value, found.accuracy_clean.value) == ("target", 10, 0.01, 0.42)


@pytest.mark.parametrize(
    ("rows", "tone", "words"),
    [
        ([UNDEFENDED], Tone.bad, "The attack works. ASR (trigger) rises from 0.050 [0.022, 0.112] to 0.950"),
        ([make_answers(attacked=7)], Tone.unclear, "No effect of the attack is shown."),
        ([make_answers(clean=90, attacked=7)], Tone.unclear, "The attack does not work."),
        ([UNDEFENDED[:1]], Tone.unclear, "What the attack does is not shown."),
        ([CURED], Tone.unclear, "was not measured without a defense"),
    ],
)
def test_words_about_an_attack(rows, tone, words):
    line = judge(*rows).lines[0]
    assert (line.tone, line.label) == (tone, "attack")
    assert words in line.words


@pytest.mark.parametrize(
    ("attacked", "tone", "words"),
    [
        (6, Tone.good, "It undoes the attack as far as these numbers tell: 0.060"),
        (1, Tone.good, "It undoes the attack"),
        (40, Tone.bad, "It weakens the attack, but 0.400"),
        (93, Tone.bad, "No effect of the defense is shown: 0.930"),
    ],
)
def test_words_about_a_defense(attacked, tone, words):
    line = judge(UNDEFENDED, make_answers(defense="cure", attacked=attacked)).lines[1]
    assert (line.tone, line.label) == (tone, "cure")
    assert words in line.words


def test_a_defense_that_makes_it_worse():
    line = judge(make_answers(attacked=20), make_answers(defense="cure", attacked=95)).lines[1]
    assert (line.tone, "stronger" in line.words) == (Tone.bad, True)


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ((0.02, 0.01, 0.03), "It costs accuracy: +0.020 [+0.010, +0.030] AUC lost."),
        ((0.02, -0.01, 0.03), "No cost in accuracy is shown: +0.020 [-0.010, +0.030] AUC lost."),
        ((-0.02, -0.03, -0.01), "Accuracy is higher than the clean model's"),
        ((0.02, None, None), "+0.020 AUC lost, without an interval."),
    ],
)
def test_words_about_the_cost(lost, words):
    assert words in judge(UNDEFENDED, make_answers(defense="cure", attacked=6, lost=lost)).lines[1].words


def test_without_an_undefended_model_nothing_is_called_undone():
    verdict = judge(CURED, make_answers(defense="poor", attacked=60))
    assert {line.label: line.tone for line in verdict.lines[1:]} == {"cure": Tone.unclear, "poor": Tone.bad}


def test_the_headline_counts():
    rows = [UNDEFENDED, CURED, make_answers(attack="b"), make_answers(attack="b", defense="cure", attacked=50)]
    words = " ".join(summarize_verdicts(make_verdicts(outcomes(*rows, make_answers(attack="weak", attacked=5)))))
    assert "2 attacks of 3 are shown to work." in words
    assert "Defenses undo, of those that work: cure 1 of 2." in words
    assert summarize_verdicts([]) == ["No attack was measured in these files."]


def test_nothing_is_ever_called_safe():
    cases = [[UNDEFENDED, CURED], [CURED], [make_answers(attacked=5)]]
    for rows in cases:
        verdicts = make_verdicts(outcomes(*rows))
        words = " ".join([*summarize_verdicts(verdicts), *(line.words for each in verdicts for line in each.lines)])
        assert "safe" not in words.lower()


def test_a_zero_without_an_interval_gets_its_largest_likely_rate():
    zero = make_row(value=0.0, low=None, high=None, n=100)
    assert bound_zero(zero).high == pytest.approx(0.0295, abs=1e-3)
    assert bound_zero(make_row()) == make_row()
    assert judge_effect(bound_zero(zero), make_rate(30)) == Effect.above


def test_strips_stand_where_their_values_are():
    axis, strips = make_strips(outcomes(UNDEFENDED, CURED))
    assert [(strip.kind, strip.label) for strip in strips] == [
        ("clean", "clean model"), ("attacked", "attacked, no defense"), ("defended", "cure")
    ]  # fmt: skip
    assert (axis.low, axis.high) == (0.0, 1.0)
    assert [strip.at for strip in strips] == [5.0, 95.0, 6.0]
    assert strips[0].low < 5 < strips[0].high


def test_seeds_stand_beside_their_mean():
    rows = [row for seed, count in ((0, 90), (1, 80)) for row in make_answers(attacked=count, seed=seed)]
    _, strips = make_strips(outcomes(rows))
    assert strips[1].seeds == (90.0, 80.0)
    assert (strips[1].at, strips[1].n) == (85.0, "2 seeds")


def test_trade_offs_need_two_points():
    one = outcomes(UNDEFENDED)
    assert make_scatter("x", one) is None
    found = make_scatter("x", outcomes(UNDEFENDED, CURED))
    assert [(mark.number, mark.label, mark.y) for mark in found.marks] == [(1, "no defense", 5.0), (2, "cure", 94.0)]


@pytest.mark.parametrize("values", [[], [0.0], [0.3, 0.7], [-2.0, 5.0], [1e-6], [12345.0], [-0.04, 0.017]])
def test_axes_hold_their_values_and_have_round_ticks(values):
    axis = make_axis("x", values)
    assert axis.low <= min([*values, 0.0])
    assert axis.high >= max([*values, 0.0])
    assert 2 <= len(axis.ticks) <= 8
    assert [axis.ticks[0][0], axis.ticks[-1][0]] == [0.0, 100.0]
    assert axis.place(axis.low - 1) == 0
