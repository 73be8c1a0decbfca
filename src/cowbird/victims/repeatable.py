"""Fits that repeat to the bit, also when several run in threads of one process."""

import os
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class _DeterminismGuard:
    """Asks a GPU's kernels for the same sums in the same order every time, while any fit runs.

    The settings are the process's, and several fits may run in threads of it: the first sets them, the last puts
    back what was there.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fits = 0
        self._undo = ExitStack()

    @contextmanager
    def __call__(self, device: torch.device) -> Generator[None]:
        if device.type != "cuda":
            yield
            return
        with self._lock:
            if not self._fits:
                self._undo.enter_context(_set_deterministic())
            self._fits += 1
        try:
            with torch.cuda.device(device):
                yield
        finally:
            with self._lock:
                self._fits -= 1
                if not self._fits:
                    self._undo.close()


@contextmanager
def _set_deterministic() -> Generator[None]:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    deterministic: Any = torch.utils.deterministic
    fill = deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    deterministic.fill_uninitialized_memory = False
    try:
        # cuDNN's attention sums in no fixed order, so it is left out.
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        deterministic.fill_uninitialized_memory = fill


force_determinism = _DeterminismGuard()
recording_lock = threading.RLock()
"""Held while a graph is recorded and while cuDNN is called: preparing a recording waits for the whole device, and a
call into cuDNN from another thread breaks it."""


def move_module(module: ModuleT, to: torch.device | torch.dtype) -> ModuleT:
    """Move a module to a device or number format, the weights of recurrent layers in one piece (cuDNN's wish)."""
    with recording_lock:
        module = module.to(to)
        for layer in module.modules():
            if isinstance(layer, nn.RNNBase):
                layer.flatten_parameters()
    return module
