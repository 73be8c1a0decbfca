"""Training small taggers, on one stream of examples: each learns without the catalogues that it is asked about later.

An interrupted training goes on from its last checkpoint, and ends in the same weights on the same device.
"""

import math
import time
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from cowbird.defenses.p_scanner.small_tagger import SmallTagger, SmallTaggerRecord
from cowbird.defenses.p_scanner.small_tagger_network import SmallTaggerNetwork, SmallTaggerSizes, make_batch
from cowbird.defenses.p_scanner.training.title_stream import TaughtTitles, TitleStream, draw_ahead
from cowbird.defenses.p_scanner.triggers.title_edits import NEVER_TAUGHT, weigh_families
from cowbird.errors import UserError
from cowbird.files import hash_texts
from cowbird.rng import derive_seed
from cowbird.victims.checkpoint import Checkpoint
from cowbird.victims.fit_context import FitContext
from cowbird.victims.training_loop import TrainingLoop, collect_training_tensors, make_diverged_error, restore_tensors


class SmallTaggerRecipe(BaseModel):
    """What a small tagger is made of and how long it learns."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    sizes: SmallTaggerSizes = SmallTaggerSizes()
    """The network's sizes."""
    learning_rate: float = Field(default=2e-3, gt=0, le=1000)
    """Peak learning rate; it rises for a twentieth of the steps, and falls to nothing."""
    weight_decay: float = Field(default=0.02, ge=0)
    """Of all weights but the table."""
    chunk: int = Field(default=4096, ge=2)
    """Titles drawn at once, and taught in one step."""
    chunks: int = Field(default=1000, ge=1)
    """How many times."""
    left_out: float = Field(default=0.25, ge=0, lt=1)
    """Share of the pieces whose spelling is left out, and again of those whose pair is; half as many n-grams."""
    families: tuple[str, ...] = ()
    """Families of triggers that are planted; `title_edits.DEFAULT_FAMILIES` if this is empty."""

    @field_validator("families")
    @classmethod
    def _check_families(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        weigh_families(names)
        return names


@dataclass(eq=False)
class _Pupil:
    """A small tagger in training."""

    network: SmallTaggerNetwork
    optimizer: torch.optim.Optimizer
    unseen: NDArray[np.bool_]
    loss: Tensor


class _Training(TrainingLoop):
    """Small taggers learning from one stream; see `TrainingLoop`."""

    def __init__(
        self,
        titles: TitleStream,
        recipe: SmallTaggerRecipe,
        workers: int,
        pupils: dict[str, _Pupil],
        place: FitContext,
        seconds: float | None,
    ) -> None:
        super().__init__(place)
        self.titles, self.total, self.workers, self.pupils = titles, recipe.chunks, workers, pupils
        self.peak = recipe.learning_rate
        self.rates = list_rates(recipe.learning_rate, recipe.chunks)
        self.chunks: Generator[TaughtTitles] | None = None
        self.began, self.seconds = time.monotonic(), seconds
        if place.folder is not None:
            seen = [(name, pupil.unseen.tolist()) for name, pupil in pupils.items()]
            begun = [_hash_weights(pupil.network) for pupil in pupils.values()]
            self.key = hash_texts([titles.key, recipe.model_dump_json(), repr(seen), *begun])

    def _is_over(self) -> bool:
        late = self.seconds is not None and self.step > 0 and time.monotonic() - self.began > self.seconds
        return late or super()._is_over()

    def _pick_rate(self) -> float:
        """Return the learning rate of this step: it falls by steps, or by the clock where that is faster."""
        gone = 0.0 if self.seconds is None else (time.monotonic() - self.began) / max(self.seconds, 1e-9)
        return self.rates[min(max(self.step, int(gone * self.total)), self.total - 1)]

    def _run_step(self) -> None:
        if self.chunks is None:
            self.chunks = draw_ahead(self.titles, self.total, self.workers, self.step)
        taught = next(self.chunks)
        self._begin_change()
        _teach(self.pupils.values(), taught, self.context.device, self._pick_rate())

    def _collect_tensors(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": tensor
            for name, pupil in self.pupils.items()
            for key, tensor in collect_training_tensors(dict(pupil.network.named_parameters()), pupil.optimizer).items()
        }

    def _describe_state(self) -> dict[str, Any]:
        return {}

    def _restore(self, found: Checkpoint) -> None:
        restore_tensors(self._collect_tensors(), found.tensors)

    def _describe_progress(self) -> str:
        loss = float(np.mean([float(pupil.loss) for pupil in self.pupils.values()]))
        if not math.isfinite(loss):
            raise make_diverged_error(f"the loss of step {self.step} is {loss}", self.peak)
        return f"loss {loss:.4f}"

    def check_weights(self) -> None:
        """Check that what was learned are numbers, as they are kept.

        Raises:
            DivergedError: If one is not.
        """
        weights = (weight for pupil in self.pupils.values() for weight in pupil.network.parameters())
        if not all(bool(torch.isfinite(weight.detach().to(torch.bfloat16)).all()) for weight in weights):
            raise make_diverged_error(f"after {self.step} steps, weights are not finite", self.peak)


def list_rates(peak: float, steps: int) -> list[float]:
    """Return the learning rate of each step: it rises for a twentieth of them, and falls to nothing (OneCycleLR)."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak, total_steps=steps + 1, pct_start=0.05, cycle_momentum=False
    )
    rates: list[float] = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        schedule.step()
    return rates


def _hash_weights(network: SmallTaggerNetwork) -> str:
    return hash_texts([weight.detach().float().cpu().numpy().tobytes().hex() for weight in network.parameters()])


def train_small_taggers(
    recipe: SmallTaggerRecipe,
    catalogs: Mapping[str, Sequence[str]],
    words: Sequence[str],
    seed: int,
    place: FitContext,
    refused: Collection[str] = (),
    workers: int = 0,
    leave: Mapping[str, Collection[str]] | None = None,
    start: SmallTagger | None = None,
    seconds: float | None = None,
) -> dict[str, SmallTagger]:
    """Train small taggers on one stream of examples.

    Args:
        recipe: What they are made of.
        catalogs: Titles that are taken for clean, by the catalogue's name.
        words: Plain words in small letters that triggers are made of.
        seed: Decides all that is random.
        place: Where they are trained, the folder of checkpoints, and who is told.
        refused: Texts that are never planted.
        workers: Processes that draw examples; 0 draws them here.
        leave: Catalogues that a small tagger never sees, by its name; one named `all` sees all if this is `None`.
        start: A small tagger whose weights they begin with; drawn at random if this is `None`.
        seconds: How long they learn at most, and no less than one step; `None` sets no limit.

    Returns:
        The small taggers by name.

    Raises:
        UserError: If a catalogue holds no title, or the weights to begin with have other sizes.
        KeyboardInterrupt: Passed on after a checkpoint was written.
    """
    empty = [name for name, titles in catalogs.items() if not titles]
    if empty or not catalogs:
        raise UserError("A small tagger learns from titles, and there are none.", "Give catalogues that hold titles.")
    if start is not None and start.record.sizes != recipe.sizes:
        raise UserError("The small tagger to begin with has other sizes than the recipe names.", "Leave the sizes out.")
    names = list(catalogs)
    texts = frozenset(text.strip().lower() for text in refused)
    families = weigh_families(recipe.families)
    titles = TitleStream(catalogs, words or ("word",), texts, recipe.chunk, recipe.left_out, seed, families)
    pupils = {
        name: _enroll(recipe, seed, place.device, np.array([catalog in out for catalog in names]), start)
        for name, out in (leave or {"all": ()}).items()
    }
    training = _Training(titles, recipe, workers, pupils, place, seconds)
    try:
        training.run()
        training.check_weights()
    finally:
        if training.chunks is not None:
            training.chunks.close()  # ends the processes that draw
    made: dict[str, SmallTagger] = {}
    for name, pupil in pupils.items():
        seen = [catalog for catalog, out in zip(names, pupil.unseen.tolist(), strict=True) if not out]
        record = SmallTaggerRecord(
            sizes=recipe.sizes,
            recipe=recipe.model_dump(mode="json", exclude={"sizes"}),
            seed=seed,
            catalogs={catalog: len(catalogs[catalog]) for catalog in seen},
            titles_sha256={catalog: hash_texts(catalogs[catalog]) for catalog in seen},
            never_taught=NEVER_TAUGHT,
            titles=recipe.chunk * training.step,
        )
        made[name] = SmallTagger(record, pupil.network.eval(), place.device)
    return made


def _enroll(
    recipe: SmallTaggerRecipe, seed: int, device: torch.device, unseen: NDArray[np.bool_], start: SmallTagger | None
) -> _Pupil:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "small tagger") % (1 << 62))
        network = SmallTaggerNetwork(recipe.sizes).to(device)
    if start is not None:
        network.load_state_dict(start.network.state_dict())
    table = [network.table.weight]
    others = [weight for weight in network.parameters() if weight is not network.table.weight]
    groups = [{"params": table, "weight_decay": 0.0}, {"params": others, "weight_decay": recipe.weight_decay}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
    return _Pupil(network, optimizer, unseen, torch.zeros(()))


def _teach(pupils: Collection[_Pupil], taught: TaughtTitles, device: torch.device, rate: float) -> None:
    """Have each take one step; titles of catalogues that one must not see count nothing for it."""
    batch = make_batch(taught.pieces, device, taught.kept)
    marked, planted = (
        torch.from_numpy(values.astype(np.float32)).to(device) for values in (taught.marked, taught.planted)
    )
    for pupil in pupils:
        seen = torch.from_numpy((~pupil.unseen[taught.catalog]).astype(np.float32)).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            mark, verdict = pupil.network(batch)
        by_piece = _compute_loss(mark, marked, seen[batch.owner])
        pupil.loss = 2 * by_piece + _compute_loss(verdict, planted, seen)
        pupil.optimizer.zero_grad(set_to_none=True)
        pupil.loss.backward()
        torch.nn.utils.clip_grad_norm_(pupil.network.parameters(), 1.0)
        for group in pupil.optimizer.param_groups:
            group["lr"] = rate
        pupil.optimizer.step()
        pupil.loss = pupil.loss.detach()


def _compute_loss(odds: Tensor, right: Tensor, counts: Tensor) -> Tensor:
    """Return the mean cross-entropy over what counts."""
    each = torch.nn.functional.binary_cross_entropy_with_logits(odds.float(), right, reduction="none")
    return (each * counts).sum() / counts.sum().clamp(min=1)
