"""Find triggers of families that the scanner's agent was never given, in the catalogue that it is fitted to.

    python benchmarks/scan_holdout.py --held character,foreign_word --out docs/results/scan_holdout.json
    python benchmarks/scan_holdout.py --groups 23 --triggers 10 --out docs/results/scan_holdout_gpu.json

Families of triggers are held out, one or some at a time. Of each, triggers that ship with the attacks are planted in
1 % of a catalogue's titles each, all in one catalogue, which is what the scanner is fitted to and judges: nothing tells
it which titles are clean. Its agent is forbidden the families held out (what it draws has nothing but names of families
in common with the attacks in any case). Recall at a false-positive rate is at the threshold that flags so many of the
titles that nobody touched; `recall` and `false_positives` are at the scanner's own threshold.
"""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import numpy as np

from cowbird.attacks.triggers import Trigger, families, plant
from cowbird.defenses.p_scanner.fitted import FittedScanner
from cowbird.defenses.p_scanner.scanner import PoisonScanner
from cowbird.files import write_text
from cowbird.metrics.detection import auroc, recall_at_fpr, span_iou
from cowbird.plugins import find
from cowbird.rng import stream
from cowbird.victims.base import Workplace, pick_device

RATE = 0.01
"""Share of the titles that each trigger is planted in."""
Spans = dict[int, tuple[tuple[int, int], ...]]


def planted(titles: list[str], kinds: list[str], seed: int, position: str) -> tuple[list[str], dict[str, Spans]]:
    """Plant triggers, each in different titles; where a trigger is, by its name and the title."""
    rng = stream(seed, "holdout", *kinds)
    free: list[int] = rng.permutation(len(titles)).tolist()
    now, told = list(titles), dict[str, Spans]()
    for kind in kinds:
        spans: Spans = {}
        trigger = Trigger.model_validate({"kind": kind, "position": position})
        for row in list(free):
            if len(spans) == round(RATE * len(titles)):
                break
            made = plant(titles[row], trigger, rng)
            if made.spans:
                now[row], spans[row] = made.title, made.spans
        free = [row for row in free if row not in spans]
        told[kind] = spans
    return now, told


def rows_of(fitted: FittedScanner, now: list[str], told: dict[str, Spans]) -> tuple[list[dict[str, object]], float]:
    """Return a row for each trigger, and the share of clean titles that is flagged."""
    found = fitted.scan(now)
    clean = np.ones(len(now), dtype=bool)
    for spans in told.values():
        clean[list(spans)] = False
    score = np.unique(found.score, return_inverse=True)[1]
    rows: list[dict[str, object]] = []
    for kind, spans in told.items():
        bad = list(spans)
        both, truth = np.concatenate([score[clean], score[bad]]), np.arange(clean.sum() + len(bad)) >= clean.sum()
        overlaps = [span_iou([(int(found.start[row]), int(found.end[row]))], spans[row]) or 0.0 for row in bad]
        rows.append(
            {
                "trigger": kind,
                "titles": len(bad),
                "auroc": auroc(both, truth),
                "recall_at_fpr_1pct": recall_at_fpr(both, truth, 0.01),
                "recall_at_fpr_0.1pct": recall_at_fpr(both, truth, 0.001),
                "recall": float(found.flagged[bad].mean()) if bad else None,
                "span_iou": float(np.mean(overlaps)) if bad else None,
            }
        )
    return rows, float(found.flagged[clean].mean())


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held", help="families held out together; otherwise all, in groups")
    parser.add_argument("--groups", type=int, default=6, help="groups that the families are divided into")
    parser.add_argument("--triggers", type=int, default=1, help="triggers of each family, drawn")
    parser.add_argument("--position", default="end")
    parser.add_argument("--path", help="a folder of RecBole's atomic files instead of MovieLens-100K")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    source = find("dataset", "atomic")(path=options.path) if options.path else find("dataset", "movielens_100k")()
    titles, device, known = list(source.load().items.titles), pick_device(options.device), families()
    groups = (
        [options.held.split(",")] if options.held else [list(known)[n :: options.groups] for n in range(options.groups)]
    )
    runs: list[dict[str, object]] = []
    for seed in map(int, options.seeds.split(",")):
        for held in groups:
            rng = stream(seed, "triggers", *held)
            kinds = [str(kind) for name in held for kind in rng.permutation(known[name])[: options.triggers]]
            now, told = planted(titles, kinds, seed, options.position)
            spec = PoisonScanner(without=tuple(held))
            spec = spec.model_copy(update={"llm": spec.llm.model_copy(update={"layers": options.layers or None})})
            began = time.perf_counter()
            fitted = spec.fit(now, seed, Workplace(device))
            seconds = round(time.perf_counter() - began, 1)
            rows, false_positives = rows_of(fitted, now, told)
            rounds = [
                {"trusted": made.trusted, "caught_before": mean(made.before), "caught_after": mean(made.after)}
                for made in fitted.record.rounds
            ]
            runs.append(
                {
                    "seed": seed,
                    "held": held,
                    "seconds": seconds,
                    "rounds": rounds,
                    "false_positives": false_positives,
                    "triggers": rows,
                }
            )
            print(json.dumps(runs[-1]), flush=True)
            if options.out:
                told_all = {
                    "command": f"python benchmarks/scan_holdout.py {shlex.join(sys.argv[1:])}",
                    "device": str(device),
                    "titles": len(titles),
                    "rate": RATE,
                    "runs": runs,
                }
                write_text(options.out, json.dumps(told_all, indent=1) + "\n")


def mean(outcomes: tuple[object, ...]) -> float | None:
    """Return the mean rate of some outcomes."""
    rates = [float(outcome.rate) for outcome in outcomes]
    return round(float(np.mean(rates)), 4) if rates else None


if __name__ == "__main__":
    main()
