"""One cell of an experiment: one victim and one seed, clean and attacked, through every scenario.

Each fit is kept in the cell's folder as it ends, and saves checkpoints while it runs, so a killed cell goes on where it
stood. An attack that does not fit the data is an error in the cell's list; the others go on.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cowbird.attacks.base import AttackError, Poisoned
from cowbird.data.split import LeaveOneOut, Parts
from cowbird.data.types import Dataset, TrainingData
from cowbird.errors import UserError
from cowbird.experiments import evidence
from cowbird.experiments.evidence import Evidence
from cowbird.experiments.scenarios import FineTune, Scenario
from cowbird.experiments.spec import AttackPart, DefensePart, Spec, VictimPart
from cowbird.files import sha256, write_text
from cowbird.metrics.exposure import seen_mask
from cowbird.rng import stream
from cowbird.victims.base import FittedRecommender, Recommender, Workplace

Progress = Callable[[str, int, int, str], None]
"""Told of progress: what is being fitted, steps done, steps in all, a remark."""
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


def run_cell(cell: Cell, data: Dataset, device: torch.device, progress: Progress, warn: Callable[[str], None]) -> None:
    """Run one cell and write its evidence; does nothing for a cell that is done."""
    if not cell.done:
        _Runner(cell, data, device, progress, warn).run()


class _Runner:
    def __init__(
        self, cell: Cell, data: Dataset, device: torch.device, progress: Progress, warn: Callable[[str], None]
    ) -> None:
        self.cell, self.device, self.progress, self.warn = cell, device, progress, warn
        self.victim: Recommender = cell.victim.options
        self.parts: Parts = cell.spec.split.apply(data, cell.seed)
        self.training: TrainingData = self.parts.pretrain.training()
        self.records: list[Evidence] = []
        self.errors: list[str] = []
        self.plans: dict[str, Planted] = {}
        self.seconds: dict[str, float] = {}
        self.unharmed: dict[tuple[str, str], tuple[FittedRecommender, NDArray[np.int32]]] = {}

    def run(self) -> None:
        spec = self.cell.spec
        for scenario in spec.scenarios:
            scenario.users(self.parts)
        for attack in spec.attacks:
            try:
                poisoned = attack.options.poison(self.training, stream(self.cell.seed, "attack"))
            except (UserError, AttackError) as error:
                self.errors.append(f"{self.cell.title}, attack {attack.title()}: {error}")
                continue
            self._write_plan(attack, poisoned)
            for defense in spec.defenses:
                for scenario in spec.scenarios:
                    self.records.append(self._measure(attack, poisoned, defense, scenario))
        evidence.save(self.cell.folder / "evidence.safetensors", self.records)
        record = {
            "victim": self.cell.victim.title(),
            "seed": self.cell.seed,
            "device": str(self.device),
            "warm_users": len(self.parts.pretrain.users),
            "cold_users": len(self.parts.downstream.users) if self.parts.downstream else 0,
            "users_too_short": self.parts.too_short,
            "plans": {name: planted.model_dump() for name, planted in self.plans.items()},
            "models": model_hashes(self.cell),
            "evidence": sha256(self.cell.folder / "evidence.safetensors"),
            "errors": self.errors,
            "seconds": self.seconds,
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

    def _measure(self, attack: AttackPart, poisoned: Poisoned, defense: DefensePart, scenario: Scenario) -> Evidence:
        served = scenario.users(self.parts)
        test = served.test()
        clean, clean_rank = self._clean(scenario, defense)
        attacked = self._model(attack.title(), poisoned.data, scenario, defense)
        history = test.history
        seen = seen_mask(history.user_of_event(), history.item, poisoned.targets, history.users)
        k_max = max(K_MAX, *self.cell.spec.ks)
        group = attack.options.target_users(TrainingData.clean(served.interactions, served.users, served.items))
        return Evidence(
            scenario.title(),
            attack.title(),
            defense.title(),
            clean_rank,
            attacked.rank_targets(test).astype(np.int32),
            clean.rank_items(history, poisoned.targets, k_max),
            attacked.rank_items(history, poisoned.targets, k_max),
            seen,
            group,
        )

    def _clean(self, scenario: Scenario, defense: DefensePart) -> tuple[FittedRecommender, NDArray[np.int32]]:
        """Return the clean model and its ranks of the test items, made once for all attacks."""
        key = (scenario.title(), defense.title())
        if key not in self.unharmed:
            model = self._model("clean", self.training, scenario, defense)
            self.unharmed[key] = model, model.rank_targets(scenario.users(self.parts).test()).astype(np.int32)
        return self.unharmed[key]

    def _model(self, name: str, data: TrainingData, scenario: Scenario, defense: DefensePart) -> FittedRecommender:
        """Return the model that serves: pre-trained on cleaned data, perhaps tuned, then repaired and guarded."""
        options = defense.options
        base = self._fit(f"{name}+{defense.title()}", self.victim, options.clean(data), self.parts.pretrain, None)
        if isinstance(scenario, FineTune):
            cold = scenario.users(self.parts)
            tuned = scenario.recommender(self.victim)
            base = self._fit(f"{name}+{defense.title()}+{scenario.title()}", tuned, cold.training(), cold, base)
        trusted = scenario.users(self.parts).training()
        return options.guard(options.repair(base, trusted))

    def _fit(
        self, name: str, spec: Recommender, data: TrainingData, users: LeaveOneOut, start: FittedRecommender | None
    ) -> FittedRecommender:
        """Fit, or load what an earlier call or run fitted."""
        folder = self.cell.folder / "models" / name
        path, seal = folder / "model.safetensors", folder / "model.sha256"
        if path.exists() and seal.exists():
            try:
                if sha256(path) == seal.read_text(encoding="utf-8"):
                    return spec.load(path, self.device)
                self.warn(f"'{path}' is damaged: its SHA-256 is not the recorded one. Fitting it again.")
            except (UserError, OSError, UnicodeDecodeError) as error:
                self.warn(f"{error} Fitting it again.")
        started = time.perf_counter()
        place = Workplace(
            self.device,
            folder,
            lambda done, total, remark: self.progress(f"{self.cell.title}: {name}", done, total, remark),
            self.warn,
        )
        seed = self.cell.seed
        fitted = spec.fit(data, users.validation(), seed, place, start)
        fitted.save(path)
        write_text(seal, sha256(path))
        self.seconds[name] = round(time.perf_counter() - started, 2)
        return fitted


def model_hashes(cell: Cell) -> dict[str, str]:
    """Return the SHA-256 of every model of a cell."""
    files = sorted((cell.folder / "models").glob("*/model.safetensors"))
    return {path.parent.name: sha256(path) for path in files}
