"""Scanners as a whole: what they find and spare, how scores behave, files, interruptions, and what agents are told."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from cowbird.defenses.p_scanner.p_scanner import PScanner
from cowbird.defenses.p_scanner.rounds.fitted_scanner import SCANNER_RECORD_FILE, load_fitted_scanner
from cowbird.defenses.p_scanner.rounds.poison_scanner import MIN_TITLES_PER_FIT, PoisonScanner
from cowbird.defenses.p_scanner.triggers.agent import Agent, Proposals
from cowbird.defenses.p_scanner.triggers.trigger_families import TRIGGER_FAMILIES, Recipe
from cowbird.errors import UserError
from cowbird.metrics.detection import auroc
from cowbird.victims import training_loop
from cowbird.victims.base import FitContext

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
BRIEFS = []


class Scripted(Agent):
    """Proposes what it was told to, round by round, and writes down what it is told."""

    rounds: tuple[tuple[Recipe, ...], ...]

    def propose(self, brief, rng):
        BRIEFS.append(brief)
        nth = len({outcome.recipe for outcome in brief.outcomes} & {made for part in self.rounds for made in part})
        done = 0
        while nth and done < len(self.rounds):
            nth -= len(self.rounds[done])
            done += 1
        return Proposals(self.rounds[done] if done < len(self.rounds) else (), ("because",))


FIRST = tuple(Recipe(family="rare_word", text=text) for text in ("xv", "qk", "7700", "(zu)"))
SECOND = tuple(Recipe(family="common_word", text=text) for text in ("Red", "Night"))
"""Hard to tell from what belongs there."""


@pytest.fixture
def briefs():
    BRIEFS.clear()
    return BRIEFS


def same(one, other):
    assert one.record.weights == other.record.weights
    assert one.record.calibration == other.record.calibration
    assert np.array_equal(one.fitted_to.score, other.fitted_to.score)
    assert one.key == other.key


# What is found


def test_a_trigger_that_recurs_is_found(poisoned, poisoned_fit):
    titles, truth = poisoned
    found = poisoned_fit.judge_titles(titles)
    assert auroc(found.score, truth) > 0.97
    assert np.array_equal(found.score, poisoned_fit.fitted_to.score)
    spans = [title[a:b] for title, a, b in zip(titles, found.start, found.end, strict=True)]
    hits = [span and span in "zq" for span, bad in zip(spans, truth, strict=True) if bad]
    assert np.mean(hits) > 0.8


def test_a_scan_of_a_table_says_what_it_makes_of_its_titles(poisoned, poisoned_fit):
    titles = poisoned[0]
    verdict = poisoned_fit.judge_titles([*titles, ""])
    found = poisoned_fit.scan([*titles, None])
    assert found["title"].to_list() == [*titles, None]
    assert found["flagged"].to_list() == verdict.flagged.tolist()
    assert found["judged"].to_list() == np.isfinite(verdict.score).tolist()
    assert found["score"].fill_null(-np.inf).to_list() == verdict.score.tolist()
    assert found.filter("flagged").height > 0
    with pytest.raises(UserError, match="between 0 and 1"):
        poisoned_fit.scan(titles, fpr=1.5)


def test_recurrence_is_what_finds_it(poisoned, poisoned_fit):
    titles, truth = poisoned
    together, alone = poisoned_fit.score(titles), poisoned_fit.score_apart(titles)
    assert together[truth].mean() - together[~truth].mean() > 2 * (alone[truth].mean() - alone[~truth].mean())
    assert not np.allclose(together, alone, atol=0.1)


def test_a_clean_catalogue_is_spared(clean_fit, catalogue):
    titles = catalogue()
    held, share = clean_fit.record.calibration, clean_fit.judge_titles(titles)
    assert held.left_out == 0
    assert 0.3 < held.titles / len(titles) < 0.5
    calibrating = [score for score in clean_fit.fitted_to.score if score in held.highest]
    assert len(calibrating) >= held.titles
    assert sum(score > clean_fit.threshold(0.2) for score in held.highest) < 0.2 * (held.titles + 1)
    assert share.flagged.mean() <= 0.02
    assert (share.flagged | share.review).mean() <= 0.07
    assert not (share.flagged & share.review).any()
    assert clean_fit.judge_titles(titles, fpr=0.2).flagged.sum() > share.flagged.sum()
    assert not clean_fit.judge_titles(titles, fpr=0.2).review.any(), (
        "what is put up for review is more than what is flagged"
    )


def test_titles_are_judged_apart_as_if_each_were_alone(clean_fit, catalogue):
    titles = catalogue()
    together, bar = clean_fit.judge_apart(titles), clean_fit.threshold(alone=True)
    one = clean_fit.judge_apart(titles[:1])
    assert np.allclose(one.score, together.score[:1], atol=1e-3)
    assert np.array_equal(together.flagged, together.score > bar) and not (together.flagged & together.review).any()
    with pytest.raises(UserError, match="between 0 and 1"):
        clean_fit.judge_apart(titles, fpr=2)


def test_what_a_fit_writes_down(tiny_scanner, poisoned, briefs):
    found = tiny_scanner(rounds=2, agent=Scripted(rounds=(FIRST, SECOND))).fit(poisoned[0])
    rounds = found.record.rounds
    assert [made.number for made in rounds] == [1, 2]
    assert rounds[0].before == (), "not measured"
    assert 0 < len(rounds[0].after) <= 12
    known = [outcome.recipe for made in rounds for outcome in made.after]
    assert len(set(known)) == len(known)
    assert {outcome.recipe for outcome in rounds[1].after} == {outcome.recipe for outcome in rounds[1].before}
    many = len(poisoned[0])
    assert rounds[0].trusted < many
    trigger = np.array([title.endswith("zq") for title in poisoned[0]])
    assert rounds[0].trusted < rounds[1].trusted <= many - trigger.sum(), (
        "what belongs there is learned, the trigger never"
    )


# How scores behave


def test_scores_repeat_themselves(tiny_scanner, catalogue, clean_fit):
    titles = catalogue()
    same(tiny_scanner().fit(titles), clean_fit)
    assert np.array_equal(clean_fit.score(titles), clean_fit.score(titles))


def test_all_work_of_a_round_is_reported(tiny_scanner, catalogue):
    told = []
    place = FitContext(CPU, report=lambda done, total, remark: told.append((done, total, remark)))
    tiny_scanner(proposals=8, plantings=8).fit(catalogue(60), context=place)
    weighing = [(done, total) for done, total, remark in told if remark == "round 1, weighing evidence"]
    assert weighing == [(0, 2), (1, 2)]
    assert [remark for _, _, remark in told][-1] == "round 1, trying triggers"


def test_blank_titles_and_repeats_are_not_learned_from(tiny_scanner, catalogue):
    titles, spec = catalogue(60), tiny_scanner({"epochs": 1}, plantings=4)
    wanted = spec.fit(titles)
    same(spec.fit([*titles, "", titles[3], " ", *titles[:9]]), wanted)
    other = spec.fit(titles, 1)
    assert other.key != wanted.key
    assert other.record.weights != wanted.record.weights


def test_repeats_count_once(poisoned, poisoned_fit):
    titles = poisoned[0]
    found = poisoned_fit.suspect([*titles, *titles[:40], *titles[:40]])
    wanted = poisoned_fit.suspect(titles)
    for one, other in ((found.score, wanted.score), (found.start, wanted.start), (found.end, wanted.end)):
        assert np.array_equal(one, np.concatenate([other, other[:40], other[:40]]))


def test_alone_means_without_neighbors(poisoned, poisoned_fit):
    titles = poisoned[0][:30]
    alone = poisoned_fit.score_apart(titles)
    np.testing.assert_allclose(alone, [poisoned_fit.score_apart([title])[0] for title in titles], atol=1e-4)
    np.testing.assert_allclose(alone[::-1], poisoned_fit.score_apart(titles[::-1]), atol=1e-4)
    np.testing.assert_allclose(poisoned_fit.score_apart(titles * 2), [*alone, *alone], atol=1e-4)
    plain = [title for title in titles if len(set(title.split())) == len(title.split())]
    one = plain[0]
    np.testing.assert_allclose(poisoned_fit.score([one]), poisoned_fit.score_apart([one]), atol=1.0)


def test_hostile_titles_are_judged(clean_fit, hostile):
    titles = [*hostile.values(), "Red Harbor"]
    found, again = clean_fit.suspect(titles), clean_fit.suspect(titles)
    assert np.array_equal(found.score, again.score)
    assert found.score[0] == -np.inf, "an empty title"
    assert (found.end <= [len(title) if title else -1 for title in titles]).all()
    assert np.isfinite(clean_fit.score_apart(titles)[1:]).all()
    for few in ([], [""]):
        assert len(clean_fit.judge_titles(few).score) == len(few) == len(clean_fit.score_apart(few))


# Files


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_scanner_that_was_read_back_gives_the_same_scores(tiny_scanner, poisoned, precision, tmp_path):
    titles = poisoned[0][:80]
    made = tiny_scanner({"precision": precision, "epochs": 1}, plantings=4).fit(titles)
    made.save(tmp_path / "scanner")
    read = load_fitted_scanner(str(tmp_path / "scanner"), "cpu")
    assert (read.record, read.key, read.fitted_to) == (made.record, made.key, None)
    assert np.array_equal(read.score(titles), made.score(titles))
    assert np.array_equal(read.score_apart(titles), made.score_apart(titles))
    assert np.array_equal(read.judge_titles(titles).flagged, made.judge_titles(titles).flagged)


def test_what_is_no_scanner_is_told(clean_fit, tmp_path):
    with pytest.raises(UserError, match="does not hold a scanner"):
        load_fitted_scanner(tmp_path / "nothing", CPU)
    clean_fit.save(tmp_path / "scanner")
    path = tmp_path / "scanner" / SCANNER_RECORD_FILE
    record = json.loads(path.read_text(encoding="utf-8"))
    for other in (record | {"version": 99}, record | {"more": 1}, [], {}, "x"):
        path.write_text(json.dumps(other), encoding="utf-8")
        with pytest.raises(UserError, match="does not hold a scanner"):
            load_fitted_scanner(tmp_path / "scanner", CPU)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UserError):
        clean_fit.save(tmp_path / "other")
    assert (tmp_path / "other" / "notes.txt").exists()


# Interruptions


@pytest.mark.parametrize("at", [pytest.param((1, 2), marks=pytest.mark.slow), (2, 3)])
def test_an_interrupted_fit_goes_on_to_the_same_scanner(tiny_scanner, poisoned, at, monkeypatch, tmp_path):
    monkeypatch.setattr(training_loop, "REPORT_SECONDS", -1.0)
    agent = Scripted(rounds=(FIRST, SECOND))
    titles, spec, steps = poisoned[0][:80], tiny_scanner(rounds=2, agent=agent, plantings=4), []

    def interrupt(done, total, remark):
        if (remark.startswith(f"round {at[0]}, loss"), done) == (True, at[1]):
            raise KeyboardInterrupt

    def note(done, total, remark):
        if ", loss" in remark:  # a step of tuning
            steps.append((int(remark.split(",")[0].removeprefix("round ")), done))

    with pytest.raises(KeyboardInterrupt):
        spec.fit(titles, context=FitContext(CPU, tmp_path, interrupt, pytest.fail))
    assert list((tmp_path / f"round-{at[0]}").iterdir()), "there is a checkpoint"
    found = spec.fit(titles, context=FitContext(CPU, tmp_path, note, pytest.fail))
    same(found, spec.fit(titles))
    assert min(done for number, done in steps if number == at[0]) == at[1] + 1, "the round goes on"
    assert steps[0] == (at[0], at[1] + 1), "what earlier rounds learned is read from their files"


# Agents


def test_an_agent_is_told_what_was_caught(tiny_scanner, poisoned, briefs):
    agent = Scripted(rounds=(FIRST, SECOND))
    found = tiny_scanner(rounds=2, agent=agent, proposals=9, without=("url",), plantings=4).fit(poisoned[0])
    first, second = briefs
    assert (first.wanted, first.without, first.outcomes) == (9, ("url",), ())
    assert set(first.titles) <= set(poisoned[0])
    assert len(set(first.titles)) == 24
    assert not any("zq" in title for title in first.titles), "what recurs at the end is not trusted"
    rounds = found.record.rounds
    assert second.outcomes == rounds[0].after
    assert [outcome.recipe for outcome in rounds[0].after] == list(FIRST)
    assert [outcome.recipe for outcome in rounds[1].before] == list(SECOND)
    assert rounds[0].refused == ("because",)


def test_an_agent_may_run_out_of_ideas(tiny_scanner, catalogue, briefs):
    found = tiny_scanner(rounds=2, agent=Scripted(rounds=(FIRST,)), plantings=4).fit(catalogue(100))
    assert [len(made.after) for made in found.record.rounds] == [4, 0]


def test_an_agent_without_any_idea_is_told(tiny_scanner, catalogue, briefs):
    with pytest.raises(UserError, match="no trigger") as told:
        tiny_scanner(agent=Scripted(rounds=())).fit(catalogue())
    assert "because" in told.value.hint


def test_families_that_are_held_out_are_not_learned(tiny_scanner, catalogue):
    without = tuple(family for family in TRIGGER_FAMILIES if family not in ("emoji", "url"))
    found = tiny_scanner(rounds=2, without=without, proposals=8, plantings=4).fit(catalogue(100))
    told = [*found.record.last, *(outcome for made in found.record.rounds for outcome in made.after)]
    known = {outcome.recipe.family for outcome in told}
    assert known & {"emoji", "url"}
    assert not known & set(without)


def test_rounds_end_when_new_triggers_are_caught(tiny_scanner, catalogue, briefs):
    odd = tuple(Recipe(family="zero_width", text="\u200b" * n, way="glue") for n in (1, 2, 3, 4))
    agent = Scripted(rounds=(FIRST, odd, SECOND))
    found = tiny_scanner(rounds=3, agent=agent, plantings=4).fit(catalogue())
    assert len(briefs) == 2
    assert len(found.record.rounds) == 1, "rules catch all of the second round's"
    assert [(outcome.recipe, outcome.rate) for outcome in found.record.last] == [(recipe, 1.0) for recipe in odd]


# What is refused


def test_too_few_titles_are_told(tiny_scanner, catalogue):
    few = catalogue(MIN_TITLES_PER_FIT - 1)
    with pytest.raises(UserError, match=f"there are {MIN_TITLES_PER_FIT - 1}"):
        tiny_scanner().fit([*few, *few, "", " "])
    assert tiny_scanner({"epochs": 1}).fit(catalogue(MIN_TITLES_PER_FIT)).fitted_to is not None


def test_families_that_are_not_there_are_told():
    with pytest.raises(ValidationError, match="no families emojis"):
        PoisonScanner(without=("emojis", "url"))


# As a defense


def test_the_defense_counts_from_the_threshold(tiny_scanner, poisoned, poisoned_fit):
    titles, truth = poisoned
    defense = PScanner(scanner=tiny_scanner(rounds=2, layers=2), device="cpu")
    verdict = defense.judge(["", *titles])
    assert not verdict.flagged[0]
    bar = np.float32(poisoned_fit.threshold())
    assert verdict.found.score[0] == -np.inf
    np.testing.assert_allclose(verdict.found.score[1:], poisoned_fit.fitted_to.score - bar, atol=1e-5)
    assert np.array_equal(verdict.flagged[1:], poisoned_fit.judge_titles(titles).flagged)
    share = defense.model_copy(update={"threshold": None, "share": 8 / 241})
    assert truth[share.flag(verdict.found.score)[1:]].mean() > 0.8


def test_the_defense_learns_nothing_of_few_titles(tiny_scanner, catalogue):
    titles = [*catalogue(MIN_TITLES_PER_FIT - 1), "", "x\u200b"[:0]]
    verdict = PScanner(scanner=tiny_scanner(), device="cpu").judge(titles)
    assert (verdict.found.score == -np.inf).all()
    assert not verdict.flagged.any()


def test_a_fit_reads_tables_as_a_scan_does(tiny_scanner, poisoned):
    titles = poisoned[0][:80]
    scanner = tiny_scanner({"epochs": 1}, plantings=4)
    frame = pl.DataFrame({"name": [*titles, None]})
    assert scanner.fit(frame, text_column="name", device="cpu").key == scanner.fit(titles).key
    with pytest.raises(UserError, match="a single text"):
        scanner.fit("Heat")
    with pytest.raises(UserError, match="Device 'toaster'"):
        scanner.fit(titles, device="toaster")
