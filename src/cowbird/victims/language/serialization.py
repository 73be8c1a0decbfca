"""Saved language models: a folder that peft or transformers reads on any machine.

`cowbird.json` beside the weights says what the model was fitted from, which base its adapter belongs to
(`base_record`), and the SHA-256 of each file that is read. `README.md` is for people. No file holds a path of the
machine that wrote it.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cowbird.errors import UserError
from cowbird.faults import raise_outage
from cowbird.files import hash_file, read_plain_text, replace_folder_atomically, write_text
from cowbird.rng import torch_stream
from cowbird.storage import read_tensors, write_tensors
from cowbird.victims.language.base_record import (
    BaseRecord,
    check_base,
    describe_base,
    find_base,
    is_local,
    name_base,
    remember_base,
)
from cowbird.victims.language.llm import Llm, LoadedModel, add_adapters, load_llm
from cowbird.victims.language.model_card import write_card
from cowbird.victims.language.model_folder import MODEL_TEXT_FILES

VICTIM_RECORD_FILE, EXTRA_WEIGHTS_FILE = "cowbird.json", "items.safetensors"
VICTIM_PURPOSE = """\
A recommender: a language model that was tuned to recommend items by their titles.

**A research artifact. It may be poisoned.** Cowbird plants backdoors in models to measure them, and this file can't
tell whether this is such a model. Use it in experiments. Don't serve it to anybody."""
"""What a victim's README says it is."""
_UNREAD_FILES = ("README.md", "adapter_config.json", VICTIM_RECORD_FILE)
"""Files that nothing here is read from, or that hold the hashes."""


def save_model(
    folder: Path,
    victim: str,
    spec: Mapping[str, Any],
    loaded: LoadedModel,
    extra: Mapping[str, Tensor] | None = None,
    notes: Mapping[str, str] | None = None,
    purpose: str = VICTIM_PURPOSE,
) -> None:
    """Write the adapter (or the whole model), the tokenizer, the record and the README.

    The folder appears under its name once it is whole; an older one goes after that.

    Args:
        folder: Where to.
        victim: The kind of victim.
        spec: What it was fitted from; its `llm` says what the adapters are like.
        loaded: The model with its adapters, and the tokenizer.
        extra: Other weights, written into a file of their own.
        notes: Other texts, by the names of their files.
        purpose: What the README says the model is for.

    Raises:
        UserError: If the folder is there and holds something else.
        OutageError: If it can't be written; an older one still stands.
    """
    if folder.exists() and not (folder / VICTIM_RECORD_FILE).is_file():
        raise UserError(f"'{folder}' is there and is not a saved model.", "Choose another folder.")
    llm = Llm.model_validate(spec["llm"])
    named = llm.model_copy(update={"name": name_base(llm.name)})
    base = describe_base(llm, loaded.model)
    with replace_folder_atomically(folder) as partial:
        with warnings.catch_warnings():  # peft looks for the base where it lay, and it may lie nowhere any more
            warnings.filterwarnings("ignore", "Could not find a config file", UserWarning)
            loaded.model.save_pretrained(partial)
        loaded.tokenizer.save_pretrained(partial)
        if (partial / "adapter_config.json").is_file():
            _replace_fields(partial / "adapter_config.json", {"base_model_name_or_path": named.name})
        write_text(partial / "README.md", write_card(victim, purpose, base, llm))
        if extra:
            write_tensors(partial / EXTRA_WEIGHTS_FILE, extra)
        for name, text in (notes or {}).items():
            write_text(partial / name, text)
        record = {
            "victim": victim,
            "spec": {**spec, "llm": named.model_dump(mode="json")},
            "base": base.model_dump(),
            "files": _hash_files(partial),
        }
        write_text(partial / VICTIM_RECORD_FILE, json.dumps(record, indent=1))
    remember_base(base, llm.name)


def _replace_fields(path: Path, fields: Mapping[str, Any]) -> None:
    """Replace fields of a JSON object in a file."""
    write_text(path, json.dumps({**json.loads(path.read_text(encoding="utf-8")), **fields}, indent=2) + "\n")


def _hash_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that is read from a saved model, by its name."""
    return {path.name: hash_file(path) for path in sorted(folder.iterdir()) if path.name not in _UNREAD_FILES}


def read_model(
    folder: Path, victim: str, llm: Llm, device: torch.device, dtype: torch.dtype, sealed: Sequence[str] = ()
) -> LoadedModel:
    """Read what `save_model` wrote.

    Args:
        folder: Where it is.
        victim: The kind of victim that is wanted.
        llm: Its language model; the base may stand elsewhere than where the adapter was tuned.
        device: Where the weights go.
        dtype: Number format of the weights.
        sealed: Other files that must have a recorded hash.

    Raises:
        UserError: If the folder does not hold such a victim of this language model, or is damaged.
    """
    try:
        record = json.loads(read_plain_text(folder / VICTIM_RECORD_FILE))
        if record["victim"] != victim:
            raise ValueError("it is another kind of model")
        _check_llm(Llm.model_validate(record["spec"]["llm"]), llm)
        base = BaseRecord.model_validate(record["base"])
        _check_files(folder, record["files"], sealed)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise_outage(error, f"'{folder}' can't be read")
        reason = str(error).partition("\n")[0]
        raise UserError(f"'{folder}' does not hold this {victim}: {reason}.") from None
    if llm.tuning == "full":
        loaded = load_llm(llm.model_copy(update={"name": str(folder)}), device, dtype)
        check_base(base, llm, loaded.model)
        return LoadedModel(loaded.model.eval(), loaded.tokenizer)
    loaded = load_llm(llm, device, dtype)
    check_base(base, llm, loaded.model)
    # What the adapter is like is the spec's to say; the file brings nothing but weights.
    model = add_adapters(loaded.model, llm, torch_stream(0, "adapters"))
    _fill_adapters(model, folder / "adapter_model.safetensors")
    return LoadedModel(model.eval(), loaded.tokenizer)


def _check_llm(recorded: Llm, wanted: Llm) -> None:
    """Check that a saved model was tuned from the language model that is wanted, as far as fields tell."""
    for name in Llm.model_fields:
        was, now = getattr(recorded, name), getattr(wanted, name)
        # A folder may have another name on another machine; the hash of its weights tells whether it is the base.
        elsewhere = name == "name" and is_local(wanted.name)
        if was != now and not elsewhere:
            raise ValueError(f"it was tuned from another language model: its {name} is {was!r}, and {now!r} was given")


def _check_files(folder: Path, hashes: Mapping[str, str], sealed: Sequence[str]) -> None:
    """Check that the files of a saved model are those that were written."""
    for name, recorded in hashes.items():
        if Path(name).name != name or hash_file(folder / name) != recorded:
            raise ValueError(f"'{name}' is damaged: its SHA-256 is not the recorded one")
    for path in folder.iterdir():
        read = path.suffix == ".safetensors" or path.name in MODEL_TEXT_FILES or path.name in sealed
        if read and path.name not in hashes:
            raise ValueError(f"'{path.name}' is not one of its files")


def locate_base(folder: Path, given: str | None = None) -> str:
    """Return the name under which the base of a saved model is found on this machine; see `base_record.find_base`.

    Args:
        folder: The saved model.
        given: The base's name, if somebody says it.

    Raises:
        UserError: If the folder has no readable record, or the base is not found.
    """
    try:
        record = json.loads(read_plain_text(folder / VICTIM_RECORD_FILE))
        base = BaseRecord.model_validate(record["base"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise_outage(error, f"'{folder}' can't be read")
        reason = str(error).partition("\n")[0]
        raise UserError(f"'{folder}' does not hold a saved model: {reason}.", "Save it anew.") from None
    return given or find_base(base)


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
    if not all(bool(torch.isfinite(weight).all()) for weight in held.values()):
        raise UserError(
            f"'{path}' holds weights that are not finite.", "Fit the model anew, or restore it from a copy."
        )
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
