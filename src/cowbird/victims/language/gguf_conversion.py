"""GGUF files, converted once into folders of safetensors in the cache."""

import io
import json
import shutil
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch

from cowbird.errors import OutageError, UserError
from cowbird.faults import raise_outage
from cowbird.files import (
    get_cache_folder,
    hash_unchanged_file,
    read_plain_text,
    replace_folder_atomically,
    sweep_partials,
    write_text,
)
from cowbird.notices import NoticeRank, note
from cowbird.victims.language.libraries import import_transformers

CONVERTED_RECORD_FILE = "cowbird-files.json"
"""What lies beside a converted model: the SHA-256 of each of its files, by name."""


def convert_gguf(gguf: Path) -> Path:
    """Return the folder of safetensors made from a GGUF file, made now if it is not in the cache.

    The folder appears under its name once it is whole, and its files are held against their hashes before they are
    used; what is damaged is made anew. What killed processes left half made goes.

    Raises:
        UserError: If the file is not a GGUF model that transformers knows.
        OutageError: If the cache can't be written, or memory runs out.
    """
    folder = get_cache_folder() / "llm" / f"{gguf.stem}-{hash_unchanged_file(gguf)[:16]}"
    if _is_converted(folder):
        return folder
    if folder.exists():
        note(NoticeRank.CHANGE, f"The converted language model '{folder}' was damaged or unsealed, and is made anew.")
    library = import_transformers()
    sweep_partials(folder.parent)
    try:
        with replace_folder_atomically(folder, keep=not folder.exists()) as partial:
            _write_converted(library, gguf, partial)
            hashes = {path.name: hash_unchanged_file(path) for path in sorted(partial.iterdir())}
            write_text(partial / CONVERTED_RECORD_FILE, json.dumps(hashes, indent=1))
    except OutageError as error:
        raise OutageError(error.message, "Free some space, or choose another cache with COWBIRD_CACHE.") from None
    except Exception as error:  # a damaged file fails in as many ways as there are libraries below
        raise_outage(error, f"'{gguf}' can't be converted")
        reason = str(error).partition("\n")[0]
        raise UserError(f"'{gguf}' can't be converted: {reason}.", "Is it a whole GGUF file?") from None
    return folder


def _is_converted(folder: Path) -> bool:
    """Tell whether a folder holds a converted model, each file of it as it was written and nothing else."""
    try:
        known: Any = json.loads(read_plain_text(folder / CONVERTED_RECORD_FILE))
        held = {path.name for path in folder.iterdir()} - {CONVERTED_RECORD_FILE}
        return held == set(known) and all(hash_unchanged_file(folder / name) == known[name] for name in held)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise_outage(error, f"'{folder}' can't be read")
        return False


def _write_converted(library: Any, gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file as safetensors, with its tokenizer."""
    # Recent versions keep the weights packed unless told otherwise; older ones always unpack.
    packed = getattr(library, "GgufConfig", None) or getattr(library.utils.quantization_config, "GgufConfig", None)
    more = {} if packed is None else {"quantization_config": packed(dequantize=True)}
    # Alone in a folder of its own, so that nothing that lies beside it is read.
    alone = folder / "gguf"
    alone.mkdir()
    (alone / gguf.name).symlink_to(gguf.resolve())
    given = {"pretrained_model_name_or_path": alone, "gguf_file": gguf.name, "trust_remote_code": False}
    with redirect_stderr(io.StringIO()):  # the library's own progress bar
        model = library.AutoModelForCausalLM.from_pretrained(**given, dtype=torch.float32, **more)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(folder)
    library.AutoTokenizer.from_pretrained(**given).save_pretrained(folder)
    shutil.rmtree(alone)
