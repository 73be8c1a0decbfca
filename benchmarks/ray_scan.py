"""What the process that gives out a scan has to do itself, with two Ray workers of this machine.

Its processor seconds say how many rows a cluster of any size can be fed by it. The scorer costs nothing, so workers
are never waited for. Four ways: all in this process; titles sent to workers, and one file written here; rows sent to
workers, and parts written here; files of a folder read by workers, and parts written here. The last one has a first
pass, too. Findings of all ways are compared value for value.

    python benchmarks/ray_scan.py --rows 400000 --ray-data --out docs/results/ray_scan.json
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import polars as pl
import torch

from cowbird.ray_cluster import join_cluster
from cowbird.scanning.ray_pool import RayScorer
from cowbird.scanning.reading import open_catalog
from cowbird.scanning.scan import scan_catalog
from cowbird.scanning.scan_parts import scan_in_parts
from cowbird.scanning.shared_first_pass import SharedFirstPass
from nothing_scorer import Nothing
from scan_parts import write_catalog


def measure(work) -> dict[str, float]:
    """Return seconds of the clock, and of this process on a processor."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return {
        "seconds": round(time.perf_counter() - clock, 2),
        "processor_seconds": round(time.process_time() - processor, 2),
    }


def read_all(path: Path) -> None:
    """Read all rows."""
    for _ in open_catalog(path).read_rows():
        pass


def pass_through_ray_data(files: Path, out: Path) -> None:
    """Have Ray Data read the files, pass the rows on and write them: what it takes before any title is judged."""
    import ray.data

    table = ray.data.read_parquet(str(files))
    table.map_batches(lambda batch: batch, batch_size=8192).write_parquet(str(out))


def main() -> None:
    """Run it."""
    options = argparse.ArgumentParser()
    options.add_argument("--rows", type=int, default=400_000)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--ray-data", action="store_true", help="let Ray Data pass the rows through as well")
    options.add_argument("--out", type=Path, required=True)
    given = options.parse_args()
    torch.set_num_threads(1)
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files, table = write_catalog(folder, given.rows, "parquet"), folder / "items.csv"
        pl.scan_parquet(files / "**/*.parquet").select("id", "title").sort("id").sink_csv(table)
        found["reading a CSV"] = measure(lambda: read_all(table))
        found["one process"] = measure(lambda: scan_catalog(table, folder / "one.parquet", Nothing()))
        with join_cluster(None, given.workers) as cluster:
            ray = RayScorer(Nothing(), Nothing, cluster)
            ray.scan(["a warm start"])
            found["titles sent"] = measure(lambda: scan_catalog(table, folder / "sent.parquet", ray))
            found["rows sent"] = measure(lambda: scan_in_parts(table, folder / "rows", Nothing(), Nothing, cluster))
            kept = SharedFirstPass(None, cluster)
            found["first pass, rows sent"] = measure(lambda: kept.sample(table, "title"))
            found["first pass, files read by workers"] = measure(lambda: kept.sample(files, "title"))
            rows = kept.file_rows[files]
            found["files read by workers"] = measure(
                lambda: scan_in_parts(files, folder / "files", Nothing(), Nothing, cluster, file_rows=rows)
            )
            if given.ray_data:
                found["Ray Data, nothing judged"] = measure(lambda: pass_through_ray_data(files, folder / "data"))
        wanted = pl.read_parquet(folder / "one.parquet")
        same = {
            name: wanted.equals(pl.read_parquet(folder / name))
            for name in ("sent.parquet", "rows/part-*.parquet", "files/part-*.parquet")
        }
    record = {
        "command": f"benchmarks/ray_scan.py --rows {given.rows}{' --ray-data' * given.ray_data}",
        "workers": given.workers,
        "machine": "2 CPU cores, other work beside them; look at processor seconds",
        "took": found,
        "rows_a_processor_second": {
            name: round(given.rows / took["processor_seconds"]) for name, took in found.items()
        },
        "findings_identical": same,
    }
    given.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
