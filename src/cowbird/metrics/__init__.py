"""Metrics on plain arrays, usable on anybody's scores: accuracy, exposure of targets, attack success, stealth of text.

Arrays may be lists, NumPy arrays or torch tensors on any device.
"""

from cowbird.metrics.exposure import exposures, lift, mask_seen, selectivity
from cowbird.metrics.intervals import bootstrap_mean, clopper_pearson, measure_spread
from cowbird.metrics.ranking import exclude_seen, hit_ratio, mrr, ndcg, ranking_metrics, ranks, topk_ranks
from cowbird.metrics.stealth import count_characters, edit_distance, relative_edit_distance
from cowbird.metrics.success import attack_success_rate

__all__ = [
    "attack_success_rate",
    "bootstrap_mean",
    "clopper_pearson",
    "count_characters",
    "edit_distance",
    "exclude_seen",
    "exposures",
    "hit_ratio",
    "lift",
    "mask_seen",
    "measure_spread",
    "mrr",
    "ndcg",
    "ranking_metrics",
    "ranks",
    "relative_edit_distance",
    "selectivity",
    "topk_ranks",
]
