"""Which rows stand for a measurement, and whose rows are a task's. All reports choose by these."""

import sys
from collections.abc import Iterable, Sequence

from cowbird.experiments.measures import MEASURES, TaskSummary
from cowbird.experiments.results import Row
from cowbird.experiments.shipped_measures import SHIPPED_SUMMARIES

PlaceLabels = tuple[str, str, str, str]
"""Labels of victim, attack, defense and scenario."""


def select_overall(rows: Iterable[Row]) -> dict[tuple[PlaceLabels, str, str, int], Row]:
    """Return one row a measurement: the mean over seeds, or else of all seeds pooled, or else the only seed's.

    A mean over seeds that are all alike has an interval without width, which tells nothing. It stands only if there is
    no other row.
    """
    best: dict[tuple[PlaceLabels, str, str, int], tuple[int, Row]] = {}
    for row in rows:
        metric = row.metric.removesuffix("_over_seeds")
        alike = row.low is not None and row.low == row.high
        rank = (-1 if alike else 2) if metric != row.metric else 1 if row.seed is None else 0
        key = ((row.victim, row.attack, row.defense, row.scenario), row.group, metric, row.k)
        if key not in best or rank > best[key][0]:
            best[key] = rank, row
    return {key: row for key, (_, row) in best.items()}


def list_summaries(rows: Iterable[Row] = ()) -> Sequence[TaskSummary]:
    """Return the summaries of all tasks.

    Tasks are imported only if they are there already, or if a row has a measure of somebody else's: that takes seconds.
    """
    if "cowbird.experiments.tasks" not in sys.modules and all(row.metric in MEASURES for row in rows):
        return SHIPPED_SUMMARIES
    from cowbird.experiments.tasks import list_tasks  # noqa: PLC0415

    return [task.summary for task in list_tasks()]


def assign_victims(rows: Sequence[Row]) -> list[tuple[TaskSummary, set[str]]]:
    """Return the summary of each task that has rows, and whose rows those are: each victim has one task.

    A victim's task is the one whose accuracy it has; without any, the one whose measure of an attack it has.
    """
    summaries = list_summaries(rows)
    found: dict[str, int] = {}
    for pick in ("accuracy", "attack"):
        for nth, summary in enumerate(summaries):
            names = {measure.name for measure in getattr(summary, pick)}
            for victim in dict.fromkeys(row.victim for row in rows if row.metric in names):
                found.setdefault(victim, nth)
    return [
        (summary, {victim for victim, place in found.items() if place == nth})
        for nth, summary in enumerate(summaries)
        if nth in found.values()
    ]
