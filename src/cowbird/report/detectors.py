"""What detectors of titles find: a table from the rows, and ROC and precision-recall curves from the evidence.

Curves need a run's folder: they are made of the scores that each cell keeps. Titles with equal scores are passed
together. The curve of a detector that names no scores is a single step.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from cowbird.attacks.triggers import TRIGGERS
from cowbird.experiments.cell_files import EVIDENCE_FOLDER, name_detections
from cowbird.experiments.measures import Measure
from cowbird.experiments.results import NO_K, Row
from cowbird.experiments.shipped_measures import (
    DETECTION_AUROC,
    FALSE_POSITIVE_RATE,
    LOST_CLEAN_ITEMS,
    NO_ATTACK,
    PRECISION,
    RECALL,
    RECALL_FPRS,
    SPAN_IOU,
)
from cowbird.metrics.intervals import wilson
from cowbird.report.run_files import RunFiles, add_spreads
from cowbird.report.selection import select_overall

DETECTOR_MEASURES: tuple[Measure, ...] = (
    RECALL,
    PRECISION,
    FALSE_POSITIVE_RATE,
    DETECTION_AUROC,
    *RECALL_FPRS,
    SPAN_IOU,
    LOST_CLEAN_ITEMS,
)
"""What the table of detectors shows."""
MAX_CURVE_POINTS = 240
"""Points of a curve that are drawn at most."""
CUSTOM_FAMILY = "custom"
"""The family of a trigger that does not ship."""


@dataclass(frozen=True, slots=True, eq=False)
class FlaggedTitles:
    """What a detector made of the catalogue that an attack left in one cell, beside the truth."""

    victim: str
    """Label of the cell's victim."""
    seed: str
    """The cell's seed."""
    attack: str
    """Label of the attack; `none` for the clean catalogue."""
    defense: str
    """Label of the detector."""
    score: NDArray[np.float64]
    """How suspicious the titles are, shape `[titles]`."""
    flagged: NDArray[np.bool_]
    """Which were flagged, shape `[titles]`."""
    poisoned: NDArray[np.bool_]
    """Which are poisoned, shape `[titles]`."""
    spans: Mapping[int, tuple[int, int]]
    """Where the trigger stands, by title: its first character and the one after its last."""


@dataclass(frozen=True, slots=True)
class DetectorLine:
    """What one detector made of one attack's titles."""

    victim: str
    """Label of the victim, which some detectors ask."""
    attack: str
    """Label of the attack; `none` is the clean catalogue."""
    family: str
    """Family of the attack's trigger; empty if the spec does not tell."""
    defense: str
    """Label of the detector."""
    rows: Mapping[str, Row]
    """Its rows by measure."""


@dataclass(frozen=True, slots=True)
class DetectorCurve:
    """How a detector trades one error for the other, in one cell."""

    victim: str
    """Label of the victim."""
    seed: str
    """The seed."""
    attack: str
    """Label of the attack."""
    defense: str
    """Label of the detector."""
    roc: NDArray[np.float64]
    """False-positive and true-positive rate, shape `[points, 2]`."""
    recall_precision: NDArray[np.float64]
    """Recall and precision, shape `[points, 2]`."""


@dataclass(frozen=True, slots=True)
class FamilyRecall:
    """What a detector finds of one family of triggers, over the attacks and cells of a run."""

    family: str
    """The family."""
    defense: str
    """Label of the detector."""
    found: int
    """Poisoned titles that were flagged."""
    poisoned: int
    """Poisoned titles."""
    low: float
    """Lower end of Wilson's interval."""
    high: float
    """Upper end."""


def find_families(run: RunFiles) -> dict[str, str]:
    """Return the family of each attack's trigger, by the attack's label; attacks without a trigger are left out."""
    found: dict[str, str] = {}
    for part in run.list_parts("attacks"):
        options = part.get("options")
        trigger = cast("dict[str, Any]", options).get("trigger") if isinstance(options, dict) else None
        kind = cast("dict[str, Any]", trigger).get("kind") if isinstance(trigger, dict) else None
        if isinstance(kind, str):
            shipped = TRIGGERS.get(kind)
            found[str(part.get("label") or part.get("name"))] = CUSTOM_FAMILY if shipped is None else shipped.family
    return found


def list_detector_lines(run: RunFiles) -> list[DetectorLine]:
    """Return a line a detector and attack, those that find least first, the clean catalogue last."""
    names = {measure.name for measure in DETECTOR_MEASURES}
    families = find_families(run)
    lines: dict[tuple[str, str, str], dict[str, Row]] = {}
    rows = [row for row in run.rows if row.metric.removesuffix("_over_seeds") in names]
    for ((victim, attack, defense, _), _, metric, k), row in select_overall(add_spreads(rows)).items():
        if k == NO_K and metric in names:
            lines.setdefault((victim, attack, defense), {})[metric] = row
    found = [
        DetectorLine(victim, attack, families.get(attack, ""), defense, known)
        for (victim, attack, defense), known in lines.items()
    ]
    return sorted(found, key=lambda line: (line.attack == NO_ATTACK, _get_recall(line), line.victim, line.defense))


def _get_recall(line: DetectorLine) -> float:
    row = line.rows.get(RECALL.name)
    return 0.0 if row is None or row.value is None else row.value


def load_flagged(run: RunFiles) -> Iterator[FlaggedTitles]:
    """Yield what detectors flagged in each cell; evidence that is damaged is left out."""
    places = sorted({(row.attack, row.defense) for row in run.rows if row.metric == FALSE_POSITIVE_RATE.name})
    for cell in run.cells:
        for attack, defense in places:
            path = cell.folder / EVIDENCE_FOLDER / f"{name_detections(attack, defense)}.safetensors"
            columns = _read_columns(path) if path.parent.parent == cell.folder and path.is_file() else {}
            try:
                yield _decode_flagged(cell.victim, cell.seed, attack, defense, columns)
            except (KeyError, ValueError, TypeError, IndexError):
                continue


def _read_columns(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a safetensors file; nothing if it is damaged. No torch is needed for that."""
    try:
        opened: Any = safe_open(path, framework="np")
        with opened as reader:
            names: list[str] = list(reader.keys())
            return {name: reader.get_tensor(name) for name in names}
    except (OSError, SafetensorError, TypeError, ValueError):
        return {}


def _decode_flagged(
    victim: str, seed: str, attack: str, defense: str, columns: Mapping[str, NDArray[Any]]
) -> FlaggedTitles:
    """Return what columns hold, as `cowbird.experiments.detection.encode_record` writes them.

    Raises:
        KeyError: If one is missing.
        ValueError: If they do not align, or a score is not a number.
    """
    score, flagged, poisoned = columns["score"].astype(np.float64), columns["flagged"], columns["poisoned"]
    spans = [columns[name] for name in ("span_item", "span_start", "span_end")]
    if score.ndim != 1 or not score.shape == flagged.shape == poisoned.shape or np.isnan(score).any():
        raise ValueError("its columns do not align")
    marked: dict[int, tuple[int, int]] = {}
    for item, start, end in zip(*(column.tolist() for column in spans), strict=True):
        marked.setdefault(int(item), (int(start), int(end)))
    return FlaggedTitles(
        victim, seed, attack, defense, score, flagged.astype(np.bool_), poisoned.astype(np.bool_), marked
    )


def make_curve(one: FlaggedTitles) -> DetectorCurve | None:
    """Return the curves of one detector in one cell; `None` if there is no poisoned title, or no clean one."""
    truth = one.poisoned
    bad, good = int(truth.sum()), int((~truth).sum())
    if not bad or not good:
        return None
    level = np.unique(-one.score, return_inverse=True)[1]
    hits = np.cumsum(np.bincount(level, weights=truth))
    misses = np.cumsum(np.bincount(level, weights=~truth))
    roc = np.stack([np.r_[0.0, misses / good], np.r_[0.0, hits / bad]], axis=1)
    recall_precision = np.stack([hits / bad, hits / (hits + misses)], axis=1)
    return DetectorCurve(
        one.victim, one.seed, one.attack, one.defense, thin_curve(roc), thin_curve(recall_precision[hits > 0])
    )


def thin_curve(points: NDArray[np.float64], most: int = MAX_CURVE_POINTS) -> NDArray[np.float64]:
    """Return a curve with fewer points: ends and even steps along its length stay, shape `[points, 2]`."""
    if len(points) <= most:
        return points
    moved: NDArray[np.float64] = np.abs(np.diff(points, axis=0)).sum(axis=1)
    length: NDArray[np.float64] = np.concatenate([np.zeros(1), np.cumsum(moved)])
    even: NDArray[np.float64] = np.linspace(0.0, float(length[-1]), most)
    steps: NDArray[np.int64] = np.searchsorted(length, even).astype(np.int64)
    kept = np.minimum(steps, len(points) - 1)
    return points[np.unique(np.r_[0, kept, len(points) - 1])]


def count_families(run: RunFiles, flagged: Sequence[FlaggedTitles]) -> list[FamilyRecall]:
    """Return what each detector finds of each family of triggers, the least first.

    Titles of several cells count together. Cells of several seeds share items, so the interval is rather too narrow.

    Args:
        run: The run, whose spec tells the families.
        flagged: What was flagged in its cells.
    """
    families = find_families(run)
    counts: dict[tuple[str, str], list[int]] = {}
    for one in flagged:
        if one.attack in families:
            count = counts.setdefault((families[one.attack], one.defense), [0, 0])
            count[0] += int((one.flagged & one.poisoned).sum())
            count[1] += int(one.poisoned.sum())
    found: list[FamilyRecall] = []
    for (family, defense), (hits, poisoned) in counts.items():
        ends = wilson(hits, poisoned)
        if ends.low is not None and ends.high is not None:
            found.append(FamilyRecall(family, defense, hits, poisoned, ends.low, ends.high))
    return sorted(found, key=lambda each: (each.found / each.poisoned, each.family, each.defense))
