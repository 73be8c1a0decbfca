"""Dropout from one block of random bytes a step.

A framework's dropout draws its mask one Bernoulli at a time inside every layer, which costs more than the layer on a
CPU. Here the bytes of a whole training step are drawn at once from a generator seeded by the step's number, so a step's
noise does not depend on the steps before it: a resumed run repeats it exactly. A byte has 256 values, so rates are
rounded to 1/256 and the kept values are scaled by the rounded rate.
"""

import torch
from torch import Tensor


class Noise:
    """The dropout masks of one model on one device.

    Args:
        rate: Share of values set to zero, from 0 to below 1.
        device: Where the masks live.
        dtype: Number format of what is dropped.
    """

    def __init__(self, rate: float, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        if not 0 <= rate < 1:
            raise ValueError(f"dropout rate must be in [0, 1), got {rate}")
        self.dropped = min(round(rate * 256), 255)
        self.generators = torch.Generator(device=device), torch.Generator(device=device)
        """Of the masks and of other draws: how many masks are drawn in one go depends on the steps before."""
        self._masks = torch.empty(0, dtype=dtype, device=device)
        self._used = 0
        self._wanted = 0

    def begin(self, seed: int) -> None:
        """Draw the masks of one step."""
        self.seed(seed)
        self.draw()

    def seed(self, seed: int) -> None:
        """Set the state from which a step's masks and other draws follow."""
        for number, generator in enumerate(self.generators):
            generator.manual_seed(seed ^ number)

    def draw(self) -> None:
        """Draw masks from the present state (the part of `begin` a CUDA graph records)."""
        self._used = 0
        if self.dropped and self._wanted:
            self._masks = self._draw_masks(self._wanted)

    def draw_integers(self, high: int, shape: tuple[int, ...]) -> Tensor:
        """Draw integers below `high` uniformly, int64."""
        return torch.randint(high, shape, generator=self.generators[1], device=self._masks.device)

    def __call__(self, x: Tensor) -> Tensor:
        """Drop and rescale values of `x`; each call in a step uses masks of its own."""
        if not self.dropped:
            return x
        start, self._used = self._used, self._used + x.numel()
        if self._used > len(self._masks):
            # The first step of a new shape finds out how many values a step drops; later steps draw them in one go.
            self._masks = torch.cat([self._masks, self._draw_masks(self._used - len(self._masks))])
            self._wanted = max(self._wanted, self._used)
        return x * self._masks[start : self._used].view(x.shape)

    def _draw_masks(self, count: int) -> Tensor:
        device, dtype = self._masks.device, self._masks.dtype
        words = torch.empty((count + 7) // 8, dtype=torch.int64, device=device)
        random = words.random_(-(2**63), None, generator=self.generators[0]).view(torch.uint8)
        # Comparing straight into the number format spares a pass over a Boolean mask, the slowest part on a CPU.
        kept = torch.ge(random, self.dropped, out=torch.empty(len(random), dtype=dtype, device=device))
        return kept.mul_(256 / (256 - self.dropped))
