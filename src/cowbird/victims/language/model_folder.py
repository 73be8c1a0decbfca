"""What a folder of a language model may hold, checked before anything in it is loaded.

A folder may be a stranger's. transformers follows an index of weights wherever it points, unpickles what is not
safetensors, fetches attention kernels that a configuration names, and makes as many layers as it is told. So a folder
is read only if its weights are safetensors files that lie in it, and its numbers are those of a model.
"""

import json
from pathlib import Path
from typing import Any

from cowbird.errors import UserError
from cowbird.faults import raise_outage

MAX_TEXT_BYTES = 1 << 27
"""Largest JSON file of a model: the tokenizers of large vocabularies take some 35 MB."""
MAX_SIZES = {
    "num_hidden_layers": 1000,
    "hidden_size": 1 << 16,
    "intermediate_size": 1 << 18,
    "num_attention_heads": 1 << 10,
    "num_key_value_heads": 1 << 10,
    "head_dim": 1 << 12,
    "vocab_size": 1 << 21,
}
"""Largest numbers in a configuration; far above those of any published model."""
KNOWN_ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
"""Attention that comes with the libraries; other names are code that would be fetched."""
_INDEX, _HINT = "model.safetensors.index.json", "Get the model again, as safetensors, from somebody you trust."


def check_model_folder(folder: Path) -> None:
    """Check a folder of a language model before it is loaded.

    Raises:
        UserError: If it holds an adapter, its weights are no safetensors files in it, or its configuration asks for
            what no model needs.
    """
    if (folder / "adapter_config.json").is_file():
        raise UserError(
            f"'{folder}' is an adapter, and a language model was expected.",
            "Name the adapter's base model. To go on from a saved victim, load it and give it as the start of the fit.",
        )
    for path in folder.glob("*.json"):
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise _refuse(folder, f"'{path.name}' has more than {MAX_TEXT_BYTES >> 20} MB")
    config = _read_object(folder, "config.json")
    for part in (config, config.get("text_config") or {}):
        _check_config(folder, part)
    if (folder / _INDEX).exists():
        parts = _as_object(_read_object(folder, _INDEX).get("weight_map"))
        names = {""} if parts is None else {str(name) for name in parts.values()}
    else:
        names = {"model.safetensors"}
    for name in sorted(names):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise _refuse(folder, f"its index names '{name}', which is no safetensors file in it")
        if not (folder / name).is_file():
            raise _refuse(folder, f"it has no file '{name}'")


def _check_config(folder: Path, config: Any) -> None:
    given = _as_object(config)
    if given is None:
        raise _refuse(folder, "its config.json is not that of a model")
    for name, most in MAX_SIZES.items():
        value = given.get(name)
        if value is not None and not (isinstance(value, int) and 0 < value <= most):
            raise _refuse(folder, f"its {name} is {str(value)[:40]}, and at most {most} is read")
    for name in ("attn_implementation", "_attn_implementation"):
        if given.get(name) is not None and given[name] not in KNOWN_ATTENTION:
            raise _refuse(folder, f"its {name} names code that would be fetched")


def _read_object(folder: Path, name: str) -> dict[str, Any]:
    try:
        held = _as_object(json.loads((folder / name).read_bytes()))
    except OSError as error:
        raise_outage(error, f"'{folder / name}' can't be read")
        raise _refuse(folder, f"'{name}' can't be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise _refuse(folder, f"'{name}' is not JSON") from None
    if held is None:
        raise _refuse(folder, f"'{name}' is not a JSON object")
    return held


def _as_object(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None  # pyright: ignore[reportUnknownVariableType]


def _refuse(folder: Path, reason: str) -> UserError:
    return UserError(f"The language model '{folder}' can't be loaded: {reason}.", _HINT)
