"""What charts of a report are made of: places in percent of the frame, so that a page draws them at any width.

The page draws them as SVG without a script: they need no library, print as they are, and take their colors from the
page's style sheet.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cowbird.experiments.results import Row
from cowbird.metrics.intervals import Interval
from cowbird.report.detectors import DetectorCurve
from cowbird.report.outcomes import Outcome
from cowbird.report.result_tables import format_interval, name_measure

MAX_TICKS = 5
"""Ticks of an axis at most."""
CURVE_STYLES = 6
"""How many styles of lines the style sheet has."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear axis."""

    title: str
    """What is drawn along it."""
    low: float
    """Its lower end, in the unit of the measure."""
    high: float
    """Its upper end."""
    ticks: tuple[tuple[float, str], ...]
    """Where ticks stand, in percent, and what is written there."""

    def place(self, value: float) -> float:
        """Return where a value stands, in percent; what lies outside stands at the end."""
        return round(min(max((value - self.low) / (self.high - self.low), 0.0), 1.0) * 100, 2)


@dataclass(frozen=True, slots=True)
class IntervalStrip:
    """A value with its interval on a line."""

    kind: str
    """`clean`, `attacked` or `defended`."""
    label: str
    """What it is of."""
    at: float | None
    """Where the value stands, in percent; `None` if it was not measured."""
    low: float | None
    """Where the interval begins; `None` if there is none."""
    high: float | None
    """Where it ends."""
    text: str
    """The value and the interval as text."""
    n: str
    """What it rests on."""
    seeds: tuple[float, ...]
    """Where the values of single seeds stand, if there are several."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A point of a scatter plot with both intervals."""

    number: int
    """What is written in it."""
    label: str
    """What it is of."""
    x: float
    """Where it stands from the left, in percent."""
    y: float
    """Where it stands from the top, in percent."""
    x_ends: tuple[float, float] | None
    """Ends of the horizontal interval."""
    y_ends: tuple[float, float] | None
    """Ends of the vertical interval."""
    text: str
    """Both values as text."""


@dataclass(frozen=True, slots=True)
class Scatter:
    """A scatter plot."""

    title: str
    """What it shows."""
    x: Axis
    """The horizontal axis."""
    y: Axis
    """The vertical axis; its percent count from below."""
    marks: tuple[Mark, ...]
    """The points."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a plot."""

    label: str
    """What it is of."""
    style: int
    """Which of the styles draws it."""
    points: str
    """Its points as SVG has them, from the top left, 0 … 100."""


@dataclass(frozen=True, slots=True)
class LinePlot:
    """A plot of lines between 0 and 1."""

    title: str
    """What it shows."""
    x: Axis
    """The horizontal axis."""
    y: Axis
    """The vertical axis."""
    lines: tuple[Line, ...]
    """The lines."""


def make_axis(title: str, values: Iterable[float], zero: bool = True) -> Axis:
    """Return an axis that holds some values, with round ticks.

    Args:
        title: What is drawn along it.
        values: What it must hold.
        zero: Whether it begins at zero or below.
    """
    held = [*values, 0.0] if zero else list(values)
    low, high = min(held, default=0.0), max(held, default=1.0)
    if high - low < 1e-9:
        high = low + 1.0
    step = _round_step((high - low) / (MAX_TICKS - 1))
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    digits = max(0, -math.floor(math.log10(step)))
    count = round((high - low) / step)
    ticks = tuple((100 * nth / count, f"{low + nth * step:.{digits}f}") for nth in range(count + 1))
    return Axis(title, low, high, ticks)


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2, 5, 10 … times a power of ten that is not below a step."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def make_strips(outcomes: Sequence[Outcome]) -> tuple[Axis, list[IntervalStrip]]:
    """Return the lines of one place: the clean model, the attacked one, and each defense."""
    first = outcomes[0]
    rows: list[tuple[str, str, Row | None, Sequence[float]]] = [
        ("clean", "clean model", first.clean, first.clean_seeds)
    ]
    if first.attacked is not None:
        bare = next((each.value_seeds for each in outcomes if each.bare), ())
        rows.append(("attacked", "attacked, no defense", first.attacked, bare))
    rows += [("defended", each.defense, each.value, each.value_seeds) for each in outcomes if not each.bare]
    ends = [end for _, _, row, _ in rows if row for end in (row.value, row.low, row.high) if end is not None]
    axis = make_axis(name_measure(first.measure, first.k), [*ends, *(value for *_, seeds in rows for value in seeds)])
    return axis, [_make_strip(axis, kind, label, row, seeds, first) for kind, label, row, seeds in rows]


def _make_strip(
    axis: Axis, kind: str, label: str, row: Row | None, seeds: Sequence[float], like: Outcome
) -> IntervalStrip:
    text = format_interval(row, like.measure)
    if row is None or row.value is None:
        return IntervalStrip(kind, label, None, None, None, text, "", ())
    low, high = (None if end is None else axis.place(end) for end in (row.low, row.high))
    unit = " seeds" if row.metric.endswith("_over_seeds") else ""
    return IntervalStrip(
        kind, label, axis.place(row.value), low, high, text, f"{row.n:,}{unit}", tuple(map(axis.place, seeds))
    )


def make_scatter(title: str, outcomes: Sequence[Outcome]) -> Scatter | None:
    """Return what defenses leave of an attack against what they cost; `None` if fewer than two tell both.

    Args:
        title: The place, in words.
        outcomes: Its outcomes.
    """
    known = [(each, each.cost) for each in outcomes if each.cost is not None and each.cost.value is not None]
    if len(known) < 2:
        return None
    first = known[0][0]
    x = make_axis(f"{name_measure(first.accuracy, first.k)} lost", _list_ends(cost for _, cost in known))
    y = make_axis(f"{name_measure(first.measure, first.k)} left", _list_ends(each.value for each, _ in known))
    marks = tuple(_make_mark(number, each, cost, x, y) for number, (each, cost) in enumerate(known, 1))
    return Scatter(title, x, y, marks)


def _list_ends(found: Iterable[Interval | Row]) -> list[float]:
    return [end for each in found for end in (each.value, each.low, each.high) if end is not None]


def _make_mark(number: int, one: Outcome, cost: Interval, x: Axis, y: Axis) -> Mark:
    across = None if cost.low is None or cost.high is None else (x.place(cost.low), x.place(cost.high))
    row = one.value
    up = None if row.low is None or row.high is None else (100 - y.place(row.high), 100 - y.place(row.low))
    text = f"{format_interval(row, one.measure)} left, {format_interval(cost, one.accuracy, signed=True)} lost"
    label = "no defense" if one.bare else one.defense
    return Mark(number, label, x.place(cost.value or 0.0), 100 - y.place(row.value or 0.0), across, up, text)


def make_line_plots(title: str, curves: Sequence[DetectorCurve]) -> tuple[LinePlot, LinePlot]:
    """Return the ROC and the precision-recall plot of one attack, a style a detector and a line a cell.

    Args:
        title: The attack, in words.
        curves: Its curves.
    """
    styles = {name: nth % CURVE_STYLES for nth, name in enumerate(dict.fromkeys(curve.defense for curve in curves))}
    share = (0.0, 1.0)
    roc = [Line(curve.defense, styles[curve.defense], _join_points(curve.roc)) for curve in curves]
    other = [Line(curve.defense, styles[curve.defense], _join_points(curve.recall_precision)) for curve in curves]
    return (
        LinePlot(title, make_axis("false-positive rate", share), make_axis("recall", share), tuple(roc)),
        LinePlot(title, make_axis("recall", share), make_axis("precision", share), tuple(other)),
    )


def _join_points(points: NDArray[np.float64]) -> str:
    return " ".join(f"{100 * x:.1f},{100 - 100 * y:.1f}" for x, y in points.tolist())
