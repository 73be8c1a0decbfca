"""One cell of an experiment: one victim and one seed, clean and attacked, through every scenario.

Each fit is kept in the cell's folder as it ends, and saves checkpoints while it runs, so a killed cell goes on where it
stood. An attack that does not fit the data is an error in the cell's list; the others go on.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cowbird.attacks.base import AttackError, Poisoned
from cowbird.data.split import Parts
from cowbird.data.types import Dataset, TrainingData
from cowbird.errors import UserError
from cowbird.experiments import evidence
from cowbird.experiments.evidence import Evidence
from cowbird.experiments.models import Deployment, Progress, Shelf, Training
from cowbird.experiments.scenarios import Scenario
from cowbird.experiments.spec import AttackPart, DefensePart, Spec, VictimPart
from cowbird.files import sha256, write_text
from cowbird.metrics.exposure import seen_mask
from cowbird.rng import derive, stream
from cowbird.victims.base import FittedRecommender, Recommender

EVIDENCE = "evidence.safetensors"
K_MAX = 50
"""Exposure ranks are exact up to here, or up to the largest cut-off of the spec."""


class Planted(BaseModel):
    """What one attack planted in one cell."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    sha256: str
    """Hash of the plan, whose file is `plans/ATTACK.json`."""
    rows: int
    """Poisoned rows."""
    budget: int
    """How many rows the attack was allowed."""
    share_of_labels: float
    """Poisoned rows over all labels of the training data."""
    targets: tuple[str, ...]
    """Ids of the target items."""
    target_titles: tuple[str, ...]
    """Their titles, as the source writes them (untrusted text)."""


@dataclass(frozen=True)
class Cell:
    """One victim and one seed of a spec, and where its files go."""

    spec: Spec
    victim: VictimPart
    seed: int
    folder: Path

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"{self.victim.title()}, seed {self.seed}"

    @property
    def done(self) -> bool:
        """Whether its evidence is whole."""
        return (self.folder / "cell.json").exists()


def cells(spec: Spec, out: Path) -> list[Cell]:
    """List the cells of a spec. Folder names are for people; facts are read from the files inside."""
    return [
        Cell(spec, victim, seed, out / "cells" / f"{victim.title()}-{seed}")
        for victim in spec.victims
        for seed in spec.seeds
    ]


class Runner(ABC):
    """What cells of every kind of victim share: attacks, their plans, and the record of the cell."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.errors: list[str] = []
        self.plans: dict[str, Planted] = {}

    @abstractmethod
    def run(self) -> None:
        """Measure every attack in every scenario, and write evidence and record."""

    def poison(self, attack: AttackPart, training: TrainingData) -> Poisoned | None:
        """Return the poisoned data; an attack that does not fit the data is an error on record."""
        try:
            poisoned = attack.options.poison(training, stream(self.cell.seed, "attack"))
        except (UserError, AttackError) as error:
            self.errors.append(f"{self.cell.title}, attack {attack.title()}: {error}")
            return None
        self._write_plan(attack, poisoned)
        return poisoned

    def refused(self, attack: AttackPart, scenario: Scenario, error: UserError) -> None:
        """Put a scenario that can't be measured on record; the others go on."""
        self.errors.append(f"{self.cell.title}, attack {attack.title()}, scenario {scenario.title()}: {error}")

    def finish(self, device: torch.device, seconds: dict[str, float], facts: dict[str, int]) -> None:
        """Write the cell's record; the evidence is written already."""
        record = {
            "victim": self.cell.victim.title(),
            "seed": self.cell.seed,
            "device": str(device),
            **facts,
            "plans": {name: planted.model_dump() for name, planted in self.plans.items()},
            "models": model_hashes(self.cell),
            "evidence": sha256(self.cell.folder / EVIDENCE),
            "errors": self.errors,
            "seconds": seconds,
        }
        write_text(self.cell.folder / "cell.json", json.dumps(record, indent=1))

    def _write_plan(self, attack: AttackPart, poisoned: Poisoned) -> None:
        path = self.cell.folder / "plans" / f"{attack.title()}.json"
        write_text(path, json.dumps(poisoned.plan()))
        items = poisoned.data.items
        targets: list[int] = poisoned.targets.tolist()
        self.plans[attack.title()] = Planted(
            sha256=poisoned.plan_hash(),
            rows=len(poisoned.rows),
            budget=poisoned.budget,
            share_of_labels=len(poisoned.rows) / max(1, poisoned.data.interactions.events),
            targets=tuple(items.ids[target] for target in targets),
            target_titles=tuple(items.titles[target] for target in targets),
        )


class RankingRunner(Runner):
    """A cell whose victim ranks the whole catalogue.

    Args:
        cell: The cell.
        data: The dataset.
        device: Where models live.
        progress: Told of each fit.
        warn: Told of trouble that was worked around.
    """

    def __init__(
        self, cell: Cell, data: Dataset, device: torch.device, progress: Progress, warn: Callable[[str], None]
    ) -> None:
        super().__init__(cell)
        self.device = device
        self.parts: Parts = cell.spec.split.apply(data, cell.seed)
        self.training: TrainingData = self.parts.pretrain.training()
        assert isinstance(cell.victim.options, Recommender)
        self.victim: Recommender = cell.victim.options
        self.shelf = Shelf(cell.folder / "models", device, cell.title, progress, warn)
        self.records: list[Evidence] = []
        self.honest: dict[str, Training] = {}
        self.unharmed: dict[tuple[str, str], tuple[FittedRecommender, NDArray[np.int32]]] = {}

    def run(self) -> None:
        """Measure; see `Runner.run`."""
        spec = self.cell.spec
        for attack in spec.attacks:
            poisoned = self.poison(attack, self.training)
            if poisoned is None:
                continue
            if len(poisoned.data.items) > len(self.training.items):
                self.errors.append(
                    f"{self.cell.title}, attack {attack.title()}: it lists new items, which a clean model that ranks "
                    "does not know. Write the trigger into titles that are there: listing = 'own'."
                )
                continue
            for defense in spec.defenses:
                self._scenarios(attack, poisoned, self._provider(defense, attack, poisoned.data))
        evidence.save(self.cell.folder / EVIDENCE, self.records)
        facts = {
            "warm_users": len(self.parts.pretrain.users),
            "cold_users": len(self.parts.downstream.users) if self.parts.downstream else 0,
            "users_too_short": self.parts.too_short,
        }
        self.finish(self.device, self.shelf.seconds, facts)

    def _scenarios(self, attack: AttackPart, poisoned: Poisoned, provider: Training) -> None:
        """Measure each scenario; one that this victim or this data can't do is an error, and the others go on."""
        for scenario in self.cell.spec.scenarios:
            try:
                self.records.append(self._measure(attack, poisoned, provider, scenario))
            except UserError as error:
                self.refused(attack, scenario, error)

    def _provider(
        self, defense: DefensePart, attack: AttackPart | None = None, planted: TrainingData | None = None
    ) -> Training:
        """Return a provider: attacked, or (once a defense) honest."""
        name = defense.title()
        if attack is None and name in self.honest:
            return self.honest[name]
        made = Training(
            shelf=self.shelf,
            victim=self.victim,
            parts=self.parts,
            seed=self.cell.seed,
            label="clean" if attack is None else attack.title(),
            defense_label=name,
            defense=defense.options,
            attack=None if attack is None else attack.options,
            planted=self.training if planted is None else planted,
            short_events=self.cell.spec.split.max_cold_events,
            honest=None if attack is None else self._provider(defense),
        )
        if attack is None:
            self.honest[name] = made
        return made

    def _measure(self, attack: AttackPart, poisoned: Poisoned, provider: Training, scenario: Scenario) -> Evidence:
        served = scenario.users(self.parts)
        test = served.test()
        assert provider.honest is not None
        clean, clean_rank = self._clean(scenario, provider.honest)
        attacked = self._serve(provider, scenario)
        history = test.history
        seen = seen_mask(history.user_of_event(), history.item, poisoned.targets, history.users)
        # A target that the platform does not have can't be exposed there.
        seen |= np.isin(poisoned.targets, scenario.absent(len(served.items), self._platform_seed()))
        k_max = max(K_MAX, *self.cell.spec.ks)
        group = attack.options.target_users(TrainingData.clean(served.interactions, served.users, served.items))
        return Evidence(
            scenario.title(),
            attack.title(),
            provider.defense_label,
            clean_rank,
            attacked.rank_targets(test).astype(np.int32),
            clean.rank_items(history, poisoned.targets, k_max, served.users),
            attacked.rank_items(history, poisoned.targets, k_max, served.users),
            seen,
            group,
        )

    def _clean(self, scenario: Scenario, honest: Training) -> tuple[FittedRecommender, NDArray[np.int32]]:
        """Return the clean model and its ranks of the test items, made once for all attacks."""
        key = (scenario.title(), honest.defense_label)
        if key not in self.unharmed:
            model = self._serve(honest, scenario)
            self.unharmed[key] = model, model.rank_targets(scenario.users(self.parts).test()).astype(np.int32)
        return self.unharmed[key]

    def _platform_seed(self) -> int:
        return derive(self.cell.seed, "platform")

    def _serve(self, provider: Training, scenario: Scenario) -> FittedRecommender:
        """Return the model that serves: handed over, perhaps tuned, then repaired and guarded."""
        users = scenario.users(self.parts)
        name = f"{provider.name}+{scenario.title()}"
        model = scenario.serve(provider, Deployment(self.shelf, name, users, self._platform_seed()))
        return provider.defense.guard(provider.defense.repair(model, users.training()))


def model_hashes(cell: Cell) -> dict[str, str]:
    """Return the SHA-256 of every model of a cell, by folder, and by file too where a model has several."""
    folder = cell.folder / "models"
    files: dict[str, list[Path]] = {}
    for path in sorted([*folder.glob("*/model.safetensors"), *folder.glob("*/model/*.safetensors")]):
        files.setdefault(path.relative_to(folder).parts[0], []).append(path)
    return {
        name if len(paths) == 1 else f"{name}/{path.name}": sha256(path)
        for name, paths in files.items()
        for path in paths
    }
