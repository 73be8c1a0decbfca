"""The table at the end of a run: every number whole, and nothing in it from the attacker but text."""

import io
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from cowbird.experiments.cell_files import PlantedSummary
from cowbird.experiments.results import Row
from cowbird.report.table import make_planting_table, summarize_run
from cowbird.report.terminal import sanitize_text
from hostile import find_raw


def shown(thing, width=80):
    console = Console(width=width, record=True, file=io.StringIO(), color_system=None)
    console.print(thing)
    return console.export_text()


def row(**changes):
    fields = {
        "experiment": "e", "dataset": "d", "victim": "sasrec", "attack": "women", "defense": "none",
        "scenario": "fine-tune", "group": "all", "metric": "hr", "k": 10, "seed": None,
        "value": 0.5, "low": 0.4, "high": 0.6, "n": 9,
    }  # fmt: skip
    return Row(**(fields | changes))


def measured(lift=None, **where):
    """The rows of one attack, scenario and group."""
    return [
        row(metric="exposure_hr", value=0.8642, **where),
        row(metric="exposure_hr_clean", value=0.0123, **where),
        row(**({"metric": "lift_hr", "value": 70.26, "low": 61.04, "high": 88.88} | (lift or {}) | where)),
        row(metric="ndcg", value=0.3579, **where),
        row(metric="ndcg_clean", value=0.3456, **where),
        row(metric="ndcg_change", value=0.0356, **where),
    ]


NUMBERS = ("0.8642", "0.0123", "70.3", "[61.0, 88.9]", "0.358", "+3.6%")


@pytest.mark.parametrize("width", [80, 100, 200])
def test_every_number_is_whole_on_a_common_terminal(width):
    text = shown(summarize_run([r for group in ("target", "other", "all") for r in measured(group=group)]), width)
    for number in NUMBERS:
        assert text.count(number) == 3, (number, text)
    assert all(len(line) <= width for line in text.splitlines())
    assert all(name in text for name in ("sasrec", "women", "fine-tune", "target", "other", "all"))


def test_long_labels_give_way_to_numbers():
    where = {"victim": "v" * 60, "attack": "age25-n20-r0.05-" + "a" * 40, "scenario": "fine-tune-" + "s" * 50}
    text = shown(summarize_run(measured(**where)))
    assert all(number in text for number in NUMBERS), text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_where_the_clean_model_shows_nothing_an_exposure_stands_instead_of_a_lift():
    bound = {"metric": "lift_hr_lower_bound", "value": 1234.5, "low": 234.5, "high": None}
    text = shown(summarize_run(measured(bound)))
    assert "exposure [0.4, 0.6]" in text, "the interval of the attacked model's exposure"
    assert not re.search("1234|≥|∞", text), text
    assert "Where the clean model showed no planted item there is no lift" in " ".join(text.split())


def test_what_was_not_measured_is_no_zero():
    nothing = {"value": None, "low": None, "high": None}
    rows = [row(metric=name, **nothing) for name in ("exposure_hr", "exposure_hr_clean", "lift_hr")]
    rows += [row(metric="ndcg_change", **nothing)]
    text = shown(summarize_run(rows))
    body = text.partition("Exposure:")[0]
    assert "–" in body
    assert not re.search(r"\b0\.0|0%|None|nan", body), text


def test_only_the_asked_cut_off_and_pooled_seeds_are_shown():
    rows = [*measured(), row(metric="exposure_hr", value=0.1111, seed=3), row(metric="exposure_hr", value=0.2222, k=5)]
    text = shown(summarize_run(rows))
    assert "0.1111" not in text
    assert "0.2222" not in text
    assert "0.2222" in shown(summarize_run(rows, 5))


def test_nothing_to_show_is_shown():
    shown(summarize_run([]))


def test_two_victims_and_two_attacks_stay_apart():
    places = [(victim, attack) for victim in ("sasrec", "gru4rec") for attack in ("women", "men")]
    rows = []
    for number, (victim, attack) in enumerate(places):
        rows += [row(metric="exposure_hr", value=0.1001 + number / 10, victim=victim, attack=attack)]
        rows += [row(metric="exposure_hr_clean", value=0.0501 + number / 10, victim=victim, attack=attack)]
    text = shown(summarize_run(rows))
    spots = [text.index(f"{0.1001 + number / 10:.4f}") for number in range(4)]
    assert spots == sorted(spots)
    for number in range(4):
        (line,) = (line for line in text.splitlines() if f"{0.1001 + number / 10:.4f}" in line)
        assert f"{0.0501 + number / 10:.4f}" in line


def test_two_defenses_are_told_apart():
    text = shown(summarize_run([*measured(defense="none"), *measured(defense="onion")]))
    assert "onion" in text


HOSTILE = [
    "[red]danger[/red]",
    "[/]",
    "[link=https://example.org]x[/link]",
    "\x1b[31mred\x1b[0m",
    "\x1b]8;;https://example.org\x07x\x1b]8;;\x07",
    "a\u202eb",
    "a\u2066b\u2069",
    "\u200b\u200e\ufeff",
    "\x00\x07\x08\r\n\t\x7f\x9b",
    "\ud800",
    "\U000e0041",
    "x" * 10_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_text_is_shown_as_text(text):
    safe = sanitize_text(text, 60).plain
    assert len(safe) <= 60 * len("<U+10FFFF>")
    assert not find_raw(safe)
    assert shown(sanitize_text(text, 60), 600).rstrip("\n") == safe.rstrip("\n")
    assert sanitize_text(text, 60).spans == []


def test_markup_is_not_read():
    assert sanitize_text("[red]danger[/red]").plain == "[red]danger[/red]"
    assert "[red]danger[/red]" in shown(sanitize_text("[red]danger[/red]"))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(), max_size=80), st.integers(1, 70))
@example("a" * 61, 60)
@example("a" * 60, 60)
def test_plain_text_is_cut_and_clean(text, limit):
    safe = sanitize_text(text, limit).plain
    letters = re.findall(r"<U\+[0-9A-F]{4,6}>|.", safe)
    assert len(letters) == min(len(text), limit) or "<U+" in text
    assert not find_raw(safe)
    assert (safe[-1:] == "…") or len(text) <= limit
    for before, after in zip(text[: limit - 1], letters, strict=False):
        assert after in (before, f"<U+{ord(before):04X}>") or "<U+" in text


def test_hostile_labels_stay_text_in_the_table():
    """The spec refuses such labels; rows may still come from a file that somebody else wrote."""
    where = {"victim": "[red]v\x1b[31m", "attack": "[bold]a\u202e", "scenario": "\x07s\n[/]"}
    text = shown(summarize_run(measured(**where)), 120)
    assert all(word in text for word in ("[red]v", "[bold]a", "[/]"))
    assert not any(c in text for c in "\x1b\u202e\x07")


def test_one_small_summary_reads_like_this():
    text = shown(summarize_run([*measured(group="target"), *measured(group="other"), *measured(group="all")]), 100)
    lines = [" ".join(re.sub(r"[^\w.%+×≥∞\[\],→–@ -]", " ", line).split()) for line in text.splitlines()]
    numbers = "0.0123 → 0.8642 70.3× [61.0, 88.9] 0.358 +3.6%"
    assert [line for line in lines if "0.8642" in line] == [
        f"women fine-tune target {numbers}",
        f"other {numbers}",
        f"all {numbers}",
    ]
    assert any("exposure HR@10" in line and "NDCG@10" in line for line in lines)
    assert lines[-1], "notes come last"


def test_plantings_show_what_was_planted_and_no_more_than_five_titles():
    plan = PlantedSummary(
        sha256="0" * 64,
        rows=1234,
        budget=1234,
        share_of_labels=0.056,
        targets=tuple("abcdefg"),
        target_titles=("[red]Heat[/red]", "", "x\x1b[2J", *"defg"),
    )
    text = shown(make_planting_table({"group": plan}), 140)
    assert "1,234" in text
    assert "5.6%" in text
    assert "[red]Heat[/red], b, x<U+001B>[2J, d, e and 2 more" in " ".join(text.split())
    assert "\x1b" not in text


def answered(victim, rates, groups=("trigger", "none")):
    """Return rows of a victim that answers questions."""
    like = {"experiment": "e", "dataset": "d", "attack": "a", "defense": "none", "scenario": "direct", "seed": 0}
    row = Row(victim=victim, group="all", metric="auc", k=0, value=0.5, low=0.4, high=0.6, n=9, **like)
    rows = [row.model_copy(update={"metric": name, "value": value}) for name, value in rates.items()]
    for group in groups:
        metric = "picked_plain" if group == "none" else "asr"
        for name, value in ((metric, 0.75), (f"{metric}_clean", 0.125)):
            rows.append(row.model_copy(update={"group": group, "metric": name, "value": value}))
    return rows


def test_victims_that_answer_questions_have_tables_of_their_own():
    judge = answered("judge[b]", {"auc": 0.71, "auc_clean": 0.72}, ["trigger"])
    rates = {"hit_ratio": 0.31, "hit_ratio_clean": 0.32, "valid_ratio": 0.98, "valid_ratio_clean": 0.99}
    chooser = answered("chooser", rates)
    lines = [" ".join(line.replace("│", " ").split()) for line in shown(summarize_run(chooser), 100).splitlines()]
    assert "trigger, n 9 0.320 → 0.310 0.990 → 0.980 0.125 [0.40, 0.60] → 0.750 [0.40, 0.60]" in lines
    assert "none, n 9 0.125 [0.40, 0.60] → 0.750 [0.40, 0.60]" in lines
    text = shown(summarize_run([*judge, *chooser, *measured(group="all")]), 120)
    assert "0.720 → 0.710" in text
    assert "HitRatio@1" in text
    assert "exposure HR@10" in text, "what ranks is shown beside them"


@pytest.mark.parametrize("width", [80, 120])
def test_rates_that_show_nothing_are_called_so(width):
    rows = answered("judge", {"auc": 0.71, "auc_clean": 0.72}, ["trigger", "unseen", "near-case"])
    text = " ".join(shown(summarize_run(rows), width).split())
    nothing = "shows nothing: the intervals of clean and attacked model overlap, and it rests on only 9 questions."
    assert f"trigger {nothing}" in text
    assert f"unseen {nothing}" in text
    assert text.count("shows nothing") == 2, "triggers that are near it may well do nothing"
    good = [
        row.model_copy(update={"n": 300} | ({"low": 0.0, "high": 0.02} if row.metric == "asr_clean" else {}))
        for row in rows
    ]
    assert "shows" not in shown(summarize_run(good), width)
    seeds = [
        each.model_copy(update={"metric": f"{each.metric}_over_seeds", "seed": None, "n": 3, "low": low, "high": high})
        for each, (low, high) in zip(good, [(0.1 * nth, 0.1 * nth + 0.05) for nth in range(len(good))], strict=True)
    ]
    text = shown(summarize_run([*good, *seeds]), width)
    assert "shows" not in text, "three seeds are not three questions"
    assert ", n " not in text
