"""Language models: folders of them, what is refused, cut layers and adapters. GGUF files are in another file."""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch

from cowbird.errors import UserError
from cowbird.victims.language.llm import Llm, add_adapters, cut_layers, load_llm, locate_model

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

CPU = torch.device("cpu")
TOKENS = torch.tensor([[50, 7, 333, 7, 60]])


def get(folder, dtype=torch.float32, **fields):
    return load_llm(Llm(name=str(folder), **fields), CPU, dtype)


def logits(model):
    with torch.inference_mode():
        return model(input_ids=TOKENS).logits


@pytest.fixture
def changed(llama, tmp_path):
    """Return a copy of the tiny model to harm, and a function that edits its JSON files."""
    folder = shutil.copytree(llama, tmp_path / "changed")

    def edit(file, **fields):
        (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | fields))

    return folder, edit


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


# Folders and hub ids


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_folder_is_loaded(llama, dtype):
    loaded, plain = get(llama, dtype), transformers.AutoModelForCausalLM.from_pretrained(llama, dtype=dtype)
    assert {weight.dtype for weight in loaded.model.parameters()} == {dtype}
    assert logits(loaded.model).equal(logits(plain))
    assert loaded.tokenizer("<|im_end|>")["input_ids"] != [loaded.tokenizer.eos_token_id]
    assert loaded.tokenizer.is_fast


def test_a_home_folder_is_loaded(llama, monkeypatch):
    monkeypatch.setenv("HOME", str(llama.parent))
    assert locate_model(f"~/{llama.name}") == str(llama)


@pytest.mark.parametrize(
    "name", ["nobody/nothing", "nothing", "../x", "/no/where", "a b", "", "~", "two\nlines", "x" * 300]
)
def test_unknown_names_are_user_errors(name, offline, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError) as error:
        get(name)
    assert error.value.hint


def cut_short(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickled(folder):
    held = transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(held, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    "harm",
    [
        cut_short,
        pickled,
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        lambda folder: (folder / "model.safetensors").write_bytes(b"no tensors " * 9),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "tokenizer.json").unlink(),
        lambda folder: (folder / "tokenizer.json").write_text("{"),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text("[]"),
    ],
    ids=["cut short", "pickled", "empty", "no weights", "gone", "no words", "bad words", "no config", "bad", "list"],
)
def test_damaged_folders_are_user_errors(changed, harm):
    harm(changed[0])
    with pytest.raises(UserError, match="can't be loaded") as error:
        get(changed[0])
    assert error.value.hint


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "unheard of"},
        {"hidden_size": 64},
        {"hidden_size": "wide"},
        {"vocab_size": 100},
        {"num_hidden_layers": 3},  # the third layer's weights would be random
    ],
    ids=str,
)
def test_configs_that_do_not_fit_are_user_errors(changed, fields):
    changed[1]("config.json", **fields)
    with pytest.raises(UserError, match="can't be loaded"):
        get(changed[0])


def test_a_tokenizer_without_an_end_is_a_user_error(changed):
    changed[1]("tokenizer_config.json", eos_token=None)
    with pytest.raises(UserError, match="can't be loaded"):
        get(changed[0])


@pytest.mark.parametrize("part", ["model", "tokenizer"])
def test_models_bring_no_code(changed, part, monkeypatch):
    folder, edit = changed
    (folder / "own.py").write_text("raise SystemExit('own code was run')")
    if part == "model":
        edit("config.json", model_type="own", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"})
    else:
        edit("tokenizer_config.json", tokenizer_class="T", auto_map={"AutoTokenizer": ["own.T", "own.T"]})
    asked = []
    monkeypatch.setattr("builtins.input", lambda *text: asked.append(text) or "n")
    with pytest.raises(UserError, match="can't be loaded"):
        get(folder)
    assert not asked, "nobody is asked whether to run it"


@pytest.mark.parametrize("missing", ["transformers", "peft"])
def test_a_missing_extra_is_a_user_error(llama, missing, monkeypatch):
    model = get(llama).model
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=missing) as error:
        add_adapters(model, Llm(), torch.Generator())
    assert "cowbird[llm]" in error.value.hint


# Layers and adapters


@pytest.mark.slow
def test_a_cut_model_is_one_that_was_made_smaller(llama):
    loaded = get(llama, layers=1).model
    assert not logits(loaded).equal(logits(get(llama).model))
    plain = transformers.AutoModelForCausalLM.from_pretrained(llama, num_hidden_layers=1)
    assert logits(loaded).equal(logits(plain))
    assert loaded.config.num_hidden_layers == 1
    assert logits(get(llama, layers=2).model).equal(logits(get(llama).model))


def test_layers_of_several_types_are_cut():
    model = SimpleNamespace(
        base_model=SimpleNamespace(layers=[1, 2, 3]),
        config=SimpleNamespace(num_hidden_layers=3, layer_types=["full_attention", "sliding_attention", "x"]),
    )
    cut_layers(model, 2)
    assert model.base_model.layers == [1, 2]
    assert vars(model.config) == {"num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"]}


def test_layers_that_are_not_there_are_user_errors(llama):
    with pytest.raises(UserError, match=r"3 layers .* 2 layers") as error:
        get(llama, layers=3)
    assert error.value.hint
    with pytest.raises(UserError, match="another kind"):
        cut_layers(SimpleNamespace(base_model=SimpleNamespace(h=[1, 2]), config=None), 1)


def adapters(model):
    return {name: weight.detach() for name, weight in model.named_parameters() if "lora_" in name}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_start_as_nothing_and_follow_from_the_generator(llama, dtype):
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(drawn))
        model = add_adapters(get(llama, dtype).model, Llm(rank=3), torch.Generator().manual_seed(seed))
        assert logits(model).equal(logits(get(llama, dtype).model))
        assert {name for name, weight in model.named_parameters() if weight.requires_grad} == set(adapters(model))
        drawn.append(adapters(model))
    one, again, other = drawn
    assert len(one) == 2 * 7 * 2
    for name, weight in one.items():
        assert weight.equal(again[name])
        assert weight.dtype == dtype
        if "lora_A" in name:
            assert not weight.equal(other[name])
            assert weight.shape[0] == 3
            assert 0.7 < weight.abs().max() * weight.shape[1] ** 0.5 < 1.01
        else:
            assert not weight.any()


def test_adapters_are_scaled_by_alpha_over_rank(llama):
    found = []
    for given in (Llm(rank=2, alpha=6.0, modules=("v_proj",)), Llm(tuning="full")):
        model = add_adapters(get(llama).model, given, torch.Generator().manual_seed(1))
        projection = model.base_model.model.model.layers[0].self_attn.v_proj if not found else None
        if projection is not None:
            assert len(adapters(model)) == 2 * 2
            a, b = projection.lora_A["default"].weight, projection.lora_B["default"].weight
            b.data.fill_(0.5)
            with torch.no_grad():
                change = 3 * b @ a
        else:
            with torch.no_grad():
                model.base_model.layers[0].self_attn.v_proj.weight.add_(change)
        found.append(logits(model))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_a_model_that_is_tuned_whole_gets_no_adapters(llama):
    model = get(llama).model
    assert add_adapters(model, Llm(tuning="full"), torch.Generator()) is model
    assert all(weight.requires_grad for weight in model.parameters())


def test_adapters_without_a_place_are_a_user_error(llama):
    with pytest.raises(UserError, match="can't be placed"):
        add_adapters(get(llama).model, Llm(modules=("c_attn",)), torch.Generator())
