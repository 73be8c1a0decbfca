"""A statistic that was tried and does not ship: items that lift each other, as the targets of fake users do.

Every fake user holds all targets, so a model learns that one follows another. After a history of item a alone, how much
higher does b stand than in null models, and a after b? Items that are related anyway (by the null models, or in the
platform's log) are left out, and the strongest group among popular items is looked for greedily.

    python benchmarks/ranker_pairs.py make benchmarks/zoo/rankers_ml100k_third.toml --out runs/pairs --device cuda
    python benchmarks/ranker_pairs.py measure benchmarks/zoo/rankers_ml100k_third.toml --out runs/pairs --save FILE.json

`make` fits the zoo's SASRec and NextItNet again, and null models; `--part I/N` shares the work.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from cowbird.inspection.null_models import NullSettings
from cowbird.inspection.own_model import OwnModel, open_own_model
from cowbird.inspection.platform_log import PlatformLog, align_log
from cowbird.inspection.probes import draw_own_histories, rank_first
from cowbird.inspection.zoo.folder import name_model, order_fairly
from cowbird.inspection.zoo.planting import make_model, split_users
from cowbird.inspection.zoo.recipe import ZooRecipe, read_recipe
from cowbird.inspection.zoo.run import ASKED_HISTORIES, measure_exposure
from cowbird.inspection.zoo.scoring import WORKING_EXPOSURE
from cowbird.metrics.auc import auc
from cowbird.rng import derive_seed
from cowbird.storage import write_tensors
from cowbird.victims.base import FitContext

VICTIMS, NULLS = ("sasrec", "nextitnet"), 5
POPULAR = 0.4
"""Share of the items that are looked at, the most popular ones of the platform."""
RELATED = 0.3
"""Deviations from which a pair counts as related anyway."""
GROUP, STARTS = 16, 200
"""Items of a group at most, and groups that are begun."""


def make(recipe: ZooRecipe, out: Path, device: torch.device, part: tuple[int, int]) -> None:
    """Fit this part's models and keep their weights, with what is planted in the header."""
    data, victims, logs = recipe.load_data(), recipe.make_victims(), open_logs(recipe)
    chosen = [at for at, victim in enumerate(recipe.victims) if victim.name in VICTIMS]
    jobs: list[Any] = [(p, v, n) for p in range(recipe.platforms) for v in chosen for n in range(NULLS)]
    jobs += [model for model in order_fairly(recipe.list_models()) if model.victim in chosen]
    for job in jobs[part[0] - 1 :: part[1]]:
        label: dict[str, Any] = {"targets": [], "kind": "null"}
        if isinstance(job, tuple):
            label |= {"platform": job[0], "victim": job[1]}
            users = logs[job[0]].select_learnable()
            spec = NullSettings().shape_recommender(victims[job[1]], len(users.users))
            seed = derive_seed(0, "null", job[2]) % 2**31
            fitted = spec.fit(users.training(), users.validation(), seed, FitContext(device))
            name = f"null-{job[0]}-{job[1]}-{job[2]}"
        else:
            split = split_users(data, recipe, job.platform)
            made, attack, poisoned = make_model(recipe, victims[job.victim], job, split.provider, FitContext(device))
            fitted, name = made.without_prompts(), name_model(job)
            label |= {"platform": job.platform, "victim": job.victim, "kind": "clean"}
            if attack is not None and poisoned is not None:
                probe = draw_own_histories(split.platform.interactions, ASKED_HISTORIES, job.platform)
                first = rank_first(OwnModel(fitted), probe.histories)
                label |= {"kind": recipe.plants[job.plant].name(), "targets": poisoned.targets.tolist()}
                label["exposure"] = measure_exposure(attack, poisoned.targets, split, probe, first)
        header = {"cowbird": json.dumps(fitted.describe_record()), "label": json.dumps(label)}
        write_tensors(out / f"{name}.safetensors", fitted.network.state_dict(), header)
        print(name, label["kind"], flush=True)


def open_logs(recipe: ZooRecipe) -> list[PlatformLog]:
    """Return the logs of the recipe's platforms."""
    data = recipe.load_data()
    splits = [split_users(data, recipe, platform) for platform in range(recipe.platforms)]
    return [align_log(split.to_dataset(data), len(data.items), None) for split in splits]


def rank_pairs(path: Path) -> Tensor:
    """Return the logarithm of each item's rank after a history of each item alone, shape `[before, after]`."""
    model: Any = open_own_model(path, torch.device("cpu")).model
    scores = np.array(model.score(list(np.arange(model.items, dtype=np.int32)[:, None])))
    np.fill_diagonal(scores, -np.inf)
    found = np.empty(scores.shape, dtype=np.float32)
    rank = np.log(np.arange(1, model.items + 1)).astype(np.float32)
    np.put_along_axis(found, np.argsort(-scores, axis=1), np.broadcast_to(rank, scores.shape), 1)
    return torch.from_numpy(found)


def center(pairs: Tensor) -> Tensor:
    """Take off the medians of columns and rows; the diagonal is 0."""
    pairs = pairs.clone().fill_diagonal_(0)
    pairs = pairs - pairs.median(0).values
    return (pairs - pairs.median(1).values[:, None]).fill_diagonal_(0)


def standardize(pairs: Tensor) -> Tensor:
    """Center, and divide by the robust deviations of columns and rows."""
    pairs = center(pairs)
    columns, rows = (1.4826 * pairs.abs().median(axis).values for axis in (0, 1))
    return pairs / torch.sqrt((columns * rows[:, None]).clamp_min(1e-4))


def correlate(log: PlatformLog) -> Tensor:
    """Return how items go together in the platform's log, in robust deviations, shape `[items, items]`."""
    known = log.interactions
    table = np.zeros((known.users, len(log.items)), dtype=np.float32)
    table[known.user_of_event(), known.item] = 1
    table -= table.mean(axis=0)
    together = table.T @ table / len(table)
    deviation = np.sqrt(np.diag(together) + 1e-6)
    return torch.from_numpy(together / deviation[:, None] / deviation)


def find_group(lifted: Tensor, related: Tensor, kept: Tensor) -> tuple[float, list[int]]:
    """Return the strongest group of items that lift each other, and its strength."""
    mutual = torch.minimum(lifted, lifted.T)
    value = torch.where(related, torch.full_like(mutual, -0.4), (mutual - 1).clamp(-1, 4)).fill_diagonal_(-1e6)
    start = value.topk(4, 1).values.sum(1).topk(min(STARTS, len(value))).indices
    gain, total, members = value[start].clone(), torch.zeros(len(start)), [start]
    strength = torch.full((len(start), GROUP), -1e9)
    for size in range(2, GROUP + 1):
        most, which = gain.max(1)
        total = total + most
        strength[:, size - 1] = total / (size * (size - 1) / 2) ** 0.5
        gain += value[which]
        members.append(which)
    best, at = strength.max(1)
    row = int(best.argmax())
    return float(best.max()), kept[torch.stack(members, 1)[row, : int(at[row]) + 1]].tolist()


def compare_targets(lifted: Tensor, targets: list[int], popularity: Tensor, kept: Tensor) -> float | None:
    """Return how many deviations targets lift each other beyond as many items of about their popularity.

    Args:
        lifted: How much higher an item stands after another, among the kept items.
        targets: What is planted; two or more of them are among the kept items, or nothing is returned.
        popularity: Events of each kept item.
        kept: The kept items.
    """
    planted = torch.isin(kept, torch.tensor(targets))
    if int(planted.sum()) < 2:
        return None
    order = popularity.argsort(descending=True)
    place = planted[order].nonzero()[:, 0]
    near = torch.cat([order[max(0, at - 20) : at + 20] for at in place.tolist()]).unique()
    near = near[~planted[near]]
    rng = np.random.default_rng(0)

    def average(members: Tensor) -> float:
        part = lifted[members][:, members]
        return float(part.sum() / (len(members) * (len(members) - 1)))

    drawn = [average(near[torch.from_numpy(rng.permutation(len(near))[: len(place)])]) for _ in range(300)]
    return round((average(order[place]) - float(np.mean(drawn))) / float(np.std(drawn)), 1)


def measure(recipe: ZooRecipe, folder: Path) -> dict[str, Any]:
    """Hold each model against its null models, and planted ones against clean ones."""
    logs, paths = open_logs(recipe), sorted(folder.rglob("*.safetensors"))
    labels: dict[Path, dict[str, Any]] = {}
    for path in paths:
        with safetensors.safe_open(path, framework="pt") as opened:
            labels[path] = json.loads(opened.metadata()["label"])
    rows: list[dict[str, Any]] = []
    for platform, victim in sorted({(label["platform"], label["victim"]) for label in labels.values()}):
        mine = [path for path in paths if (labels[path]["platform"], labels[path]["victim"]) == (platform, victim)]
        nulls = [rank_pairs(path) for path in mine if labels[path]["kind"] == "null"]
        mean, log = torch.stack(nulls).mean(0), logs[platform]
        counts = torch.from_numpy(np.bincount(log.interactions.item, minlength=len(mean)))
        kept = counts.topk(int(POPULAR * len(mean))).indices.sort().values
        known = standardize(-mean[kept][:, kept])
        together = center(correlate(log)[kept][:, kept])
        related = ((known + known.T) / 2 > RELATED) | (together / (1.4826 * together.abs().median()) > RELATED)
        for path in mine:
            if labels[path]["kind"] != "null":
                lifted = standardize((mean - rank_pairs(path))[kept][:, kept])
                strength, group = find_group(lifted, related, kept)
                hit = len(set(group) & set(labels[path]["targets"]))
                row = {"model": path.stem, **labels[path], "strength": strength, "of": len(group), "hit": hit}
                apart = compare_targets(lifted.clone().fill_diagonal_(0), row["targets"], counts[kept], kept)
                rows.append(row | {"deviations": apart})
    clean = [row["strength"] for row in rows if row["kind"] == "clean"]
    planted = [row for row in rows if row["kind"] != "clean"]
    working = [row for row in planted if row["exposure"] >= WORKING_EXPOSURE]
    groups = {"all": planted, "working": working}
    groups["working, bandwagon"] = [row for row in working if row["kind"] == "bandwagon"]
    found: dict[str, Any] = {"clean": len(clean), "models": rows}
    for name, members in groups.items():
        values = np.array([row["strength"] for row in members] + clean)
        told = auc(values, np.arange(len(values)) < len(members))
        found[name] = {"models": len(members), "auroc": [round(x, 3) for x in (told.value, told.low, told.high)]}
    return found


def main() -> None:
    """Make, or measure."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("step", choices=("make", "measure"))
    asked.add_argument("recipe", type=Path)
    asked.add_argument("--out", type=Path, required=True, help="The folder of models.")
    asked.add_argument("--save", type=Path, help="Where what is measured goes.")
    asked.add_argument("--device", default="cpu")
    asked.add_argument("--part", default="1/1")
    given = asked.parse_args()
    recipe = read_recipe(given.recipe)
    if given.step == "make":
        first, _, last = given.part.partition("/")
        make(recipe, given.out, torch.device(given.device), (int(first), int(last)))
        return
    found = measure(recipe, given.out)
    print({name: value for name, value in found.items() if name != "models"})
    if given.save:
        given.save.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
