"""Opens a language model that somebody handed over. Nothing in it is run, and an adapter is put in as it is.

Three kinds are read: what Cowbird saved of a TALLRec or LLaRA (its base is held against the recorded hash), a LoRA
adapter as peft saves one (its base is named by whoever inspects, and never taken from the adapter), and a whole causal
LM.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cowbird.errors import UserError
from cowbird.faults import raise_outage
from cowbird.files import hash_file, read_plain_text
from cowbird.inspection.language.questions import LLARA_TEMPLATE, TALLREC_TEMPLATE, TitleQuestion
from cowbird.rng import torch_stream
from cowbird.victims.fit_context import pick_dtype
from cowbird.victims.language.base_record import hash_base
from cowbird.victims.language.handed_adapter import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_WEIGHTS_FILE,
    HandedAdapter,
    read_adapter_config,
)
from cowbird.victims.language.llara import FittedLLaRA, LLaRA
from cowbird.victims.language.llm import Llm, LoadedModel, add_adapters, load_llm
from cowbird.victims.language.serialization import VICTIM_RECORD_FILE, locate_base
from cowbird.victims.language.tallrec import FittedTALLRec, TALLRec

MAX_NULL_RANK = 64
"""Rank of a null tuning's adapters, whatever the inspected adapter's."""


@dataclass(frozen=True, eq=False)
class HandedLanguageModel:
    """A language model, and what its files tell about it."""

    loaded: LoadedModel
    """The model, with its adapters in it, and the tokenizer."""
    kind: str
    """What it is, in words."""
    sha256: str
    """SHA-256 of its weights: of the adapter's file, or of all weights."""
    base_sha256: str
    """SHA-256 of the weights without adapters, rounded to bfloat16."""
    base: Llm | None
    """What null tunings are tuned from, with adapters of the same places; `None` if no base is known."""
    folder: Path
    """Where it lies."""
    fitted: FittedTALLRec | FittedLLaRA | None = None
    """The same, as Cowbird saved it."""

    def check_questions(self, questions: Sequence[TitleQuestion]) -> None:
        """Check that a model that Cowbird saved is asked as it was tuned.

        Raises:
            UserError: If it picks candidates and is asked about one title, or the other way round.
        """
        if self.fitted is None or not questions:
            return
        picks, asked = isinstance(self.fitted, FittedLLaRA), bool(questions[0].rivals)
        if picks != asked:
            name, template = ("LLaRA", LLARA_TEMPLATE) if picks else ("TALLRec", TALLREC_TEMPLATE)
            raise UserError(f"The model is a {name}, and is asked in another prompt.", f"Give --template {template}.")


def is_language_model(path: Path) -> bool:
    """Tell whether a path is that of a language model: a folder with an adapter's or a model's configuration."""
    return path.is_dir() and any(
        (path / name).exists() for name in (ADAPTER_CONFIG_FILE, "config.json", VICTIM_RECORD_FILE)
    )


def open_language_model(
    folder: Path, device: torch.device, base: str | None = None, layers: int | None = None
) -> HandedLanguageModel:
    """Open a language model.

    Args:
        folder: What Cowbird, peft or transformers saved.
        device: Where it goes.
        base: Name of the language model that it was tuned from; what Cowbird saved tells it.
        layers: Layers of the base that count, for adapters tuned on a cut one; what Cowbird saved tells it.

    Raises:
        UserError: If it can't be read, or its base is not named, not there or another one.
    """
    if not is_language_model(folder):
        found = "holds none" if folder.is_dir() else "is no folder"
        raise UserError(
            f"'{folder}' should be the folder of a language model or adapter, and {found}.", "Check the path."
        )
    if (folder / VICTIM_RECORD_FILE).exists():
        return _open_own(folder, device, base)
    dtype = pick_dtype("auto", device)
    if (folder / ADAPTER_CONFIG_FILE).exists():
        if base is None:
            raise UserError(
                f"'{folder}' is an adapter, and which language model it belongs to is yours to say.",
                "Name it with --base: a hub id, a folder, or an asset such as smollm2-135m.",
            )
        return _open_adapter(folder, Llm(name=base, layers=layers, adapter=str(folder)), device, dtype)
    loaded = load_llm(Llm(name=str(folder), layers=layers), device, dtype)
    known = None if base is None else Llm(name=base, layers=layers)
    sha256 = hash_base(loaded.model)
    return HandedLanguageModel(loaded, "a whole causal language model", sha256, sha256, known, folder)


def _open_own(folder: Path, device: torch.device, base: str | None) -> HandedLanguageModel:
    """Open what Cowbird saved of a TALLRec or LLaRA."""
    kinds: dict[str, type[TALLRec | LLaRA]] = {"TALLRec": TALLRec, "LLaRA": LLaRA}
    try:
        record: Any = json.loads(read_plain_text(folder / VICTIM_RECORD_FILE))
        victim, fields = record["victim"], dict(record["spec"])
        if victim not in kinds:
            raise ValueError(f"it is a {str(victim)[:40]}, and a TALLRec or LLaRA was expected")
        spec = kinds[victim].model_validate(fields)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise_outage(error, f"'{folder}' can't be read")
        reason = str(error).partition("\n")[0][:200]
        raise UserError(
            f"'{folder}' holds no TALLRec or LLaRA that can be read: {reason}.", "Check the folder."
        ) from None
    if spec.llm.adapter:
        raise UserError(
            f"'{folder}' was tuned from somebody's adapter.", "Inspect it as an adapter: remove the record."
        )
    llm = spec.llm.model_copy(update={"name": locate_base(folder, base)})
    spec = spec.model_copy(update={"llm": llm})
    fitted = spec.load(folder, device)
    loaded = fitted.loaded
    weights = folder / ADAPTER_WEIGHTS_FILE
    base_hash = hash_base(loaded.model)
    sha256 = hash_file(weights) if weights.is_file() else base_hash
    known = llm.model_copy(update={"tuning": "lora", "rank": min(llm.rank, MAX_NULL_RANK)})
    what = f"a {victim} that Cowbird saved"
    return HandedLanguageModel(loaded, what, sha256, base_hash, known, folder, fitted)


def _open_adapter(folder: Path, llm: Llm, device: torch.device, dtype: torch.dtype) -> HandedLanguageModel:
    """Open an adapter as peft saves one."""
    shape = read_adapter_config(folder)
    loaded = load_llm(llm.model_copy(update={"adapter": ""}), device, dtype)
    model = add_adapters(loaded.model, llm, torch_stream(0, "adapters"))
    named = LoadedModel(model.eval(), loaded.tokenizer)
    sha256 = hash_file(folder / ADAPTER_WEIGHTS_FILE)
    return HandedLanguageModel(
        named, "a LoRA adapter, put into the language model that you named", sha256, hash_base(model),
        _shape_nulls(llm, shape), folder,
    )  # fmt: skip


def _shape_nulls(llm: Llm, shape: HandedAdapter) -> Llm:
    """Return the language model of null tunings: fresh adapters of the same places."""
    rank = min(shape.rank, MAX_NULL_RANK)
    scale = shape.alpha / (shape.rank**0.5 if shape.rooted else shape.rank)
    return llm.model_copy(update={"adapter": "", "rank": rank, "alpha": scale * rank, "modules": shape.modules})
