r"""Ask detectors that need the victim, and others, about the same poisoned catalogue, each at its best threshold.

    python benchmarks/victim_detectors.py ask experiments/ready_scanner.toml --profile control --seed 0 \
        --device cuda --calibration ml100k.calibrated --run runs/control --out strip-0.json
    python benchmarks/victim_detectors.py table --answers answers --out docs/results/victim_detectors.json

An attack of the spec plants, the spec's victim is tuned on what it left, without a defense, and every detector judges
that very catalogue. STRIP, RAP, BKI and CUBE ask the victim; the others read titles. `recall_at_1` is the recall where
1 % of the clean titles of the same catalogue score as high, whatever a detector's own threshold is; `recall` and
`clean_flagged` are at its own. Models are kept in `--run` under the names that `cowbird run` gives them, so those of a
run with the same spec are not tuned again.
"""

import argparse
import json
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cowbird.defenses.titles import TitleDefense
from cowbird.experiments.cell import Cell, CellRunner, list_cells
from cowbird.experiments.detection import find_truth
from cowbird.experiments.spec import load_spec
from cowbird.experiments.tasks import PlantedAttack
from cowbird.plugins import find_plugin
from cowbird.rng import stream
from cowbird.victims.fit_context import pick_device
from scan_attackers import measure, write_rows
from shipped_scans import Found

DETECTORS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "STRIP": ("strip", {}),
    "RAP": ("rap", {}),
    "BKI": ("bki", {}),
    "CUBE": ("cube", {}),
    "ONION": ("onion", {}),
    "perplexity": ("perplexity", {}),
    "perplexity in windows": ("perplexity", {"window": 5}),
    "character rules": ("character_rules", {}),
    "ready scanner": ("ready_scanner", {}),
}
"""Detectors by the name in the table: the plug-in and its fields."""
CALIBRATED = "ready scanner, calibrated"


def main() -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    asked = commands.add_parser("ask")
    asked.add_argument("spec", type=Path)
    asked.add_argument("--profile", default="")
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--device", default="auto")
    asked.add_argument("--attacks", default="", help="labels, in order; all of the spec if empty")
    asked.add_argument("--detectors", default=",".join(DETECTORS))
    asked.add_argument("--calibration", type=Path, help="of the platform's titles from before (cowbird calibrate)")
    asked.add_argument("--tagger", default="llm")
    asked.add_argument("--questions", type=int, help="asked of the victim about every text; each detector's own")
    asked.add_argument("--run", type=Path, required=True)
    asked.add_argument("--out", type=Path, required=True)
    told = commands.add_parser("table")
    told.add_argument("--answers", type=Path, required=True)
    told.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    command = f"python benchmarks/victim_detectors.py {shlex.join(sys.argv[1:])}"
    ask(options, command) if options.command == "ask" else table(options, command)


def ask(options: argparse.Namespace, command: str) -> None:
    """Ask every detector about what each attack left, and write rows as they come."""
    rows: list[dict[str, Any]] = []
    for row in ask_detectors(options):
        rows.append(row)
        write_rows(options.out, command, rows)
        print(row["attack"], row["detector"], row["recall_at_1"], f"{row['seconds']} s", flush=True)


def ask_detectors(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row for each attack and detector."""
    spec = load_spec(options.spec, (options.seed,), options.profile)
    (cell,) = list_cells(spec, options.run)
    device = pick_device(options.device)
    runner = make_runner(cell, device)
    detectors = list_detectors(options, str(device))
    chosen = options.attacks.split(",") if options.attacks else [part.title() for part in spec.attacks]
    parts = {part.title(): part for part in spec.attacks}
    for label in chosen:
        clean = runner.task.training
        poisoned = parts[label].options.poison(clean, stream(cell.seed, "attack"))
        planted = PlantedAttack(label, parts[label].options, poisoned)
        truth = find_truth(planted.options, poisoned).poisoned
        for name, detector in detectors.items():
            probe = partial(runner.task.make_probe, label, poisoned.data, detector)
            began = time.perf_counter()
            verdict = runner.inspector.judge(f"{label}+{name}", detector, poisoned.data.items.titles, probe)
            score, flagged = verdict.found.score.astype(np.float64), verdict.flagged
            yield {
                "victim": cell.victim.title(),
                "attack": label,
                "seed": cell.seed,
                "detector": name,
                "asks_victim": detector.asks_victim,
                **measure(Found(score, flagged, flagged), truth),
                "clean": int((~truth).sum()),
                "seconds": round(time.perf_counter() - began, 1),
            }


def make_runner(cell: Cell, device: torch.device) -> CellRunner:
    """Return what runs a cell, its data loaded."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    data = cell.spec.dataset.options.load()
    return CellRunner(cell, data, device, lambda *_: None, partial(print, flush=True))


def list_detectors(options: argparse.Namespace, device: str) -> dict[str, TitleDefense]:
    """Return the detectors by name; the ready scanner with a calibration comes last, if there is one."""
    found: dict[str, TitleDefense] = {}
    for name in options.detectors.split(","):
        plugin, fields = DETECTORS[name]
        kind, more = find_plugin("defense", plugin), dict[str, Any]()
        if plugin == "ready_scanner":
            more["tagger"] = options.tagger
        elif kind.asks_victim and options.questions:
            more["questions"] = options.questions
        found[name] = kind(device=device, **fields, **more)
    if options.calibration:
        found[CALIBRATED] = find_plugin("defense", "ready_scanner")(device=device, calibration=options.calibration)
    return found


def table(options: argparse.Namespace, command: str) -> None:
    """Write all rows, and means over seeds by attack and detector, worst first."""
    files = sorted(options.answers.glob("**/*.json"))
    rows = [row for path in files for row in json.loads(path.read_text())["rows"]]
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["victim"], row["attack"], row["detector"]].append(row)
    means: list[dict[str, Any]] = []
    for (victim, attack, detector), some in groups.items():
        mean = {key: round(float(np.mean([row[key] for row in some])), 4) for key in MEASURED}
        by_seed = {str(row["seed"]): row["recall_at_1"] for row in sorted(some, key=lambda row: row["seed"])}
        means.append({"victim": victim, "attack": attack, "detector": detector, **mean, "by_seed": by_seed})
        print(f"| {attack} | {detector} | " + " | ".join(f"{mean[key]:.2f}" for key in MEASURED) + f" | {by_seed} |")
    means.sort(key=lambda mean: (mean["victim"], mean["attack"], mean["recall_at_1"]))
    asked = sorted({json.loads(path.read_text())["command"] for path in files})
    write_rows(options.out, command, rows, {"asked": asked, "means": means})


MEASURED = ("recall_at_1", "auroc", "recall", "clean_flagged")
"""What is averaged over seeds."""

if __name__ == "__main__":
    main()
