"""The one training loop of all sequential recommenders.

The histories are on the device once, as flat arrays; a batch is a list of window numbers. Parameters are kept in
float32; with bfloat16 precision a step works on a bfloat16 copy of them (they are small), so nothing is cast inside
the network. On a GPU the whole step, from window numbers to the optimizer, is recorded as a CUDA graph and replayed.

Every draw is a function of the seed and of the step or epoch number, so a fit resumed from a checkpoint of any step
ends in the same weights as one that was never interrupted. The state that is best on validation is kept.
"""

import copy
import hashlib
import json
import math
import time
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from cowbird.data.split import Queries
from cowbird.data.types import TrainingData
from cowbird.metrics.ranking import ndcg
from cowbird.rng import derive_seed, stream
from cowbird.victims.fit_context import FitContext, get_thread_stream
from cowbird.victims.sequential import checkpoint
from cowbird.victims.sequential.negatives import push_away_loss, sampled_loss
from cowbird.victims.sequential.noise import Noise
from cowbird.victims.sequential.repeatable import force_determinism, move_module, recording_lock
from cowbird.victims.sequential.softmax import chunked_softmax_loss
from cowbird.victims.sequential.windows import Batch, WindowRegime, Windows

if TYPE_CHECKING:
    from cowbird.victims.sequential.base import FittedSequential

CHECKPOINT_SECONDS = 20.0
"""How often a running fit is saved; the work that a kill can cost."""
REPORT_SECONDS = 0.2
PROMPT_WEIGHT_PREFIX = "prompt."
"""How the names of prompt weights begin."""


class TrainingRecipe(BaseModel):
    """How a sequential recommender is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    epochs: int = Field(default=100, ge=1)
    """Most passes over the windows."""
    batch_size: int = Field(default=256, ge=1)
    """Windows a step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """AdamW's peak learning rate."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps in which the learning rate rises from zero."""
    schedule: Literal["constant", "cosine"] = "constant"
    """What the learning rate does after warm-up: stay, or fall to zero at the last epoch."""
    regime: WindowRegime = "all"
    """Training windows: `last` a user, `all` of them, or one sample a `prefix`."""
    validate_every: int = Field(default=1, ge=1)
    """Epochs between validations (NDCG@10)."""
    patience: int | None = Field(default=10, ge=1)
    """Validations without a new best before the fit stops; `None` trains all epochs."""
    keep: Literal["best", "last"] = "best"
    """Which state is kept: the best on validation, or the last (without early stopping)."""
    trained: Literal["all", "model", "prompts"] = "all"
    """Which weights learn: all, those of the model alone, or those of its prompts alone."""
    prompt_learning_rate: float | None = Field(default=None, gt=0)
    """Peak learning rate of the prompts; `None` takes `learning_rate`."""
    loss: Literal["softmax", "sampled"] = "softmax"
    """Cross-entropy over the whole catalogue, or binary cross-entropy with sampled negatives (as SASRec's paper)."""
    sampled_negatives: int = Field(default=1, ge=1)
    """Negatives drawn for each target when the loss is `sampled`, uniformly from the catalogue."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of a training step; `auto` is bfloat16 where the processor multiplies it fast."""


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the number format of a training step on a device."""
    if precision == "auto":
        fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bfloat16()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def _cpu_has_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def _select_learning(network: torch.nn.Module, recipe: TrainingRecipe) -> dict[str, torch.nn.Parameter]:
    """Return the weights that learn, by name."""
    named = dict(network.named_parameters())
    if recipe.trained == "all":
        return named
    return {
        name: p for name, p in named.items() if name.startswith(PROMPT_WEIGHT_PREFIX) == (recipe.trained == "prompts")
    }


class _Step:
    """One optimizer step on one batch: eager on a CPU, a replayed CUDA graph on a GPU."""

    def __init__(self, fitted: "FittedSequential", windows: Windows, device: torch.device) -> None:
        self.network, self.items, self.windows, self.device = fitted.network, fitted.items, windows, device
        recipe = fitted.spec
        self.sampled = recipe.sampled_negatives if recipe.loss == "sampled" else 0
        self.dtype = pick_dtype(recipe.precision, device)
        self.noise = Noise(recipe.dropout, device, self.dtype)
        self.worker = self.network
        if self.dtype is not torch.float32:
            self.worker = move_module(copy.deepcopy(self.network), self.dtype)
        self.parameters, self.working = _select_learning(self.network, recipe), _select_learning(self.worker, recipe)
        for name, parameter in self.worker.named_parameters():
            parameter.requires_grad_(name in self.working)
        on_gpu = device.type == "cuda"
        groups: list[dict[str, Any]] = []
        for prompts in (False, True):
            chosen = [p for name, p in self.parameters.items() if name.startswith(PROMPT_WEIGHT_PREFIX) == prompts]
            peak = (prompts and recipe.prompt_learning_rate) or recipe.learning_rate
            rate: Any = torch.tensor(peak, device=device) if on_gpu else peak
            if chosen:
                groups.append({"params": chosen, "lr": rate, "factor": peak / recipe.learning_rate})
        self.optimizer = torch.optim.AdamW(
            groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True, capturable=on_gpu
        )
        self.index = torch.full((min(recipe.batch_size, len(windows)),), -1, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.changing = False
        """Whether the weights may be ahead of the step counter; an interrupt then saves nothing."""

    def __call__(self, index: Tensor, rate: float, seed: int) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * group["factor"])
            else:
                group["lr"] = rate * group["factor"]
        if self.device.type != "cuda":
            self.noise.begin(seed)
            self._run_batch(index)
            return
        self.index[: len(index)].copy_(index)
        self.index[len(index) :].fill_(-1)
        if self.graph is None:
            with recording_lock:
                self._record_graph()
        assert self.graph is not None
        self.changing = True
        self.noise.seed(seed)
        self.graph.replay()

    def _run_batch(self, index: Tensor) -> None:
        batch = self.windows.make_batch(index)
        pairs = [(parameter, self.working[name]) for name, parameter in self.parameters.items()]
        if self.worker is not self.network:
            with torch.no_grad():
                for parameter, working in pairs:
                    working.copy_(parameter)
        self.worker.zero_grad(set_to_none=True)
        hidden = self.worker.encode(batch.item, self.noise, batch.profile).flatten(0, 1)
        self._compute_loss(hidden, batch).backward()
        if self.worker is not self.network:
            for parameter, working in pairs:
                parameter.grad = working.grad.float() if working.grad is not None else None
        self.changing = True
        self.optimizer.step()

    def _compute_loss(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Return the loss of a batch; a CPU leaves out rows without a target, a GPU computes all of them."""
        table, weight = self.worker.item.weight[: self.items], batch.weight.flatten()
        label, dense = batch.label.flatten(), self.device.type == "cuda"
        planted = None if batch.negative is None or batch.push is None else (batch.negative, batch.push)
        if self.sampled:
            drawn = self.noise.draw_integers(self.items, (len(hidden), self.sampled))
            if planted is not None:
                drawn[:, 0] = torch.where(planted[1].flatten() > 0, planted[0].flatten(), drawn[:, 0])
            rows = slice(None) if dense else weight.nonzero()[:, 0]
            return sampled_loss(hidden[rows], table, label[rows], drawn[rows], weight[rows])
        loss = chunked_softmax_loss(hidden, table, label, weight, None if dense else weight.nonzero()[:, 0])
        if planted is not None:
            negative, push = (column.flatten() for column in planted)
            rows = slice(None) if dense else push.nonzero()[:, 0]
            loss = loss + push_away_loss(hidden[rows], table, label[rows], negative[rows], push[rows])
        return loss

    def _record_graph(self) -> None:
        """Warm up on a side stream, undo what the warm-up did, then record the step on it."""
        self.changing = True
        state = {name: tensor.clone() for name, tensor in self.collect_tensors().items()}
        side = get_thread_stream(self.device, "record")
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(3):
                self.noise.begin(0)
                self._run_batch(self.index)
        torch.cuda.current_stream(self.device).wait_stream(side)
        self.worker.zero_grad(set_to_none=True)
        self.optimizer.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        for generator in self.noise.generators:
            self.graph.register_generator_state(generator)
        # Not the stream that torch keeps for captures: it belongs to the first device and thread that captured.
        capture: Any = torch.cuda.graph(self.graph, stream=side, capture_error_mode="thread_local")
        with capture:
            self.noise.draw()
            self._run_batch(self.index)
        self.restore(state)

    def collect_tensors(self) -> dict[str, Tensor]:
        """Return all that a step changes, by name."""
        held = {f"weight.{name}": parameter.data for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            for key in ("exp_avg", "exp_avg_sq", "step"):
                state = self.optimizer.state[parameter]
                if not state:
                    state["step"] = torch.zeros((), dtype=torch.float32, device=self.device)
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                held[f"adam.{key}.{name}"] = state[key]
        return held

    def restore(self, saved: dict[str, Tensor]) -> None:
        """Put saved values back in place."""
        with torch.no_grad():
            for name, tensor in self.collect_tensors().items():
                tensor.copy_(saved[name])


class _BestState:
    """The best state on validation so far (or the last one), and the history of validations."""

    def __init__(self, network: torch.nn.Module, keep: str) -> None:
        self.network, self.keep = network, keep
        self.weights: dict[str, Tensor] = {}
        self.history: list[tuple[int, float]] = []

    @property
    def epoch(self) -> int:
        return max(self.history, key=lambda entry: (entry[1], -entry[0]))[0] if self.history else 0

    @property
    def waited(self) -> int:
        return sum(1 for epoch, _ in self.history if epoch > self.epoch)

    def add(self, epoch: int, score: float) -> None:
        if self.keep == "last" or all(score > before for _, before in self.history):
            self.weights = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        self.history.append((epoch, score))


def compute_learning_rate(recipe: TrainingRecipe, step: int, total: int) -> float:
    """Return the learning rate of a step (counted from 0) of `total`."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    if recipe.schedule == "constant":
        return recipe.learning_rate
    done = (step - recipe.warmup_steps) / max(1, total - recipe.warmup_steps)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def hash_fit(fitted: "FittedSequential", data: TrainingData, validation: Queries, seed: int) -> str:
    """Hash what decides a fit: spec, seed, data, profiles, validation, weights. Checkpoints of another are not used."""
    spec = [type(fitted.spec).__name__, fitted.spec.model_dump(mode="json"), seed]
    digest = hashlib.sha256(json.dumps(spec).encode())
    asked = validation.history
    given = (
        data.interactions.offsets,
        data.interactions.item,
        data.label,
        data.negative,
        fitted.encode_profiles(data.users),
    )
    for array in (*given, asked.offsets, asked.item, validation.target, fitted.encode_profiles(validation.users)):
        digest.update(b"" if array is None else array.tobytes())
    for tensor in fitted.network.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def train(fitted: "FittedSequential", data: TrainingData, validation: Queries, seed: int, place: FitContext) -> None:
    """Train `fitted.network` in place and leave in it the state that is best on validation.

    Args:
        fitted: Model with initial weights on `place.device`.
        data: Histories and labels.
        validation: Queries whose NDCG@10 (full ranking) decides which state is kept.
        seed: Decides order and dropout.
        place: Device, checkpoint folder, progress.

    Raises:
        UserError: If there is nothing to train on.
        KeyboardInterrupt: Passed on after a checkpoint was written.
    """
    with force_determinism(place.device):
        _Fit(fitted, data, validation, seed, place).run()


class _Fit:
    """One fit: where it stands, and how it is saved."""

    def __init__(
        self, fitted: "FittedSequential", data: TrainingData, validation: Queries, seed: int, place: FitContext
    ) -> None:
        self.fitted, self.validation, self.seed, self.place = fitted, validation, seed, place
        self.recipe = fitted.spec
        profile = fitted.encode_profiles(data.users)
        fitted.encode_profiles(validation.users)  # better to hear of missing profiles now than at the first validation
        self.windows = Windows(data, self.recipe.max_length, self.recipe.regime, place.device, profile)
        self.key = hash_fit(fitted, data, validation, seed) if place.folder else ""
        self.work = _Step(fitted, self.windows, place.device)
        self.best = _BestState(fitted.network, self.recipe.keep)
        self.per_epoch = -(-len(self.windows) // self.recipe.batch_size)
        self.total = self.per_epoch * self.recipe.epochs
        self.step = 0
        self.epoch = 0
        """Epochs that are over, their validation included."""
        self.saved_at = self.reported_at = time.monotonic()

    def run(self) -> None:
        self._resume()
        try:
            while self.epoch < self.recipe.epochs and not self._is_exhausted():
                self._run_epoch(self.epoch)
                self.epoch += 1
        except KeyboardInterrupt:
            if not self.work.changing:
                self._save()
            raise
        self.fitted.network.load_state_dict(self.best.weights)
        self.fitted.validations = self.best.history
        if self.place.folder:
            checkpoint.clear(self.place.folder)

    def _is_exhausted(self) -> bool:
        patience = None if self.recipe.keep == "last" else self.recipe.patience
        return patience is not None and self.best.waited >= patience

    def _run_epoch(self, epoch: int) -> None:
        order = stream(self.seed, "order", epoch).permutation(len(self.windows))
        windows = torch.from_numpy(order).to(self.place.device)
        size = self.recipe.batch_size
        for start in range((self.step - epoch * self.per_epoch) * size, len(windows), size):
            index = windows[start : start + size]
            rate = compute_learning_rate(self.recipe, self.step, self.total)
            self.work(index, rate, derive_seed(self.seed, "dropout", self.step))
            self.step += 1
            self.work.changing = False
            self._report_and_save()
        last = epoch + 1 == self.recipe.epochs
        due = (epoch + 1) % self.recipe.validate_every == 0 or last
        # A fit interrupted after its validation and before the epoch was counted comes here again.
        if due and epoch + 1 not in dict(self.best.history):
            ranks = self.fitted.rank_targets(self.validation)
            self.best.add(epoch + 1, float(np.mean(ndcg(ranks, 10))))

    def _report_and_save(self) -> None:
        now = time.monotonic()
        if now - self.reported_at > REPORT_SECONDS or self.step == self.total:
            self.reported_at = now
            best = max((score for _, score in self.best.history), default=None)
            self.place.report(self.step, self.total, "" if best is None else f"validation NDCG@10 {best:.4f}")
        if self.place.folder and now - self.saved_at > CHECKPOINT_SECONDS:
            self._save()
            self.saved_at = time.monotonic()

    def _save(self) -> None:
        if not self.place.folder:
            return
        tensors = self.work.collect_tensors() | {f"best.{name}": value for name, value in self.best.weights.items()}
        state = {"key": self.key, "epoch": self.epoch, "history": self.best.history}
        checkpoint.save(self.place.folder, self.step, state, tensors)

    def _resume(self) -> None:
        found = checkpoint.load_latest(self.place.folder, self.place.warn) if self.place.folder else None
        if found is None or found.state.get("key") != self.key or "epoch" not in found.state:
            return
        self.work.restore(found.tensors)
        self.best.history = [(int(epoch), float(score)) for epoch, score in found.state["history"]]
        self.best.weights = {
            name.removeprefix("best."): tensor.to(self.place.device)
            for name, tensor in found.tensors.items()
            if name.startswith("best.")
        }
        self.step, self.epoch = found.step, int(found.state["epoch"])
