"""Rows of a catalogue past a scan, file to file: time, memory, and what the time goes to.

    python benchmarks/scan_rows.py --rows 100000,1000000,10000000 --out docs/results/scan_rows.json
    python benchmarks/scan_rows.py --rows 100000 --scorers small --out docs/results/scan_rows_small.json

Titles are made up of words and a number, so all are different. They are written as CSV and as Parquet in folders named
`part=0` to `part=3`. Each scan runs in a process of its own. `nothing` is a scorer that costs nothing, so its scan is
reading, writing and keeping account; `character_rules` judges; `small` is `cowbird scan --tagger small`, which reads
the catalogue twice. `read` only reads the rows, and `polars` is what polars takes to read the file: the floor. Times
are processor seconds, for other work may run beside this; `start_seconds` of libraries are not in them.
"""

import argparse
import json
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

import numpy as np
import polars as pl

from cowbird.files import write_text
from cowbird.ingest import pages
from cowbird.scanning.detectors import make_detector, open_detector
from cowbird.scanning.reading import open_catalog
from cowbird.scanning.scan import scan_catalog
from nothing_scorer import Nothing

WORDS = ("red", "blue", "steel", "oak", "classic", "mini", "vintage", "travel", "garden", "kitchen", "lamp", "chair")
ROWS_PER_PART = 250_000


def write(folder: Path, rows: int, form: str) -> Path:
    """Write a catalogue of made-up titles."""
    draw = np.random.default_rng(1)
    path = folder / ("catalog.csv" if form == "csv" else "catalog")
    for first in range(0, rows, ROWS_PER_PART):
        numbers = np.arange(first, min(first + ROWS_PER_PART, rows))
        words = np.array(WORDS)[draw.integers(0, len(WORDS), (len(numbers), 5))]
        titles = [
            f"{' '.join(each)} {number:08d}" for each, number in zip(words.tolist(), numbers.tolist(), strict=True)
        ]
        frame = pl.DataFrame({"id": numbers, "title": titles})
        if form == "csv":
            with path.open("ab") as file:
                frame.write_csv(file, include_header=first == 0)
        else:
            nth = first // ROWS_PER_PART
            place = path / f"part={nth % 4}" / f"{nth:05d}.parquet"
            place.parent.mkdir(parents=True, exist_ok=True)
            frame.write_parquet(place)
    return path


def read_peak() -> float:
    """Return the most mebibytes of this process; `getrusage` would tell those of the process that started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def scan_once(catalog: Path, scorer: str) -> dict[str, float]:
    """Do one thing with a catalogue in this process, and return what that took."""
    out = catalog.with_name("findings.csv")
    ready = open_detector(scorer, make_detector(scorer), None, None) if scorer == "character_rules" else Nothing()
    before, began = time.process_time(), time.perf_counter()
    if scorer == "polars":
        if catalog.is_dir():
            deque((pl.read_parquet(path) for path in sorted(catalog.rglob("*.parquet"))), maxlen=0)
        else:
            pl.read_csv(catalog)
    elif scorer == "read":
        deque(open_catalog(catalog).read_rows(), maxlen=0)
    elif scorer == "small":
        command = [sys.executable, "-m", "cowbird", "scan", str(catalog), "--tagger", "small", "--out", str(out), "-q"]
        subprocess.run(command, check=False)
    else:
        scan_catalog(catalog, out, ready)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "processor_seconds": round(time.process_time() - before + children.ru_utime + children.ru_stime, 2),
        "wall_seconds": round(time.perf_counter() - began, 1),
        "peak_megabytes": round(children.ru_maxrss / 1024 if scorer == "small" else read_peak(), 1),
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="100000")
    parser.add_argument("--forms", default="csv,parquet")
    parser.add_argument("--scorers", default="polars,read,nothing,character_rules")
    parser.add_argument("--batch-bytes", type=int, help="strings of Parquet decoded at once, instead of 64 MiB")
    parser.add_argument("--catalog", type=Path, help="do one thing with this one, and print what it took")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.batch_bytes:
        pages.MAX_BATCH_BYTES = options.batch_bytes
    if options.catalog:
        print(json.dumps(scan_once(options.catalog, options.scorers)))
        return
    command = f"python benchmarks/scan_rows.py {shlex.join(sys.argv[1:])}"
    found: list[dict[str, object]] = []
    for rows in map(int, options.rows.split(",")):
        for form in options.forms.split(","):
            with tempfile.TemporaryDirectory(dir=".") as folder:
                catalog = write(Path(folder), rows, form)
                for scorer in options.scorers.split(","):
                    one = [sys.executable, __file__, "--catalog", str(catalog), "--scorers", scorer]
                    one += ["--batch-bytes", str(options.batch_bytes)] if options.batch_bytes else []
                    done = subprocess.run(one, capture_output=True, text=True, check=True)
                    took = json.loads(done.stdout.splitlines()[-1])
                    rate = round(rows / took["processor_seconds"])
                    found.append({"rows": rows, "form": form, "scorer": scorer, "rows_per_second": rate} | took)
                    print(json.dumps(found[-1]), flush=True)
                    if options.out:
                        write_text(options.out, json.dumps({"command": command, "scans": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
