"""Where a target stands in the full catalogue, and what that is worth: HR@k, NDCG@k, MRR@k.

Ranks are 1-based over the whole catalogue, never over a sample of it (sampled metrics order models differently:
Krichene and Rendle, "On Sampled Metrics for Item Recommendation", KDD 2020). Doubt counts against the target: items
that tie with it stand above it, so a model that scores everything alike gets no credit, and so do NaN scores.

Scores are floating point, a NumPy array or a torch tensor on any device. Ranks come back as what the scores were: an
array, or a tensor on the same device. Metrics are NumPy float64 on the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cowbird.errors import UserError
from cowbird.metrics._arrays import Array, Counts, Floats, check_k, to_index, to_numpy, to_tensor

if TYPE_CHECKING:
    from torch import Tensor

Scores = TypeVar("Scores", NDArray[Any], "Tensor")
"""Scores of every item for every row, shape `[rows, items]`: a NumPy array or a torch tensor."""
CUTOFFS = (5, 10, 20, 50)
"""The cut-offs reported unless others are asked for."""


def _check_scores(scores: "NDArray[Any] | Tensor") -> None:
    floating = (
        np.issubdtype(scores.dtype, np.floating) if isinstance(scores, np.ndarray) else scores.is_floating_point()
    )
    if scores.ndim != 2 or not floating:
        raise UserError(
            f"Scores must be floating point of shape [rows, items], and are {scores.dtype} of shape "
            f"{list(scores.shape)}.",
            "Pass one row of scores a user, one column an item.",
        )


def _to_scores(scores: "NDArray[Any] | Tensor") -> "Tensor":
    _check_scores(scores)
    return to_tensor(scores)


def _match_type(ranks: "Tensor", scores: "NDArray[Any] | Tensor") -> Any:
    return ranks.numpy() if isinstance(scores, np.ndarray) else ranks


def _to_pairs(rows: Array, items: Array, scores: "NDArray[Any] | Tensor") -> "tuple[Tensor, Tensor]":
    import torch  # noqa: PLC0415

    device = torch.device("cpu") if isinstance(scores, np.ndarray) else scores.device
    row = to_index(rows, "rows", scores.shape[0], device)
    item = to_index(items, "items", scores.shape[1], device)
    if len(row) != len(item):
        raise UserError(f"Pairs need one row and one item each: got {len(row)} rows and {len(item)} items.")
    return row, item


def exclude_seen(scores: Scores, rows: Array, items: Array) -> Scores:
    """Set the scores of seen (row, item) pairs to -inf, in place.

    Args:
        scores: Scores, shape `[rows, items]`; changed.
        rows: Row of each pair, shape `[pairs]`. Pairs may repeat.
        items: Item of each pair, shape `[pairs]`.

    Returns:
        The same `scores`, for chaining.

    Raises:
        UserError: If shapes or types do not fit, an index lies outside the table, or the array is read-only.
    """
    _check_scores(scores)
    row, item = _to_pairs(rows, items, scores)
    if not isinstance(scores, np.ndarray):
        scores.detach()[row, item] = -np.inf
        return scores
    if not scores.flags.writeable:
        raise UserError("These scores are read-only and cannot be changed in place.", "Pass `scores.copy()`.")
    scores[row.numpy(), item.numpy()] = -np.inf
    return scores


def ranks(scores: Scores, target: Array, exclude: tuple[Array, Array] | None = None) -> Scores:
    """Rank one target item a row in the full catalogue.

    The rank is 1 + the number of *other* items whose score is not below the target's. Hence ties count against the
    target, a NaN competitor stands above it, and a target scored NaN or -inf is last (rank = number of items).

    Excluded items count as scored -inf: they stand below every target that has a score. The target is never excluded,
    even if `exclude` names it: in data with repeated consumption (music, groceries) the held-out item has often been
    seen before, and it must still be ranked. Excluding it would score a correct forecast as a miss.

    Args:
        scores: Scores, shape `[rows, items]`; not changed.
        target: Target item of each row, shape `[rows]`.
        exclude: Row and item of each pair to leave out, such as what the user has seen, two arrays of shape `[pairs]`.

    Returns:
        Ranks from 1 to the number of items, shape `[rows]`, int64.

    Raises:
        UserError: If shapes or types do not fit or an index lies outside the table.
    """
    import torch  # noqa: PLC0415

    table = _to_scores(scores)
    items = table.shape[1]
    index = to_index(target, "targets", items, table.device)
    if len(index) != len(table):
        raise UserError(f"There are {len(table)} rows of scores and {len(index)} targets.", "Pass one target a row.")
    own = table.gather(1, index[:, None])
    below = table < own
    if exclude is not None:
        row, item = _to_pairs(*exclude, table)
        below[row, item] = own[row, 0] > -np.inf
        below[torch.arange(len(index), device=table.device), index] = False
    # `below` leaves out the target itself, NaN competitors, and everything where the target is NaN or -inf.
    return _match_type(items - below.sum(1, dtype=torch.int32).long(), scores)


def topk_ranks(scores: Scores, targets: Array, k_max: int) -> Scores:
    """Rank several target items in every row, exactly up to `k_max`.

    Equals `minimum(ranks(scores, target), k_max + 1)` for each target, at the price of one top-k instead of one pass
    over the catalogue a target. Why: in the order "NaN first, then descending" the items not below a target of score
    t are a prefix, and the target is one of them, so their number is the rank. The top `k_max + 1` values are the
    first `k_max + 1` of that order whatever the ties, so counting those not below t gives the smaller of the rank and
    `k_max + 1`. The count is a binary search, after NaN competitors become +inf and NaN targets -inf, which changes
    no comparison.

    Args:
        scores: Scores, shape `[rows, items]`; call `exclude_seen` first. Not changed.
        targets: Target items, the same for every row, shape `[m]`.
        k_max: Largest cut-off that will be asked for. Catalogues smaller than that are fine.

    Returns:
        Ranks, shape `[rows, m]`, int32. Above `k_max` all are `k_max + 1`, so never ask for a cut-off above `k_max`.
        A target scored -inf (excluded) gets `k_max + 1` even in a catalogue smaller than that: it is never a hit.

    Raises:
        UserError: If shapes or types do not fit, an index lies outside the table, or `k_max` is below 1.
    """
    import torch  # noqa: PLC0415

    table = _to_scores(scores)
    index = to_index(targets, "targets", table.shape[1], table.device)
    depth = min(check_k(k_max) + 1, table.shape[1])
    own = table[:, index]
    top = table.topk(depth, dim=1).values.nan_to_num(nan=np.inf, posinf=np.inf, neginf=-np.inf)
    wanted = own.nan_to_num(nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    found = torch.searchsorted(-top, -wanted, right=True, out_int32=True)
    return _match_type(found.masked_fill_(own == -np.inf, k_max + 1), scores)


def _check_ranks(ranks: Array) -> Counts:
    places = to_numpy(ranks)
    if places.size and (not np.issubdtype(places.dtype, np.integer) or places.min() < 1):
        raise UserError(
            f"Ranks must be whole numbers from 1 up; got {places.dtype} from {places.min()}.", "Pass ranks, not scores."
        )
    return places.astype(np.int64)


def hit_ratio(ranks: Array, k: int) -> Floats:
    """Return 1 where the one relevant item is among the first k, else 0 (HR@k, also called Recall@k here).

    Args:
        ranks: 1-based ranks of any shape.
        k: Cut-off; it may exceed the catalogue.

    Returns:
        Values of the shape of `ranks`, without a unit. Their mean is the metric.

    Raises:
        UserError: If a rank or `k` is below 1.
    """
    return (_check_ranks(ranks) <= check_k(k)).astype(np.float64)


def ndcg(ranks: Array, k: int) -> Floats:
    """Return 1 / log2(1 + rank) where the rank is at most k, else 0 (NDCG@k with one relevant item).

    Discounted gain after Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002; with
    a single relevant item the ideal ranking gains 1, so nothing is left to normalize.

    Args:
        ranks: 1-based ranks of any shape.
        k: Cut-off; it may exceed the catalogue.

    Returns:
        Values of the shape of `ranks`, from 0 to 1.

    Raises:
        UserError: If a rank or `k` is below 1.
    """
    places = _check_ranks(ranks)
    return np.where(places <= check_k(k), 1 / np.log2(1.0 + places), 0.0)


def mrr(ranks: Array, k: int) -> Floats:
    """Return 1 / rank where the rank is at most k, else 0 (reciprocal rank, Voorhees, TREC-8 1999, cut off at k).

    Args:
        ranks: 1-based ranks of any shape.
        k: Cut-off; it may exceed the catalogue.

    Returns:
        Values of the shape of `ranks`, from 0 to 1.

    Raises:
        UserError: If a rank or `k` is below 1.
    """
    places = _check_ranks(ranks)
    return np.where(places <= check_k(k), 1.0 / places, 0.0)


RANKING_METRICS = {"hr": hit_ratio, "ndcg": ndcg, "mrr": mrr}
"""Every ranking metric by the name it has in result rows."""


@dataclass(frozen=True, slots=True)
class RankingScore:
    """One metric at one cut-off."""

    metric: str
    """`hr`, `ndcg` or `mrr`."""
    k: int
    """Cut-off."""
    value: float | None
    """Mean over the rows, from 0 to 1, or `None` if there were no rows."""
    n: int
    """Number of rows."""


def ranking_metrics(ranks: Array, ks: Sequence[int] = CUTOFFS) -> list[RankingScore]:
    """Return HR, NDCG and MRR at every cut-off, one tidy record each.

    Args:
        ranks: 1-based rank of the relevant item of each row, shape `[rows]`.
        ks: Cut-offs. Those above the catalogue are fine; those above `topk_ranks`' `k_max` are wrong.

    Returns:
        `len(RANKING_METRICS) * len(ks)` records; their values are `None` where there are no rows.

    Raises:
        UserError: If a rank or cut-off is below 1.
    """
    places = _check_ranks(ranks)
    return [
        RankingScore(name, k, float(metric(places, k).mean()) if places.size else None, int(places.size))
        for name, metric in RANKING_METRICS.items()
        for k in ks
    ]
