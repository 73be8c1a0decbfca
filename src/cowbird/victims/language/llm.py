"""Causal language models: where they come from, and what of them learns.

A model is named by a hub id, a local folder, a GGUF file, or the name of one that comes as an asset (`smollm2-135m`:
SmolLM2-135M-Instruct, Allal et al. 2025; `gemma3-270m`: Gemma 3 270M, under Google's Gemma terms). GGUF files are
converted once into a folder of safetensors in the cache (`gguf_conversion`). A hub id stands for what was downloaded
before: nothing is asked over the network. Nothing is unpickled: weights load from safetensors alone, and no model
brings code of its own.
"""

import importlib
import importlib.util
import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from cowbird.errors import OutageError, UserError
from cowbird.faults import raise_outage
from cowbird.files import get_cache_folder
from cowbird.text import quote_json
from cowbird.victims.language import assets
from cowbird.victims.language.fresh_adapters import draw_fresh_adapters
from cowbird.victims.language.gguf_conversion import convert_gguf
from cowbird.victims.language.handed_adapter import HandedAdapter, fill_handed_adapter, read_adapter_config
from cowbird.victims.language.libraries import import_transformers
from cowbird.victims.language.model_folder import check_model_folder, copy_model_folder
from cowbird.victims.language.plain_llama import load_plain_llama
from cowbird.victims.language.tokenizer_check import make_control_tokens_special

_HUB_ID = re.compile(r"(\w[\w.-]{0,95}/)?\w[\w.-]{0,95}", re.ASCII)
"""What a hub id looks like; other names are asked of nobody."""
_REVISION = re.compile(r"\w[\w./-]{0,199}", re.ASCII)
"""What the name of a branch, tag or commit looks like."""
LINEAR_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Llm(BaseModel):
    """A causal language model and what of it learns."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    name: str = "smollm2-135m"
    """A local folder, a GGUF file, an embedded model's name, or the hub id of a model that was downloaded before."""
    revision: str = Field(default="", max_length=200)
    """Branch, tag or commit of a hub id; empty takes its main branch. A commit alone is always the same model."""
    adapter: str = ""
    """A folder with somebody's LoRA adapter for the model, which is put in as it is; tuning goes on from it. Its rank,
    scale and places count then, and `rank`, `alpha` and `modules` here do not."""
    layers: int | None = Field(default=None, ge=1, le=1000)
    """Layers kept, from the first on; `None` keeps all. A cut model is for small machines, and says less."""
    tuning: Literal["lora", "full"] = "lora"
    """Whether low-rank adapters learn (Hu et al. 2022) or all weights."""
    rank: int = Field(default=16, ge=1, le=4096)
    """Rank of the adapters."""
    alpha: float = Field(default=32.0, gt=0, le=1e6)
    """Scale of the adapters, divided by the rank."""
    modules: tuple[str, ...] = LINEAR_MODULES
    """Names of the linear layers that get adapters."""

    def check_requirements(self) -> None:
        """Check that the libraries are installed and the model is here.

        Raises:
            UserError: If one is missing.
        """
        for library in ("transformers", "peft"):
            if importlib.util.find_spec(library) is None:
                raise UserError(f"Language models need {library}.", "Install it: pip install 'cowbird[llm]'.")
        if self.name in assets.EMBEDDED_MODELS:
            assets.find_embedded_model(self.name, get_cache_folder())
        elif self.name.endswith(".gguf"):
            if not Path(self.name).expanduser().is_file():
                raise UserError(f"There is no file '{self.name}'.", "Give the path of a GGUF file.")
        else:
            place = locate_model(self.name)
            if not Path(place).is_dir():
                check_model_folder(_find_downloaded(place, self.revision or None))


@dataclass(frozen=True)
class LoadedModel:
    """A model and its tokenizer."""

    model: Any
    """A transformers causal LM, without adapters."""
    tokenizer: Any
    """Its fast tokenizer, which takes control tokens in texts as plain text."""


def locate_model(name: str) -> str:
    """Return what transformers can load: a folder of safetensors, or a hub id.

    Raises:
        UserError: If the name is that of an asset that is not installed, of a file that is not
            there, or of a folder that can't be trusted (`model_folder`).
    """
    if name in assets.EMBEDDED_MODELS:
        return str(convert_gguf(assets.find_embedded_model(name, get_cache_folder())))
    path = Path(name).expanduser()
    if name.endswith(".gguf"):
        if not path.is_file():
            raise OutageError(f"There is no file '{name}'.", "Give the path of a GGUF file.")
        return str(convert_gguf(path))
    try:
        is_folder = bool(name) and path.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        is_folder = False
    if not is_folder:
        if not _HUB_ID.fullmatch(name):
            raise UserError(
                f"There is no folder {quote_json(name)}, and a hub id looks like 'owner/name'.",
                "Give a hub id, a folder with safetensors and tokenizer.json, or a GGUF file.",
            )
        return name
    check_model_folder(path)
    return str(path)


def load_llm(llm: Llm, device: torch.device, dtype: torch.dtype) -> LoadedModel:
    """Load a model and its tokenizer.

    Args:
        llm: Which model.
        device: Where its weights go.
        dtype: Number format of its weights.

    Raises:
        UserError: If it can't be found or read, or has fewer layers than are to be kept.
    """
    library = import_transformers()
    place = locate_model(llm.name)
    try:
        with _open_place(place, llm.revision) as opened:
            plain = {"trust_remote_code": False, "local_files_only": True}
            tokenizer = library.AutoTokenizer.from_pretrained(opened, **plain)
            model, told = library.AutoModelForCausalLM.from_pretrained(
                opened, dtype=dtype, use_safetensors=True, output_loading_info=True, **plain
            )
        tokenizer.name_or_path = model.config._name_or_path = place
        lacking = [*told["missing_keys"], *told["mismatched_keys"]]
        if lacking:
            raise ValueError(f"its weights lack {lacking[0]}")
        _check_finite(model)
        if tokenizer.eos_token_id is None:
            raise ValueError("its tokenizer has no end-of-sequence token")
    except UserError:
        raise
    except Exception as error:  # a damaged folder fails in as many ways as there are libraries below
        raise_outage(error, f"The language model '{llm.name}' can't be loaded")
        raise _refuse_model(llm.name, str(error).partition("\n")[0]) from None
    if llm.layers is not None:
        cut_layers(model, llm.layers)
    disarm_tokenizer(tokenizer)
    return LoadedModel(model.to(device), tokenizer)


def load_reader(llm: Llm, device: torch.device, dtype: torch.dtype) -> LoadedModel:
    """Load a model that reads and does not learn, and its tokenizer.

    On a CPU a model of a plain kind is run without transformers, whose import takes longer than reading many titles
    (`plain_llama`); what it says is the same to the last bit. All others are loaded as `load_llm` does.

    Args:
        llm: Which model.
        device: Where its weights go.
        dtype: Number format of its weights.

    Raises:
        UserError: If it can't be found or read, or has fewer layers than are to be kept.
    """
    if device.type == "cpu" and llm.layers is None:
        place = locate_model(llm.name)
        if Path(place).is_dir() and not llm.revision:
            try:
                with _open_place(place, "") as opened:
                    found = load_plain_llama(Path(opened), dtype)
            except ValueError as error:
                raise _refuse_model(llm.name, str(error)) from None
            if found is not None:
                return LoadedModel(*found)
    return load_llm(llm, device, dtype)


def _refuse_model(name: str, reason: str) -> UserError:
    return UserError(
        f"The language model '{name}' can't be loaded: {reason}",
        "Give a hub id, a folder with safetensors and tokenizer.json, or a GGUF file.",
    )


def _check_revision(name: str, revision: str, local: bool) -> None:
    if local:
        raise UserError(
            f"llm.revision is given, and '{name}' is no hub id.", "Leave it out: a folder has no revisions."
        )
    if not _REVISION.fullmatch(revision):
        raise UserError(
            f"llm.revision is {quote_json(revision)}, which is no name of a branch, tag or commit.",
            "Give the name of a commit, or leave it out.",
        )


@contextmanager
def _open_place(place: str, revision: str) -> Generator[str]:
    """Give what the libraries load: a private folder with what a folder holds, or what was downloaded from a hub."""
    folder, local = Path(place), Path(place).is_dir()
    made_here = folder.parent == get_cache_folder() / "llm"
    if revision:
        _check_revision(place, revision, local)
    with copy_model_folder(folder if local else _find_downloaded(place, revision or None), made_here) as private:
        yield str(private)


def _find_downloaded(name: str, revision: str | None) -> Path:
    """Return the folder in the hub's own cache in which a model is; no server is asked.

    Raises:
        OutageError: If it was not downloaded.
    """
    hub = importlib.import_module("huggingface_hub")
    try:
        return Path(hub.snapshot_download(name, revision=revision, local_files_only=True))
    except (OSError, ValueError):  # the hub's library has kinds of its own of both
        raise OutageError(
            f"There is no folder {quote_json(name)}, and no model of that name was downloaded from a hub.",
            f"Download it first: hf download {name}. Or give a folder with safetensors and tokenizer.json, or a GGUF "
            "file.",
        ) from None


def _check_finite(model: Any) -> None:
    for name, weight in model.named_parameters():
        low, high = weight.aminmax() if weight.numel() else (weight.sum(), weight.sum())  # NaN is both
        if not bool(low.isfinite() & high.isfinite()):
            raise ValueError(f"{name} holds a number that is not finite")


def disarm_tokenizer(tokenizer: Any) -> None:
    """Make a tokenizer take control tokens in texts as plain text.

    Titles are hostile: a control token written in one must not become the token. Some tokenizers have control tokens,
    such as `<think>`, that they do not call special, so whatever looks like one is made special first. Other tokens
    that were added, such as runs of spaces, stay what they are.
    """
    tokenizer.split_special_tokens = True
    if tokenizer.is_fast:
        make_control_tokens_special(tokenizer.backend_tokenizer)


def cut_layers(model: Any, layers: int) -> None:
    """Keep the first layers of a model.

    Raises:
        UserError: If it has fewer, or keeps them where this does not look.
    """
    backbone = model.base_model
    known = getattr(backbone, "layers", None)
    if known is None or len(known) < layers:
        has = "layers of another kind" if known is None else f"{len(known)} layers"
        raise UserError(f"{layers} layers were asked for, and the model has {has}.", "Lower layers, or leave it out.")
    backbone.layers = known[:layers]
    model.config.num_hidden_layers = layers
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:layers]


def add_adapters(model: Any, llm: Llm, generator: torch.Generator) -> Any:
    """Put adapters into a model: somebody's as it is (`llm.adapter`), or fresh ones as peft makes them.

    A model that is tuned whole is returned as it is.

    Args:
        model: The causal LM.
        llm: Rank, scale and places of the adapters.
        generator: Where the adapters' first factors are drawn, on the CPU; the second ones start at zero.

    Raises:
        UserError: If the extra `llm` is not installed, no layer has one of the names, or the adapter does not fit.
    """
    if llm.tuning == "full":
        if llm.adapter:
            raise UserError("llm.adapter is put in beside weights that stay, and llm.tuning is 'full'.", "Use 'lora'.")
        return model
    import_transformers()
    try:
        peft: Any = importlib.import_module("peft")
    except ImportError as error:
        raise OutageError(f"Adapters need {error.name}.", "Install it: pip install 'cowbird[llm]'.") from None
    folder = Path(llm.adapter).expanduser()
    shape = read_adapter_config(folder) if llm.adapter else HandedAdapter(llm.rank, llm.alpha, llm.modules, False)
    config = peft.LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        target_modules=list(shape.modules),
        use_rslora=shape.rooted,
        task_type="CAUSAL_LM",
        lora_dropout=0.0,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # between the two libraries
            wrapped = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    except ValueError as error:
        raise UserError(f"The adapters can't be placed: {str(error).partition(chr(10))[0]}", "See modules.") from None
    draw_fresh_adapters(wrapped, generator)
    if llm.adapter:
        fill_handed_adapter(wrapped, folder)
    return wrapped
