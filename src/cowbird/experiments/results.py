"""From evidence to tidy rows: one measurement a row, with its interval and what it rests on.

Every interval is a percentile bootstrap over users. A row without a seed pools all seeds: the users of each seed are
resampled together. Metrics whose name ends in `_over_seeds` are the mean of the seeds' values with a t interval.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cowbird.errors import UserError
from cowbird.experiments.evidence import PLAIN_KIND, TRIGGER_KIND, RankingEvidence, is_near
from cowbird.files import write_text
from cowbird.metrics.exposure import Exposure, ExposureCell, exposures, lifts, selectivity
from cowbird.metrics.intervals import bootstrap_mean, bootstrap_sums, measure_spread, percentiles
from cowbird.metrics.ranking import RANKING_METRICS
from cowbird.rng import stream

EXPOSURE_METRICS = ("hr", "ndcg")
UNBOUNDED_PREFIXES = ("lift", "selectivity", "flagged", "lost_")
"""How metrics begin that are ratios or counts."""
SIGNED_SUFFIXES = ("_change", "_difference", "_excess", "_lost")
"""How metrics end that are differences."""
NO_K = 0
"""The cut-off of measurements that have none."""


class Row(BaseModel):
    """One measurement."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    experiment: str
    """Name of the experiment."""
    dataset: str
    """Name of the dataset."""
    victim: str
    """Label of the victim."""
    attack: str
    """Label of the attack; `none` for the clean model's accuracy over all users, and for what a defense flags in the
    clean catalogue."""
    defense: str
    """Label of the defense."""
    scenario: str
    """Label of the scenario; `none` for what a defense flags, which comes before any."""
    group: str
    """Whose measurement: `target` users, `other` users, or `all`. Of victims that answer questions: `all` of them, or
    the kind of trigger in a title: `trigger` is the attack's own, `unseen` the same on items that training never met,
    `near-…` others, `none` no trigger."""
    metric: str
    """What was measured. `hr`, `ndcg`, `mrr`: accuracy on the held-out item. `ndcg_clean` and so on: the clean model's
    for the same users; `ndcg_change`: relative change against it. `exposure_hr`, `exposure_hr_clean`: exposure of the
    targets under the attacked and the clean model. `lift_hr`: their ratio; `lift_hr_lower_bound`: at least that, for
    the clean exposure was zero and its upper 95 % limit stands in. `selectivity_hr`: exposure of target over other
    users. Of a defense: `asr_excess`, `exposure_hr_excess`: what is left of the attack above the clean model without a
    defense; `auc_lost`, `hit_ratio_lost`, `hr_lost`: what accuracy it costs against that model; `detection_auroc`,
    `recall`, `lost_clean_items` and so on: what it flags (`cowbird.experiments.detection`)."""
    k: int
    """Cut-off."""
    seed: int | None
    """Seed, or `None` for all seeds together."""
    value: float | None
    """The measurement; `None` if there was nothing to measure."""
    low: float | None
    """Lower end of the 95 % interval."""
    high: float | None
    """Upper end of the 95 % interval; `None` if there is none (a lower bound)."""
    n: int
    """How much it rests on: users, (user, target) pairs for exposures, questions, or seeds."""


class RowLabels(BaseModel):
    """The part of a row that one piece of evidence shares."""

    model_config = ConfigDict(frozen=True)

    experiment: str
    dataset: str
    victim: str
    attack: str
    defense: str
    scenario: str
    seed: int | None

    def make_row(
        self, group: str, metric: str, k: int, value: float | None, low: float | None, high: float | None, n: int
    ) -> Row:
        """Make one row."""
        return Row(**self.model_dump(), group=group, metric=metric, k=k, value=value, low=low, high=high, n=n)


Selection = NDArray[np.bool_] | slice
"""Which values of a column."""


class QuestionGroup(NamedTuple):
    """The questions behind the rows of one group, about victims that answer questions."""

    name: str
    """The group."""
    kind: str
    """The kind of trigger that they were asked with."""
    questions: Selection
    """Which of all questions they are."""
    answers: Selection
    """Which of the answers to that kind of question are theirs, in the same order."""


def group_questions(
    kinds: Iterable[str], near: NDArray[np.bool_], unseen: NDArray[np.bool_]
) -> Iterator[QuestionGroup]:
    """Yield the groups of rows about triggers: the attack's own first, the same on unseen items, then the others.

    Args:
        kinds: Kinds of questions that were asked.
        near: Which questions were asked with triggers that are near the attack's, shape `[questions]`.
        unseen: In which the item with the trigger is one that training never met, shape `[questions]`.
    """
    every = slice(None)
    for kind in sorted(set(kinds) - {PLAIN_KIND}, key=lambda kind: (is_near(kind), kind)):
        yield QuestionGroup(kind, kind, near if is_near(kind) else every, every)
        if kind == TRIGGER_KIND:
            yield QuestionGroup("unseen", kind, unseen, unseen)


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
            rows.append(where.make_row(group, name, k, attacked, *percentiles(attacked_draws / n), n))
            interval = percentiles(clean_draws / n)
            rows.append(where.make_row(group, f"{name}_clean", k, clean, *interval, n))
            if group == "all":  # other groups are the attack's own, so their rows must name it
                rows.append(clean_where.make_row(group, name, k, clean, *interval, n))
            change = attacked / clean - 1 if clean > 0 else None
            # A resample in which the clean model has no hit at all leaves the change without an interval.
            known = change is not None and bool((clean_draws > 0).all())
            ends = percentiles(attacked_draws / clean_draws - 1) if known else (None, None)
            rows.append(where.make_row(group, f"{name}_change", k, change, *ends, n))
    return rows


def _make_exposure_tables(
    records: Sequence[RankingEvidence], ks: Sequence[int]
) -> tuple[dict[ExposureCell, Exposure], ...]:
    """Return attacked and clean exposures; the users of several seeds stand one after another."""
    sides: list[dict[ExposureCell, Exposure]] = []
    for side in ("attacked_exposure", "clean_exposure"):
        tables = [
            exposures(getattr(record, side), record.seen, record.group, ks, EXPOSURE_METRICS) for record in records
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
        for table, name in ((attacked, "exposure_{}"), (clean, "exposure_{}_clean")):
            exposure = table[cell]
            low, high = _bootstrap_exposure(exposure, rng)
            rows.append(
                where.make_row(cell.group, name.format(cell.metric), cell.k, exposure.value, low, high, exposure.n)
            )
        lift = found[cell]
        name = f"lift_{cell.metric}" + ("_lower_bound" if lift.lower_bound else "")
        rows.append(where.make_row(cell.group, name, cell.k, lift.value, lift.low, lift.high, lift.n))
    if not everybody:
        for k in ks:
            ratio = selectivity(
                attacked[ExposureCell("target", "hr", k)], attacked[ExposureCell("other", "hr", k)], rng
            )
            name = "selectivity_hr" + ("_lower_bound" if ratio.lower_bound else "")
            rows.append(where.make_row("all", name, k, ratio.value, ratio.low, ratio.high, ratio.n))
    return rows


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
            rows.append(where.make_row("all", f"{name}_lost", k, found.value, found.low, found.high, found.n))
    after, before = (
        exposures(ranks, record.seen, record.group, ks, EXPOSURE_METRICS)
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
        rows.append(where.make_row(cell.group, f"exposure_{cell.metric}_excess", cell.k, value, low, high, mine.n))
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


def summarize_seeds(rows: Iterable[Row]) -> list[Row]:
    """Return the spread over seeds of every measurement that has two seeds or more.

    The t interval of a share, such as an ASR of 0.99, is cut off at 0 and 1.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row.value is not None and row.seed is not None:
            key = (row.victim, row.attack, row.defense, row.scenario, row.group, row.metric, row.k)
            groups.setdefault(key, []).append(row)
    found: list[Row] = []
    for members in groups.values():
        if len(members) > 1:
            found_spread = measure_spread([row.value for row in members if row.value is not None])
            low, high = found_spread.low, found_spread.high
            if low is not None and high is not None and _is_share(members[0].metric):
                low, high = max(low, 0.0), min(high, 1.0)
            found.append(
                members[0].model_copy(
                    update={
                        "seed": None,
                        "metric": f"{members[0].metric}_over_seeds",
                        "value": found_spread.value,
                        "low": low,
                        "high": high,
                        "n": len(members),
                    }
                )
            )
    return found


def _is_share(metric: str) -> bool:
    """Return whether a metric lies between 0 and 1: no ratio, no difference, no count."""
    return not (metric.startswith(UNBOUNDED_PREFIXES) or metric.endswith(SIGNED_SUFFIXES))


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


def drop_duplicates(rows: Iterable[Row]) -> list[Row]:
    """Drop the repeated rows of the clean model (each attack of a group brings them), keeping the first."""
    kept: dict[tuple[object, ...], Row] = {}
    for row in rows:
        key = (row.victim, row.attack, row.defense, row.scenario, row.group, row.metric, row.k, row.seed)
        kept.setdefault(key, row)
    return list(kept.values())


def write_results(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON lines, atomically."""
    write_text(path, "".join(json.dumps(row.model_dump(mode="json")) + "\n" for row in rows))


def read_results(path: Path) -> list[Row]:
    """Read what `write_results` wrote.

    Raises:
        UserError: If the file is missing or a line is not a row; says which.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' can't be read: {error}.", "Give a results.jsonl.") from None
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(Row.model_validate_json(line))
        except ValueError:
            raise UserError(f"Line {number} of '{path}' is not a result row.", "Was the file edited?") from None
    return rows


def to_csv(rows: Iterable[Row]) -> str:
    """Return rows as CSV (labels are checked by the spec, so no cell can start a formula)."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Row.model_fields), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row.model_dump())
    return text.getvalue()
