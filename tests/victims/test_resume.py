"""An interrupted fit ends in the very weights of one that was not, wherever it was stopped."""

import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from cowbird.data.split import Queries
from cowbird.data.types import TrainingData
from cowbird.victims import checkpoint, training_loop
from cowbird.victims.base import FitContext
from cowbird.victims.sequential import training
from cowbird.victims.sequential.base import FittedSequential

pytestmark = pytest.mark.slow

PER_EPOCH, EPOCHS = 4, 3
TOTAL = PER_EPOCH * EPOCHS


class StopError(Exception):
    pass


@pytest.fixture(autouse=True)
def always_save(monkeypatch):
    monkeypatch.setattr(training_loop, "CHECKPOINT_SECONDS", -1.0)


@pytest.fixture
def small(tiny):
    """Return a function that makes a victim of one layer, 4 steps an epoch, 3 epochs."""
    given = {"layers": 1, "epochs": EPOCHS, "batch_size": 13, "dropout": 0.3, "weight_decay": 0.1}
    return lambda name="sasrec", **fields: tiny(name, **(given | fields))


def fit(spec, parts, folder=None, seed=3, told=None, **more):
    warn = pytest.fail if told is None else told.append
    side = parts.pretrain
    fitted = spec.fit(side.training(), side.validation(), seed, FitContext(folder=folder, warn=warn), **more)
    return {name: tensor.clone() for name, tensor in fitted.network.state_dict().items()}, fitted.validations


@pytest.fixture(scope="module")
def whole(parts):
    """Return a function that fits a victim without an interruption, once a module."""
    known = {}

    def make(spec):
        key = type(spec), spec.model_dump_json()
        if key not in known:
            known[key] = fit(spec, parts)
        return known[key]

    return make


def same(a, b):
    assert a[1] == b[1]
    assert a[0].keys() == b[0].keys()
    for name, tensor in a[0].items():
        assert tensor.equal(b[0][name]), name


@pytest.fixture
def steps(monkeypatch):
    """Return the list of the steps done, as (step number, last step of a fit)."""
    done = []
    original = training._Fit._report_and_save

    def housekeeping(self):
        done.append(self.step)
        original(self)

    monkeypatch.setattr(training._Fit, "_report_and_save", housekeeping)
    return done


def stop_at(monkeypatch, step, error, before=False):
    """Make the next fit fail in its housekeeping after `step` steps, before or after it saves."""
    original = training._Fit._report_and_save

    def housekeeping(self):
        if before and self.step == step:
            raise error
        original(self)
        if self.step == step:
            raise error

    monkeypatch.setattr(training._Fit, "_report_and_save", housekeeping)
    return lambda: monkeypatch.setattr(training._Fit, "_report_and_save", original)


def test_the_numbers_of_this_file(small, parts, steps):
    fit(small(), parts)
    assert steps == list(range(1, TOTAL + 1))


@pytest.mark.parametrize("name", ["sasrec", pytest.param("gru4rec", marks=pytest.mark.slow)])
@pytest.mark.parametrize("error", [StopError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [False, True])
def test_resumed_equals_uninterrupted(name, error, before, small, whole, parts, steps, monkeypatch, tmp_path):
    wanted = whole(small(name))
    ends = [1, PER_EPOCH - 1, PER_EPOCH, PER_EPOCH + 1, 2 * PER_EPOCH, TOTAL - 1, TOTAL]
    ends = [PER_EPOCH, TOTAL] if before or error is KeyboardInterrupt else ends
    for step in (*ends, random.Random(0).randrange(2, TOTAL)):
        folder = tmp_path / str(step)
        undo = stop_at(monkeypatch, step, error, before)
        with pytest.raises(error):
            fit(small(name), parts, folder)
        undo()
        steps.clear()
        same(fit(small(name), parts, folder), wanted)
        lost = TOTAL - step - len(steps)
        assert lost >= (-1 if before and error is StopError else 0), f"stopped at {step}, repeated {steps}"
        checkpoint.clear(folder)
        assert not list(folder.iterdir()), "and once the model is kept, nothing is left"


def test_bfloat16_and_schedules_resume_too(small, whole, parts, monkeypatch, tmp_path):
    spec = small(precision="bfloat16", schedule="cosine", warmup_steps=7, regime="prefix", batch_size=64)
    wanted = whole(spec)
    undo = stop_at(monkeypatch, 4, StopError)
    with pytest.raises(StopError):
        fit(spec, parts, tmp_path)
    undo()
    same(fit(spec, parts, tmp_path), wanted)


def test_stopped_again_and_again(small, whole, parts, monkeypatch, tmp_path):
    wanted = whole(small())
    for step in range(1, TOTAL + 1, 3):
        undo = stop_at(monkeypatch, step, StopError)
        with pytest.raises(StopError):
            fit(small(), parts, tmp_path)
        undo()
    same(fit(small(), parts, tmp_path), wanted)


@pytest.mark.parametrize("validation", range(1, EPOCHS + 1))
@pytest.mark.parametrize("done", [pytest.param(False, marks=pytest.mark.slow), True])
def test_interrupted_while_validating(validation, done, small, whole, parts, monkeypatch, tmp_path):
    wanted = whole(small())
    original, calls = FittedSequential.rank_targets, []

    def rank_targets(self, queries):
        calls.append(1)
        found = original(self, queries) if done else None
        if len(calls) == validation:
            raise KeyboardInterrupt
        return original(self, queries) if found is None else found

    with monkeypatch.context() as patch:
        patch.setattr(FittedSequential, "rank_targets", rank_targets)
        with pytest.raises(KeyboardInterrupt):
            fit(small(), parts, tmp_path)
    same(fit(small(), parts, tmp_path), wanted)


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("step", [1, pytest.param(3, marks=pytest.mark.slow), PER_EPOCH, PER_EPOCH + 2, TOTAL])
def test_interrupted_inside_a_step(where, step, small, whole, parts, monkeypatch, tmp_path):
    """Control-C comes between any two instructions: also when weights have moved and the step is not counted yet."""
    wanted = whole(small())
    original, calls = torch.optim.AdamW.step, []

    def optimize(self, *args):
        calls.append(1)
        if len(calls) == step and where == "before":
            raise KeyboardInterrupt
        original(self, *args)
        if len(calls) == step and where == "after":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", optimize)
        with pytest.raises(KeyboardInterrupt):
            fit(small(), parts, tmp_path)
    same(fit(small(), parts, tmp_path), wanted)


def test_an_interrupt_writes_a_checkpoint(small, parts, monkeypatch, tmp_path):
    monkeypatch.setattr(training_loop, "CHECKPOINT_SECONDS", 1e9)
    undo = stop_at(monkeypatch, 7, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(small(), parts, tmp_path)
    undo()
    assert checkpoint.load_latest(tmp_path, pytest.fail).step == 7
    assert not list(tmp_path.glob(".*"))


def test_no_checkpoints_before_their_time_or_without_a_folder(small, parts, monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoint, "save", lambda *args: pytest.fail("saved"))
    fit(small(), parts)
    monkeypatch.setattr(training_loop, "CHECKPOINT_SECONDS", 1e9)
    fit(small(), parts, tmp_path)


def test_epochs_of_one_step_are_saved_too(small, whole, parts, steps, monkeypatch, tmp_path):
    spec = small(batch_size=1000, epochs=6)
    wanted = whole(spec)
    undo = stop_at(monkeypatch, 5, StopError)
    with pytest.raises(StopError):
        fit(spec, parts, tmp_path)
    undo()
    steps.clear()
    same(fit(spec, parts, tmp_path), wanted)
    assert len(steps) < 6, "the fit started over"


def interrupted(spec, parts, folder, monkeypatch, step=TOTAL - 3, **more):
    undo = stop_at(monkeypatch, step, StopError)
    with pytest.raises(StopError):
        fit(spec, parts, folder, **more)
    undo()
    assert checkpoint.load_latest(folder, pytest.fail) is not None


def test_a_damaged_newest_costs_one_checkpoint(small, whole, parts, steps, monkeypatch, tmp_path):
    wanted = whole(small())
    interrupted(small(), parts, tmp_path, monkeypatch)
    newest = max(tmp_path.glob("*.safetensors"))
    raw = bytearray(newest.read_bytes())
    raw[len(raw) // 2] ^= 4
    newest.write_bytes(raw)
    told = []
    steps.clear()
    same(fit(small(), parts, tmp_path, told=told), wanted)
    assert len(told) == 1
    assert "damaged" in told[0]
    assert len(steps) == 4


def test_all_damaged_starts_over(small, whole, parts, steps, monkeypatch, tmp_path):
    wanted = whole(small())
    interrupted(small(), parts, tmp_path, monkeypatch)
    for path in tmp_path.glob("*.json"):
        path.write_text("garbage")
    told = []
    steps.clear()
    same(fit(small(), parts, tmp_path, told=told), wanted)
    assert len(told) == 2
    assert len(steps) == TOTAL


@pytest.mark.slow
def test_a_checkpoint_of_another_fit_is_not_used(small, parts, steps, monkeypatch, tmp_path):
    side, clean = parts.pretrain, parts.pretrain.training()
    label = np.array(clean.label)
    label[3] = (label[3] + 1) % len(clean.items)
    poisoned = TrainingData(clean.interactions, clean.users, clean.items, label)
    queries = side.validation()
    asked = Queries(queries.history, queries.target[::-1])
    start = small().fit(clean, queries, 77)
    others = {
        "spec": (small(learning_rate=2e-2), clean, queries, 3, None),
        "victim": (small("gru4rec"), clean, queries, 3, None),
        "labels": (small(), poisoned, queries, 3, None),
        "validation": (small(), clean, asked, 3, None),
        "seed": (small(), clean, queries, 4, None),
        "start": (small(), clean, queries, 3, start),
    }
    for name, (spec, data, validation, seed, begin) in others.items():
        folder = tmp_path / name
        interrupted(small(), parts, folder, monkeypatch)
        steps.clear()
        found = spec.fit(data, validation, seed, FitContext(folder=folder, warn=pytest.fail), begin)
        assert len(steps) == TOTAL, name
        fresh = spec.fit(data, validation, seed, None, begin)
        for key, tensor in fresh.network.state_dict().items():
            assert tensor.equal(found.network.state_dict()[key]), name


def test_checkpoints_of_another_fit_do_not_keep_this_one_from_resuming(
    small, whole, parts, steps, monkeypatch, tmp_path
):
    interrupted(small(), parts, tmp_path, monkeypatch, step=TOTAL - 1)
    other = small(learning_rate=2e-2)
    wanted = whole(other)
    undo = stop_at(monkeypatch, 7, StopError)
    with pytest.raises(StopError):
        fit(other, parts, tmp_path)
    undo()
    steps.clear()
    same(fit(other, parts, tmp_path), wanted)
    assert len(steps) == TOTAL - 7


SCRIPT = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from cowbird.data.sources.synthetic import Synthetic
from cowbird.data.split import Split
from cowbird.victims.base import FitContext
from cowbird.victims import training_loop
from cowbird.victims.sequential.sasrec import SASRec
training_loop.CHECKPOINT_SECONDS = -1.0
side = Split(cold_fraction=0.2).apply(Synthetic(users=30, items=24, events_per_user=8, categories=4).load(), 0).pretrain
spec = SASRec.model_validate_json(sys.argv[1])
spec.fit(side.training(), side.validation(), 3, FitContext(folder=Path(sys.argv[2])))
"""


@pytest.mark.slow
@pytest.mark.long
def test_killed(small, whole, parts, steps, tmp_path):
    """Real `kill -9`s at random moments, among hundreds of writes; then the fit ends as if nothing had been."""
    spec = small(epochs=100)
    wanted = whole(spec)
    command = [sys.executable, "-c", SCRIPT, spec.model_dump_json(), str(tmp_path)]
    for _ in range(2):
        before = set(tmp_path.iterdir())
        process = subprocess.Popen(command)
        try:
            deadline = time.monotonic() + 60
            while not set(tmp_path.glob("step-*.json")) - before and time.monotonic() < deadline:
                assert process.poll() is None
                time.sleep(0.005)
            time.sleep(random.SystemRandom().uniform(0, 0.5))
            assert process.poll() is None, "finished before it was killed"
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    steps.clear()
    same(fit(spec, parts, tmp_path), wanted)
    assert 0 < len(steps) < spec.epochs * PER_EPOCH, "started over"
    checkpoint.clear(tmp_path)
    assert not list(tmp_path.iterdir()), "nothing but checkpoints is left"
