"""A Llama model that is run without transformers says what transformers' says, to the last bit."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from cowbird.errors import UserError
from cowbird.victims.language.llm import Llm, LoadedModel, load_llm, load_reader
from cowbird.victims.language.packing import compute_hidden_states, pack
from cowbird.victims.language.plain_llama import PlainLlama, load_plain_llama

TEXTS = [
    "",
    " ",
    "Red Harbor 5v",
    "The Engine at Night of the Quiet Letter <|im_start|>Yes<|endoftext|>",
    "<think>Blue</think> [INST] |x| Gar\u200bden \ud83d \U0001f600\U0001f3fd",
    "  two  spaces\tand\nlines ",
    "\u6f22\u5b57 \u30ab\u30bf\u30ab\u30ca \u0627\u0644\u0639 e\u0301 \u0130",
    "word " * 90,
]
CPU = torch.device("cpu")


def edit(folder, tmp_path, name="config.json", **changes):
    """Return a copy of a model's folder with another file; `None` takes a key away."""
    made = shutil.copytree(folder, tmp_path / "changed", dirs_exist_ok=True)
    told = json.loads((made / name).read_text()) | changes
    (made / name).write_text(json.dumps({key: value for key, value in told.items() if value is not None}))
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_are_those_of_transformers(llama, dtype):
    from cowbird.defenses.p_scanner.token_logits import read_logits, tokenize_titles

    plain, whole = load_reader(Llm(name=str(llama)), CPU, dtype), load_llm(Llm(name=str(llama)), CPU, dtype)
    assert isinstance(plain.model, PlainLlama) and not isinstance(whole.model, PlainLlama)
    for capacity in (16, 4096):
        told, known = (read_logits(each, TEXTS, CPU, capacity) for each in (plain, whole))
        assert np.array_equal(told.mark, known.mark) and np.array_equal(told.verdict, known.verdict)
        assert np.array_equal(told.tokenized.token, known.tokenized.token)
        assert np.array_equal(told.tokenized.first, known.tokenized.first)
        assert len(np.unique(told.verdict)) > 4  # not all alike
    tokens = tokenize_titles(whole.tokenizer, TEXTS).tokens
    row = pack(tokens, np.arange(len(TEXTS)), CPU)
    places = torch.arange(row.token.shape[1])
    with torch.inference_mode():
        states = [compute_hidden_states(each.model, row, places) for each in (plain, whole)]
    assert torch.equal(*states)


def test_parameters_go_by_the_names_of_transformers(llama):
    plain, whole = (load(Llm(name=str(llama)), CPU, torch.float32).model for load in (load_reader, load_llm))
    known = dict(whole.named_parameters())
    assert {name: weight.shape for name, weight in plain.named_parameters()} == {
        name: weight.shape for name, weight in known.items()
    }
    assert all(torch.equal(weight, known[name]) for name, weight in plain.named_parameters())


def test_texts_become_the_tokens_of_transformers(llama):
    plain, whole = (load(Llm(name=str(llama)), CPU, torch.float32).tokenizer for load in (load_reader, load_llm))
    for text in (" Yes", " No", *TEXTS):
        clean = text.encode("utf-8", "replace").decode()
        assert plain(clean) == {"input_ids": whole(clean, add_special_tokens=False)["input_ids"]}
    assert plain.eos_token_id == whole.eos_token_id
    assert plain.eos_token_id not in plain("<|im_end|>")["input_ids"]


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "mistral"},
        {"hidden_act": "gelu"},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"tie_word_embeddings": False},
        {"head_dim": None},
        {"num_key_value_heads": None},
        {"num_hidden_layers": True},
        {"rms_norm_eps": 0},
        {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "linear"}},
        {"rope_parameters": None},
        {"sliding_window": 16},
        {"quantization_config": {"quant_method": "x"}},
    ],
)
def test_models_of_another_kind_are_left_to_transformers(llama, tmp_path, changes):
    assert load_plain_llama(llama, torch.float32) is not None
    assert load_plain_llama(edit(llama, tmp_path, **changes), torch.float32) is None


@pytest.mark.parametrize("changes", [{"tokenizer_class": "GPT2Tokenizer"}, {"add_bos_token": True}])
def test_other_tokenizers_are_left_to_transformers(llama, tmp_path, changes):
    assert load_plain_llama(edit(llama, tmp_path, "tokenizer_config.json", **changes), torch.float32) is None


def test_folders_that_lack_something_are_left_to_transformers(llama, tmp_path):
    for name in ("tokenizer_config.json", "model.safetensors"):
        made = shutil.copytree(llama, tmp_path / name)
        (made / name).unlink()
        assert load_plain_llama(made, torch.float32) is None
    assert load_plain_llama(edit(llama, tmp_path, num_hidden_layers=3), torch.float32) is None


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(llama, tmp_path, number):
    from safetensors.torch import load_file, save_file

    made = shutil.copytree(llama, tmp_path / "changed")
    held = load_file(made / "model.safetensors")
    held["model.norm.weight"][3] = number
    save_file(held, made / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="not finite"):
        load_reader(Llm(name=str(made)), CPU, torch.float32)


def test_a_tokenizer_without_its_end_is_refused(llama, tmp_path):
    made = edit(llama, tmp_path, "tokenizer_config.json", eos_token="<|nothing|>")
    with pytest.raises(UserError, match="no end-of-sequence token"):
        load_reader(Llm(name=str(made)), CPU, torch.float32)


def test_a_model_that_is_cut_is_loaded_by_transformers(llama):
    found = load_reader(Llm(name=str(llama), layers=1), CPU, torch.float32)
    assert isinstance(found, LoadedModel) and not isinstance(found.model, PlainLlama)


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2")
def test_the_tagger_that_ships_is_read_without_transformers():
    program = (
        "import sys; from cowbird.defenses.p_scanner.tagger import load_tagger; "
        "found = load_tagger(device='cpu').score(['Quiet Harbor at Night (1999) qzx']); "
        "sys.exit(0 if 'transformers' not in sys.modules and found[0] > 0 else 5)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=300).returncode == 0


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2")
def test_the_tagger_that_ships_says_what_it_says_with_transformers(monkeypatch):
    from cowbird.defenses.p_scanner import tagger

    plain = tagger.load_tagger(device="cpu").read(TEXTS)
    monkeypatch.setattr(tagger, "load_reader", load_llm)
    known = tagger.load_tagger(device="cpu").read(TEXTS)
    assert np.array_equal(plain.mark, known.mark) and np.array_equal(plain.verdict, known.verdict)
