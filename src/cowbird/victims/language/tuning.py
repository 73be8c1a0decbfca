"""The fine-tuning engine: short supervised examples, packed, with the loss on their answers.

One optimizer step is `batch_size` examples, whatever their lengths, run through the model in rows of at most `capacity`
tokens. Weights that learn are kept in float32; the model works on copies in its own number format
(`victims.language.weights`). Every draw follows from the seed and the step, so a resumed run ends in the weights of an
uninterrupted one on the same device. Under `torchrun`, the processes share the examples of each step and add their
gradients up.
"""

import hashlib
import json
import math
import time
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from cowbird.data.types import IntArray
from cowbird.errors import UserError
from cowbird.rng import stream
from cowbird.victims.checkpoint import Checkpoint
from cowbird.victims.fit_context import FitContext, pick_dtype
from cowbird.victims.language.attention import plug_in
from cowbird.victims.language.engine import GradientAccumulator, ItemInputs, compile_each_layer
from cowbird.victims.language.examples import Tokens
from cowbird.victims.language.packing import lay_out, split_runs
from cowbird.victims.language.weights import make_master_weights
from cowbird.victims.repeatable import force_determinism
from cowbird.victims.training_loop import (
    TrainingLoop,
    collect_training_tensors,
    compute_learning_rate,
    make_diverged_error,
    restore_tensors,
)

CLOCK_WARMUP_STEPS = 60
"""Steps in which the learning rate rises if the clock says how long a run is."""


class Tuning(BaseModel):
    """How a language model is tuned."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    epochs: int = Field(default=1, ge=1, le=1_000_000)
    """Passes over the examples."""
    batch_size: int = Field(default=64, ge=1, le=1 << 20)
    """Examples a step."""
    learning_rate: float = Field(default=1e-3, gt=0, le=1000)
    """AdamW's peak learning rate."""
    weight_decay: float = Field(default=0.0, ge=0, le=1000)
    """AdamW's decoupled weight decay."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from zero; it then falls to zero along a cosine."""
    clip: float | None = Field(default=1.0, gt=0, le=1e6)
    """Largest norm of a step's gradient."""
    capacity: int = Field(default=8192, ge=1, le=1 << 24)
    """Most tokens in a packed row; more run faster on a GPU and take more memory."""
    compiled: bool = True
    """Whether layers are compiled on a GPU; the first steps then take longer."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the model; `auto` is bfloat16 where the processor multiplies it fast."""

    def pick_dtype(self, device: torch.device) -> torch.dtype:
        """Return the model's number format on a device."""
        return pick_dtype(self.precision, device)


@dataclass
class TrainingCurve:
    """What a run went through."""

    losses: list[float] = field(default_factory=list[float])
    """Mean loss of each step."""
    tokens: int = 0
    """Tokens that went through the model in this process."""
    seconds: float = 0.0
    """Seconds spent on them."""


def compute_tuning_rate(recipe: Tuning, step: int, total: int) -> float:
    """Return the learning rate of a step (counted from 0) of `total`."""
    rising = math.ceil(recipe.warmup * total)
    return compute_learning_rate(recipe.learning_rate, step, total, rising, falls=True)


class TrainingPrompts(Protocol):
    """Examples that differ from epoch to epoch."""

    key: str
    """Tells them from others: a checkpoint of another lesson is not gone on from."""

    def __len__(self) -> int:
        """Return how many examples an epoch has."""
        ...

    def write_epoch(self, number: int, order: IntArray) -> Tokens:
        """Return the examples of an epoch, in the order in which they are learned."""
        ...


def tune(
    model: Any,
    tokens: Tokens | TrainingPrompts,
    recipe: Tuning,
    seed: int,
    context: FitContext,
    items: ItemInputs | None = None,
    seconds: float | None = None,
) -> TrainingCurve:
    """Tune a model in place.

    Args:
        model: A causal LM on `context.device`, with adapters or without; what requires gradients learns.
        tokens: The examples.
        recipe: How.
        seed: Decides the order of the examples.
        context: Device, checkpoint folder, progress.
        items: What makes inputs of items, if tokens stand for some.
        seconds: End after so long, and let the learning rate fall by the clock; `None` goes by steps alone. How many
            steps that is depends on the machine.

    Raises:
        UserError: If there are no examples.
        KeyboardInterrupt: Passed on after a checkpoint was written.
    """
    if not len(tokens):
        raise UserError("There are no examples to learn from.", "Check the split, the history length and the source.")
    with force_determinism(context.device):
        run = _Run(model, tokens, recipe, seed, context, items, seconds)
        try:
            run.run()
            return run.curve
        finally:
            run.close()


class _Run(TrainingLoop):
    def __init__(
        self,
        model: Any,
        tokens: Tokens | TrainingPrompts,
        recipe: Tuning,
        seed: int,
        context: FitContext,
        items: ItemInputs | None,
        seconds: float | None,
    ) -> None:
        super().__init__(context)
        self.until = seconds
        self.model, self.tokens, self.recipe, self.seed = model, tokens, recipe, seed
        self.causal, self.items = plug_in(model), items
        self.key = self._hash_run() if context.folder else ""
        self.language = make_master_weights(model, context.device)
        self.weights = {**self.language.masters}
        groups = [{"params": list(self.language.masters.values()), "rate": 1.0}]
        if items is not None:
            own = {f"items.{name}": weight for name, weight in items.module.named_parameters()}
            groups.append({"params": list(own.values()), "rate": items.rate})
            self.weights |= own
        self.optimizer = torch.optim.AdamW(
            groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self.step_of = GradientAccumulator(
            self.causal, self.language, self.weights, context.device, recipe.compiled, items
        )
        self.per_epoch = -(-len(tokens) // recipe.batch_size)
        self.total = self.per_epoch * recipe.epochs
        self.curve = TrainingCurve()
        self.waiting: list[Tensor] = []
        self.order: tuple[int, Tokens, IntArray] | None = None
        self.started = time.perf_counter()

    def run(self) -> None:
        """Tune the model."""
        self.model.train()
        try:
            with compile_each_layer(self.causal, self.step_of.recorded):
                super().run()
        finally:
            self.model.eval()
        self._fetch_losses()

    def close(self) -> None:
        self.language.close()

    def _is_over(self) -> bool:
        late = self.until is not None and self.step > 0 and time.perf_counter() - self.started > self.until
        return late or super()._is_over()

    def _pick_rate(self) -> float:
        """Return the learning rate of this step, by steps or by the clock."""
        if self.until is None:
            return compute_tuning_rate(self.recipe, self.step, self.total)
        gone = (time.perf_counter() - self.started) / max(self.until, 1e-9)
        rising = min(1.0, (self.step + 1) / CLOCK_WARMUP_STEPS)
        return self.recipe.learning_rate * rising * 0.5 * (1 + math.cos(math.pi * min(gone, 1.0)))

    def _pick_examples(self) -> tuple[Tokens, IntArray]:
        """Return the tokens of this epoch, and which of them this step learns from."""
        epoch, nth = divmod(self.step, self.per_epoch)
        if self.order is None or self.order[0] != epoch:
            order = stream(self.seed, "order", epoch).permutation(len(self.tokens))
            if isinstance(self.tokens, Tokens):
                self.order = epoch, self.tokens, order
            else:
                self.order = epoch, self.tokens.write_epoch(epoch, order), np.arange(len(order))
        _, tokens, order = self.order
        index = order[nth * self.recipe.batch_size : (nth + 1) * self.recipe.batch_size]
        if self.context.device.type == "cpu":  # documents of one length next to each other are one product
            index = index[np.argsort(tokens.lengths[index], kind="stable")]
        return tokens, index

    def _run_step(self) -> None:
        tokens, index = self._pick_examples()
        self.step_of.total.zero_()
        for part in split_runs(tokens.lengths, index[self.rank :: self.world], self.recipe.capacity):
            self.step_of(lay_out(tokens, part, self.context.device.type == "cuda", len(index), self.recipe.batch_size))
        self._sum_processes(self.step_of.total)
        self._begin_change()
        if self.recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.weights.values(), self.recipe.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self._pick_rate() * group["rate"]
        self.optimizer.step()
        self.step_of.clear()
        self.language.copy()
        self.waiting.append(self.step_of.total.clone())
        self.curve.tokens += int(tokens.lengths[index].sum())
        self.curve.seconds = time.perf_counter() - self.started

    def _sum_processes(self, total: Tensor) -> None:
        """Add up the gradients and losses of all processes."""
        if self.world == 1:
            return
        parts = [total, *(weight.grad for weight in self.weights.values() if weight.grad is not None)]
        flat = torch.cat([part.flatten() for part in parts])
        torch.distributed.all_reduce(flat)
        done = 0
        for part in parts:
            part.copy_(flat[done : done + part.numel()].view_as(part))
            done += part.numel()

    def _check_resumed(self) -> None:
        """Check that all processes go on from the same step."""
        self.started = time.perf_counter()
        if self.world == 1:
            return
        steps = torch.tensor([self.step, -self.step], device=self.context.device)
        torch.distributed.all_reduce(steps, torch.distributed.ReduceOp.MAX)
        first, last = -int(steps[1]), int(steps[0])
        if first != last:
            raise UserError(
                f"The processes found checkpoints of different steps, {first} to {last}.",
                "Put the folder where all of them can read it.",
            )

    def _fetch_losses(self) -> None:
        """Fetch the losses of the last steps, which waits for the device."""
        if self.waiting:
            losses: Any = torch.stack(self.waiting)
            self.curve.losses.extend(losses.tolist())
            self.waiting.clear()
            if not math.isfinite(self.curve.losses[-1]):
                loss = f"the loss of step {self.step} is {self.curve.losses[-1]}"
                raise make_diverged_error(loss, self.recipe.learning_rate)

    def _describe_progress(self) -> str:
        self._fetch_losses()
        speed = self.curve.tokens / max(self.curve.seconds, 1e-9)
        return f"loss {self.curve.losses[-1]:.3f}, {speed:,.0f} tokens/s"

    def _hash_run(self) -> str:
        told = [self.recipe.model_dump(mode="json"), self.seed, self.causal.config.to_json_string()]
        digest = hashlib.sha256(json.dumps(told).encode())
        if isinstance(self.tokens, Tokens):
            for array in (
                self.tokens.token,
                self.tokens.offsets,
                self.tokens.answer,
                self.tokens.item,
                self.tokens.label,
                self.tokens.share,
            ):
                digest.update(b"" if array is None else array.tobytes())
            digest.update(repr(self.tokens.among).encode())
        else:
            digest.update(self.tokens.key.encode())
        inputs = {} if self.items is None else self.items.module.state_dict(prefix="items.")
        for name, weight in [*self.model.named_parameters(), *inputs.items()]:
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def _collect_tensors(self) -> dict[str, Tensor]:
        return collect_training_tensors(self.weights, self.optimizer)

    def _describe_state(self) -> dict[str, Any]:
        self._fetch_losses()
        return {"losses": self.curve.losses}

    def _restore(self, found: Checkpoint) -> None:
        restore_tensors(self._collect_tensors(), found.tensors)
        self.language.copy()
        self.curve.losses = [float(loss) for loss in found.state["losses"]]
