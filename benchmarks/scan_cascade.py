"""Measure a cascade: the small tagger judges every title, and the language model only those that it leaves open.

    python benchmarks/scan_cascade.py --data data --keep marks --words words.json --out docs/results/scan_cascade.json

Both scanners that ship are calibrated on the same clean titles and asked about single titles, clean ones and 35
families of triggers. A title is left open if the small scanner's score is among the highest so many of the clean ones;
all others pass unseen. How many are left open is the trade: recall against titles a second. What share has to be left
open is chosen on half of the catalogues (`CHOSEN_ON`), and recall is measured on the others. Recall counts titles above
the threshold of each scanner for 1 %. Seconds are those of the processor, one thread.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ready_catalogs
from attacker_plantings import list_singles, list_words, split_catalog
from cowbird.defenses.p_scanner.calibrated import CalibratedScanner
from cowbird.files import write_text
from ready_catalogs import KeptScanner
from tagger_families import ASKED

CHOSEN_ON, MEASURED_ON = ("lastfm", "office"), ("movielens_1m", "anime")
REFERENCE, FRESH, SINGLES = 400, 400, 6
"""Titles that calibrate, clean titles that are asked about, and planted ones of each family."""
FPR = 0.01
OPEN = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
"""Shares of the clean titles that are left open."""
LOSS = 0.01
ready_catalogs.TITLES_PER_FILE = 128  # what was read is kept soon


def draw_titles(name: str, options: argparse.Namespace, words: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Return a catalogue's titles that calibrate, clean ones that are asked about, and planted ones."""
    halves = split_catalog(name, options.data, 0)
    halves.reference, halves.batch = halves.reference[:REFERENCE], halves.batch[:FRESH]
    singles = list_singles(name, 0, halves, words, SINGLES)
    planted = [title for family in singles if ASKED[family][0] != "natural text" for title in singles[family].values()]
    return halves.reference, halves.batch, planted


class Judged:
    """What one scanner makes of a catalogue's titles."""

    def __init__(self, scanner: KeptScanner, titles: tuple[list[str], list[str], list[str]]) -> None:
        reference, fresh, planted = titles
        known = CalibratedScanner.calibrate(scanner, reference, FPR)
        self.bar = known.inventory.set_threshold(FPR, 1)
        self.known = np.sort(known.inventory.scores[1])[::-1]
        self.clean: NDArray[np.floating] = known.judge_apart(fresh).score
        self.planted: NDArray[np.floating] = known.judge_apart(planted).score


def measure_cascade(small: Judged, large: Judged, left_open: float) -> dict[str, float]:
    """Return recall and false positives if so many of the clean titles are left open by the small scanner."""
    low = -np.inf if left_open >= 1 else float(small.known[max(0, round(left_open * len(small.known)) - 1)])
    clean, planted = small.clean >= low, small.planted >= low
    return {
        "clean_left_open": float(clean.mean()),
        "planted_left_open": float(planted.mean()),
        "recall": float((planted & (large.planted > large.bar)).mean()),
        "false_positives": float((clean & (large.clean > large.bar)).mean()),
    }


def time_reading(scanner: KeptScanner, titles: Sequence[str]) -> float:
    """Return how many titles a second of processor time the scanner reads and judges, each alone."""
    known = CalibratedScanner.calibrate(scanner, titles[: len(titles) // 2])
    fresh = titles[len(titles) // 2 :]
    began = time.process_time()
    scanner.open_tagger().read(fresh)
    read = time.process_time() - began
    began = time.process_time()
    known.judge_apart(fresh)
    return len(fresh) / (read + time.process_time() - began)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--words", type=Path, help="what `small_tagger.py words` wrote")
    parser.add_argument("--timed", type=int, default=64, help="titles that the language model is timed with")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    words, rows = list_words(options.words), list[dict[str, Any]]()
    small = KeptScanner(options.keep / "small", "cpu", "small")
    large = KeptScanner(options.keep / "llm", "cpu", "llm")
    drawn = {name: draw_titles(name, options, words) for name in (*CHOSEN_ON, *MEASURED_ON)}
    for titles in drawn.values():
        large.read([title for part in titles for title in part])
    judged = {name: (Judged(small, titles), Judged(large, titles)) for name, titles in drawn.items()}
    speed = {"small": 0.0, "llm": 0.0}
    for name, scanner, many in (("small", small, 400), ("llm", large, options.timed)):
        speed[name] = time_reading(scanner, [*drawn["office"][0], *drawn["office"][1]][: max(2 * many, 100)])
    for name, (first, second) in judged.items():
        alone = float((second.planted > second.bar).mean())
        rows += [
            {
                "catalog": name,
                "chosen_on": name in CHOSEN_ON,
                "left_open": share,
                "recall_of_llm": alone,
                "recall_of_small": float((first.planted > first.bar).mean()),
            }
            | {key: round(value, 4) for key, value in measure_cascade(first, second, share).items()}
            for share in OPEN
        ]
    losses = {
        share: float(
            np.mean(
                [row["recall_of_llm"] - row["recall"] for row in rows if row["chosen_on"] and row["left_open"] == share]
            )
        )
        for share in OPEN
    }
    chosen = next(share for share in OPEN if losses[share] <= LOSS)
    for row in rows:
        row["titles_per_s_and_core"] = round(1 / (1 / speed["small"] + row["clean_left_open"] / speed["llm"]), 1)
        row["chosen"] = row["left_open"] == chosen
    head = {"command": f"python benchmarks/scan_cascade.py {shlex.join(sys.argv[1:])}", "speed_of_each": speed}
    body = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    write_text(options.out, f'{json.dumps(head, indent=1)[:-2]},\n "rows": [\n{body}\n ]\n}}\n')


if __name__ == "__main__":
    main()
