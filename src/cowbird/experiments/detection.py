"""What defenses that read titles flag, beside the truth: evidence of a cell apart from what its models answered.

A defense judges the catalogue as the attack left it, and the clean one. What it made of either is kept when it is done,
so that a killed cell goes on without judging again. Beside the truth it is evidence, a file for each attack and
defense: each title's score and span, whether it was flagged, and whether its item's interactions left the training
data. Rows are made from that file alone. Their scenario is `none`, for what a platform does afterwards changes nothing
about them; the attack of rows about the clean catalogue is `none`.

The truth about a title is whether its text differs from the clean catalogue's, or is a new listing's that carries the
trigger. Seeds are not pooled: they share their clean titles, so an interval over all of them would be too narrow.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cowbird.attacks.base import Attack, PoisonedData
from cowbird.attacks.triggers import Trigger, plant
from cowbird.data.types import Int32Array, Int64Array, Items, TrainingData
from cowbird.defenses.base import Defense
from cowbird.defenses.titles import Suspicion, TitleDefense, Verdict
from cowbird.experiments.measures import Measure
from cowbird.experiments.results import Row, RowLabels
from cowbird.experiments.shipped_measures import (
    DETECTION_AUROC,
    FALSE_POSITIVE_RATE,
    FLAGGED,
    LOST_CLEAN_EVENTS,
    LOST_CLEAN_ITEMS,
    NO_ATTACK,
    PRECISION,
    RECALL,
    RECALL_FPRS,
    SPAN_IOU,
)
from cowbird.experiments.store import ColumnStore, hash_parts
from cowbird.metrics.auc import auc
from cowbird.metrics.detection import Span, count_detections, recall_at_fpr, span_iou
from cowbird.metrics.intervals import Interval, bootstrap_mean, wilson
from cowbird.rng import stream
from cowbird.victims.base import Probe


class TitleInspector:
    """Judges catalogues, each once, and keeps what it made of them.

    Args:
        folder: Where it is kept.
        warn: Told of damage that was worked around.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self._kept = ColumnStore(folder, warn, "of another catalogue", "Judging again.")
        self.seconds: dict[str, float] = {}
        """How long each catalogue took."""
        self._known: dict[str, Verdict] = {}

    def judge(
        self, label: str, defense: TitleDefense, titles: Sequence[str], probe: Callable[[], Probe] | None = None
    ) -> Verdict:
        """Return what a defense makes of a catalogue's titles.

        Args:
            label: Name of the catalogue and the defense; no other has it.
            defense: The defense.
            titles: The titles.
            probe: Makes the probe of the victim; asked if the defense asks for it and nothing is kept.
        """
        if label not in self._known:
            origin = hash_parts(titles)
            kept = self._kept.read(label, origin)
            if kept is None:
                asked = probe() if probe is not None and defense.asks_victim else None
                began = time.perf_counter()
                kept = _to_columns(defense.judge(titles, asked).found)
                self._kept.write(label, origin, kept)
                self.seconds[f"{label}@titles"] = round(time.perf_counter() - began, 2)
            self._known[label] = defense.decide(titles, Suspicion(**kept))
        return self._known[label]

    def has_flagged(self, label: str) -> bool:
        """Return whether a defense flagged anything in a catalogue that was judged."""
        return bool(self._known[label].flagged.any())

    def clean(
        self, label: str, defense: Defense, data: TrainingData, probe: Callable[[], Probe] | None = None
    ) -> TrainingData:
        """Return training data as a defense cleans it; arguments as in `judge`."""
        if isinstance(defense, TitleDefense):
            return defense.apply(data, self.judge(label, defense, data.items.titles, probe))
        return defense.clean(data, probe() if probe is not None and defense.asks_victim else None)


def _to_columns(found: Suspicion) -> dict[str, NDArray[Any]]:
    return {"score": found.score, "start": found.start, "end": found.end}


# The truth


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Which titles of a catalogue an attack poisoned, and where."""

    poisoned: NDArray[np.bool_]
    """Which are poisoned, shape `[titles]`."""
    span_item: Int32Array
    """The title of each span of a trigger, increasing, shape `[spans]`."""
    span_start: Int32Array
    """First character of each span, shape `[spans]`."""
    span_end: Int32Array
    """The character after its last one, shape `[spans]`."""

    @staticmethod
    def of(count: int, spans: Mapping[int, Sequence[Span]]) -> "Truth":
        """Return the truth about `count` titles of which those that `spans` names are poisoned."""
        poisoned = np.zeros(count, dtype=bool)
        poisoned[list(spans)] = True
        flat = [(item, *span) for item in sorted(spans) for span in spans[item]]
        columns = np.array(flat, dtype=np.int32).reshape(-1, 3).T
        return Truth(poisoned, *columns)


def find_truth(attack: Attack, poisoned: PoisonedData) -> Truth:
    """Return what an attack did to the titles of the catalogue it left.

    Spans are those of `Attack.get_title_trigger` where planting it in the clean title gives the poisoned one. Otherwise
    they are what the two do not share at their beginning and end. A new listing has no clean title of its own: where
    planting the trigger in some title of the clean catalogue gives its title, that tells the span, and a listing whose
    title is one of the clean catalogue carries none.
    """
    trigger = attack.get_title_trigger()
    before, after = poisoned.clean.items.titles, poisoned.data.items.titles
    changed: list[int] = poisoned.retitled.tolist()
    spans: dict[int, Sequence[Span]] = {}
    for item in changed:
        if item < len(before) and before[item] != after[item]:
            spans[item] = _find_spans(before[item], after[item], trigger) or _find_difference(before[item], after[item])
    listed = {after[item] for item in changed if item >= len(before)}.difference(before)
    if listed:
        made = {new: found for old in before for new, found in _try_plantings(old, trigger) if new in listed}
        spans |= {item: made.get(after[item], ()) for item in changed if item >= len(before) and after[item] in listed}
    return Truth.of(len(after), spans)


def _try_plantings(title: str, trigger: Trigger | None) -> Iterator[tuple[str, tuple[Span, ...]]]:
    """Yield what a title can become when a trigger is planted in it, and the spans.

    Between two words it is planted as at the end of what stands before the second, so all places are tried undrawn.
    """
    if trigger is None:
        return
    ends = [len(title)]
    if trigger.position == "middle":
        trigger = trigger.model_copy(update={"position": "end"})
        ends = [word.end() for word in re.finditer(r"\S+", title)] + ends
    for end in ends:
        made = plant(title[:end], trigger, np.random.default_rng(0))
        yield made.title + title[end:], made.spans


def _find_spans(before: str, after: str, trigger: Trigger | None) -> tuple[Span, ...]:
    return next((spans for title, spans in _try_plantings(before, trigger) if title == after), ())


def _find_difference(before: str, after: str) -> tuple[Span, ...]:
    """Return what of one title stands between the beginning and the end that it shares with another, as one span."""
    most = min(len(before), len(after))
    start = next((at for at in range(most) if before[at] != after[at]), most)
    kept = next((at for at in range(most - start) if before[-1 - at] != after[-1 - at]), most - start)
    end = len(after) - kept
    new = after[start:end]
    if new.strip():
        start, end = end - len(new.lstrip()), start + len(new.rstrip())
    return ((start, end),) if start < end else ()


def make_clean_truth(items: Items) -> Truth:
    """Return the truth about a catalogue that nobody poisoned."""
    return Truth.of(len(items), {})


# The record


@dataclass(frozen=True, slots=True, eq=False)
class DetectionRecord:
    """What one defense made of the catalogue that one attack left, and the truth."""

    attack: str
    """Label of the attack; `none` for the clean catalogue."""
    defense: str
    """Label of the defense."""
    found: Suspicion
    """How suspicious the titles are, and where."""
    flagged: NDArray[np.bool_]
    """Which were flagged, shape `[titles]`."""
    dropped: NDArray[np.bool_]
    """Which took their items' interactions with them, shape `[titles]`."""
    events: Int64Array
    """Interactions of each item in the clean training data, shape `[titles]`."""
    truth: Truth
    """Which are poisoned, and where."""


DETECTION_COLUMNS = {
    **{"score": np.float32, "start": np.int32, "end": np.int32, "flagged": np.bool_, "dropped": np.bool_},
    **{"events": np.int64, "poisoned": np.bool_},
}
"""Columns of a value a title, and what they hold."""
SPAN_COLUMNS = ("span_item", "span_start", "span_end")


def make_record(attack: str, defense: str, verdict: Verdict, clean: TrainingData, truth: Truth) -> DetectionRecord:
    """Put what a defense made of a catalogue beside the truth.

    Args:
        attack: Label of the attack.
        defense: Label of the defense.
        verdict: What it made of the catalogue.
        clean: The clean training data.
        truth: What the attack did.
    """
    events = np.bincount(clean.interactions.item, minlength=len(verdict.titles))
    return DetectionRecord(attack, defense, verdict.found, verdict.flagged, verdict.dropped, events, truth)


def encode_record(one: DetectionRecord) -> dict[str, NDArray[Any]]:
    """Return a record as named columns, without its labels."""
    columns = _to_columns(one.found) | {"flagged": one.flagged, "dropped": one.dropped, "events": one.events}
    truth = one.truth
    spans = {"span_item": truth.span_item, "span_start": truth.span_start, "span_end": truth.span_end}
    return columns | {"poisoned": truth.poisoned} | spans


def decode_record(attack: str, defense: str, columns: Mapping[str, NDArray[Any]]) -> DetectionRecord:
    """Return the record that columns hold.

    Args:
        attack: Label of the attack.
        defense: Label of the defense.
        columns: What `encode_record` returned.

    Raises:
        ValueError: If they hold none.
        KeyError: If one is missing.
    """
    if any(len({columns[name].shape for name in names}) != 1 for names in (DETECTION_COLUMNS, SPAN_COLUMNS)):
        raise ValueError("its columns do not align")
    if any(columns[name].dtype != kind for name, kind in DETECTION_COLUMNS.items()):
        raise ValueError("its columns are of other kinds")
    found = Suspicion(columns["score"], columns["start"], columns["end"])
    truth = Truth(columns["poisoned"], *(columns[name] for name in SPAN_COLUMNS))
    return DetectionRecord(attack, defense, found, columns["flagged"], columns["dropped"], columns["events"], truth)


# The rows


@dataclass
class _RowCollector:
    """Collects rows."""

    where: RowLabels
    rows: list[Row] = field(default_factory=list[Row])

    def add(self, metric: Measure, found: Interval) -> None:
        self.rows.append(self.where.make_row("all", metric, found))

    def add_count(self, metric: Measure, some: NDArray[np.bool_]) -> None:
        self.add(metric, Interval(float(some.sum()), None, None, len(some)))


def make_rows(where: RowLabels, one: DetectionRecord) -> list[Row]:
    """Return the rows of one seed.

    `detection_auroc` has DeLong's interval, shares of titles have Wilson's, and `span_iou`, the mean over poisoned
    titles that were flagged, has a bootstrap over them (`None` if the defense names no spans). Recall at a
    false-positive rate is at the threshold that the rate sets on the clean titles of the same catalogue. Counts, and
    the share of the clean events that left with clean items, have no interval: their sample is the catalogue.
    """
    rows, truth, clean = _RowCollector(where), one.truth.poisoned, ~one.truth.poisoned
    # Only the order of scores counts; as ranks they are finite, with nothing to judge as the lowest.
    score = np.unique(one.found.score, return_inverse=True)[1].astype(np.float64)
    told = count_detections(one.flagged, truth)
    bad, wrong = int(truth.sum()), told.false_positives
    if one.attack != NO_ATTACK:
        rows.add(DETECTION_AUROC, auc(score, truth))
        for measure, rate in RECALL_FPRS.items():
            caught = recall_at_fpr(score, truth, rate)
            found = Interval(None, None, None, bad) if caught is None else wilson(round(caught * bad), bad)
            rows.add(measure, found)
        # Of what was flagged nothing is a hit where there is nothing to hit: precision is then not measured.
        known = told.true_positives + wrong if bad else 0
        rows.add(PRECISION, wilson(told.true_positives, known))
        rows.add(RECALL, wilson(told.true_positives, bad))
        rows.add(SPAN_IOU, _span_iou(where, one))
    rows.add(FALSE_POSITIVE_RATE, wilson(wrong, int(clean.sum())))
    rows.add_count(FLAGGED, one.flagged)
    lost = one.dropped[clean]
    rows.add_count(LOST_CLEAN_ITEMS, lost)
    events = int(one.events.sum())
    share = int(one.events[clean][lost].sum()) / events if events else None
    rows.add(LOST_CLEAN_EVENTS, Interval(share, None, None, events))
    return rows.rows


def _span_iou(where: RowLabels, one: DetectionRecord) -> Interval:
    """Return how well spans of flagged poisoned titles are found, where the truth about them is known."""
    truth, found = one.truth, one.found
    caught = np.flatnonzero(one.flagged & truth.poisoned)
    known: list[int] = caught[np.isin(caught, truth.span_item)].tolist()
    if not (found.start >= 0).any():
        return Interval(None, None, None, len(known))
    overlaps: list[float] = []
    for item in known:
        spans = slice(*np.searchsorted(truth.span_item, [item, item + 1]).tolist())
        real: list[Span] = list(zip(truth.span_start[spans].tolist(), truth.span_end[spans].tolist(), strict=True))
        start, end = int(found.start[item]), int(found.end[item])
        overlaps.append(span_iou([(start, end)] if start >= 0 else [], real) or 0.0)
    rng = stream(where.seed or 0, "bootstrap", where.victim, where.attack, where.defense, "span_iou")
    return bootstrap_mean(overlaps, rng)
