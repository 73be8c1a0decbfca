"""Evidence and rows of victims that rank: ranks kept per user, so that users can be resampled.

Every interval is a percentile bootstrap over users. A row without a seed pools all seeds: the users of each seed are
resampled together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cowbird.experiments.measures import CHANGE, CLEAN, EXCESS, LOST, LOWER_BOUND, Measure
from cowbird.experiments.results import Row, RowLabels, summarize_seeds
from cowbird.experiments.shipped_measures import ACCURACY, EXPOSURE, LIFT, SELECTIVITY
from cowbird.metrics.exposure import Exposure, ExposureCell, Lift, exposures, lifts, selectivity
from cowbird.metrics.intervals import Interval, bootstrap_mean, bootstrap_sums, percentiles
from cowbird.metrics.ranking import RANKING_METRICS
from cowbird.rng import stream


@dataclass(frozen=True, slots=True, eq=False)
class RankingEvidence:
    """One attack in one scenario, the clean model beside it, on the same users."""

    scenario: str
    """Label of the scenario."""
    attack: str
    """Label of the attack."""
    defense: str
    """Label of the defense."""
    clean_rank: NDArray[np.int32]
    """Rank of each user's test item under the clean model, shape `[users]`."""
    attacked_rank: NDArray[np.int32]
    """The same under the attacked model."""
    clean_exposure: NDArray[np.int32]
    """Rank of each target for each user under the clean model, shape `[users, targets]`, exact up to 50."""
    attacked_exposure: NDArray[np.int32]
    """The same under the attacked model."""
    seen: NDArray[np.bool_]
    """Which targets a user has seen already, shape `[users, targets]`."""
    group: NDArray[np.bool_]
    """Which users the attack aims at, shape `[users]`."""


RANKING_ARRAYS = ("clean_rank", "attacked_rank", "clean_exposure", "attacked_exposure", "seen", "group")


def _to_finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def make_accuracy_rows(
    where: RowLabels, record: RankingEvidence, ks: Sequence[int], rng: np.random.Generator
) -> list[Row]:
    """Return HR, NDCG and MRR of the attacked and the clean model, and the relative change, for each group."""
    rows: list[Row] = []
    names = [(name, k) for name in RANKING_METRICS for k in ks]
    clean_where = where.model_copy(update={"attack": "none"})
    members: dict[str, NDArray[np.bool_]] = {"all": np.ones(len(record.group), dtype=bool)}
    if not record.group.all():
        members |= {"target": record.group, "other": ~record.group}
    for group, users in members.items():
        n = int(users.sum())
        if not n:
            continue
        sides = [
            np.stack([RANKING_METRICS[name](ranks[users], k) for name, k in names], axis=1)
            for ranks in (record.attacked_rank, record.clean_rank)
        ]
        draws = bootstrap_sums(np.concatenate(sides, axis=1), rng)
        for column, (name, k) in enumerate(names):
            attacked, clean = (float(side[:, column].mean()) for side in sides)
            attacked_draws, clean_draws = draws[:, column], draws[:, column + len(names)]
            measure = ACCURACY[name]
            rows.append(where.make_row(group, measure, Interval(attacked, *percentiles(attacked_draws / n), n), k))
            found = Interval(clean, *percentiles(clean_draws / n), n)
            rows.append(where.make_row(group, measure[CLEAN], found, k))
            if group == "all":  # other groups are the attack's own, so their rows must name it
                rows.append(clean_where.make_row(group, measure, found, k))
            change = attacked / clean - 1 if clean > 0 else None
            # A resample in which the clean model has no hit at all leaves the change without an interval.
            known = change is not None and bool((clean_draws > 0).all())
            ends = percentiles(attacked_draws / clean_draws - 1) if known else (None, None)
            rows.append(where.make_row(group, measure[CHANGE], Interval(change, *ends, n), k))
    return rows


def _make_exposure_tables(
    records: Sequence[RankingEvidence], ks: Sequence[int]
) -> tuple[dict[ExposureCell, Exposure], ...]:
    """Return attacked and clean exposures; the users of several seeds stand one after another."""
    sides: list[dict[ExposureCell, Exposure]] = []
    for side in ("attacked_exposure", "clean_exposure"):
        tables = [
            exposures(getattr(record, side), record.seen, record.group, ks, tuple(EXPOSURE)) for record in records
        ]
        sides.append(
            {
                cell: Exposure(
                    np.concatenate([table[cell].sums for table in tables]),
                    np.concatenate([table[cell].pairs for table in tables]),
                )
                for cell in tables[0]
            }
        )
    return tuple(sides)


def make_exposure_rows(
    where: RowLabels, records: Sequence[RankingEvidence], ks: Sequence[int], rng: np.random.Generator
) -> list[Row]:
    """Return exposures, lifts and selectivity of the evidence of one or more seeds."""
    rows: list[Row] = []
    attacked, clean = _make_exposure_tables(records, ks)
    everybody = all(record.group.all() for record in records)
    cells = [cell for cell in attacked if cell.group != "other" or not everybody]
    found = lifts({c: attacked[c] for c in cells}, {c: clean[c] for c in cells}, rng)
    for cell in cells:
        measure = EXPOSURE[cell.metric]
        for table, shown in ((attacked, measure), (clean, measure[CLEAN])):
            exposure = table[cell]
            one = Interval(exposure.value, *_bootstrap_exposure(exposure, rng), exposure.n)
            rows.append(where.make_row(cell.group, shown, one, cell.k))
        rows.append(_make_lift_row(where, cell.group, LIFT[cell.metric], found[cell], cell.k))
    if not everybody:
        for k in ks:
            ratio = selectivity(
                attacked[ExposureCell("target", "hr", k)], attacked[ExposureCell("other", "hr", k)], rng
            )
            rows.append(_make_lift_row(where, "all", SELECTIVITY, ratio, k))
    return rows


def _make_lift_row(where: RowLabels, group: str, measure: Measure, lift: Lift, k: int) -> Row:
    """Return the row of a ratio, which is perhaps a lower bound."""
    shown = measure[LOWER_BOUND] if lift.lower_bound else measure
    return where.make_row(group, shown, Interval(lift.value, lift.low, lift.high, lift.n), k)


def make_defense_rows(
    where: RowLabels, record: RankingEvidence, bare: RankingEvidence, ks: Sequence[int], rng: np.random.Generator
) -> list[Row]:
    """Return what a defense left of the attack and what it cost, against the clean model without any defense.

    `hr_lost` and so on are that model's accuracy less that of the attacked and defended one, over all users;
    `exposure_hr_excess` and so on the exposures of the targets under the attacked and defended model less those under
    that one, for each group. Both are paired by user and resampled.

    Args:
        where: Where the defended model was measured, and the seed.
        record: Its evidence.
        bare: Evidence of the models without a defense, on the same users.
        ks: Cut-offs.
        rng: Draws resamples.
    """
    rows: list[Row] = []
    for name, metric in RANKING_METRICS.items():
        for k in ks:
            found = bootstrap_mean(metric(bare.clean_rank, k) - metric(record.attacked_rank, k), rng)
            rows.append(where.make_row("all", ACCURACY[name][LOST], found, k))
    after, before = (
        exposures(ranks, record.seen, record.group, ks, tuple(EXPOSURE))
        for ranks in (record.attacked_exposure, bare.clean_exposure)
    )
    for cell, mine in after.items():
        if cell.group == "other" and record.group.all():
            continue
        gap, pairs = mine.sums - before[cell].sums, mine.pairs.astype(np.float64)
        value = float(gap.sum() / pairs.sum()) if pairs.any() else None
        low, high = None, None
        if int((pairs > 0).sum()) > 1:
            draws = bootstrap_sums(np.stack([gap, pairs], axis=1)[pairs > 0], rng)
            low, high = percentiles(draws[:, 0] / draws[:, 1])
        found = Interval(value, low, high, mine.n)
        rows.append(where.make_row(cell.group, EXPOSURE[cell.metric][EXCESS], found, cell.k))
    return rows


def _bootstrap_exposure(exposure: Exposure, rng: np.random.Generator) -> tuple[float | None, float | None]:
    kept = exposure.pairs > 0
    if int(kept.sum()) < 2 or not exposure.sums.any():
        return None, None
    draws = bootstrap_sums(np.stack([exposure.sums[kept], exposure.pairs[kept].astype(np.float64)], axis=1), rng, 500)
    low, high = percentiles(draws[:, 0] / draws[:, 1])
    return _to_finite(low), _to_finite(high)


def _pool_accuracy(records: Sequence[RankingEvidence]) -> RankingEvidence:
    """Return one record whose users are those of every seed (exposures are pooled apart: targets differ by seed)."""
    first = records[0]
    return RankingEvidence(
        first.scenario,
        first.attack,
        first.defense,
        np.concatenate([record.clean_rank for record in records]),
        np.concatenate([record.attacked_rank for record in records]),
        first.clean_exposure,
        first.attacked_exposure,
        first.seen,
        np.concatenate([record.group for record in records]),
    )


def make_seed_rows(where: RowLabels, seed: int, record: RankingEvidence, ks: Sequence[int]) -> list[Row]:
    """Return the rows of one attack in one scenario under one seed; the seed of `where` is ignored."""
    here = where.model_copy(update={"seed": seed})
    rng = stream(seed, "bootstrap", *_list_labels(where))
    return make_accuracy_rows(here, record, ks, rng) + make_exposure_rows(here, [record], ks, rng)


def make_pooled_rows(where: RowLabels, records: Sequence[RankingEvidence], ks: Sequence[int]) -> list[Row]:
    """Return the rows of one attack in one scenario in which the users of all seeds are taken together."""
    pooled = where.model_copy(update={"seed": None})
    rng = stream(0, "bootstrap", "pooled", *_list_labels(where))
    return make_accuracy_rows(pooled, _pool_accuracy(records), ks, rng) + make_exposure_rows(pooled, records, ks, rng)


def _list_labels(where: RowLabels) -> tuple[str, ...]:
    return (where.victim, where.attack, where.defense, where.scenario)


def make_rows(where: RowLabels, seeds: dict[int, RankingEvidence], ks: Sequence[int]) -> list[Row]:
    """Return all rows of one attack in one scenario: each seed's, those of all together, and the spread over seeds."""
    single = [row for seed, record in seeds.items() for row in make_seed_rows(where, seed, record, ks)]
    return single + make_pooled_rows(where, list(seeds.values()), ks) + summarize_seeds(single)
