"""How all sequential recommenders are trained.

The histories are on the device once, as flat arrays; a batch is a list of window numbers. Parameters are kept in
float32; with bfloat16 precision a step works on a bfloat16 copy of them (they are small), so nothing is cast inside
the network. On a GPU the whole step, from window numbers to the optimizer, is recorded as a CUDA graph and replayed.

Every draw is a function of the seed and of the step or epoch number, so a fit resumed from a checkpoint of any step
ends in the same weights as one that was never interrupted. The state that is best on validation is kept.
"""

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cowbird.data.split import Queries
from cowbird.data.types import TrainingData, Users
from cowbird.metrics.ranking import ndcg
from cowbird.rng import derive_seed, stream
from cowbird.victims.checkpoint import Checkpoint
from cowbird.victims.fit_context import FitContext, get_thread_stream, pick_dtype
from cowbird.victims.repeatable import force_determinism, move_module, recording_lock
from cowbird.victims.sequential.negatives import push_away_loss, sampled_loss
from cowbird.victims.sequential.network import SequentialNetwork
from cowbird.victims.sequential.noise import Noise
from cowbird.victims.sequential.recipe import SequentialFields, TrainingRecipe
from cowbird.victims.sequential.softmax import chunked_softmax_loss
from cowbird.victims.sequential.windows import Batch, Windows
from cowbird.victims.training_loop import (
    TrainingLoop,
    collect_training_tensors,
    compute_learning_rate,
    restore_tensors,
)

PROMPT_WEIGHT_PREFIX = "prompt."
"""How the names of prompt weights begin."""
TARGET_MULTIPLE = 128
"""Rows of the output layer on a CPU come in multiples of this many: its library prepares each new shape for long."""


class TrainableModel(Protocol):
    """A fitted model as training needs it."""

    validations: list[tuple[int, float]]
    """Epochs and their scores on validation; written when training ends."""

    @property
    def spec(self) -> SequentialFields:
        """What it is fitted from."""
        ...

    @property
    def network(self) -> SequentialNetwork:
        """Its weights."""
        ...

    @property
    def items(self) -> int:
        """Size of the catalogue."""
        ...

    def encode_profiles(self, users: Users | None) -> NDArray[np.int64] | None:
        """Return what the prompts read of users, shape `[users, attributes]`; `None` if there are no prompts."""
        ...

    def rank_targets(self, queries: Queries) -> NDArray[np.int64]:
        """Return the rank of each query's target, shape `[queries]`."""
        ...


def select_targets(weight: Tensor) -> Tensor:
    """Return the rows that have a target, filled up with others to one of a few counts.

    Args:
        weight: Share of each row in the loss, shape `[rows]`; 0 where it has no target.

    Returns:
        Rows, int64; each at most once.
    """
    rows = weight.nonzero()[:, 0]
    missing = -len(rows) % TARGET_MULTIPLE
    return torch.cat([rows, (weight == 0).nonzero()[:missing, 0]]) if missing else rows


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

    def __init__(
        self, fitted: TrainableModel, windows: Windows, device: torch.device, begin_change: Callable[[], None]
    ) -> None:
        self.begin_change = begin_change
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
        self.begin_change()
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
        self.begin_change()
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
        loss = chunked_softmax_loss(hidden, table, label, weight, None if dense else select_targets(weight))
        if planted is not None:
            negative, push = (column.flatten() for column in planted)
            rows = slice(None) if dense else push.nonzero()[:, 0]
            loss = loss + push_away_loss(hidden[rows], table, label[rows], negative[rows], push[rows])
        return loss

    def _record_graph(self) -> None:
        """Warm up on a side stream, undo what the warm-up did, then record the step on it."""
        self.begin_change()
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
        restore_tensors(self.collect_tensors(), state)

    def collect_tensors(self) -> dict[str, Tensor]:
        """Return all that a step changes, by name."""
        return collect_training_tensors(self.parameters, self.optimizer)


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


def hash_fit(fitted: TrainableModel, data: TrainingData, validation: Queries, seed: int) -> str:
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


def train(fitted: TrainableModel, data: TrainingData, validation: Queries, seed: int, context: FitContext) -> None:
    """Train `fitted.network` in place and leave in it the state that is best on validation.

    Args:
        fitted: Model with initial weights on `context.device`.
        data: Histories and labels.
        validation: Queries whose NDCG@10 (full ranking) decides which state is kept.
        seed: Decides order and dropout.
        context: Device, checkpoint folder, progress.

    Raises:
        UserError: If there is nothing to train on.
        KeyboardInterrupt: Passed on after a checkpoint was written.
    """
    with force_determinism(context.device):
        _Fit(fitted, data, validation, seed, context).run()


class _Fit(TrainingLoop):
    """The fit of a sequential recommender: epochs, and a validation after some of them."""

    def __init__(
        self, fitted: TrainableModel, data: TrainingData, validation: Queries, seed: int, context: FitContext
    ) -> None:
        super().__init__(context)
        self.fitted, self.validation, self.seed = fitted, validation, seed
        self.recipe = fitted.spec
        profile = fitted.encode_profiles(data.users)
        fitted.encode_profiles(validation.users)  # better to hear of missing profiles now than at the first validation
        self.windows = Windows(data, self.recipe.max_length, self.recipe.regime, context.device, profile)
        self.key = hash_fit(fitted, data, validation, seed) if context.folder else ""
        self.work = _Step(fitted, self.windows, context.device, self._begin_change)
        self.best = _BestState(fitted.network, self.recipe.keep)
        self.per_epoch = -(-len(self.windows) // self.recipe.batch_size)
        self.total = self.per_epoch * self.recipe.epochs
        self.epoch = 0
        """Epochs that are over, their validation included."""
        self.order: tuple[int, Tensor] | None = None

    def run(self) -> None:
        """Train, and leave the state that is kept in the network."""
        super().run()
        self.fitted.network.load_state_dict(self.best.weights)
        self.fitted.validations = self.best.history

    def _is_over(self) -> bool:
        patience = None if self.recipe.keep == "last" else self.recipe.patience
        exhausted = patience is not None and self.best.waited >= patience
        return exhausted or self.epoch >= self.recipe.epochs

    def _run_step(self) -> None:
        recipe = self.recipe
        if self.order is None or self.order[0] != self.epoch:
            order = stream(self.seed, "order", self.epoch).permutation(len(self.windows))
            self.order = self.epoch, torch.from_numpy(order).to(self.context.device)
        start = (self.step - self.epoch * self.per_epoch) * recipe.batch_size
        index = self.order[1][start : start + recipe.batch_size]
        falls = recipe.schedule == "cosine"
        rate = compute_learning_rate(recipe.learning_rate, self.step, self.total, recipe.warmup_steps, falls)
        self.work(index, rate, derive_seed(self.seed, "dropout", self.step))

    def _finish_epoch(self) -> None:
        """Validate where an epoch's last step is done."""
        if self.step < (self.epoch + 1) * self.per_epoch:
            return
        due = (self.epoch + 1) % self.recipe.validate_every == 0 or self.epoch + 1 == self.recipe.epochs
        # A fit interrupted after its validation and before the epoch was counted comes here again.
        if due and self.epoch + 1 not in dict(self.best.history):
            ranks = self.fitted.rank_targets(self.validation)
            self.best.add(self.epoch + 1, float(np.mean(ndcg(ranks, 10))))
        self.epoch += 1

    def _describe_progress(self) -> str:
        best = max((score for _, score in self.best.history), default=None)
        return "" if best is None else f"validation NDCG@10 {best:.4f}"

    def _collect_tensors(self) -> dict[str, Tensor]:
        return self.work.collect_tensors() | {f"best.{name}": value for name, value in self.best.weights.items()}

    def _describe_state(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "history": self.best.history}

    def _restore(self, found: Checkpoint) -> None:
        restore_tensors(self.work.collect_tensors(), found.tensors)
        self.best.history = [(int(epoch), float(score)) for epoch, score in found.state["history"]]
        self.best.weights = {
            name.removeprefix("best."): tensor.to(self.context.device)
            for name, tensor in found.tensors.items()
            if name.startswith("best.")
        }
        self.epoch = int(found.state["epoch"])
