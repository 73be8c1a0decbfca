"""Where a model is fitted, and who is told of it: device, streams, checkpoint folder, progress and warnings."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cowbird.errors import OutageError
from cowbird.notices import NoticeRank, note

if TYPE_CHECKING:
    import torch

ProgressCallback = Callable[[int, int, str], None]
"""Progress: steps done, steps in all, and a short remark such as the last validation score."""


def report_nothing(done: int, total: int, remark: str) -> None:
    """Report nothing."""


def pick_device(name: str) -> "torch.device":
    """Return the device of that name; `auto` is the GPU if there is one.

    Raises:
        UserError: If the name is unknown or the device is not there.
    """
    import torch  # noqa: PLC0415

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        raise OutageError(f"Device '{name}' can't be used: {reason}", "Use auto, cpu, cuda or cuda:N.") from None
    return device


def pick_dtype(precision: str, device: "torch.device") -> "torch.dtype":
    """Return the number format of a training step on a device; what `auto` stands for is told."""
    import torch  # noqa: PLC0415

    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    found = find_fast_dtype(device)
    name = "bfloat16" if found == torch.bfloat16 else "float32"
    note(NoticeRank.CHOICE, f"Models are trained in {name}, as precision = 'auto' has it on {device.type}.")
    return found


def find_fast_dtype(device: "torch.device") -> "torch.dtype":
    """Return bfloat16 where a device computes with it, and else float32."""
    import torch  # noqa: PLC0415

    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bfloat16()
    return torch.bfloat16 if fast else torch.float32


def _cpu_has_bfloat16() -> bool:
    import torch  # noqa: PLC0415

    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


_streams = threading.local()


def get_thread_stream(device: "torch.device", purpose: str) -> "torch.cuda.Stream":
    """Return this thread's stream for a purpose, the same one every time.

    torch hands out 32 streams a device in a circle, so streams made anew for each fit would soon be shared with other
    threads, one of which may be recording a graph.
    """
    import torch  # noqa: PLC0415

    index = torch.empty(0, device=device).device.index
    known: dict[tuple[int, str], torch.cuda.Stream] = _streams.__dict__.setdefault("known", {})
    if (index, purpose) not in known:
        known[index, purpose] = torch.cuda.Stream(torch.device("cuda", index))
    return known[index, purpose]


def _find_cpu() -> "torch.device":
    import torch  # noqa: PLC0415

    return torch.device("cpu")


@dataclass(frozen=True)
class FitContext:
    """Where and how a fit runs; none of it changes the result on one device."""

    device: "torch.device" = field(default_factory=_find_cpu)
    """Where the arrays live and the work is done."""
    folder: Path | None = None
    """Where checkpoints go; `None` keeps none, and the fit can't be resumed. They stay until `checkpoint.clear`."""
    report: ProgressCallback = report_nothing
    """Told of progress."""
    warn: Callable[[str], None] = print
    """Told of trouble that was worked around, such as a damaged checkpoint."""
