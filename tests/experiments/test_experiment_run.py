"""Runs: the same bytes every time, however often interrupted, and clear words when something is wrong."""

import copy
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cowbird.errors import UserError
from cowbird.experiments import cell as cell_module
from cowbird.experiments import results
from cowbird.experiments.cell import hash_models, list_cells
from cowbird.experiments.results_file import ResultsFile
from cowbird.experiments.run import run
from cowbird.experiments.spec import parse_spec
from cowbird.experiments.store import columns
from cowbird.storage import write_tensors
from cowbird.victims import training_loop
from cowbird.victims.base import FittedRecommender, pick_device
from cowbird.victims.sequential import training
from doubles.evidence import evidence_files

FIELDS = ["experiment", "dataset", "victim", "attack", "defense", "scenario", "group", "metric", "k", "seed"]
FIELDS += ["value", "low", "high", "n"]
COWBIRD = str(Path(sys.executable).parent / "cowbird")


def rows_of(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def resumed(spec, out, **options):
    return run(spec, out, device="cpu", resume=True, **options)


# What a finished run holds.


def test_rows_have_exactly_these_fields(tiny_run):
    rows = rows_of(tiny_run[0])
    assert rows
    assert all(list(row) == FIELDS for row in rows)
    assert results.read_results(tiny_run[0] / "results.jsonl") == tiny_run[1].rows


def test_every_combination_is_measured(tiny, tiny_run):
    out, outcome = tiny_run
    assert (outcome.done, outcome.total, outcome.errors, outcome.warnings) == (2, 2, [], [])
    rows = rows_of(out)
    assert {row["seed"] for row in rows} == {0, 1, None}
    assert {row["k"] for row in rows} == {5, 10}
    for attack in ("women", "everyone"):
        for scenario in ("direct", "fine-tune"):
            for seed in (0, 1, None):
                here = [r for r in rows if (r["attack"], r["scenario"], r["seed"]) == (attack, scenario, seed)]
                metrics = {(row["metric"], row["group"]) for row in here}
                for metric in ("hr", "ndcg", "ndcg_change", "exposure_hr", "exposure_hr_clean"):
                    assert (metric, "all") in metrics
                groups = {row["group"] for row in here if row["metric"] == "exposure_hr"}
                assert groups == ({"target", "other", "all"} if attack == "women" else {"target", "all"})
    keys = [tuple(row[name] for name in FIELDS[2:10]) for row in rows]
    assert len(set(keys)) == len(keys), "no measurement twice"


def test_values_are_where_they_must_be(tiny_run):
    for row in rows_of(tiny_run[0]):
        low, value, high = row["low"], row["value"], row["high"]
        name = row["metric"]
        if value is None:
            assert low is high is None, row
        if not name.endswith("_over_seeds"):
            assert low is None or value is None or low <= value + 1e-12, row
            assert high is None or value is None or value <= high + 1e-12, row
        if name in ("hr", "ndcg", "mrr") or name in ("exposure_hr", "exposure_ndcg"):
            assert 0 <= value <= 1, row
        if name.endswith("_lower_bound"):
            assert high is None, row


def test_the_backdoor_hatches(tiny_run):
    """Even a few steps of training show the planted items to those they were planted for."""
    rows = {r.metric: r.value for r in tiny_run[1].rows if rest(r) == ("women", "direct", "target", None, 10)}
    assert rows["exposure_hr"] > 1.5 * rows["exposure_hr_clean"]
    assert rows["lift_hr"] == pytest.approx(rows["exposure_hr"] / rows["exposure_hr_clean"])
    assert rows["ndcg_change"] == pytest.approx(rows["ndcg"] / rows["ndcg_clean"] - 1)


def rest(row):
    return row.attack, row.scenario, row.group, row.seed, row.k


def test_a_cell_tells_what_was_planted(small, small_run):
    (cell,) = list_cells(small, small_run[0])
    record = json.loads((cell.folder / "cell.json").read_text())
    plan = record["plans"]["women"]
    assert plan["rows"] == plan["budget"] > 0
    assert len(plan["targets"]) == len(plan["target_titles"]) == 3
    kept = json.loads((cell.folder / "plans" / "women.json").read_text())
    assert len(kept["row"]) == len(kept["label"]) == plan["rows"]
    assert (record["warm_users"], record["cold_users"]) == (42, 18)
    assert set(hash_models(cell)) == {
        "clean+none", "women+none", "clean+none+fine-tune", "women+none+fine-tune",
    }  # fmt: skip
    assert not list(small_run[0].rglob("step-*")), "checkpoints of finished fits are removed"
    assert not list(small_run[0].rglob("*.partial"))


@pytest.mark.slow
def test_two_runs_are_the_same_bytes(tiny, tiny_run, contents, tmp_path):
    torch.rand(3)
    run(tiny, tmp_path / "again", device="cpu")
    assert contents(tmp_path / "again") == contents(tiny_run[0])


def test_results_can_be_made_again_without_training(small, small_copy, small_run, contents):
    (small_copy / "results.jsonl").unlink()
    shutil.rmtree(next(small_copy.rglob("models")))
    outcome = resumed(small, small_copy)
    assert outcome.dataset is None
    assert (small_copy / "results.jsonl").read_bytes() == (small_run[0] / "results.jsonl").read_bytes()


@pytest.mark.slow
def test_a_seed_s_rows_do_not_depend_on_the_other_seeds(tiny, tiny_run, tmp_path):
    alone = parse_with(tiny, seeds=[1])
    found = run(alone, tmp_path / "alone", device="cpu").rows
    single = [row for row in found if row.seed == 1]
    assert single
    assert single == [row for row in tiny_run[1].rows if row.seed == 1]


def parse_with(spec, **changes):
    from cowbird.experiments.executor import to_tables

    return parse_spec({**to_tables(json.loads(json.dumps(spec.to_record()))), **changes}, allow_plugins=True)


@pytest.mark.slow
def test_several_processes_change_no_byte(tiny, tiny_run, contents, tmp_path):
    """Two jobs share the threads: with as many threads each as the reference has, all is the same.

    With another number of threads sums are made in another order, so floats, and with them ranks, may differ.
    """
    torch.set_num_threads(2)
    try:
        told = []
        outcome = run(tiny, tmp_path / "two", device="cpu", jobs=2, cell_done=lambda *now: told.append(now))
    finally:
        torch.set_num_threads(1)
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert outcome.errors == []
    assert contents(tmp_path / "two") == contents(tiny_run[0])


# Interrupted and resumed.


class Interrupting:
    """A progress callback that presses Ctrl-C at its n-th call."""

    def __init__(self, moment):
        self.left = moment

    def __call__(self, *told):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


# 42 warm and 18 cold users in batches of 16: 3 epochs of 3 steps twice, 2 epochs of 2 steps twice.
STEPS = 2 * 9 + 2 * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment", [1, 9, 10, 22, 26, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 4, 8, 19, 20))]
)
def test_interrupted_at_a_step_and_resumed(small, small_run, contents, tmp_path, monkeypatch, moment):
    monkeypatch.setattr(training_loop, "REPORT_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        run(small, tmp_path / "cut", device="cpu", progress=Interrupting(moment))
    counter = Interrupting(-1)
    outcome = resumed(small, tmp_path / "cut", progress=counter)
    assert -1 - counter.left == STEPS - moment, "no step is made again"
    assert outcome.warnings == []
    assert contents(tmp_path / "cut") == contents(small_run[0])


@pytest.mark.slow
def test_interrupted_again_and_again(small, small_run, contents, tmp_path, monkeypatch):
    monkeypatch.setattr(training_loop, "REPORT_SECONDS", -1.0)
    for attempt in range(STEPS):
        try:
            run(small, tmp_path / "cut", device="cpu", resume=attempt > 0, progress=Interrupting(3))
        except KeyboardInterrupt:
            continue
        break
    assert attempt == STEPS // 3
    assert contents(tmp_path / "cut") == contents(small_run[0])


def interrupt_after(monkeypatch, owner, name, call):
    """Press Ctrl-C right after the n-th call of a function is over."""
    real, left = getattr(owner, name), [call]

    def wrapped(*args, **kwargs):
        found = real(*args, **kwargs)
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(owner, name, wrapped)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        pytest.param(torch.optim.AdamW, "step", 1, marks=pytest.mark.slow),
        (torch.optim.AdamW, "step", 5),
        pytest.param(torch.Tensor, "backward", 5, marks=pytest.mark.slow),
        pytest.param(FittedRecommender, "rank_targets", 1, marks=pytest.mark.slow),
        (FittedRecommender, "rank_targets", 3),
        pytest.param(training._BestState, "add", 1, marks=pytest.mark.slow),
        (training._BestState, "add", 3),
        (training_loop.checkpoint, "clear", 1),
        (FittedRecommender, "rank_items", 1),
        (cell_module, "write_text", 1),
        (cell_module, "write_text", 2),
        (columns, "write_tensors", 1),
        (columns, "write_tensors", 2),
    ],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_interrupted_anywhere_and_resumed(small, small_run, contents, tmp_path, monkeypatch, owner, name, call):
    """A real Ctrl-C falls where it likes: after the weights changed but before the step is counted, for one."""
    with monkeypatch.context() as patched:
        interrupt_after(patched, owner, name, call)
        with pytest.raises(KeyboardInterrupt):
            run(small, tmp_path / "cut", device="cpu")
    outcome = resumed(small, tmp_path / "cut")
    assert outcome.warnings == []
    assert contents(tmp_path / "cut") == contents(small_run[0])


@pytest.mark.slow
def test_interrupted_between_two_cells(tiny, tiny_run, contents, tmp_path):
    def told(done, total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny, tmp_path / "cut", device="cpu", cell_done=told)
    assert [cell.done for cell in list_cells(tiny, tmp_path / "cut")] == [True, False]
    ledger = ResultsFile(tiny, tmp_path / "cut")
    assert ledger.update() == 1
    assert ledger.list_errors() == []
    assert {row.seed for row in ledger.make_rows(pooled=True)} == {0, None}
    assert {row.seed for row in ledger.make_rows(pooled=False)} == {0}
    untouched = evidence_files(tmp_path / "cut")[0].stat().st_mtime_ns
    resumed(tiny, tmp_path / "cut")
    assert contents(tmp_path / "cut") == contents(tiny_run[0])
    assert evidence_files(tmp_path / "cut" / "cells" / "sasrec-0")[0].stat().st_mtime_ns == untouched


@pytest.mark.slow
def test_an_interrupted_run_leaves_the_results_of_what_is_done(tiny, tmp_path):
    def told(done, total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny, tmp_path / "cut", device="cpu", cell_done=told)
    assert {row["seed"] for row in rows_of(tmp_path / "cut")} == {0, None}


def start(spec, folder, *options):
    path = folder / "spec.toml"
    if not path.exists():
        path.write_text(spec)
    command = [COWBIRD, "run", str(path), "--out", str(folder / "run"), "--device", "cpu", *options]
    return subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(process, folder, pattern):
    end = time.monotonic() + 60
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("spec.json", marks=pytest.mark.long),
        "cells/sasrec-0/models/women+none",
        pytest.param("cells/sasrec-0/evidence/*", marks=pytest.mark.long),
        pytest.param("cells/sasrec-1/models/*", marks=pytest.mark.long),
    ],
)
def test_killed_and_resumed(tiny, tiny_toml, tiny_run, contents, tmp_path, moment):
    process = start(tiny_toml, tmp_path)
    try:
        wait_for(process, tmp_path / "run", moment)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    outcome = resumed(tiny, tmp_path / "run")
    assert outcome.errors == outcome.warnings == []
    assert contents(tmp_path / "run") == contents(tiny_run[0])


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [pytest.param("1", marks=pytest.mark.long), "2"])
def test_ctrl_c_and_resumed(tiny, tiny_toml, tiny_run, contents, tmp_path, jobs):
    process = start(tiny_toml, tmp_path, "--jobs", jobs)
    try:
        wait_for(process, tmp_path / "run", "cells/sasrec-?/models/women+none")
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=60)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 3, said
    assert "Traceback" not in said
    assert "--resume" in said
    resumed(tiny, tmp_path / "run")
    assert contents(tmp_path / "run") == contents(tiny_run[0])


# What is wrong is said.


def test_a_used_folder_is_not_used_twice(small, small_copy):
    with pytest.raises(UserError, match="holds this run already") as caught:
        run(small, small_copy, device="cpu")
    assert "--resume" in caught.value.hint


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_keeps_to_its_spec(small, small_copy, contents, resume):
    before = contents(small_copy)
    for other, why in ((parse_with(small, seeds=[4]), "seed 3 would be"), (parse_with(small, ks=[60]), "ks was")):
        with pytest.raises(UserError, match=f"another spec: .*{why}"):
            run(other, small_copy, device="cpu", resume=resume)
    assert contents(small_copy) == before


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "cells/x"])
def test_a_folder_that_holds_something_is_left_alone(small, tmp_path, resume, name):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(UserError, match="not an empty folder"):
        run(small, tmp_path / "out", device="cpu", resume=resume)
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == [path]


def test_a_file_is_no_folder(small, tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    for out in (path, path / "deeper", tmp_path / ("a" * 300)):
        with pytest.raises(UserError):
            run(small, out, device="cpu")
    assert path.read_text() == "mine"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"sha256": 3}', "null", "\x00"])
def test_a_damaged_record_of_the_spec(small, small_copy, text):
    (small_copy / "spec.json").write_text(text)
    with pytest.raises(UserError, match=r"spec\.json' is damaged|another spec"):
        resumed(small, small_copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"errors": 3}', "null", b"\xff"])
def test_a_damaged_cell(small, small_copy, text):
    (cell,) = list_cells(small, small_copy)
    (cell.folder / "cell.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=r"cell\.json' is damaged") as caught:
        resumed(small, small_copy)
    assert "Remove '" in caught.value.hint
    (cell.folder / "cell.json").unlink()
    resumed(small, small_copy)


def unfinished(spec, folder):
    (cell,) = list_cells(spec, folder)
    (cell.folder / "cell.json").unlink()
    shutil.rmtree(cell.folder / "evidence")
    (folder / "results.jsonl").unlink()
    return cell


def cut_short(data):
    return data[: len(data) // 2]


def emptied(data):
    return b""


def scrambled(data):
    return b"\xff" * len(data)


def foreign(data):
    return b"not safetensors at all"


DAMAGES = [cut_short, emptied, scrambled, foreign]


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (cut_short, "clean+none"),
        (emptied, "women+none"),
        (scrambled, "clean+none+fine-tune"),
        (foreign, "women+none+fine-tune"),
    ],
)
def test_a_damaged_model_is_fitted_again(small, small_copy, small_run, contents, damage, name):
    cell = unfinished(small, small_copy)
    path = cell.folder / "models" / name / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    outcome = resumed(small, small_copy)
    assert len(outcome.warnings) == 1
    assert "Fitting it again" in outcome.warnings[0]
    assert name in outcome.warnings[0]
    assert contents(small_copy) == contents(small_run[0])


def test_another_model_in_its_place_is_fitted_again(small, small_copy, small_run, contents):
    cell = unfinished(small, small_copy)
    path = cell.folder / "models" / "clean+none" / "model.safetensors"
    shutil.copy(evidence_files(small_run[0])[0], path)
    outcome = resumed(small, small_copy)
    assert any("its SHA-256 is not the recorded one" in warning for warning in outcome.warnings)
    assert contents(small_copy) == contents(small_run[0])


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_evidence_is_told(small, small_copy, damage):
    path = evidence_files(small_copy)[0]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"women\+none\+direct\.safetensors"):
        resumed(small, small_copy)


def test_missing_evidence_is_told(small, small_copy):
    evidence_files(small_copy)[0].unlink()
    with pytest.raises(UserError, match=r"women\+none\+direct\.safetensors"):
        resumed(small, small_copy)


@pytest.mark.slow
def test_an_attack_that_does_not_fit_leaves_the_others_alone(tiny, tiny_run, table, tmp_path):
    table["seeds"] = [0]
    unfit = copy.deepcopy(table["attacks"][1])
    table["attacks"].insert(1, unfit | {"label": "unfit", "targets": {"ids": ["nowhere"]}})
    spec = parse_spec(table)
    outcome = run(spec, tmp_path / "out", device="cpu")
    assert outcome.done == outcome.total == 1
    assert len(outcome.errors) == 1
    assert all(word in outcome.errors[0] for word in ("sasrec, seed 0", "unfit", "'nowhere'"))
    assert {row.attack for row in outcome.rows} == {"none", "women", "everyone"}
    expected = [row for row in tiny_run[1].rows if row.seed == 0]
    assert [row for row in outcome.rows if row.seed == 0] == expected
    again = resumed(spec, tmp_path / "out")
    assert again.errors == outcome.errors, "they stay on record"


def test_nothing_but_unfit_attacks(small, tmp_path):
    spec = parse_with(small, attacks=[{"name": "basic_replacement", "targets": {"count": 999}}])
    outcome = run(spec, tmp_path / "out", device="cpu")
    assert outcome.rows == []
    assert len(outcome.errors) == 1
    assert (tmp_path / "out" / "results.jsonl").read_text() == ""


def test_an_attack_that_breaks_its_promise_is_an_error_on_record(small, tmp_path, monkeypatch):
    (tmp_path / "strangers").mkdir()
    (tmp_path / "strangers" / "__init__.py").touch()
    (tmp_path / "strangers" / "liar.py").write_text(
        "import numpy as np\n"
        "from cowbird.attacks.base import Attack, Plan\n"
        "class Liar(Attack):\n"
        '    """Lies."""\n'
        "    def run(self, data, rng):\n"
        "        return Plan(data, np.array([0], np.int32), np.array([1, 2]), 5)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = parse_with(small, attacks=[{"name": "strangers.liar"}, {"name": "strangers.liar:Liar", "label": "b"}])
    outcome = run(spec, tmp_path / "out", device="cpu")
    assert len(outcome.errors) == 2
    assert "Liar planted 2 rows" in outcome.errors[0]


@pytest.mark.parametrize("scenario", ["direct", "fine-tune"])
def test_downstream_scenarios_need_cold_users(small, scenario):
    with pytest.raises(UserError, match=r"serves cold users; set split\.cold_fraction above 0"):
        parse_with(small, split={"cold_fraction": 0.0}, scenarios=[{"name": "pretrain"}, {"name": scenario}])


def test_without_cold_users_the_provider_s_own_are_measured(small, tmp_path):
    spec = parse_with(small, split={"cold_fraction": 0.0}, scenarios=[{"name": "pretrain"}])
    rows = run(spec, tmp_path / "out", device="cpu").rows
    assert {row.scenario for row in rows} == {"pretrain"}
    assert {row.n for row in rows if row.metric == "hr" and row.group == "all" and row.seed == 3} == {60}


def test_a_cut_off_beyond_fifty_is_exact(small, tmp_path):
    """Exposure ranks are kept up to the largest cut-off: no item beyond it may count as shown."""
    big = {"name": "synthetic", "users": 40, "items": 300, "events_per_user": 8}
    changes = {"dataset": big, "ks": [50, 90, 300], "scenarios": [{"name": "direct"}]}
    rows = run(parse_with(small, **changes), tmp_path / "out", device="cpu").rows
    shown = {
        row.k: row.value for row in rows if row.metric == "exposure_hr_clean" and (row.group, row.seed) == ("all", 3)
    }
    assert shown[50] <= shown[90] < 1
    assert shown[300] == 1


@pytest.mark.parametrize(
    "name", ["meta", "gpu", "", "cuda:-1", "cuda:x", "cuda:99", "hpu", "privateuseone", "mps:7", "a b", "\0"]
)
def test_a_device_that_is_not_there(small, tmp_path, name):
    with pytest.raises(UserError, match="can't be used"):
        run(small, tmp_path / "out", device=name)
    assert not (tmp_path / "out").exists(), "nothing is written before the device is known"
    assert pick_device("cpu").type == "cpu"


def test_too_few_users(small, tmp_path):
    spec = parse_with(small, dataset={"name": "synthetic", "users": 1, "items": 20})
    with pytest.raises(UserError, match="too few"):
        run(spec, tmp_path / "out", device="cpu")


def test_a_full_disk_is_told(tmp_path):
    """A limit on file sizes stands in for a full disk."""
    handler, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, limits[1]))
    try:
        with pytest.raises(UserError, match="disk full"):
            write_tensors(tmp_path / "model", {"a": torch.zeros(9999)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_worker_that_dies_is_told(tiny, tmp_path, monkeypatch):
    (tmp_path / "strangers2").mkdir()
    (tmp_path / "strangers2" / "__init__.py").touch()
    (tmp_path / "strangers2" / "fatal.py").write_text(
        "import os\n"
        "from cowbird.attacks.base import Attack\n"
        "class Fatal(Attack):\n"
        '    """Dies, as if the memory had run out."""\n'
        "    def run(self, data, rng):\n"
        "        os._exit(9)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = parse_with(tiny, attacks=[{"name": "strangers2.fatal"}])
    outcome = run(spec, tmp_path / "out", device="cpu", jobs=2)
    assert (outcome.done, len(outcome.errors)) == (0, 2)
    assert all("its worker process died, or one beside it" in error for error in outcome.errors)
