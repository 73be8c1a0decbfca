"""Packed rows through a language model: as they come on a CPU, from recorded graphs of compiled layers on a GPU.

A step of a small model is a few thousand short kernels, and starting them takes a processor longer than a GPU takes to
run them. So layers are compiled (they are alike: one compilation serves all), and forward and backward pass are
recorded once for each size of row and replayed from then on. Rows are padded to few different sizes
(`packing.lay_out`). `prepare_inference` does for scoring what can be done without gradients.
"""

import importlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cowbird.victims.fit_context import get_thread_stream
from cowbird.victims.language.attention import plug_in
from cowbird.victims.language.packing import HostPack, PackSizes, answer_loss, to_device, unfold
from cowbird.victims.language.weights import MasterWeights, MergedAdapters
from cowbird.victims.repeatable import force_determinism, recording_lock

MAX_COMPILATIONS = 64
"""Kinds of layers times kinds of rows that are compiled, at most; torch gives up after 8, and layers then run as they
come. Gemma 3 alone has two kinds of layers."""


@dataclass(frozen=True)
class ItemInputs:
    """A module that makes the inputs of tokens that stand for items, and learns."""

    module: nn.Module
    """Takes items, shape `[items]`, and returns inputs, shape `[items, hidden]`; float32."""
    rate: float = 1.0
    """Its learning rate, as a multiple of the recipe's."""


@contextmanager
def compile_each_layer(causal: Any, wanted: bool) -> Generator[None]:
    """Compile the layers of a causal LM, each alone: they are alike, so one compilation serves all of a kind."""
    layers: list[Any] = list(getattr(causal.base_model, "layers", [])) if wanted else []
    for layer in layers:
        layer.compile(dynamic=True)
    compiler: Any = importlib.import_module("torch._dynamo.config") if layers else None
    try:
        with compiler.patch(recompile_limit=MAX_COMPILATIONS) if layers else nullcontext():
            yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None


@contextmanager
def prepare_inference(model: Any, device: torch.device, compile_layers: bool = True) -> Generator[Any]:
    """Make a model fast for packed rows without gradients, and give its causal LM; undone at the end.

    Low-rank adapters are merged into the weights, in the precision they were tuned in; on a GPU, layers are compiled if
    wanted.
    """
    causal, gpu = plug_in(model), device.type == "cuda"
    model.eval()
    merged = MergedAdapters(model, learns=False) if model is not causal else None
    try:
        with torch.inference_mode(), force_determinism(device), compile_each_layer(causal, gpu and compile_layers):
            yield causal
    finally:
        if merged is not None:
            merged.close()


class GradientAccumulator:
    """Adds the gradients of packed rows to those of the masters.

    Args:
        causal: The causal LM that `plug_in` returned.
        language: Its weights that learn.
        masters: All that learns: the language model's masters, and what makes inputs of items.
        device: Where they are.
        record: Whether to record graphs, on a GPU.
        items: What makes inputs of items, if tokens stand for some.
    """

    def __init__(
        self,
        causal: Any,
        language: MasterWeights,
        masters: Mapping[str, Tensor],
        device: torch.device,
        record: bool,
        items: ItemInputs | None,
    ) -> None:
        self.causal, self.language, self.masters, self.device = causal, language, masters, device
        self.items = None if items is None else items.module
        self.recorded = record and device.type == "cuda"
        """Whether graphs are recorded; wants `compile_each_layer` around the calls."""
        self.total = torch.zeros((), device=device)
        """Loss of the rows since it was last set to zero."""
        self.graphs: dict[PackSizes, tuple[Tensor, torch.cuda.CUDAGraph]] = {}
        self.clear()

    def __call__(self, sheet: HostPack) -> None:
        """Run one row forward and backward."""
        if not self.recorded:
            self._run_sheet(to_device(sheet.flat, self.device), sheet.sizes, sheet.bounds)
            return
        if sheet.sizes not in self.graphs:
            with recording_lock:
                self._record_graph(sheet)
        flat, graph = self.graphs[sheet.sizes]
        flat.copy_(torch.from_numpy(sheet.flat).pin_memory(), non_blocking=True)
        graph.replay()

    def clear(self) -> None:
        """Set the gradients to zero, in place: recorded graphs know where they are."""
        for weight in self.masters.values():
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            else:
                weight.grad.zero_()

    def _run_sheet(self, flat: Tensor, sizes: PackSizes, bounds: tuple[int, ...] = ()) -> None:
        loss = answer_loss(self.causal, unfold(flat, sizes, bounds), self.items)
        loss.backward()
        self.total += loss.detach()
        self.language.gather()

    def _record_graph(self, sheet: HostPack) -> None:
        """Warm up on a side stream, undo what the warm-up added, then record."""
        flat = to_device(sheet.flat, self.device)
        held = {name: weight.grad.clone() for name, weight in self.masters.items() if weight.grad is not None}
        total = self.total.clone()
        side = get_thread_stream(self.device, "record")
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(2):
                self._run_sheet(flat, sheet.sizes)
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self.graphs.values()))[1].pool() if self.graphs else None
        capture: Any = torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local")
        with capture:
            self._run_sheet(flat, sheet.sizes)
        self.graphs[sheet.sizes] = flat, graph
        self.total.copy_(total)
        for name, grad in held.items():
            weight = self.masters[name]
            assert weight.grad is not None
            weight.grad.copy_(grad)
