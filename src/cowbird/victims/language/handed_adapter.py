"""A LoRA adapter that somebody hands over, as peft saves one: put into its base as it is, or refused in words.

Two files are read: `adapter_model.safetensors`, and `adapter_config.json`, of which rank, scale and places count.
peft's own loader follows the base model's name, makes what the configuration asks for and can unpickle weights; it is
not used. A setting that would change what the adapter does and is not known here is a reason to refuse it.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cowbird.errors import UserError
from cowbird.files import read_plain_text
from cowbird.storage import read_tensors

ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
MAX_RANK, MAX_ALPHA = 4096, 1e6
MAX_ADAPTER_BYTES = 8 << 30
"""Largest file of weights that is read."""
_READ = frozenset({"peft_type", "r", "lora_alpha", "target_modules", "use_rslora"})
_WITHOUT_EFFECT = frozenset(
    {
        *("base_model_name_or_path", "revision", "inference_mode", "init_lora_weights", "task_type", "peft_version"),
        *("lora_dropout", "megatron_core", "loftq_config", "runtime_config", "qalora_group_size", "eva_config"),
        *("corda_config", "ensure_weight_tying", "auto_mapping"),
    }
)
"""Settings that change nothing of an adapter whose weights are read: where it came from, and how it was trained."""
_NEUTRAL: tuple[Any, ...] = (None, False, "", "none", [], {})
_HINT = "Give a folder that peft's save_pretrained wrote for a plain LoRA adapter."


class HandedAdapter(NamedTuple):
    """What an adapter's configuration tells."""

    rank: int
    """Rank of its factors."""
    alpha: float
    """Its scale, divided by the rank, or by the rank's root."""
    modules: tuple[str, ...]
    """Names of the linear layers that it changes."""
    rooted: bool
    """Whether the scale is divided by the rank's root (rsLoRA)."""


def read_adapter_config(folder: Path) -> HandedAdapter:
    """Read what an adapter is like.

    Raises:
        UserError: If it is no plain LoRA adapter.
    """
    try:
        config: Any = json.loads(read_plain_text(folder / ADAPTER_CONFIG_FILE))
        if not isinstance(config, dict):
            raise ValueError("it is not a JSON object")
        given: dict[str, Any] = config  # pyright: ignore[reportUnknownVariableType]
        if given.get("peft_type") != "LORA":
            raise ValueError(f"its type is {str(given.get('peft_type'))[:40]}, and LORA was expected")
        for name, value in given.items():
            if name not in _READ | _WITHOUT_EFFECT and value not in _NEUTRAL:
                raise ValueError(f"its setting '{name[:60]}' is not known here")
        rank: Any = given.get("r")
        alpha: Any = given.get("lora_alpha")
        modules: Any = given.get("target_modules")
        if type(rank) is not int or not 1 <= rank <= MAX_RANK:
            raise ValueError(f"its rank should be a whole number from 1 to {MAX_RANK}")
        if type(alpha) not in (int, float) or not math.isfinite(alpha) or not 0 < alpha <= MAX_ALPHA:
            raise ValueError("its lora_alpha is not a positive number")
        if not isinstance(modules, list) or not modules or not all(isinstance(name, str) for name in modules):  # pyright: ignore[reportUnknownVariableType]
            raise ValueError("its target_modules are not a list of names")
        names: list[str] = modules  # pyright: ignore[reportUnknownVariableType]
        return HandedAdapter(rank, float(alpha), tuple(sorted(names)), given.get("use_rslora") is True)
    except (ValueError, OSError, RecursionError, OverflowError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise UserError(f"'{folder}' can't be read as an adapter: {reason}.", _HINT) from None


def fill_handed_adapter(model: Any, folder: Path) -> None:
    """Put the weights of an adapter into a model that has places for them, all of them and nothing else.

    Args:
        model: The language model, with an adapter of the same rank and places.
        folder: The adapter's folder.

    Raises:
        UserError: If they don't fit the model, are not finite, or are no safetensors.
    """
    path = folder / ADAPTER_WEIGHTS_FILE
    if not path.is_file() or path.stat().st_size > MAX_ADAPTER_BYTES:
        raise UserError(f"'{folder}' has no file {ADAPTER_WEIGHTS_FILE} that can be read.", _HINT)
    held, _ = read_tensors(path)
    places: dict[str, Any] = {
        name.replace(".default.", "."): weight for name, weight in model.named_parameters() if ".lora_" in name
    }
    wrong = sorted(held.keys() ^ places.keys()) or [
        name for name in sorted(places) if held[name].shape != places[name].shape
    ]
    if wrong:
        raise UserError(
            f"The adapter '{folder}' does not fit the language model: '{wrong[0][:120]}' is missing on one side or has "
            "another shape.",
            "Name the language model that it was tuned from in llm.name, with all its layers.",
        )
    if not all(weight.is_floating_point() and bool(torch.isfinite(weight).all()) for weight in held.values()):
        raise UserError(f"The adapter '{folder}' holds weights that are not finite numbers.", _HINT)
    with torch.no_grad():
        for name, weight in places.items():
            weight.copy_(held[name])
