"""Which language model a saved adapter was tuned from, told so that another machine can check it.

An adapter means nothing without its base. The record names the base without any path of this machine, says how many of
its layers were kept, and holds a SHA-256 of its weights. The hash is of the weights rounded to bfloat16, in the order
of their names. So it is the same whatever files the base comes in, and whatever number format it is loaded in.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from cowbird.errors import UserError
from cowbird.files import get_cache_folder, read_plain_text, write_text
from cowbird.victims.language.assets import EMBEDDED_MODELS
from cowbird.victims.language.llm import Llm

BASE_VARIABLE = "COWBIRD_BASE_MODEL"
"""The environment variable that names the base of saved models whose base is not found."""


class BaseRecord(BaseModel):
    """The language model that an adapter was tuned from."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Its hub id, the name of its asset, or the name of its folder or file without where that was."""
    layers: int = Field(ge=1, le=1000)
    """Layers that it had when it was tuned."""
    cut: bool
    """Whether it had more layers and these are the first of them."""
    local: bool
    """Whether it was a folder or file of the machine where it was tuned, so that its name finds it nowhere else."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Hash of the weights of these layers and of all that is not in layers; see the head of this module. If all weights
    were tuned, of the tuned ones."""
    license: str
    """Its license, as far as it is known."""


def name_base(name: str) -> str:
    """Return a language model's name without any path of this machine: a hub id or an asset's name stay as they are."""
    if name in EMBEDDED_MODELS:
        return name
    path = Path(name).expanduser()
    return path.resolve().name if is_local(name) else name


def is_local(name: str) -> bool:
    """Tell whether a name is that of a folder or file, and no hub id or asset."""
    if name in EMBEDDED_MODELS:
        return False
    path = Path(name).expanduser()
    try:
        return path.is_absolute() or name.startswith((".", "~")) or name.endswith(".gguf") or path.exists()
    except OSError:  # a name that no file can have
        return False


def hash_base(model: Any) -> str:
    """Return the SHA-256 of a causal LM's own weights, as they are without adapters; see the head of this module."""
    named: dict[str, torch.Tensor] = {}
    for name, weight in model.named_parameters():
        if ".lora_" not in name:
            named[name.removeprefix("base_model.model.").replace(".base_layer.", ".")] = weight
    digest = hashlib.sha256()
    for name in sorted(named):
        rounded = named[name].detach().to(torch.bfloat16).cpu().contiguous()
        digest.update(f"{name} {tuple(rounded.shape)}\n".encode())
        data: Any = rounded.flatten().view(torch.uint8).numpy()
        digest.update(data)
    return digest.hexdigest()


def describe_base(llm: Llm, model: Any) -> BaseRecord:
    """Return the record of a tuned model's base.

    Args:
        llm: What was tuned.
        model: The causal LM with its adapters.
    """
    known = EMBEDDED_MODELS.get(llm.name)
    return BaseRecord(
        name=name_base(llm.name),
        layers=model.config.num_hidden_layers,
        cut=llm.layers is not None,
        local=is_local(llm.name),
        sha256=hash_base(model),
        license="unknown" if known is None else known.license,
    )


def remember_base(record: BaseRecord, name: str) -> None:
    """Note in the cache where a base is on this machine, so that saved models find it here again."""
    if record.local:
        with suppress(OSError, UserError):  # a cache that can't be written only forgets
            path = _get_note(record)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, str(Path(name).expanduser().resolve()))


def find_base(record: BaseRecord) -> str:
    """Return the name under which a base is found: its own, or where it was on this machine.

    Raises:
        UserError: If it was a folder or file of another machine.
    """
    if not record.local:
        return record.name
    known = [os.environ.get(BASE_VARIABLE, "")]
    with suppress(OSError, UnicodeDecodeError):
        known.append(read_plain_text(_get_note(record)))
    for name in known:
        if name and Path(name).exists():
            return name
    raise UserError(
        f"The model was tuned from the language model '{record.name}', which was a folder or file of the machine where "
        "it was tuned, and is not found here.",
        f"Copy it here, and name it in the environment variable {BASE_VARIABLE}.",
    )


def _get_note(record: BaseRecord) -> Path:
    return get_cache_folder() / "bases" / f"{record.sha256}.txt"


def check_base(record: BaseRecord, llm: Llm, model: Any) -> None:
    """Check that a model without adapters is the one that an adapter was tuned from.

    Args:
        record: What the adapter was tuned from.
        llm: What was loaded.
        model: The causal LM.

    Raises:
        UserError: If it has another number of layers, or other weights.
    """
    layers = model.config.num_hidden_layers
    if layers != record.layers:
        of = f"the first {record.layers} layers" if record.cut else f"all {record.layers} layers"
        raise UserError(
            f"The adapter was tuned on {of} of '{record.name}', and the model given has {layers}.",
            f"Give llm.layers = {record.layers}." if record.cut else "Leave llm.layers out, and give the same model.",
        )
    if hash_base(model) != record.sha256:
        raise UserError(
            f"The adapter was tuned from '{record.name}', and '{name_base(llm.name)}' has other weights: their SHA-256 "
            "is not the recorded one.",
            "Give the language model that the adapter was tuned from, whole and undamaged.",
        )
