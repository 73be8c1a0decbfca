"""A tiny tagger with random weights, in the folder that a trained one would be saved to."""

import torch

from cowbird.defenses.p_scanner.tagger import ADAPTER_FILE, TAGGER_RECORD_FILE, TaggerRecord
from cowbird.storage import write_tensors
from cowbird.victims.language.llm import Llm, load_llm
from doubles.tiny_llama import save_llama, train_tokenizer


def save_tagger(folder, titles, context=640, seed=0):
    """Write a tagger that reads titles behind a context of so many tokens; 0 for one that takes none."""
    (folder / "llama").mkdir(parents=True)
    llm = Llm(name=str(save_llama(folder / "llama", train_tokenizer(titles))), rank=2)
    rng, held = torch.Generator().manual_seed(seed), {}
    for name, weight in load_llm(llm, torch.device("cpu"), torch.float32).model.named_parameters():
        if name.endswith(".weight") and name.split(".")[-2] in llm.modules:
            at = f"base_model.model.{name.removesuffix('.weight')}"
            held[f"{at}.lora_A.weight"] = torch.randn((2, weight.shape[1]), generator=rng) / weight.shape[1] ** 0.5
            held[f"{at}.lora_B.weight"] = torch.randn((weight.shape[0], 2), generator=rng) / 8
    made = folder / "tagger"
    made.mkdir()
    record = TaggerRecord(
        llm=llm, recipe={"context": context}, seed=seed, catalogs={}, titles_sha256={}, never_taught=(), loss=0,
        adapter_sha256=write_tensors(made / ADAPTER_FILE, {name: each.bfloat16() for name, each in held.items()}),
    )  # fmt: skip
    (made / TAGGER_RECORD_FILE).write_text(record.model_dump_json())
    return made
