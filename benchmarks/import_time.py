"""What `import cowbird` costs beyond Python itself: fresh processes in turn, so that a busy machine slows both alike.

python benchmarks/import_time.py [--runs 30] [--out runs/bench/import_time.json]
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {"python": "pass", "cowbird": "import cowbird", "run": "import cowbird; cowbird.run"}
"""What each process does: nothing, the import, and the first use of a name that needs torch."""


def time_process(code: str) -> float:
    """Return the seconds that a fresh process takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    for code in COMMANDS.values():  # bytecode and the disk's cache are warm for all
        time_process(code)
    seconds = {name: [] for name in COMMANDS}
    for _ in range(given.runs):
        for name, code in COMMANDS.items():
            seconds[name].append(time_process(code))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    found = {
        "python": platform.python_version(),
        "runs": given.runs,
        "median_seconds": medians,
        "import_over_python_seconds": medians["cowbird"] - medians["python"],
        "import_over_python_ratio": medians["cowbird"] / medians["python"],
    }
    text = json.dumps(found, indent=1)
    print(text)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text)


if __name__ == "__main__":
    main()
