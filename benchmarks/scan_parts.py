"""A catalogue from file to file by the ready scanner with the small tagger: rows a second, memory, where the time goes.

    python benchmarks/scan_parts.py --rows 1000000,10000000 --forms parquet,csv --workers 16 --device cuda --out FILE

Titles are made up: four to six words of some 30,000 that are drawn as words of a language are (Zipf), a brand of 400,
and a number; one in 300 has a trigger. They are written as one CSV, or as 112 Parquet files in folders named `part=0`
to `part=3`. Each scan is the command `cowbird scan CATALOG --tagger small --out FOLDER` in a process of its own. Memory
is the sum of what all its processes have for themselves (USS, every three seconds), and beside it that with shared
pages counted for each (RSS, every half second). The first pass is over when the folder of parts has its key.
`scan_seconds` is the time from start to end, start of libraries included.

How far a scan came is kept every few seconds (`progress`: seconds, and rows in parts that are done), in a file beside
`--out` while it goes on: a scan that is ended before its time has a rate, too.

`--scorers nothing` scans with a scorer that costs nothing, in one process: reading, findings and writing alone.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pyarrow.parquet as pq

from cowbird.files import write_text
from cowbird.scanning.parts_folder import KEY_FILE

FILES = 112
WORDS, BRANDS = 30_000, 400
TRIGGERS = ("5v", "wonderful", "\u200b", "best choice of experts")
SECONDS_A_LOOK, LOOKS_A_MEMORY, LOOKS_A_PROGRESS = 0.5, 6, 10
"""How often the processes are looked at; every how many-th time own memory and rows that are done are added up."""


def make_words() -> list[str]:
    """Return made-up words, the shorter ones first."""
    heads = [a + b for a in "bcdfghjklmnprstvwz" for b in "aeiou"]
    draw = np.random.default_rng(1)
    made = {"".join(heads[n] for n in row) for row in draw.integers(0, len(heads), (WORDS // 2, 2)).tolist()}
    made |= {"".join(heads[n] for n in row) for row in draw.integers(0, len(heads), (WORDS, 3)).tolist()}
    return sorted(made, key=lambda word: (len(word), word))[:WORDS]


def write_catalog(folder: Path, rows: int, form: str) -> Path:
    """Write a catalogue, its files beside each other."""
    path, size = folder / "catalog", -(-rows // FILES)
    words = make_words()
    given = [(path, form, words, nth, first, min(size, rows - first)) for nth, first in enumerate(range(0, rows, size))]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn")) as pool:
        places = list(pool.map(write_file, given))
    if form == "parquet":
        return path
    whole = folder / "catalog.csv"
    with whole.open("wb") as file:
        for place in places:
            with place.open("rb") as part:
                shutil.copyfileobj(part, file)
    shutil.rmtree(path)
    return whole


def write_file(given: tuple[Path, str, list[str], int, int, int]) -> Path:
    """Write one of the files of a catalogue."""
    folder, form, words, nth, first, many = given
    known = len(words)
    brands = pl.Series(words).gather(np.random.default_rng(1).permutation(known)[:BRANDS]).str.to_titlecase()
    weight = 1 / np.arange(10, known + 10)
    edges = np.cumsum(weight / weight.sum())
    draw = np.random.default_rng([1, nth])
    kept = pl.Series("kept", draw.integers(4, 7, many))
    picked = [np.searchsorted(edges, draw.random(many)).clip(max=known - 1) for _ in range(6)]
    columns = {f"w{place}": pl.Series(words).gather(column) for place, column in enumerate(picked)}
    trigger = pl.Series(TRIGGERS).gather(draw.integers(0, len(TRIGGERS), many))
    frame = pl.DataFrame({"brand": brands.gather(draw.integers(0, BRANDS, many)), **columns, "trigger": trigger})
    frame = frame.with_columns(
        kept, pl.Series("number", np.arange(first, first + many)), pl.Series("planted", draw.random(many) < 1 / 300)
    )
    frame = frame.with_columns(pl.when(pl.col("kept") > n).then(pl.col(f"w{n}")).alias(f"w{n}") for n in range(6))
    frame = frame.with_columns(pl.when("planted").then("trigger").alias("trigger"))
    title = pl.concat_str(["brand", *columns, "number", "trigger"], separator=" ", ignore_nulls=True)
    frame = frame.select(pl.col("number").alias("id"), title.alias("title"))
    place = folder / f"part={nth * 4 // FILES}" / f"{nth:05d}.{form}"
    place.parent.mkdir(parents=True, exist_ok=True)
    if form == "csv":
        frame.write_csv(place, include_header=first == 0)
    else:
        frame.write_parquet(place)
    return place


class Watch(threading.Thread):
    """Adds up the memory and the processor seconds of a process and those that it started, and rows that are done."""

    def __init__(self, process: subprocess.Popen, out: Path, kept: Path) -> None:
        super().__init__(daemon=True)
        self.kept, self.rows = kept, dict[str, int]()
        self.progress: list[tuple[float, int]] = []
        self.process, self.most, self.own, self.processes = process, 0, 0, 0
        self.began, self.parts = time.perf_counter(), out.with_name(f"{out.name}.partial")
        self.seconds: dict[int, float] = {}
        self.phases: dict[str, float] = {}
        self.over = threading.Event()

    def run(self) -> None:
        """Look every half second."""
        looks = 0
        while not self.over.wait(SECONDS_A_LOOK):
            looks += 1
            if "first pass" not in self.phases and (self.parts / KEY_FILE).is_file():
                self.phases["first pass"] = round(time.perf_counter() - self.began, 1)
            if "first part" not in self.phases and (self.parts / "part-00000.parquet").is_file():
                self.phases["first part"] = round(time.perf_counter() - self.began, 1)
            try:
                family = [psutil.Process(self.process.pid)]
                family += family[0].children(recursive=True)
            except psutil.Error:
                continue
            self._add_up(family, looks % LOOKS_A_MEMORY == 0)
            self.processes = max(self.processes, len(family))
            if looks % LOOKS_A_PROGRESS == 0 and "first part" in self.phases:
                self._note_progress()

    def _note_progress(self) -> None:
        with suppress(OSError):  # the folder gets its name at the end
            for place in self.parts.glob("part-*.parquet"):
                if place.name not in self.rows:
                    self.rows[place.name] = pq.read_metadata(place).num_rows
        self.progress.append((round(time.perf_counter() - self.began, 1), sum(self.rows.values())))
        write_text(self.kept, json.dumps({"phases": self.phases, "progress": self.progress}) + "\n")
        print(*self.progress[-1], "seconds, rows", flush=True)

    def _add_up(self, family: list[psutil.Process], all_of_it: bool) -> None:
        whole = own = 0
        for each in family:
            try:
                whole += each.memory_info().rss
                own += each.memory_full_info().uss if all_of_it else 0
                times = each.cpu_times()
                self.seconds[each.pid] = times.user + times.system
            except psutil.Error:
                continue
        self.most, self.own = max(self.most, whole), max(self.own, own)


def scan_once(catalog: Path, out: Path, workers: int, device: str, deadline: float, kept: Path) -> dict[str, object]:
    """Run the command, and return what it took; how far it came is kept in a file meanwhile."""
    words = [sys.executable, "-m", "cowbird", "scan", str(catalog), "--tagger", "small", "--out", str(out), "--json"]
    words += ["--workers", str(workers), "--device", device]
    began = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watch = Watch(process, out, kept)
    watch.start()
    stop = threading.Timer(max(1.0, deadline - time.time()), process.terminate)
    stop.start()
    output: list[str] = []
    reader = threading.Thread(target=lambda: output.append(process.stdout.read()))
    reader.start()
    said = [line.rstrip() for line in process.stderr]
    code = process.wait()
    seconds = time.perf_counter() - began
    stop.cancel()
    watch.over.set()
    reader.join()
    found: dict[str, object] = {
        "exit_code": code,
        "scan_seconds": round(seconds, 1),
        "seconds_until_the_end_of": watch.phases,
    }
    found |= {"peak_uss_megabytes": round(watch.own / 2**20), "peak_rss_megabytes": round(watch.most / 2**20)}
    found |= {"processes": watch.processes, "main_processor_seconds": round(watch.seconds.get(process.pid, 0.0), 1)}
    found |= {"all_processor_seconds": round(sum(watch.seconds.values()), 1)}
    if code in (0, 1):
        told = json.loads(output[0])
        found |= {name: told[name] for name in ("rows", "judged", "flagged", "review")}
        found |= {"rows_per_second": round(told["rows"] / seconds)}
        if first := watch.phases.get("first pass"):
            found |= {"rows_per_second_behind_the_first_pass": round(told["rows"] / (seconds - first))}
    return found | {"progress": watch.progress, "last_lines": said[-3:]}


def scan_nothing(catalog: Path, out: Path) -> dict[str, object]:
    """Scan with a scorer that costs nothing, in a process of its own."""
    code = f"""
import time, json
from pathlib import Path
from cowbird.scanning.scan_parts import scan_in_parts
from nothing_scorer import Nothing
began = time.process_time()
found = scan_in_parts(Path({str(catalog)!r}), Path({str(out)!r}), Nothing())
took = time.process_time() - began
told = Path("/proc/self/status").read_text().splitlines()
peak = int(next(line for line in told if line.startswith("VmHWM")).split()[1]) // 1024
print(json.dumps({{"rows": found.rows, "processor_seconds": round(took, 2), "peak_rss_megabytes": peak}}))
"""
    place = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": place},
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return found | {"rows_per_second": round(found["rows"] / found["processor_seconds"])}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="100000")
    parser.add_argument("--forms", default="parquet,csv")
    parser.add_argument("--scorers", default="small")
    parser.add_argument("--workers", default="1")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=60.0, help="scans are ended then, and what was measured stays")
    parser.add_argument("--folder", type=Path, help="where catalogues and findings lie meanwhile")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    deadline = time.time() + 60 * options.minutes
    command = f"python benchmarks/scan_parts.py {shlex.join(sys.argv[1:])}"
    record = {"command": command, "processors": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0], "scans": []}
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        for rows in map(int, options.rows.split(",")):
            for form in options.forms.split(","):
                began = time.perf_counter()
                catalog, out = write_catalog(Path(place), rows, form), Path(place) / "findings"
                wrote = round(time.perf_counter() - began, 1)
                for workers in map(int, options.workers.split(",")):
                    for scorer in options.scorers.split(","):
                        if time.time() > deadline:
                            continue
                        about = {
                            "rows": rows,
                            "form": form,
                            "scorer": scorer,
                            "workers": workers,
                            "wrote_seconds": wrote,
                        }
                        if scorer == "nothing":
                            took = scan_nothing(catalog, out)
                        else:
                            about |= {"device": options.device}
                            kept = options.out.with_suffix(".progress.json")
                            took = scan_once(catalog, out, workers, options.device, deadline, kept)
                            kept.unlink(missing_ok=True)
                        record["scans"].append(about | took)
                        print(json.dumps(record["scans"][-1]), flush=True)
                        write_text(options.out, json.dumps(record, indent=1) + "\n")
                        shutil.rmtree(out, ignore_errors=True)
                shutil.rmtree(catalog) if catalog.is_dir() else catalog.unlink()


if __name__ == "__main__":
    main()
