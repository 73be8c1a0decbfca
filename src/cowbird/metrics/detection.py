"""How well a detector tells poisoned rows from clean ones, and how well it finds the trigger.

Scores grow with suspicion. A row is flagged where its score is *above* the threshold, here and everywhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cowbird.errors import UserError
from cowbird.metrics._arrays import Array, Flags, Floats, to_flags, to_floats, to_numpy


def _check_scores(scores: Array, poisoned: Array) -> tuple[Floats, Flags]:
    values = to_floats(scores, "scores")
    return values, to_flags(poisoned, "poisoned", values.shape)


def auroc(scores: Array, poisoned: Array) -> float | None:
    """Return the probability that a poisoned row scores above a clean one, ties counting half.

    The area under the ROC curve is the Mann-Whitney statistic over the number of pairs (Hanley and McNeil, Radiology
    1982).

    Args:
        scores: Suspicion of each row, shape `[rows]`.
        poisoned: Which rows are poisoned, shape `[rows]`.

    Returns:
        A value from 0 to 1, or `None` unless there are rows of both kinds.

    Raises:
        UserError: If shapes differ or a score is missing, NaN or infinite.
    """
    values, truth = _check_scores(scores, poisoned)
    clean = np.sort(values[~truth])
    bad = values[truth]
    if not len(clean) or not len(bad):
        return None
    twice = np.searchsorted(clean, bad, "left") + np.searchsorted(clean, bad, "right")
    return int(twice.sum()) / (2 * len(clean) * len(bad))


def threshold_at_fpr(clean_scores: Array, fpr: float) -> float | None:
    """Return the lowest observed threshold that flags at most a share `fpr` of the clean rows.

    Where clean scores tie at the threshold none of them is flagged, so the share may be lower than allowed, never
    higher.

    Args:
        clean_scores: Suspicion of clean rows, shape `[rows]`.
        fpr: Share of clean rows that may be flagged, from 0 to 1.

    Returns:
        The threshold in the unit of the scores (-inf where all may be flagged), or `None` without clean rows.

    Raises:
        UserError: If `fpr` is out of range, or a score is missing, NaN or infinite.
    """
    if not 0 <= fpr <= 1:
        raise UserError(f"A false-positive rate must lie from 0 to 1, and is {fpr}.", "1 % is 0.01.")
    values = np.sort(to_floats(clean_scores, "scores"))[::-1]
    if not len(values):
        return None
    allowed = int(fpr * len(values) + 1e-9)  # 0.29 * 100 is 28.999… in floating point
    return float(values[allowed]) if allowed < len(values) else -np.inf


def recall_at_fpr(scores: Array, poisoned: Array, fpr: float) -> float | None:
    """Return the share of poisoned rows flagged at the threshold that `threshold_at_fpr` sets on the clean ones.

    Args:
        scores: Suspicion of each row, shape `[rows]`.
        poisoned: Which rows are poisoned, shape `[rows]`.
        fpr: Share of clean rows that may be flagged, from 0 to 1.

    Returns:
        A value from 0 to 1, or `None` unless there are rows of both kinds.

    Raises:
        UserError: If shapes differ, `fpr` is out of range, or a score is missing, NaN or infinite.
    """
    values, truth = _check_scores(scores, poisoned)
    threshold = threshold_at_fpr(values[~truth], fpr)
    if threshold is None or not truth.any():
        return None
    return float((values[truth] > threshold).mean())


@dataclass(frozen=True, slots=True)
class Detection:
    """What a detector flagged, against the truth."""

    true_positives: int
    """Poisoned rows that were flagged."""
    false_positives: int
    """Clean rows that were flagged."""
    false_negatives: int
    """Poisoned rows that were missed."""
    true_negatives: int
    """Clean rows that were left alone."""

    @property
    def precision(self) -> float | None:
        """Share of the flagged rows that are poisoned; `None` if none was flagged."""
        return _divide(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float | None:
        """Share of the poisoned rows that were flagged; `None` if there are none."""
        return _divide(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def false_positive_rate(self) -> float | None:
        """Share of the clean rows that were flagged; `None` if there are none."""
        return _divide(self.false_positives, self.false_positives + self.true_negatives)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall, 2TP / (2TP + FP + FN); `None` if nothing is poisoned or flagged."""
        return _divide(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)


def _divide(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def count_detections(flagged: Array, poisoned: Array) -> Detection:
    """Count what was flagged rightly and wrongly; precision, recall and F1 follow (van Rijsbergen, 1979).

    Args:
        flagged: Which rows the detector flagged, shape `[rows]`.
        poisoned: Which rows are poisoned, shape `[rows]`.

    Returns:
        The counts.

    Raises:
        UserError: If shapes differ or the arrays are no masks.
    """
    shape = to_numpy(poisoned).shape
    found, truth = to_flags(flagged, "flagged", shape), to_flags(poisoned, "poisoned", shape)
    return Detection(
        int((found & truth).sum()),
        int((found & ~truth).sum()),
        int((~found & truth).sum()),
        int((~found & ~truth).sum()),
    )


def count_detections_at(scores: Array, poisoned: Array, threshold: float) -> Detection:
    """Count what a threshold flags rightly and wrongly.

    Args:
        scores: Suspicion of each row, shape `[rows]`.
        poisoned: Which rows are poisoned, shape `[rows]`.
        threshold: A row is flagged where its score is above it.

    Returns:
        The counts.

    Raises:
        UserError: If shapes differ or a score is missing, NaN or infinite.
    """
    values, truth = _check_scores(scores, poisoned)
    return count_detections(values > threshold, truth)


Span = tuple[int, int]
"""First position and the one after the last, in characters or tokens."""


def span_iou(found: Sequence[Span], truth: Sequence[Span]) -> float | None:
    """Return how well the spans found cover a trigger: positions in both over positions in either (Jaccard index).

    Args:
        found: Spans the detector points at. They may overlap; an empty one (start = end) holds nothing.
        truth: Spans of the trigger.

    Returns:
        A value from 0 to 1, or `None` if there is neither a trigger nor a finding.

    Raises:
        UserError: If a span begins below 0 or ends before it begins.
    """
    one, other = _list_positions(found), _list_positions(truth)
    return _divide(len(one & other), len(one | other))


def _list_positions(spans: Sequence[Span]) -> set[int]:
    for start, end in spans:
        if not 0 <= start <= end:
            raise UserError(f"({start}, {end}) is not a span.", "A span is (start, end) with 0 <= start <= end.")
    return {position for start, end in spans for position in range(start, end)}
