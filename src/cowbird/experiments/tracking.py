"""Finished cells in an MLflow store, as it is asked for (`--track mlflow`, extra `tracking`): a run of theirs for each.

Tracking neither holds a run up nor fails it. A thread hands the cells over, and at the end it is waited for a moment.
What could not be handed over is told as a warning; the folder of the run has all of it anyway.

The store is what `MLFLOW_TRACKING_URI` names; without it, files in the folder `mlruns` of the run.
"""

import json
import os
import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from cowbird.errors import UserError
from cowbird.experiments.cell import Cell
from cowbird.experiments.results import NO_K, Row
from cowbird.experiments.results_file import ResultsFile
from cowbird.ingest.addresses import redact_reason

TRACKERS = ("mlflow",)
"""Where cells can be tracked."""
ADDRESS_VARIABLE = "MLFLOW_TRACKING_URI"
"""The environment variable that names the store."""
SECONDS_TO_FINISH = 60.0
"""How long a run waits at its end for cells that are not handed over yet."""
MAX_BATCH = 100
"""Values that the store takes at a time."""
MAX_PARAM_LENGTH = 500
"""Characters of a setting that the store takes."""
_ODD = re.compile(r"[^\w.\- /]")
"""What no name of a measure or setting may have there."""


@dataclass(frozen=True)
class TrackedCell:
    """What is told of a cell."""

    name: str
    """VICTIM-SEED."""
    params: Mapping[str, str]
    """Settings, by name."""
    measures: Mapping[str, float]
    """Values, by place and measure."""
    rows: str
    """All rows of the cell, as `results.jsonl` has them."""


class TrackingStore(Protocol):
    """Where cells go."""

    def write(self, cell: TrackedCell) -> None:
        """Keep what is told of a cell; may raise anything."""
        ...


def check_tracker(name: str) -> None:
    """Check that cells can be tracked in a store of a kind.

    Raises:
        UserError: If there is no such kind, or its library is not installed.
    """
    if name not in TRACKERS:
        raise UserError(f"Cells can't be tracked in '{name}'.", f"Known: {', '.join(TRACKERS)}.")
    if find_spec("mlflow") is None:
        raise UserError(
            "--track mlflow needs the library 'mlflow-skinny', which is not installed.",
            "Install it with: pip install 'cowbird[tracking]'. Or leave out --track.",
        )


class CellTracker:
    """Hands finished cells to a store, in a thread of its own.

    Args:
        open_store: Opens the store; called in the thread.
        warn: Told of what could not be handed over.
    """

    def __init__(self, open_store: Callable[[], TrackingStore], warn: Callable[[str], None]) -> None:
        self._open, self._warn = open_store, warn
        self._waiting: queue.SimpleQueue[Cell | None] = queue.SimpleQueue()
        self._faults: list[str] = []
        self._given = self._handled = 0
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def add(self, cell: Cell) -> None:
        """Have a finished cell handed over; returns at once."""
        self._given += 1
        self._waiting.put(cell)

    def finish(self) -> None:
        """Wait a moment for what is not handed over yet, and tell what could not be."""
        self._waiting.put(None)
        self._thread.join(SECONDS_TO_FINISH)
        left = self._given - self._handled
        if left:
            self._warn(f"{_count(left)} not tracked: the store did not take them in {SECONDS_TO_FINISH:.0f} s.")
        if self._faults:
            self._warn(f"{_count(len(self._faults))} not tracked: {self._faults[0]}.")

    def _work(self) -> None:
        store: TrackingStore | None = None
        with suppress(Exception):  # told with the first cell, if it stays so
            store = self._open()
        while (cell := self._waiting.get()) is not None:
            try:
                store = store or self._open()
                store.write(describe_cell(cell))
            except Exception as error:  # whatever a store does, the run goes on
                first = hide_address(str(error)).strip().partition("\n")[0].rstrip(".")
                self._faults.append(f"{cell.folder.name}: {first or type(error).__name__}")
            self._handled += 1


def _count(cells: int) -> str:
    return "A cell was" if cells == 1 else f"{cells} cells were"


def hide_address(text: str) -> str:
    """Return what a store says without the name and the password that its address may hold."""
    address = os.environ.get(ADDRESS_VARIABLE, "")
    try:
        urlsplit(address)
    except ValueError:
        return "the store's address can't be read"
    return redact_reason(text, address)


def describe_cell(cell: Cell) -> TrackedCell:
    """Return what is told of a finished cell: its settings, its measures, and its rows."""
    results = ResultsFile(cell.spec, cell.folder.parents[1])
    results.update([cell])
    rows = results.make_rows(pooled=False)
    settings = {
        "experiment": cell.spec.name,
        "seed": cell.seed,
        "dataset": cell.spec.dataset.model_dump(mode="json"),
        "victim": cell.victim.model_dump(mode="json"),
    }
    for key in ("attacks", "defenses", "scenarios"):
        settings[key] = {part.title(): part.model_dump(mode="json") for part in getattr(cell.spec, key)}
    return TrackedCell(
        cell.folder.name,
        {_ODD.sub("_", name): value[:MAX_PARAM_LENGTH] for name, value in _flatten("", settings)},
        {name_measure(row): row.value for row in rows if row.value is not None},
        "".join(json.dumps(row.model_dump(mode="json")) + "\n" for row in rows),
    )


def name_measure(row: Row) -> str:
    """Return what a measurement is called in the store: its place, and the measure with its cut-off."""
    k = "" if row.k == NO_K else f"_k{row.k}"
    place = (row.attack, row.defense, row.scenario, row.group, f"{row.metric}{k}")
    return "/".join(_ODD.sub("_", part) for part in place)


def _flatten(prefix: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield the single values of nested tables, with their paths."""
    if isinstance(value, dict):
        for key, inner in cast("dict[str, object]", value).items():
            yield from _flatten(f"{prefix}.{key}" if prefix else key, inner)
    elif value not in (None, ""):
        yield prefix, value if isinstance(value, str) else json.dumps(value)


class MlflowStore:
    """A store of MLflow.

    Args:
        experiment: The name of the experiment there; it is made if it is not there.
        folder: Where files go if no store is named.
    """

    def __init__(self, experiment: str, folder: Path) -> None:
        address = os.environ.get(ADDRESS_VARIABLE)
        if not address:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # it asks for a yes to files
            address = folder.resolve().as_uri()
        from mlflow import entities  # noqa: PLC0415
        from mlflow.tracking import MlflowClient  # noqa: PLC0415

        self._entities: Any = entities
        self._client: Any = MlflowClient(tracking_uri=address)
        known = self._client.get_experiment_by_name(experiment)
        if known is None:
            with suppress(Exception):  # another process was faster
                self._client.create_experiment(experiment)
            known = self._client.get_experiment_by_name(experiment)
        self._number = known.experiment_id

    def write(self, cell: TrackedCell) -> None:
        """Keep what is told of a cell; see `TrackingStore`."""
        number = self._client.create_run(self._number, run_name=cell.name).info.run_id
        params = [self._entities.Param(name, value) for name, value in cell.params.items()]
        measures = [self._entities.Metric(name, value, 0, 0) for name, value in cell.measures.items()]
        for some in _split(params):
            self._client.log_batch(number, params=some)
        for some in _split(measures):
            self._client.log_batch(number, metrics=some)
        self._client.log_text(number, cell.rows, "results.jsonl")
        self._client.set_terminated(number)


def _split(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for first in range(0, len(values), MAX_BATCH):
        yield values[first : first + MAX_BATCH]
