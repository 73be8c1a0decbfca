"""The small tagger's network: pieces of titles in, log-odds of pieces and titles out.

Hashed n-grams become vectors (an embedding bag), convolutions over neighboring pieces and looks at the whole title
follow. `forward` learns. `read_on_cpu` does the same arithmetic where nothing is learned: a convolution is a product of
matrices for each neighbor, added up in place, so no neighbor is copied. Its numbers differ from those of `forward` in
the last digits alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from cowbird.data.types import Float32Array
from cowbird.defenses.p_scanner.title_pieces import BUCKETS, PIECE_FLAGS, TitlePieces

CONVOLVED = 5
"""Neighboring pieces that a convolution sees."""
MAX_WIDTH, MAX_BLOCKS = 1024, 24
"""Largest sizes that a record may name."""


class SmallTaggerSizes(BaseModel):
    """The network's sizes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    embedding: int = Field(default=64, ge=1, le=MAX_WIDTH)
    """Numbers of an n-gram's vector."""
    width: int = Field(default=128, ge=1, le=MAX_WIDTH)
    """Numbers of a piece's vector."""
    blocks: int = Field(default=5, ge=1, le=MAX_BLOCKS)
    """Blocks of convolutions."""


@dataclass(frozen=True, eq=False)
class PieceBatch:
    """Pieces of some titles as tensors."""

    bucket: Tensor
    """Hashed numbers, shape `[numbers]`."""
    weight: Tensor
    """What each counts, shape `[numbers]`."""
    starts: Tensor
    """Where each piece's numbers begin, shape `[pieces]`."""
    flags: Tensor
    """`PIECE_FLAGS`, shape `[pieces, flags]`."""
    owner: Tensor
    """The title of each piece, shape `[pieces]`."""
    titles: int
    """How many titles there are."""


def make_batch(pieces: TitlePieces, device: torch.device, kept: Float32Array | None = None) -> PieceBatch:
    """Return pieces as tensors.

    Args:
        pieces: Of some titles.
        device: Where to.
        kept: What each number counts beside its share, shape `[numbers]`; `None` counts all of them.
    """
    counts = np.diff(pieces.starts)
    ngrams = np.maximum(1, counts - 4)
    weight = np.where(pieces.group == 0, 1 / np.repeat(ngrams, counts), 1.0).astype(np.float32)
    if kept is not None:
        weight = weight * kept
    owner = np.repeat(np.arange(len(pieces.offsets) - 1), np.diff(pieces.offsets))

    def send(values: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device, non_blocking=True)

    return PieceBatch(
        send(pieces.bucket.astype(np.int64)), send(weight), send(pieces.starts[:-1]),
        send(pieces.flags.astype(np.float32)), send(owner), len(pieces.offsets) - 1,
    )  # fmt: skip


class ConvolutionBlock(nn.Module):
    """Neighboring pieces, normalized, through two layers; added to what was there."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.near = nn.Linear(CONVOLVED * width, width)
        self.out = nn.Linear(width, width)

    def forward(self, state: Tensor, slot: Tensor, around: Tensor, room: int) -> Tensor:
        """Return the new state, shape `[pieces, width]`.

        Args:
            state: The state.
            slot: Where each piece stands among all, with room between titles.
            around: The places that are neighbors of each piece, one piece behind another.
            room: How many places there are.
        """
        normal = self.norm(state)  # in autocast, of another number format than the state
        padded = normal.new_zeros(room, state.shape[1]).index_copy_(0, slot, normal)
        near = padded.index_select(0, around).view(len(state), CONVOLVED * state.shape[1])
        return state + self.out(torch.nn.functional.gelu(self.near(near), approximate="tanh"))


class SmallTaggerNetwork(nn.Module):
    """The network; see the module.

    Args:
        sizes: Its sizes.
        table: The vectors of n-grams, if they are known: four million numbers that need not be drawn.
    """

    def __init__(self, sizes: SmallTaggerSizes, table: Tensor | None = None) -> None:
        super().__init__()
        width = sizes.width
        self.table = nn.EmbeddingBag(BUCKETS, sizes.embedding, mode="sum", _weight=table)
        if table is None:
            nn.init.normal_(self.table.weight, std=0.3)
        self.enter = nn.Linear(sizes.embedding + len(PIECE_FLAGS), width)
        self.blocks = nn.ModuleList(ConvolutionBlock(width) for _ in range(sizes.blocks))
        self.whole = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(sizes.blocks // 2))
        self.norm = nn.LayerNorm(width)
        self.mark = nn.Linear(width, 1)
        self.verdict = nn.Sequential(nn.Linear(2 * width + 1, width), nn.GELU(approximate="tanh"), nn.Linear(width, 1))

    def forward(self, batch: PieceBatch) -> tuple[Tensor, Tensor]:
        """Return log-odds of pieces, shape `[pieces]`, and of titles, shape `[titles]`."""
        bag = self.table(batch.bucket, batch.starts, per_sample_weights=batch.weight)
        state = self.enter(torch.cat([bag, batch.flags], dim=1))
        half = CONVOLVED // 2
        slot = torch.arange(len(state), device=state.device) + half * (batch.owner + 1)
        around = (slot[:, None] + torch.arange(-half, half + 1, device=state.device)).flatten()
        room = len(state) + half * (batch.titles + 2)
        for nth, block in enumerate(self.blocks):
            state = block(state, slot, around, room)
            if nth % 2 == 1:
                state = state + self.whole[nth // 2](pool_titles(state, batch)).index_select(0, batch.owner)
        return self.conclude(state, batch)

    def conclude(self, state: Tensor, batch: PieceBatch) -> tuple[Tensor, Tensor]:
        """Return log-odds of pieces and of titles, from what the blocks made of pieces."""
        state = self.norm(state)
        mark = self.mark(state)[:, 0]
        highest = mark.new_full((batch.titles,), -8.0)
        highest = highest.scatter_reduce(0, batch.owner, mark, "amax")
        verdict = self.verdict(torch.cat([pool_titles(state, batch), highest[:, None]], dim=1))[:, 0]
        return mark, verdict


def pool_titles(state: Tensor, batch: PieceBatch) -> Tensor:
    """Return mean and maximum over the pieces of each title, shape `[titles, 2 * width]`."""
    width = state.shape[1]
    total = state.new_zeros(batch.titles, width).index_add(0, batch.owner, state)
    count = torch.bincount(batch.owner, minlength=batch.titles).clamp(min=1)[:, None]
    index = batch.owner[:, None].expand(-1, width)
    most = state.new_zeros(batch.titles, width).scatter_reduce(0, index, state, "amax", include_self=False)
    return torch.cat([total / count, most], dim=1)


def read_on_cpu(network: SmallTaggerNetwork, batch: PieceBatch) -> tuple[Tensor, Tensor]:
    """Return what `SmallTaggerNetwork.forward` returns, in less time on a processor; nothing can be learned from it."""
    bag = network.table(batch.bucket, batch.starts, per_sample_weights=batch.weight)
    state = network.enter(torch.cat([bag, batch.flags], dim=1))
    crossings = [torch.nonzero(batch.owner[:-far] != batch.owner[far:])[:, 0] for far in range(1, CONVOLVED // 2 + 1)]
    near, spare = torch.empty_like(state), torch.empty_like(state)
    blocks, whole = cast("list[ConvolutionBlock]", network.blocks), cast("list[nn.Linear]", network.whole)
    for nth, block in enumerate(blocks):
        convolve_pieces(block.norm(state), block.near, crossings, near, spare)
        torch.ops.aten.gelu.out(near, approximate="tanh", out=spare)
        state.addmm_(spare, block.out.weight.t()).add_(block.out.bias)
        if nth % 2 == 1:
            state.add_(whole[nth // 2](pool_titles(state, batch)).index_select(0, batch.owner))
    return network.conclude(state, batch)


def convolve_pieces(state: Tensor, near: nn.Linear, crossings: Sequence[Tensor], out: Tensor, spare: Tensor) -> None:
    """Write what a layer makes of each piece and its neighbors in the same title.

    Args:
        state: The pieces, shape `[pieces, width]`; written over.
        near: The layer; its weight has a matrix for each neighbor, side by side.
        crossings: For each distance, the pieces whose neighbor so far behind them is of another title.
        out: Where to, shape `[pieces, width]`.
        spare: Room of the same shape; written over.
    """
    half, width = CONVOLVED // 2, state.shape[1]
    matrices = [near.weight[:, nth * width : (nth + 1) * width].t() for nth in range(CONVOLVED)]
    torch.addmm(near.bias, state, matrices[half], out=out)
    spare.copy_(state)
    for far, crossing in enumerate(crossings, 1):  # what is zero for one distance is zero for those beyond it, too
        state.index_fill_(0, crossing, 0)
        out[far:].addmm_(state[:-far], matrices[half - far])
        spare.index_fill_(0, crossing + far, 0)
        out[:-far].addmm_(spare[far:], matrices[half + far])
