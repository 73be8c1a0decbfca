"""Training windows over flat histories: batches are indices, and a batch is built by arithmetic on the device.

Three regimes, because the regime moves accuracy more than the library does:

- `last`: one window a user, the most recent transitions (RecTools' and RePlay's default);
- `all`: consecutive windows that cover every transition once (the recipe of full-sequence training);
- `prefix`: one sample a transition, with the loss on the last position alone (RecBole's).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cowbird.data.types import Int64Array, TrainingData, concat_ranges
from cowbird.errors import UserError

WindowRegime = Literal["last", "all", "prefix"]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One training batch. Sequences start at column 0; what lies behind their end is padding."""

    item: Tensor
    """Input items, shape `[windows, length]`, int64; padding is the number of items in the catalogue."""
    label: Tensor
    """Item to predict after each input, shape `[windows, length]`, int64; 0 where there is no target."""
    weight: Tensor
    """Share of each target in the loss, shape `[windows, length]`, float32; 0 where there is none, 1 in all."""
    profile: Tensor | None = None
    """Each user's profile as embedding rows, shape `[windows, attributes]`, int64, for models that read profiles."""
    negative: Tensor | None = None
    """Item to push below each label, shape `[windows, length]`, int64; any item where `push` is 0."""
    push: Tensor | None = None
    """Share of each planted negative in the loss, shape `[windows, length]`, float32: the weight of its target."""


def cut_windows(offsets: Int64Array, length: int, regime: WindowRegime) -> tuple[Int64Array, Int64Array]:
    """Cut histories into windows.

    A transition is a pair of neighboring events: the first is the input, the second the target.

    Args:
        offsets: Where each user's events begin, shape `[users + 1]`.
        length: Most transitions in a window.
        regime: Which windows; see the module.

    Returns:
        First input event of each window and its number of transitions, two arrays of shape `[windows]`.
    """
    starts, transitions = offsets[:-1], np.maximum(np.diff(offsets) - 1, 0)
    if regime == "last":
        size = np.minimum(transitions, length)
        first, size = (starts + transitions - size)[size > 0], size[size > 0]
        return first, size
    if regime == "prefix":
        nth = concat_ranges(np.zeros_like(transitions), transitions)
        size = np.minimum(nth + 1, length)
        return np.repeat(starts, transitions) + nth + 1 - size, size
    # Whole windows are counted from the end, so the most recent ones are full and a user's first may be short.
    count = -(-transitions // length)
    nth = concat_ranges(np.zeros_like(count), count)
    end = np.repeat(transitions, count) - nth * length
    size = np.minimum(end, length)
    return np.repeat(starts, count) + end - size, size


class Windows:
    """The training windows of one dataset, as flat arrays on one device.

    Args:
        data: Histories and labels.
        length: Most transitions in a window.
        regime: Which windows.
        device: Where the arrays live.
        profile: Each user's profile as embedding rows, shape `[users, attributes]`, if the model reads profiles.

    Raises:
        UserError: If no user has two events, so there is nothing to learn.
    """

    def __init__(
        self,
        data: TrainingData,
        length: int,
        regime: WindowRegime,
        device: torch.device,
        profile: NDArray[np.int64] | None = None,
    ) -> None:
        first, size = cut_windows(data.interactions.offsets, length, regime)
        if not len(first):
            raise UserError("There is nothing to train on: no user has two events.", "Check the split and the source.")
        self.length = min(length, int(size.max()))
        self.targets = len(size) if regime == "prefix" else int(size.sum())
        self._last_only = regime == "prefix"
        self._pad = len(data.items)
        self._item = torch.from_numpy(data.interactions.item.astype(np.int64)).to(device)
        self._label = torch.from_numpy(data.label.astype(np.int64)).to(device)
        self._negative = None
        if data.negative is not None:
            self._negative = torch.from_numpy(data.negative.astype(np.int64)).to(device)
        self._profile = None
        if profile is not None:
            user = np.searchsorted(data.interactions.offsets, first, side="right") - 1
            self._profile = torch.from_numpy(profile[user]).to(device)
        self._first = torch.from_numpy(first).to(device)
        self._size = torch.from_numpy(size).to(device)
        self._column = torch.arange(self.length, device=device)

    def __len__(self) -> int:
        return len(self._first)

    def make_batch(self, index: Tensor) -> Batch:
        """Build the batch of some windows.

        Args:
            index: Which windows, shape `[windows]`, int64; -1 is an empty window, which fills up a last batch.
        """
        row = index.clamp_min(0)
        first, size = self._first[row][:, None], (self._size[row] * (index >= 0))[:, None]
        inside = self._column < size
        event = (first + self._column).clamp_max_(len(self._item) - 2)
        item = self._item[event].masked_fill_(~inside, self._pad)
        counted = self._column == size - 1 if self._last_only else inside
        label = self._label[event + 1].masked_fill_(~counted, 0)
        weight = counted.to(torch.float32)
        weight /= weight.sum().clamp_min(1)
        profile = None if self._profile is None else self._profile[row]
        if self._negative is None:
            return Batch(item, label, weight, profile)
        negative = self._negative[event + 1]
        return Batch(item, label, weight, profile, negative.clamp_min(0), weight * (negative >= 0))
