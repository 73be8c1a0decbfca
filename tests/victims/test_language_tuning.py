"""The fine-tuning engine: steps against plain AdamW, what learns, and fits that were interrupted."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cowbird.errors import UserError
from cowbird.rng import stream
from cowbird.victims import checkpoint, training_loop
from cowbird.victims.base import FitContext
from cowbird.victims.language import tuning
from cowbird.victims.language.examples import Tokens
from cowbird.victims.language.llm import Llm, add_adapters, load_llm
from cowbird.victims.language.tuning import Tuning, compute_tuning_rate, tune
from cowbird.victims.language.weights import CopiedWeights

pytestmark = pytest.mark.slow

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

CPU = torch.device("cpu")
EXAMPLES, PER_EPOCH, EPOCHS = 10, 3, 2
TOTAL = PER_EPOCH * EPOCHS


class StopError(Exception):
    pass


def task(seed=0, examples=EXAMPLES):
    """Return examples of 2 to 6 tokens whose answer tells whether the first is odd."""
    rng, rows = np.random.default_rng(seed), []
    for n in range(examples):
        prompt = rng.integers(3, 390, 1 + n % 4).tolist()
        rows.append((prompt, [5 + prompt[0] % 2] + [7] * (n % 2)))
    offsets = np.cumsum([0] + [len(a) + len(b) for a, b in rows])
    return Tokens([token for a, b in rows for token in a + b], offsets, offsets[:-1] + [len(a) for a, _ in rows])


def recipe(**fields):
    given = {"epochs": EPOCHS, "batch_size": 4, "learning_rate": 1e-2, "weight_decay": 0.1, "precision": "float32"}
    return Tuning(**(given | fields))


@pytest.fixture
def model(llama):
    """Return a function that makes the tiny model, the same every time."""

    def make(learns="lora", dtype="float32", folder=llama):
        llm = Llm(name=str(folder), tuning=learns, rank=2, modules=("q_proj", "v_proj", "down_proj"))
        return add_adapters(load_llm(llm, CPU, getattr(torch, dtype)).model, llm, torch.Generator().manual_seed(4))

    return make


def run(model, tokens=None, given=None, seed=3, folder=None, **place):
    """Tune, and return all weights and the losses."""
    place = FitContext(folder=folder, **({"warn": pytest.fail} | place))
    curve = tune(model, task() if tokens is None else tokens, given or recipe(), seed, place)
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}, curve.losses


def same(one, other):
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    for name, weight in one[0].items():
        assert weight.equal(other[0][name]), name


# Steps


def reference(model, tokens, given, seed):
    """Tune as one would by hand: examples one at a time, the mean of their losses, AdamW."""
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    adam = torch.optim.AdamW(learning, weight_decay=given.weight_decay)
    total, step, losses = -(-len(tokens) // given.batch_size) * given.epochs, 0, []
    for epoch in range(given.epochs):
        order = stream(seed, "order", epoch).permutation(len(tokens))
        for first in range(0, len(tokens), given.batch_size):
            each = []
            for n in order[first : first + given.batch_size]:
                row = torch.tensor(tokens.token[tokens.offsets[n] : tokens.offsets[n + 1]], dtype=torch.int64)
                border = tokens.answer[n] - tokens.offsets[n]
                each.append(F.cross_entropy(model(input_ids=row[None]).logits[0, border - 1 : -1], row[border:]))
            loss = torch.stack(each).mean()
            loss.backward()
            if given.clip:
                torch.nn.utils.clip_grad_norm_(learning, given.clip)
            for group in adam.param_groups:
                group["lr"] = compute_tuning_rate(given, step, total)
            adam.step()
            adam.zero_grad()
            losses.append(loss.item())
            step += 1
    return {name: weight.detach() for name, weight in model.named_parameters()}, losses


@pytest.mark.parametrize("learns", ["lora", "full"])
@pytest.mark.parametrize("fields", [{"clip": None}, {"clip": 0.5, "warmup": 0.0}, {"capacity": 5, "batch_size": 3}])
def test_steps_are_those_of_plain_adamw(model, learns, fields):
    given = recipe(learning_rate=1e-3, **fields)
    wanted = reference(model(learns), task(), given, 3)
    found = run(model(learns), given=given)
    assert found[1] == pytest.approx(wanted[1], rel=1e-4)
    for name, weight in found[0].items():
        torch.testing.assert_close(weight, wanted[0][name], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("learns", ["lora", "full"])
def test_what_can_be_learned_is_learned(model, learns):
    before = {name: weight.detach().clone() for name, weight in model(learns).named_parameters()}
    after, losses = run(model(learns), task(examples=40), recipe(epochs=6, batch_size=8))
    assert losses[0] > 2
    assert np.mean(losses[-5:]) < losses[0] / 2
    changed = {name for name, weight in after.items() if not weight.equal(before[name])}
    assert changed == {name for name in before if learns == "full" or "lora_" in name}
    assert len(changed) == (2 * 3 * 2 if learns == "lora" else len(before))


def test_seeds(model):
    wanted = run(model())
    torch.manual_seed(7)
    same(run(model()), wanted)
    assert run(model(), seed=4)[1] != wanted[1]


def test_capacity_is_no_part_of_the_result(model):
    results = [run(model("full"), given=recipe(learning_rate=1e-3, capacity=n)) for n in (1, 7, 10**6)]
    for weights, losses in results[1:]:
        assert losses == pytest.approx(results[0][1], rel=1e-4)
        for name, weight in weights.items():
            torch.testing.assert_close(weight, results[0][0][name], rtol=1e-4, atol=2e-5)


def test_a_batch_may_be_larger_than_the_data(model):
    losses = run(model(), given=recipe(batch_size=1000, epochs=2))[1]
    assert len(losses) == 2
    assert losses == pytest.approx(run(model(), given=recipe(batch_size=EXAMPLES, epochs=2))[1])


def gradient(monkeypatch, folder, model, **fields):
    """Return the gradient of the first step: ten times Adam's first moment after it."""
    interrupt(monkeypatch, 1, lambda: run(model, given=recipe(**fields), folder=folder))
    held = checkpoint.load_latest(folder, pytest.fail).tensors
    return 10 * torch.cat([tensor.flatten() for name, tensor in held.items() if name.startswith("adam.exp_avg.")])


@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_the_rows_of_a_step_add_up(model, dtype, close, tmp_path, monkeypatch):
    one, other = (gradient(monkeypatch, tmp_path / str(n), model("full", dtype), capacity=n) for n in (1, 10**6))
    assert (one - other).norm() < close * one.norm()


@pytest.mark.parametrize("clip", [1e-3, 0.5, 1e6])
def test_gradients_are_clipped(model, clip, tmp_path, monkeypatch):
    whole = gradient(monkeypatch, tmp_path / "whole", model(), clip=None).norm().item()
    clipped = gradient(monkeypatch, tmp_path / "clipped", model(), clip=clip).norm().item()
    assert whole > 0.6
    assert clipped == pytest.approx(min(whole, clip), rel=1e-3)


def test_learning_rates():
    given = Tuning(learning_rate=2.0, warmup=0.2)
    assert [compute_tuning_rate(given, step, 10) for step in range(2)] == [1, 2]
    falling = [compute_tuning_rate(given, step, 10) for step in range(2, 10)]
    assert falling == pytest.approx([1 + math.cos(math.pi * n / 8) for n in range(8)])
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] > 0, "no step is lost"
    assert compute_tuning_rate(Tuning(learning_rate=2.0, warmup=0.0), 0, 10) == 2
    assert [compute_tuning_rate(Tuning(learning_rate=2.0, warmup=w), 0, 1) for w in (0.0, 0.05, 0.99)] == [2, 2, 2]
    assert [compute_tuning_rate(Tuning(learning_rate=2.0, warmup=0.99), n, 3) for n in range(3)] == pytest.approx(
        [2 / 3, 4 / 3, 2]
    )


def test_no_examples_is_a_user_error(model):
    with pytest.raises(UserError) as error:
        run(model(), task(examples=0))
    assert error.value.hint


def test_progress_and_curve(model, monkeypatch):
    monkeypatch.setattr(training_loop, "REPORT_SECONDS", -1.0)
    told, one = [], model()
    curve = tune(one, task(), recipe(), 3, FitContext(report=lambda *given: told.append(given)))
    assert [given[:2] for given in told] == [(n, TOTAL) for n in range(1, TOTAL + 1)]
    assert curve.tokens == EPOCHS * task().lengths.sum()
    assert curve.seconds > 0
    assert not one.training


# Interruptions


def stop_at(monkeypatch, step, before):
    """Make the next run fail in its housekeeping after `step` steps, before or after it saves."""
    original = tuning._Run._report_and_save

    def housekeeping(self):
        if before and self.step == step:
            raise StopError
        original(self)
        if self.step == step:
            raise StopError

    monkeypatch.setattr(tuning._Run, "_report_and_save", housekeeping)


def interrupt(monkeypatch, step, start, before=False):
    """Make a run write a checkpoint after each step, and fail after `step` steps."""
    with monkeypatch.context() as patch:
        patch.setattr(training_loop, "CHECKPOINT_SECONDS", -1.0)
        stop_at(patch, step, before)
        with pytest.raises(StopError):
            start()


@pytest.mark.parametrize(("learns", "dtype"), [("lora", "float32"), ("lora", "bfloat16"), ("full", "bfloat16")])
def test_resumed_equals_uninterrupted(model, learns, dtype, monkeypatch, tmp_path):
    start = lambda folder=None: run(model(learns, dtype), given=recipe(precision=dtype), folder=folder)  # noqa: E731
    wanted = start()
    for steps, before in (([1], False), ([PER_EPOCH, PER_EPOCH + 1], True), ([2, 4, TOTAL], False)):
        for step in steps:
            interrupt(monkeypatch, step, lambda: start(tmp_path), before=before)
            assert checkpoint.load_latest(tmp_path, pytest.fail).step == step - before
        same(start(tmp_path), wanted)
        checkpoint.clear(tmp_path)
        assert not list(tmp_path.iterdir()), "and once the model is kept, nothing is left"


def test_bfloat16_weights_are_kept_in_float32(model, monkeypatch, tmp_path):
    interrupt(monkeypatch, 2, lambda: run(model("full", "bfloat16"), folder=tmp_path))
    held = {k: v for k, v in checkpoint.load_latest(tmp_path, pytest.fail).tensors.items() if k.startswith("weight.")}
    assert {tensor.dtype for tensor in held.values()} == {torch.float32}
    assert any(not tensor.bfloat16().float().equal(tensor) for tensor in held.values())


@pytest.mark.parametrize("other", ["tokens", "answers", "labels", "among", "recipe", "seed", "adapters", "base model"])
def test_a_checkpoint_of_another_run_is_not_used(model, llamas, other, monkeypatch, tmp_path):
    interrupt(monkeypatch, 2, lambda: run(model(), folder=tmp_path))
    tokens, more, make = task(), {}, model
    if other == "tokens":
        more = {"tokens": task(seed=1)}
    elif other == "answers":
        starts = np.where(tokens.lengths > 2, tokens.offsets[1:] - 1, tokens.answer)
        assert (starts != tokens.answer).any()
        more = {"tokens": Tokens(tokens.token, tokens.offsets, starts)}
    elif other in ("labels", "among"):
        label = np.arange(len(tokens.token)) % 2
        given = [Tokens(tokens.token, tokens.offsets, tokens.answer, None, label, among) for among in ((5, 6), (8, 9))]
        if other == "labels":
            given[1] = Tokens(tokens.token, tokens.offsets, tokens.answer, None, 1 - label, (5, 6))
        interrupt(monkeypatch, 3, lambda: run(model(), given[0], folder=tmp_path))
        more = {"tokens": given[1]}
    elif other == "recipe":
        more = {"given": recipe(weight_decay=0.2)}
    elif other == "seed":
        more = {"seed": 4}
    else:
        make = (lambda: model("full")) if other == "adapters" else lambda: model(folder=llamas(1))
    same(run(make(), folder=tmp_path, **more), run(make(), **more))


def test_a_damaged_checkpoint_costs_steps_only(model, monkeypatch, tmp_path):
    wanted, told = run(model()), []
    interrupt(monkeypatch, 4, lambda: run(model(), folder=tmp_path))
    path = tmp_path / "step-000000004.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    same(run(model(), folder=tmp_path, warn=told.append), wanted)
    assert len(told) == 1
    assert "damaged" in told[0]


def test_ctrl_c_leaves_a_checkpoint(model, monkeypatch, tmp_path):
    monkeypatch.setattr(training_loop, "REPORT_SECONDS", -1.0)
    wanted, one = run(model()), model()

    def report(done, total, remark):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(one, folder=tmp_path, report=report)
    assert not one.training
    assert checkpoint.load_latest(tmp_path, pytest.fail).step == 2
    same(run(model(), folder=tmp_path), wanted)


@pytest.mark.parametrize("where", ["gather", "copy"])
def test_ctrl_c_in_the_middle_of_a_step(model, where, monkeypatch, tmp_path):
    wanted, original, calls = run(model()), getattr(CopiedWeights, where), []

    def method(self):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        original(self)

    with monkeypatch.context() as stopped:
        stopped.setattr(training_loop, "CHECKPOINT_SECONDS", -1.0)
        stopped.setattr(CopiedWeights, where, method)
        with pytest.raises(KeyboardInterrupt):
            run(model(), folder=tmp_path)
    assert checkpoint.load_latest(tmp_path, pytest.fail).step == 3, "a step half done is not kept"
    same(run(model(), folder=tmp_path), wanted)


# The clock


def test_a_run_ends_by_the_clock_and_its_rate_falls_to_nothing(model, monkeypatch):
    clock = {"now": 0.0}
    monkeypatch.setattr(tuning.time, "perf_counter", lambda: clock["now"])
    monkeypatch.setattr(tuning, "CLOCK_WARMUP_STEPS", 1)
    rates = []

    class Watched(tuning._Run):
        def _run_step(self):
            clock["now"] += 1.0
            rates.append(self._pick_rate())
            super()._run_step()

    monkeypatch.setattr(tuning, "_Run", Watched)
    curve = tune(model(), task(), recipe(epochs=1000), 3, FitContext(), seconds=8.0)
    assert len(curve.losses) == 9
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.9 * 1e-2
    assert rates[7] == pytest.approx(0.0, abs=1e-9)


def test_the_clock_ends_nothing_if_the_steps_are_done_before(model):
    curve = tune(model(), task(), recipe(), 3, FitContext(), seconds=1e6)
    assert len(curve.losses) == TOTAL
