"""An adapter that somebody hands over is put in as it is, or refused in words; it is never replaced by a fresh one."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from cowbird.errors import UserError
from cowbird.rng import torch_stream
from cowbird.victims.language.llm import Llm, add_adapters, load_llm
from doubles.tiny_llama import write_tiny_llama

CPU = torch.device("cpu")
TOKENS = torch.tensor([[5, 9, 30, 7]])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def handed(base, tmp_path_factory):
    """Return a folder that peft itself wrote, and the logits that peft gives."""
    import peft
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = peft.LoraConfig(r=3, lora_alpha=7, target_modules=["q_proj", "down_proj"], use_rslora=True)
    wrapped = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))))
    wrapped.save_pretrained(folder)
    with torch.no_grad():
        return folder, wrapped.eval()(TOKENS).logits


@pytest.fixture
def copied(handed, tmp_path):
    """Return a copy of the adapter that may be spoilt."""
    for path in handed[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def compute_logits(spec, seed=0):
    loaded = load_llm(spec, CPU, torch.float32)
    with torch.no_grad():
        plain = loaded.model(TOKENS).logits
        return plain, add_adapters(loaded.model, spec, torch_stream(seed, "adapters"))(TOKENS).logits


def test_its_logits_are_those_of_peft(base, handed):
    folder, expected = handed
    plain, found = compute_logits(Llm(name=str(base), adapter=str(folder)))
    assert torch.allclose(found, expected, atol=1e-5)
    assert (found - plain).abs().max() > 0.1, "else any adapter would do"
    assert torch.equal(found, compute_logits(Llm(name=str(base), adapter=str(folder)), seed=9)[1]), "nothing is drawn"
    plain, fresh = compute_logits(Llm(name=str(base)))
    assert torch.allclose(plain, fresh, atol=1e-6), "a fresh adapter changes nothing"


def test_as_a_name_it_is_refused(handed):
    with pytest.raises(UserError, match="is an adapter") as error:
        load_llm(Llm(name=str(handed[0])), CPU, torch.float32)
    assert "llm.adapter" in error.value.hint


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"peft_type": "IA3"}, "its type is IA3"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 5}}, "rank_pattern"),
        ({"layers_to_transform": [0]}, "layers_to_transform"),
        ({"bias": "all"}, "bias"),
        ({"r": 10**9}, "rank"),
        ({"r": -1}, "rank"),
        ({"r": True}, "rank"),
        ({"r": "3"}, "rank"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"lora_alpha": 0}, "lora_alpha"),
        ({"target_modules": "(q_proj)+"}, "target_modules"),
        ({"target_modules": []}, "target_modules"),
        ({"target_modules": [1]}, "target_modules"),
        ({"nobody_knows": 1}, "nobody_knows"),
        ({"r": 4}, "does not fit"),
        ({"target_modules": ["q_proj"]}, "does not fit"),
        ({"target_modules": ["nope"]}, "can't be placed"),
    ],
    ids=str,
)
def test_settings_that_are_not_taken(base, copied, fields, told):
    path = copied / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(UserError, match=told):
        compute_logits(Llm(name=str(base), adapter=str(copied)))


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, "\x00"])
def test_configurations_that_are_none(base, copied, content):
    (copied / "adapter_config.json").write_text(content)
    with pytest.raises(UserError, match="can't be read as an adapter"):
        compute_logits(Llm(name=str(base), adapter=str(copied)))


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.slow
def test_weights_that_are_none(base, copied, tmp_path):
    import safetensors.torch

    weights = copied / "adapter_model.safetensors"
    held = safetensors.torch.load_file(weights)
    name = next(iter(held))
    spoilt = [
        {**held, name: held[name] * float("nan")},
        {**held, name: held[name][:, :1].contiguous()},
        {**held, "more": torch.ones(1)},
        {key: value for key, value in held.items() if key != name},
    ]
    for tensors in spoilt:
        safetensors.torch.save_file(tensors, weights)
        with pytest.raises(UserError, match=r"does not fit|not finite"):
            compute_logits(Llm(name=str(base), adapter=str(copied)))
    weights.write_bytes((1 << 30).to_bytes(8, "little") + b"{}")  # a header of a gigabyte
    with pytest.raises(UserError, match="not a readable safetensors"):
        compute_logits(Llm(name=str(base), adapter=str(copied)))
    weights.unlink()
    (copied / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "harm")))
    with pytest.raises(UserError, match="has no file"):
        compute_logits(Llm(name=str(base), adapter=str(copied)))
    assert not (tmp_path / "harm").exists()
    with pytest.raises(UserError, match="can't be read as an adapter"):
        compute_logits(Llm(name=str(base), adapter=str(tmp_path / "nope")))


def test_it_is_not_put_in_where_all_weights_learn(base, handed):
    with pytest.raises(UserError, match="'full'"):
        compute_logits(Llm(name=str(base), adapter=str(handed[0]), tuning="full"))


def test_a_revision_goes_to_the_hub_with_the_id(monkeypatch, base):
    import huggingface_hub

    asked = []

    def find(name, **fields):
        asked.append((name, fields))
        return str(base)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", find)
    load_llm(Llm(name="owner/model", revision="abc123"), CPU, torch.float32)
    assert asked == [("owner/model", {"revision": "abc123", "local_files_only": True})]
    for revision in ("../x", "a b", "-x", "\x1b"):
        with pytest.raises(UserError, match="revision"):
            load_llm(Llm(name="owner/model", revision=revision), CPU, torch.float32)
    assert len(asked) == 1


def test_a_folder_has_no_revision(base):
    with pytest.raises(UserError, match="is no hub id"):
        load_llm(Llm(name=str(base), revision="main"), CPU, torch.float32)
