"""The files of a run as reports read them: rows, spec, machine, cells. Nothing in them is trusted.

A run is a folder that `cowbird run` wrote, its `results.jsonl` alone, or a CSV file of rows such as those under
`docs/results`. What a file lacks is missing from the report, and the report says so.
"""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from cowbird.errors import UserError
from cowbird.experiments.cell_files import PlantedSummary
from cowbird.experiments.measures import MEASURES, OVER_SEEDS
from cowbird.experiments.results import Row, read_results, summarize_seeds
from cowbird.files import hash_file

RESULTS_NAME = "results.jsonl"
"""The file of a run's folder that holds its rows."""
ROW_HINT = "Give a folder that `cowbird run` wrote, its results.jsonl, or a CSV file with the same columns."
MAX_JSON_BYTES = 1 << 26
"""Largest record of a run that is read."""


@dataclass(frozen=True)
class CellFacts:
    """What is on record about one cell."""

    victim: str
    """Label of the victim."""
    seed: str
    """The seed, as text."""
    device: str
    """Where its models lived."""
    hashes: dict[str, str]
    """SHA-256 of its models and evidence, by name."""
    plans: dict[str, PlantedSummary]
    """What each attack planted."""
    errors: tuple[str, ...]
    """What could not be measured, and why."""
    seconds: float
    """Seconds that are on record of its steps."""
    folder: Path
    """Where it lies."""


@dataclass(frozen=True)
class RunFiles:
    """One run."""

    label: str
    """What reports call it."""
    path: Path
    """What the reader named."""
    rows: tuple[Row, ...]
    """Its rows as they stand in the file."""
    sha256: str
    """SHA-256 of the file of rows."""
    folder: Path | None = None
    """Its folder; `None` if only a file of rows was given."""
    spec: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The record of its spec; empty if there is none."""
    spec_sha256: str = ""
    """SHA-256 of that."""
    machine: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What `run.json` tells of the machine and of trouble; empty if there is none."""
    cells: tuple[CellFacts, ...] = ()
    """Its cells that have a record."""
    damaged: tuple[str, ...] = ()
    """Names of its records that are missing or can't be read."""

    def list_parts(self, kind: str) -> list[Mapping[str, Any]]:
        """Return the entries of a list of the spec, such as `attacks`."""
        return _pick_tables(self.spec.get(kind))

    def find_undefended(self) -> str:
        """Return the label of the defense that does nothing."""
        for part in self.list_parts("defenses"):
            if part.get("name") == "none":
                return str(part.get("label") or "none")
        return "none"


def read_runs(paths: Sequence[Path]) -> list[RunFiles]:
    """Read runs; each gets a label of its own.

    Raises:
        UserError: If one can't be read or holds no rows.
    """
    runs: list[RunFiles] = []
    for path in paths:
        run = read_run(path)
        taken = {each.label for each in runs}
        label, number = run.label, 2
        while label in taken:
            label, number = f"{run.label} ({number})", number + 1
        runs.append(replace(run, label=label))
    return runs


def read_run(path: Path) -> RunFiles:
    """Read one run.

    Args:
        path: Its folder, or a file of rows.

    Raises:
        UserError: If it can't be read or holds no rows.
    """
    folder = path if path.is_dir() else None
    file = path / RESULTS_NAME if folder is not None else path
    if not file.is_file():
        found = "has no results.jsonl" if folder is not None else "is no file"
        raise UserError(f"'{path}' {found}.", ROW_HINT)
    rows = read_csv_rows(file) if file.suffix.lower() == ".csv" else read_results(file)
    _check_finite(rows, file)
    _check_repeats(rows, file)
    if not rows:
        raise UserError(f"'{file}' holds no rows.", "Go on with the run: cowbird run … --resume.")
    label = (path.resolve().name if folder is not None else path.stem) or "run"
    sha256 = hash_file(file)
    if folder is None:
        return RunFiles(label, path, tuple(rows), sha256)
    cells = sorted(folder.glob("cells/*/cell.json"))
    records = {path: _read_record(path) for path in (folder / "spec.json", folder / "run.json", *cells)}
    record, machine = records[folder / "spec.json"], records[folder / "run.json"]
    spec = record.get("spec")
    return RunFiles(
        label,
        path,
        tuple(rows),
        sha256,
        folder,
        cast("dict[str, Any]", spec) if isinstance(spec, dict) else {},
        str(record.get("sha256", "")),
        machine,
        tuple(_read_cell(path, records[path]) for path in cells),
        tuple(str(path.relative_to(folder)) for path, held in records.items() if not held),
    )


def read_csv_rows(path: Path) -> list[Row]:
    """Read rows from CSV, as `cowbird.experiments.results.to_csv` writes them.

    Raises:
        UserError: If the file can't be read, lacks a column, or a line is no row.
    """
    rows: list[Row] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in Row.model_fields if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"'{path}' has no column '{missing[0]}'.", ROW_HINT)
            for number, cells in enumerate(reader, 2):
                rows.append(_parse_cells(cells, number, path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"'{path}' can't be read: {error}.", ROW_HINT) from None
    return rows


def _parse_cells(cells: Mapping[str | None, Any], number: int, path: Path) -> Row:
    optional = ("seed", "value", "low", "high")
    values = {name: cells[name] or None if name in optional else cells[name] for name in Row.model_fields}
    try:
        return Row.model_validate(values)
    except ValidationError as error:
        place = error.errors()[0]["loc"]
        raise UserError(
            f"Line {number} of '{path}' is not a result row: see column '{place[0] if place else '?'}'.", ROW_HINT
        ) from None


def _check_finite(rows: Iterable[Row], path: Path) -> None:
    for number, row in enumerate(rows, 1):
        if any(value is not None and not math.isfinite(value) for value in (row.value, row.low, row.high)):
            raise UserError(f"Row {number} of '{path}' holds a number that is not finite.", "Was the file edited?")


def _check_repeats(rows: Iterable[Row], path: Path) -> None:
    """Refuse two rows that measure the same and differ; a report would show one of them, and nobody knew which."""
    known: dict[tuple[object, ...], tuple[int, Row]] = {}
    for number, row in enumerate(rows, 1):
        place = (row.experiment, row.dataset, row.victim, row.attack, row.defense, row.scenario, row.group)
        first, other = known.setdefault((*place, row.metric, row.k, row.seed), (number, row))
        if other != row:
            raise UserError(
                f"Rows {first} and {number} of '{path}' measure the same, and differ.",
                "Was the file edited, or joined from two? Give each run by itself.",
            )


def add_spreads(rows: Sequence[Row]) -> list[Row]:
    """Return rows with the mean over seeds of every measurement that has two seeds and lacks one."""
    known = {
        (row.victim, row.attack, row.defense, row.scenario, row.group, row.metric, row.k)
        for row in rows
        if row.metric.endswith(OVER_SEEDS.suffix)
    }
    made = summarize_seeds(row for row in rows if row.metric in MEASURES)
    places = [(row.victim, row.attack, row.defense, row.scenario, row.group, row.metric, row.k) for row in made]
    return [*rows, *(row for row, place in zip(made, places, strict=True) if place not in known)]


def _read_record(path: Path) -> dict[str, Any]:
    """Return a JSON object; empty if there is none that can be read."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            return {}
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", held) if isinstance(held, dict) else {}


def _read_cell(path: Path, record: Mapping[str, Any]) -> CellFacts:
    hashes = {f"model {name}": seal for name, seal in _pick_texts(record.get("models")).items()}
    hashes |= {f"evidence {name}": seal for name, seal in _pick_texts(record.get("evidence")).items()}
    plans: dict[str, PlantedSummary] = {}
    for name, plan in _pick_table(record.get("plans")).items():
        try:
            plans[name] = PlantedSummary.model_validate(plan)
        except ValidationError:
            continue
    errors = [*_pick_list(record.get("errors")), *_pick_list(record.get("unmeasured"))]
    times = _pick_table(record.get("seconds")).values()
    return CellFacts(
        str(record.get("victim", path.parent.name)),
        str(record.get("seed", "")),
        str(record.get("device", "")),
        hashes,
        plans,
        tuple(map(str, errors)),
        sum(float(each) for each in times if isinstance(each, int | float) and math.isfinite(each)),
        path.parent,
    )


def _pick_list(value: object) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _pick_table(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _pick_texts(value: object) -> dict[str, str]:
    return {name: text for name, text in _pick_table(value).items() if isinstance(text, str)}


def _pick_tables(value: object) -> list[Mapping[str, Any]]:
    return [cast("dict[str, Any]", each) for each in _pick_list(value) if isinstance(each, dict)]
