"""A training step of BERT4Rec on one core: its floor, what it takes, and what an older file of the network takes.

    git show 0ac0369:src/cowbird/victims/sequential/bert4rec.py > former.py
    python benchmarks/bert4rec.py --former former.py --out docs/results/bert4rec_cpu.json

Steps are those of a null model of MovieLens-100K's first 60,000 events, 18 windows each. Both networks take the same
windows turn by turn in one process, and the processor time of the thread is kept, so other work on the machine bends
both alike.

The floor: a token costs 24 h² operations in each layer but the last, which takes 4 h² for its keys and values; a mask
costs 20 h² there and 2 h² in the head; a target costs 2 h a catalogue's item. Three times that (backward is twice
forward), over the measured rate of bfloat16 products of this shape on this core.
"""

import argparse
import importlib.util
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cowbird.inspection.platform_log import align_log, load_log
from cowbird.rng import torch_stream
from cowbird.victims.sequential import bert4rec
from cowbird.victims.sequential.base import FittedSequential
from cowbird.victims.sequential.training import _Step  # pyright: ignore[reportPrivateUsage]
from cowbird.victims.sequential.windows import Windows

ITEMS, HIDDEN, BATCH, EVENTS = 1682, 64, 18, 60_000
CPU = torch.device("cpu")


def measure_rate() -> float:
    """Return operations a second of bfloat16 products as a layer has them."""
    a, b = torch.randn(4000, HIDDEN).bfloat16(), torch.randn(HIDDEN, 4 * HIDDEN).bfloat16()
    times: list[float] = []
    for _ in range(50):
        began = time.thread_time()
        torch.mm(a, b)
        times.append(time.thread_time() - began)
    return 2 * a.numel() * 4 * HIDDEN / statistics.median(times)


def count_operations(windows: int, length: int, layers: int = 2) -> float:
    """Return the operations of a step whose windows are full."""
    tokens, masks, square = windows * length * (length + 3) / 2, windows * length, HIDDEN**2
    forward = tokens * (24 * square * (layers - 1) + 4 * square) + masks * (22 * square + 2 * HIDDEN * ITEMS)
    return 3 * forward


def load_former(path: Path) -> Any:
    """Import an older file of the network, whose `encode` is told the same."""
    found = importlib.util.spec_from_file_location("former_bert4rec", path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def time_steps(kinds: dict[str, Any], length: int, steps: int) -> dict[str, list[float]]:
    """Return the processor seconds of each step, by kind; kinds take turns."""
    users = align_log(load_log("movielens_100k"), ITEMS, None).select_learnable(EVENTS, 0)
    work: dict[str, tuple[_Step, Windows]] = {}
    for name, module in kinds.items():
        spec = module.BERT4Rec(max_length=length, batch_size=BATCH, learning_rate=2e-3, hidden=HIDDEN)
        network = spec.make_network(ITEMS)
        network.reset(torch_stream(0, "weights"))
        windows = Windows(users.training(), length, "all", CPU)
        work[name] = _Step(FittedSequential(spec, network, ITEMS, CPU), windows, CPU, lambda: None), windows
    found: dict[str, list[float]] = {name: [] for name in kinds}
    rng = np.random.default_rng(0)
    for number in range(steps + 3):
        for name, (step, windows) in work.items():
            index = torch.from_numpy(rng.integers(0, len(windows), BATCH))
            began = time.thread_time()
            step(index, 2e-3, number)
            if number >= 3:
                found[name].append(time.thread_time() - began)
    return found


def main() -> None:
    """Measure and write."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--former", type=Path, help="An older bert4rec.py.")
    asked.add_argument("--steps", type=int, default=20)
    asked.add_argument("--out", type=Path, required=True)
    given = asked.parse_args()
    torch.set_num_threads(1)
    kinds = {"present": bert4rec} | ({"former": load_former(given.former)} if given.former else {})
    rows: list[dict[str, Any]] = []
    for length in (20, 50):
        rate, times = measure_rate(), time_steps(kinds, length, given.steps)
        row: dict[str, Any] = {"length": length, "floor_ms": round(1e3 * count_operations(BATCH, length) / rate, 1)}
        row |= {f"{name}_ms": round(1e3 * statistics.median(each), 1) for name, each in times.items()}
        row |= {f"{name}_least_ms": round(1e3 * min(each), 1) for name, each in times.items()}
        rows.append(row | {"gigaflops": round(rate / 1e9)})
        print(rows[-1], flush=True)
    content = {"batch": BATCH, "steps": given.steps, "torch": torch.__version__, "rows": rows}
    given.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
