"""Dropout from one block of random bytes a step.

A framework's dropout draws its mask one Bernoulli at a time inside every layer, which costs more than the layer on a
CPU. Here the bytes of a whole training step are drawn at once from a generator seeded by the step's number, so a step's
noise does not depend on the steps before it: a resumed run repeats it exactly. A byte has 256 values, so rates are
rounded to 1/256 and the kept values are scaled by the rounded rate.
"""

from typing import Any, cast

import torch
from torch import Tensor


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.scale = scale
        return (x * kept).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        return (grad_outputs[0] * kept).mul_(ctx.scale), None, None


class Noise:
    """The dropout masks of one model on one device.

    Args:
        rate: Share of values set to zero, from 0 to below 1.
        device: Where the masks live.
    """

    def __init__(self, rate: float, device: torch.device) -> None:
        self.dropped = round(rate * 256)
        if not 0 <= self.dropped < 256:
            raise ValueError(f"dropout rate must be in [0, 1), got {rate}")
        self.generator = torch.Generator(device=device)
        self._kept = torch.empty(0, dtype=torch.bool, device=device)
        self._used = 0
        self._wanted = 0

    def begin(self, seed: int) -> None:
        """Draw the masks of one step."""
        self.generator.manual_seed(seed)
        self.draw()

    def draw(self) -> None:
        """Draw masks from the generator's present state (the part of `begin` a CUDA graph records)."""
        self._used = 0
        if self.dropped and self._wanted:
            words = torch.empty((self._wanted + 7) // 8, dtype=torch.int64, device=self._kept.device)
            words.random_(-(2**63), None, generator=self.generator)
            self._kept = words.view(torch.uint8) >= self.dropped

    def __call__(self, x: Tensor) -> Tensor:
        """Drop and rescale values of `x`; each call in a step uses masks of its own."""
        if not self.dropped:
            return x
        start, self._used = self._used, self._used + x.numel()
        if self._used > len(self._kept):
            self._grow()
        kept = self._kept[start : self._used].view(x.shape)
        return cast(Tensor, _Drop.apply(x, kept, 256 / (256 - self.dropped)))

    def _grow(self) -> None:
        # The first step of a new shape finds out how many bytes a step needs; later steps draw them in one go.
        missing = self._used - len(self._kept)
        words = torch.empty((missing + 7) // 8, dtype=torch.int64, device=self._kept.device)
        words.random_(-(2**63), None, generator=self.generator)
        self._kept = torch.cat([self._kept, words.view(torch.uint8) >= self.dropped])
        self._wanted = max(self._wanted, self._used)
