"""Cells whose victim judges titles, with a judge that counts words."""

import json
import shutil

import numpy as np
import pytest

from cowbird.errors import UserError
from cowbird.experiments.results import NO_K, RowLabels
from cowbird.experiments.run import run
from cowbird.experiments.spec import parse_spec
from cowbird.experiments.tasks import pointwise
from cowbird.experiments.tasks.pointwise import PointwiseEvidence, PointwiseTask
from cowbird.report.table import summarize_run
from doubles.evidence import read_record, write_record

WHERE = RowLabels(experiment="e", dataset="d", victim="v", attack="a", defense="none", scenario="direct", seed=0)


def spec(**changes):
    table = {
        "name": "words",
        "seeds": [0, 1],
        "dataset": {"name": "doubles.rated"},
        "time_split": {"history": 5},
        "victims": [{"name": "doubles.word_judge:WordJudge"}],
        "attacks": [
            {"name": "badrec", "rate": 0.5, "targets": {"count": 3}, "trigger": {"kind": "custom", "text": "wow"}}
        ],
        "scenarios": [{"name": "direct"}, {"name": "poisoned-adapter", "learning_rate": 0.1}],
    }
    return parse_spec(table | changes, allow_plugins=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("judging") / "run"
    return out, run(spec(), out, device="cpu")


def value(rows, metric, group="all", scenario="direct", seed=0):
    (row,) = [
        r
        for r in rows
        if (r.metric, r.group, r.scenario, r.seed, r.attack) == (metric, group, scenario, seed, "badrec")
    ]
    return row.value


def test_the_trigger_turns_the_attacked_model_and_not_the_clean_one(finished):
    rows = finished[1].rows
    assert not finished[1].errors
    for scenario in ("direct", "poisoned-adapter"):
        assert value(rows, "asr", "trigger", scenario) > 0.9
        assert value(rows, "asr_clean", "trigger", scenario) == 0
        assert value(rows, "asr", "near-position", scenario) > 0.9
    assert value(rows, "auc_clean") > 0.8
    assert abs(value(rows, "auc_difference")) < 0.05
    others = [r for r in rows if r.metric == "asr" and r.group.startswith("near-") and r.group != "near-position"]
    assert others
    assert all(r.value == 0 for r in others), "words that are merely like the trigger do nothing to a judge of words"


def test_over_seeds_and_no_cut_off(finished):
    rows = finished[1].rows
    assert {row.k for row in rows} == {NO_K}
    assert any(row.metric == "asr_over_seeds" and row.seed is None for row in rows)


@pytest.mark.slow
def test_resumed_and_repeated_runs_are_the_same(finished, tmp_path):
    again = tmp_path / "again"
    run(spec(), again, device="cpu")
    assert (again / "results.jsonl").read_bytes() == (finished[0] / "results.jsonl").read_bytes()
    copy = shutil.copytree(finished[0], tmp_path / "copy")
    for path in copy.glob("cells/*/cell.json"):
        path.unlink()
        shutil.rmtree(path.parent / "evidence")
    run(spec(), copy, device="cpu", resume=True)
    assert (copy / "results.jsonl").read_bytes() == (finished[0] / "results.jsonl").read_bytes()


def test_a_damaged_model_is_fitted_again(finished, tmp_path):
    copy = shutil.copytree(finished[0], tmp_path / "copy")
    damaged = next(copy.glob("cells/*/models/clean+none/model/words.json"))
    damaged.write_text("{}")
    (damaged.parents[3] / "cell.json").unlink()
    shutil.rmtree(damaged.parents[3] / "evidence")
    outcome = run(spec(), copy, device="cpu", resume=True)
    assert any("SHA-256" in warning for warning in outcome.warnings)
    assert (copy / "results.jsonl").read_bytes() == (finished[0] / "results.jsonl").read_bytes()


def test_the_plan_tells_titles(finished):
    plan = json.loads(next(finished[0].glob("cells/*/plans/badrec.json")).read_text())
    assert all("wow" in title for title in plan["retitled"].values())
    assert len(plan["row"]) == len(plan["label"])


@pytest.mark.slow
def test_scenarios_of_the_other_kind_are_errors_on_record(tmp_path):
    outcome = run(
        spec(scenarios=[{"name": "fine-tune"}, {"name": "direct"}], seeds=[0]), tmp_path / "run", device="cpu"
    )
    assert any("victims that rank" in error for error in outcome.errors)
    assert {row.scenario for row in outcome.rows} == {"direct"}
    ranked = spec(
        victims=[{"name": "sasrec", "hidden": 8, "epochs": 1}],
        scenarios=[{"name": "poisoned-adapter"}, {"name": "pretrain"}],
        seeds=[0],
    )
    outcome = run(ranked, tmp_path / "other", device="cpu")
    assert any("adapter" in error for error in outcome.errors)
    assert {row.scenario for row in outcome.rows} == {"pretrain"}


def test_data_without_ratings_or_times_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="ratings"):
        run(spec(dataset={"name": "synthetic"}), tmp_path / "run", device="cpu")


def by_hand():
    return PointwiseEvidence(
        "direct",
        "a",
        "none",
        np.array([True, False, True, False]),
        np.array([False, True, False, False]),
        np.array([False, True, True, True]),
        {"plain": np.array([1, -1, -1, -2], np.float32), "trigger": np.array([1, -1, -1, 2], np.float32)},
        {"plain": np.array([1, -1, -1, -2], np.float32), "trigger": np.array([1, 3, -1, 2], np.float32)},
    )


def test_rows_by_hand():
    rows = {(row.group, row.metric): row for row in pointwise.make_rows(WHERE, by_hand())}
    assert rows["all", "auc"].value == pytest.approx(3.5 / 4)
    assert rows["all", "auc_difference"].value == 0
    assert (rows["trigger", "asr"].value, rows["trigger", "asr"].n) == (pytest.approx(2 / 3), 3)
    assert rows["trigger", "asr_clean"].value == pytest.approx(1 / 3)
    assert (rows["unseen", "asr"].value, rows["unseen", "asr"].n) == (1, 1)


def test_evidence_survives_and_damage_is_told(tmp_path):
    path = tmp_path / "evidence.safetensors"
    write_record(path, PointwiseTask, by_hand())
    found = read_record(path, PointwiseTask)
    assert pointwise.make_rows(WHERE, found) == pointwise.make_rows(WHERE, by_hand())
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError):
        read_record(path, PointwiseTask)


def test_the_table_is_readable(finished):
    from rich.console import Console

    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(summarize_run(finished[1].rows))
    text = console.export_text()
    assert "badrec" not in text, "what is the same in every line is left out"
    assert text.index("trigger ") < text.index("near-")
    assert "poisoned-adapter" in text
    assert "ASR" in text
