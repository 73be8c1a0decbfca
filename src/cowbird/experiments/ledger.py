"""The results of a run, made from the evidence of its finished cells, and from nothing else.

The rows of a seed are made once, when its cell is finished. The rows of all seeds together take longer and are made
when the run ends, however it ends: until then `results.jsonl` holds true rows of single seeds.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from cowbird.defenses.none import NoDefense
from cowbird.errors import UserError
from cowbird.experiments import choosing, detecting, evidence, judging, results
from cowbird.experiments.cell import EVIDENCE, Cell, Planted, cells
from cowbird.experiments.choosing import Choosings
from cowbird.experiments.detecting import DETECTIONS, EVERYWHERE, NOBODY
from cowbird.experiments.evidence import Evidence
from cowbird.experiments.judging import Answers
from cowbird.experiments.results import Row, Where
from cowbird.experiments.spec import Spec
from cowbird.files import sha256
from cowbird.rng import stream
from cowbird.victims.base import Chooser, Judge

Key = tuple[str, str, str, str]
"""Labels of victim, attack, defense and scenario."""
Record = Evidence | Answers | Choosings
"""One attack in one scenario under one seed."""


class Ledger:
    """Keeps the rows of finished cells.

    Args:
        spec: The experiment.
        out: Its folder.
    """

    def __init__(self, spec: Spec, out: Path) -> None:
        self.spec, self.out = spec, out
        self._evidence: dict[Key, dict[int, Record]] = {}
        self._detected: dict[tuple[str, str, str], dict[int, list[Row]]] = {}
        self._single: dict[tuple[Key, int], list[Row]] = {}
        self._pooled: dict[tuple[Key, tuple[int, ...]], list[Row]] = {}
        self._read: set[Path] = set()
        self._errors: dict[Path, list[str]] = {}

    def _where(self, key: Key) -> Where:
        victim, attack, defense, scenario = key
        return Where(
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
        finished = [cell for cell in cells(self.spec, self.out) if cell.done]
        for cell in finished:
            if cell.folder not in self._read:
                self._errors[cell.folder] = read_finished(cell)[0]
                for record in _load(cell):
                    key = (cell.victim.title(), record.attack, record.defense, record.scenario)
                    self._evidence.setdefault(key, {})[cell.seed] = record
                if (cell.folder / DETECTIONS).exists():
                    for found in detecting.load(cell.folder / DETECTIONS):
                        place = (cell.victim.title(), found.attack, found.defense)
                        where = self._where((*place, EVERYWHERE)).model_copy(update={"seed": cell.seed})
                        self._detected.setdefault(place, {})[cell.seed] = detecting.rows_of(where, found)
                self._read.add(cell.folder)
        return len(finished)

    def errors(self) -> list[str]:
        """Return what could not be measured in the finished cells, in the order of the spec."""
        return [error for cell in cells(self.spec, self.out) for error in self._errors.get(cell.folder, [])]

    def rows(self, pooled: bool) -> list[Row]:
        """Return the rows of the finished cells.

        Args:
            pooled: Whether to add the rows of all seeds together.
        """
        found: list[Row] = []
        for key in self._ordered():
            seeds = {seed: self._evidence[key][seed] for seed in self.spec.seeds if seed in self._evidence[key]}
            single: list[Row] = []
            for seed, record in seeds.items():
                if (key, seed) not in self._single:
                    self._single[key, seed] = self._rows(key, seed, record)
                single += self._single[key, seed]
            found += single
            if pooled:
                known = (key, tuple(seeds))
                if known not in self._pooled:
                    ranked = [record for record in seeds.values() if isinstance(record, Evidence)]
                    where = self._where(key)
                    self._pooled[known] = results.pooled_rows(where, ranked, self.spec.ks) if ranked else []
                found += self._pooled[known] + results.over_seeds(single)
        return results.unique([*found, *self._detections(pooled)])

    def _detections(self, pooled: bool) -> list[Row]:
        """Return the rows of what defenses flagged, in the order of the spec, those of the clean catalogue last."""
        found: list[Row] = []
        attacks = [*(part.title() for part in self.spec.attacks), NOBODY]
        for victim in self.spec.victims:
            for attack in attacks:
                for defense in self.spec.defenses:
                    seeds = self._detected.get((victim.title(), attack, defense.title()), {})
                    single = [row for seed in self.spec.seeds for row in seeds.get(seed, [])]
                    found += single + (results.over_seeds(single) if pooled else [])
        return found

    def _rows(self, key: Key, seed: int, record: Record) -> list[Row]:
        where, bare = self._where(key), self._bare(key, seed)
        here = where.model_copy(update={"seed": seed})
        match record, bare:
            case Answers(), Answers():
                return judging.rows_of(here, record) + judging.defended_rows(here, record, bare)
            case Choosings(), Choosings():
                return choosing.rows_of(where, seed, record) + choosing.defended_rows(where, seed, record, bare)
            case Evidence(), Evidence():
                rng = stream(seed, "bootstrap", "defended", *key)
                defended = results.defended_rows(here, record, bare, self.spec.ks, rng)
                return results.seed_rows(where, seed, record, self.spec.ks) + defended
            case Answers(), _:
                return judging.rows_of(here, record)
            case Choosings(), _:
                return choosing.rows_of(where, seed, record)
            case _:
                assert isinstance(record, Evidence)
                return results.seed_rows(where, seed, record, self.spec.ks)

    def _bare(self, key: Key, seed: int) -> Record | None:
        """Return what was measured in the same place without a defense, if this is another."""
        victim, attack, defense, scenario = key
        for part in self.spec.defenses:
            if isinstance(part.options, NoDefense) and part.title() != defense:
                return self._evidence.get((victim, attack, part.title(), scenario), {}).get(seed)
        return None

    def _ordered(self) -> list[Key]:
        """Return what was measured in the order of the spec, whichever cell was finished first."""
        kinds = (self.spec.victims, self.spec.attacks, self.spec.defenses, self.spec.scenarios)
        places = [{part.title(): number for number, part in enumerate(parts)} for parts in kinds]
        return sorted(self._evidence, key=lambda key: [place[name] for place, name in zip(places, key, strict=True)])

    def write(self, pooled: bool) -> list[Row]:
        """Write `results.jsonl` and return its rows."""
        rows = self.rows(pooled)
        results.write(self.out / "results.jsonl", rows)
        return rows

    def planted(self) -> dict[str, Planted]:
        """Return what each attack planted, from the first finished cell that has it."""
        found: dict[str, Planted] = {}
        for cell in cells(self.spec, self.out):
            if cell.done:
                for attack, plan in read_finished(cell)[1].items():
                    found.setdefault(attack, plan)
        return found


def _load(cell: Cell) -> Sequence[Record]:
    """Return the evidence of a cell, which is of the kind that its victim gives.

    Raises:
        UserError: If the file is damaged or of another kind.
    """
    match cell.victim.options:
        case Judge():
            return judging.load(cell.folder / EVIDENCE)
        case Chooser():
            return choosing.load(cell.folder / EVIDENCE)
        case _:
            return evidence.load(cell.folder / EVIDENCE)


def read_finished(cell: Cell) -> tuple[list[str], dict[str, Planted]]:
    """Return the errors and plans of a finished cell, after a look at whether its files are whole.

    Raises:
        UserError: If they are not.
    """
    path = cell.folder / "cell.json"
    again = f"Remove '{path}' and resume; the cell is then measured again."
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        errors, seals = [str(error) for error in record["errors"]], {EVIDENCE: str(record["evidence"])}
        if record.get("detections") is not None:
            seals[DETECTIONS] = str(record["detections"])
        plans = {str(name): Planted.model_validate(plan) for name, plan in record["plans"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"'{path}' is damaged.", again) from None
    for name, seal in seals.items():
        held = cell.folder / name
        if not held.exists() or sha256(held) != seal:
            raise UserError(f"'{held}' is missing or damaged: its SHA-256 is not the recorded one.", again)
    return errors, plans
