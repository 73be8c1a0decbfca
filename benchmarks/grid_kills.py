"""A grid that is killed at random again and again, then finished by two processes at once: what is lost or done twice.

Each cell is a SASRec on synthetic data, small enough to be fitted in a moment. A run in one go is compared with one
that is killed (SIGKILL and SIGINT in turn, after a random time) and resumed, then finished by two processes in one
folder. Every fit writes a line when it ends. The result file must be the same byte for byte, and the two processes must
fit no model twice.

    python benchmarks/grid_kills.py --cells 60 --kills 10 --out docs/results/grid_kills.json
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

VICTIM = '''"""SASRec that writes a line for each fit that ends."""
import os
from cowbird.victims.sequential.sasrec import SASRec


class CountedSasRec(SASRec):
    """SASRec."""

    def fit(self, *lesson, **more):
        """Fit, and write a line."""
        fitted = super().fit(*lesson, **more)
        context = more.get("context") or lesson[3]
        handle = os.open(os.environ["COUNTED_FITS"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(handle, f"{context.folder}\\n".encode())
        os.close(handle)
        return fitted
'''
SPEC = """name = "grid"
seeds = {seeds}
ks = [5]
[dataset]
name = "synthetic"
users = 40
items = 20
events_per_user = 8
"""
PARTS = """[[victims]]
name = "counted_sasrec"
label = "sasrec{number}"
hidden = {hidden}
heads = 1
layers = 1
epochs = 2
"""
ATTACK = """[[attacks]]
name = "basic_replacement"
targets = { count = 2 }
"""


def write_spec(folder: Path, cells: int) -> Path:
    """Write the spec: three victims, and as many seeds as it takes."""
    (folder / "counted_sasrec.py").write_text(VICTIM)
    text = SPEC.format(seeds=list(range(-(-cells // 3))))
    text += "".join(PARTS.format(number=number, hidden=8 * (number + 1)) for number in range(3)) + ATTACK
    path = folder / "grid.toml"
    path.write_text(text)
    return path


def start(folder: Path, out: Path, fits: Path, *words: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COUNTED_FITS": str(fits)}
    command = [sys.executable, "-m", "cowbird", "run", "grid.toml", "--out", str(out), "--device", "cpu", "-q"]
    return subprocess.Popen(
        [*command, "--allow-plugins", *words],
        cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[bytes]) -> int:
    said = process.communicate()[1].decode()
    if "Traceback" in said:
        raise SystemExit(said)
    return process.returncode


def count_fits(path: Path) -> Counter[str]:
    """Return how often each model was fitted, by its place in the folder of the run."""
    lines = path.read_text().splitlines() if path.exists() else []
    return Counter("/".join(Path(line).parts[-3:]) for line in lines)


def count_done(out: Path) -> int:
    return len(list(out.glob("cells/*/cell.json")))


def kill_runs(
    folder: Path, out: Path, fits: Path, cells: int, kills: int, draw: random.Random
) -> list[dict[str, object]]:
    """Start the run, and kill it when a random number of models more is fitted; return what happened each time."""
    told: list[dict[str, object]] = []
    share = max(1, cells // (kills + 2))
    for number in range(kills):
        how = (signal.SIGKILL, signal.SIGINT)[number % 2]
        before, process = count_fits(fits).total(), start(folder, out, fits, "--resume")
        aim = before + draw.randint(1, 2 * share)
        while process.poll() is None and count_fits(fits).total() < aim:
            time.sleep(0.02)
        time.sleep(draw.random() * 0.3)
        process.send_signal(how)
        told.append({"signal": how.name, "exit": finish(process), "cells_done": count_done(out)})
        print(told[-1], flush=True)
    return told


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--cells", type=int, default=60)
    options.add_argument("--kills", type=int, default=10)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, required=True)
    given = options.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background, and what it starts, ignores it
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_spec(folder, given.cells)
        began = time.perf_counter()
        if finish(start(folder, folder / "whole", folder / "whole_fits")):
            raise SystemExit("the undisturbed run failed")
        whole_seconds, cells = time.perf_counter() - began, count_done(folder / "whole")
        told = kill_runs(folder, folder / "cut", folder / "cut_fits", cells, given.kills, random.Random(given.seed))
        left = cells - count_done(folder / "cut")
        pair = [start(folder, folder / "cut", folder / "pair_fits", "--resume") for _ in range(2)]
        codes = [finish(process) for process in pair]
        results = [(folder / name / "results.jsonl").read_bytes() for name in ("whole", "cut")]
        whole, cut, both = (count_fits(folder / f"{name}_fits") for name in ("whole", "cut", "pair"))
    record = {
        "command": f"benchmarks/grid_kills.py --cells {given.cells} --kills {given.kills} --seed {given.seed}",
        "machine": "2 CPU cores, other work beside them",
        "cells": cells,
        "models": len(whole),
        "kills": told,
        "left_for_two_processes": left,
        "exits_of_the_two": codes,
        "fitted_twice_by_the_two": sum(count > 1 for count in both.values()),
        "fitted_again_after_a_kill": (cut + both).total() - len(cut + both),
        "results_identical": results[0] == results[1],
        "rows": results[0].count(b"\n"),
        "sha256": [hashlib.sha256(each).hexdigest() for each in results],
        "seconds_undisturbed": round(whole_seconds, 1),
    }
    given.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
    if not record["results_identical"] or record["fitted_twice_by_the_two"]:
        raise SystemExit("something was lost or done twice")


if __name__ == "__main__":
    main()
