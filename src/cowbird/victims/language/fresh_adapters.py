"""LoRA adapters as they begin: the first factor is drawn, the second is zero, so they add nothing."""

from typing import Any

import torch


def draw_fresh_adapters(model: Any, generator: torch.Generator) -> None:
    """Put all adapters of a model to where they begin, in place.

    Args:
        model: A model with adapters, as peft places them.
        generator: Draws the first factors, in the order of the weights' names.
    """
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if "lora_A" in name:
                bound = weight.shape[1] ** -0.5
                weight.copy_(torch.empty(weight.shape).uniform_(-bound, bound, generator=generator))
            elif "lora_B" in name:
                weight.zero_()
