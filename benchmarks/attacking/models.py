"""Attack: folders of language models that somebody hostile made."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .harness import Place


def attack_models(place: Place) -> None:
    """Have `stealth` read titles with hostile models; one that is fine shows that the others are refused for cause."""
    work = place.work
    (work / "items.csv").write_text("title\n" + "".join(f"Plain title {n} aaaaaaaa!\n" for n in range(10)))
    _make_model(work / "fine")
    _try(place, "a model that is fine", work / "fine", (0,))
    for name, harm in HARMS.items():
        folder = shutil.copytree(work / "fine", work / "harmed")
        harm(folder)
        _try(place, name, folder, (2,))
        shutil.rmtree(folder)


def _try(place: Place, name: str, folder: Path, codes: tuple[int, ...]) -> None:
    words = ("stealth", "--text", "5v", "--titles", "items.csv", "--llm", folder, "--device", "cpu", "--quiet")
    place.attack("models", name, codes, *words, out=[folder], timeout=600)


def _edit(name: str, **fields: Any) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return harm


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _pickle(folder: Path) -> None:
    import torch

    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _fill(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    held = {name: weight.fill_(float("nan")) for name, weight in load_file(folder / "model.safetensors").items()}
    save_file(held, folder / "model.safetensors", {"format": "pt"})


def _pipe(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")


def _index(name: str) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))

    return harm


_DOUBLE = [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"} for _ in range(40)]
HARMS: dict[str, Callable[[Path], None]] = {
    "a tokenizer whose pattern explodes": _edit("tokenizer.json", pre_tokenizer=_split(r"(a+)+$")),
    "a tokenizer whose alternatives explode": _edit("tokenizer.json", pre_tokenizer=_split(r"(?:a|aa)*b")),
    "a tokenizer that takes the fifth power": _edit("tokenizer.json", pre_tokenizer=_split(r"a*a*a*a*a*\d")),
    "a tokenizer that doubles forty times": _edit(
        "tokenizer.json", normalizer={"type": "Sequence", "normalizers": _DOUBLE}
    ),
    "weights in a pickle": _pickle,
    "weights that are not numbers": _fill,
    "a tokenizer that is a pipe": _pipe,
    "an index that climbs": _index("../other.safetensors"),
    "an index that names a pickle": _index("pytorch_model.bin"),
    "ten million layers": _edit("config.json", num_hidden_layers=10**7),
    "an adapter that names another base": lambda folder: (folder / "adapter_config.json").write_text("{}") and None,
    "attention by name": _edit("config.json", _attn_implementation="somebody/kernel"),
}


def _make_model(folder: Path) -> None:
    """Write a tiny Llama with random weights and a tokenizer of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    spelled = Tokenizer(models.BPE())
    spelled.pre_tokenizer, spelled.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    spelled.train_from_iterator(["plain title"], trainer)
    PreTrainedTokenizerFast(tokenizer_object=spelled, eos_token="<|end|>").save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        eos_token_id=0, bos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
