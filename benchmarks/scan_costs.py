"""What a row costs a scan in parts with the small tagger, part by part: microseconds of one processor.

    python benchmarks/scan_costs.py --rows 200000 --files 8 --processes 1,28 --out FILE

The catalogue is that of `scan_parts.py`. Each of some processes judges files of it, as a worker does, while the others
do. Times are processor seconds; the least of its files is a process's. `--batches` also times the network alone with
so many titles at once. Beside each row stand the operations of the network, and the bytes that are read and written.
"""

import argparse
import functools
import json
import os
import pickle
import shlex
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import polars as pl
import torch

from cowbird.defenses.p_scanner import catalog_judge, ready, small_tagger
from cowbird.defenses.p_scanner.baseline import MAX_TITLES_SAMPLED
from cowbird.defenses.p_scanner.catalog_judge import CatalogJudge, look_at_whole
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.files import write_text
from cowbird.ingest.options import get_options
from cowbird.local_cluster import HeldValue
from cowbird.scanning import part_tasks, scan
from cowbird.scanning.allow_list import AllowList
from cowbird.scanning.first_pass import FirstPass
from cowbird.scanning.part_tasks import CatalogPlace, JudgeJob
from cowbird.scanning.ready_scorer import ReadyScorer
from scan_parts import write_catalog

TIMED = (
    (small_tagger, "cut_titles", "cutting titles into pieces"),
    (small_tagger, "make_batch", "pieces as tensors"),
    (small_tagger, "read_on_cpu", "the network"),
    (ready, "mark_words", "words and their marks"),
    (ready, "describe_traits", "rules and traits"),
    (ready, "score_rows", "comparison with the catalogue, scores"),
    (ready.ReadyScanner, "judge", "fragments, spans and reasons"),
    (catalog_judge.CatalogJudge, "judge", "what is known, verdicts"),
    (scan, "make_findings", "findings"),
    (part_tasks, "count_group", "tally"),
    (part_tasks._ParquetSink, "add", "writing"),
    (part_tasks._ParquetSink, "close", "writing"),
)
"""Functions whose own time is measured, without that of others in the list."""


class Clock:
    """Processor time of nested functions, each without those within."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def wrap(self, function, name: str):
        """Return the function, timed."""

        @functools.wraps(function)
        def timed(*given, **named):
            began = time.process_time()
            self._inner.append(0.0)
            try:
                return function(*given, **named)
            finally:
                took = time.process_time() - began
                self.spent[name] += took - self._inner.pop()
                self._inner[-1] += took

        return timed


def learn(catalog: Path) -> ReadyScorer:
    """Make the first pass."""
    scanner, kept = ReadyScanner.load("cpu", "small"), FirstPass(None)
    sample = kept.sample(catalog, "title")
    marks = kept.read(scanner, sample.list_titles())
    whole = look_at_whole(scanner, sample, marks, functools.partial(kept.count, catalog, "title"), kept.read)
    judge = CatalogJudge.learn(scanner, sample.list_titles(), marks=marks, whole=whole)
    return ReadyScorer(judge, f"ready {scanner.key[:12]}", "cpu", sample.complete, "small")


def work(given: tuple[bytes, Path, list[int], float, int]) -> list[dict[str, float]]:
    """Judge files as a worker does; return microseconds a row of each."""
    factory, catalog, files, start, phrases = given
    torch.set_num_threads(1)
    clock = Clock()
    for owner, name, told in TIMED:
        setattr(owner, name, clock.wrap(getattr(owner, name), told))
    place = CatalogPlace(catalog, "title", None, get_options())
    kept = HeldValue(JudgeJob("one", pickle.loads(factory), place, 8192, False, AllowList()))
    sizes = [part_tasks.sample_file(place, nth, 10, 1 << 64).rows for nth in files]
    part_tasks.judge_file(kept, "one", files[0], 0, sizes[0])
    judge = part_tasks._scorers["one"].judge
    words = sorted({title.split()[0] for title in judge.known})[:phrases]
    time.sleep(max(0.0, start - time.time()))
    found = []
    for nth, rows in zip(files[1:], sizes[1:], strict=True):
        clock.spent.clear()
        began = time.process_time()
        part = part_tasks.judge_file(kept, "one", nth, 0, rows)
        judged = time.process_time()
        for _ in part_tasks.open_file(place, nth).read_rows():
            pass
        read = time.process_time()
        part_tasks.sample_file(place, nth, MAX_TITLES_SAMPLED, 1 << 62)
        sampled = time.process_time()
        part_tasks.count_file(place, nth, words)
        counted = time.process_time()
        told = dict(clock.spent) | {"reading": read - judged}
        told["other"] = judged - began - sum(told.values())
        told |= {"all of judging": judged - began, "first pass, sample": sampled - read}
        told |= {"first pass, counts": counted - sampled}
        found.append(
            {name: 1e6 * took / rows for name, took in told.items()} | {"bytes written": len(part.table) / rows}
        )
    return found


def time_batches(given: tuple[Path, list[int], float]) -> dict[int, float]:
    """Return microseconds a title that the network takes, by how many titles it is given at once."""
    path, batches, start = given
    torch.set_num_threads(1)
    tagger = small_tagger.load_small_tagger(device="cpu")
    titles = pl.read_parquet(path)["title"].to_list()[:8192]
    made = {}
    time.sleep(max(0.0, start - time.time()))
    for many in batches:
        parts = [small_tagger.cut_titles(titles[first : first + many]) for first in range(0, len(titles), many)]
        inputs = [small_tagger.make_batch(part, tagger.device) for part in parts]
        least = float("inf")
        with torch.inference_mode():
            for _ in range(3):
                began = time.process_time()
                for each in inputs:
                    small_tagger.read_on_cpu(tagger.network, each)
                least = min(least, time.process_time() - began)
        made[many] = 1e6 * least / len(titles)
    return made


def middle(rows: list[dict]) -> dict[str, float]:
    """Return medians of the same numbers of many."""
    return {str(name): round(statistics.median(row[name] for row in rows), 2) for name in rows[0]}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200000)
    parser.add_argument("--files", type=int, default=6, help="files that each process judges")
    parser.add_argument("--processes", default="1")
    parser.add_argument("--batches", default="", help="titles that the network is given at once")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    command = f"python benchmarks/scan_costs.py {shlex.join(sys.argv[1:])}"
    record = {"command": command, "processors": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0], "runs": []}
    with tempfile.TemporaryDirectory() as name:
        catalog = write_catalog(Path(name), options.rows, "parquet").resolve()
        torch.set_num_threads(1)
        scorer = learn(catalog)
        factory = pickle.dumps(scorer.make_factory(), pickle.HIGHEST_PROTOCOL)
        paths = sorted(catalog.rglob("*.parquet"))
        record["bytes read"] = round(sum(path.stat().st_size for path in paths) / options.rows, 1)
        for many in map(int, options.processes.split(",")):
            start, files = time.time() + 5 + many / 2, len(paths)
            chosen = [[(first + nth) % files for nth in range(options.files)] for first in range(many)]
            with ProcessPoolExecutor(many, get_context("spawn")) as pool:
                given = [(factory, catalog, each, start, 1024) for each in chosen]
                told = list(pool.map(work, given))
                run = {"processes": many, "microseconds": middle([middle(rows) for rows in told])}
                least = [{name: min(row[name] for row in rows) for name in rows[0]} for rows in told]
                run["least microseconds"] = middle(least)
                if options.batches:
                    batches = list(map(int, options.batches.split(",")))
                    begin = time.time() + 2
                    told = list(pool.map(time_batches, [(paths[n % files], batches, begin) for n in range(many)]))
                    run["network by titles at once"] = middle(told)
            record["runs"].append(run)
            print(json.dumps(run), flush=True)
            write_text(options.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
