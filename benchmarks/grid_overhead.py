"""What the runner costs beside the cells: a run of many cells, then the same run again with all of them done.

The second run does all that the runner does (plan, locks, looks at what is done, results of all cells) and no cell.
Processor seconds of this process are counted, without its imports, since other work may run beside it. Those in which
rows and their intervals are made are told apart: they are results. The results of both are compared.

    python benchmarks/grid_overhead.py --cells 1000 --out docs/results/grid_overhead.json
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from cowbird.experiments.plan import plan_run
from cowbird.experiments.results_file import ResultsFile
from cowbird.experiments.run import run
from cowbird.experiments.spec import parse_spec


def make_spec(cells: int):
    """Return a spec of small cells: one SASRec, one attack, as many seeds as there are cells."""
    return parse_spec(
        {
            "name": "grid",
            "seeds": list(range(cells)),
            "ks": [5],
            "dataset": {"name": "synthetic", "users": 40, "items": 20, "events_per_user": 8},
            "victims": [{"name": "sasrec", "hidden": 8, "heads": 1, "layers": 1, "epochs": 3}],
            "attacks": [{"name": "basic_replacement", "targets": {"count": 2}}],
        }
    )


def measure(work) -> float:
    """Return the processor seconds of some work in this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


class RowClock:
    """Adds up the processor seconds in which rows are made of evidence."""

    def __init__(self) -> None:
        self.seconds, self._make = 0.0, ResultsFile.make_rows
        clock = self

        def make_rows(results: ResultsFile, pooled: bool):
            began = time.process_time()
            rows = clock._make(results, pooled)
            clock.seconds += time.process_time() - began
            return rows

        ResultsFile.make_rows = make_rows


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--cells", type=int, default=1000)
    options.add_argument("--out", type=Path, required=True)
    given = options.parse_args()
    torch.set_num_threads(1)
    spec = make_spec(given.cells)
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "run"
        run(make_spec(1), Path(place) / "warm", device="cpu")
        whole = measure(lambda: run(spec, out, device="cpu"))
        before = (out / "results.jsonl").read_bytes()
        clock = RowClock()
        cached = measure(lambda: run(spec, out, device="cpu", resume=True))
        rows = clock.seconds
        one = measure(lambda: run(spec, out, device="cpu", number=given.cells // 2))
        plan = measure(lambda: plan_run(spec, out))
        same = (out / "results.jsonl").read_bytes() == before
    record = {
        "command": f"benchmarks/grid_overhead.py --cells {given.cells}",
        "machine": "2 CPU cores, other work beside them; processor seconds, 1 thread",
        "cells": given.cells,
        "run_seconds": round(whole, 2),
        "cached_run_seconds": round(cached, 2),
        "of_them_making_rows": round(rows, 2),
        "scheduler_milliseconds_a_cell": round(1000 * (cached - rows) / given.cells, 2),
        "scheduler_share_of_run": round((cached - rows) / whole, 4),
        "seconds_of_a_cell_from_which_the_scheduler_takes_1_percent": round(100 * (cached - rows) / given.cells, 2),
        "one_cached_cell_seconds": round(one, 2),
        "dry_run_seconds": round(plan, 2),
        "results_identical": same,
    }
    given.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
