"""Time `cowbird scan` of a large list from start to end, beside another version of Cowbird: paired, in turn.

    python benchmarks/scan_large.py LISTS [LISTS …] --products 90000 --titles 100000 --before OTHER/src --out FILE

`LISTS` are JSON lists of titles. Made-up products (`product_titles.py`) join them; the titles are shuffled and cut to
`--titles`. Each tagger is asked with each number of workers. The process may use the cores that it is given
(`taskset -c 0,1 python …`).
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import torch

from cowbird.rng import stream
from product_titles import write_products
from scan_cascade import CODES, time_scan, write_rows


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lists", type=Path, nargs="+")
    parser.add_argument("--products", type=int, default=90_000)
    parser.add_argument("--titles", type=int, default=100_000)
    parser.add_argument("--taggers", default="small,cascade")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--before", type=Path, help="the src/ of another version, in turn with this one")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    titles = [title for path in options.lists for title in json.loads(path.read_text(encoding="utf-8"))]
    titles += [title for part in write_products(options.products, 0).values() for title in part]
    titles = list(dict.fromkeys(title for title in titles if title.strip()))
    order: list[int] = stream(0, "large scan").permutation(len(titles)).tolist()
    titles = [titles[row] for row in order[: options.titles]]
    head = {
        "command": f"python benchmarks/scan_large.py {shlex.join(sys.argv[1:])}",
        "titles": len(titles),
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "bfloat16": bool(torch.cpu.get_capabilities().get("avx512_bf16")),
    }
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=".") as name:
        catalog, out = Path(name) / "titles.csv", Path(name) / "found.csv"
        pl.DataFrame({"id": range(len(titles)), "title": titles}).write_csv(catalog)
        for nth in range(options.rounds):
            for tagger in options.taggers.split(","):
                for workers in options.workers.split(","):
                    for code in CODES if options.before else CODES[1:]:
                        source = options.before if code == CODES[0] else None
                        words = (catalog, "--out", out, "--tagger", tagger, "--device", "cpu", "--workers", workers)
                        load = os.getloadavg()[0]
                        found = time_scan(*words, source=source)
                        out.unlink()
                        row = {"round": nth, "tagger": tagger, "workers": int(workers), "code": code, "load": load}
                        rate = round(len(titles) / found["wall_seconds"])
                        rows.append(row | found | {"titles_per_second": rate})
                        print(json.dumps(rows[-1]), flush=True)
                        write_rows(options.out, head, rows)


if __name__ == "__main__":
    main()
