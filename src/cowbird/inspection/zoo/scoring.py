"""Holds the inspections of a zoo against the answers: AUROC, clean models accused, targets among the suspects."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cowbird.errors import UserError
from cowbird.inspection.zoo.folder import list_inspected, read_record
from cowbird.metrics.auc import auc
from cowbird.metrics.intervals import Interval, clopper_pearson
from cowbird.storage import read_sealed_json, read_tensors

LEVELS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Printed p-values at which accusations of clean models are counted."""
WORKING_EXPOSURE = 0.005
"""Exposure from which an attack counts as working."""
MIN_NULL_DEVIATION = 1e-3
"""Least standard deviation of null models' statistics."""
METHODS = ("reinit", "unlearn", "prune")
"""Ways to take suspects out."""
LEFT_OVER, LOST_QUALITY = 0.02, 0.02
"""Exposure over the clean models', and share of NDCG@10, that a model may keep and lose."""
FOUND_P_VALUE = 0.01
"""p-value up to which something stands out."""
WORKING_LIFT = 2.0
"""Exposure over the clean models' from which an attack counts as lifting its items at all. In a small catalogue an item
is shown to `WORKING_EXPOSURE` of the users by itself: of 1,682 items the average one is."""
KEPT_LIFT = 20.0
"""Exposure over the clean models' from which a provider counts as one who keeps the attack."""


@dataclass(frozen=True)
class ScoredModel:
    """One model of a zoo, with its answer and its inspection."""

    name: str
    kind: str
    """Label of the plant, or `clean`."""
    held_out: bool
    """Whether nothing was tuned on this kind."""
    victim: str
    platform: int
    p_value: float
    statistic: float
    """The largest score of an item."""
    ndcg: float
    """NDCG@10 on the platform's test events."""
    targets: int
    """How many items are planted; 0 for a clean model."""
    found: int
    """How many of them are among the first 2 × targets of the ranking."""
    exposure: float | None
    """Share of pairs (user aimed at, target) in which the target is among the first ten; `None` for a clean model."""
    clean_exposure: float | None
    """The same, for all users and on average over the clean models of the platform."""
    alone: dict[str, float] = field(default_factory=dict[str, float])
    """On each statistic alone: how far the largest score is above the null models', in their standard deviations."""
    changes: dict[str, Any] = field(default_factory=dict[str, Any])
    """What taking the suspects out changed, by method; empty if nothing was taken out."""


def read_zoo(folder: Path) -> list[ScoredModel]:
    """Read the answers and inspections of a zoo; models that are not inspected yet are left out.

    Raises:
        UserError: If there are none, or a file is damaged.
    """
    names = list_inspected(folder)
    answers = {name: read_sealed_json(folder / "answers" / f"{name}.json") for name in names}
    shown = {name: _read_shown(folder / "answers" / f"{name}.safetensors") for name in names}
    means: dict[int, np.ndarray[Any, Any]] = {}
    for platform in {answer["platform"] for answer in answers.values()}:
        clean = [
            shown[name] for name in names if answers[name]["platform"] == platform and not answers[name]["targets"]
        ]
        if clean:
            means[platform] = np.mean(clean, axis=0)
    return [
        _score_model(
            name,
            answers[name],
            read_sealed_json(folder / "inspections" / f"{name}.json"),
            _read_changes(folder / "sanitized" / f"{name}.json"),
            means,
        )
        for name in names
    ]


def _read_changes(path: Path) -> dict[str, Any]:
    """Return what taking suspects out changed, by method; empty if nothing was taken out."""
    return {name: change for name, change in read_record(path).items() if name in METHODS}


def _read_shown(path: Path) -> np.ndarray[Any, Any]:
    """Return the share of histories in which each item was shown, shape `[items]`."""
    counts = read_tensors(path)[0]["shown"].numpy()
    return np.asarray(10 * counts / max(counts.sum(), 1))


def _score_model(
    name: str,
    answer: Mapping[str, Any],
    found: Mapping[str, Any],
    changes: dict[str, Any],
    means: Mapping[int, np.ndarray[Any, Any]],
) -> ScoredModel:
    targets: list[int] = answer["targets"]
    first = [row["item"] for row in found["ranking"][: 2 * len(targets)]]
    mean = means.get(answer["platform"])
    return ScoredModel(
        name=name,
        kind=answer["kind"],
        held_out=answer["held_out"],
        victim=answer["victim"],
        platform=answer["platform"],
        p_value=found["p_value"],
        statistic=found["statistic"],
        ndcg=answer["ndcg@10"],
        targets=len(targets),
        found=len(set(targets) & set(first)),
        exposure=answer["exposure"],
        clean_exposure=float(mean[targets].mean()) if targets and mean is not None else None,
        alone={kind: _measure_distance(each) for kind, each in found["alone"].items()},
        changes=changes,
    )


def _measure_distance(each: Mapping[str, Any]) -> float:
    """Return how far a statistic is above the null models', in their standard deviations."""
    nulls: list[float] = each["null_statistics"]
    return (float(each["statistic"]) - float(np.mean(nulls))) / max(float(np.std(nulls, ddof=1)), MIN_NULL_DEVIATION)


def score_zoo(models: Sequence[ScoredModel]) -> dict[str, Any]:
    """Return how well an inspector does on a zoo, as plain JSON values.

    Args:
        models: The models; clean ones are among them.

    Raises:
        UserError: If none is clean, or none is planted.
    """
    clean = [model for model in models if not model.targets]
    planted = [model for model in models if model.targets]
    if not clean or not planted:
        raise UserError("A zoo is scored with clean and planted models, and one kind is missing.", "Add some.")
    kinds = list(dict.fromkeys(model.kind for model in sorted(planted, key=lambda model: model.kind)))
    groups: dict[str, list[ScoredModel]] = {"all": planted, "held out": [model for model in planted if model.held_out]}
    groups |= {kind: [model for model in planted if model.kind == kind] for kind in kinds}
    return {
        "models": [asdict(model) for model in models],
        "clean": {"models": len(clean), "ndcg@10": float(np.mean([model.ndcg for model in clean]))},
        "accused": [_count_accused(clean, level) for level in LEVELS],
        "planted": {name: _score_group(members, clean) for name, members in groups.items() if members},
        "by victim": {
            victim: _score_group(
                [model for model in planted if model.victim == victim],
                [model for model in clean if model.victim == victim] or clean,
            )
            for victim in dict.fromkeys(sorted(model.victim for model in planted))
        },
        "alone": _score_alone(planted, clean),
        "sanitized": {method: found for method in METHODS if (found := _score_changes(planted, method)) is not None},
        "roc": _trace_roc(planted, clean),
    }


def _score_alone(planted: Sequence[ScoredModel], clean: Sequence[ScoredModel]) -> dict[str, Any]:
    """Return the AUROC of each statistic alone: of all planted models, and of those whose attack works."""
    names = [name for name in clean[0].alone if all(name in model.alone for model in (*planted, *clean))]
    working = [model for model in planted if (model.exposure or 0) >= WORKING_EXPOSURE]
    found: dict[str, Any] = {}
    for name in names:
        found[name] = {
            group: _to_record(
                auc(
                    np.array([model.alone[name] for model in (*members, *clean)]),
                    np.arange(len(members) + len(clean)) < len(members),
                )
            )
            for group, members in (("all", planted), ("working", working))
            if members
        }
    return found


def _score_changes(planted: Sequence[ScoredModel], method: str) -> dict[str, Any] | None:
    """Return how many models that were found are as good as clean ones once a method took their suspects out."""
    changed = [(model, model.changes[method]) for model in planted if method in model.changes]
    if not changed:
        return None
    left = [change["target_exposure"] - (model.clean_exposure or 0.0) for model, change in changed]
    lost = {
        name: [1 - change["after"][name] / max(change["before"][name], 1e-9) for _, change in changed]
        for name in ("ndcg", "hit_ratio")
    }
    good = sum(over <= LEFT_OVER and cost <= LOST_QUALITY for over, cost in zip(left, lost["ndcg"], strict=True))
    return {
        "models": len(changed),
        "good": _to_record(clopper_pearson(good, len(changed))),
        "worst_exposure_over_clean": float(max(left)),
        "median_ndcg_lost": float(np.median(lost["ndcg"])),
        "worst_ndcg_lost": float(max(lost["ndcg"])),
        "worst_hit_ratio_lost": float(max(lost["hit_ratio"])),
        "nothing_stands_out": sum(change["p_value"] > FOUND_P_VALUE for _, change in changed),
    }


def _count_accused(clean: Sequence[ScoredModel], level: float) -> dict[str, Any]:
    accused = sum(model.p_value <= level for model in clean)
    return {"p": level, "accused": accused, "share": _to_record(clopper_pearson(accused, len(clean)))}


def _score_group(planted: Sequence[ScoredModel], clean: Sequence[ScoredModel]) -> dict[str, Any]:
    """Return the scores of a group of planted models, of those whose attack works, and of those that keep it."""
    working = [model for model in planted if (model.exposure or 0) >= WORKING_EXPOSURE]
    groups = {
        "all": planted,
        "working": working,
        "working, lift of 2 or more": [model for model in working if _is_lifted(model, WORKING_LIFT)],
        "lift of 20 or more": [model for model in planted if _is_lifted(model, KEPT_LIFT)],
    }
    found: dict[str, Any] = {}
    for name, members in groups.items():
        if members:
            found[name] = {
                "models": len(members),
                "auroc": _to_record(_compute_auroc(members, clean)),
                "found_at_0.01": sum(model.p_value <= 0.01 for model in members),
                "found_at_0.05": sum(model.p_value <= 0.05 for model in members),
                "targets_found": float(np.mean([model.found / model.targets for model in members])),
                "ndcg@10": float(np.mean([model.ndcg for model in members])),
            }
    return found


def _is_lifted(model: ScoredModel, times: float) -> bool:
    """Tell whether a model's targets are shown so many times as often as clean models show them."""
    return model.clean_exposure is not None and (model.exposure or 0) >= times * max(model.clean_exposure, 1e-5)


def _compute_auroc(planted: Sequence[ScoredModel], clean: Sequence[ScoredModel]) -> Interval:
    scores = np.array([-model.p_value for model in (*planted, *clean)])
    return auc(scores, np.arange(len(scores)) < len(planted))


def _trace_roc(planted: Sequence[ScoredModel], clean: Sequence[ScoredModel]) -> list[list[float]]:
    """Return the points of the curve: share of clean and of planted models accused, at each p-value that occurs."""
    points = [[0.0, 0.0]]
    for level in sorted({model.p_value for model in (*planted, *clean)}):
        shares = [float(np.mean([model.p_value <= level for model in group])) for group in (clean, planted)]
        points.append(shares)
    return points


def _to_record(interval: Interval) -> dict[str, Any]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}
