"""Tune a language model on TALLRec's questions: Cowbird's packed engine beside a padded transformers.Trainer loop.

    python benchmarks/llm_tuning.py --layers 4 --examples 384 --out docs/results/llm_tuning_cpu.json
    python benchmarks/llm_tuning.py --examples 16384 --batch-size 64 --out docs/results/llm_tuning_gpu.json
    torchrun --nproc-per-node 4 benchmarks/llm_tuning.py --examples 16384 --batch-size 256

Both tune the same adapters with the same examples, order, batch size, learning rates and number format, turn by turn in
one process, and are compared by real (unpadded) tokens per second of a whole fit: of processor time on a CPU, of wall
time on a GPU. `cold` is the first fit of the process, which on a GPU compiles the layers (unless they lie in inductor's
cache); the rounds after it, as it does, record their graphs. `steady` is Cowbird's rate in the second half of a fit's
steps, without either; it is left out if a fit is too short to tell.

Under `torchrun` the processes share the examples of each step and the Trainer is left out. The same `--batch-size` for
more processes measures strong scaling, a larger one weak scaling.

Floor, for P weights in the linear layers of the model, I and O of which are their inputs and outputs for one token:
4 P operations a token (forward, gradients of inputs) and 7 heads x width x L a layer for the attention of an example of
L tokens (causal: 2 forward, 5 backward); over the peak rate of matrix products. Merged adapters, as on a GPU, cost 2 P
more for the weights' gradients; adapters of A weights beside the layers, as on a CPU, 6 A. Bytes in 16 bits: each of
those products reads or writes I and O once, and the weights once a row of `--capacity` tokens; over the memory's rate.
What elementwise operations move comes on top. The answers' logits and the gradients of the first layer's inputs, which
nobody needs, are left out.
"""

import argparse
import gc
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cowbird.data.judgments import TemporalSplit
from cowbird.files import write_text
from cowbird.plugins import find_plugin
from cowbird.rng import stream, torch_stream
from cowbird.victims.base import FitContext, pick_device
from cowbird.victims.language.examples import Tokens, tokenize
from cowbird.victims.language.llm import Llm, add_adapters, load_llm
from cowbird.victims.language.tallrec import TALLRec
from cowbird.victims.language.tuning import Tuning, compute_tuning_rate, tune

WINDOW = 20
"""Steps over which loss curves are averaged before they are compared."""


class Clock:
    """Seconds: of processor time on a CPU, of wall time on a GPU and where processes share the work.

    Args:
        device: Waited for before the clock is read.
        meet: Waits for the other processes, if there are some.
    """

    def __init__(self, device: torch.device, meet: Callable[[], None] | None = None) -> None:
        self.gpu, self.device, self.meet = device.type == "cuda", device, meet
        self.kind = "wall time" if self.gpu or meet else "processor time"

    def __call__(self) -> float:
        """Return the seconds so far."""
        if self.gpu:
            torch.cuda.synchronize(self.device)
        if self.meet:
            self.meet()
        return time.perf_counter() if self.kind == "wall time" else time.process_time()


class Steps:
    """Hears how far a fit is, always after its losses were fetched, so what is reported has been done."""

    def __init__(self, processor: bool) -> None:
        self.now = time.process_time if processor else time.perf_counter
        self.heard: list[tuple[int, float]] = []

    def __call__(self, done: int, total: int, remark: str) -> None:
        """Note the time."""
        self.heard.append((done, self.now()))

    def rate(self, sums: Any, batch_size: int) -> float | None:
        """Return tokens per second from the middle of the steps on; `None` if too little was heard.

        Args:
            sums: Tokens of the first 1, 2, ... examples, in the order in which they are learned.
            batch_size: Examples a step.
        """
        last = self.heard[-1]
        first = next(mark for mark in self.heard if 2 * mark[0] >= last[0])
        if first[0] == last[0]:
            return None
        tokens = sums[-1] - sums[first[0] * batch_size - 1]
        return round(float(tokens) / (last[1] - first[1]), 1)


def place(device: str) -> tuple[torch.device, int, int, Callable[[], None] | None]:
    """Return the device, this process's number, how many there are, and what waits for the others."""
    if "LOCAL_RANK" not in os.environ:
        return pick_device(device), 0, 1, None
    import accelerate

    state = accelerate.PartialState(cpu=device == "cpu")
    return state.device, state.process_index, state.num_processes, state.wait_for_everyone


def ours(spec: TALLRec, tokens: Tokens, device: torch.device, clock: Clock) -> tuple[float, list[float], float | None]:
    """Return the seconds of a fit, its losses, and its rate once it runs steadily."""
    loaded = load_llm(spec.llm, device, spec.tuning.pick_dtype(device))
    model = add_adapters(loaded.model, spec.llm, torch_stream(0, "adapters"))
    steps = Steps(clock.kind == "processor time")
    start = clock()
    curve = tune(model, tokens, spec.tuning, 0, FitContext(device, report=steps))
    seconds = clock() - start
    sums = np.cumsum(tokens.lengths[stream(0, "order", 0).permutation(len(tokens))])
    return seconds, curve.losses, steps.rate(sums, spec.tuning.batch_size)


def padded(
    spec: TALLRec, tokens: Tokens, device: torch.device, clock: Clock, few: int | None = None
) -> tuple[float, list[float], None]:
    """The loop that a user of transformers would write; `few` stops after so many steps."""
    import transformers

    dtype = spec.tuning.pick_dtype(device)
    loaded = load_llm(spec.llm, device, dtype)
    model = add_adapters(loaded.model, spec.llm, torch_stream(0, "adapters"))
    order = stream(0, "order", 0).permutation(len(tokens))
    rows: list[dict[str, Any]] = []
    for number in order.tolist():
        begin, end, answer = tokens.offsets[number], tokens.offsets[number + 1], tokens.answer[number]
        ids = tokens.token[begin:end].tolist()
        rows.append({"input_ids": ids, "labels": [-100] * int(answer - begin) + ids[answer - begin :]})
    arguments = transformers.TrainingArguments(
        output_dir="runs/bench/trainer",
        per_device_train_batch_size=spec.tuning.batch_size,
        num_train_epochs=1,
        max_steps=few or -1,
        learning_rate=spec.tuning.learning_rate,
        max_grad_norm=spec.tuning.clip or 0.0,
        weight_decay=0.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=device.type == "cpu",
        bf16=dtype is torch.bfloat16,
        dataloader_pin_memory=False,
    )
    if arguments.n_gpu > 1:  # it would spread over all GPUs that it sees
        arguments._n_gpu = 1

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(rows)

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer,
                lambda step: compute_tuning_rate(spec.tuning, step, num_training_steps) / spec.tuning.learning_rate,
            )
            return self.lr_scheduler

        def log(self, logs: dict[str, float], *_: Any) -> None:
            if "loss" in logs:
                self.heard.append(float(logs["loss"]))

    loaded.tokenizer.pad_token = loaded.tokenizer.pad_token or loaded.tokenizer.eos_token
    collate = transformers.DataCollatorForSeq2Seq(loaded.tokenizer, padding=True, label_pad_token_id=-100)
    trainer = InOrder(model=model, args=arguments, train_dataset=rows, data_collator=collate)
    trainer.heard = []
    start = clock()
    trainer.train()
    return clock() - start, trainer.heard, None


def work(spec: TALLRec, tokens: Tokens, merged: bool) -> dict[str, float]:
    """Return what a token costs, needed and done: operations, and bytes moved; see the module's docstring."""
    model = load_llm(spec.llm, torch.device("cpu"), torch.bfloat16).model
    layers = model.base_model.layers
    named = [(n.rpartition(".")[2], m) for n, m in layers.named_modules() if isinstance(m, torch.nn.Linear)]
    weights = sum(layer.weight.numel() for _, layer in named)
    ends = sum(sum(layer.weight.shape) for _, layer in named)
    adapters = spec.llm.rank * sum(sum(layer.weight.shape) for name, layer in named if name in spec.llm.modules)
    attention = layers[0].self_attn
    wide = attention.head_dim * model.config.num_attention_heads * len(layers)
    mixing = 7 * wide * float((tokens.lengths.astype(np.float64) ** 2).sum() / tokens.lengths.sum())
    row = min(spec.tuning.capacity, spec.tuning.batch_size * float(tokens.lengths.mean()))
    return {
        "linear_weights": weights,
        "adapter_weights": adapters,
        "flop_per_token_attention": mixing,
        "flop_per_token_needed": 4 * weights + mixing,
        "flop_per_token_done": mixing + (6 * weights if merged else 4 * weights + 6 * adapters),
        "bytes_per_token_needed": 2 * 2 * (ends + weights / row),
        "bytes_per_token_done": (3 if merged else 2) * 2 * (ends + weights / row),
    }


def roofline(
    costs: dict[str, float], rate: float, peak: float | None, bandwidth: float | None, world: int
) -> dict[str, dict[str, float | None]]:
    """Set a rate of tokens beside the machine's; `peak` in TFLOP/s and `bandwidth` in TB/s, both of one device."""
    found: dict[str, dict[str, float | None]] = {}
    for which in ("needed", "done"):
        flop, size = costs[f"flop_per_token_{which}"], costs[f"bytes_per_token_{which}"]
        achieved = rate * flop / 1e12
        floor = world / max(flop / peak, size / bandwidth) * 1e12 if peak and bandwidth else None
        found[which] = {
            "tflop_per_second": round(achieved, 4),
            "share_of_peak": round(achieved / (peak * world), 4) if peak else None,
            "tokens_per_second_by_operations": round(world * peak / flop * 1e12) if peak else None,
            "tokens_per_second_by_bytes": round(world * bandwidth / size * 1e12) if bandwidth else None,
            "share_of_floor": round(rate / floor, 4) if floor else None,
        }
    return found


def apart(losses: dict[str, list[float]]) -> dict[str, float] | None:
    """Return how far two loss curves are apart, both smoothed."""
    if len(losses) < 2:
        return None
    window = min(WINDOW, *(len(curve) for curve in losses.values()))
    one, two = (np.convolve(curve, np.ones(window) / window, mode="valid") for curve in losses.values())
    far = np.abs(one - two)
    return {"window": window, "largest": round(float(far.max()), 5), "mean": round(float(far.mean()), 5)}


@dataclass
class Measured:
    """What fits, turn by turn, took."""

    cold: dict[str, float]
    """Seconds and rate of the first fit of the process."""
    rates: dict[str, list[float]]
    """Tokens per second of each round."""
    steady: list[float]
    """Those of Cowbird's second halves, of the rounds that were long enough."""
    losses: dict[str, list[float]]
    """Loss of each step, in the last round."""


def measure(
    spec: TALLRec,
    tokens: Tokens,
    device: torch.device,
    clock: Clock,
    rounds: int,
    beside: bool,
    say: Callable[..., Any],
) -> Measured:
    """Fit once cold, then in rounds; `beside` lets the Trainer take turns."""
    runs: dict[str, Callable[..., tuple[float, list[float], float | None]]] = {"cowbird": ours}
    real = int(tokens.lengths.sum())
    seconds, _, _ = ours(spec, tokens, device, clock)
    found = Measured({"seconds": round(seconds, 3), "rate": round(real / seconds, 1)}, {"cowbird": []}, [], {})
    say("cowbird", found.cold["rate"], "tokens/s, cold")
    if beside:
        padded(spec, tokens, device, clock, few=1)
        runs["trainer"], found.rates["trainer"] = padded, []
    for _ in range(rounds):
        for name, run in runs.items():
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
            seconds, found.losses[name], steady = run(spec, tokens, device, clock)
            found.rates[name].append(round(real / seconds, 1))
            found.steady += [] if steady is None else [steady]
            say(name, found.rates[name][-1], "tokens/s")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--examples", type=int, default=384)
    parser.add_argument("--batch-size", type=int, default=32, help="examples a step, of all processes together")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--capacity", type=int, default=8192)
    parser.add_argument("--skip-trainer", action="store_true")
    parser.add_argument("--peak", type=float, default=790.0, help="bf16 TFLOP/s of a large matrix product on a GPU")
    parser.add_argument("--bandwidth", type=float, default=4.8, help="TB/s of a GPU's memory")
    arguments = parser.parse_args()
    device, rank, world, meet = place(arguments.device)
    gpu, clock = device.type == "cuda", Clock(device, meet)
    data = find_plugin("dataset", "movielens_100k")().load()
    split = TemporalSplit()
    tuning = Tuning(batch_size=arguments.batch_size, capacity=arguments.capacity)
    spec = TALLRec(llm=Llm(layers=arguments.layers), tuning=tuning)
    asked = split.ask(split.apply(data).training.interactions)
    chosen = asked.select(stream(0, "bench").choice(len(asked), arguments.examples, replace=False))
    tokens = tokenize(
        load_llm(spec.llm, torch.device("cpu"), torch.float32).tokenizer, spec.write_questions(chosen, data.items)
    )
    beside = not arguments.skip_trainer and world == 1

    def say(*told: Any) -> None:
        if not rank:
            print(*told, flush=True)

    found = measure(spec, tokens, device, clock, arguments.rounds, beside, say)
    medians = {name: statistics.median(rates) for name, rates in found.rates.items()}
    steady = statistics.median(found.steady) if found.steady else None
    costs = work(spec, tokens, merged=gpu)
    machine = (arguments.peak, arguments.bandwidth, world) if gpu else (None, None, world)
    record = {
        "device": torch.cuda.get_device_name(device) if gpu else "cpu",
        "processes": world,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "unit": f"real tokens per second of {clock.kind}",
        "precision": str(tuning.pick_dtype(device)).removeprefix("torch."),
        "layers": arguments.layers,
        "examples": arguments.examples,
        "batch_size": arguments.batch_size,
        "capacity": arguments.capacity,
        "real_tokens": int(tokens.lengths.sum()),
        "cold": found.cold,
        "rates": found.rates,
        "medians": medians,
        "steady": steady,
        "ratio": round(medians["cowbird"] / medians["trainer"], 2) if beside else None,
        "costs": {name: round(cost, 1) for name, cost in costs.items()},
        "machine": {"tflop_per_second": arguments.peak, "tb_per_second": arguments.bandwidth} if gpu else None,
        "roofline": roofline(costs, medians["cowbird"], *machine),
        "roofline_steady": roofline(costs, steady, *machine) if steady else None,
        "loss_difference": apart(found.losses),
        "losses": {name: [round(loss, 4) for loss in curve] for name, curve in found.losses.items()},
    }
    if arguments.out and not rank:
        write_text(arguments.out, json.dumps(record, indent=1))
    long = ("rates", "losses")
    say(json.dumps({name: told for name, told in record.items() if name not in long}, indent=1))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
