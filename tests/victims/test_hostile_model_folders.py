"""Folders of language models that somebody hostile made: each is refused in words, and nothing of it runs."""

import json
import os
import pickle
import shutil
import socket
from functools import partial
from pathlib import Path

import pytest
import torch

from cowbird.errors import UserError
from cowbird.victims.language import model_folder
from cowbird.victims.language.llm import Llm, load_llm
from cowbird.victims.language.model_folder import MODEL_TEXT_FILES

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


# What the libraries see


def test_the_libraries_see_the_files_that_are_read_and_no_others(folder, monkeypatch):
    transformers = pytest.importorskip("transformers")
    for name in ("own.py", "pytorch_model.bin", "notes.json", "kernels.so"):
        (folder / name).write_text("harm")
    seen, original = [], transformers.AutoModelForCausalLM.from_pretrained

    def look(place, **more):
        seen.append(Path(place))
        assert {path.name for path in Path(place).iterdir()} <= {*MODEL_TEXT_FILES, "model.safetensors"}
        assert Path(place).stat().st_mode & 0o077 == 0
        assert more["local_files_only"]
        return original(place, **more)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", look)
    loaded = load_llm(Llm(name=str(folder)), CPU, torch.float32)
    assert not seen[0].exists()
    assert str(folder) == loaded.model.config._name_or_path == loaded.tokenizer.name_or_path


def test_a_file_that_is_replaced_after_the_check(folder, monkeypatch, tmp_path):
    wanted = load_llm(Llm(name=str(folder)), CPU, torch.float32).model.state_dict()
    original = model_folder.check_model_folder

    def check(*args):
        original(*args)
        if len(args) == 2:
            shutil.rmtree(folder)
            folder.mkdir()
            (folder / "config.json").write_text("{}")
            (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb(tmp_path / "harm")))

    monkeypatch.setattr(model_folder, "check_model_folder", check)
    found = load_llm(Llm(name=str(folder)), CPU, torch.float32).model.state_dict()
    assert all(found[name].equal(weight) for name, weight in wanted.items())
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("beside", [False, True])
def test_nothing_is_unpickled(folder, monkeypatch, beside, tmp_path):
    if beside:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "harm")))

    def refuse(*args, **more):
        pytest.fail("something was unpickled")

    for module, name in ((pickle, "Unpickler"), (pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    assert load_llm(Llm(name=str(folder)), CPU, torch.float32).model.config.num_hidden_layers == 2


def test_files_that_are_links_as_in_the_cache_of_a_hub(folder, tmp_path):
    for path in [*folder.iterdir()]:
        path.rename(tmp_path / f"blob-{path.name}")
        path.symlink_to(tmp_path / f"blob-{path.name}")
    assert load_llm(Llm(name=str(folder)), CPU, torch.float32).model.config.num_hidden_layers == 2


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_a_file_that_is_none(folder, name, kind):
    (folder / name).unlink()
    make = {"pipe": os.mkfifo, "folder": Path.mkdir, "device": lambda path: path.symlink_to("/dev/zero")}
    make[kind](folder / name)
    assert f"'{name}'" in refused(folder)


def test_weights_that_are_too_large(folder):
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1 << 39)
    assert "'model.safetensors' has more than" in refused(folder)


@pytest.mark.parametrize("parts", [{}, {f"w{n}": f"{n}.safetensors" for n in range(1001)}], ids=len)
def test_an_index_of_no_file_or_of_too_many(folder, parts):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    assert "index names" in refused(folder)


def test_a_configuration_that_asks_for_more_than_weights_hold(folder):
    change(folder / "config.json", num_hidden_layers=1000, hidden_size=1 << 16, intermediate_size=1 << 18)
    assert "numbers, and its weights have" in refused(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../other",
        "a/b/c",
        "https://evil.example/m",
        "owner/na me",
        "owner/\x1b[31m",
        "",
        "/no/such",
        "a/..//b",
        "x" * 5000,
    ],
)
def test_names_that_no_hub_has_are_asked_of_nobody(name, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: pytest.fail("somebody was asked"))
    with pytest.raises(UserError, match="a hub id looks like") as error:
        load_llm(Llm(name=name), CPU, torch.float32)
    assert "\x1b" not in str(error.value)


# Models of a hub


@pytest.fixture
def downloaded(folder, tmp_path, monkeypatch):
    """The cache of a hub in which `owner/tiny` is, and no network."""
    kept = tmp_path / "hub" / "models--owner--tiny"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    (kept / "snapshots").mkdir()
    folder.rename(kept / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: pytest.fail("somebody was asked"))
    return kept / "snapshots" / ("0" * 40)


def test_what_was_downloaded_from_a_hub_is_loaded_and_nobody_is_asked(downloaded):
    assert load_llm(Llm(name="owner/tiny"), CPU, torch.float32).model.config.num_hidden_layers == 2
    Llm(name="owner/tiny").check_requirements()


def test_what_was_not_downloaded_is_not_fetched(downloaded):
    for act in (
        Llm(name="owner/other").check_requirements,
        partial(load_llm, Llm(name="owner/other"), CPU, torch.float32),
    ):
        with pytest.raises(UserError, match="no model of that name was downloaded") as error:
            act()
        assert "hf download owner/other" in error.value.hint


def test_what_was_downloaded_is_as_hostile_as_any_folder(downloaded):
    (downloaded / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, downloaded / "pytorch_model.bin")
    assert "can't be loaded" in refused("owner/tiny")
    (downloaded / "adapter_config.json").write_text("{}")
    assert "is an adapter" in refused("owner/tiny")
