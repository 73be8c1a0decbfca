"""One cell of an experiment: one victim and one seed, clean and attacked, through every defense and scenario.

Whatever is made is kept in the cell's folder as soon as it is made, and fits save checkpoints while they run. So a
killed cell goes on where it stood, and a cell whose spec has grown measures only what is new: evidence is kept for each
attack, defense and scenario.

What an attack, a defense or a victim refuses is a result: an error in the cell's list, and the others go on. What the
environment did (a full disk, a server that is down, memory that ran out) is none: the others go on, the cell stays
undone, and a resumed run tries that place again.
"""

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from cowbird.attacks.base import AttackError, PoisonedData
from cowbird.data.types import Dataset
from cowbird.defenses.none import NoDefense
from cowbird.defenses.titles import TitleDefense
from cowbird.errors import OutageError, UserError
from cowbird.experiments import detection
from cowbird.experiments.adaptive import AdaptiveAttacks
from cowbird.experiments.cell_files import EVIDENCE_FOLDER, PlantedSummary, name_detections, name_evidence
from cowbird.experiments.detection import DetectionRecord, TitleInspector
from cowbird.experiments.parts import AttackPart, DefensePart, VictimPart
from cowbird.experiments.scenarios import Scenario
from cowbird.experiments.shipped_measures import NO_ATTACK
from cowbird.experiments.spec import Spec
from cowbird.experiments.store import ColumnStore, ModelStore, ProgressReport, SealedStore, hash_parts
from cowbird.experiments.tasks import AnyTask, PlantedAttack, TaskContext, find_task
from cowbird.faults import explain_outage
from cowbird.files import hash_file, read_plain_text, write_text
from cowbird.plugin_errors import blame_plugin
from cowbird.rng import stream

TRY_AGAIN = "This may pass: go on with --resume."
"""What is added to the reason of a passing fault."""


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
    def record_path(self) -> Path:
        """Where the record of what was measured is."""
        return self.folder / "cell.json"

    @property
    def task(self) -> AnyTask:
        """What its victim is asked to do."""
        return find_task(self.victim.options)

    @property
    def done(self) -> bool:
        """Whether all that the spec asks for was measured."""
        try:
            return self.is_whole(json.loads(read_plain_text(self.record_path)))
        except FileNotFoundError:
            return False
        except (OSError, ValueError):
            return True  # whoever reads a damaged record says so

    def is_whole(self, record: Any) -> bool:
        """Tell whether a record says that all was measured that the spec asks for."""
        try:
            covered = record["covers"]
            return not record.get("unmeasured") and all(
                set(labels) <= set(covered[kind]) for kind, labels in self.list_labels().items()
            )
        except (KeyError, TypeError, AttributeError):
            return True  # see `done`

    def list_labels(self) -> dict[str, list[str]]:
        """Return the labels of what the spec asks for."""
        kinds = {"attacks": self.spec.attacks, "defenses": self.spec.defenses, "scenarios": self.spec.scenarios}
        return {kind: [part.title() for part in parts] for kind, parts in kinds.items()}


def list_cells(spec: Spec, out: Path) -> list[Cell]:
    """List the cells of a spec. Folder names are for people; facts are read from the files inside."""
    place = out / "cells"
    titles = [(victim, victim.title()) for victim in spec.victims]
    return [Cell(spec, victim, seed, place / f"{title}-{seed}") for victim, title in titles for seed in spec.seeds]


def find_undefended_label(spec: Spec) -> str:
    """Return the label under which models are kept that no defense had a hand in."""
    for part in spec.defenses:
        if isinstance(part.options, NoDefense):
            return part.title()
    return "none" if all(part.title() != "none" for part in spec.defenses) else "none@undefended"


def digest_place(cell: Cell, *parts: BaseModel) -> str:
    """Return the digest of what a measurement follows from: data, split, victim, seed, and some parts of the spec."""
    made_of = [cell.spec.dataset, cell.spec.get_split(cell.task), cell.victim, *parts]
    return hash_parts(cell.seed, [part.model_dump_json(exclude={"label"}) for part in made_of])


class CellRunner:
    """Runs one cell.

    Args:
        cell: The cell.
        data: The dataset.
        device: Where models live.
        progress: Told of each fit.
        warn: Told of trouble that was worked around.
    """

    def __init__(
        self, cell: Cell, data: Dataset, device: torch.device, progress: ProgressReport, warn: Callable[[str], None]
    ) -> None:
        self.cell, self.device, self.warn = cell, device, warn
        self.errors: list[str] = []
        """What can't be measured, and why."""
        self.unmeasured: list[str] = []
        """What was not measured for a passing fault, and why."""
        self.adaptive = AdaptiveAttacks(cell.spec, cell.seed, cell.folder / "settled", warn)
        self.inspector = TitleInspector(cell.folder / "detections", warn)
        self.planted = SealedStore(cell.folder / "planted", warn, "another attack's", "Planting again.")
        self.evidence = ColumnStore(cell.folder / EVIDENCE_FOLDER, warn, "of something else", "Measuring again.")
        other = "of other questions or another model"
        self.models = ModelStore(
            cell.folder / "models", device, cell.title, progress, warn, artifact=cell.task.artifact
        )
        context = TaskContext(
            seed=cell.seed,
            victim=cell.victim.options,
            victim_label=cell.victim.title(),
            split=cell.spec.get_split(cell.task),
            ks=cell.spec.ks,
            undefended=find_undefended_label(cell.spec),
            models=self.models,
            answers=ColumnStore(cell.folder / "answers", warn, other, "Asking again."),
            inspector=self.inspector,
        )
        self.task = cell.task(context, data)

    def run(self) -> None:
        """Measure every attack under every defense in every scenario, and write evidence and record."""
        for part in self.cell.spec.attacks:
            if self._is_measured(part):
                continue
            planted = self._plant(part)
            if planted is None:
                continue
            for defense in self.cell.spec.defenses:
                self._measure_defense(part, planted, defense)
        self._write_record()

    def _plant(self, part: AttackPart) -> PlantedAttack | None:
        """Return an attack, with all settled that it leaves open, and what it made of the training data.

        An attack that does not fit the data is an error on record.
        """
        with self._note_faults(part):
            attack = self.adaptive.settle(part, self.task.training)
            poisoned = attack.options.poison(self.task.training, stream(self.cell.seed, "attack"))
            self._write_plan(part, poisoned)
            planted = PlantedAttack(part.title(), attack.options, poisoned)
            self.task.check_attack(planted)
            return planted
        return None

    @contextmanager
    def _note_faults(
        self, attack: AttackPart, defense: DefensePart | None = None, scenario: Scenario | None = None
    ) -> Generator[None]:
        """Put on record what can't be measured in the block, and apart from it what the environment kept from it.

        What nobody foresaw is raised.
        """
        where = f"{self.cell.title}, attack {attack.title()}"
        if defense is not None and not isinstance(defense.options, NoDefense):
            where += f", defense {defense.title()}"
        if scenario is not None:
            where += f", scenario {scenario.title()}"
        try:
            yield
        except OutageError as error:
            self.unmeasured.append(f"{where}: {error} {TRY_AGAIN}")
        except (UserError, AttackError) as error:
            self.errors.append(f"{where}: {error}")
        except (OSError, MemoryError, RuntimeError) as error:
            reason = explain_outage(error) or (isinstance(error, OSError) and str(error))
            if not reason or blame_plugin(error) is not None:
                raise
            self.unmeasured.append(f"{where}: {reason}. {TRY_AGAIN}")

    def _measure_defense(self, part: AttackPart, planted: PlantedAttack, defense: DefensePart) -> None:
        """Measure a defense in each scenario; what can't be done is an error on record, and the others go on."""
        waiting = [scenario for scenario in self.cell.spec.scenarios if not self._has_evidence(part, defense, scenario)]
        if not waiting and self._has_detections(part, defense):
            return
        usable = False
        with self._note_faults(part, defense):
            self.task.check_defense(defense.options)
            self._record_detections(part, planted, defense)
            usable = True
        for scenario in waiting if usable else ():
            with self._note_faults(part, defense, scenario):
                record = self.task.measure(planted, defense, scenario)
                name = name_evidence(part.title(), defense.title(), scenario.title())
                origin = digest_place(self.cell, part, defense, scenario)
                self.evidence.write(name, origin, self.task.encode_record(record))

    # What is there already

    def _is_measured(self, attack: AttackPart) -> bool:
        """Tell whether an attack's plan, and all evidence about it, is kept."""
        return self.planted.find_digest(f"{attack.title()}.json", digest_place(self.cell, attack)) is not None and all(
            self._has_detections(attack, defense)
            and all(self._has_evidence(attack, defense, scenario) for scenario in self.cell.spec.scenarios)
            for defense in self.cell.spec.defenses
        )

    def _has_evidence(self, attack: AttackPart, defense: DefensePart, scenario: Scenario) -> bool:
        name = name_evidence(attack.title(), defense.title(), scenario.title())
        return (
            self.evidence.find_digest(f"{name}.safetensors", digest_place(self.cell, attack, defense, scenario))
            is not None
        )

    def _has_detections(self, attack: AttackPart, defense: DefensePart) -> bool:
        """Tell whether what a defense flags is kept, with and without an attack; true if it reads no titles."""
        if not isinstance(defense.options, TitleDefense):
            return True
        names = {attack.title(): digest_place(self.cell, attack, defense), NO_ATTACK: digest_place(self.cell, defense)}
        return all(
            self.evidence.holds(name_detections(label, defense.title()), origin) for label, origin in names.items()
        )

    # What is put on record

    def _record_detections(self, attack: AttackPart, planted: PlantedAttack, defense: DefensePart) -> None:
        """Put on record what a defense flags, in the catalogue that an attack left and in the clean one.

        Nothing is done for a defense that reads no titles.
        """
        options = defense.options
        if not isinstance(options, TitleDefense):
            return
        made: list[tuple[DetectionRecord, str]] = []
        clean, poisoned = self.task.training, planted.poisoned
        sides = (
            (planted.label, planted.label, poisoned.data, digest_place(self.cell, attack, defense)),
            (NO_ATTACK, "clean", clean, digest_place(self.cell, defense)),
        )
        for label, side, data, origin in sides:
            probe = partial(self.task.make_probe, side, data, options)
            verdict = self.inspector.judge(f"{side}+{defense.title()}", options, data.items.titles, probe)
            truth = detection.make_clean_truth(data.items)
            if label != NO_ATTACK:
                truth = detection.find_truth(planted.options, poisoned)
            made.append((detection.make_record(label, defense.title(), verdict, clean, truth), origin))
        for record, origin in made:
            name = name_detections(record.attack, record.defense)
            if not self.evidence.holds(name, origin):
                self.evidence.write(name, origin, detection.encode_record(record))

    def _write_plan(self, attack: AttackPart, poisoned: PoisonedData) -> None:
        items = poisoned.data.items
        targets: list[int] = poisoned.targets.tolist()
        summary = PlantedSummary(
            sha256=poisoned.hash_plan(),
            rows=len(poisoned.rows),
            budget=poisoned.budget,
            share_of_labels=len(poisoned.rows) / max(1, poisoned.data.interactions.events),
            targets=tuple(items.ids[target] for target in targets),
            target_titles=tuple(items.titles[target] for target in targets),
        )
        name, text = f"{attack.title()}.json", summary.model_dump_json()
        write_text(self.cell.folder / "plans" / name, json.dumps(poisoned.describe_plan()))
        self.planted.keep(name, digest_place(self.cell, attack), lambda path: write_text(path, text))

    def _collect_plans(self) -> dict[str, Any]:
        """Return what each attack planted, in the order of the spec."""
        found: dict[str, Any] = {}
        for part in self.cell.spec.attacks:
            summary = self.planted.find(f"{part.title()}.json", digest_place(self.cell, part), _read_json)
            if summary is not None:
                found[part.title()] = summary
        return found

    def _hash_evidence(self) -> dict[str, str]:
        """Return the SHA-256, by name, of the evidence that there is of what the spec asks for, in its order."""
        names: dict[str, str] = {}
        spec = self.cell.spec
        for attack in spec.attacks:
            for defense in spec.defenses:
                for scenario in spec.scenarios:
                    name = name_evidence(attack.title(), defense.title(), scenario.title())
                    names[name] = digest_place(self.cell, attack, defense, scenario)
                names[name_detections(attack.title(), defense.title())] = digest_place(self.cell, attack, defense)
        for defense in spec.defenses:
            names[name_detections(NO_ATTACK, defense.title())] = digest_place(self.cell, defense)
        kept = [name for name, origin in names.items() if self.evidence.holds(name, origin)]
        return {name: hash_file(self.evidence.folder / f"{name}.safetensors") for name in kept}

    def _write_record(self) -> None:
        """Write the cell's record; the evidence is written already."""
        record = {
            "victim": self.cell.victim.title(),
            "seed": self.cell.seed,
            "device": str(self.device),
            **self.task.describe_split(),
            "covers": self.cell.list_labels(),
            "plans": self._collect_plans(),
            "models": hash_models(self.cell),
            "evidence": self._hash_evidence(),
            "errors": self.errors,
            "unmeasured": self.unmeasured,
            "seconds": self.models.seconds | self.adaptive.seconds | self.inspector.seconds,
        }
        write_text(self.cell.record_path, json.dumps(record, indent=1))


def _read_json(path: Path) -> Any:
    return json.loads(read_plain_text(path))


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
