"""The training loop that all victims share: steps that can be interrupted, saved and gone on from.

A fit is a sequence of steps. Every draw follows from the seed and the number of a step or epoch, so a fit that resumes
from a checkpoint ends in the weights of one that was never interrupted. What a step does, a subclass says; when
progress is told and the state is saved, what an interrupt does, and what goes on from where, is here.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cowbird.errors import UserError
from cowbird.processes import hold_interrupts
from cowbird.victims import checkpoint
from cowbird.victims.checkpoint import Checkpoint
from cowbird.victims.fit_context import FitContext

CHECKPOINT_SECONDS = 20.0
"""How often a running fit is saved; the work that a kill can cost."""
REPORT_SECONDS = 0.2
"""How often progress is told."""


def get_process_rank() -> tuple[int, int]:
    """Return this process's number, and how many there are that share the work (under `torchrun`)."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def compute_learning_rate(peak: float, step: int, total: int, rising: int, falls: bool) -> float:
    """Return the learning rate of a step.

    Args:
        peak: The highest one.
        step: The step, counted from 0.
        total: Steps in all.
        rising: Steps in which the rate rises from zero.
        falls: Whether it then falls to zero along a cosine; otherwise it stays.
    """
    if step < rising:
        return peak * (step + 1) / rising
    if not falls:
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def collect_training_tensors(weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what an Adam step changes, by name: the weights and the optimizer's state, made now if it is not there."""
    held = {f"weight.{name}": weight.data for name, weight in weights.items()}
    for name, weight in weights.items():
        state = optimizer.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=weight.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        held |= {f"adam.{key}.{name}": state[key] for key in ("step", "exp_avg", "exp_avg_sq")}
    return held


def restore_tensors(held: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Put saved values into tensors, in place."""
    with torch.no_grad():
        for name, tensor in held.items():
            tensor.copy_(saved[name])


class DivergedError(UserError):
    """A training whose loss or weights are no numbers any more: what it learned is of no use."""


def make_diverged_error(what: str, rate: float) -> DivergedError:
    """Return what is said of a training that went astray.

    Args:
        what: What is wrong.
        rate: The learning rate.
    """
    return DivergedError(
        f"The training has gone astray: {what}.", f"Lower the learning rate: learning_rate is {rate:g}."
    )


class TrainingLoop(ABC):
    """One fit: where it stands, and how it is saved.

    Args:
        context: Device, checkpoint folder, progress.
    """

    key: str = ""
    """Hash of all that decides the fit; a checkpoint of another is not gone on from. Set before `run`."""
    total: int
    """Steps in all. Set before `run`."""

    def __init__(self, context: FitContext) -> None:
        self.context = context
        self.rank, self.world = get_process_rank()
        self.step = 0
        """Steps that are done."""
        self.changing = False
        """Whether the weights may be ahead of the step counter; an interrupt then saves nothing."""
        self.saved_at = self.reported_at = time.monotonic()

    @abstractmethod
    def _run_step(self) -> None:
        """Do step `self.step`; call `_begin_change` before weights change."""

    @abstractmethod
    def _collect_tensors(self) -> dict[str, Tensor]:
        """Return all tensors that a resumed fit needs."""

    @abstractmethod
    def _describe_state(self) -> dict[str, Any]:
        """Return what else it needs, as JSON."""

    @abstractmethod
    def _restore(self, found: Checkpoint) -> None:
        """Go on from what `_collect_tensors` and `_describe_state` gave."""

    @abstractmethod
    def _describe_progress(self) -> str:
        """Return a short remark, such as the last loss."""

    def _check_resumed(self) -> None:  # noqa: B027
        """Check that the fit may go on from where it stands; called once, before the first step."""

    def _finish_epoch(self) -> None:  # noqa: B027
        """Do what is due between steps, such as validation; called before each step and after the last."""

    def _is_over(self) -> bool:
        return self.step >= self.total

    def _begin_change(self) -> None:
        """Note that weights are about to change."""
        self.changing = True

    def run(self) -> None:
        """Run all steps, from the newest checkpoint on.

        Checkpoints stay. Whoever gave the folder clears it (`checkpoint.clear`) once the model is kept: a save that
        fails costs no fit.

        Raises:
            KeyboardInterrupt: Passed on after a checkpoint was written.
        """
        self._resume()
        self._check_resumed()
        try:
            self._finish_epoch()
            while not self._is_over():
                with hold_interrupts():  # so that what an interrupted fit saves is its last step
                    self._run_step()
                    self.step += 1
                    self.changing = False
                self._report_and_save()
                self._finish_epoch()
        except KeyboardInterrupt:
            if not self.changing:
                self._save()
            raise

    def _report_and_save(self) -> None:
        now = time.monotonic()
        if now - self.reported_at > REPORT_SECONDS or self.step == self.total:
            self.reported_at = now
            self.context.report(self.step, self.total, self._describe_progress())
        if self.context.folder and now - self.saved_at > CHECKPOINT_SECONDS:
            self._save()
            self.saved_at = time.monotonic()

    def _save(self) -> None:
        if self.context.folder and not self.rank:
            state = {"key": self.key, **self._describe_state()}
            checkpoint.save(self.context.folder, self.step, state, self._collect_tensors())

    def _resume(self) -> None:
        folder = self.context.folder
        found = checkpoint.load_latest(folder, self.context.warn) if folder else None
        if found is not None and found.state.get("key") == self.key:
            self._restore(found)
            self.step = found.step
