"""Loads a CSV of ten million interactions in a fresh process and writes down speed, memory and CPU time.

python benchmarks/load_csv.py [--rows 10000000] [--out docs/results/load_csv.json]
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

USERS = 200_000
ITEMS = 50_000
SEED = 7

_LOAD = """
import json, resource, sys, time
from pathlib import Path
from cowbird.data.sources.tabular import Tabular
before = resource.getrusage(resource.RUSAGE_SELF)
began = time.perf_counter()
data = Tabular(path=Path(sys.argv[1]), user_column="user", item_column="item").load()
wall = time.perf_counter() - began
after = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "events": data.interactions.events, "users": len(data.users), "items": len(data.items),
    "skipped": sum(skip.count for skip in data.skips), "seconds": wall,
    "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    "rss_before_mb": before.ru_maxrss / 1024, "peak_rss_mb": after.ru_maxrss / 1024,
}))
"""


def write(path: Path, rows: int) -> None:
    """Write a file of random interactions, a million rows at a time."""
    rng = np.random.default_rng(SEED)
    with path.open("wb") as stream:
        for start in range(0, rows, 1_000_000):
            count = min(1_000_000, rows - start)
            frame = pl.DataFrame(
                {
                    "user": rng.integers(USERS, size=count),
                    "item": (ITEMS * rng.random(count) ** 2).astype(np.int64),
                    "rating": rng.integers(1, 6, size=count),
                    "timestamp": rng.integers(1_500_000_000, 1_700_000_000, size=count),
                }
            )
            frame.write_csv(stream, include_header=start == 0)


def measure(rows: int) -> dict[str, object]:
    """Write the file, load it in a fresh process and return the figures."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "interactions.csv"
        write(path, rows)
        size = path.stat().st_size
        done = subprocess.run([sys.executable, "-c", _LOAD, str(path)], check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout)
    return {
        "benchmark": "load_csv",
        "rows": rows,
        "file_mb": round(size / 2**20, 1),
        **figures,
        "rows_per_second": round(rows / figures["seconds"]),
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "polars": pl.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--out", type=Path, default=Path("docs/results/load_csv.json"))
    args = parser.parse_args()
    text = json.dumps(measure(args.rows), indent=2)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
