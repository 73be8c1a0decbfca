"""Saved language models: a folder that peft or transformers reads, with what it was fitted from beside it."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cowbird.errors import UserError
from cowbird.files import share_folder, write_text
from cowbird.rng import torch_stream
from cowbird.storage import read_tensors, write_tensors
from cowbird.victims.language.llm import Llm, LoadedModel, add_adapters, load_llm

VICTIM_RECORD_FILE, EXTRA_WEIGHTS_FILE = "cowbird.json", "items.safetensors"


def save_model(
    folder: Path,
    victim: str,
    spec: Mapping[str, Any],
    loaded: LoadedModel,
    extra: Mapping[str, Tensor] | None = None,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write the adapter (or the whole model) and the tokenizer.

    The folder appears under its name once it is whole; an older one is replaced.

    Args:
        folder: Where to.
        victim: The kind of victim.
        spec: What it was fitted from; its `llm` says what the adapters are like.
        loaded: The model with its adapters, and the tokenizer.
        extra: Other weights, written into a file of their own.
        notes: Other texts, by the names of their files.

    Raises:
        UserError: If the folder is there and holds something else.
    """
    if folder.exists() and not (folder / VICTIM_RECORD_FILE).is_file():
        raise UserError(f"'{folder}' is there and is not a saved model.", "Choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".partial"))
    try:
        loaded.model.save_pretrained(partial)
        loaded.tokenizer.save_pretrained(partial)
        if extra:
            write_tensors(partial / EXTRA_WEIGHTS_FILE, extra)
        for name, text in (notes or {}).items():
            write_text(partial / name, text)
        write_text(partial / VICTIM_RECORD_FILE, json.dumps({"victim": victim, "spec": spec}, indent=1))
        share_folder(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_model(folder: Path, victim: str, llm: Llm, device: torch.device, dtype: torch.dtype) -> LoadedModel:
    """Read what `save_model` wrote.

    Raises:
        UserError: If the folder does not hold such a victim of this language model.
    """
    try:
        record = json.loads((folder / VICTIM_RECORD_FILE).read_text(encoding="utf-8"))
        if record["victim"] != victim or Llm.model_validate(record["spec"]["llm"]) != llm:
            raise ValueError("it was tuned from another language model")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{folder}' does not hold this {victim}: {error}.") from None
    if llm.tuning == "full":
        loaded = load_llm(llm.model_copy(update={"name": str(folder)}), device, dtype)
        return LoadedModel(loaded.model.eval(), loaded.tokenizer)
    loaded = load_llm(llm, device, dtype)
    # What the adapter is like is the spec's to say; the file brings nothing but weights.
    model = add_adapters(loaded.model, llm, torch_stream(0, "adapters"))
    _fill_adapters(model, folder / "adapter_model.safetensors")
    return LoadedModel(model.eval(), loaded.tokenizer)


def read_extra(folder: Path) -> dict[str, Tensor]:
    """Read the other weights that `save_model` wrote."""
    return read_tensors(folder / EXTRA_WEIGHTS_FILE)[0]


def _fill_adapters(model: Any, path: Path) -> None:
    """Put saved adapter weights into a model, all of them and nothing else."""
    held, _ = read_tensors(path)
    places: dict[str, Any] = {
        name.replace(".default.", "."): weight for name, weight in model.named_parameters() if weight.requires_grad
    }
    if held.keys() != places.keys() or any(held[name].shape != weight.shape for name, weight in places.items()):
        raise UserError(f"'{path}' holds no adapter that fits.", "Load it with the spec that it was fitted from.")
    with torch.no_grad():
        for name, weight in places.items():
            weight.copy_(held[name])


def copy_weights(source: Any, target: Any) -> None:
    """Give a model's learning weights the values that another model has.

    Args:
        source: The model that has them.
        target: The model whose weights are set.

    Raises:
        UserError: If the other has no weights of these shapes.
    """
    given: dict[str, Any] = dict(source.named_parameters())
    learning: dict[str, Any] = {name: weight for name, weight in target.named_parameters() if weight.requires_grad}
    if any(name not in given or given[name].shape != weight.shape for name, weight in learning.items()):
        raise UserError(
            "Tuning can't start from that model: its adapters are not of this shape.",
            "Start from a fit of the same language model with the same rank and modules.",
        )
    with torch.no_grad():
        for name, weight in learning.items():
            weight.copy_(given[name])
