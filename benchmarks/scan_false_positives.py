"""Measure how many fresh clean titles the ready scanner flags where 1 % or 0.1 % was asked for.

    python benchmarks/scan_false_positives.py --data data --keep marks --out docs/results/scan_false_positives.json

Of each catalogue random halves are drawn, three times: the scanner is calibrated on one, and the other is judged, each
title by itself and all together. Nothing is planted. An interval is Wilson's at 95 %, of all titles of the seeds;
halves overlap from seed to seed, so it is somewhat too narrow.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np

from cowbird.defenses.p_scanner.calibrated import CalibratedScanner
from cowbird.files import write_text
from cowbird.metrics.intervals import wilson
from cowbird.rng import stream
from ready_catalogs import CATALOGS, SEEN_BY_TAGGER, KeptScanner, load_titles

FPRS, SEEDS = (0.01, 0.001), (0, 1, 2)
MOST = 20_000
"""Titles of a half at most, as many as a calibration takes."""


def load_catalog(name: str, data: Path) -> list[str]:
    """Return the different titles of a catalogue; `products` are made here."""
    if name != "products":
        return load_titles(name, data)
    from product_titles import write_products

    return list(dict.fromkeys(title for made in write_products(4000, 11).values() for title in made))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--catalogs", default=",".join((*CATALOGS, "products")))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    scanner, rows = KeptScanner(options.keep), list[dict[str, Any]]()
    for name in options.catalogs.split(","):
        titles = load_catalog(name, options.data)
        counts: dict[tuple[str, float], list[int]] = {}
        for seed in SEEDS:
            order: list[int] = stream(seed, "false positives", name).permutation(len(titles)).tolist()
            half = min(MOST, len(titles) // 2)
            fresh = [titles[row] for row in order[half : 2 * half]]
            known = CalibratedScanner.calibrate(scanner, [titles[row] for row in order[:half]])
            for fpr in FPRS:
                counts.setdefault(("single", fpr), []).append(int(known.judge_apart(fresh, fpr, fpr).flagged.sum()))
                counts.setdefault(("together", fpr), []).append(int(known.judge_titles(fresh, fpr, fpr).flagged.sum()))
        for (way, fpr), flagged in counts.items():
            found = wilson(sum(flagged), half * len(SEEDS))
            rate = float(np.sum(flagged)) / (half * len(SEEDS))
            row = {"catalog": name, "way": way, "fpr": fpr, "titles": half, "flagged": flagged}
            row |= {
                "rate": round(rate, 5),
                "ratio": round(rate / fpr, 3),
                "low": round(found.low or 0.0, 5),
                "high": round(found.high or 0.0, 5),
            }
            rows.append(row | {"seen_by_tagger": SEEN_BY_TAGGER.get(name, "titles of the same kind")})
            print(json.dumps(rows[-1]), flush=True)
    rows.sort(key=lambda row: -abs(np.log(max(row["ratio"], 1e-3))))
    body = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    command = f"python benchmarks/scan_false_positives.py {shlex.join(sys.argv[1:])}"
    write_text(options.out, f'{{\n "command": {json.dumps(command)},\n "rows": [\n{body}\n ]\n}}\n')


if __name__ == "__main__":
    main()
