"""Metrics on plain arrays, usable on anybody's scores: accuracy, exposure of targets, attack success, stealth of text.

Arrays may be lists, NumPy arrays or torch tensors on any device.

Each name is imported when it is first used: those that need no torch don't load it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cowbird.metrics.asr import candidate_asr as candidate_asr
    from cowbird.metrics.asr import pointwise_asr as pointwise_asr
    from cowbird.metrics.choice import pick_rate as pick_rate
    from cowbird.metrics.choice import valid_ratio as valid_ratio
    from cowbird.metrics.detection import auroc as auroc
    from cowbird.metrics.detection import count_detections as count_detections
    from cowbird.metrics.detection import recall_at_fpr as recall_at_fpr
    from cowbird.metrics.exposure import exposures as exposures
    from cowbird.metrics.exposure import lift as lift
    from cowbird.metrics.exposure import mask_seen as mask_seen
    from cowbird.metrics.exposure import selectivity as selectivity
    from cowbird.metrics.intervals import bootstrap_mean as bootstrap_mean
    from cowbird.metrics.intervals import clopper_pearson as clopper_pearson
    from cowbird.metrics.intervals import measure_spread as measure_spread
    from cowbird.metrics.ranking import exclude_seen as exclude_seen
    from cowbird.metrics.ranking import hit_ratio as hit_ratio
    from cowbird.metrics.ranking import mrr as mrr
    from cowbird.metrics.ranking import ndcg as ndcg
    from cowbird.metrics.ranking import ranking_metrics as ranking_metrics
    from cowbird.metrics.ranking import ranks as ranks
    from cowbird.metrics.ranking import topk_ranks as topk_ranks
    from cowbird.metrics.stealth import count_characters as count_characters
    from cowbird.metrics.stealth import edit_distance as edit_distance
    from cowbird.metrics.stealth import relative_edit_distance as relative_edit_distance

_HOMES = {
    "candidate_asr": "cowbird.metrics.asr",
    "pointwise_asr": "cowbird.metrics.asr",
    "pick_rate": "cowbird.metrics.choice",
    "valid_ratio": "cowbird.metrics.choice",
    "auroc": "cowbird.metrics.detection",
    "count_detections": "cowbird.metrics.detection",
    "recall_at_fpr": "cowbird.metrics.detection",
    "exposures": "cowbird.metrics.exposure",
    "lift": "cowbird.metrics.exposure",
    "mask_seen": "cowbird.metrics.exposure",
    "selectivity": "cowbird.metrics.exposure",
    "bootstrap_mean": "cowbird.metrics.intervals",
    "clopper_pearson": "cowbird.metrics.intervals",
    "measure_spread": "cowbird.metrics.intervals",
    "exclude_seen": "cowbird.metrics.ranking",
    "hit_ratio": "cowbird.metrics.ranking",
    "mrr": "cowbird.metrics.ranking",
    "ndcg": "cowbird.metrics.ranking",
    "ranking_metrics": "cowbird.metrics.ranking",
    "ranks": "cowbird.metrics.ranking",
    "topk_ranks": "cowbird.metrics.ranking",
    "count_characters": "cowbird.metrics.stealth",
    "edit_distance": "cowbird.metrics.stealth",
    "relative_edit_distance": "cowbird.metrics.stealth",
}
"""The module of each public name."""

__all__ = [
    "auroc",
    "bootstrap_mean",
    "candidate_asr",
    "clopper_pearson",
    "count_characters",
    "count_detections",
    "edit_distance",
    "exclude_seen",
    "exposures",
    "hit_ratio",
    "lift",
    "mask_seen",
    "measure_spread",
    "mrr",
    "ndcg",
    "pick_rate",
    "pointwise_asr",
    "ranking_metrics",
    "ranks",
    "recall_at_fpr",
    "relative_edit_distance",
    "selectivity",
    "topk_ranks",
    "valid_ratio",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cowbird.metrics' has no attribute '{name}'")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
