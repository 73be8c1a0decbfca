"""Tuning shared by processes: the steps of one process, with checkpoints that one of them writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cowbird import storage
from cowbird.data.choices import SequenceSplit
from cowbird.data.types import Interactions, Items, TrainingData, Users
from cowbird.errors import UserError
from cowbird.victims import checkpoint, training_loop
from cowbird.victims.base import FitContext
from cowbird.victims.language import tuning
from cowbird.victims.language.engine import ItemInputs
from cowbird.victims.language.examples import Tokens
from cowbird.victims.language.llara import LLaRA
from cowbird.victims.language.llm import Llm, add_adapters, load_llm
from cowbird.victims.language.tuning import Tuning, tune
from cowbird.victims.sequential.sasrec import SASRec

pytest.importorskip("transformers")
pytest.importorskip("peft")

CPU = torch.device("cpu")
WORLD = 2
RECIPE = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "precision": "float32"}
CASES = {
    "adapters": {"examples": 10},
    "one example in the last step": {"examples": 9},
    "one example": {"examples": 1},
    "all weights": {"examples": 9, "learns": "full", "recipe": {"learning_rate": 1e-3, "capacity": 12}},
    "items": {"examples": 9, "items": True},
}


class StopError(Exception):
    pass


def task(examples, items):
    rng = np.random.default_rng(examples)
    lengths = rng.integers(3, 9, examples)
    offsets = np.cumsum([0, *lengths])
    token = rng.integers(3, 390, offsets[-1])
    item = np.where(np.arange(offsets[-1]) % 3, -1, rng.integers(5, size=offsets[-1])) if items else None
    return Tokens(token, offsets, offsets[1:] - 2, item)


def tuned(llama, examples, learns="lora", recipe=None, items=False, folder=None):
    """Tune the tiny model, and return its losses and all that learned."""
    llm = Llm(name=str(llama), tuning=learns, rank=2)
    model = add_adapters(load_llm(llm, CPU, torch.float32).model, llm, torch.Generator().manual_seed(4))
    module = torch.nn.Embedding(5, 32)
    module.weight.data.normal_(0, 0.2, generator=torch.Generator().manual_seed(5))
    given = Tuning(**(RECIPE | (recipe or {})))
    place = FitContext(folder=folder, warn=pytest.fail)
    curve = tune(model, task(examples, items), given, 3, place, ItemInputs(module) if items else None)
    weights = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
    return {"losses": torch.tensor(curve.losses), "items": module.weight.detach(), **weights}


def fitted(llama, folder=None):
    """Fit a LLaRA, and return its losses and weights."""
    known = Items.from_lists("abcdefghijkl", "ABCDEFGHIJKL")
    walks = Interactions((np.arange(5)[:, None] * 3 + np.arange(6)).ravel() % 12, np.arange(6) * 6)
    data = TrainingData.from_interactions(walks, Users(tuple("uvwxy")), known)
    recommender = SASRec(
        hidden=8, max_length=4, epochs=2, batch_size=16, precision="float32", keep="last", patience=None
    )
    spec = LLaRA(llm=Llm(name=str(llama), rank=2), tuning=Tuning(**RECIPE), recommender=recommender)
    split = SequenceSplit(history=3, shortest=3, candidates=4)
    fit = spec.fit(data, split, 1, FitContext(folder=folder, warn=pytest.fail))
    weights = {name: weight.detach() for name, weight in fit.model.named_parameters() if weight.requires_grad}
    return {"losses": torch.tensor(fit.curve.losses), **weights, **fit.projector.state_dict()}


def stopped(patch, llama, folder):
    """Write a checkpoint after every step and stop after the third."""
    original = tuning._Run._report_and_save

    def housekeeping(self):
        original(self)
        if self.step == 3:
            raise StopError

    patch.setattr(tuning._Run, "_report_and_save", housekeeping)
    with pytest.raises(StopError):
        tuned(llama, 9, folder=folder)


def work(rank, llama, folder):
    """Do what one of the processes does; nothing here looks at the others."""
    told, written = {}, []
    original = storage.write_tensors
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_loop, "CHECKPOINT_SECONDS", -1.0)
        patch.setattr(training_loop, "CHECKPOINT_SECONDS", -1.0)
        patch.setattr(
            checkpoint, "write_tensors", lambda path, *more: written.append(path.name) or original(path, *more)
        )
        for name, case in CASES.items():
            storage.write_tensors(folder / f"{name}-{rank}.safetensors", tuned(llama, **case))
        storage.write_tensors(folder / f"fit-{rank}.safetensors", fitted(llama, folder / "llara"))
        written.clear()
        torch.distributed.barrier()
        if not rank:
            checkpoint.clear(folder / "llara")
        torch.distributed.barrier()
        fitted(llama, folder / "llara")
        told["llara"] = sorted(set(written))
        written.clear()
        with pytest.MonkeyPatch.context() as stop:
            stopped(stop, llama, folder / "run")
        told["run"] = list(written)
        torch.distributed.barrier()
        with pytest.raises(UserError, match="different steps, 0 to 3"):
            tuned(llama, 9, folder=folder / ("run" if rank else "empty"))
        torch.distributed.barrier()
        told["held"] = sorted(path.name for path in (folder / "run").iterdir())
        torch.distributed.barrier()
        steps = []
        patch.setattr(
            tuning._Run, "_run_step", lambda self, one=tuning._Run._run_step: steps.append(self.step) or one(self)
        )
        found = tuned(llama, 9, folder=folder / "run")
        told["resumed"] = steps
        storage.write_tensors(folder / f"resumed-{rank}.safetensors", found)
    (folder / f"told-{rank}.json").write_text(json.dumps(told))


@pytest.fixture(scope="module")
def shared(llama, tmp_path_factory):
    """Return the folder in which two processes left what they found."""
    folder = tmp_path_factory.mktemp("processes")
    own = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    started = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(llama), str(folder)], env=os.environ | own)
        for rank in range(WORLD)
    ]
    try:
        assert [process.wait(timeout=120) for process in started] == [0] * WORLD
    finally:
        for process in started:
            process.kill()
    return folder


def same(folder, name, wanted):
    for rank in range(WORLD):
        found, _ = storage.read_tensors(folder / f"{name}-{rank}.safetensors")
        assert found.keys() == wanted.keys()
        for key, weight in wanted.items():
            torch.testing.assert_close(found[key], weight, rtol=1e-5, atol=1e-5)
    one, other = (storage.read_tensors(folder / f"{name}-{rank}.safetensors")[0] for rank in range(WORLD))
    assert all(one[key].equal(other[key]) for key in one), "processes agree to the bit"


pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", CASES)
def test_two_processes_tune_as_one(shared, llama, name):
    wanted = tuned(llama, **CASES[name])
    same(shared, name, wanted)
    assert len(wanted["losses"]) == 2 * -(-CASES[name]["examples"] // 4)
    assert len(set(wanted["losses"].tolist())) > 1


def test_two_processes_fit_as_one(shared, llama):
    same(shared, "fit", fitted(llama))


def test_they_go_on_as_one(shared, llama):
    same(shared, "resumed", tuned(llama, 9))


def test_one_of_them_writes(shared):
    one, other = (json.loads((shared / f"told-{rank}.json").read_text()) for rank in range(WORLD))
    assert len(one["run"]) == 3
    assert len(one["llara"]) > 2
    assert other["run"] == other["llara"] == []
    assert one["held"] == other["held"] == [f"step-{n:09d}.{end}" for n in (2, 3) for end in ("json", "safetensors")]
    assert one["resumed"] == other["resumed"] == [3, 4, 5]


if __name__ == "__main__":
    rank, llama, folder = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    torch.distributed.init_process_group("gloo", f"file://{folder / 'meet'}", rank=rank, world_size=WORLD)
    work(rank, llama, folder)
    torch.distributed.destroy_process_group()
