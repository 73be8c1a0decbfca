"""Both commands as a user runs them: `cowbird fit-scanner` on a catalogue, then `cowbird scan` of a larger one.

    python benchmarks/scan_command.py --titles 8192 --out docs/results/scan_command_cpu.json
    python benchmarks/scan_command.py --titles 131072 --workers 8 --chunk 16384 --out docs/results/scan_command_gpu.json

Unlike `scan.py`, this is all of it: processes start, files are read and written, and the scanner asks for the context
gain of phrases that it does not know from its fit. That was made on the titles of MovieLens-100K; what it scans are
these and, beyond them, titles made of two of them, so phrases recur that it never met. A scan of a few titles is timed
as well; what the others took beyond that gives the rate.
"""

import argparse
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
import torch

from cowbird.errors import ExitCode
from cowbird.plugins import find_plugin
from cowbird.victims.base import pick_device
from scan import different_titles, tell


def write(path: Path, titles: list[str]) -> Path:
    """Write a catalogue."""
    pl.DataFrame({"id": range(len(titles)), "title": titles}).write_csv(path)
    return path


def timed(*words: str | Path) -> dict[str, float]:
    """Run a command; return seconds of wall and processor time.

    Raises:
        SystemExit: If it failed.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "cowbird", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (ExitCode.CLEAN, ExitCode.FINDINGS):
        raise SystemExit(f"{words[0]} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    told = {"wall_seconds": round(wall, 1), "processor_seconds": round(spent, 1)}
    print(words[0], told, file=sys.stderr, flush=True)
    return told


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=int, default=8192)
    parser.add_argument("--few", type=int, default=256, help="titles of the scan that tells what starting takes")
    parser.add_argument("--chunk", type=int, default=8192)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    titles = different_titles(options.titles)
    own = [title for title in find_plugin("dataset", "movielens_100k")().load().items.titles if title]
    device = pick_device(options.device)
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        scanner, how = folder / "scanner", ("--device", str(device))
        fit = timed(
            "fit-scanner",
            "--p-scanner",
            "--p-scanner",
            write(folder / "own.csv", own),
            "--text-column",
            "title",
            "--out",
            scanner,
            *how,
        )
        scans: dict[int, dict[str, float]] = {}
        for many in (options.few, len(titles)):
            catalog = write(folder / f"{many}.csv", titles[:many])
            crew = ("--chunk", str(options.chunk), "--workers", str(options.workers))
            scans[many] = timed("scan", catalog, "--scanner", scanner, "--out", folder / f"{many}-out.csv", *crew, *how)
    start, whole = scans.values()
    more = len(titles) - options.few
    record = {
        "command": f"python benchmarks/scan_command.py {shlex.join(sys.argv[1:])}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} CPU cores",
        "torch": torch.__version__,
        "fit": {"titles": len(own)} | fit,
        "scans": [{"titles": many} | took for many, took in scans.items()],
        "titles_per_second": round(more / (whole["wall_seconds"] - start["wall_seconds"]), 1),
        "titles_per_second_with_start": round(len(titles) / whole["wall_seconds"], 1),
    }
    tell(record, options.out)


if __name__ == "__main__":
    main()
