"""What learns while a language model is tuned: float32 masters, and the copies that the model works with.

`CopiedWeights` keeps a working copy of every weight that learns. `MergedAdapters` is for low-rank adapters on a GPU:
the model works
on plain linear layers with weights W + s·B·A, written once a step, and the gradient of each such weight is taken apart
into those of A and B. One product then stands where an adapter's three stood; small products and elementwise sums,
which a GPU does slowest, are gone. It costs the weights' gradients, half as much arithmetic again, which a CPU would
feel, so `MergedAdapters` is not used there.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class MasterWeights(Protocol):
    """Masters and their working copies."""

    masters: dict[str, Tensor]
    """What the optimizer changes: float32, each a leaf."""

    def gather(self) -> None:
        """Add the gradients of the working copies to those of the masters, and clear them."""

    def copy(self) -> None:
        """Write the masters into the working copies."""

    def close(self) -> None:
        """Leave the model as it was found, with what it learned."""


class CopiedWeights:
    """A working copy of each weight, in the model's number format.

    Args:
        learning: The weights that learn, by name.
    """

    def __init__(self, learning: Mapping[str, Tensor]) -> None:
        self.working = dict(learning)
        self.masters = {
            n: p if p.dtype == torch.float32 else p.detach().float().requires_grad_() for n, p in learning.items()
        }

    def gather(self) -> None:
        """Add gradients; see `MasterWeights`."""
        for name, master in self.masters.items():
            working = self.working[name]
            if working is master or working.grad is None:
                continue
            if master.grad is None:
                master.grad = working.grad.float()
            else:
                master.grad += working.grad
            working.grad = None

    @torch.no_grad()
    def copy(self) -> None:
        """Round the masters; see `MasterWeights`."""
        for name, master in self.masters.items():
            if self.working[name] is not master:
                self.working[name].copy_(master)

    def close(self) -> None:
        """Do nothing: working copies are the model's own weights."""


class _AdapterGroup:
    """Adapters of one shape and scale, as stacks."""

    def __init__(self, layers: list[Any], scale: float, learns: bool) -> None:
        self.layers, self.scale = layers, scale
        self.original = [layer.base_layer.weight for layer in layers]
        self.base = torch.stack([weight.detach() for weight in self.original])
        self.a, self.b = (
            torch.stack([getattr(layer, name)["default"].weight.detach().float() for layer in layers]).requires_grad_()
            for name in ("lora_A", "lora_B")
        )
        self.weight, self.grad = torch.empty_like(self.base), torch.zeros_like(self.base) if learns else self.base
        for layer, weight, grad in zip(layers, self.weight, self.grad, strict=True):
            layer.base_layer.weight = nn.Parameter(weight, requires_grad=learns)
            layer.base_layer.weight.grad = grad if learns else None

    def gather(self) -> None:
        a, b = self.a.detach().to(self.grad.dtype), self.b.detach().to(self.grad.dtype)
        found = torch.bmm(b.transpose(1, 2), self.grad), torch.bmm(self.grad, a.transpose(1, 2))
        for master, grad in zip((self.a, self.b), found, strict=True):
            if master.grad is None:
                master.grad = torch.zeros_like(master)
            master.grad.add_(grad, alpha=self.scale)
        self.grad.zero_()

    def copy(self) -> None:
        a, b = self.a.detach().to(self.base.dtype), self.b.detach().to(self.base.dtype)
        torch.baddbmm(self.base, b, a, alpha=self.scale, out=self.weight)

    def close(self, learned: bool) -> None:
        for layer, original, a, b in zip(self.layers, self.original, self.a, self.b, strict=True):
            layer.base_layer.weight = original
            if not learned:
                continue
            layer.lora_A["default"].weight.copy_(a)
            layer.lora_B["default"].weight.copy_(b)


class MergedAdapters:
    """Low-rank adapters, worked with as whole weights.

    Args:
        model: A model that peft put adapters into, and nothing else that learns.
        learns: Whether there will be gradients.
    """

    def __init__(self, model: Any, learns: bool = True) -> None:
        self.learns = learns
        kinds: dict[tuple[Any, ...], list[Any]] = {}
        self.places: list[tuple[Any, str, Any]] = []
        for _, parent in list(model.named_modules()):
            for name, layer in list(parent.named_children()):
                if hasattr(layer, "lora_A"):
                    kinds.setdefault((layer.base_layer.weight.shape, layer.scaling["default"]), []).append(layer)
                    self.places.append((parent, name, layer))
        self.groups = [_AdapterGroup(layers, scale, learns) for (_, scale), layers in kinds.items()]
        for parent, name, layer in self.places:
            setattr(parent, name, layer.base_layer)
        self.masters = {f"{n}.{side}": getattr(group, side) for n, group in enumerate(self.groups) for side in "ab"}
        self.copy()

    @torch.no_grad()
    def gather(self) -> None:
        """Take the gradients of whole weights apart; see `MasterWeights`."""
        for group in self.groups:
            group.gather()

    @torch.no_grad()
    def copy(self) -> None:
        """Write W + s·B·A; see `MasterWeights`."""
        for group in self.groups:
            group.copy()

    @torch.no_grad()
    def close(self) -> None:
        """Put the adapters back; see `MasterWeights`."""
        for group in self.groups:
            group.close(self.learns)
        for parent, name, layer in self.places:
            setattr(parent, name, layer)


def make_master_weights(model: Any, device: torch.device) -> MasterWeights:
    """Return what learns of a model, in the way that suits the device."""
    named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if device.type == "cuda" and named and all(".lora_" in name for name in named):
        return MergedAdapters(model)
    return CopiedWeights(named)
