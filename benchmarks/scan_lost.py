"""Ask which clean titles the ready scanner flags beside the attacks of `ready_scanner.toml`, without a victim.

    python benchmarks/scan_lost.py --tagger llm --seeds 0,1 --out docs/results/scan_lost_ml100k.json

Each attack is planted as the experiment plants it. The catalogue is judged by itself, and beside its titles of before.
"""

import argparse
import ast
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np

from cowbird.defenses.p_scanner.catalog_judge import judge_once
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.experiments.spec import load_spec
from cowbird.experiments.spec_labels import find_shipped_spec
from cowbird.experiments.tasks import find_task
from cowbird.rng import stream


def main() -> None:
    """Ask, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tagger", default="llm", choices=("small", "llm", "cascade"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--joined", type=Path, help="rows that an interrupted run printed, in place of asking")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if asked.joined is not None:
        rows = [ast.literal_eval(line) for line in asked.joined.read_text(encoding="utf-8").splitlines()]
    else:
        scanner = ReadyScanner.load(asked.device, asked.tagger)
        for seed in map(int, asked.seeds.split(",")):
            rows += ask_seed(scanner, seed)
    told = {"command": shlex.join(["python", *sys.argv]), "tagger": asked.tagger, "rows": rows}
    asked.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def ask_seed(scanner: ReadyScanner, seed: int) -> list[dict[str, Any]]:
    """Return what is flagged of the titles with each trigger, and of the others."""
    spec = load_spec(find_shipped_spec("ready_scanner"))
    split: Any = spec.get_split(find_task(spec.victims[0].options))
    training = split.apply(spec.dataset.options.load(), seed).training
    before = list(training.items.titles)
    rows: list[dict[str, Any]] = []
    for attack in spec.attacks:
        poisoned = attack.options.poison(training, stream(seed, "attack"))
        titles = list(poisoned.data.items.titles)
        planted = np.zeros(len(titles), dtype=bool)
        planted[poisoned.retitled] = True
        for calibrated in (False, True):
            flagged = judge_once(scanner, titles, before if calibrated else [], 0.01, 0.05).flagged
            row = {
                "seed": seed,
                "attack": attack.title(),
                "calibrated": calibrated,
                "found": int(flagged[planted].sum()),
            }
            row |= {"planted": int(planted.sum()), "clean_flagged": int(flagged[~planted].sum())}
            rows.append(row | {"clean": int((~planted).sum())})
            print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()
