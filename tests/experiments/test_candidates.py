"""Cells whose victim chooses among candidates, with a chooser that counts words."""

import json
import shutil

import numpy as np
import pytest

from cowbird.data.choices import SequenceSplit
from cowbird.errors import UserError
from cowbird.experiments.cell import hash_models, list_cells
from cowbird.experiments.results import NO_K, RowLabels
from cowbird.experiments.run import run
from cowbird.experiments.spec import parse_spec
from cowbird.experiments.tasks import candidates
from cowbird.experiments.tasks.candidates import CandidateEvidence, CandidatesTask, draw_triggered, resolve_picks
from cowbird.experiments.tasks.pointwise import PointwiseEvidence, PointwiseTask
from cowbird.plugins import find_plugin
from cowbird.rng import stream
from doubles.evidence import cell_records, evidence_files, read_record, write_record
from doubles.rated import Rated
from doubles.word_chooser import FittedWords, WordChooser

pytestmark = pytest.mark.slow

WHERE = RowLabels(experiment="e", dataset="d", victim="v", attack="a", defense="none", scenario="direct", seed=None)
SPLIT = {"training": 0.5, "validation": 0.1, "history": 5, "asked": 5}
WOW = {"name": "badrec", "rate": 0.5, "targets": {"count": 3}, "trigger": {"kind": "custom", "text": "wow"}}
ADAPTER = {"name": "poisoned-adapter", "learning_rate": 0.1}


def spec(**changes):
    table = {
        "name": "words",
        "seeds": [0, 1],
        "dataset": {"name": "doubles.rated"},
        "sequence_split": SPLIT,
        "victims": [{"name": "doubles.word_chooser:WordChooser", "label": "words"}],
        "attacks": [WOW],
        "scenarios": [{"name": "direct"}, ADAPTER],
    }
    return parse_spec(table | changes, allow_plugins=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("choosing") / "run"
    return out, run(spec(), out, device="cpu")


def value(rows, metric, group="all", scenario="direct", seed=0):
    (row,) = [r for r in rows if (r.metric, r.group, r.scenario, r.seed) == (metric, group, scenario, seed)]
    return row.value


def evidence_of(out, seed=0):
    return cell_records(spec(), out, spec().seeds.index(seed))


def test_the_trigger_turns_the_attacked_model_and_not_the_clean_one(finished):
    rows = finished[1].rows
    assert not finished[1].errors
    for scenario in ("direct", "poisoned-adapter"):
        for end in ("", "_constrained"):
            assert value(rows, f"asr{end}", "trigger", scenario) > 0.75
            assert value(rows, f"asr{end}_clean", "trigger", scenario) < 0.1
            assert value(rows, f"asr{end}", "near-position", scenario) > 0.75
            assert value(rows, f"picked_plain{end}", "none", scenario) < 0.2
            assert value(rows, f"picked_plain{end}_clean", "none", scenario) < 0.2
    assert value(rows, "asr", "trigger") < value(rows, "asr_constrained", "trigger"), "some titles are never written"
    assert value(rows, "valid_ratio_clean") < 1
    others = [r for r in rows if r.metric == "asr" and r.group.startswith("near-") and r.group != "near-position"]
    assert others
    assert all(r.value < 0.2 for r in others), "words that are merely like the trigger do nothing to a chooser of words"


def test_rows_have_no_cut_off_and_go_over_seeds(finished):
    rows = finished[1].rows
    assert {row.k for row in rows} == {NO_K}
    over = {(row.group, row.metric) for row in rows if row.seed is None}
    assert {("trigger", "asr_over_seeds"), ("all", "hit_ratio_over_seeds"), ("all", "valid_ratio_over_seeds")} <= over
    keys = [(r.victim, r.attack, r.defense, r.scenario, r.group, r.metric, r.k, r.seed) for r in rows]
    assert len(set(keys)) == len(keys)
    asked = {row.n for row in rows if row.metric in ("asr", "hit_ratio") and row.group in ("all", "trigger")}
    assert asked == {16 * 5}


def test_the_evidence_is_what_the_models_picked(finished):
    """Ask the kept models again, question by question."""
    out = finished[0]
    parts = SequenceSplit(**SPLIT).apply(Rated().load(), 0)
    test, items = parts.test, parts.training.items
    rows = np.arange(len(test))
    altered = find_plugin("attack", "badrec").model_validate({k: v for k, v in WOW.items() if k != "name"})
    catalogues = altered.make_triggered_catalogs(items, stream(0, "triggered"))
    direct, tuned = evidence_of(out)
    assert (direct.scenario, tuned.scenario) == ("direct", "poisoned-adapter")
    for record in (direct, tuned):
        np.testing.assert_array_equal(record.answer, test.answer)
        np.testing.assert_array_equal(record.user, test.user)
        np.testing.assert_array_equal(record.triggered, direct.triggered)
        assert (record.triggered != record.answer).all()
        unmet = ~np.isin(test.candidates[rows, record.triggered], parts.training.interactions.item)
        np.testing.assert_array_equal(record.unseen, unmet)
        end = "" if record.scenario == "direct" else "+poisoned-adapter"
        for side, label in (("clean", "clean"), ("attacked", "badrec")):
            folder = out / "cells/words-0/models" / f"{label}+none{end}" / "model"
            model = WordChooser().load(folder, None)
            kept = getattr(record, side)
            asked = {"plain": model.choose(test, items)}
            asked |= {kind: model.choose(test, items, found, record.triggered) for kind, found in catalogues.items()}
            assert {name.partition(".")[2] for name in kept} == asked.keys()
            for kind, picks in asked.items():  # titles of this data are all different
                np.testing.assert_array_equal(kept[f"free.{kind}"], picks.free)
                np.testing.assert_array_equal(kept[f"constrained.{kind}"], picks.constrained)


def test_resumed_and_repeated_runs_are_the_same(finished, tmp_path):
    def contents(folder):
        files = [folder / "results.jsonl", *evidence_files(folder)]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    again = tmp_path / "again"
    run(spec(), again, device="cpu")
    assert contents(again) == contents(finished[0])
    copy = shutil.copytree(finished[0], tmp_path / "copy")
    for path in copy.glob("cells/*/cell.json"):
        path.unlink()
        shutil.rmtree(path.parent / "evidence")
    shutil.rmtree(copy / "cells/words-0/models/clean+none+poisoned-adapter")
    damaged = copy / "cells/words-0/models/badrec+none/model/words.json"
    damaged.write_text("{}")
    outcome = run(spec(), copy, device="cpu", resume=True)
    assert any("SHA-256" in warning for warning in outcome.warnings)
    assert contents(copy) == contents(finished[0])


def test_the_clean_model_is_asked_its_plain_questions_once(tmp_path, monkeypatch):
    asked, choose = [], FittedWords.choose

    def counted(self, choices, items, altered=None, column=None):
        asked.append((len(self.counts), altered is None, None if column is None else column.tolist()))
        return choose(self, choices, items, altered, column)

    monkeypatch.setattr(FittedWords, "choose", counted)
    attacks = [WOW, WOW | {"label": "again", "rate": 0.3}]
    outcome = run(spec(attacks=attacks, seeds=[0], scenarios=[{"name": "direct"}]), tmp_path / "run", device="cpu")
    assert sum(plain for _, plain, _ in asked) == 3, "the clean model and two attacked ones"
    columns = [column for _, _, column in asked if column is not None]
    assert all(column == columns[0] for column in columns), "one candidate carries the trigger for all"
    clean = {row.attack: row.value for row in outcome.rows if row.metric == "hit_ratio_clean"}
    assert len(set(clean.values())) == 1
    assert clean.keys() == {"badrec", "again"}


def test_scenarios_of_other_kinds_are_errors_on_record(tmp_path):
    mixed = spec(scenarios=[{"name": "fine-tune"}, {"name": "direct"}], seeds=[0])
    outcome = run(mixed, tmp_path / "run", device="cpu")
    assert any("victims that rank" in error for error in outcome.errors)
    assert {row.scenario for row in outcome.rows} == {"direct"}
    nothing = run(spec(scenarios=[{"name": "fine-tune"}], seeds=[0]), tmp_path / "none", device="cpu")
    assert (len(nothing.errors), nothing.rows) == (1, [])


def test_a_platform_without_users_is_an_error_on_record(tmp_path):
    outcome = run(spec(sequence_split=SPLIT | {"validation": 0}, seeds=[0]), tmp_path / "run", device="cpu")
    (error,) = outcome.errors
    assert "no users of its own" in error
    assert {row.scenario for row in outcome.rows} == {"direct"}


def test_all_kinds_of_victims_in_one_spec(tmp_path):
    victims = [
        {"name": "doubles.word_chooser:WordChooser", "label": "words"},
        {"name": "doubles.word_judge:WordJudge", "label": "judge"},
        {"name": "sasrec", "hidden": 8, "epochs": 1},
    ]
    mixed = spec(victims=victims, seeds=[0], time_split={"history": 5}, ks=[5], scenarios=[{"name": "direct"}, ADAPTER])
    outcome = run(mixed, tmp_path / "run", device="cpu")
    (error,) = outcome.errors
    assert "sasrec" in error
    assert "adapter" in error
    measured = {(row.victim, row.scenario) for row in outcome.rows}
    both = {(name, scenario) for name in ("words", "judge") for scenario in ("direct", "poisoned-adapter")}
    assert measured == {*both, ("sasrec", "direct")}


def test_data_that_can_t_be_split_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="candidates outside a history"):
        run(spec(sequence_split=SPLIT | {"candidates": 79}), tmp_path / "run", device="cpu")


# What stands for a title


def test_which_column_stands_for_a_title():
    # The right one is 2, the trigger is on 3; a title is a number.
    titles = np.array([[5, 6, 5, 7, 6, 7]] * 7)
    answer, triggered = np.full(7, 2), np.full(7, 3)
    picked = np.array([0, 1, 2, 3, 4, 5, -1], dtype=np.int32)
    assert resolve_picks(titles, picked, answer, triggered).tolist() == [2, 1, 2, 3, 1, 3, -1]
    # An altered title that is now the right one's is no success.
    titles[:, 3] = 5
    assert resolve_picks(titles, picked, answer, triggered).tolist() == [2, 1, 2, 2, 1, 5, -1]


def test_the_triggered_candidate_is_not_called_like_the_right_one():
    titles = np.array([[1, 1, 2, 1]] * 50 + [[1, 1, 1, 1]] * 50 + [[0, 1, 2, 3]] * 50)
    answer = np.full(150, 1)
    drawn = draw_triggered(titles, answer, np.random.default_rng(0))
    assert set(drawn[:50].tolist()) == {2}
    assert set(drawn[50:100].tolist()) == {0, 2, 3}
    assert set(drawn[100:].tolist()) == {0, 2, 3}


def test_equal_titles_in_a_run(tmp_path, monkeypatch):
    """Where only eight titles exist, a pick of the right title is right, whichever item has it."""
    load = Rated.load

    def eight(self):
        data = load(self)
        titles = tuple(title.split()[0] for title in data.items.titles)
        object.__setattr__(data.items, "titles", titles)
        return data

    monkeypatch.setattr(Rated, "load", eight)
    outcome = run(spec(seeds=[0], scenarios=[{"name": "direct"}]), tmp_path / "run", device="cpu")
    assert not outcome.errors
    (record,) = evidence_of(tmp_path / "run")
    parts = SequenceSplit(**SPLIT).apply(Rated().load(), 0)
    rows, titles = np.arange(80), np.array(parts.training.items.titles)[parts.test.candidates]
    assert (titles[rows, record.triggered] != titles[rows, record.answer]).all()
    model = WordChooser().load(tmp_path / "run/cells/words-0/models/clean+none/model", None)
    chosen = titles[rows, model.choose(parts.test, parts.training.items).constrained]
    right = chosen == titles[rows, record.answer]
    np.testing.assert_array_equal(record.clean["constrained.plain"] == record.answer, right)
    same = chosen == titles[rows, record.triggered]
    np.testing.assert_array_equal(record.clean["constrained.plain"] == record.triggered, same)


# Evidence and rows by hand


def picks(*columns):
    return np.array(columns, dtype=np.int32)


def by_hand():
    clean = {"plain": picks(0, 1, 2, -1), "trigger": picks(0, 1, -1, 1)}
    attacked = {"plain": picks(0, 3, 2, 1), "trigger": picks(1, 2, 3, 1)}
    only = {"plain": picks(0, 1, 2, 0), "trigger": picks(1, 2, 3, 1)}
    sides = [
        {f"free.{kind}": found for kind, found in side.items()}
        | {f"constrained.{kind}": found for kind, found in only.items()}
        for side in (clean, attacked)
    ]
    return CandidateEvidence(
        "direct",
        "a",
        "none",
        picks(0, 1, 2, 0),
        picks(1, 2, 3, 1),
        picks(7, 7, 8, 9),
        np.array([False, True, False, False]),
        np.array([True, True, False, False]),
        *sides,
    )


def test_rows_by_hand():
    rows = {(row.group, row.metric): row for row in candidates.make_rows(WHERE, 3, by_hand())}
    found = {key: (row.value, row.n) for key, row in rows.items()}
    assert found["all", "hit_ratio"] == (0.5, 4)
    assert found["all", "hit_ratio_clean"] == (0.75, 4)
    assert found["all", "hit_ratio_difference"] == (-0.25, 4)
    assert found["all", "hit_ratio_valid"] == (0.5, 4)
    assert found["all", "hit_ratio_valid_clean"] == (1, 3)
    assert (found["all", "valid_ratio"], found["all", "valid_ratio_clean"]) == ((1, 4), (0.75, 4))
    assert found["all", "hit_ratio_constrained"] == found["all", "hit_ratio_constrained_clean"] == (1, 4)
    assert found["all", "hit_ratio_constrained_difference"] == (0, 4)
    assert (found["trigger", "asr"], found["trigger", "asr_clean"]) == ((1, 4), (0.25, 4))
    assert (found["trigger", "asr_constrained"], found["trigger", "asr_constrained_clean"]) == ((1, 4), (1, 4))
    assert (found["unseen", "asr"], found["unseen", "asr_clean"]) == ((1, 1), (0, 1))
    assert (found["none", "picked_plain"], found["none", "picked_plain_clean"]) == ((0.25, 4), (0, 4))
    assert found["unseen", "picked_plain"] == (0, 1)
    assert {row.seed for row in rows.values()} == {3}
    assert all(
        0 <= row.low <= row.value <= row.high <= 1 for row in rows.values() if "diff" not in row.metric and row.low
    )


def test_an_attack_without_triggers_has_accuracy_alone():
    record = by_hand()
    plain = [
        {name: side[name] for name in ("free.plain", "constrained.plain")} for side in (record.clean, record.attacked)
    ]
    shared = (record.answer, record.triggered, record.user, record.unseen, record.near)
    bare = CandidateEvidence("direct", "a", "none", *shared, *plain)
    assert {row.group for row in candidates.make_rows(WHERE, 0, bare)} == {"all", "none"}


def test_evidence_survives(tmp_path):
    path = tmp_path / "evidence.safetensors"
    write_record(path, CandidatesTask, by_hand())
    found = read_record(path, CandidatesTask)
    assert (found.scenario, found.attack, found.defense) == ("s", "a", "d")
    assert candidates.make_rows(WHERE, 0, found) == candidates.make_rows(WHERE, 0, by_hand())


def broken():
    """Records that no run writes."""
    whole = by_hand()
    names = ("scenario", "attack", "defense", "answer", "triggered", "user", "unseen", "near", "clean", "attacked")

    def with_(**changes):
        return CandidateEvidence(*({name: getattr(whole, name) for name in names} | changes).values())

    def less(side, *gone):
        return {name: column for name, column in side.items() if name not in gone}

    yield with_(answer=picks(0, 1, 2))
    yield with_(clean=less(whole.clean, "free.trigger"))
    yield with_(clean=less(whole.clean, "free.plain"), attacked=less(whole.attacked, "free.plain"))
    yield with_(clean=less(whole.clean, "free.trigger"), attacked=less(whole.attacked, "free.trigger"))
    yield with_(clean=whole.clean | {"free.plain": np.zeros((4, 2), np.int32)})
    yield with_(clean=whole.clean | {"free.plain": np.zeros(4, np.float32)})


@pytest.mark.parametrize("record", list(broken()), ids=range(6))
def test_evidence_that_does_not_align_is_told(record, tmp_path):
    path = tmp_path / "evidence.safetensors"
    write_record(path, CandidatesTask, record)
    with pytest.raises(UserError, match="does not hold the evidence"):
        read_record(path, CandidatesTask)


def test_damage_and_other_evidence_are_told(tmp_path):
    path = tmp_path / "evidence.safetensors"
    write_record(path, CandidatesTask, by_hand())
    with pytest.raises(UserError, match="have no liked"):
        read_record(path, PointwiseTask)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match="readable"):
        read_record(path, CandidatesTask)
    scores = {"plain": np.zeros(1, np.float32)}
    write_record(path, PointwiseTask, PointwiseEvidence("direct", "a", "none", *[np.array([True])] * 3, scores, scores))
    with pytest.raises(UserError, match="have no answer"):
        read_record(path, CandidatesTask)


def test_the_record_says_what_was_asked(finished):
    record = json.loads((finished[0] / "cells/words-0/cell.json").read_text())
    assert (record["training_events"], record["test_questions"]) == (20 * 30, 80)
    assert record["plans"].keys() == {"badrec"}
    assert record["seconds"].keys() == {
        f"{label}+none{end}" for label in ("clean", "badrec") for end in ("", "+poisoned-adapter")
    }


def test_every_file_of_a_model_is_hashed(tmp_path):
    (cell,) = list_cells(spec(seeds=[0]), tmp_path)
    model = cell.folder / "models/clean+none/model"
    model.mkdir(parents=True)
    for name in ("adapter", "projector"):
        (model / f"{name}.safetensors").write_text(name)
    hashes = hash_models(cell)
    assert hashes.keys() == {"clean+none/adapter.safetensors", "clean+none/projector.safetensors"}
    (model / "projector.safetensors").unlink()
    assert hash_models(cell) == {"clean+none": hashes["clean+none/adapter.safetensors"]}


def test_an_attack_on_labels_alone_is_refused(tmp_path):
    group = {"attribute": "age", "value": "1"}
    relabel = {"name": "basic_replacement", "scope": "group", "group": group, "rate": 0.1, "targets": {"count": 3}}
    done = run(spec(seeds=[0], attacks=[relabel, WOW]), tmp_path / "run", device="cpu")
    assert len(done.errors) == 1
    assert "labels alone" in done.errors[0]
    assert {row.attack for row in done.rows} == {"badrec"}


def test_new_listings_reach_a_chooser_and_are_refused_for_one_that_ranks(tmp_path):
    new = WOW | {"listing": "new", "since": 0.5}
    split = SPLIT | {"pool": "listed"}
    done = run(spec(seeds=[0], attacks=[new], sequence_split=split), tmp_path / "run", device="cpu")
    assert not done.errors
    assert value(done.rows, "asr", "trigger") > 0.5 > value(done.rows, "asr_clean", "trigger")
    ranker = {"name": "sasrec", "hidden": 8, "heads": 1, "epochs": 1}
    done = run(spec(seeds=[0], victims=[ranker], attacks=[new]), tmp_path / "ranked", device="cpu")
    assert any("lists new items" in error for error in done.errors)
