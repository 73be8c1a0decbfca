"""Models that Cowbird saved itself, opened for inspection without being told which recommender they are.

The header of such a file names the recommender and its fields. They are a stranger's claims: sizes are held against the
tensors in the file before any memory is taken.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn

from cowbird.data.types import IntArray, Interactions, Users
from cowbird.errors import UserError
from cowbird.files import hash_file
from cowbird.inspection.model import OpenedModel
from cowbird.plugins import find_plugin, list_plugins
from cowbird.storage import read_tensors
from cowbird.victims.sequential.base import FittedSequential, SequentialRecommender
from cowbird.victims.sequential.noise import Noise

MAX_SCORES = 1 << 22
"""Scores made at once."""


class OwnModel:
    """A fitted sequential recommender of Cowbird as a `TunableModel`.

    Args:
        fitted: The model, without prompts.
        prompted: The same with its prompts, if it has some.
    """

    def __init__(self, fitted: FittedSequential, prompted: FittedSequential | None = None) -> None:
        self.fitted, self.prompted = fitted, prompted
        self._quiet = Noise(0.0, fitted.device)

    @property
    def items(self) -> int:
        """Size of the catalogue; see `RankingModel`."""
        return self.fitted.items

    @property
    def module(self) -> nn.Module:
        """The network; see `TunableModel`."""
        return self.fitted.network

    @property
    def profile_labels(self) -> Mapping[str, tuple[str, ...]]:
        """What the prompts read; see `ProfiledModel`."""
        prompt = None if self.prompted is None else self.prompted.network.prompt
        return {} if prompt is None else prompt.vocabulary.labels

    def score(self, histories: Sequence[IntArray]) -> NDArray[np.float32]:
        """Score all items; see `RankingModel.score`."""
        return self._score(self.fitted, histories, None)

    def score_profiled(self, histories: Sequence[IntArray], users: Users) -> NDArray[np.float32]:
        """Score all items with profiles; see `ProfiledModel.score_profiled`."""
        return self._score(self.prompted or self.fitted, histories, users)

    def _score(
        self, fitted: FittedSequential, histories: Sequence[IntArray], users: Users | None
    ) -> NDArray[np.float32]:
        found = np.empty((len(histories), self.items), dtype=np.float32)
        size = max(1, MAX_SCORES // self.items)
        for start in range(0, len(histories), size):
            rows = np.arange(start, min(start + size, len(histories)))
            some = None if users is None else users.take(rows)
            part = fitted.score(_join_histories(histories[start : start + size]), some)
            found[start : start + size] = part.cpu().numpy()
        return found

    def compute_scores(self, histories: Sequence[IntArray]) -> Tensor:
        """Return scores with gradients; see `TunableModel.compute_scores`."""
        network, device = self.fitted.network, self.fitted.device
        longest = self.fitted.spec.max_length
        recent = [np.asarray(history)[-longest:] for history in histories]
        last = np.array([len(history) for history in recent], dtype=np.int64) - 1
        if not len(last) or last.min() < 0:
            raise UserError("A history to score is empty.", "Score histories with one event or more.")
        table = np.full((len(recent), int(last.max()) + 1), self.items, dtype=np.int64)
        for row, history in zip(table, recent, strict=True):
            row[: len(history)] = history
        item, ends = (torch.from_numpy(each).to(device) for each in (table, last))
        final = network.encode_last(item, ends, self._quiet, None)
        return final.float() @ network.item.weight[: self.items].T

    def list_item_tables(self) -> list[Tensor]:
        """Return the item embeddings; see `TunableModel.list_item_tables`."""
        return [self.fitted.network.item.weight[: self.items]]

    def save(self, path: Path) -> None:
        """Write the model as Cowbird does; see `TunableModel.save`."""
        self.fitted.save(path)


def _join_histories(histories: Sequence[IntArray]) -> Interactions:
    offsets = np.cumsum([0, *map(len, histories)])
    flat = np.concatenate(histories) if len(histories) else np.empty(0)
    return Interactions(flat.astype(np.int32), offsets)


def is_own_model(path: Path) -> bool:
    """Tell whether a file looks like one that Cowbird saved: safetensors with Cowbird's record in the header."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            size = int.from_bytes(start, "little")
            return len(start) == 8 and file.read(min(size, 1 << 16)).find(b'"cowbird"') >= 0
    except OSError:
        return False


def open_own_model(path: Path, device: torch.device) -> OpenedModel:
    """Open a file that a sequential recommender of Cowbird was saved to.

    Args:
        path: The file.
        device: Where scores are made.

    Raises:
        UserError: If the file is missing, damaged, no such model, or holds weights that are not finite.
    """
    tensors, header = read_tensors(path)
    try:
        record = _read_record(header["cowbird"])
        spec, items = _read_spec(record), int(record["items"])
        _check_sizes(spec, items, tensors, bool(record.get("profile")))
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        reason = "its header lacks Cowbird's record" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise UserError(
            f"'{path}' is no sequential recommender that Cowbird saved: {reason}.",
            "Give a model.safetensors of a run, or a checkpoint of a library that is supported.",
        ) from None
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise UserError(f"'{path}' has weights that are not finite numbers.", "Ask for an undamaged file.")
    fitted = spec.load(path, device)
    kind = f"Cowbird {type(spec).__name__}"
    asked = OwnModel(fitted.without_prompts(), fitted if fitted.prompt is not None else None)
    return OpenedModel(asked, kind, hash_file(path), shape=spec.with_training(prompt=None, trained="all"))


def _read_record(text: str) -> dict[str, Any]:
    """Return what the header tells of the model."""
    try:
        record: Any = json.loads(text)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise ValueError("the record in its header is no JSON object")
    return cast(dict[str, Any], record)


def _read_spec(record: dict[str, Any]) -> SequentialRecommender:
    """Return the recommender that a header names."""
    known = (find_plugin("victim", name) for name in list_plugins("victim"))
    found = {kind.__name__: kind for kind in known if issubclass(kind, SequentialRecommender)}
    if record["victim"] not in found:
        raise ValueError(f"it names the recommender {str(record['victim'])[:60]!r}, known are {', '.join(found)}")
    try:
        return found[record["victim"]].model_validate(record["spec"])
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise ValueError(f"its field {place[:60]!r} is wrong: {error.errors()[0]['msg'][:200]}") from None


def _check_sizes(spec: SequentialRecommender, items: int, tensors: dict[str, Tensor], prompts: bool) -> None:
    """Hold the sizes that a header tells against the tensors, before a network of these sizes is made."""
    largest = max((tensor.numel() for tensor in tensors.values()), default=0)
    fields = spec.model_dump()
    sizes = {"items": items, "hidden": spec.hidden, "layers": int(fields.get("layers", 1))}
    limits = {"items": largest, "hidden": largest, "layers": len(tensors)}
    for name, size in sizes.items():
        if not 1 <= size <= limits[name]:
            raise ValueError(f"it tells of {name} = {size}, and its tensors hold at most {limits[name]}")
    with torch.device("meta"):
        wanted = spec.build(items).state_dict()
    for name in sorted({*wanted, *tensors}):
        shown = repr(name[:60])
        if name not in tensors:
            raise ValueError(f"its tensor {shown} is missing")
        if name not in wanted and not prompts:
            raise ValueError(f"its tensor {shown} is not one of a {type(spec).__name__}")
        if name in wanted and wanted[name].shape != tensors[name].shape:
            right, given = tuple(wanted[name].shape), tuple(tensors[name].shape)
            raise ValueError(f"its tensor {shown} should have the shape {right}, and has {given}")
        if not tensors[name].is_floating_point():
            kind = str(tensors[name].dtype).removeprefix("torch.")
            raise ValueError(f"its tensor {shown} should hold floating-point numbers, and holds {kind}")
