"""Memory of a scan by the size of the catalogue, beside what a scanner itself takes.

    python benchmarks/scan_memory.py --rows 100000,1000000,10000000 --out docs/results/scan_memory.json

Catalogues of different titles are written as CSV and scanned, each in a process of its own, by a scorer that costs
nothing and flags one title of a thousand: what is measured is reading, writing and keeping account. Peak memory is that
of the whole process, its libraries included, as the system tells it.
"""

import argparse
import csv
import json
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cowbird.files import write_text
from cowbird.scanning.scan import scan_catalog
from nothing_scorer import Nothing


def write(path: Path, rows: int) -> None:
    """Write a catalogue."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title"])
        writer.writerows((nth, f"The Return of the Red Harbor {nth:08d}") for nth in range(rows))


def one(catalog: Path) -> dict[str, float]:
    """Scan a catalogue, and return what that took."""
    before, began = time.process_time(), time.perf_counter()
    found = scan_catalog(catalog, catalog.with_name("findings.csv"), Nothing())
    return {
        "rows": found.rows,
        "flagged": found.flagged,
        "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "processor_seconds": round(time.process_time() - before, 1),
        "wall_seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="100000,1000000")
    parser.add_argument("--catalog", type=Path, help="scan this one, and print what it took")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.catalog:
        print(json.dumps(one(options.catalog)))
        return
    scans: list[dict[str, float]] = []
    for rows in map(int, options.rows.split(",")):
        with tempfile.TemporaryDirectory(dir=".") as folder:
            catalog = Path(folder) / "catalog.csv"
            write(catalog, rows)
            done = subprocess.run(
                [sys.executable, __file__, "--catalog", str(catalog)], capture_output=True, text=True, check=True
            )
        scans.append(json.loads(done.stdout))
        print(json.dumps(scans[-1]), flush=True)
        if options.out:
            command = f"python benchmarks/scan_memory.py {shlex.join(sys.argv[1:])}"
            write_text(options.out, json.dumps({"command": command, "scans": scans}, indent=1) + "\n")


if __name__ == "__main__":
    main()
