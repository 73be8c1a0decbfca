"""Metrics on plain arrays, usable on anybody's scores: accuracy, exposure of targets, attack success, stealth of text.

Arrays may be lists, NumPy arrays or torch tensors on any device.
"""

from cowbird.metrics.asr import candidate_asr, pointwise_asr
from cowbird.metrics.choice import pick_rate, valid_ratio
from cowbird.metrics.detection import auroc, count_detections, recall_at_fpr
from cowbird.metrics.exposure import exposures, lift, mask_seen, selectivity
from cowbird.metrics.intervals import bootstrap_mean, clopper_pearson, measure_spread
from cowbird.metrics.ranking import exclude_seen, hit_ratio, mrr, ndcg, ranking_metrics, ranks, topk_ranks
from cowbird.metrics.stealth import count_characters, edit_distance, relative_edit_distance

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
