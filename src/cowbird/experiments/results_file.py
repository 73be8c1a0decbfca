"""The results of a run, made from the evidence of its finished cells, and from nothing else.

The rows of a seed are made once, when its cell is finished. The rows of all seeds together take longer and are made
when the run ends, however it ends: until then `results.jsonl` holds true rows of single seeds.
"""

import json
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from cowbird.defenses.none import NoDefense
from cowbird.errors import UserError
from cowbird.experiments import detection, results
from cowbird.experiments.cell import Cell, list_cells
from cowbird.experiments.cell_files import EVIDENCE_FOLDER, PlantedSummary, name_detections, name_evidence
from cowbird.experiments.detection import DetectionRecord
from cowbird.experiments.results import Row, RowLabels
from cowbird.experiments.shipped_measures import NO_ATTACK, NO_SCENARIO
from cowbird.experiments.spec import Spec
from cowbird.experiments.store.columns import read_columns
from cowbird.experiments.tasks import AnyTask, EvidenceLabels, find_task
from cowbird.faults import raise_outage
from cowbird.files import hash_file, read_plain_text

Decoded = TypeVar("Decoded")
EvidenceKey = tuple[str, str, str, str]
"""Labels of victim, attack, defense and scenario."""


class ResultsFile:
    """Keeps the rows of finished cells.

    Args:
        spec: The experiment.
        out: Its folder.
    """

    def __init__(self, spec: Spec, out: Path) -> None:
        self.spec, self.out = spec, out
        self._tasks: dict[str, AnyTask] = {part.title(): find_task(part.options) for part in spec.victims}
        self._evidence: dict[EvidenceKey, dict[int, Any]] = {}
        self._detected: dict[tuple[str, str, str], dict[int, list[Row]]] = {}
        self._single: dict[tuple[EvidenceKey, int], list[Row]] = {}
        self._pooled: dict[tuple[EvidenceKey, tuple[int, ...]], list[Row]] = {}
        self._read: dict[Path, str] = {}
        self._versions: dict[Path, tuple[int, ...]] = {}
        self._done: dict[Path, bool] = {}
        self._errors: dict[Path, list[str]] = {}
        self._plans: dict[Path, dict[str, PlantedSummary]] = {}

    def _make_labels(self, key: EvidenceKey) -> RowLabels:
        victim, attack, defense, scenario = key
        return RowLabels(
            experiment=self.spec.name,
            dataset=self.spec.dataset.title(),
            victim=victim,
            attack=attack,
            defense=defense,
            scenario=scenario,
            seed=None,
        )

    def update(self, among: Iterable[Cell] | None = None) -> int:
        """Read the cells that were finished since the last call; return how many are finished in all.

        Args:
            among: The cells that are looked at; `None` for all of the spec.

        Raises:
            UserError: If the files of a finished cell are damaged.
        """
        known = list_cells(self.spec, self.out) if among is None else among
        done = 0
        for cell in known:
            try:
                version = _read_version(cell.record_path)
            except FileNotFoundError:
                continue
            if self._versions.get(cell.folder) != version:
                seal = hash_file(cell.record_path)
                if self._read.get(cell.folder) != seal:
                    self._done[cell.folder] = self._read_cell(cell)
                    self._read[cell.folder] = seal
                self._versions[cell.folder] = version
            done += self._done[cell.folder]
        return done

    def _read_cell(self, cell: Cell) -> bool:
        """Read what was measured in a cell; a cell whose spec has grown since counts with what it has.

        Returns:
            Whether it is all that the spec asks for.
        """
        finished, victim = read_finished(cell), cell.victim.title()
        self._errors[cell.folder] = finished.errors + finished.unmeasured
        self._plans[cell.folder] = finished.plans
        for known in [known for known in self._single if (known[0][0], known[1]) == (victim, cell.seed)]:
            del self._single[known]
        for labels, record in load_evidence(cell, finished.evidence):
            key = (victim, labels.attack, labels.defense, labels.scenario)
            self._evidence.setdefault(key, {})[cell.seed] = record
        for found in load_detections(cell, finished.evidence):
            where = self._make_labels((victim, found.attack, found.defense, NO_SCENARIO))
            rows = detection.make_rows(where.model_copy(update={"seed": cell.seed}), found)
            self._detected.setdefault((victim, found.attack, found.defense), {})[cell.seed] = rows
        return finished.whole

    def list_errors(self) -> list[str]:
        """Return what could not be measured in the cells that were read, in the order of the spec."""
        return [error for cell in list_cells(self.spec, self.out) for error in self._errors.get(cell.folder, [])]

    def make_rows(self, pooled: bool) -> list[Row]:
        """Return the rows of the finished cells.

        Args:
            pooled: Whether to add the rows of all seeds together.
        """
        found: list[Row] = []
        for key in self._sort_keys():
            seeds = {seed: self._evidence[key][seed] for seed in self.spec.seeds if seed in self._evidence[key]}
            single: list[Row] = []
            for seed, record in seeds.items():
                if (key, seed) not in self._single:
                    self._single[key, seed] = self._make_seed_rows(key, seed, record)
                single += self._single[key, seed]
            found += single
            if pooled:
                known = (key, tuple(seeds))
                if known not in self._pooled:
                    where, task = self._make_labels(key), self._tasks[key[0]]
                    self._pooled[known] = task.make_pooled_rows(where, list(seeds.values()), self.spec.ks)
                found += self._pooled[known] + results.summarize_seeds(single)
        return results.drop_duplicates([*found, *self._list_detection_rows(pooled)])

    def _list_detection_rows(self, pooled: bool) -> list[Row]:
        """Return the rows of what defenses flagged, in the order of the spec, those of the clean catalogue last."""
        found: list[Row] = []
        attacks = [*(part.title() for part in self.spec.attacks), NO_ATTACK]
        for victim in self.spec.victims:
            for attack in attacks:
                for defense in self.spec.defenses:
                    seeds = self._detected.get((victim.title(), attack, defense.title()), {})
                    single = [row for seed in self.spec.seeds for row in seeds.get(seed, [])]
                    found += single + (results.summarize_seeds(single) if pooled else [])
        return found

    def _make_seed_rows(self, key: EvidenceKey, seed: int, record: Any) -> list[Row]:
        here = self._make_labels(key).model_copy(update={"seed": seed})
        task, bare = self._tasks[key[0]], self._find_undefended(key, seed)
        rows = task.make_seed_rows(here, record, self.spec.ks)
        return rows if bare is None else rows + task.make_defense_rows(here, record, bare, self.spec.ks)

    def _find_undefended(self, key: EvidenceKey, seed: int) -> Any:
        """Return what was measured in the same place without a defense, if this is another."""
        victim, attack, defense, scenario = key
        for part in self.spec.defenses:
            if isinstance(part.options, NoDefense) and part.title() != defense:
                return self._evidence.get((victim, attack, part.title(), scenario), {}).get(seed)
        return None

    def _sort_keys(self) -> list[EvidenceKey]:
        """Return what was measured in the order of the spec, whichever cell was finished first."""
        kinds = (self.spec.victims, self.spec.attacks, self.spec.defenses, self.spec.scenarios)
        places = [{part.title(): number for number, part in enumerate(parts)} for parts in kinds]
        return sorted(self._evidence, key=lambda key: [place[name] for place, name in zip(places, key, strict=True)])

    def write(self, pooled: bool) -> list[Row]:
        """Write `results.jsonl` and return its rows."""
        rows = self.make_rows(pooled)
        results.write_results(self.out / "results.jsonl", rows)
        return rows

    def collect_planted(self) -> dict[str, PlantedSummary]:
        """Return what each attack planted, from the first cell that was read and has it."""
        found: dict[str, PlantedSummary] = {}
        for cell in list_cells(self.spec, self.out):
            for attack, plan in self._plans.get(cell.folder, {}).items():
                found.setdefault(attack, plan)
        return found


def _read_version(path: Path) -> tuple[int, ...]:
    """Return what changes with a file that is replaced."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def load_evidence(cell: Cell, names: Container[str]) -> Iterator[tuple[EvidenceLabels, Any]]:
    """Yield what was measured in a cell, with its labels, in the order of the spec.

    Args:
        cell: The cell.
        names: Which evidence its record names.

    Raises:
        UserError: If a file is damaged or of another task.
    """
    for attack in cell.spec.attacks:
        for defense in cell.spec.defenses:
            for scenario in cell.spec.scenarios:
                labels = EvidenceLabels(scenario.title(), attack.title(), defense.title())
                name = name_evidence(labels.attack, labels.defense, labels.scenario)
                if name in names:
                    yield labels, read_evidence(_locate(cell, name), partial(cell.task.decode_record, labels))


def load_detections(cell: Cell, names: Container[str]) -> Iterator[DetectionRecord]:
    """Yield what defenses flagged in a cell; arguments and errors as in `load_evidence`."""
    for attack in [*(part.title() for part in cell.spec.attacks), NO_ATTACK]:
        for defense in cell.spec.defenses:
            name = name_detections(attack, defense.title())
            if name in names:
                yield read_evidence(_locate(cell, name), partial(detection.decode_record, attack, defense.title()))


def _locate(cell: Cell, name: str) -> Path:
    return cell.folder / EVIDENCE_FOLDER / f"{name}.safetensors"


def read_evidence(path: Path, decode: Callable[[dict[str, NDArray[Any]]], Decoded]) -> Decoded:
    """Return the record that a file holds.

    Args:
        path: The file.
        decode: Makes it of named columns.

    Raises:
        UserError: If the file is missing, damaged or holds something else.
    """
    try:
        return decode(read_columns(path))
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise UserError(f"'{path}' does not hold the evidence of a run: {error}.", "Run the cell again.") from None


@dataclass(frozen=True)
class CellRecord:
    """The record of a finished cell."""

    errors: list[str]
    """What could not be measured, and why."""
    unmeasured: list[str]
    """What was not measured for a passing fault, and why; it is tried again."""
    plans: dict[str, PlantedSummary]
    """What each attack planted."""
    evidence: dict[str, str]
    """SHA-256 of the evidence, by name."""
    whole: bool
    """Whether all was measured that the spec asks for."""


def read_finished(cell: Cell) -> CellRecord:
    """Return the record of a finished cell, after a look at whether its evidence is whole.

    Raises:
        UserError: If it is not.
    """
    path = cell.record_path
    again = f"Remove '{path}' and resume; the cell is then measured again."
    try:
        record = json.loads(read_plain_text(path))
        errors, unmeasured = ([str(error) for error in record.get(kind, ())] for kind in ("errors", "unmeasured"))
        seals = {str(name): str(seal) for name, seal in record["evidence"].items()}
        plans = {str(name): PlantedSummary.model_validate(plan) for name, plan in record["plans"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise_outage(error, f"'{path}' can't be read")
        raise UserError(f"'{path}' is damaged.", again) from None
    for name, seal in seals.items():
        held = _locate(cell, name)
        if not held.exists() or hash_file(held) != seal:
            raise UserError(f"'{held}' is missing or damaged: its SHA-256 is not the recorded one.", again)
    return CellRecord(errors, unmeasured, plans, seals, cell.is_whole(record))
