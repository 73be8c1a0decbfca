"""What the environment did is no result: the cell stays undone, the run goes on, and a resumed one tries again."""

import errno
import json
import os

import pytest
import safetensors.torch
import torch

from cowbird.defenses.p_scanner.triggers import _openai
from cowbird.defenses.p_scanner.triggers.agent import Brief, OpenAIAgent
from cowbird.errors import UserError
from cowbird.experiments.cell import list_cells
from cowbird.experiments.run import run
from cowbird.experiments.store import seals
from cowbird.experiments.tasks.ranking import RankingTask
from cowbird.rng import stream

pytestmark = pytest.mark.slow


def ask_a_server_that_is_down():
    agent = OpenAIAgent(model="tiny", retries=0).connect("http://127.0.0.1:9/v1")
    agent.propose(Brief(titles=("Red Harbor",), wanted=2), stream(0, "agent"))


def fail_with(error):
    def fail():
        raise error

    return fail


FAULTS = {
    "full disk": fail_with(OSError(errno.ENOSPC, "No space left on device")),
    "quota": fail_with(OSError(errno.EDQUOT, "Disk quota exceeded")),
    "broken disk": fail_with(OSError(errno.EIO, "Input/output error")),
    "read-only": fail_with(OSError(errno.EROFS, "Read-only file system")),
    "lost race": fail_with(FileNotFoundError(errno.ENOENT, "No such file or directory")),
    "memory": fail_with(MemoryError()),
    "gpu memory": fail_with(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")),
    "gpu": fail_with(RuntimeError("CUDA error: an illegal memory access was encountered")),
    "server": ask_a_server_that_is_down,
}


@pytest.fixture(autouse=True)
def agents(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(_openai.time, "sleep", lambda seconds: None)


def break_scenario(patched, label, fail):
    real = RankingTask.measure

    def measure(self, planted, defense, scenario):
        if scenario.title() == label:
            fail()
        return real(self, planted, defense, scenario)

    patched.setattr(RankingTask, "measure", measure)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_leaves_the_cell_undone(small, small_run, contents, tmp_path, monkeypatch, fault):
    if fault == "server":
        pytest.importorskip("openai")
    with monkeypatch.context() as patched:
        break_scenario(patched, "direct", FAULTS[fault])
        outcome = run(small, tmp_path / "cut", device="cpu")
    assert (outcome.done, outcome.total) == (0, 1)
    (error,) = outcome.errors
    assert "scenario direct" in error
    assert "--resume" in error
    assert {row.scenario for row in outcome.rows} == {"fine-tune"}, "the other scenario is measured, and told"
    again = run(small, tmp_path / "cut", device="cpu", resume=True)
    assert (again.done, again.errors, again.warnings) == (1, [], [])
    assert contents(tmp_path / "cut") == contents(small_run[0])


def test_a_disk_that_takes_no_model_costs_no_row(small, small_run, contents, tmp_path, monkeypatch):
    """The fault is where it is in life: in the library that writes weights."""
    save = safetensors.torch.save_file

    def full(tensors, path, *more):
        if "fine-tune" in str(path):
            raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")
        save(tensors, path, *more)

    with monkeypatch.context() as patched:
        patched.setattr(safetensors.torch, "save_file", full)
        outcome = run(small, tmp_path / "cut", device="cpu")
    assert outcome.done == 0
    assert "No space left" in outcome.errors[0]
    again = run(small, tmp_path / "cut", device="cpu", resume=True)
    assert (again.done, again.errors) == (1, [])
    assert contents(tmp_path / "cut") == contents(small_run[0])


def test_what_is_refused_is_a_result(small, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        break_scenario(patched, "direct", fail_with(UserError("This victim can't do that.", "Use another.")))
        outcome = run(small, tmp_path / "cut", device="cpu")
    assert outcome.done == outcome.total == 1
    assert "This victim can't do that" in outcome.errors[0]
    again = run(small, tmp_path / "cut", device="cpu", resume=True)
    assert again.dataset is None, "nothing is tried again"
    assert again.errors == outcome.errors


def test_what_nobody_foresaw_is_raised(small, tmp_path, monkeypatch):
    break_scenario(monkeypatch, "direct", fail_with(KeyError("oh")))
    with pytest.raises(KeyError):
        run(small, tmp_path / "cut", device="cpu")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError()], ids=repr)
def test_a_cell_that_stops_leaves_the_others_going(tiny, tmp_path, monkeypatch, error):
    """The disk takes the record of no first cell; the second one is measured."""
    real, hit = RankingTask.__init__, []

    def broken(self, *given):
        if not hit:
            hit.append(1)
            raise error
        real(self, *given)

    monkeypatch.setattr(RankingTask, "__init__", broken)
    outcome = run(tiny, tmp_path / "cut", device="cpu")
    assert (outcome.done, outcome.total) == (1, 2)
    (told,) = outcome.errors
    assert told.startswith("sasrec, seed 0 stopped: ")
    assert "--resume" in told


def test_results_that_can_t_be_written_are_told(small, small_run, tmp_path, monkeypatch):
    real = type(tmp_path).replace

    def full(self, to):
        if to.name == "results.jsonl":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, to)

    with monkeypatch.context() as patched:
        patched.setattr(type(tmp_path), "replace", full)
        outcome = run(small, tmp_path / "cut", device="cpu")
    assert (outcome.done, len(outcome.rows)) == (1, len(small_run[1].rows))
    assert "No space left" in outcome.errors[0]
    run(small, tmp_path / "cut", device="cpu", resume=True)
    assert (tmp_path / "cut" / "results.jsonl").read_bytes() == (small_run[0] / "results.jsonl").read_bytes()


# What can't be read for a moment


@pytest.mark.parametrize("kind", ["models", "planted", "evidence"])
def test_what_can_t_be_read_for_a_moment_is_not_damaged(small, small_copy, contents, monkeypatch, kind):
    """Too many open files: nothing is called damaged, unsealed and made again over what is whole."""
    (cell,) = list_cells(small, small_copy)
    before = contents(small_copy)
    cell.record_path.unlink()
    if kind == "models":
        for path in (cell.folder / "evidence").iterdir():
            path.unlink()
    seals_before = sorted(path.name for path in small_copy.rglob("*.sha256"))
    real = seals.hash_files

    def busy(path):
        if kind in path.parts:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path)

    with monkeypatch.context() as patched:
        patched.setattr(seals, "hash_files", busy)
        outcome = run(small, small_copy, device="cpu", resume=True)
    assert outcome.done == 0
    assert outcome.warnings == []
    assert sorted(path.name for path in small_copy.rglob("*.sha256")) == seals_before
    again = run(small, small_copy, device="cpu", resume=True)
    assert (again.done, again.errors, again.warnings) == (1, [], [])
    assert contents(small_copy) == before


def test_a_fit_whose_model_can_t_be_kept_goes_on(small, small_run, contents, tmp_path, monkeypatch):
    """A full disk after the last step: the steps before the last checkpoint are not made again."""
    from cowbird.victims import training_loop
    from cowbird.victims.sequential.base import FittedSequential

    monkeypatch.setattr(training_loop, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(training_loop, "REPORT_SECONDS", -1.0)

    def full(self, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(FittedSequential, "save", full)
        assert run(small, tmp_path / "cut", device="cpu").done == 0
    assert list((tmp_path / "cut").rglob("step-*")), "what was fitted is kept"
    steps = []
    outcome = run(small, tmp_path / "cut", device="cpu", resume=True, progress=lambda *told: steps.append(told))
    assert outcome.done == 1
    assert not [told for told in steps if "clean+none:" in told[0] and told[1] < 9]
    assert contents(tmp_path / "cut") == contents(small_run[0])
    assert not list((tmp_path / "cut").rglob("step-*"))


# Two writers


def test_a_second_run_needs_resume_and_changes_nothing(small, tmp_path):
    said = []

    def meddle(what, done, total, remark):
        if not said:
            before = sorted(str(path) for path in (tmp_path / "run").rglob("*"))
            with pytest.raises(UserError, match="holds this run already") as error:
                run(small, tmp_path / "run", device="cpu")
            said.append(error.value.hint)
            assert sorted(str(path) for path in (tmp_path / "run").rglob("*")) == before

    outcome = run(small, tmp_path / "run", device="cpu", progress=meddle)
    assert said
    assert "--resume" in said[0]
    assert (outcome.done, outcome.errors) == (1, [])
    assert not list((tmp_path / "run").rglob("lock"))


def test_leftovers_of_a_kill_are_swept_when_the_run_goes_on(small, small_copy):
    left = small_copy / "cells" / ".x.abc.cowbird-partial"
    left.mkdir()
    (left / "x").write_text("half")
    run(small, small_copy, device="cpu", resume=True)
    assert not left.exists()


def test_the_record_of_an_undone_cell_says_what_is_open(small, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        break_scenario(patched, "direct", FAULTS["full disk"])
        run(small, tmp_path / "cut", device="cpu")
    (cell,) = list_cells(small, tmp_path / "cut")
    record = json.loads(cell.record_path.read_text())
    assert record["errors"] == []
    assert len(record["unmeasured"]) == 1
    assert not cell.done
