"""SASRec on MovieLens-100K on a CPU: Cowbird beside its peers, turn by turn in one run.

    benchmarks/peers/setup.sh .venv-peers
    python benchmarks/sasrec.py --peers .venv-peers --out docs/results/sasrec_cpu.json

Without `--peers` Cowbird runs alone. Every library runs in a process and an environment of its own, with two threads,
on one split (leave-one-out, from `peers/data.py`): hidden 64, 2 layers, 2 heads, length 50, full softmax, batch 256,
learning rate 1e-3. The regime is part of the result, for it moves accuracy and work per target more than the library
does: `last` (one window a user: RePlay's and RecTools' own), `all` (every window), `prefix` (one sample a prefix, loss
on the last position: the only one RecBole and Cornac have).

The floor. A target costs 1.02 MFLOP in `last` and `all` (forward and backward; 63 % of it the output layer), so a
machine whose float32 matrix products reach R FLOP/s makes at most R / 1.02e6 targets a second in float32. `ceiling` in
the output is R, measured here, for float32 and bfloat16.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent / "peers"
FLOP_PER_TARGET = 3 * (2 * (12 * 64**2 + 2 * 50 * 64) + 2 * 64 * 1682)
SPEED = [("cowbird", "last", 20), ("replay", "last", 20), ("rectools", "last", 20)]
SPEED_ONCE = [("cowbird", "all", 20), ("replay", "all", 20), ("cowbird", "prefix", 2), ("cornac", "prefix", 2)]


def ceiling() -> dict[str, float]:
    """Measure GFLOP/s of large matrix products."""
    import torch

    torch.set_num_threads(2)
    found: dict[str, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(2048, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
        times: list[float] = []
        for _ in range(8):
            started = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - started)
        found[str(dtype).removeprefix("torch.")] = round(2 * 2048**3 / statistics.median(times) / 1e9, 1)
    return found


class Bench:
    """Runs one library's script and keeps the line of JSON."""

    def __init__(self, peers: Path | None, data: Path) -> None:
        self.peers, self.data = peers, data
        self.runs: list[dict[str, Any]] = []

    def run(self, name: str, regime: str, epochs: int, seed: int, *more: str) -> dict[str, Any] | None:
        """Run one script; `None` if that library's environment is not there."""
        if name == "cowbird":
            python, script = Path(sys.executable), HERE / "ours.py"
        elif self.peers is None or not (self.peers / name / "bin/python").exists():
            return None
        else:
            python, script = self.peers / name / "bin/python", HERE / f"{name}.py"
        command = [str(python), str(script), "--data", str(self.data), "--seed", str(seed), "--epochs", str(epochs)]
        command += ["--regime", regime, *more]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not done.stdout.strip():
            print(f"{name} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
            return None
        result = json.loads(done.stdout.strip().splitlines()[-1])
        result |= {"name": name, "process_seconds": round(time.perf_counter() - started, 2), "options": list(more)}
        self.runs.append(result)
        rate, ndcg = round(result["targets_per_second"]), round(result["ndcg10"], 4)
        print(f"{name:9} {regime:6} seed {seed}: {rate:7,} targets/s, NDCG@10 {ndcg}", file=sys.stderr, flush=True)
        return result


def summarize(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return medians by library and regime, and Cowbird's rate over each."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["name"], run["regime"] + (" to accuracy" if "history" in run else "")), []).append(run)
    table: list[dict[str, Any]] = []
    for (name, regime), members in groups.items():
        row: dict[str, Any] = {
            "library": name,
            "version": members[0]["version"],
            "regime": regime,
            "runs": len(members),
        }
        for key in ("targets_per_second", "eval_seconds", "startup_seconds", "process_seconds"):
            row[key] = round(statistics.median(member[key] for member in members), 3)
        cpu = [m["train_targets"] * m["epochs"] / m["train_cpu_seconds"] for m in members]
        row["targets_per_cpu_second"] = round(statistics.median(cpu), 1)
        row["ndcg10"] = [round(member["ndcg10"], 4) for member in members]
        if "history" in members[0]:
            row["seconds_to_ndcg10_0.107"] = [member["reached_seconds"] for member in members]
        table.append(row)
    own = {row["regime"]: row["targets_per_second"] for row in table if row["library"] == "cowbird"}
    for row in table:
        for regime, rate in own.items():
            if row["library"] != "cowbird":
                row[f"cowbird_{regime}_over_this"] = round(rate / row["targets_per_second"], 2)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--accuracy-seconds", type=float, default=1200, help="0 leaves time to accuracy out")
    parser.add_argument("--wheel", type=Path, help="RecBole's wheel; by default MovieLens-100K as Cowbird finds it")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        wheel = ["--wheel", str(arguments.wheel)] if arguments.wheel else ["--inter", str(_interactions())]
        subprocess.run([sys.executable, str(HERE / "data.py"), *wheel, "--out", str(data)], check=True)
        bench = Bench(arguments.peers, data)
        load = os.getloadavg()
        measured = ceiling()
        for seed in seeds:
            for name, regime, epochs in SPEED:
                bench.run(name, regime, epochs, seed)
        for name, regime, epochs in SPEED_ONCE:
            bench.run(name, regime, epochs, seeds[0])
        if arguments.accuracy_seconds:
            limit = ["--target-ndcg", "0.107", "--max-seconds", str(arguments.accuracy_seconds)]
            for seed in seeds:
                bench.run("cowbird", "all", 1, seed, *limit, "--batch-size", "64")
            bench.run("recbole", "prefix", 1, seeds[0], *limit)
    record = {
        "ceiling_gflop_per_second": measured,
        "flop_per_target": FLOP_PER_TARGET,
        "load_before": load,
        "summary": summarize(bench.runs),
        "runs": bench.runs,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record["summary"], indent=1))


def _interactions() -> Path:
    """Return MovieLens-100K's interactions in the installed data wheel."""
    from importlib.metadata import files

    for file in files("recbole") or []:
        if str(file).endswith("ml-100k.inter"):
            return Path(str(file.locate()))
    raise SystemExit("recbole's data wheel is not installed: make setup, or give --wheel.")


if __name__ == "__main__":
    main()
