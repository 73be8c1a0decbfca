"""One cell of an experiment: one victim and one seed, clean and attacked, through every scenario.

Each fit is kept in the cell's folder as it ends, and saves checkpoints while it runs, so a killed cell goes on where it
stood. An attack that does not fit the data is an error in the cell's list, as is a defense that fails for one attack;
the others go on.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cowbird.attacks.base import AttackError, PoisonedData
from cowbird.data.split import SplitParts
from cowbird.data.types import Dataset, TrainingData
from cowbird.defenses.base import Defense
from cowbird.defenses.none import NoDefense
from cowbird.defenses.titles import TitleDefense
from cowbird.errors import UserError
from cowbird.experiments import detection, evidence
from cowbird.experiments.adaptive import AdaptiveAttacks
from cowbird.experiments.detection import DETECTIONS_FILE, NO_ATTACK, DetectionRecord, TitleInspector
from cowbird.experiments.evidence import RankingEvidence
from cowbird.experiments.models import Deployment, ModelStore, PlatformLogs, Progress, ProviderTraining
from cowbird.experiments.scenarios import Scenario
from cowbird.experiments.spec import AttackPart, DefensePart, Spec, VictimPart
from cowbird.files import hash_file, write_text
from cowbird.metrics.exposure import mask_seen
from cowbird.rng import derive_seed, stream
from cowbird.victims.base import FittedRecommender, Probe, Recommender

EVIDENCE_FILE = "evidence.safetensors"
MAX_EXPOSURE_RANK = 50
"""Exposure ranks are exact up to here, or up to the largest cut-off of the spec."""


class PlantedSummary(BaseModel):
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


def list_cells(spec: Spec, out: Path) -> list[Cell]:
    """List the cells of a spec. Folder names are for people; facts are read from the files inside."""
    return [
        Cell(spec, victim, seed, out / "cells" / f"{victim.title()}-{seed}")
        for victim in spec.victims
        for seed in spec.seeds
    ]


def find_undefended_label(spec: Spec) -> str:
    """Return the label under which models are kept that no defense had a hand in."""
    for part in spec.defenses:
        if isinstance(part.options, NoDefense):
            return part.title()
    return "none" if all(part.title() != "none" for part in spec.defenses) else "none@undefended"


class Runner(ABC):
    """What cells of every kind of victim share: attacks, their plans, what defenses flag, and the record of the cell.

    Args:
        cell: The cell.
        warn: Told of trouble that was worked around.
    """

    training: TrainingData
    """What providers train on and attacks poison."""

    def __init__(self, cell: Cell, warn: Callable[[str], None]) -> None:
        self.cell = cell
        self.errors: list[str] = []
        self.plans: dict[str, PlantedSummary] = {}
        self.informant = AdaptiveAttacks(cell.spec, cell.seed, cell.folder / "settled", warn)
        self.inspector = TitleInspector(cell.folder / "detections", warn)
        self.detections: dict[tuple[str, str], DetectionRecord] = {}

    @abstractmethod
    def run(self) -> None:
        """Measure every attack in every scenario, and write evidence and record."""

    def plant_attacks(self) -> Iterator[tuple[AttackPart, PoisonedData]]:
        """Yield each attack, with all settled that it leaves open, and what it made of the training data.

        An attack that does not fit the data is an error on record.
        """
        for part in self.cell.spec.attacks:
            try:
                attack = self.informant.settle(part, self.training)
                poisoned = attack.options.poison(self.training, stream(self.cell.seed, "attack"))
            except (UserError, AttackError) as error:
                self.errors.append(f"{self.cell.title}, attack {part.title()}: {error}")
                continue
            self._write_plan(attack, poisoned)
            yield attack, poisoned

    def record_detections(
        self,
        attack: AttackPart,
        poisoned: PoisonedData,
        defense: DefensePart,
        probe: Callable[[str, TrainingData, DefensePart], Probe] | None = None,
    ) -> None:
        """Put on record what a defense that reads titles flags, in the catalogue that an attack left and in the clean.

        Args:
            attack: The attack.
            poisoned: What it made.
            defense: The defense; nothing is done for one that reads no titles.
            probe: Makes the probe of the victim for an attack's label (`clean` for none), its data and the defense.
        """
        if not isinstance(defense.options, TitleDefense):
            return
        name, judged = defense.title(), dict[str, DetectionRecord]()
        clean = self.training
        for title, side, data in ((attack.title(), attack.title(), poisoned.data), (NO_ATTACK, "clean", clean)):
            if (title, name) not in self.detections:
                asked = None if probe is None else partial(probe, side, data, defense)
                verdict = self.inspector.judge(f"{side}+{name}", defense.options, data.items.titles, asked)
                truth = detection.make_clean_truth(data.items)
                if title != NO_ATTACK:
                    truth = detection.find_truth(attack.options, poisoned)
                judged[title] = detection.make_record(title, name, verdict, clean, truth)
        self.detections |= {(title, name): one for title, one in judged.items()}

    def get_defense_label(self, side: str, defense: DefensePart) -> str:
        """Return the label under which the model is kept that trains on what a defense made of the data.

        Its own if it takes something out; otherwise the data is as it came, and so is the model.

        Args:
            side: The attack's label, or `clean`.
            defense: The defense.
        """
        cleans = type(defense.options).clean is not Defense.clean
        if isinstance(defense.options, TitleDefense):
            cleans = self.inspector.has_flagged(f"{side}+{defense.title()}")
        return defense.title() if cleans else find_undefended_label(self.cell.spec)

    def record_error(
        self, attack: AttackPart, defense: DefensePart, error: UserError, scenario: Scenario | None = None
    ) -> None:
        """Put on record what can't be measured; the others go on."""
        where = f"{self.cell.title}, attack {attack.title()}"
        if not isinstance(defense.options, NoDefense):
            where += f", defense {defense.title()}"
        if scenario is not None:
            where += f", scenario {scenario.title()}"
        self.errors.append(f"{where}: {error}")

    def finish(self, device: torch.device, seconds: dict[str, float], facts: dict[str, int]) -> None:
        """Write what defenses flagged, then the cell's record; the evidence is written already."""
        if self.detections:
            detection.save(self.cell.folder / DETECTIONS_FILE, list(self.detections.values()))
        record = {
            "victim": self.cell.victim.title(),
            "seed": self.cell.seed,
            "device": str(device),
            **facts,
            "plans": {name: planted.model_dump() for name, planted in self.plans.items()},
            "models": hash_models(self.cell),
            "evidence": hash_file(self.cell.folder / EVIDENCE_FILE),
            "detections": hash_file(self.cell.folder / DETECTIONS_FILE) if self.detections else None,
            "errors": self.errors,
            "seconds": seconds | self.informant.seconds | self.inspector.seconds,
        }
        write_text(self.cell.folder / "cell.json", json.dumps(record, indent=1))

    def _write_plan(self, attack: AttackPart, poisoned: PoisonedData) -> None:
        path = self.cell.folder / "plans" / f"{attack.title()}.json"
        write_text(path, json.dumps(poisoned.describe_plan()))
        items = poisoned.data.items
        targets: list[int] = poisoned.targets.tolist()
        self.plans[attack.title()] = PlantedSummary(
            sha256=poisoned.hash_plan(),
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
        super().__init__(cell, warn)
        self.device = device
        self.parts: SplitParts = cell.spec.split.apply(data, cell.seed)
        self.training: TrainingData = self.parts.pretrain.training()
        assert isinstance(cell.victim.options, Recommender)
        self.victim: Recommender = cell.victim.options
        self.shelf = ModelStore(cell.folder / "models", device, cell.title, progress, warn)
        self.records: list[RankingEvidence] = []
        self.honest: dict[str, ProviderTraining] = {}
        self.unharmed: dict[tuple[str, str], tuple[FittedRecommender, NDArray[np.int32]]] = {}

    def run(self) -> None:
        """Measure; see `Runner.run`."""
        spec = self.cell.spec
        for attack, poisoned in self.plant_attacks():
            if len(poisoned.data.items) > len(self.training.items):
                self.errors.append(
                    f"{self.cell.title}, attack {attack.title()}: it lists new items, which a clean model that ranks "
                    "does not know. Write the trigger into titles that are there: listing = 'own'."
                )
                continue
            for defense in spec.defenses:
                self._measure_defense(attack, poisoned, defense)
        evidence.save(self.cell.folder / EVIDENCE_FILE, self.records)
        facts = {
            "warm_users": len(self.parts.pretrain.users),
            "cold_users": len(self.parts.downstream.users) if self.parts.downstream else 0,
            "users_too_short": self.parts.too_short,
        }
        self.finish(self.device, self.shelf.seconds, facts)

    def _measure_defense(self, attack: AttackPart, poisoned: PoisonedData, defense: DefensePart) -> None:
        """Measure a defense in each scenario; what this victim or this data can't do is an error, the others go on."""
        try:
            if defense.options.asks_victim:
                raise UserError(
                    f"It asks the victim about titles, and {self.cell.victim.title()} reads none.",
                    "Use it with victims that answer questions, such as tallrec.",
                )
            self.record_detections(attack, poisoned, defense)
            provider = self._make_provider(defense, attack, poisoned.data)
        except UserError as error:
            self.record_error(attack, defense, error)
            return
        for scenario in self.cell.spec.scenarios:
            try:
                self.records.append(self._measure(attack, poisoned, defense, provider, scenario))
            except UserError as error:
                self.record_error(attack, defense, error, scenario)

    def _make_provider(
        self, defense: DefensePart, attack: AttackPart | None = None, planted: TrainingData | None = None
    ) -> ProviderTraining:
        """Return a provider: attacked, or honest (one for all attacks)."""
        label = "clean" if attack is None else attack.title()
        kept = self.get_defense_label(label, defense)
        if attack is None and kept in self.honest:
            return self.honest[kept]
        data = self.training if planted is None else planted
        cleaning: Defense = defense.options
        if isinstance(cleaning, TitleDefense):  # judged already
            cleaning, data = NoDefense(), self.inspector.clean(f"{label}+{defense.title()}", cleaning, data)
        made = ProviderTraining(
            shelf=self.shelf,
            victim=self.victim,
            parts=self.parts,
            seed=self.cell.seed,
            label=label,
            defense_label=kept,
            defense=cleaning,
            attack=None if attack is None else attack.options,
            planted=data,
            short_events=self.cell.spec.split.max_cold_events,
            honest=None if attack is None else self._make_provider(defense),
        )
        if attack is None:
            self.honest[kept] = made
        return made

    def _measure(
        self,
        attack: AttackPart,
        poisoned: PoisonedData,
        defense: DefensePart,
        provider: ProviderTraining,
        scenario: Scenario,
    ) -> RankingEvidence:
        served = scenario.select_users(self.parts)
        test = served.test()
        assert provider.honest is not None
        clean, clean_rank = self._rank_clean(scenario, provider.honest, defense)
        attacked = self._serve(provider, scenario, defense)
        history = test.history
        seen = mask_seen(history.user_of_event(), history.item, poisoned.targets, history.users)
        # A target that the platform does not have can't be exposed there.
        seen |= np.isin(poisoned.targets, scenario.draw_absent(len(served.items), self._derive_platform_seed()))
        k_max = max(MAX_EXPOSURE_RANK, *self.cell.spec.ks)
        group = attack.options.find_target_users(
            TrainingData.from_interactions(served.interactions, served.users, served.items)
        )
        return RankingEvidence(
            scenario.title(),
            attack.title(),
            defense.title(),
            clean_rank,
            attacked.rank_targets(test).astype(np.int32),
            clean.rank_items(history, poisoned.targets, k_max, served.users),
            attacked.rank_items(history, poisoned.targets, k_max, served.users),
            seen,
            group,
        )

    def _rank_clean(
        self, scenario: Scenario, honest: ProviderTraining, defense: DefensePart
    ) -> tuple[FittedRecommender, NDArray[np.int32]]:
        """Return the clean model and its ranks of the test items, made once for all attacks."""
        key = (scenario.title(), defense.title())
        if key not in self.unharmed:
            model = self._serve(honest, scenario, defense)
            self.unharmed[key] = model, model.rank_targets(scenario.select_users(self.parts).test()).astype(np.int32)
        return self.unharmed[key]

    def _derive_platform_seed(self) -> int:
        return derive_seed(self.cell.seed, "platform")

    def _serve(self, provider: ProviderTraining, scenario: Scenario, defense: DefensePart) -> FittedRecommender:
        """Return the model that serves: handed over, perhaps tuned, then repaired and guarded."""
        users, seed = scenario.select_users(self.parts), self._derive_platform_seed()
        model = scenario.serve(provider, Deployment(self.shelf, f"{provider.name}+{scenario.title()}", users, seed))
        name = f"{provider.label}+{defense.title()}+{scenario.title()}"
        return defense.options.guard(
            defense.options.repair(model, PlatformLogs(self.shelf, self.victim, name, users, seed))
        )


def hash_models(cell: Cell) -> dict[str, str]:
    """Return the SHA-256 of every model of a cell, by folder, and by file too where a model has several."""
    folder = cell.folder / "models"
    files: dict[str, list[Path]] = {}
    for path in sorted([*folder.glob("*/model.safetensors"), *folder.glob("*/model/*.safetensors")]):
        files.setdefault(path.relative_to(folder).parts[0], []).append(path)
    return {
        name if len(paths) == 1 else f"{name}/{path.name}": hash_file(path)
        for name, paths in files.items()
        for path in paths
    }
