"""Opens a model file of any known format. A new format adds its line to `open_model`."""

from pathlib import Path

import torch

from cowbird.errors import UserError
from cowbird.inspection.model import OpenedModel
from cowbird.inspection.own_model import is_own_model, open_own_model


def open_model(path: Path, device: torch.device) -> OpenedModel:
    """Open a model that somebody handed over.

    Args:
        path: Its file.
        device: Where scores are made.

    Raises:
        UserError: If the file is missing, of no known format, or damaged.
    """
    if not path.is_file():
        raise UserError(f"'{path}' should be a model's file, and there is none.", "Check the path.")
    if is_own_model(path):
        return open_own_model(path, device)
    raise UserError(f"'{path}' is of no format that Cowbird knows.", "Give a model that Cowbird saved.")
