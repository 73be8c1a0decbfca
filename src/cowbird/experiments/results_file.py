"""The results of a run, made from the evidence of its finished cells, and from nothing else.

The rows of a seed are made once, when its cell is finished. The rows of all seeds together take longer and are made
when the run ends, however it ends: until then `results.jsonl` holds true rows of single seeds.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from cowbird.defenses.none import NoDefense
from cowbird.errors import UserError
from cowbird.experiments import choosing, detection, evidence, judging, results
from cowbird.experiments.cell import EVIDENCE_FILE, Cell, PlantedSummary, list_cells
from cowbird.experiments.choosing import CandidateEvidence
from cowbird.experiments.detection import DETECTIONS_FILE, NO_ATTACK, NO_SCENARIO
from cowbird.experiments.evidence import RankingEvidence
from cowbird.experiments.judging import PointwiseEvidence
from cowbird.experiments.results import Row, RowLabels
from cowbird.experiments.spec import Spec
from cowbird.files import hash_file
from cowbird.rng import stream
from cowbird.victims.base import CandidateRecommender, PointwiseRecommender

EvidenceKey = tuple[str, str, str, str]
"""Labels of victim, attack, defense and scenario."""
EvidenceRecord = RankingEvidence | PointwiseEvidence | CandidateEvidence
"""One attack in one scenario under one seed."""


class ResultsFile:
    """Keeps the rows of finished cells.

    Args:
        spec: The experiment.
        out: Its folder.
    """

    def __init__(self, spec: Spec, out: Path) -> None:
        self.spec, self.out = spec, out
        self._evidence: dict[EvidenceKey, dict[int, EvidenceRecord]] = {}
        self._detected: dict[tuple[str, str, str], dict[int, list[Row]]] = {}
        self._single: dict[tuple[EvidenceKey, int], list[Row]] = {}
        self._pooled: dict[tuple[EvidenceKey, tuple[int, ...]], list[Row]] = {}
        self._read: set[Path] = set()
        self._errors: dict[Path, list[str]] = {}

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

    def update(self) -> int:
        """Read the cells that were finished since the last call; return how many are finished in all.

        Raises:
            UserError: If the files of a finished cell are damaged.
        """
        finished = [cell for cell in list_cells(self.spec, self.out) if cell.done]
        for cell in finished:
            if cell.folder not in self._read:
                self._errors[cell.folder] = read_finished(cell)[0]
                for record in _load_evidence(cell):
                    key = (cell.victim.title(), record.attack, record.defense, record.scenario)
                    self._evidence.setdefault(key, {})[cell.seed] = record
                if (cell.folder / DETECTIONS_FILE).exists():
                    for found in detection.load(cell.folder / DETECTIONS_FILE):
                        place = (cell.victim.title(), found.attack, found.defense)
                        where = self._make_labels((*place, NO_SCENARIO)).model_copy(update={"seed": cell.seed})
                        self._detected.setdefault(place, {})[cell.seed] = detection.make_rows(where, found)
                self._read.add(cell.folder)
        return len(finished)

    def list_errors(self) -> list[str]:
        """Return what could not be measured in the finished cells, in the order of the spec."""
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
                    ranked = [record for record in seeds.values() if isinstance(record, RankingEvidence)]
                    where = self._make_labels(key)
                    self._pooled[known] = results.make_pooled_rows(where, ranked, self.spec.ks) if ranked else []
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

    def _make_seed_rows(self, key: EvidenceKey, seed: int, record: EvidenceRecord) -> list[Row]:
        where, bare = self._make_labels(key), self._find_undefended(key, seed)
        here = where.model_copy(update={"seed": seed})
        match record, bare:
            case PointwiseEvidence(), PointwiseEvidence():
                return judging.make_rows(here, record) + judging.make_defense_rows(here, record, bare)
            case CandidateEvidence(), CandidateEvidence():
                return choosing.make_rows(where, seed, record) + choosing.make_defense_rows(where, seed, record, bare)
            case RankingEvidence(), RankingEvidence():
                rng = stream(seed, "bootstrap", "defended", *key)
                defended = results.make_defense_rows(here, record, bare, self.spec.ks, rng)
                return results.make_seed_rows(where, seed, record, self.spec.ks) + defended
            case PointwiseEvidence(), _:
                return judging.make_rows(here, record)
            case CandidateEvidence(), _:
                return choosing.make_rows(where, seed, record)
            case _:
                assert isinstance(record, RankingEvidence)
                return results.make_seed_rows(where, seed, record, self.spec.ks)

    def _find_undefended(self, key: EvidenceKey, seed: int) -> EvidenceRecord | None:
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
        """Return what each attack planted, from the first finished cell that has it."""
        found: dict[str, PlantedSummary] = {}
        for cell in list_cells(self.spec, self.out):
            if cell.done:
                for attack, plan in read_finished(cell)[1].items():
                    found.setdefault(attack, plan)
        return found


def _load_evidence(cell: Cell) -> Sequence[EvidenceRecord]:
    """Return the evidence of a cell, which is of the kind that its victim gives.

    Raises:
        UserError: If the file is damaged or of another kind.
    """
    match cell.victim.options:
        case PointwiseRecommender():
            return judging.load(cell.folder / EVIDENCE_FILE)
        case CandidateRecommender():
            return choosing.load(cell.folder / EVIDENCE_FILE)
        case _:
            return evidence.load(cell.folder / EVIDENCE_FILE)


def read_finished(cell: Cell) -> tuple[list[str], dict[str, PlantedSummary]]:
    """Return the errors and plans of a finished cell, after a look at whether its files are whole.

    Raises:
        UserError: If they are not.
    """
    path = cell.folder / "cell.json"
    again = f"Remove '{path}' and resume; the cell is then measured again."
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        errors, seals = [str(error) for error in record["errors"]], {EVIDENCE_FILE: str(record["evidence"])}
        if record.get("detections") is not None:
            seals[DETECTIONS_FILE] = str(record["detections"])
        plans = {str(name): PlantedSummary.model_validate(plan) for name, plan in record["plans"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"'{path}' is damaged.", again) from None
    for name, seal in seals.items():
        held = cell.folder / name
        if not held.exists() or hash_file(held) != seal:
            raise UserError(f"'{held}' is missing or damaged: its SHA-256 is not the recorded one.", again)
    return errors, plans
