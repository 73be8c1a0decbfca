"""A baseline: what the weights of an adapter look like, beside those of honest adapters of the same base.

Detectors of poisoned adapters that read weights alone (such as PEFTGuard, Sun et al. 2024) are trained on many
adapters of one recipe. Here there are a few null tunings, so plain statistics of the updates s·B·A stand for that:
their size, the largest singular value's share of it, and how unevenly both are spread over the layers. They say as much
about the recipe as about a backdoor, so no verdict rests on them.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

WEIGHT_STATISTICS = ("size", "largest size", "top share", "largest top share")
"""Mean and largest logarithm of the updates' norms; mean and largest share of the first singular value in a norm."""


@torch.no_grad()
def describe_adapter(model: Any) -> dict[str, float]:
    """Return the statistics of a model's adapters; empty if it has none.

    Args:
        model: The causal LM with its adapters.
    """
    sizes: list[float] = []
    shares: list[float] = []
    for module in model.modules():
        if not hasattr(module, "lora_A") or "default" not in module.lora_A:
            continue
        down = module.lora_A["default"].weight.float().cpu()
        up = module.lora_B["default"].weight.float().cpu()
        factor: Any = torch.linalg
        core: Tensor = factor.qr(up).R @ factor.qr(down.T).R.T * float(module.scaling["default"])
        values: Tensor = factor.svdvals(core)
        norm = float(values.square().sum().sqrt())
        sizes.append(math.log(max(norm, 1e-12)))
        shares.append(float(values[0]) / max(norm, 1e-12))
    if not sizes:
        return {}
    found = (np.mean(sizes), np.max(sizes), np.mean(shares), np.max(shares))
    return dict(zip(WEIGHT_STATISTICS, (float(value) for value in found), strict=True))


def compare_adapters(mine: dict[str, float], nulls: list[dict[str, float]]) -> float | None:
    """Return how far an adapter's statistics are from those of null tunings: the largest distance in deviations.

    Args:
        mine: The inspected adapter's.
        nulls: The null tunings', at least two.
    """
    if not mine or len(nulls) < 2 or any(null.keys() != mine.keys() for null in nulls):
        return None
    distances = [
        abs(value - float(np.mean(known))) / max(float(np.std(known, ddof=1)), 1e-6)
        for name, value in mine.items()
        if (known := [null[name] for null in nulls])
    ]
    return max(distances)
