"""Why natural text in 1 % of the titles is found less often beside a reference: today's scoring and older ones.

    python benchmarks/scan_natural.py --data data --keep marks --catalogs anime,lastfm --seeds 0,1,2 --out natural.json

The batches are those of `scan_attackers.py` (600 titles beside 600), and all ways of scoring are asked about each. They
differ in three parts: rare spelling and capitals (`ScoringModel.weigh_rare`), fragments whose log-odds are added beside
a reference, too (`scoring.FRAGMENT_WEIGHT_BESIDE`), and fragments that are judged by the titles that no stronger one
explains (`fragment_verdicts`). Marks, draws and networks are the same; slips and shapes add nothing.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from attacker_plantings import list_attacks, list_words, split_catalog
from attacker_scans import PlantedCatalog
from cowbird.defenses.p_scanner import fragment_verdicts
from cowbird.defenses.p_scanner.fragment_verdicts import FRAGMENT_ROUNDS
from cowbird.files import write_text
from ready_catalogs import KeptScanner
from scan_attackers import measure

WAYS = {
    "today": (True, True, FRAGMENT_ROUNDS),
    "without fragments": (True, False, FRAGMENT_ROUNDS),
    "without rare spelling": (False, True, FRAGMENT_ROUNDS),
    "without both": (False, False, FRAGMENT_ROUNDS),
    "without fragments, none explained": (True, False, 0),
    "without all": (False, False, 0),
}
"""Whether rare spelling counts, whether fragments are added, and how often they are judged again."""

Row = dict[str, Any]


def ask(name: str, seed: int, scanner: KeptScanner, options: argparse.Namespace, words: Sequence[str]) -> list[Row]:
    """Ask about one draw of one catalogue in all ways."""
    halves, rows = split_catalog(name, options.data, seed), list[Row]()
    shares = [float(share) for share in options.shares.split(",")]
    attacks = {
        key: made
        for key, made in list_attacks(name, seed, halves, words, max(shares)).items()
        if key[0] in options.attacks
    }
    texts = [title for made in attacks.values() for title in made.values()]
    catalog = PlantedCatalog(scanner, halves.reference, halves.batch, texts)
    batch = catalog.find(halves.batch)
    for way, (rare, beside, rounds) in WAYS.items():
        fragment_verdicts.FRAGMENT_ROUNDS = rounds
        scoring = replace(scanner.scoring, weighs_rare=rare, weighs_beside=beside, weighs_shapes=False)
        inventory = catalog.scans.calibrate(scoring, catalog.old)
        for (attack, trigger), planted in attacks.items():
            for share in shares:
                chosen = list(planted)[: max(3, round(share * len(batch)))]
                places, mask = batch.copy(), np.zeros(len(batch), dtype=bool)
                places[chosen], mask[chosen] = catalog.find(planted[row] for row in chosen), True
                found = catalog.scans.ask_beside(scoring, inventory, places)
                head = {"catalog": name, "seed": seed, "way": way, "attack": attack, "trigger": trigger, "share": share}
                rows.append(head | measure(found, mask))
    return rows


def summarize(rows: Sequence[Row]) -> list[Row]:
    """Return means of each way, and of paired differences between ways with 95 % intervals over seeds."""
    lines: list[Row] = []
    groups = sorted({(row["catalog"], row["attack"], row["share"]) for row in rows})
    for catalog, attack, share in groups:
        same = [row for row in rows if (row["catalog"], row["attack"], row["share"]) == (catalog, attack, share)]
        seeds = sorted({row["seed"] for row in same})
        of = {
            way: np.array(
                [np.mean([r["recall_at_1"] for r in same if r["way"] == way and r["seed"] == seed]) for seed in seeds]
            )
            for way in WAYS
        }
        head = {"catalog": catalog, "attack": attack, "share": share, "seeds": len(seeds)}
        for way in WAYS:
            own = [row for row in same if row["way"] == way]
            told = {"recall_at_1": round(float(of[way].mean()), 4)}
            told |= {key: round(float(np.mean([row[key] for row in own])), 4) for key in ("recall", "clean_flagged")}
            triggers = sorted({row["trigger"] for row in own})
            told["by_trigger"] = {
                each: round(float(np.mean([row["recall_at_1"] for row in own if row["trigger"] == each])), 3)
                for each in triggers
            }
            lines.append(head | {"way": way} | told)
        for first, second in combinations(WAYS, 2):
            change = of[first] - of[second]
            mean, interval = float(change.mean()), None
            if len(change) > 1:
                half = float(stats.t.ppf(0.975, len(change) - 1) * stats.sem(change))
                interval = [round(mean - half, 4), round(mean + half, 4)]
            lines.append(head | {"way": f"{first} less {second}", "difference": round(mean, 4), "interval": interval})
    return lines


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with titles/, ml-1m/ and lastfm/")
    parser.add_argument("--keep", type=Path, required=True, help="marks of titles that were read")
    parser.add_argument("--tagger", default="llm", choices=("llm", "small"))
    parser.add_argument("--catalogs", default="anime,lastfm")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--shares", default="0.01")
    parser.add_argument(
        "--attacks", default="natural text", help="some of `attacker_plantings.list_attacks`; with commas"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.attacks = options.attacks.split(",")
    command = f"python benchmarks/scan_natural.py {shlex.join(sys.argv[1:])}"
    words, rows = list_words(), list[Row]()
    for name in options.catalogs.split(","):
        scanner = KeptScanner(options.keep, options.device, options.tagger)
        for seed in map(int, options.seeds.split(",")):
            began = time.perf_counter()
            rows += ask(name, seed, scanner, options, words)
            print(name, seed, f"{time.perf_counter() - began:.0f} s", flush=True)
            body = ",\n".join(f"  {json.dumps(line)}" for line in summarize(rows))
            write_text(options.out, f'{{\n "command": {json.dumps(command)},\n "rows": [\n{body}\n ]\n}}\n')
    for line in summarize(rows):
        print(json.dumps(line))


if __name__ == "__main__":
    main()
