"""What a folder of a language model may hold, checked before anything in it is loaded.

A folder may be a stranger's. transformers follows an index of weights wherever it points, unpickles what is not
safetensors, fetches attention kernels that a configuration names, and makes as many layers as it is told. So a folder
is read only if its weights are safetensors files that lie in it, and its numbers are those of a model. What the
libraries see is a private folder with the files that are read, and no others (`copy_model_folder`): nobody can replace
them between the check and the load.
"""

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from cowbird.errors import UserError
from cowbird.faults import raise_outage
from cowbird.victims.language.tokenizer_check import check_tokenizer

MAX_TEXT_BYTES = 1 << 27
"""Largest JSON file of a model: the tokenizers of large vocabularies take some 35 MB."""
MAX_WEIGHT_BYTES = 1 << 38
"""Largest file of weights."""
MAX_WEIGHT_FILES = 1000
"""Most files of weights."""
MAX_NUMBERS_PER_BYTE, FREE_NUMBERS = 4, 10**8
"""A configuration asks for no more numbers than weights hold: so many a byte, and some that weights may lack."""
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
MODEL_TEXT_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "model.safetensors.index.json",
)
"""Files of a language model that are read, beside its weights."""
_INDEX, _WEIGHTS = "model.safetensors.index.json", "model.safetensors"
_HINT = "Get the model again, as safetensors, from somebody you trust."


@contextmanager
def copy_model_folder(folder: Path, trusted: bool = False) -> Generator[Path]:
    """Give a private folder with the files of a language model that are read; it goes at the end.

    Small files are copied. Weights are opened once, and stand there as links to what was opened; they are copied where
    the system has no such links.

    Args:
        folder: The model's folder.
        trusted: Whether the tokenizer was made on this machine, and need not be tried.

    Raises:
        UserError: If the model is one that `check_model_folder` refuses, or a file is too large or no plain file.
        OutageError: If there is no space for a copy.
    """
    if (folder / "adapter_config.json").exists():
        check_model_folder(folder)  # says what to do instead
    with tempfile.TemporaryDirectory(prefix="cowbird-model-") as made, ExitStack() as opened:
        private = Path(made)
        for name in MODEL_TEXT_FILES:
            if (folder / name).exists():
                source = opened.enter_context(_open_plain(folder, name, MAX_TEXT_BYTES))
                _copy(folder, source, private / name)
        for name in _list_weights(private, folder):
            source = opened.enter_context(_open_plain(folder, name, MAX_WEIGHT_BYTES))
            link = Path(f"/proc/{os.getpid()}/fd/{source.fileno()}")
            if link.exists():
                (private / name).symlink_to(link)
            else:
                _copy(folder, source, private / name)
        check_model_folder(private, folder)
        if (private / "tokenizer.json").exists() and not trusted:
            reason = check_tokenizer(private / "tokenizer.json")
            if reason:
                raise _refuse(folder, reason)
        yield private


def _open_plain(folder: Path, name: str, most: int) -> IO[bytes]:
    """Open a file that is no pipe and no device, and not too large."""
    try:
        handle = os.open(folder / name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise_outage(error, f"'{folder / name}' can't be read")
        raise _refuse(folder, f"'{name}' can't be read: {error.strerror}") from None
    found = os.fstat(handle)
    if stat.S_ISREG(found.st_mode) and found.st_size <= most:
        return os.fdopen(handle, "rb")
    os.close(handle)
    if stat.S_ISREG(found.st_mode):
        raise _refuse(folder, f"'{name}' has more than {most >> 20} MB")
    raise _refuse(folder, f"'{name}' is no plain file")


def _copy(folder: Path, source: IO[bytes], path: Path) -> None:
    try:
        with path.open("xb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    except OSError as error:
        raise_outage(error, f"'{folder}' can't be copied to '{path.parent}'")
        raise _refuse(folder, f"'{path.name}' can't be read: {error.strerror}") from None


def _list_weights(folder: Path, told: Path) -> list[str]:
    """Return the names of the files of weights: what the index says, or the only one."""
    if not (folder / _INDEX).exists():
        return [_WEIGHTS]
    parts = _as_object(_read_object(folder, _INDEX, told).get("weight_map"))
    names = {""} if not parts else {str(name) for name in parts.values()}
    for name in sorted(names):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise _refuse(told, f"its index names '{name}', which is no safetensors file in it")
    if len(names) > MAX_WEIGHT_FILES:
        raise _refuse(told, f"its index names {len(names)} files, and at most {MAX_WEIGHT_FILES} are read")
    return sorted(names)


def check_model_folder(folder: Path, told: Path | None = None) -> None:
    """Check a folder of a language model before it is loaded.

    Args:
        folder: The folder.
        told: What it is called in messages, if it is a copy.

    Raises:
        UserError: If it holds an adapter, its weights are no safetensors files in it, or its configuration asks for
            what no model needs.
    """
    told = told or folder
    if (folder / "adapter_config.json").is_file():
        raise UserError(
            f"'{folder}' is an adapter, and a language model was expected.",
            "Name the adapter's base model in llm.name, and the adapter's folder in llm.adapter.",
        )
    for path in (folder / "config.json", folder / "tokenizer.json", *folder.glob("*.json")):
        if path.exists() and not path.is_file():
            raise _refuse(told, f"'{path.name}' is no regular file")
        if path.exists() and path.stat().st_size > MAX_TEXT_BYTES:
            raise _refuse(told, f"'{path.name}' has more than {MAX_TEXT_BYTES >> 20} MB")
    names = _list_weights(folder, told)
    for name in names:
        if not (folder / name).is_file():
            raise _refuse(told, f"it has no file '{name}'")
    size = sum((folder / name).stat().st_size for name in names)
    config = _read_object(folder, "config.json", told)
    for part in (config, config.get("text_config") or {}):
        _check_config(told, part, size)


def _check_config(folder: Path, config: Any, size: int) -> None:
    given = _as_object(config)
    if given is None:
        raise _refuse(folder, "its config.json is not that of a model")
    for name, most in MAX_SIZES.items():
        value = given.get(name)
        if value is not None and not (isinstance(value, int) and 0 < value <= most):
            raise _refuse(folder, f"its {name} is {str(value)[:40]}, and at most {most} is read")
    layers, hidden, inner, words = (
        given.get(name) or 0 for name in ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size")
    )
    least = 2 * layers * hidden * inner + words * hidden
    if least > MAX_NUMBERS_PER_BYTE * size + FREE_NUMBERS:
        raise _refuse(folder, f"its config.json asks for {least:.0e} numbers, and its weights have {size} bytes")
    for name in ("attn_implementation", "_attn_implementation"):
        if given.get(name) is not None and given[name] not in KNOWN_ATTENTION:
            raise _refuse(folder, f"its {name} names code that would be fetched")


def _read_object(folder: Path, name: str, told: Path) -> dict[str, Any]:
    try:
        held = _as_object(json.loads((folder / name).read_bytes()))
    except OSError as error:
        raise_outage(error, f"'{told / name}' can't be read")
        raise _refuse(told, f"'{name}' can't be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise _refuse(told, f"'{name}' is not JSON") from None
    if held is None:
        raise _refuse(told, f"'{name}' is not a JSON object")
    return held


def _as_object(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None  # pyright: ignore[reportUnknownVariableType]


def _refuse(folder: Path, reason: str) -> UserError:
    return UserError(f"The language model '{folder}' can't be loaded: {reason}.", _HINT)
