"""Checkpoints of RecBole, RePlay and RecTools, opened for inspection. Nothing in them is run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cowbird.data.types import IntArray
from cowbird.errors import UserError
from cowbird.files import hash_file
from cowbird.inspection.model import OpenedModel
from cowbird.inspection.own_model import OwnModel
from cowbird.victims.loaders.opening import CheckpointOptions
from cowbird.victims.sequential.base import SequentialRecommender
from cowbird.victims.sequential.checkpoint import FittedCheckpoint, TunedCheckpoint
from cowbird.victims.sequential.gru4rec import GRU4Rec
from cowbird.victims.sequential.sasrec import SASRec

MIN_NULL_WIDTH = 4
"""Least width of a null model."""


class CheckpointModel(OwnModel):
    """A model of another library, which can be asked, changed and written anew in its format.

    Args:
        fitted: The model.
    """

    fitted: FittedCheckpoint

    def __init__(self, fitted: FittedCheckpoint) -> None:
        super().__init__(fitted)

    def score(self, histories: Sequence[IntArray]) -> NDArray[np.float32]:
        """Score all items; see `RankingModel.score`.

        Raises:
            UserError: If a history is empty, or a score is not finite.
        """
        found = super().score(histories)
        if not np.isfinite(found).all():
            raise UserError(
                f"'{self.fitted.opened.checkpoint.path}' gives scores that are not finite.",
                "Its weights are too large to be those of a trained model.",
            )
        return found

    def save(self, path: Path) -> None:
        """Write the weights in the format that the model came in."""
        self.fitted.export(path)


def open_foreign_model(path: Path, device: torch.device, options: CheckpointOptions | None = None) -> OpenedModel:
    """Open a checkpoint of another library.

    Args:
        path: The file.
        device: Where scores are made.
        options: What the file does not tell.

    Raises:
        UserError: If it can't be read.
    """
    options = options or CheckpointOptions()
    settings = tuple(f"{name}={value}" for name, value in options.settings.items())
    spec = TunedCheckpoint(
        path=str(path), format=options.format, settings=settings, item_map=str(options.item_map or "")
    )
    fitted = spec.start(device)
    plan = fitted.opened.plan
    return OpenedModel(CheckpointModel(fitted), plan.title, hash_file(path), plan.ids, _choose_null_shape(fitted))


def _choose_null_shape(fitted: FittedCheckpoint) -> SequentialRecommender:
    """Return the recommender of Cowbird that is most like a model."""
    shape, network = fitted.opened.plan.shape, fitted.network
    if shape is None:
        return GRU4Rec(hidden=max(MIN_NULL_WIDTH, network.item.embedding_dim), layers=network.layers)
    heads = shape.heads if shape.hidden >= MIN_NULL_WIDTH else 1
    return SASRec(hidden=max(MIN_NULL_WIDTH, shape.hidden), layers=shape.layers, heads=heads, max_length=shape.length)
