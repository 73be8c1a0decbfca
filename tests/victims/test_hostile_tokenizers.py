"""Tokenizers that somebody hostile made: none reads a title before it was tried, within limits of time and memory."""

import json
import shutil

import pytest
import torch

from cowbird.errors import UserError
from cowbird.victims.language import tokenizer_check
from cowbird.victims.language.llm import Llm, load_llm
from cowbird.victims.language.tokenizer_check import check_tokenizer, is_explosive

pytest.importorskip("transformers")

KNOWN = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{M}]*[\p{Ll}\p{M}]+(?i:'s|'t)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+""",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s",
    r"[0-9][0-9][0-9]",
    r" {2,}",
    r"(?:(?>a+)b){3}",
]
EXPLOSIVE = [
    r"(a+)+$",
    r"(a|a)*$",
    r"(?:(?:a*)b?)*c",
    r"([a-z]+[0-9]?)+!",
    r"(a)\1*",
    r"((a{1,})){2,}b",
    r"(?>a+)+x|(b*)*",
    r"(.*)*",
    r"(a?a?)*b",
    r"((ab)*)*",
    r"([)]+[(]*)*",
    r"(?<x>a)\k<x>+",
]


@pytest.mark.parametrize("pattern", KNOWN)
def test_patterns_of_published_models_are_fine(pattern):
    assert not is_explosive(pattern)


@pytest.mark.parametrize("pattern", EXPLOSIVE)
def test_patterns_that_explode_are_seen(pattern):
    assert is_explosive(pattern)


@pytest.fixture
def folder(llama, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer_check, "_checked", {})
    return shutil.copytree(llama, tmp_path / "model")


def change(folder, **fields):
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return path


def split(pattern):
    part = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [part]}


def test_an_explosive_pattern_is_refused_and_nothing_is_loaded(folder, monkeypatch):
    change(folder, pre_tokenizer=split(r"(a+)+$"))
    monkeypatch.setattr(tokenizer_check.subprocess, "run", lambda *words, **more: pytest.fail("it is tried"))
    with pytest.raises(UserError, match="a pattern that may take years") as error:
        load_llm(Llm(name=str(folder)), torch.device("cpu"), torch.float32)
    assert error.value.hint


@pytest.mark.slow
def test_a_tokenizer_that_is_slow_is_ended(folder, monkeypatch):
    """The fourth power of 2,000: no form that is refused, and hours."""
    monkeypatch.setattr(
        tokenizer_check, "_LIMITS", "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))\n"
    )
    path = change(folder, pre_tokenizer=split(r"q*q*q*q*\d"))
    assert "takes more than" in check_tokenizer(path)


def double(times):
    return [{"type": "Replace", "pattern": {"String": "w"}, "content": "ww"} for _ in range(times)]


def long_template(times):
    special = {"<|im_end|>": {"id": "<|im_end|>", "ids": [2], "tokens": ["<|im_end|>"]}}
    single = [{"Sequence": {"id": "A", "type_id": 0}}, *[{"SpecialToken": {"id": "<|im_end|>", "type_id": 0}}] * times]
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"normalizer": {"type": "Sequence", "normalizers": double(7)}}, "up to 128 times as long"),
        ({"post_processor": long_template(3000)}, "becomes"),
        ({"normalizer": {"type": "Sequence", "normalizers": double(99)}}, "has 99 patterns"),
        ({"pre_tokenizer": split("a" * 5000)}, "a pattern of 5,000 characters"),
        ({"model": {"type": "BPE", "vocab": 3}}, "can't be used"),
        ({"pre_tokenizer": "unheard of"}, "can't be used"),
    ],
    ids=["doubled", "template", "many", "long", "broken", "unknown"],
)
def test_tokenizers_that_are_refused(folder, fields, said):
    assert said in check_tokenizer(change(folder, **fields))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "null"])
def test_what_is_no_tokenizer(folder, text):
    (folder / "tokenizer.json").write_text(text)
    assert check_tokenizer(folder / "tokenizer.json") == "its tokenizer.json is not that of a tokenizer"


def test_one_that_is_fine_is_tried_once(folder, monkeypatch):
    asked, run = [], tokenizer_check.subprocess.run
    monkeypatch.setattr(
        tokenizer_check.subprocess, "run", lambda *words, **more: asked.append(words) or run(*words, **more)
    )
    for _ in range(2):
        assert load_llm(Llm(name=str(folder)), torch.device("cpu"), torch.float32).tokenizer.is_fast
    assert len(asked) == 1
