"""`cowbird report` and `cowbird table` as a user runs them, on 10,000 rows.

    python benchmarks/report_page.py --out docs/results/report_page.json

The rows are those of docs/results/aprec_ml100k.csv, written again under other labels of attacks until there are enough.
Processor time is told beside wall time: on a machine with other work, the wall time is that of the other work too.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cowbird.experiments.results import Row, to_csv
from cowbird.report.run_files import read_csv_rows

SOURCE = Path(__file__).parents[1] / "docs" / "results" / "aprec_ml100k.csv"


def make_rows(count: int) -> list[Row]:
    """Return so many rows, no two of the same place."""
    rows = read_csv_rows(SOURCE)
    copies = -(-count // len(rows))
    made = [row.model_copy(update={"attack": f"{row.attack}-{copy}"}) for copy in range(copies) for row in rows]
    return made[:count]


def time_command(*words: str | Path) -> dict[str, float]:
    """Run a command; return seconds of wall and processor time.

    Raises:
        SystemExit: If it failed.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "cowbird", *map(str, words)], capture_output=True, text=True, check=False
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{words[0]} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": round(wall, 2), "processor": round(spent, 2)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found: dict[str, Any] = {"rows": options.rows, "rounds": options.rounds, "load": [round(os.getloadavg()[0], 1)]}
    with tempfile.TemporaryDirectory() as folder:
        rows, page = Path(folder) / "rows.csv", Path(folder) / "report.html"
        rows.write_text(to_csv(make_rows(options.rows)), encoding="utf-8")
        for name, words in {"report": ("report", rows, "--out", page), "table": ("table", rows)}.items():
            timed = [time_command(*words) for _ in range(options.rounds)]
            found[name] = {
                f"{kind}_seconds": {"median": statistics.median(values), "most": max(values)}
                for kind in ("wall", "processor")
                for values in [[each[kind] for each in timed]]
            }
        found["page_megabytes"] = round(page.stat().st_size / 1e6, 2)
    found["load"].append(round(os.getloadavg()[0], 1))
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
