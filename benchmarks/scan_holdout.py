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
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cowbird.attacks.triggers import Trigger, list_families, plant
from cowbird.defenses.p_scanner.rounds.calibration import Calibration
from cowbird.defenses.p_scanner.rounds.context_gain import ContextGain
from cowbird.defenses.p_scanner.rounds.fitted_scanner import FittedScanner, ScanVerdicts
from cowbird.defenses.p_scanner.rounds.ngram_scoring import NgramClassifier, judge_together
from cowbird.defenses.p_scanner.rounds.poison_scanner import PoisonScanner
from cowbird.defenses.p_scanner.token_logits import TokenLogits, tokenize_titles
from cowbird.defenses.titles import Suspicion
from cowbird.files import write_text
from cowbird.metrics.detection import auroc, recall_at_fpr, span_iou
from cowbird.plugins import find_plugin
from cowbird.rng import stream
from cowbird.victims.base import FitContext, pick_device
from cowbird.victims.language.llm import load_llm

RATE = 0.01
"""Share of the titles that each trigger is planted in."""
HERE = "movielens_100k"
"""Catalogue that ships."""
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


def rows_of(
    found: Suspicion | ScanVerdicts, flagged: NDArray[np.bool_], now: list[str], told: dict[str, Spans]
) -> tuple[list[dict[str, object]], float]:
    """Return a row for each trigger, and the share of clean titles that is flagged."""
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
                "recall": float(flagged[bad].mean()) if bad else None,
                "span_iou": float(np.mean(overlaps)) if bad else None,
            }
        )
    return rows, float(flagged[clean].mean())


@cache
def titles_of(name: str) -> list[str]:
    """Return the titles of MovieLens-100K, or of a folder of atomic files; read once, so not to be changed."""
    source = find_plugin("dataset", HERE)() if name == HERE else find_plugin("dataset", "atomic")(path=name)
    return list(source.load().items.titles)


def across(fitted: FittedScanner, titles: list[str], kinds: list[str], seed: int, position: str) -> dict[str, object]:
    """Return what a scanner finds in a catalogue that it was not fitted to."""
    now, told = planted(titles, kinds, seed, position)
    found = fitted.judge_titles(now)
    rows, false_positives = rows_of(found, found.flagged, now, told)
    return {"titles": len(titles), "false_positives": false_positives, "triggers": rows}


def run(options: argparse.Namespace, seed: int, held: list[str]) -> dict[str, object]:
    """Fit a scanner with some families held out, and return what it finds of them."""
    known, rng = list_families(), stream(seed, "triggers", *held)
    kinds = [str(kind) for name in held for kind in rng.permutation(known[name])[: options.triggers]]
    now, told = planted(titles_of(options.path or HERE), kinds, seed, options.position)
    spec = PoisonScanner(without=tuple(held))
    llm = spec.llm.model_copy(update={"layers": options.layers or None})
    spec = spec.model_copy(update={"llm": llm, "refresh": options.refresh or spec.refresh})
    began = time.perf_counter()
    fitted = spec.fit(now, seed, FitContext(pick_device(options.device)))
    seconds = round(time.perf_counter() - began, 1)
    found = fitted.judge_titles(now)
    rows, false_positives = rows_of(found, found.flagged, now, told)
    rounds = [
        {"trusted": made.trusted, "caught_before": mean(made.before), "caught_after": mean(made.after)}
        for made in fitted.record.rounds
    ]
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        name = f"{Path(options.path or HERE).name}-{seed}-{held[0]}"
        marks = fitted._read(now)
        np.savez_compressed(options.keep / f"{name}.npz", mark=marks.mark, verdict=marks.verdict)
        kept = {"titles": now, "told": told, "weights": fitted.record.weights.model_dump(), "bar": fitted.threshold()}
        write_text(options.keep / f"{name}.json", json.dumps(kept))
    others = [path for path in (options.across or "").split(",") if path]
    return {
        "seed": seed,
        "held": held,
        "seconds": seconds,
        "rounds": rounds,
        "false_positives": false_positives,
        "triggers": rows,
        "across": {path: across(fitted, titles_of(path), kinds, seed, options.position) for path in others},
    }


def again(folder: Path) -> list[dict[str, object]]:
    """Judge titles anew by marks and weights that `--keep` kept, with thresholds of titles that were not learned from.

    What was learned stays as it was, so this says what judging alone changes.
    """
    spec = PoisonScanner()
    device = pick_device("auto")
    whole = load_llm(spec.llm.model_copy(update={"layers": None}), device, spec.tuning.pick_dtype(device))
    tokenizer = whole.tokenizer
    runs: list[dict[str, object]] = []
    for path in sorted(folder.glob("*.json")):
        kept, arrays = json.loads(path.read_text(encoding="utf-8")), np.load(path.with_suffix(".npz"))
        titles: list[str] = kept["titles"]
        told = {
            kind: {int(row): tuple(map(tuple, at)) for row, at in rows.items()} for kind, rows in kept["told"].items()
        }
        marks = TokenLogits(tokenize_titles(tokenizer, titles), arrays["mark"], arrays["verdict"])
        weights = NgramClassifier.model_validate(kept["weights"])
        found, shared, _ = judge_together(titles, marks, weights, context_gain=ContextGain((), lambda: whole, device))
        catalogue, seed, held = path.stem.rsplit("-", 2)
        first = {title: row for row, title in reversed(list(enumerate(titles))) if title.strip()}
        known = np.sort(np.array(list(first.values())))
        chosen = known[stream(int(seed), "held").random(len(known)) < spec.held]
        bar = Calibration.of(found.score[chosen], shared[chosen]).threshold(spec.fpr)
        rows, false_positives = rows_of(found, found.score > bar, titles, told)
        about = {"catalogue": catalogue, "seed": int(seed), "held_first": held}
        runs.append(about | {"false_positives": false_positives, "triggers": rows})
    return runs


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held", help="families held out together; otherwise all, in groups")
    parser.add_argument("--groups", type=int, default=6, help="groups that the families are divided into")
    parser.add_argument("--triggers", type=int, default=1, help="triggers of each family, drawn")
    parser.add_argument("--position", default="end")
    parser.add_argument("--path", help="a folder of RecBole's atomic files instead of MovieLens-100K")
    parser.add_argument("--across", help="other folders of atomic files to judge, or `movielens_100k`; with commas")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--refresh", type=int, help="epochs of later rounds; the scanner's own if not said")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--processes", type=int, default=1, help="fits beside each other, on a GPU")
    parser.add_argument("--keep", type=Path, help="folder for the marks of each fit, to judge by them anew")
    parser.add_argument("--kept", type=Path, help="such a folder: judge by its marks, and fit nothing")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    command = f"python benchmarks/scan_holdout.py {shlex.join(sys.argv[1:])}"
    if options.kept:
        write_text(options.out, json.dumps({"command": command, "runs": again(options.kept)}) + "\n")
        return
    known, titles = list_families(), len(titles_of(options.path or HERE))
    groups = (
        [options.held.split(",")] if options.held else [list(known)[n :: options.groups] for n in range(options.groups)]
    )
    asked = [(seed, held) for seed in map(int, options.seeds.split(",")) for held in groups]
    runs: list[dict[str, object]] = []
    with ExitStack() as stack:
        if options.processes > 1:
            pool = stack.enter_context(ProcessPoolExecutor(options.processes, get_context("spawn")))
            found = pool.map(run, repeat(options), *zip(*asked, strict=True))
        else:
            found = (run(options, *each) for each in asked)
        for made in found:
            runs.append(made)
            print(json.dumps(made), flush=True)
            if options.out:
                told_all = {
                    "command": command,
                    "device": str(pick_device(options.device)),
                    "titles": titles,
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
