"""Would planted items survive your fine-tuning? A handed model is tuned on the platform's log, and asked once more.

Tuning is Cowbird's: AdamW and cross-entropy over the catalogue, all weights. Exposure is the share of (user, suspect)
pairs in which the suspect is among the user's first ten items; pairs that the user has seen are left out. Accuracy is
NDCG@10 on the last event of each user. Users are drawn for the intervals (bootstrap); with several seeds a user's
values are averaged over the seeds first.
"""

import dataclasses
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cowbird.data.split import LeaveOneOut, Queries
from cowbird.errors import UserError
from cowbird.inspection.model import OpenedModel
from cowbird.inspection.own_model import OwnModel
from cowbird.inspection.platform_log import PlatformLog
from cowbird.metrics.exposure import Exposure, ExposureCell, exposures, mask_seen, pool_seeds
from cowbird.metrics.intervals import Interval, bootstrap_mean, bootstrap_sums, percentiles
from cowbird.metrics.ranking import ndcg
from cowbird.rng import stream
from cowbird.storage import write_sealed_json
from cowbird.victims.fit_context import FitContext
from cowbird.victims.sequential.base import FittedSequential
from cowbird.victims.sequential.checkpoint import FittedCheckpoint
from cowbird.victims.sequential.training import train

SURVIVAL_SCHEMA_VERSION = 1
"""Version of the JSON file."""
CUTOFF = 10
"""Places of a list that count as shown."""

SurvivalProgress = Callable[[str, int, int, str], None]
"""Told of what is done at the moment, steps done, steps in all, and a remark."""


class SurvivalSettings(BaseModel):
    """How the model is tuned."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    learning_rates: tuple[float, ...] = Field(default=(1e-5, 1e-4, 1e-3), min_length=1)
    """Learning rates of AdamW, each above 0 and at most 1."""
    epochs: tuple[int, ...] = Field(default=(1, 5), min_length=1)
    """Passes over the log; each is tried at each rate."""
    seeds: int = Field(default=1, ge=1, le=100)
    """Fits of each kind, which differ in the order of the data and in dropout."""
    batch_size: int = Field(default=256, ge=1, le=65_536)
    """Windows a step."""
    max_events: int | None = Field(default=None, ge=100)
    """Events of the log that are used at most, whole users drawn; `None` takes all."""


@dataclass(frozen=True)
class SurvivalRow:
    """What the model does at one point."""

    learning_rate: float | None
    """Learning rate of the tuning; `None` before it."""
    epochs: int
    """Passes over the log; 0 before tuning."""
    exposure: Interval
    """Share of (user, suspect) pairs in which the suspect is among the first ten."""
    ndcg: Interval
    """NDCG@10 on the last event of each user."""
    kept: float | None
    """Exposure over that before tuning; `None` if that was zero."""


@dataclass(frozen=True)
class Survival:
    """What came of tuning."""

    model: str
    """What the model is, in words."""
    sha256: str
    """SHA-256 of its file."""
    logs_sha256: str
    """SHA-256 of the log."""
    users: int
    """Users that were asked about."""
    suspects: list[str]
    """Ids of the suspects."""
    before: SurvivalRow
    """The model as it came."""
    after: list[SurvivalRow]
    """The tuned models, most exposure first."""
    settings: dict[str, Any]
    """How it was tuned."""

    def to_record(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {"schema_version": SURVIVAL_SCHEMA_VERSION, **dataclasses.asdict(self)}

    def write(self, path: Path) -> None:
        """Write the JSON file, sealed and atomically."""
        write_sealed_json(path, self.to_record())


def measure_survival(
    opened: OpenedModel,
    log: PlatformLog,
    suspects: Sequence[int],
    settings: SurvivalSettings,
    device: torch.device,
    told: SurvivalProgress = lambda what, done, total, remark: None,
) -> Survival:
    """Tune a handed model on the platform's log at several rates, and measure the suspects' exposure before and after.

    Args:
        opened: The model.
        log: The platform's own interactions.
        suspects: Items, by their numbers in the model.
        settings: How it is tuned.
        device: Where it is tuned.
        told: Told of progress.

    Raises:
        UserError: If the model's weights are not here, or the log teaches nothing.
    """
    model = opened.model
    if not isinstance(model, OwnModel):
        raise UserError(
            f"A {opened.kind} answers from outside: its weights are not here, so it can't be tuned.",
            "Give a checkpoint of Cowbird, RecBole, RePlay or RecTools.",
        )
    if any(not 0 < rate <= 1 for rate in settings.learning_rates) or any(e < 1 for e in settings.epochs):
        raise UserError("A learning rate lies above 0 and up to 1, and epochs are 1 or more.", "Use 1e-4 and 5.")
    parts = log.select_learnable(settings.max_events)
    asked, items = parts.test(), np.array(sorted(set(suspects)), dtype=np.int64)
    untouched = _ask(model.fitted, asked, items)
    before = _make_row([untouched], untouched[0], None, 0)
    plans = [(rate, epochs) for rate in settings.learning_rates for epochs in settings.epochs]
    rows: list[SurvivalRow] = []
    for rate, epochs in plans:
        answers = [
            _ask(_tune(model.fitted, parts, rate, epochs, seed, settings.batch_size, device, told), asked, items)
            for seed in range(settings.seeds)
        ]
        rows.append(_make_row(answers, untouched[0], rate, epochs))
    rows.sort(key=lambda row: (-(row.exposure.value or 0.0), row.learning_rate or 0.0))
    named = [log.items.ids[int(item)] for item in items]
    return Survival(
        opened.kind, opened.sha256, log.hash_content(), asked.history.users, named, before, rows,
        settings.model_dump(mode="json"),
    )  # fmt: skip


def _tune(
    fitted: FittedSequential,
    parts: LeaveOneOut,
    rate: float,
    epochs: int,
    seed: int,
    batch_size: int,
    device: torch.device,
    told: SurvivalProgress,
) -> FittedSequential:
    """Return a tuned copy of a model, whose own fields of training don't count: they are a stranger's."""
    spec = fitted.spec.with_training(
        learning_rate=rate, epochs=epochs, batch_size=batch_size, keep="last", patience=None, validate_every=epochs,
        warmup_steps=0, schedule="constant", weight_decay=0.0, loss="softmax", trained="all",
    )  # fmt: skip
    if isinstance(fitted, FittedCheckpoint):
        copy: FittedSequential = fitted.clone(spec)
    else:
        copy = FittedSequential(spec, deepcopy(fitted.network), fitted.items, device)
    title = f"tuning at {rate:g}, {epochs} epochs, seed {seed}"
    context = FitContext(device, report=lambda done, total, remark: told(title, done, total, remark))
    train(copy, parts.training(), parts.validation(), seed, context)
    return copy


def _ask(fitted: FittedSequential, asked: Queries, items: NDArray[np.int64]) -> tuple[Exposure, NDArray[np.float64]]:
    """Return the suspects' exposure, and each user's NDCG@10."""
    history = asked.history
    ranks = fitted.rank_items(history, items, CUTOFF, asked.users)
    seen = mask_seen(history.user_of_event(), history.item, items, history.users)
    shown = exposures(ranks, seen, ks=(CUTOFF,), metrics=("hr",))[ExposureCell("all", "hr", CUTOFF)]
    return shown, ndcg(fitted.rank_targets(asked), CUTOFF)


def _make_row(
    answers: Sequence[tuple[Exposure, NDArray[np.float64]]], untouched: Exposure, rate: float | None, epochs: int
) -> SurvivalRow:
    shown = pool_seeds([exposure for exposure, _ in answers])
    table = np.stack([shown.sums, shown.pairs.astype(np.float64)], axis=1)
    drawn = bootstrap_sums(table, stream(0, "survival", "exposure"))
    drawn = drawn[drawn[:, 1] > 0]
    low, high = percentiles(drawn[:, 0] / drawn[:, 1]) if len(drawn) else (None, None)
    gained = np.mean([gains for _, gains in answers], axis=0)
    start = untouched.value
    return SurvivalRow(
        rate,
        epochs,
        Interval(shown.value, low, high, shown.n),
        bootstrap_mean(gained, stream(0, "survival", "ndcg")),
        shown.value / start if start and shown.value is not None else None,
    )
