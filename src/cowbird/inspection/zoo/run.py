"""Makes a zoo in a folder, and has its models inspected. Both go on where they were interrupted.

models/m000.safetensors      a model; its name tells nothing
answers/m000.json            sealed: what was planted in it, and how well that works
answers/m000.safetensors     how often it shows each item to the platform's users
inspections/m000.json        what the inspection says, made without the answers
zoo.json                     sealed: the recipe
scores.json                  sealed: the inspections held against the answers
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cowbird.attacks.base import Attack, PoisonedData
from cowbird.data.types import TrainingData
from cowbird.errors import UserError
from cowbird.inspection.inspection import InspectionSettings, inspect_ranker
from cowbird.inspection.opening import open_model
from cowbird.inspection.own_model import OwnModel
from cowbird.inspection.platform_log import align_log
from cowbird.inspection.probes import HistoryProbe, count_items, draw_own_histories, rank_first
from cowbird.inspection.zoo.planting import PlatformSplit, make_model, split_users
from cowbird.inspection.zoo.recipe import ZooModel, ZooRecipe
from cowbird.metrics.ranking import ndcg
from cowbird.storage import read_sealed_json, write_sealed_json, write_tensors
from cowbird.victims.base import FitContext

ASKED_HISTORIES = 3000
"""Histories of the platform's users on which exposure is measured."""

ZooProgress = Callable[[str, int, int, str], None]
"""Told of what is done at the moment, models done, models in all, and a remark."""


@dataclass
class Zoo:
    """A zoo in a folder.

    Args:
        recipe: What it is made from.
        folder: Where it lies.
        device: Where models are trained and asked.
    """

    recipe: ZooRecipe
    folder: Path
    device: torch.device

    def __post_init__(self) -> None:
        content = self.recipe.model_dump(mode="json")
        path = self.folder / "zoo.json"
        if path.exists() and read_sealed_json(path, "Choose another folder.") != content:
            raise UserError(f"'{self.folder}' holds a zoo of another recipe.", "Choose another folder.")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_sealed_json(path, content)
        self.data = self.recipe.load_data()
        self.victims = self.recipe.make_victims()
        self._splits: dict[int, PlatformSplit] = {}

    def split(self, platform: int) -> PlatformSplit:
        """Return the provider's and the platform's users of one split."""
        if platform not in self._splits:
            self._splits[platform] = split_users(self.data, self.recipe, platform)
        return self._splits[platform]

    def make(self, report: ZooProgress) -> None:
        """Train the models that are not there."""
        models = self.recipe.list_models()
        for done, model in enumerate(models):
            report("models", done, len(models), "")
            if not self._name_answer(model).exists():
                self._make_one(model)
        report("models", len(models), len(models), "")

    def _make_one(self, model: ZooModel) -> None:
        split = self.split(model.platform)
        victim = self.victims[model.victim]
        fitted, attack, poisoned = make_model(self.recipe, victim, model, split.provider, FitContext(self.device))
        fitted.save(self.folder / "models" / f"{name_model(model)}.safetensors")
        bare = fitted.without_prompts()
        probe = draw_own_histories(split.platform.interactions, ASKED_HISTORIES, model.platform)
        first = rank_first(OwnModel(bare), probe.histories)
        answer = self._name_answer(model)
        shown = torch.from_numpy(count_items(first, fitted.items))
        write_tensors(answer.with_suffix(".safetensors"), {"shown": shown})
        accuracy = float(np.mean(ndcg(bare.rank_targets(split.platform.test()), 10)))
        write_sealed_json(answer, _describe_answer(self.recipe, model, attack, poisoned, split, probe, first, accuracy))

    def inspect(self, settings: InspectionSettings, report: ZooProgress) -> None:
        """Inspect the models that have not been; the answers are not read."""
        models = self.recipe.list_models()
        for done, model in enumerate(models):
            report("inspections", done, len(models), "")
            path = self.folder / "inspections" / f"{name_model(model)}.json"
            if path.exists():
                continue
            opened = open_model(self.folder / "models" / f"{name_model(model)}.safetensors", self.device)
            log = align_log(self.split(model.platform).to_dataset(self.data), opened.model.items, None)
            inspect_ranker(
                opened, log, settings, self.device,
                lambda what, step, steps, remark, n=done: report(what, n, len(models), f"{step}/{steps} {remark}"),
            ).write(path)  # fmt: skip
        report("inspections", len(models), len(models), "")

    def _name_answer(self, model: ZooModel) -> Path:
        return self.folder / "answers" / f"{name_model(model)}.json"


def name_model(model: ZooModel) -> str:
    """Return the name of a model's files."""
    return f"m{model.number:03d}"


def measure_exposure(
    attack: Attack,
    targets: np.ndarray[Any, Any],
    split: PlatformSplit,
    probe: HistoryProbe,
    first: np.ndarray[Any, Any],
) -> float:
    """Return how often a target is among the first ten of a user who is aimed at, over pairs of both."""
    platform = split.platform
    members = attack.find_target_users(
        TrainingData.from_interactions(platform.interactions, platform.users, platform.items)
    )
    assert probe.users is not None
    aimed = members[probe.users]
    if not aimed.any():
        return 0.0
    return float(np.isin(first[aimed], targets).sum() / (aimed.sum() * len(targets)))


def _describe_answer(
    recipe: ZooRecipe,
    model: ZooModel,
    attack: Attack | None,
    poisoned: PoisonedData | None,
    split: PlatformSplit,
    probe: HistoryProbe,
    first: np.ndarray[Any, Any],
    accuracy: float,
) -> dict[str, Any]:
    """Return what is known of a model, as plain JSON values."""
    answer: dict[str, Any] = {
        "victim": recipe.victims[model.victim].name,
        "platform": model.platform,
        "kind": "clean",
        "held_out": False,
        "targets": [],
        "exposure": None,
        "ndcg@10": accuracy,
    }
    if model.plant is None or attack is None or poisoned is None:
        return answer
    plant = recipe.plants[model.plant]
    exposure = measure_exposure(attack, poisoned.targets, split, probe, first)
    return answer | {
        "kind": plant.name(),
        "held_out": plant.held_out,
        "attack": {"name": plant.attack, **attack.model_dump(mode="json")},
        "targets": poisoned.targets.tolist(),
        "budget": poisoned.budget,
        "exposure": exposure,
    }
