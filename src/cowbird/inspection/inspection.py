"""The inspection of one ranking model: what is asked, and how its items are scored and ranked.

What comes of it is a `verdict.Inspection`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cowbird.data.types import Float64Array
from cowbird.inspection.empty_history import EmptyHistory, answer_nothing
from cowbird.inspection.group_exposure import find_groups
from cowbird.inspection.inversion import make_inversion
from cowbird.inspection.item_statistics import ItemStatistic, compute_largest_scores
from cowbird.inspection.model import OpenedModel, ProfiledModel, RankingModel
from cowbird.inspection.null_models import NullCounts, NullSettings, ask_probes, fit_null_models
from cowbird.inspection.platform_log import PlatformLog
from cowbird.inspection.probes import (
    HistoryProbe,
    draw_new_histories,
    draw_own_histories,
    draw_random_histories,
    make_single_histories,
)
from cowbird.inspection.profile_flips import find_flips
from cowbird.inspection.statistics import (
    estimate_p_value,
    find_threshold,
    standardize_counts,
    sum_scores,
)
from cowbird.inspection.verdict import Inspection, RankedItem
from cowbird.text import escape_terminal
from cowbird.victims.fit_context import report_nothing

ASSUMPTIONS = (
    "Statistics of honest models follow a Gumbel distribution, the law of maxima, about as wide as is usual.",
    "The provider's honest data is like the platform's.",
)
NOT_CHECKED = (
    "Triggers in titles or texts: the model was asked about items alone.",
    "Items that are pushed down: only what is shown too often was looked for.",
    "Behavior after fine-tuning on your data: see cowbird survive.",
    "A backdoor that shows its items to nobody like your users, nor after random items.",
)

Progress = Callable[[str, int, int, str], None]
"""Told of what is done at the moment, how many steps are done, how many there are, and a remark."""


class InspectionSettings(BaseModel):
    """What is asked, and when an item is a suspect."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    histories: int = Field(default=3000, ge=100, le=100_000)
    """Histories of each kind that are drawn."""
    level: float = Field(default=0.01, gt=0, lt=0.5)
    """Share of honest models that may be accused."""
    nulls: NullSettings = NullSettings()
    """How null models are fitted."""
    seed: int = Field(default=0, ge=0)
    """Decides histories and null models."""
    beside: tuple[Literal["group", "inversion"], ...] = ()
    """Statistics that are measured beside those of the verdict; see `cowbird.inspection.item_statistics`."""
    shown: int = Field(default=50, ge=1)
    """Items that the ranking holds, most suspicious first; suspects are always in it."""


def make_probes(log: PlatformLog | None, items: int, settings: InspectionSettings) -> list[HistoryProbe]:
    """Return the histories that a model is asked about."""
    count, seed = settings.histories, settings.seed
    probes = [draw_random_histories(items, count, seed), make_single_histories(items)]
    if log is not None:
        known = log.interactions
        probes = [draw_own_histories(known, count, seed), draw_new_histories(known, count, seed), *probes]
    return probes


def make_statistics_beside(
    log: PlatformLog, probes: Sequence[HistoryProbe], model: RankingModel, settings: InspectionSettings
) -> list[ItemStatistic]:
    """Return the statistics that are measured beside those of the verdict.

    Groups only if users have profiles; profile values only if the model reads them as well.
    """
    found: list[ItemStatistic] = []
    items, own = model.items, next(probe for probe in probes if probe.name == "own")
    if "group" in settings.beside:
        groups = find_groups(own, log.users)
        found += [] if groups is None else [groups]
    if "inversion" in settings.beside:
        found.append(make_inversion(items, settings.seed))
    flips = find_flips(model, own, log.users)
    found += [] if flips is None else [flips]
    return found


def inspect_ranker(
    opened: OpenedModel,
    log: PlatformLog | None,
    settings: InspectionSettings | None = None,
    device: torch.device | None = None,
    report: Progress | None = None,
    workers: int = 1,
) -> Inspection:
    """Inspect a model that ranks a catalogue.

    Args:
        opened: The model.
        log: The platform's interactions; `None` gives a ranking and no p-value.
        settings: What is asked.
        device: Where null models are fitted; a CPU by default.
        report: Told of progress.
        workers: Processes that fit null models beside each other. A script that asks for several guards its own work
            with `if __name__ == "__main__"`, for each process imports it.

    Raises:
        UserError: If the model's answers can't be used, or the logs are too short.
    """
    settings, told = settings or InspectionSettings(), report or _report_nothing
    model = opened.model
    probes = make_probes(log, model.items, settings)
    if log is None:
        return _rank_without_logs(opened, probes, _ask(model, probes, told), settings)
    statistics_asked = [*probes, *make_statistics_beside(log, probes, model, settings)]
    measured = _ask(model, statistics_asked, told)
    if answer_nothing(model) is not None:
        nothing = EmptyHistory(model.items)
        statistics_asked.append(nothing)
        measured |= ask_probes(model, [nothing])
    place = device or torch.device("cpu")
    users = log.select_learnable(settings.nulls.choose_max_events(place), settings.seed)
    null_measured = fit_null_models(
        users,
        opened.shape,
        settings.nulls,
        statistics_asked,
        settings.seed,
        place,
        lambda done, total, remark: told("null models", done, total, remark),
        workers,
    )
    scores = _score_probes(probes, measured, null_measured)
    total = sum_scores(scores)
    statistics = np.array(
        [
            sum_scores(_score_probes(probes, one, [*null_measured[:at], *null_measured[at + 1 :]])).max()
            for at, one in enumerate(null_measured)
        ]
    )
    mine = {probe.name: measured[probe.name] for probe in probes}
    expected = {name: np.mean([null[name] for null in null_measured], axis=0) for name in mine}
    threshold = find_threshold(statistics, settings.level)
    shape = settings.nulls.shape_recommender(opened.shape, len(users.users))
    assumed = [*ASSUMPTIONS, *([log.assumed] if log.assumed else [])]
    if opened.shape is None:
        assumed.append("The model's shape is not known; null models are a SASRec.")
    return Inspection(
        model=opened.kind,
        sha256=opened.sha256,
        items=model.items,
        logs_sha256=log.hash_content(),
        level=settings.level,
        statistic=float(total.max()),
        p_value=estimate_p_value(float(total.max()), statistics),
        null_statistics=statistics.tolist(),
        threshold=threshold,
        ranking=_rank_items(total, threshold, scores, mine, expected, log, settings.shown),
        checked={probe.name: probe.describe() for probe in probes},
        alone=_score_alone(statistics_asked, measured, null_measured),
        not_checked=[*NOT_CHECKED, *_list_unasked(model, measured)],
        assumptions=assumed,
        settings=settings.model_dump(mode="json")
        | {
            "null_events": users.interactions.events,
            "null_recommender": {"name": type(shape).__name__, **shape.model_dump(mode="json")},
        },
    )


def _score_probes(
    probes: Sequence[HistoryProbe], mine: NullCounts, nulls: Sequence[NullCounts]
) -> dict[str, Float64Array]:
    """Return the score of each item on each kind of histories."""
    return {probe.name: probe.score(mine[probe.name], [null[probe.name] for null in nulls]) for probe in probes}


def _list_unasked(model: RankingModel, measured: NullCounts) -> list[str]:
    """Return which statistics there were not, in words."""
    found: list[str] = []
    if "empty" not in measured:
        found.append("An empty history: the model has no answer to one.")
    if "profile" not in measured and isinstance(model, ProfiledModel) and model.profile_labels:
        wanted = ", ".join(escape_terminal(name) for name in model.profile_labels)
        found.append(f"Profile values: the model reads {wanted}, and the logs' users lack them.")
    return found


def _report_nothing(what: str, done: int, total: int, remark: str) -> None:
    report_nothing(done, total, remark)


def _ask(model: RankingModel, probes: Sequence[ItemStatistic], told: Progress) -> NullCounts:
    """Ask the model, one kind of histories after another."""
    counts: NullCounts = {}
    for number, probe in enumerate(probes):
        told("asking the model", number, len(probes), probe.name)
        counts |= ask_probes(model, [probe])
    told("asking the model", len(probes), len(probes), "")
    return counts


def _score_alone(
    asked: Sequence[ItemStatistic], mine: NullCounts, nulls: Sequence[NullCounts]
) -> dict[str, dict[str, Any]]:
    """Return the largest score of an item on each statistic alone, which item has it, and the null models'."""
    found: dict[str, dict[str, Any]] = {}
    for each in asked:
        largest, known = compute_largest_scores(each, mine[each.name], [null[each.name] for null in nulls])
        found[each.name] = {
            "what": each.describe(),
            "statistic": largest,
            "null_statistics": known,
            "item": int(each.score(mine[each.name], [null[each.name] for null in nulls]).argmax()),
            "p_value": estimate_p_value(largest, np.array(known), usual=0),
        }
    return found


def _rank_without_logs(
    opened: OpenedModel, probes: Sequence[HistoryProbe], counts: NullCounts, settings: InspectionSettings
) -> Inspection:
    """Rank items by how much more often than an average item they are shown."""
    expected = {name: np.tile(one.mean(axis=1, keepdims=True), one.shape[1]) for name, one in counts.items()}
    scores = {name: standardize_counts(one[0], expected[name][0]) for name, one in counts.items()}
    total = sum_scores(scores)
    return Inspection(
        model=opened.kind,
        sha256=opened.sha256,
        items=opened.model.items,
        logs_sha256="",
        level=settings.level,
        statistic=float(total.max()),
        p_value=None,
        null_statistics=[],
        threshold=None,
        ranking=_rank_items(total, None, scores, counts, expected, None, settings.shown, opened.item_ids),
        checked={probe.name: probe.describe() for probe in probes},
        alone={},
        not_checked=[
            "Your own users: no logs were given, so honest favorites are not told from planted ones.",
            *NOT_CHECKED,
        ],
        assumptions=[],
        settings=settings.model_dump(mode="json"),
    )


def _rank_items(
    total: Float64Array,
    threshold: float | None,
    scores: Mapping[str, Float64Array],
    measured: Mapping[str, NDArray[Any]],
    expected: Mapping[str, Float64Array],
    log: PlatformLog | None,
    shown: int,
    item_ids: Sequence[str] | None = None,
) -> list[RankedItem]:
    order = np.argsort(-total, kind="stable")
    suspects = 0 if threshold is None else int((total >= threshold).sum())
    ids = item_ids if log is None else log.items.ids
    chosen: list[int] = order[: max(shown, suspects)].tolist()
    return [
        RankedItem(
            rank=rank + 1,
            item=number,
            id=str(number) if ids is None else ids[number],
            title="" if log is None else log.items.titles[number],
            suspect=rank < suspects,
            score=round(float(total[number]), 3),
            scores={name: round(float(score[number]), 3) for name, score in scores.items()},
            shown={name: int(one[0, number]) for name, one in measured.items()},
            expected={name: round(float(mean[0, number]), 2) for name, mean in expected.items()},
            stands={name: round(float(np.exp(one[1, number])), 1) for name, one in measured.items()},
            stands_expected={name: round(float(np.exp(mean[1, number])), 1) for name, mean in expected.items()},
        )
        for rank, number in enumerate(chosen)
    ]
