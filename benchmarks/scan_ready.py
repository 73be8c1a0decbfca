"""Time the scanner that needs no fit: loading it, reading titles, learning what is usual, and judging.

    python benchmarks/scan_ready.py --titles 3000 --out docs/results/scan_ready_cpu.json
    python benchmarks/scan_ready.py --titles 100000 --device cuda --compiled --out docs/results/scan_ready_gpu.json

    python benchmarks/scan_ready.py --titles 6000 --tagger small --out docs/results/scan_ready_small_cpu.json

Titles are those of `product_titles.py`, in ten languages, or of a file (`--list`, a JSON list), in a drawn order. On a
processor seconds are those of the processor, on one thread with `OMP_NUM_THREADS=1`. A half of the titles says what is
usual, and the other half is judged as fresh.
The floor of reading is the tagger's multiplications, 2 a weight and token,
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

from cowbird.defenses.p_scanner.baseline import MAX_TITLES_SAMPLED
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.small_tagger import SmallTagger
from cowbird.files import write_text
from product_titles import write_products

WARM_UP_TITLES = 4096
"""Titles that are read before the clock starts, on a GPU."""


def _count_weights(scanner: ReadyScanner) -> int:
    """Return the weights that each token is multiplied with."""
    tagger = scanner.tagger
    model = tagger.network if isinstance(tagger, SmallTagger) else tagger.loaded.model
    return sum(
        weight.numel() for name, weight in model.named_parameters() if "embed" not in name and "table" not in name
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tagger", default="llm", choices=("llm", "small"))
    parser.add_argument("--list", type=Path, help="a JSON list of titles")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--peak", type=float, default=0.0, help="TFLOP/s of the device in the tagger's precision")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.list is None:
        written = write_products(options.titles, 7)
        titles = list(dict.fromkeys(title for language in written.values() for title in language))[: options.titles]
    else:
        titles = list(dict.fromkeys(json.loads(options.list.read_text(encoding="utf-8"))))[: options.titles]
    titles = [titles[nth] for nth in np.random.default_rng(0).permutation(len(titles)).tolist()]
    began = time.perf_counter()
    scanner = ReadyScanner.load(options.device, options.tagger)
    loading = time.perf_counter() - began
    on_gpu = scanner.tagger.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    if not isinstance(scanner.tagger, SmallTagger):
        scanner.tagger.compiled = options.compiled
    if on_gpu:
        scanner.read(titles[:WARM_UP_TITLES])
    sample, fresh = titles[: len(titles) // 2][:MAX_TITLES_SAMPLED], titles[len(titles) // 2 :]
    took: dict[str, list[float]] = {"read": [], "learn": [], "judge": []}
    for _ in range(options.rounds):
        times = [clock()]
        marks = scanner.read(fresh)
        times.append(clock())
        baseline = scanner.learn_baseline(sample)
        times.append(clock())
        found = scanner.judge(fresh, baseline)
        times.append(clock())
        for name, first, last in zip(took, times[:-1], times[1:], strict=True):
            took[name].append(last - first)
    tokens = len(marks.mark)
    median = {name: float(np.median(seconds)) for name, seconds in took.items()}
    weights = _count_weights(scanner)
    work = 2.0 * weights * (tokens + 2 * len(fresh))
    record = {
        "command": f"python benchmarks/scan_ready.py {shlex.join(sys.argv[1:])}",
        "device": torch.cuda.get_device_name() if scanner.tagger.device.type == "cuda" else "CPU",
        "cores": len(os.sched_getaffinity(0)),
        "tagger": options.tagger,
        "threads": torch.get_num_threads(),
        "titles": len(fresh),
        "tokens": tokens,
        "load_s": round(loading, 2),
        "median_s": {name: round(seconds, 2) for name, seconds in median.items()},
        "all_s": {name: [round(second, 2) for second in seconds] for name, seconds in took.items()},
        "learn_titles_per_s": round(len(sample) / median["learn"]),
        "read_titles_per_s": round(len(fresh) / median["read"]),
        "read_tokens_per_s": round(tokens / median["read"]),
        "judge_titles_per_s": round(len(fresh) / median["judge"]),
        "floor_operations": work,
        "reached_tflops": round(work / median["read"] / 1e12, 2),
        "share_of_peak": round(work / median["read"] / 1e12 / options.peak, 4) if options.peak else None,
        "flagged": int(found.flagged.sum()),
    }
    write_text(options.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
