"""Time the scanner that needs no fit: loading it, reading titles, learning what is usual, and judging.

    python benchmarks/scan_ready.py --titles 3000 --out docs/results/scan_ready_cpu.json
    python benchmarks/scan_ready.py --titles 100000 --device cuda --compiled --out docs/results/scan_ready_gpu.json

Titles are those of `product_titles.py`. The floor of reading is the tagger's multiplications, 2 a weight and token,
over the rate of the unit that does them; `--peak` is that rate in TFLOP/s.
"""

import argparse
import json
import os
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import torch

from cowbird.defenses.p_scanner.baseline import MAX_TITLES_SAMPLED, ReadyScanner
from cowbird.files import write_text
from product_titles import write_products

WARM_UP_TITLES = 4096
"""Titles that are read before the clock starts, on a GPU."""


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--peak", type=float, default=0.0, help="TFLOP/s of the device in the tagger's precision")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    made = write_products(options.titles, 7)
    titles = list(dict.fromkeys(title for language in made.values() for title in language))[: options.titles]
    began = time.perf_counter()
    scanner = ReadyScanner.load(options.device)
    scanner.tagger.compiled = options.compiled
    loading = time.perf_counter() - began
    if scanner.tagger.device.type == "cuda":
        scanner.read(titles[:WARM_UP_TITLES])
    took: dict[str, list[float]] = {"read": [], "learn": [], "judge": []}
    tokens = 0
    for _ in range(options.rounds):
        began = time.perf_counter()
        marks = scanner.read(titles)
        tokens = len(marks.mark)
        took["read"].append(time.perf_counter() - began)
        sample = titles[:MAX_TITLES_SAMPLED]
        began = time.perf_counter()
        baseline = scanner.learn_baseline(sample, marks=scanner.read(sample) if len(sample) < len(titles) else marks)
        took["learn"].append(time.perf_counter() - began)
        began = time.perf_counter()
        found = scanner.judge(titles, baseline, marks=marks)
        took["judge"].append(time.perf_counter() - began)
    median = {name: float(np.median(seconds)) for name, seconds in took.items()}
    weights = sum(
        weight.numel() for name, weight in scanner.tagger.loaded.model.named_parameters() if "embed" not in name
    )
    work = 2.0 * weights * (tokens + 2 * len(titles))
    record = {
        "command": f"python benchmarks/scan_ready.py {shlex.join(sys.argv[1:])}",
        "device": torch.cuda.get_device_name() if scanner.tagger.device.type == "cuda" else "CPU",
        "cores": len(os.sched_getaffinity(0)),
        "titles": len(titles),
        "tokens": tokens,
        "load_s": round(loading, 2),
        "median_s": {name: round(seconds, 2) for name, seconds in median.items()},
        "all_s": {name: [round(second, 2) for second in seconds] for name, seconds in took.items()},
        "read_titles_per_s": round(len(titles) / median["read"]),
        "read_tokens_per_s": round(tokens / median["read"]),
        "judge_titles_per_s": round(len(titles) / median["judge"]),
        "floor_operations": work,
        "reached_tflops": round(work / median["read"] / 1e12, 2),
        "share_of_peak": round(work / median["read"] / 1e12 / options.peak, 4) if options.peak else None,
        "flagged": int(found.flagged.sum()),
    }
    write_text(options.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
