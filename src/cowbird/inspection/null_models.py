"""Null models: honest models that Cowbird fits to the platform's own logs, and what they answer.

Their shape is the inspected model's, if it is known. What they are trained with is Cowbird's choice: a stranger's file
may ask for a million epochs. Only their counts are kept, in the user's cache, by the hash of all that decides them.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cowbird.data.split import LeaveOneOut
from cowbird.errors import UserError
from cowbird.files import get_cache_folder, hash_texts
from cowbird.inspection.item_statistics import ItemStatistic
from cowbird.inspection.model import RankingModel
from cowbird.inspection.null_workers import fit_beside_each_other
from cowbird.inspection.own_model import OwnModel
from cowbird.inspection.sharing import share_work
from cowbird.rng import derive_seed
from cowbird.storage import read_tensors, write_tensors
from cowbird.victims.fit_context import FitContext, report_nothing
from cowbird.victims.sequential.base import SequentialRecommender
from cowbird.victims.sequential.sasrec import SASRec

NullCounts = dict[str, NDArray[Any]]
"""What statistics measure of a model, by their names; of histories, times each item is among the first ten."""
KEPT_TYPES = (np.dtype(np.int64), np.dtype(np.float32))
"""Number formats of statistics."""
MAX_NULL_HIDDEN = 256
"""Width of a null model at most, whatever the inspected model's."""
MAX_NULL_LAYERS = 4
MAX_CPU_EVENTS = 60_000
"""Events of the logs that null models learn from on a CPU: minutes on two cores for some thousand items."""


class NullSettings(BaseModel):
    """How null models are fitted."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    count: int = Field(default=5, ge=3, le=100)
    """How many null models."""
    max_events: int | None = Field(default=None, ge=100)
    """Events of the logs that they learn from; `None` takes all on a GPU, and `MAX_CPU_EVENTS` on a CPU."""
    epochs: int = Field(default=20, ge=1)
    """Passes over the logs; the best state on validation is kept."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """AdamW's learning rate."""
    validate_every: int = Field(default=4, ge=1)
    """Epochs between validations."""

    def choose_max_events(self, device: torch.device) -> int | None:
        """Return how many events null models learn from on a device; `None` for all."""
        if self.max_events is None and device.type == "cpu":
            return MAX_CPU_EVENTS
        return self.max_events

    def shape_recommender(self, shape: SequentialRecommender | None, windows: int) -> SequentialRecommender:
        """Return the recommender that null models are fits of.

        Args:
            shape: The inspected model's shape; `None` takes a SASRec.
            windows: How many users there are to learn from; decides the batch size.
        """
        made = SASRec() if shape is None else shape
        hidden = min(made.hidden, MAX_NULL_HIDDEN)
        fields = made.model_dump()
        layers = min(int(fields.get("layers", 1)), MAX_NULL_LAYERS)
        heads = {"heads": fields["heads"] if hidden % int(fields["heads"]) == 0 else 1} if "heads" in fields else {}
        return type(made).model_validate(
            {
                "hidden": hidden,
                "layers": layers,
                **heads,
                "max_length": min(made.max_length, 50),
                "epochs": self.epochs,
                "batch_size": int(np.clip(windows // 32, 16, 256)),
                "learning_rate": self.learning_rate,
                "validate_every": min(self.validate_every, self.epochs),
                "patience": None,
            }
        )


def fit_null_models(
    users: LeaveOneOut,
    shape: SequentialRecommender | None,
    settings: NullSettings,
    probes: Sequence[ItemStatistic],
    seed: int,
    device: torch.device,
    report: Callable[[int, int, str], None],
    workers: int = 1,
) -> list[NullCounts]:
    """Fit null models to the platform's logs and ask them the histories that the inspected model is asked.

    Args:
        users: The platform's users, with at least three events each.
        shape: The inspected model's shape; `None` if it is not known.
        settings: How many, and how they are trained.
        probes: The histories.
        seed: Decides weights and order of training.
        device: Where they are trained.
        report: Told of models done, models in all, and a remark.
        workers: Processes that fit them beside each other.

    Returns:
        The counts of each null model.
    """
    spec = settings.shape_recommender(shape, len(users.users))
    seeds = [derive_seed(seed, "null", number) % 2**31 for number in range(settings.count)]
    paths = [_name_file(users, spec, probes, of_one, device) for of_one in seeds]
    makers = [NullMaker(users, spec, tuple(probes), *each, device) for each in zip(seeds, paths, strict=True)]
    missing = [maker for maker in makers if maker.read_kept() is None]
    if workers > 1 and len(missing) > 1:
        begun = settings.count - len(missing)
        fit_beside_each_other(missing, workers, lambda done: report(begun + done, settings.count, ""))

    def make(number: int) -> NullCounts:
        """Fit and ask one, or return what was kept."""
        report(number, settings.count, "")
        return makers[number].make(lambda done, total, _: report(number, settings.count, f"step {done}/{total}"))

    found = share_work(get_cache_folder() / "inspection", [path.stem for path in paths], make)
    report(settings.count, settings.count, "")
    return found


@dataclass(frozen=True, eq=False)
class NullMaker:
    """Makes one null model, and keeps what it answers. It travels to another process."""

    users: LeaveOneOut
    """Whom it learns from."""
    spec: SequentialRecommender
    """What it is a fit of."""
    probes: tuple[ItemStatistic, ...]
    """What it is asked."""
    seed: int
    """Decides weights and order of training."""
    path: Path
    """Where its answers are kept."""
    device: torch.device
    """Where it is trained."""

    def read_kept(self) -> NullCounts | None:
        """Return what was kept; `None` if nothing was, or it is damaged."""
        return _read_counts(self.path, self.probes, len(self.users.items))

    def make(self, report: Callable[[int, int, str], None] = report_nothing) -> NullCounts:
        """Fit it and ask it, unless what it answers was kept."""
        counts = self.read_kept()
        if counts is None:
            context = FitContext(self.device, report=report)
            fitted = self.spec.fit(self.users.training(), self.users.validation(), self.seed, context)
            counts = ask_probes(OwnModel(fitted), self.probes)
            write_tensors(self.path, {name: torch.from_numpy(count) for name, count in counts.items()})
        return counts

    def make_shared(self) -> None:
        """Make it unless another process does so at the moment; then wait for that one."""
        share_work(self.path.parent, [self.path.stem], lambda _: self.make())


def ask_probes(model: RankingModel, probes: Sequence[ItemStatistic]) -> NullCounts:
    """Return what statistics measure of a model."""
    return {probe.name: probe.measure(model) for probe in probes}


def _name_file(
    users: LeaveOneOut, spec: SequentialRecommender, probes: Sequence[ItemStatistic], seed: int, device: torch.device
) -> Path:
    known = users.interactions
    parts = [json.dumps([type(spec).__name__, spec.model_dump(mode="json"), seed, device.type, len(users.items)])]
    parts += [known.item.tobytes().hex(), known.offsets.tobytes().hex()]
    for probe in probes:
        parts += probe.list_parts()
    return get_cache_folder() / "inspection" / f"{hash_texts(parts)}.safetensors"


def _read_counts(path: Path, probes: Sequence[ItemStatistic], items: int) -> NullCounts | None:
    """Return counts that were kept; `None` if there are none, or they are damaged."""
    if not path.exists():
        return None
    try:
        tensors, _ = read_tensors(path)
    except UserError:
        return None
    counts = {name: tensor.numpy() for name, tensor in tensors.items()}
    right = counts.keys() == {probe.name for probe in probes}
    right = right and all(count.shape[-1:] == (items,) and count.dtype in KEPT_TYPES for count in counts.values())
    return counts if right else None
