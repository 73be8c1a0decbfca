"""Measure how many fresh clean titles the ready scanner flags where 1 % or 0.1 % was asked for.

    python benchmarks/scan_false_positives.py --data data --keep marks --out docs/results/scan_false_positives.json
    python benchmarks/scan_false_positives.py --data data --keep marks --tagger small --out …

Of each catalogue random halves are drawn, three times: the scanner is calibrated on one, and the other is judged, each
title by itself and all together; and all together without the calibration (`none`). Nothing is planted. `products` are
in ten languages, calibrated together, and `products-zh` are those in one language with a calibration of its own. Rows
with a `part` tell which share of a language's titles is flagged by the calibration of all; no threshold promises that.
`--taggers` and `--scorings` name what left out the catalogue's kind, as in `scan_attackers.py`.

Halves overlap from seed to seed, and a threshold of few titles is itself a draw. So beside each rate stands the range
that a threshold would reach in 95 % of all draws whose scores know nothing of who set it (`perfect`).
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cowbird.defenses.p_scanner.baseline import ReadyVerdicts, rank_threshold
from cowbird.defenses.p_scanner.calibrated import CalibratedScanner
from cowbird.files import write_text
from cowbird.metrics.intervals import wilson
from cowbird.rng import stream
from ready_catalogs import (
    CATALOGS,
    SEEN_BY_SMALL_TAGGER,
    SEEN_BY_TAGGER,
    KeptScanner,
    load_products,
    load_titles,
    make_kept,
    make_left_out,
)

FPRS, SEEDS = (0.01, 0.001), (0, 1, 2)
MOST = 20_000
"""Titles of a half at most, as many as a calibration takes."""
DRAWS = 2000
"""Draws of halves without any scores, for the range that chance alone explains."""
LANGUAGES = ("en", "de", "es", "ru", "el", "zh", "ja", "ko", "ar", "hi")


def simulate_perfect(half: int, fpr: float, seeds: int) -> tuple[float, float]:
    """Return within which rates 95 % of the means lie, if scores of both halves are drawn alike.

    Args:
        half: Titles of each half.
        fpr: The rate asked for.
        seeds: Halves of the same titles that are averaged.
    """
    rng, rank = stream(0, "perfect", str(half), str(fpr)), rank_threshold(half, fpr)
    rates = np.empty(DRAWS)
    for draw in range(DRAWS):
        flagged = 0
        for _ in range(seeds):
            known = rng.random(4 * rank + 60) < 0.5  # the highest scores, and which half has each
            place = int(np.flatnonzero(np.cumsum(known) == rank)[0])
            flagged += place + 1 - rank
        rates[draw] = flagged / (half * seeds)
    return float(np.quantile(rates, 0.025)), float(np.quantile(rates, 0.975))


@dataclass
class Counts:
    """Flagged titles of one catalogue or a part of it, by how they were judged and the rate asked for."""

    flagged: dict[tuple[str, float], list[int]] = field(default_factory=dict[tuple[str, float], list[int]])
    """Of each seed."""
    titles: list[int] = field(default_factory=list[int])
    """How many were judged, of each seed."""

    def add(self, found: ReadyVerdicts, way: str, rows: NDArray[np.bool_]) -> None:
        """Count verdicts at both rates: the higher one is that for review."""
        strict = found.flagged & rows
        self.flagged.setdefault((way, FPRS[1]), []).append(int(strict.sum()))
        self.flagged.setdefault((way, FPRS[0]), []).append(int((strict | found.review & rows).sum()))


def measure_catalog(
    scanner: KeptScanner, titles: Sequence[str], name: str, seeds: Sequence[int], most: int = MOST
) -> dict[str, Counts]:
    """Return counts of a catalogue, and of each of its languages if it has several."""
    parts = {code: set(load_products(code)) for code in LANGUAGES} if name == "products" else {}
    counts = {part: Counts() for part in ("", *parts)}
    half = min(most, len(titles) // 2)
    for seed in seeds:
        order: list[int] = stream(seed, "false positives", name).permutation(len(titles)).tolist()
        fresh = [titles[row] for row in order[half : 2 * half]]
        known = CalibratedScanner.calibrate(scanner, [titles[row] for row in order[:half]])
        found = {"single": known.judge_apart(fresh, FPRS[1], FPRS[0])}
        found["together"] = known.judge_titles(fresh, FPRS[1], FPRS[0])
        found["none"] = scanner.scan_itself(fresh, (FPRS[1], FPRS[0]))
        for part, count in counts.items():
            rows = np.array([not part or title in parts[part] for title in fresh])
            count.titles.append(int(rows.sum()))
            for way, verdicts in found.items():
                count.add(verdicts, way, rows)
    return counts


def list_rows(name: str, counts: Mapping[str, Counts], seen: str) -> Iterator[dict[str, Any]]:
    """Yield what is written of a catalogue."""
    for part, count in counts.items():
        for (way, fpr), flagged in count.flagged.items():
            total = sum(count.titles)
            found, rate = wilson(sum(flagged), total), sum(flagged) / total
            row = {"catalog": name, "part": part, "way": way, "fpr": fpr, "titles": count.titles[0], "flagged": flagged}
            row |= {"rate": round(rate, 5), "ratio": round(rate / fpr, 3)}
            row |= {"low": round(found.low or 0.0, 5), "high": round(found.high or 0.0, 5)}
            if not part:
                row["perfect"] = [round(end, 5) for end in simulate_perfect(count.titles[0], fpr, len(flagged))]
            yield row | {"seen_by_tagger": seen}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--tagger", default="llm", choices=("llm", "small", "cascade"))
    parser.add_argument("--taggers", type=Path, help="taggers of --tagger's kind that left kinds out")
    parser.add_argument("--scorings", type=Path, help="scorings that left kinds out, by catalogue")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-shapes", action="store_true", help="shapes that have jumped add nothing")
    parser.add_argument("--most", type=int, default=MOST, help="titles of a half at most")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument(
        "--catalogs", default=",".join((*CATALOGS, "products", *(f"products-{code}" for code in LANGUAGES)))
    )
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    told = SEEN_BY_SMALL_TAGGER if options.tagger == "small" else SEEN_BY_TAGGER
    if options.taggers is not None:
        told = dict.fromkeys(told, "neither it nor its kind")
    for name in options.catalogs.split(","):
        began = time.process_time()
        scanner = (
            make_kept(options.keep, options.device, "cascade")
            if options.tagger == "cascade"
            else make_left_out(options.keep, options.device, options.tagger, name, options.taggers, options.scorings)
        )
        scanner.scoring = replace(scanner.scoring, weighs_shapes=not options.no_shapes)
        titles = load_titles(name, options.data)
        counts = measure_catalog(scanner, titles, name, list(map(int, options.seeds.split(","))), options.most)
        made = list(list_rows(name, counts, told.get(name.partition("-")[0], "titles of the same kind")))
        rows += made
        for row in made:
            print(json.dumps(row), flush=True)
        print(f"  {name}: {time.process_time() - began:.0f} s of processor time", flush=True)
        write_rows(options.out, rows)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows, the farthest from the rate asked for first."""
    told = sorted(rows, key=lambda row: -abs(np.log(max(row["ratio"], 1e-3))))
    body = ",\n".join(f"  {json.dumps(row)}" for row in told)
    command = f"python benchmarks/scan_false_positives.py {shlex.join(sys.argv[1:])}"
    write_text(path, f'{{\n "command": {json.dumps(command)},\n "rows": [\n{body}\n ]\n}}\n')


if __name__ == "__main__":
    main()
