"""Compares ways to score items of a ranker: by counts among the first ten, by mean ranks, and by both.

The inspector's score was chosen so, on a zoo that no page reports as held out. What models and null models answer is
kept first, one file each; several processes share a folder, each with its part.

    python benchmarks/ranker_statistics.py ask RECIPE.toml --out runs/answers --device cuda --part 1/2
    python benchmarks/ranker_statistics.py compare runs/answers --out docs/results/ranker_statistics.json
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cowbird.inspection.inspection import InspectionSettings, make_probes
from cowbird.inspection.null_models import NullSettings
from cowbird.inspection.own_model import OwnModel
from cowbird.inspection.platform_log import align_log
from cowbird.inspection.probes import PROBES, draw_own_histories, rank_first
from cowbird.inspection.statistics import COUNT_WEIGHT, USUAL_DEVIATION, standardize_counts, standardize_ranks
from cowbird.inspection.zoo.folder import name_model, order_fairly
from cowbird.inspection.zoo.planting import make_model, split_users
from cowbird.inspection.zoo.recipe import read_recipe
from cowbird.inspection.zoo.run import ASKED_HISTORIES, measure_exposure
from cowbird.inspection.zoo.scoring import WORKING_EXPOSURE
from cowbird.metrics.auc import auc
from cowbird.rng import derive_seed
from cowbird.victims.base import FitContext

NULLS = 5
"""Null models of each platform and recommender."""
Answers = dict[str, np.ndarray[Any, Any]]
"""Of each kind of histories: counts and mean logarithms of ranks, shape `[2, items]`."""


def ask(recipe_path: Path, out: Path, device: torch.device, part: tuple[int, int]) -> None:
    """Train this part's models and null models, and keep what they answer."""
    recipe = read_recipe(recipe_path)
    data, victims = recipe.load_data(), recipe.make_victims()
    out.mkdir(parents=True, exist_ok=True)
    settings = InspectionSettings()
    for platform in range(recipe.platforms):
        split = split_users(data, recipe, platform)
        log = align_log(split.to_dataset(data), len(data.items), None)
        probes, users = make_probes(log, len(data.items), settings), log.select_learnable()
        jobs: list[tuple[str, Any]] = [(f"{v}-{n}", (v, n)) for v in range(len(victims)) for n in range(NULLS)]
        jobs += [(name_model(m), m) for m in order_fairly(recipe.list_models()) if m.platform == platform]
        for name, job in jobs[part[0] - 1 :: part[1]]:
            path = out / f"{platform}-{name}.npz"
            if path.exists():
                continue
            label: dict[str, Any] = {"platform": platform, "null": isinstance(job, tuple), "targets": []}
            if isinstance(job, tuple):
                spec = NullSettings().shape_recommender(victims[job[0]], len(users.users))
                seed = derive_seed(settings.seed, "null", job[1]) % 2**31
                fitted = spec.fit(users.training(), users.validation(), seed, FitContext(device))
                label["victim"] = job[0]
            else:
                made, attack, poisoned = make_model(
                    recipe, victims[job.victim], job, split.provider, FitContext(device)
                )
                fitted = made.without_prompts()
                label["victim"] = job.victim
                if attack is not None and poisoned is not None:
                    probe = draw_own_histories(split.platform.interactions, ASKED_HISTORIES, platform)
                    first = rank_first(OwnModel(fitted), probe.histories)
                    label["targets"] = poisoned.targets.tolist()
                    label["exposure"] = measure_exposure(attack, poisoned.targets, split, probe, first)
            answers = {probe.name: probe.measure(OwnModel(fitted)) for probe in probes}
            np.savez_compressed(path, label=np.frombuffer(json.dumps(label).encode(), dtype=np.uint8), **answers)
            print(path.name, flush=True)


def read_answers(folder: Path) -> list[tuple[dict[str, Any], Answers]]:
    """Read what `ask` kept."""
    found: list[tuple[dict[str, Any], Answers]] = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as kept:
            label = json.loads(bytes(kept["label"]))
            found.append((label, {name: kept[name].astype(np.float64) for name in PROBES}))
    return found


def score(mine: Answers, nulls: Sequence[Answers], counts: float, ranks: float) -> np.ndarray[Any, Any]:
    """Return the score of each item: counts and ranks, each with a weight, over all kinds of histories."""
    total = np.zeros(next(iter(mine.values())).shape[1])
    for name, one in mine.items():
        known = np.array([null[name] for null in nulls])
        total += counts * standardize_counts(one[0], known[:, 0].mean(axis=0))
        total += ranks * standardize_ranks(one[1], known[:, 1])
    return total


def measure(
    answers: Sequence[tuple[dict[str, Any], Answers]],
    scored: Callable[[Answers, Sequence[Answers]], np.ndarray[Any, Any]],
    pooled: bool,
) -> dict[str, Any]:
    """Return how well a score tells planted models from clean ones."""
    nulls: dict[tuple[int, int], list[Answers]] = {}
    for label, one in answers:
        if label["null"]:
            nulls.setdefault((label["platform"], label["victim"]), []).append(one)
    known = {
        key: [scored(one, [*group[:at], *group[at + 1 :]]).max() for at, one in enumerate(group)]
        for key, group in ((key, group[:NULLS]) for key, group in nulls.items() if len(group) >= NULLS - 1)
    }
    usual = float(np.sqrt(np.mean([np.var(values, ddof=1) for values in known.values()])))
    clean: list[float] = []
    planted: list[tuple[float, float, float]] = []
    for label, one in answers:
        key = (label["platform"], label["victim"])
        if label["null"] or key not in known:
            continue
        total, values = scored(one, nulls[key][:NULLS]), known[key]
        deviation = np.sqrt((4 * np.var(values, ddof=1) + 8 * usual**2) / 12) if pooled else np.std(values, ddof=1)
        pivot = float((total.max() - np.mean(values)) / max(float(deviation), 1e-9))
        targets = label["targets"]
        if not targets:
            clean.append(pivot)
            continue
        first = np.argsort(-total, kind="stable")[: 2 * len(targets)]
        planted.append((pivot, label["exposure"] or 0.0, len(set(first.tolist()) & set(targets)) / len(targets)))
    found: dict[str, Any] = {"usual_deviation": usual, "clean": len(clean)}
    for name, members in (
        ("all", planted),
        ("working", [row for row in planted if row[1] >= WORKING_EXPOSURE]),
    ):
        told = auc(np.array([row[0] for row in members] + clean), np.arange(len(members) + len(clean)) < len(members))
        found[name] = {
            "models": len(members),
            "auroc": told.value,
            "low": told.low,
            "high": told.high,
            "targets_found": float(np.mean([row[2] for row in members])),
        }
    return found


def main() -> None:
    """Ask, or compare."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("step", choices=("ask", "compare"))
    asked.add_argument("source", type=Path, help="A recipe, or a folder of answers.")
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--device", default="cpu")
    asked.add_argument("--part", default="1/1")
    given = asked.parse_args()
    if given.step == "ask":
        first, _, last = given.part.partition("/")
        ask(given.source, given.out, torch.device(given.device), (int(first), int(last)))
        return
    answers = read_answers(given.source)
    ways = {
        "counts": (1.0, 0.0),
        "ranks": (0.0, 1.0),
        "ranks and half the counts": (COUNT_WEIGHT, 1.0),
        "ranks and counts": (1.0, 1.0),
    }
    result: dict[str, Any] = {"nulls": NULLS, "assumed_usual_deviation": USUAL_DEVIATION}
    for name, (counts, ranks) in ways.items():
        for pooled in (False, True):
            told = measure(answers, lambda one, rest, c=counts, r=ranks: score(one, rest, c, r), pooled)
            result[f"{name}, {'pooled' if pooled else 'own'} width"] = told
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
