"""Measure the cascade beside both taggers alone: recall, false positives, how many titles are looked at again, speed.

    python benchmarks/scan_cascade.py ask --data data --keep marks --words words.json --catalogs office --out ask.json
    python benchmarks/scan_cascade.py table --answers answers --out docs/results/scan_cascade.json
    python benchmarks/scan_cascade.py time --data data --catalogs office,anime --out docs/results/scan_cascade_cpu.json

`ask`: of each catalogue and seed a reference and a batch are drawn (`attacker_plantings`), 600 titles each at most, and
each of 35 families of triggers is planted in 1 % of the batch. Three scanners are asked: with the small tagger, with
the language model, and with the cascade, by the package's own functions; about planted titles each alone, about the
batch beside the reference, and about the batch by itself. Recall is that where 1 % of the batch's clean titles score as
high, and at the own threshold for 1 %. The cascade is also asked with other numbers of open titles (`--open`), and
both scanners with a language model also with slips (`--scanners "cascade,cascade with slips"`). `table` writes means
over families. `time` runs `cowbird scan` as a user does.
"""

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from attacker_plantings import SEEDS, list_singles, list_words, split_catalog
from attacker_scans import PlantedCatalog
from cowbird.defenses.p_scanner import second_look
from cowbird.defenses.p_scanner.title_slips import SlipReader
from cowbird.errors import ExitCode
from cowbird.files import write_text
from cowbird.rng import stream
from cowbird.victims.fit_context import find_fast_dtype, pick_device
from cowbird.victims.language.llm import Llm, load_reader
from ready_catalogs import KeptScanner, load_titles, look_with
from scan_attackers import measure
from shipped_scans import Found
from tagger_families import ASKED

CATALOGS = ("lastfm", "office", "movielens_1m", "anime", "movielens_100k", "products")
OPEN = (75, 150, 600)
"""Other numbers of open titles that are tried."""
PLANTED_SHARE = 0.01
WITH_SLIPS = " with slips"
"""Beside a scanner's name: it also asks a plain language model how words are meant (`slip_evidence`)."""
WAYS = ("each alone", "1 %, reference", "1 %, none")


def ask_catalog(
    catalog: PlantedCatalog,
    scanner: KeptScanner,
    batch: Sequence[str],
    singles: Mapping[str, Mapping[int, str]],
    ways: Sequence[str] = WAYS,
) -> Iterator[dict[str, Any]]:
    """Yield what a scanner finds of each family in each way."""
    scans, rows = catalog.scans, catalog.find(batch)
    inventory = scans.calibrate(scanner.scoring, catalog.old)
    for family, planted in singles.items():
        if not planted:
            continue
        bad, mask = rows.copy(), np.zeros(len(rows), dtype=bool)
        bad[list(planted)], mask[list(planted)] = catalog.find(planted.values()), True
        asked: tuple[Callable[[], Found], ...] = (
            partial(scans.ask_beside, scanner.scoring, inventory, bad, apart=True),
            partial(scans.ask_beside, scanner.scoring, inventory, bad),
            partial(catalog.ask_itself, bad),
        )
        for way, find in zip(WAYS, asked, strict=True):
            if way in ways:
                yield {"way": way, "family": family, "kind": ASKED[family][0]} | measure(find(), mask)


def ask(options: argparse.Namespace, command: str) -> None:
    """Ask all three scanners."""
    words, rows = list_words(options.words), list[dict[str, Any]]()
    small = KeptScanner(options.keep / "small", options.device, "small")
    large = KeptScanner(options.keep / "llm", options.device, "llm")
    own, where = second_look.OPEN_TITLES, pick_device(options.device)
    reader = SlipReader(partial(load_reader, Llm(), where, find_fast_dtype(where)), where)
    for name in options.catalogs.split(","):
        for seed in map(int, options.seeds.split(",")):
            halves = split_catalog(name, options.data, seed)
            many = max(3, round(PLANTED_SHARE * len(halves.batch)))
            singles = list_singles(name, seed, halves, words, many)
            texts = [title for planted in singles.values() for title in planted.values()]
            looks = {opened: look_with(large) for opened in (own, *options.open)}
            tried = [("small", small, None, own), ("llm", large, None, own)]
            tried += [("cascade", small, look, opened) for opened, look in looks.items()]
            tried += [(f"llm{WITH_SLIPS}", large, None, own), (f"cascade{WITH_SLIPS}", small, looks[own], own)]
            for label, scanner, second, opened in tried:
                if label not in options.scanners.split(","):
                    continue
                began = time.process_time()
                second_look.OPEN_TITLES = opened
                catalog = PlantedCatalog(scanner, halves.reference, halves.batch, texts, second)
                if label.endswith(WITH_SLIPS):
                    catalog.scans = replace(catalog.scans, slips=reader)
                for row in ask_catalog(catalog, scanner, halves.batch, singles, options.ways.split(";")):
                    rows.append({"catalog": name, "seed": seed, "scanner": label, "open": opened} | row)
                if second is not None:
                    print(f"  {second.looked:,} of {len(catalog.texts):,} looked at", flush=True)
                print(name, seed, label, opened, f"{time.process_time() - began:.0f} s", flush=True)
                write_rows(options.out, {"command": command}, rows)


def write_rows(path: Path, head: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows, one a line."""
    body = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    write_text(path, f'{json.dumps(head, indent=1)[:-2]},\n "rows": [\n{body}\n ]\n}}\n')


def table(options: argparse.Namespace, command: str) -> None:
    """Write means over families, and what the cascade loses against the language model alone, worst first."""
    answers = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.answers.glob("*.json"))]
    groups: dict[tuple[Any, ...], dict[str, list[Any]]] = {}
    for row in (row for answer in answers for row in answer["rows"]):
        label = row["scanner"] if row["open"] == second_look.OPEN_TITLES else f"{row['scanner']} {row['open']:g}"
        key = (row["catalog"], row["way"], row["kind"])
        groups.setdefault(key, {}).setdefault(label, []).append(row)
    lines: list[dict[str, Any]] = []
    for key, found in groups.items():
        line: dict[str, Any] = dict(zip(("catalog", "way", "kind"), key, strict=True))
        for label, rows in found.items():
            line[label] = round(float(np.mean([row["recall_at_1"] for row in rows])), 4)
            line[f"{label}, own threshold"] = round(float(np.mean([row["recall"] for row in rows])), 4)
            line[f"{label}, clean flagged"] = round(float(np.mean([row["clean_flagged"] for row in rows])), 5)
        line["seeds"] = len({row["seed"] for row in found["llm"]})
        line["lost"] = round(line["llm"] - line["cascade"], 4)
        lines.append(line)
    lines.sort(key=lambda line: -line["lost"])
    write_rows(options.out, {"command": command, "commands": [answer["command"] for answer in answers]}, lines)


CODES = ("before", "now")
"""Versions that are timed in turn; findings of the second are compared with those of the first."""


def time_scan(*words: str | Path, source: Path | None = None) -> dict[str, Any]:
    """Run a scan as a process, perhaps of another source, and return its seconds of wall and of processor."""
    paths = [] if source is None else [str(source.resolve())]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "cowbird", "scan", *map(str, words), "--json", "-q"],
        check=False,
        capture_output=True,
        env=env,
    )
    if done.returncode not in (ExitCode.CLEAN, ExitCode.FINDINGS):
        raise SystemExit(done.stderr.decode())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    told = json.loads(done.stdout)
    return {
        "wall_seconds": round(time.perf_counter() - began, 2),
        "processor_seconds": round(spent, 2),
        "flagged": told["flagged"],
    }


def time_commands(options: argparse.Namespace, command: str) -> None:
    """Time `cowbird scan` of so many titles, with a reference of as many and without."""
    rows: list[dict[str, Any]] = []
    head = {
        "command": command,
        "cores": len(os.sched_getaffinity(0)),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
        "bfloat16": bool(torch.cpu.get_capabilities().get("avx512_bf16")),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for catalog in options.catalogs.split(","):
            titles = load_titles(catalog, options.data)
            order: list[int] = stream(0, "cascade speed").permutation(len(titles)).tolist()
            parts = [[titles[row] for row in order[first : first + options.titles]] for first in (0, options.titles)]
            files = [folder / f"{part}.csv" for part in ("now", "before", "few")]
            for file, part in zip(files, [*parts, parts[0][:64]], strict=True):
                pl.DataFrame({"id": range(len(part)), "title": part}).write_csv(file)
            whole = len(parts[1]) == options.titles
            for tagger in options.taggers.split(","):
                for reference in (None, files[1]) if whole else (None,):
                    for many, file in ((len(parts[0]), files[0]), (64, files[2])):
                        for nth in range(options.rounds):
                            more = () if reference is None else ("--reference", reference)
                            if many == 64 and reference is not None:
                                continue
                            row = {"catalog": catalog, "titles": many, "tagger": tagger, "reference": bool(more)}
                            made: list[bytes] = []
                            for code in CODES if options.before else CODES[1:]:
                                found = time_scan(
                                    *(file, "--out", folder / "f.csv", "--tagger", tagger),
                                    *("--device", options.device, *more),
                                    source=options.before if code == CODES[0] else None,
                                )
                                made.append((folder / "f.csv").read_bytes())
                                (folder / "f.csv").unlink()
                                rows.append(row | {"round": nth, "code": code, "same": made[0] == made[-1]} | found)
                                print(json.dumps(rows[-1]), flush=True)
                                write_rows(options.out, head, rows)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("ask", "table", "time"))
    parser.add_argument("--data", type=Path, help="folder with titles/, ml-1m/ and lastfm/")
    parser.add_argument("--keep", type=Path, help="marks of titles that were read")
    parser.add_argument("--words", type=Path, help="what `small_tagger.py words` wrote")
    parser.add_argument("--catalogs", default=",".join(CATALOGS))
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--open", type=lambda text: tuple(map(int, text.split(","))) if text else (), default=OPEN)
    parser.add_argument("--scanners", default="small,llm,cascade", help="some of them, with , between")
    parser.add_argument("--ways", default=";".join(WAYS), help="some of them, with ; between")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--answers", type=Path, help="for table: what ask wrote")
    parser.add_argument("--titles", type=int, default=3000, help="for time")
    parser.add_argument("--taggers", default="small,cascade,llm", help="for time")
    parser.add_argument("--rounds", type=int, default=3, help="for time")
    parser.add_argument("--before", type=Path, help="for time: the src/ of another version, in turn with this one")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    command = f"python benchmarks/scan_cascade.py {shlex.join(sys.argv[1:])}"
    {"ask": ask, "table": table, "time": time_commands}[options.what](options, command)


if __name__ == "__main__":
    main()
