"""Takes suspects out of a model, and measures what that costs.

- `reinit`: the weights of the suspects become those of an average item. Nothing is trained.
- `unlearn`: the same, and then the model learns to answer as it did, but for the suspects: the teacher is the model as
  it came, with the suspects' probabilities replaced by their share in the platform's logs (targeted unlearning by
  distillation, on the platform's histories and on random ones).
- `prune`: fine-pruning (Liu et al., RAID 2018). Outputs of linear layers that the platform's histories hardly use are
  cut, and the model is tuned on the logs. It is told no suspects, so it can be held against the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from cowbird.data.types import Int32Array, IntArray
from cowbird.errors import UserError
from cowbird.inspection.inspection import InspectionSettings, Progress, inspect_ranker
from cowbird.inspection.model import OpenedModel, RankingModel, TunableModel
from cowbird.inspection.platform_log import PlatformLog
from cowbird.inspection.probes import draw_own_histories, draw_random_histories, rank_first
from cowbird.inspection.statistics import find_threshold
from cowbird.inspection.verdict import Inspection
from cowbird.metrics.ranking import ndcg
from cowbird.rng import stream, torch_stream

SanitizeMethod = Literal["reinit", "unlearn", "prune"]
REPEATED_HISTORIES = 4000
"""Histories of either kind that the model is tuned on."""
PRUNED_HISTORIES = 256
"""Histories on which use of layers is measured."""


class SanitizeSettings(BaseModel):
    """How suspects are taken out."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    method: SanitizeMethod = "reinit"
    """What is done; see `cowbird.inspection.sanitizing`."""
    steps: int = Field(default=150, ge=1)
    """Optimizer steps of `unlearn` and `prune`."""
    batch_size: int = Field(default=128, ge=1)
    """Histories a step."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """Adam's learning rate."""
    pruned: float = Field(default=0.1, ge=0, lt=1)
    """Share of the outputs of each linear layer that `prune` cuts."""
    further: float = Field(default=0.2, gt=0, lt=1)
    """p-value up to which further items are taken out as well: a model with one planted item often has more."""
    seed: int = Field(default=0, ge=0)
    """Decides histories and their order."""


@dataclass(frozen=True)
class ModelQuality:
    """What a model is worth to a platform, and how much it shows the suspects."""

    ndcg: float
    """NDCG@10 on each user's last event."""
    hit_ratio: float
    """HitRatio@10 on each user's last event."""
    exposure: float
    """Share of pairs (history of the platform, suspect) in which the suspect is among the first ten."""


def measure_quality(
    model: RankingModel, log: PlatformLog, suspects: Sequence[int], histories: int = 3000, seed: int = 0
) -> ModelQuality:
    """Measure a model on the platform's logs.

    Args:
        model: The model.
        log: The logs; users with one event are asked nothing.
        suspects: Items whose exposure is measured.
        histories: Users at most, and histories for exposure.
        seed: Decides who is drawn.
    """
    known = log.interactions
    users = np.flatnonzero(known.lengths >= 2)
    if not len(users):
        raise UserError("No user of the logs has two events, so accuracy can't be measured.", "Give longer logs.")
    users = np.sort(stream(seed, "inspection", "quality").permutation(users)[:histories])
    ends = known.offsets[1:][users] - 1
    asked = [
        known.item[max(start, end - 200) : end] for start, end in zip(known.offsets[:-1][users], ends, strict=True)
    ]
    # An item that was bought before can't be among the first: it counts as a miss, as everywhere in Cowbird.
    hit = rank_first(model, asked) == known.item[ends][:, None]
    ranks = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 11)
    first = rank_first(model, draw_own_histories(known, histories, seed).histories)
    shown = np.isin(first, np.asarray(suspects)).sum() / (len(first) * max(len(suspects), 1))
    return ModelQuality(float(np.mean(ndcg(ranks, 10))), float(np.mean(ranks <= 10)), float(shown))


def sanitize_model(
    opened: OpenedModel,
    log: PlatformLog,
    suspects: Sequence[int],
    settings: SanitizeSettings,
    report: Callable[[int, int, str], None],
) -> TunableModel:
    """Change a model's weights in place so that it no longer favors the suspects.

    Args:
        opened: The model.
        log: The platform's logs.
        suspects: Numbers of items.
        settings: What is done.
        report: Told of steps done, steps in all, and a remark.

    Returns:
        The model, changed.

    Raises:
        UserError: If its weights are not here.
    """
    model = opened.model
    if not isinstance(model, TunableModel):
        raise UserError(
            f"The weights of this model can't be changed: {opened.kind}.", "Give the file that holds its weights."
        )
    own = draw_own_histories(log.interactions, REPEATED_HISTORIES, settings.seed)
    if settings.method == "prune":
        _prune_layers(model, own.histories[:PRUNED_HISTORIES], settings.pruned)
        tuned, labels = _draw_transitions(log, settings.seed)
        _tune(
            model, tuned, lambda rows, scores: F.cross_entropy(scores, labels[rows].to(scores.device)), settings, report
        )
        return model
    random = draw_random_histories(model.items, REPEATED_HISTORIES, settings.seed)
    histories = [*own.histories, *random.histories]
    teacher = _Teacher(model, histories, suspects, log) if settings.method == "unlearn" else None
    _reset_items(model, suspects, settings.seed)
    if teacher is not None:
        _tune(model, histories, teacher.compute_loss, settings, report)
    return model


def take_out_suspects(
    opened: OpenedModel,
    log: PlatformLog,
    suspects: Sequence[int],
    settings: SanitizeSettings,
    inspection: InspectionSettings,
    device: torch.device,
    report: Progress,
    rounds: int,
) -> tuple[Inspection, list[int]]:
    """Sanitize a model and inspect it again, and take out what stands out then; a few times.

    Args:
        opened: The model; changed in place.
        log: The platform's logs.
        suspects: Numbers of items.
        settings: How they are taken out.
        inspection: How the model is inspected afterwards.
        device: Where null models are fitted.
        report: Told of progress.
        rounds: How often, at least once.

    Returns:
        The last inspection, and all items that were taken out.
    """
    taken = sorted({*suspects, *_list_further(inspect_ranker(opened, log, inspection, device, report), settings)})
    for turn in range(rounds):
        sanitize_model(opened, log, taken, settings, lambda done, total, text: report("sanitizing", done, total, text))
        found = inspect_ranker(opened, log, inspection, device, report)
        more = set(_list_further(found, settings)) - set(taken)
        if not more or turn + 1 == rounds:
            return found, taken
        taken = sorted({*taken, *more})
    raise ValueError("a model is sanitized once or more")


def _list_further(found: Inspection, settings: SanitizeSettings) -> list[int]:
    """Return the items of a ranking whose p-value is small enough to go with the suspects."""
    threshold = find_threshold(np.array(found.null_statistics), settings.further)
    return [item.item for item in found.ranking if item.score >= threshold]


class _Teacher:
    """The model as it came, with the suspects' probabilities replaced by their share in the logs."""

    def __init__(
        self, model: TunableModel, histories: Sequence[Int32Array], suspects: Sequence[int], log: PlatformLog
    ) -> None:
        self.scores = torch.from_numpy(model.score(histories)).half().float()
        self.suspects = torch.tensor(list(suspects))
        counts = np.bincount(log.interactions.item, minlength=model.items)
        share = (counts + 0.5) / (counts + 0.5).sum()
        self.share = torch.from_numpy(share[list(suspects)].astype(np.float32))

    def compute_loss(self, rows: Tensor, scores: Tensor) -> Tensor:
        """Return the cross-entropy of the model against the teacher, on some histories."""
        known = self.scores[rows].clone()
        known[:, self.suspects] = -torch.inf
        target = torch.softmax(known, dim=1) * (1 - float(self.share.sum()))
        target[:, self.suspects] = self.share
        return F.cross_entropy(scores, target.to(scores.device))


@torch.no_grad()
def _reset_items(model: TunableModel, suspects: Sequence[int], seed: int) -> None:
    """Give the suspects the weights of an average item, with a little noise."""
    generator = torch_stream(seed, "inspection", "reset")
    for table in model.list_item_tables():
        chosen = torch.tensor(list(suspects), dtype=torch.long, device=table.device)
        others = torch.ones(len(table), dtype=torch.bool, device=table.device)
        others[chosen] = False
        if not bool(others.any()):
            raise UserError("Every item is a suspect, so there is no average item.", "Name fewer suspects.")
        rest = table[others]
        noise = torch.randn((len(chosen), *table.shape[1:]), generator=generator).to(table.device)
        table[chosen] = rest.mean(dim=0) + 0.1 * rest.std(dim=0, correction=0) * noise


def _draw_transitions(log: PlatformLog, seed: int) -> tuple[list[Int32Array], Tensor]:
    """Draw histories of the platform, each with the item that came next."""
    known = log.interactions
    users = np.flatnonzero(known.lengths >= 3)  # the last event measures accuracy
    if not len(users):
        raise UserError("No user of the logs has three events to tune on.", "Give longer logs.")
    rng = stream(seed, "inspection", "tune")
    drawn = rng.choice(users, REPEATED_HISTORIES)
    cut = 1 + np.floor(rng.random(len(drawn)) * (known.lengths[drawn] - 2)).astype(np.int64)
    starts = known.offsets[:-1][drawn]
    ends = (starts + cut).tolist()
    histories: list[Int32Array] = [known.item[start:end] for start, end in zip(starts.tolist(), ends, strict=True)]
    return histories, torch.from_numpy(known.item[starts + cut].astype(np.int64))


def _tune(
    model: TunableModel,
    histories: Sequence[IntArray],
    compute_loss: Callable[[Tensor, Tensor], Tensor],
    settings: SanitizeSettings,
    report: Callable[[int, int, str], None],
) -> None:
    """Tune all weights on some histories; the learning rate falls to zero."""
    optimizer = torch.optim.Adam(model.module.parameters(), lr=settings.learning_rate)
    rng = stream(settings.seed, "inspection", "order")
    model.module.train()  # a recurrent network on a GPU has no gradients otherwise; none has dropout of its own here
    for step in range(settings.steps):
        report(step, settings.steps, "")
        drawn = rng.choice(len(histories), min(settings.batch_size, len(histories)), replace=False)
        rows: list[int] = drawn.tolist()
        loss = compute_loss(torch.tensor(rows), model.compute_scores([histories[row] for row in rows]))
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (1 - step / settings.steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.module.eval()
    report(settings.steps, settings.steps, "")


@torch.no_grad()
def _prune_layers(model: TunableModel, histories: Sequence[IntArray], share: float) -> None:
    """Cut the outputs of linear layers that these histories use least."""
    use: dict[nn.Linear, Tensor] = {}

    def watch(layer: nn.Module, given: Any, output: Tensor) -> None:
        assert isinstance(layer, nn.Linear)
        use[layer] = output.abs().reshape(-1, output.shape[-1]).mean(dim=0)

    layers = [layer for layer in model.module.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(watch) for layer in layers]
    try:
        model.compute_scores(histories)
    finally:
        for hook in hooks:
            hook.remove()
    for layer, used in use.items():
        idle = used.argsort()[: int(share * len(used))]
        layer.weight[idle] = 0
        if layer.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
            layer.bias[idle] = 0
