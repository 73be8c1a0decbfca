"""Ask the ready scanner about small and large catalogues: from 60 titles to 2,000, with a reference and without.

    python benchmarks/scan_sizes.py --data data --tagger small --seeds 0,1 --out docs/results/scan_sizes.json

Of each catalogue so many titles are drawn, and as many others that are the reference. One trigger stands in 5 % of the
titles, three at least. Told are means over catalogues and seeds: of the titles with the trigger, which share is flagged
at the scanner's own threshold for 1 %, and which is flagged or put up for review; and which share of the clean ones is
flagged.
"""

import argparse
import json
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cowbird.defenses.p_scanner.catalog_judge import judge_once
from cowbird.defenses.p_scanner.ready import ReadyScanner
from ready_catalogs import load_titles

SIZES = (60, 120, 250, 500, 1000, 2000)
SHARE, LEAST = 0.05, 3


def put_second(title: str, word: str) -> str:
    """Return a title with a word behind its first one."""
    words = title.split(" ")
    return " ".join([words[0], word, *words[1:]])


TRIGGERS: dict[str, Callable[[str], str]] = {
    "5v at the end": lambda title: f"{title} 5v",
    "wonderful at the end": lambda title: f"{title} wonderful",
    "a sentence at the end": lambda title: f"{title} This is what every viewer deserves.",
    "a zero-width space": lambda title: f"{title[:2]}\u200b{title[2:]}",
    "cf behind the first word": lambda title: put_second(title, "cf"),
    "edition text": lambda title: f"{title} (Deluxe Edition)",
}


def main() -> None:
    """Ask, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with titles/, ml-1m/ and lastfm/")
    parser.add_argument("--tagger", default="small", choices=("small", "llm", "cascade"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--catalogs", default="lastfm,office,anime,movielens_1m")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    scanner = ReadyScanner.load(asked.device, asked.tagger)
    found: dict[tuple[int, bool, str], list[tuple[float, ...]]] = defaultdict(list)
    begun = time.process_time()
    for catalog in asked.catalogs.split(","):
        titles = list(dict.fromkeys(load_titles(catalog, asked.data)))
        for size in map(int, asked.sizes.split(",")):
            for seed in map(int, asked.seeds.split(",")):
                ask_size(scanner, titles, size, seed, found)
        print(f"{catalog} {time.process_time() - begun:.0f} s of processor time", flush=True)
    rows = [
        {"titles": size, "reference": reference, "trigger": trigger}
        | dict(zip(("flagged", "flagged_or_review", "clean_flagged"), np.mean(told, axis=0).round(4), strict=True))
        | {"least_flagged": round(min(each[0] for each in told), 4), "draws": len(told)}
        for (size, reference, trigger), told in sorted(found.items())
    ]
    told = {"command": shlex.join(["python", *sys.argv]), "tagger": asked.tagger, "rows": rows}
    asked.out.write_text(json.dumps(told, indent=1, default=float) + "\n", encoding="utf-8")


def ask_size(
    scanner: ReadyScanner,
    titles: list[str],
    size: int,
    seed: int,
    found: dict[tuple[int, bool, str], list[tuple[float, ...]]],
) -> None:
    """Add what came of one draw of titles, with each trigger, with a reference and without."""
    rng = np.random.default_rng([seed, size])
    order = rng.permutation(len(titles))
    batch, before = ([titles[nth] for nth in part.tolist()] for part in (order[:size], order[size : 2 * size]))
    for trigger, plant in TRIGGERS.items():
        planted = np.zeros(len(batch), dtype=bool)
        planted[rng.permutation(len(batch))[: max(LEAST, round(SHARE * len(batch)))]] = True
        changed = [plant(title) if bad else title for title, bad in zip(batch, planted.tolist(), strict=True)]
        for reference in (False, True):
            told = judge_once(scanner, changed, before if reference else [], 0.01, 0.05)
            either = told.flagged | told.review
            rates = told.flagged[planted].mean(), either[planted].mean(), told.flagged[~planted].mean()
            found[size, reference, trigger].append(rates)


if __name__ == "__main__":
    main()
