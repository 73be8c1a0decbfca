"""Language models in GGUF files and in assets: converted once, whole or not at all."""

import importlib.metadata
import json
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cowbird import assets
from cowbird.assets import ASSETS, Asset, Pin
from cowbird.errors import UserError
from cowbird.files import get_cache_folder, hash_file
from cowbird.notices import collect_notices
from cowbird.victims.language.assets import EMBEDDED_MODELS, EmbeddedModel
from cowbird.victims.language.gguf_conversion import CONVERTED_RECORD_FILE
from cowbird.victims.language.llm import Llm, load_llm, locate_model

pytestmark = pytest.mark.slow

transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

CPU = torch.device("cpu")


def get(place):
    return load_llm(Llm(name=str(place)), CPU, torch.float32)


def logits(model):
    with torch.inference_mode():
        return model(input_ids=torch.tensor([[50, 7, 333, 7, 60]])).logits


@pytest.fixture(scope="module")
def gguf_file(llama, tmp_path_factory):
    """Return the tiny model as a GGUF file, made as llama.cpp does."""
    model = transformers.AutoModelForCausalLM.from_pretrained(llama)
    tokenizer, path = transformers.AutoTokenizer.from_pretrained(llama), tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for name in ("context_length", "embedding_length", "block_count", "feed_forward_length", "head_count"):
        given = {"context_length": 1024, "embedding_length": 32, "block_count": 2, "feed_forward_length": 64}
        getattr(writer, f"add_{name}")(given.get(name, 4))
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_tokenizer_model("gpt2")
    words = tokenizer.get_vocab()
    writer.add_token_list(sorted(words, key=words.get))
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(words) - 3))
    writer.add_token_merges([" ".join(p) for p in json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, weight in model.named_parameters():
        heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
        array = weight.detach().numpy()
        if heads:  # rotary halves lie interleaved there
            array = array.reshape(heads, 2, -1, 32).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(names.get_name(name, (".weight",)), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("COWBIRD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "llm"


def test_the_cache_is_where_it_is_wanted(monkeypatch):
    for name in ("COWBIRD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ann")
    assert get_cache_folder() == Path("/home/ann/.cache/cowbird")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert get_cache_folder() == Path("/xdg/cowbird")
    monkeypatch.setenv("COWBIRD_CACHE", "/own")
    assert get_cache_folder() == Path("/own")


def no_conversion(*args, **more):
    pytest.fail("it was converted before")


def test_a_gguf_file_is_converted_once(gguf_file, cache, llama, monkeypatch):
    one = get(gguf_file)
    (folder,) = cache.iterdir()
    assert folder.name.startswith("tiny-")
    plain = transformers.AutoModelForCausalLM.from_pretrained(llama, dtype=torch.bfloat16).float()
    torch.testing.assert_close(logits(one.model), logits(plain))
    assert one.tokenizer("Red Harbor")["input_ids"] == get(llama).tokenizer("Red Harbor")["input_ids"]
    assert one.tokenizer.eos_token_id == get(llama).tokenizer.eos_token_id
    assert not list(folder.glob("*.bin"))
    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", no_conversion)
    assert logits(get(gguf_file).model).equal(logits(one.model))
    assert list(cache.iterdir()) == [folder]


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "flipped weights": lambda folder: flip(folder / "model.safetensors"),
    "cut weights": lambda folder: os.truncate(folder / "model.safetensors", 1000),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "flipped tokenizer": lambda folder: flip(folder / "tokenizer.json"),
    "another file": lambda folder: (folder / "chat_template.jinja").write_text("{{ harm }}"),
    "no record": lambda folder: (folder / CONVERTED_RECORD_FILE).unlink(),
    "damaged record": lambda folder: (folder / CONVERTED_RECORD_FILE).write_text("[1]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_converted_model_is_made_anew(gguf_file, cache, damage):
    folder = Path(locate_model(str(gguf_file)))
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    DAMAGE[damage](folder)
    with collect_notices() as notices:
        assert locate_model(str(gguf_file)) == str(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert any("made anew" in each.text for each in notices.list())
    assert list(cache.iterdir()) == [folder]


def test_an_asset_that_is_another_file_is_refused(gguf_file, cache, monkeypatch):
    name = "smollm2-135m"
    (distribution,) = ASSETS[name].files
    held = [SimpleNamespace(locate=lambda: gguf_file)]
    monkeypatch.setattr(importlib.metadata, "files", lambda asked: held if asked == distribution else None)
    monkeypatch.setitem(ASSETS, name, replace(ASSETS[name], files={distribution: (gguf_file.name,)}))
    with pytest.raises(UserError, match="should have the SHA-256 b179c95") as error:
        locate_model(name)
    assert "cowbird assets smollm2-135m" in error.value.hint
    assert not cache.exists()


def test_another_file_of_that_name_is_another_model(gguf_file, cache, tmp_path):
    first, data = locate_model(str(gguf_file)), bytearray(gguf_file.read_bytes())
    data[-1] ^= 1
    (tmp_path / "tiny.gguf").write_bytes(data)
    assert locate_model(str(tmp_path / "tiny.gguf")) != first
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
@pytest.mark.parametrize("part", ["PreTrainedModel", "PreTrainedTokenizerBase"])
def test_an_interrupted_conversion_leaves_nothing(gguf_file, cache, part, error, monkeypatch):
    def fail(self, folder, **more):
        (Path(folder) / "config.json").write_text("{")
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(getattr(transformers, part), "save_pretrained", fail)
        with pytest.raises(UserError if isinstance(error, OSError) else KeyboardInterrupt):
            locate_model(str(gguf_file))
    assert not list(cache.iterdir())
    get(gguf_file)


def test_a_faster_process_wins(gguf_file, cache, monkeypatch):
    original = transformers.PreTrainedTokenizerBase.save_pretrained

    def save(self, folder, **more):
        original(self, folder, **more)
        monkeypatch.undo()
        monkeypatch.setenv("COWBIRD_CACHE", str(cache.parent))
        locate_model(str(gguf_file))

    monkeypatch.setattr(transformers.PreTrainedTokenizerBase, "save_pretrained", save)
    assert [locate_model(str(gguf_file))] == [str(path) for path in cache.iterdir()]


@pytest.mark.parametrize("held", [0, 4, 20, 1000, -1000])
def test_damaged_gguf_files_are_user_errors(gguf_file, cache, held, tmp_path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(gguf_file.read_bytes()[:held])
    with pytest.raises(UserError, match=r"cut\.gguf"):
        get(path)
    assert not list(cache.iterdir())
    with pytest.raises(UserError, match="no file"):
        get(tmp_path / "missing.gguf")


def test_no_code_beside_a_gguf_file_is_run(gguf_file, cache, tmp_path, monkeypatch):
    path = shutil.copy(gguf_file, tmp_path)
    (tmp_path / "own.py").write_text("raise SystemExit('own code was run')")
    brought = {"tokenizer_class": "T", "auto_map": {"AutoTokenizer": ["own.T", "own.T"]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(brought))
    asked = []
    monkeypatch.setattr("builtins.input", lambda *text: asked.append(text) or "n")
    with suppress(UserError):
        get(path)
    assert not asked, "nobody is asked whether to run it"


def test_a_cache_that_can_not_be_written_is_a_user_error(gguf_file, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("COWBIRD_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError):
        get(gguf_file)


def test_an_asset_is_found_in_its_distribution(gguf_file, cache, monkeypatch):
    name = next(iter(EMBEDDED_MODELS))
    asset = ASSETS[name]
    (distribution,) = ASSETS[name].files
    held = [SimpleNamespace(locate=lambda: gguf_file.parent / "other.txt"), SimpleNamespace(locate=lambda: gguf_file)]
    monkeypatch.setattr(importlib.metadata, "files", lambda asked: held if asked == distribution else None)
    monkeypatch.setitem(ASSETS, name, replace(ASSETS[name], files={distribution: (gguf_file.name,)}))
    monkeypatch.setitem(EMBEDDED_MODELS, name, EmbeddedModel(gguf_file.name, hash_file(gguf_file)))
    assert locate_model(name) == locate_model(str(gguf_file))
    monkeypatch.setitem(ASSETS, name, asset)
    with pytest.raises(UserError, match=f"'{name}' is not here"):
        locate_model(name)


def test_parts_of_an_asset_are_joined_and_checked(gguf_file, cache, tmp_path, monkeypatch):
    whole, parts = gguf_file.read_bytes(), {}
    for nth in range(3):
        part = tmp_path / f"{gguf_file.name}.part{nth:02d}"
        part.write_bytes(whole[nth * len(whole) // 3 : (nth + 1) * len(whole) // 3])
        parts[f"dist-{nth}"] = part
    monkeypatch.setattr(
        importlib.metadata,
        "files",
        lambda asked: [SimpleNamespace(locate=lambda: parts[asked])] if asked in parts else [],
    )
    pins = {dist: Pin(dist, "1", "0" * 64) for dist in parts}
    monkeypatch.setattr(assets, "read_pins", lambda requirements: pins)
    asset = Asset("In parts", {dist: (part.name,) for dist, part in parts.items()}, 9, default=False)
    monkeypatch.setitem(ASSETS, "parted", asset)
    monkeypatch.setitem(EMBEDDED_MODELS, "parted", EmbeddedModel(gguf_file.name, hash_file(gguf_file)))
    assert locate_model("parted") == locate_model(str(gguf_file))
    joined = cache.parent / "gguf" / gguf_file.name
    assert joined.read_bytes() == whole
    joined.write_bytes(b"damaged")
    locate_model("parted")
    assert joined.read_bytes() == whole, "a damaged file is made anew"
    joined.unlink()
    parts["dist-1"].write_bytes(b"other")
    with pytest.raises(UserError, match="do not make the known file") as error:
        locate_model("parted")
    assert "cowbird assets parted" in error.value.hint
    assert not joined.exists()
    del parts["dist-2"]
    with pytest.raises(UserError, match="'parted' is not here"):
        locate_model("parted")


@pytest.mark.parametrize("found", [None, [], importlib.metadata.PackageNotFoundError("x")])
def test_a_missing_asset_is_a_user_error(found, cache, monkeypatch):
    def files(distribution):
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(importlib.metadata, "files", files)
    with pytest.raises(UserError, match="is not here") as error:
        get("smollm2-135m")
    assert "cowbird assets" in error.value.hint


@pytest.mark.slow
@pytest.mark.long
def test_the_embedded_model_knows_a_capital(cache, monkeypatch):
    try:
        importlib.metadata.files(*ASSETS["smollm2-135m"].files)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the asset is not installed")
    loaded = get("smollm2-135m")
    (folder,) = cache.iterdir()
    read = loaded.tokenizer("The capital of France is", return_tensors="pt")
    written = loaded.model.generate(**read, max_new_tokens=3, do_sample=False)[0, read["input_ids"].shape[1] :]
    assert loaded.tokenizer.decode(written).strip().startswith("Paris")
    assert loaded.tokenizer.decode([loaded.tokenizer.eos_token_id]) == "<|im_end|>"
    assert loaded.tokenizer.eos_token_id not in loaded.tokenizer("<|im_end|>")["input_ids"]
    assert len(loaded.model.base_model.layers) == 30
    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", no_conversion)
    assert len(get("smollm2-135m").model.base_model.layers) == 30
    assert list(cache.iterdir()) == [folder]
