"""What a busy machine costs: one `cowbird run` alone, and two at once, by how idle threads wait.

Threads of one fit wait for each other many times a second. By default they spin meanwhile, which takes a processor from
whoever else has work. Both ways are measured in turn, in processor seconds and in seconds on the wall.

python benchmarks/busy_machine.py [--rounds 3] [--out docs/results/busy_machine.json]
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

SPEC = """
name = "busy"
seeds = [0]
ks = [10]
[dataset]
name = "synthetic"
users = 600
items = 400
events_per_user = 30
[split]
cold_fraction = 0.3
[[victims]]
name = "sasrec"
hidden = 64
layers = 2
epochs = 20
[[attacks]]
name = "basic_replacement"
targets = { count = 3 }
[[scenarios]]
name = "direct"
"""
WAYS = {
    "spinning (libgomp's default)": {"GOMP_SPINCOUNT": "300000"},
    "spinning briefly": {"GOMP_SPINCOUNT": "10000"},
    "sleeping (OMP_WAIT_POLICY=PASSIVE)": {"OMP_WAIT_POLICY": "PASSIVE"},
}
"""What the environment says, by the name of the way."""
THREAD_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")


def measure_runs(count: int, way: dict[str, str], spec: Path, folder: Path) -> dict[str, float]:
    """Return what some runs that start together take: processor seconds of all, and seconds until the last ends."""
    env = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES} | way
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "cowbird",
                "run",
                str(spec),
                "--out",
                str(folder / str(nth)),
                "--device",
                "cpu",
                "-q",
            ],
            env=env,
        )
        for nth in range(count)
    ]
    if any(process.wait() for process in started):
        raise SystemExit("a run failed")
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, "wall": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured, in turn; medians are told")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found: dict[str, dict[int, list[dict[str, float]]]] = {way: {1: [], 2: []} for way in WAYS}
    with tempfile.TemporaryDirectory() as held:
        spec = Path(held) / "busy.toml"
        spec.write_text(SPEC)
        for number in range(given.rounds):
            for way, env in WAYS.items():
                for count in (1, 2):
                    folder = Path(held) / f"{number}-{list(WAYS).index(way)}-{count}"
                    found[way][count].append(measure_runs(count, env, spec, folder))
    record = {
        "spec": SPEC,
        "rounds": given.rounds,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_at_the_end": os.getloadavg()[0],
        "median_seconds": {
            way: {
                ("alone" if count == 1 else "two at once"): {
                    kind: round(statistics.median(one[kind] for one in runs), 2) for kind in ("processor", "wall")
                }
                for count, runs in counts.items()
            }
            for way, counts in found.items()
        },
        "all_seconds": found,
    }
    text = json.dumps(record, indent=1)
    print(text)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
