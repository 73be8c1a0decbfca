"""Memory of a ready scan of a hostile catalogue: titles that are all different and made to hold as much as they can.

    python benchmarks/scan_hostile_memory.py --rows 2000,20000 --out docs/results/scan_hostile_memory.json

Each catalogue is written as JSON lines and scanned by a process of its own (`cowbird scan --tagger small`), with peak
memory as the system tells it. `honest` titles are made-up products, as a control; `long` ones are words of four letters
up to 3,900 characters; `letters` are 64 words of one or two letters, the most that fragments are counted of; `twice`
are the same, each title twice but for a last word, so that every fragment recurs.
"""

import argparse
import json
import resource
import shlex
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cowbird.errors import ExitCode
from cowbird.files import write_text
from product_titles import write_products

LETTERS = np.array(list(string.ascii_lowercase + "αβγδεζηθικλμνξοπρστυφχψω"))


def draw_honest(rows: int) -> list[str]:
    """Return made-up products in ten languages."""
    found = [title for titles in write_products(rows, 3).values() for title in titles]
    return [f"{found[nth % len(found)]} {nth // len(found) or ''}".strip() for nth in range(rows)]


def draw_long(rows: int) -> list[str]:
    """Return titles of 780 words of four letters."""
    rng = np.random.default_rng(0)
    return [" ".join("".join(word) for word in rng.choice(LETTERS, (780, 4))) for _ in range(rows)]


def draw_letters(rows: int) -> list[str]:
    """Return titles of 64 words of two letters or one."""
    rng = np.random.default_rng(1)
    return [" ".join("".join(word) for word in rng.choice(LETTERS, (64, 2))) for _ in range(rows)]


def draw_twice(rows: int) -> list[str]:
    """Return titles of 63 such words and a number, each twice but for the number."""
    words = draw_letters(rows // 2)
    return [f"{words[nth // 2].rpartition(' ')[0]} {nth}" for nth in range(2 * len(words))]


KINDS: dict[str, Callable[[int], list[str]]] = {
    "honest": draw_honest,
    "long": draw_long,
    "letters": draw_letters,
    "twice": draw_twice,
}


def scan(catalog: Path) -> dict[str, float | int]:
    """Scan a catalogue in a process, and return what it took."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "cowbird", "scan", str(catalog), "--tagger", "small", "--device", "cpu", "--json"]
    done = subprocess.run(
        [sys.executable, __file__, "--run", *command[1:], "--out", str(catalog.with_suffix(".csv")), "-q"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{done.returncode}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout) | {"wall_seconds": round(time.perf_counter() - begun, 1)}


def run(words: list[str]) -> None:
    """Run a command, and print the peak memory of its process."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    if done.returncode not in (ExitCode.CLEAN, ExitCode.FINDINGS):
        raise SystemExit(f"{done.returncode}: {done.stderr}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = json.loads(done.stdout)
    seconds = round(used.ru_utime + used.ru_stime, 1)
    record = {"peak_megabytes": round(used.ru_maxrss / 1024), "processor_seconds": seconds}
    print(json.dumps(record | {"sampled": told["basis"]["sampled"], "flagged": told["flagged"]}))


def main() -> None:
    """Run it."""
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="2000,20000")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    scans: list[dict[str, str | float | int]] = []
    for kind in options.kinds.split(","):
        for rows in map(int, options.rows.split(",")):
            with tempfile.TemporaryDirectory(dir=".") as folder:
                catalog = Path(folder) / "catalog.jsonl"
                lines = (json.dumps({"id": nth, "title": title}) for nth, title in enumerate(KINDS[kind](rows)))
                catalog.write_text("\n".join(lines) + "\n", encoding="utf-8")
                scans.append({"titles": kind, "rows": rows, "megabytes": round(catalog.stat().st_size / 1e6, 1)})
                scans[-1] |= scan(catalog)
            print(json.dumps(scans[-1]), flush=True)
            command = f"python benchmarks/scan_hostile_memory.py {shlex.join(sys.argv[1:])}"
            write_text(options.out, json.dumps({"command": command, "scans": scans}, indent=1) + "\n")


if __name__ == "__main__":
    main()
