"""A zoo of rankers: how they are trained, asked, inspected, and rid of what was found.

models/m000.safetensors      a model
answers/m000.safetensors     how often it shows each item to the platform's users
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cowbird.attacks.base import Attack, PoisonedData
from cowbird.data.types import TrainingData
from cowbird.inspection.inspection import InspectionSettings, inspect_ranker
from cowbird.inspection.model import OpenedModel
from cowbird.inspection.opening import open_model
from cowbird.inspection.own_model import OwnModel
from cowbird.inspection.platform_log import PlatformLog, align_log
from cowbird.inspection.probes import HistoryProbe, count_items, draw_own_histories, rank_first
from cowbird.inspection.sanitizing import SanitizeMethod, SanitizeSettings, measure_quality, take_out_suspects
from cowbird.inspection.zoo.folder import ZooFolder, ZooProgress, ZooStep
from cowbird.inspection.zoo.planting import PlatformSplit, make_model, split_users
from cowbird.inspection.zoo.recipe import ZooModel, ZooRecipe
from cowbird.metrics.ranking import ndcg
from cowbird.storage import read_sealed_json, write_sealed_json, write_tensors
from cowbird.victims.base import FitContext

ROUNDS: dict[SanitizeMethod, int] = {"reinit": 3, "unlearn": 3, "prune": 1}
"""How often suspects are taken out at most; pruning is told none."""
ASKED_HISTORIES = 3000
"""Histories of the platform's users on which exposure is measured."""


class Zoo(ZooFolder[ZooRecipe, ZooModel]):
    """A zoo of rankers in a folder; see `ZooFolder`.

    Args:
        recipe: What it is made from.
        folder: Where it lies.
        device: Where models are trained and asked.
        settings: How they are inspected.
    """

    suffix = ".safetensors"

    def __init__(
        self, recipe: ZooRecipe, folder: Path, device: torch.device, settings: InspectionSettings | None = None
    ) -> None:
        super().__init__(recipe, folder, device)
        self.settings = (settings or InspectionSettings()).model_copy(update={"beside": recipe.beside})
        self.data = recipe.load_data()
        self.victims = recipe.make_victims()
        self._splits: dict[int, PlatformSplit] = {}

    def list_models(self) -> list[ZooModel]:
        """Return all models of the recipe."""
        return self.recipe.list_models()

    def split(self, platform: int) -> PlatformSplit:
        """Return the provider's and the platform's users of one split."""
        if platform not in self._splits:
            self._splits[platform] = split_users(self.data, self.recipe, platform)
        return self._splits[platform]

    def make_model(self, model: ZooModel, report: ZooProgress) -> None:
        """Train a model; see `ZooFolder.make_model`."""
        split = self.split(model.platform)
        victim = self.victims[model.victim]
        context = FitContext(self.device, report=lambda done, total, remark: report("training", done, total, remark))
        fitted, attack, poisoned = make_model(self.recipe, victim, model, split.provider, context)
        fitted.save(self.name_weights(model))
        bare = fitted.without_prompts()
        probe = draw_own_histories(split.platform.interactions, ASKED_HISTORIES, model.platform)
        first = rank_first(OwnModel(bare), probe.histories)
        answer = self.name_file(ZooStep.make, model)
        shown = torch.from_numpy(count_items(first, fitted.items))
        write_tensors(answer.with_suffix(".safetensors"), {"shown": shown})
        accuracy = float(np.mean(ndcg(bare.rank_targets(split.platform.test()), 10)))
        write_sealed_json(answer, _describe_answer(self.recipe, model, attack, poisoned, split, probe, first, accuracy))

    def _open(self, model: ZooModel) -> tuple[OpenedModel, PlatformLog]:
        opened = open_model(self.name_weights(model), self.device)
        return opened, align_log(self.split(model.platform).to_dataset(self.data), opened.model.items, None)

    def inspect_model(self, model: ZooModel, report: ZooProgress) -> None:
        """Inspect a model; see `ZooFolder.inspect_model`."""
        opened, log = self._open(model)
        path = self.name_file(ZooStep.inspect, model)
        inspect_ranker(opened, log, self.settings, self.device, report).write(path)

    def sanitize_model(self, model: ZooModel, report: ZooProgress) -> None:
        """Take a model's suspects out, with each method anew; see `ZooFolder.sanitize_model`."""
        found = read_sealed_json(self.name_file(ZooStep.inspect, model))
        suspects = [row["item"] for row in found["ranking"] if row["suspect"]]
        record: dict[str, Any] = {"suspects": suspects}
        methods: tuple[SanitizeMethod, ...] = ("reinit", "unlearn", "prune") if suspects else ()
        for method in methods:
            opened, log = self._open(model)
            before = measure_quality(opened.model, log, suspects)
            again, taken = take_out_suspects(
                opened,
                log,
                suspects,
                SanitizeSettings(method=method),
                self.settings,
                self.device,
                report,
                ROUNDS[method],
            )
            after = measure_quality(opened.model, log, suspects)
            # Only now, when the model is changed, is it looked what was planted.
            targets: list[int] = self.read_answer(model)["targets"]
            probe = draw_own_histories(
                self.split(model.platform).platform.interactions, ASKED_HISTORIES, model.platform
            )
            shown = count_items(rank_first(opened.model, probe.histories), opened.model.items)
            record[method] = {
                "before": asdict(before),
                "after": asdict(after),
                "taken": taken,
                "p_value": again.p_value,
                "target_exposure": float(shown[targets].mean() / len(probe.histories)) if targets else None,
            }
        write_sealed_json(self.name_file(ZooStep.sanitize, model), record)

    def remove_model(self, model: ZooModel) -> None:
        """Remove a model's weights."""
        self.name_weights(model).unlink(missing_ok=True)


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
