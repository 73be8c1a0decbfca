"""How often a recommender shows the target items: what an attack buys, and for whom.

Every (user, target) pair is one chance to show a target. A pair is left out where the user has already seen the
target. The exposure HR@k is the share of the other pairs in which the target is among the user's first k items, and
the exposure NDCG@k discounts by rank (Attacking Pre-trained Recommendation, SIGIR 2023). The lift is the attacked
model's exposure over the clean model's.

Pairs of one user are not independent, so sums are kept per user and the bootstrap draws users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cowbird.errors import UserError
from cowbird.metrics._arrays import Array, Counts, Flags, Floats, to_flags, to_index, to_numpy
from cowbird.metrics.intervals import (
    BOOTSTRAP_RESAMPLES,
    CONFIDENCE_LEVEL,
    bootstrap_sums,
    check_level,
    percentiles,
    zero_limit,
)
from cowbird.metrics.ranking import CUTOFFS, RANKING_METRICS

ExposureGroup = Literal["target", "other", "all"]
"""Whose exposure: the users an attack aims at, everyone else, or both."""
EXPOSURE_GROUPS: tuple[ExposureGroup, ...] = ("target", "other", "all")
"""Every group."""


class ExposureCell(NamedTuple):
    """Which exposure a number is."""

    group: ExposureGroup
    """Whose exposure."""
    metric: str
    """`hr` or `ndcg`."""
    k: int
    """Cut-off."""


@dataclass(frozen=True, slots=True, eq=False)
class Exposure:
    """Exposure of the targets to some users, kept per user."""

    sums: Floats
    """Sum of the metric over each user's unseen targets, shape `[users]`."""
    pairs: Counts
    """Number of each user's unseen targets, shape `[users]`."""

    @property
    def value(self) -> float | None:
        """Sum over all unseen pairs by their number, from 0 to 1; `None` without pairs."""
        total = int(self.pairs.sum())
        return float(self.sums.sum()) / total if total else None

    @property
    def n(self) -> int:
        """Number of unseen pairs."""
        return int(self.pairs.sum())


@dataclass(frozen=True, slots=True)
class Lift:
    """A ratio of two exposures with its bootstrap interval."""

    value: float | None
    """The ratio; `None` if it was not measured (no pairs, or no exposure on either side)."""
    low: float | None
    """Lower end; `None` as the value, or for a single user."""
    high: float | None
    """Upper end; `None` where none is known: a lower bound, no exposure above the line, or a single user."""
    n: int
    """Number of users with unseen pairs (of the numerator), the units drawn."""
    lower_bound: bool
    """Whether the denominator was zero and its upper limit took its place, so that the ratio is at least `value`."""
    zero_share: float
    """Share of resamples whose denominator was zero. Above 0.025, `high` leans on the limit put there and is no
    more than the least the upper end of a 95 % interval can be."""


def mask_seen(rows: Array, items: Array, targets: Array, users: int) -> Flags:
    """Tell which user has seen which target, from flat (user, item) pairs.

    Args:
        rows: User of each event, shape `[events]`.
        items: Item of each event, shape `[events]`.
        targets: Target items, shape `[targets]`.
        users: Number of users.

    Returns:
        The mask, shape `[users, targets]`.

    Raises:
        UserError: If the arrays do not align or a user is out of range.
    """
    row, item = to_index(rows, "rows", users).numpy(), to_numpy(items)
    if row.shape != item.shape:
        raise UserError(f"There are {row.size} users of events and {item.size} items.", "Pass one of each an event.")
    wanted, place = np.unique(to_numpy(targets), return_inverse=True)
    relevant = np.isin(item, wanted)
    table = np.zeros((users, len(wanted)), dtype=np.bool_)
    table[row[relevant], np.searchsorted(wanted, item[relevant])] = True
    return table[:, place]


def _sum_gains(ranks: NDArray[Any], seen: Flags, metric: str, k: int) -> Floats:
    if metric not in RANKING_METRICS:
        raise UserError(f"'{metric}' is not a metric of exposure.", f"Use one of {', '.join(RANKING_METRICS)}.")
    return np.where(seen, 0.0, RANKING_METRICS[metric](ranks, k)).sum(axis=1)


def exposures(
    ranks: Array,
    seen: Array,
    group: Array | None = None,
    ks: Sequence[int] = CUTOFFS,
    metrics: Sequence[str] = ("hr", "ndcg"),
) -> dict[ExposureCell, Exposure]:
    """Measure the exposure of the targets for each group, metric and cut-off.

    Args:
        ranks: Rank of each target for each user, shape `[users, targets]`, from `topk_ranks`.
        seen: Which pairs to leave out, shape `[users, targets]`.
        group: Which users the attack aims at, shape `[users]`; without it everyone, and `other` is nobody.
        ks: Cut-offs, none above the `k_max` of the ranks.
        metrics: Names of ranking metrics.

    Returns:
        Per-user sums and counts of each cell. Groups hold their own users only, in the order given.

    Raises:
        UserError: If shapes differ, a rank or cut-off is below 1, or a metric is unknown.
    """
    places = to_numpy(ranks)
    if places.ndim != 2:
        raise UserError(f"Ranks must have shape [users, targets], and have {places.shape}.", "Use `topk_ranks`.")
    hidden = to_flags(seen, "seen", places.shape)
    everyone = np.ones(len(places), dtype=np.bool_)
    aimed = everyone if group is None else to_flags(group, "group", (len(places),))
    members: dict[ExposureGroup, Flags] = {"target": aimed, "other": ~aimed, "all": everyone}
    pairs = (~hidden).sum(axis=1, dtype=np.int64)
    table: dict[ExposureCell, Exposure] = {}
    for metric in metrics:
        for k in ks:
            sums = _sum_gains(places, hidden, metric, k)
            for name, users in members.items():
                table[ExposureCell(name, metric, k)] = Exposure(sums[users], pairs[users])
    return table


def pool_seeds(seeds: Exposure | Sequence[Exposure]) -> Exposure:
    """Average the per-user sums of several seeds, measured on the same users and targets.

    Raises:
        UserError: If there is none, or their users or pairs differ.
    """
    runs = [seeds] if isinstance(seeds, Exposure) else list(seeds)
    if not runs:
        raise UserError("There is no exposure to pool.", "Pass at least one seed.")
    for run in runs:
        _check_aligned(run, runs[0])
    return Exposure(np.mean([run.sums for run in runs], axis=0), runs[0].pairs)


def _check_aligned(one: Exposure, other: Exposure) -> None:
    if not np.array_equal(one.pairs, other.pairs):
        raise UserError(
            f"One exposure is over {len(one.pairs)} users with {one.n} unseen pairs, the other over {len(other.pairs)} "
            f"users with {other.n}; they are not of the same users and targets.",
            "Measure clean and attacked models on the same users, targets and seen items.",
        )


def lift(
    attacked: Exposure | Sequence[Exposure],
    clean: Exposure | Sequence[Exposure],
    rng: np.random.Generator,
    resamples: int = BOOTSTRAP_RESAMPLES,
    level: float = CONFIDENCE_LEVEL,
) -> Lift:
    """Return the attacked exposure over the clean one, with a paired percentile bootstrap over users.

    The statistic is the ratio of the sums, not a mean of ratios. Each resample draws users once, and takes both sums
    from them (Efron and Tibshirani, 1993, chapters 10 and 13). With several seeds a user's sums are averaged over the
    seeds first, so the interval speaks of users; `spread` of the lifts of single seeds speaks of seeds.

    A clean exposure of zero does not make the lift infinite, for more users might have shown some. Its rate is then
    set to the largest that still gives zero in n pairs with probability `1 - level`: `1 - 0.05 ** (1 / n)` at 95 %
    (`zero_limit`). The value becomes a lower bound, the low end the attacked exposure's own over that limit, and there
    is no high end. The limit holds for NDCG as for HR, since no pair gains more than a hit. It takes pairs as
    independent, and n counts the pairs of one seed however many are pooled. Resamples that happen to hold no clean
    exposure get the same limit, which keeps both ends finite and errs to the low side; `zero_share` tells how many.

    Args:
        attacked: Exposure under the attacked model, or one a seed.
        clean: Exposure under the clean model, or one a seed (their number may differ from `attacked`'s).
        rng: Generator to draw from.
        resamples: Number of resamples.
        level: Coverage.

    Returns:
        The lift, a plain factor. If neither model shows a target, it is not measurable and its value is `None`. If
        only the attacked model shows none, it is 0 with no known high end.

    Raises:
        UserError: If users or pairs differ between exposures, or an option is out of range.
    """
    only = ExposureCell("all", "hr", 1)  # a name for the one cell, whatever was measured
    return lifts({only: pool_seeds(attacked)}, {only: pool_seeds(clean)}, rng, resamples, level)[only]


def lifts(
    attacked: Mapping[ExposureCell, Exposure],
    clean: Mapping[ExposureCell, Exposure],
    rng: np.random.Generator,
    resamples: int = BOOTSTRAP_RESAMPLES,
    level: float = CONFIDENCE_LEVEL,
) -> dict[ExposureCell, Lift]:
    """Return the lift of every cell; the cells of a group share their resamples, so this costs little more than one.

    Args:
        attacked: Exposures under the attacked model, from `exposures`.
        clean: The same cells under the clean model.
        rng: Generator to draw from.
        resamples: Number of resamples.
        level: Coverage.

    Raises:
        UserError: As `lift`, and if a cell has no clean counterpart.
    """
    found: dict[ExposureCell, Lift] = {}
    for group in dict.fromkeys(cell.group for cell in attacked):
        members = [cell for cell in attacked if cell.group == group]
        for cell in members:
            if cell not in clean:
                raise UserError(f"There is no clean exposure for {cell}.", "Measure both models alike.")
            _check_aligned(attacked[cell], clean[cell])
        pairs = attacked[members[0]].pairs
        kept = pairs > 0
        sums = [side[cell].sums[kept] for side in (attacked, clean) for cell in members]
        if not kept.any():
            draws = np.empty((0, len(sums) + 1))
        else:
            draws = bootstrap_sums(np.stack([*sums, pairs[kept].astype(np.float64)], axis=1), rng, resamples)
        for number, cell in enumerate(members):
            columns = draws[:, [number, number + len(members)]] / draws[:, -1:]
            found[cell] = _divide(attacked[cell], clean[cell], columns, level)
    return found


def selectivity(
    target: Exposure | Sequence[Exposure],
    other: Exposure | Sequence[Exposure],
    rng: np.random.Generator,
    resamples: int = BOOTSTRAP_RESAMPLES,
    level: float = CONFIDENCE_LEVEL,
) -> Lift:
    """Return the exposure to target users over that to the others: 1 is an attack that aims at nobody.

    As `lift`, but the two groups are different people and are drawn apart.

    Args:
        target: Exposure to the users aimed at, or one a seed.
        other: Exposure to everyone else, or one a seed.
        rng: Generator to draw from.
        resamples: Number of resamples.
        level: Coverage.

    Returns:
        The ratio, a plain factor, with zero and missing denominators treated as in `lift`.

    Raises:
        UserError: If pairs differ between the seeds of a group, or an option is out of range.
    """
    sides = (pool_seeds(target), pool_seeds(other))
    if not all(side.n for side in sides):
        return _divide(*sides, np.empty((0, 2)), level)
    columns: list[Floats] = []
    for side in sides:
        table = np.stack([side.sums, side.pairs.astype(np.float64)], axis=1)
        draws = bootstrap_sums(table[side.pairs > 0], rng, resamples)
        columns.append(draws[:, 0] / draws[:, 1])
    return _divide(*sides, np.stack(columns, axis=1), level)


def _divide(top: Exposure, bottom: Exposure, rates: Floats, level: float) -> Lift:
    """Divide two exposures, and their resampled rates (shape `[resamples, 2]`), where that can be done."""
    check_level(level)
    users = int((top.pairs > 0).sum())
    above, below = top.value, bottom.value
    if above is None or below is None or above == below == 0:
        return Lift(None, None, None, users, lower_bound=False, zero_share=0.0)
    limit = zero_limit(bottom.n, level)
    zero = rates[:, 1] == 0
    value = above / (below or limit)
    low, high = percentiles(rates[:, 0] / np.where(zero, limit, rates[:, 1]), level)
    alone = min(users, int((bottom.pairs > 0).sum())) < 2
    return Lift(
        value,
        None if alone else low,
        None if alone or below == 0 or above == 0 else high,
        users,
        lower_bound=below == 0,
        zero_share=float(zero.mean()),
    )
