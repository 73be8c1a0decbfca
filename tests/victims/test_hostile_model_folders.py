"""Folders of language models that somebody hostile made: each is refused in words, and nothing of it runs."""

import json
import os
import pickle
import shutil

import pytest
import torch

from cowbird.errors import UserError
from cowbird.victims.language.llm import Llm, load_llm

pytest.importorskip("transformers")

CPU = torch.device("cpu")


class Bomb:
    """Writes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def folder(llama, tmp_path):
    return shutil.copytree(llama, tmp_path / "model")


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refused(folder):
    with pytest.raises(UserError) as error:
        load_llm(Llm(name=str(folder)), CPU, torch.float32)
    assert error.value.hint
    return error.value.message


def test_the_folder_itself_is_read(folder):
    assert load_llm(Llm(name=str(folder)), CPU, torch.float32).model.config.num_hidden_layers == 2


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.bin", "../model/weights.bin"])
def test_an_index_that_names_pickled_weights(folder, name, tmp_path):
    (folder / "model.safetensors").unlink()
    (folder / "weights.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "harm")))
    index = {"metadata": {}, "weight_map": {"model.norm.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "no safetensors file in it" in refused(folder)
    assert not (tmp_path / "harm").exists()


def test_pickled_weights_alone(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "harm")))
    assert "no file 'model.safetensors'" in refused(folder)
    assert not (tmp_path / "harm").exists()


def test_an_index_that_climbs_out(folder, tmp_path):
    (folder / "model.safetensors").rename(tmp_path / "other.safetensors")
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "../other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "'../other.safetensors'" in refused(folder)


def test_an_adapter_that_redirects_to_another_base(folder, llamas):
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(llamas(1))}))
    assert "is an adapter" in refused(folder)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_hidden_layers": 10**7},
        {"hidden_size": 10**9},
        {"vocab_size": -1},
        {"vocab_size": "many"},
        {"attn_implementation": "somebody/kernels"},
        {"_attn_implementation": "somebody/kernels"},
        {"text_config": [1]},
        {"text_config": {"num_hidden_layers": 10**7}},
    ],
    ids=str,
)
def test_a_configuration_that_asks_for_too_much(folder, fields):
    change(folder / "config.json", **fields)
    assert "can't be loaded" in refused(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_text_file_that_is_too_large(folder, name):
    with (folder / name).open("r+b") as file:
        file.truncate(200 << 20)
    assert f"'{name}' has more than 128 MB" in refused(folder)


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "\xff"])
def test_a_damaged_configuration(folder, text):
    (folder / "config.json").write_text(text, encoding="latin-1")
    assert "config.json" in refused(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(folder, value):
    from safetensors.torch import load_file, save_file

    held = load_file(folder / "model.safetensors")
    held["model.norm.weight"][3] = value
    save_file(held, folder / "model.safetensors", {"format": "pt"})
    assert "model.norm.weight holds a number that is not finite" in refused(folder)
