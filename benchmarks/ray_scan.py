"""What a scan on a Ray cluster of this machine costs: the process that gives out chunks, against one that does it all.

The process that gives out the work reads the file, sends titles, and writes findings; its processor seconds say how
many rows a cluster of any size can be fed by it. Findings of both ways are compared byte for byte.

    python benchmarks/ray_scan.py --rows 100000 --out docs/results/ray_scan.json
"""

import argparse
import json
import random
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from cowbird.ray_cluster import join_cluster
from cowbird.scanning.detectors import copy_scorer, make_detector, open_detector
from cowbird.scanning.ray_pool import RayScorer
from cowbird.scanning.reading import open_catalog
from cowbird.scanning.scan import scan_catalog

WORDS = ("red", "blue", "lamp", "chair", "big", "small", "wood", "oak", "table", "shelf", "kids", "garden")


def write_catalog(path: Path, rows: int) -> None:
    """Write titles of five words and a number; every 97th hides a character."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        file.write("id,title\n")
        for number in range(rows):
            title = " ".join(draw.choices(WORDS, k=5)) + f" {number}"
            file.write(f"{number},{title if number % 97 else title.replace(' ', chr(0x200B) + ' ', 1)}\n")


def measure(work) -> dict[str, float]:
    """Return seconds of the clock, and of this process on a processor."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return {
        "seconds": round(time.perf_counter() - clock, 2),
        "processor_seconds": round(time.process_time() - processor, 2),
    }


def read_all(path: Path) -> None:
    for _ in open_catalog(path).read_rows():
        pass


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--out", type=Path, required=True)
    given = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_catalog(folder / "items.csv", given.rows)
        reading = measure(lambda: read_all(folder / "items.csv"))
        rules = make_detector("character_rules", [], "cpu", False)
        scorer = open_detector("character_rules", rules, None, None, "title")
        one = measure(lambda: scan_catalog(folder / "items.csv", folder / "one.csv", scorer, only_flagged=True))
        make = partial(copy_scorer, scorer)
        with join_cluster(None, given.workers) as cluster:
            ray = RayScorer(scorer, make, cluster)
            ray.scan(["a warm start"])
            spread = measure(lambda: scan_catalog(folder / "items.csv", folder / "ray.csv", ray, only_flagged=True))
        same = (folder / "one.csv").read_bytes() == (folder / "ray.csv").read_bytes()
    record = {
        "command": f"benchmarks/ray_scan.py --rows {given.rows} --workers {given.workers}",
        "machine": "2 CPU cores, other work beside them; look at processor seconds",
        "reading": reading,
        "one_process": one,
        "ray_giving_out": spread,
        "rows_a_processor_second": {
            "reading": round(given.rows / reading["processor_seconds"]),
            "one_process": round(given.rows / one["processor_seconds"]),
            "ray_giving_out": round(given.rows / spread["processor_seconds"]),
        },
        "findings_identical": same,
    }
    given.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
