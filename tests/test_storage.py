"""Stored files: whole or not there, and damage is told."""

import hashlib
import json
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from cowbird import storage
from cowbird.errors import UserError
from cowbird.storage import read_arrays, read_sealed_json, read_tensors, write_sealed_json, write_tensors

CONTENT = {"threshold": 0.1 + 0.2, "names": ["ü", "\ud800", ""], "nested": {"b": None, "a": [True, 2**60, -0.0]}}


def test_a_full_disk_is_a_user_error(tmp_path, monkeypatch):
    """Safetensors reports it as an error of its own, not as an OSError."""

    def fail(*args, **kwargs):
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(UserError, match="No space left"):
        write_tensors(tmp_path / "x.safetensors", {"a": torch.ones(2)})
    assert not list(tmp_path.iterdir())


def test_tensors_that_are_views_are_written_whole(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    digest = write_tensors(tmp_path / "x.safetensors", {"t": base.T, "row": base[1], "again": base}, {"note": "ü"})
    found, header = read_tensors(tmp_path / "x.safetensors")
    assert found["t"].equal(base.T)
    assert found["row"].equal(base[1])
    assert header["note"] == "ü"
    assert digest == hashlib.sha256((tmp_path / "x.safetensors").read_bytes()).hexdigest()


def test_the_same_tensors_and_header_make_the_same_bytes(tmp_path):
    header = {f"key {nth}": f'"\\ü\t\x01\x7f\u2028{nth}' for nth in range(8)}
    held = {"b": torch.arange(3), "a": torch.ones(2, 2, dtype=torch.bfloat16), "c": torch.zeros(0)}
    orders = (header, dict(reversed(header.items())), header)
    digests = {write_tensors(tmp_path / f"{nth}.safetensors", held, each) for nth, each in enumerate(orders)}
    assert len(digests) == 1
    found, told = read_tensors(tmp_path / "0.safetensors")
    assert told == header
    assert all(found[name].equal(held[name]) for name in held)
    raw = (tmp_path / "0.safetensors").read_bytes()
    assert raw.index(b"key 0") < raw.index(b"key 3") < raw.index(b"key 7")


def test_arrays_are_the_tensors_of_a_file(tmp_path):
    held = {"a": torch.arange(6).view(2, 3), "b": torch.tensor([True, False]), "c": torch.rand(0, 4)}
    write_tensors(tmp_path / "x.safetensors", held)
    found = read_arrays(tmp_path / "x.safetensors")
    assert {name: array.dtype for name, array in found.items()} == {n: held[n].numpy().dtype for n in held}
    assert all((array == held[name].numpy()).all() for name, array in found.items())
    write_tensors(tmp_path / "y.safetensors", {"a": torch.ones(2, dtype=torch.bfloat16)})
    with pytest.raises(TypeError):
        read_arrays(tmp_path / "y.safetensors")
    (tmp_path / "y.safetensors").write_bytes(b"garbage")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        read_arrays(tmp_path / "y.safetensors")


@pytest.mark.parametrize("spoil", [b"", b"garbage", b"\x80\x04K\x01."], ids=["empty", "garbage", "pickle"])
def test_what_is_no_safetensors_file_is_told(tmp_path, spoil):
    (tmp_path / "x").write_bytes(spoil)
    with pytest.raises(UserError, match="not a readable safetensors file"):
        read_tensors(tmp_path / "x")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        read_tensors(tmp_path / "none")


def write_header(path, header, body):
    """Write a safetensors file with a header as it is given."""
    path.write_bytes(len(header).to_bytes(8, "little") + header + body)


@pytest.mark.parametrize("read", [read_tensors, read_arrays])
def test_a_tensor_that_is_named_twice_is_refused(tmp_path, read):
    path, one = tmp_path / "x.safetensors", b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    write_header(path, b"{" + one + b"}", bytes(4))
    assert list(read(path) if read is read_arrays else read(path)[0]) == ["a"]
    for second in (one, one.replace(b'"a"', b'"\\u0061"')):
        write_header(path, b"{" + one + b"," + second + b"}", bytes(4))
        with pytest.raises(UserError, match="names 'a' twice in its header"):
            read(path)


def test_only_what_lacks_its_end_is_asked_about_it(tmp_path):
    path, body = tmp_path / "x.safetensors", bytes(4)
    write_tensors(path, {"a": torch.ones(9)})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="Was it cut short"):
        read_tensors(path)
    for old, new in ((b"F32", b"F999"), (b"[1]", b"[-1]")):
        write_header(path, b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.replace(old, new), body)
        with pytest.raises(UserError, match="undamaged file"):
            read_tensors(path)
    write_header(path, b"{}", body)
    with path.open("r+b") as file:
        file.write((1 << 30).to_bytes(8, "little"))
    with pytest.raises(UserError, match="header too large"):
        read_tensors(path)


def test_a_header_is_bounded(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(9)})
    monkeypatch.setattr(storage, "MAX_RECORD_BYTES", 20)
    with pytest.raises(UserError, match="and 20 are read at most"):
        read_tensors(path)


def test_an_interrupt_that_torch_hides_is_an_interrupt(tmp_path, monkeypatch):
    write_tensors(tmp_path / "kept.safetensors", {"a": torch.ones(3)})

    take = torch.UntypedStorage.__getitem__

    def interrupt(storage, place):
        if isinstance(place, int):  # as torch asks to learn the shape
            raise KeyboardInterrupt
        return take(storage, place)

    monkeypatch.setattr(torch.UntypedStorage, "__getitem__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_tensors(tmp_path / "kept.safetensors")


@pytest.mark.parametrize("content", [CONTENT, [], {}, None, 0, "text", [{"a": []}]])
def test_a_record_comes_back_as_it_was(tmp_path, content):
    seal = write_sealed_json(tmp_path / "x.json", content)
    assert read_sealed_json(tmp_path / "x.json") == content
    assert len(seal) == 64
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_record_may_be_formatted_anew_and_not_changed(tmp_path):
    path = tmp_path / "x.json"
    write_sealed_json(path, CONTENT)
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record, sort_keys=True))
    assert read_sealed_json(path) == CONTENT
    record["content"]["threshold"] = 1e9
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="damaged") as error:
        read_sealed_json(path, "Fit it again.")
    assert error.value.hint == "Fit it again."


def test_no_changed_byte_goes_unnoticed(tmp_path):
    path = tmp_path / "x.json"
    write_sealed_json(path, CONTENT)
    whole = path.read_bytes()
    for place in range(len(whole)):
        raw = bytearray(whole)
        raw[place] ^= 1
        path.write_bytes(raw)
        try:
            found = read_sealed_json(path)
        except UserError:
            continue
        assert json.dumps(found) == json.dumps(CONTENT), f"byte {place}"


DAMAGES = {
    "empty": b"",
    "cut": b'{"sha256": "0", "content": {"a"',
    "no object": b"[1]",
    "no seal": b'{"content": 1}',
    "no content": b'{"sha256": "0"}',
    "another's seal": b'{"sha256": "0", "content": 1}',
    "seal is a list": b'{"sha256": [], "content": 1}',
    "not UTF-8": b"\xff\xfe\x00{",
    "nested too deep": b"[" * 100_000,
    "a number of too many digits": b'{"sha256": "0", "content": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_told(tmp_path, damage):
    path = tmp_path / "x.json"
    path.write_bytes(DAMAGES[damage])
    with pytest.raises(UserError, match="damaged"):
        read_sealed_json(path)


def test_a_record_that_is_missing_or_a_folder_is_told(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UserError, match="can't be read"):
            read_sealed_json(path)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused_both_ways(tmp_path, number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_sealed_json(tmp_path / "x.json", {"threshold": number})
    assert not list(tmp_path.iterdir())
    text = json.dumps({"threshold": number})
    seal = hashlib.sha256(json.dumps({"threshold": number}, separators=(",", ":")).encode()).hexdigest()
    (tmp_path / "x.json").write_text(f'{{"sha256": "{seal}", "content": {text}}}')
    with pytest.raises(UserError, match="damaged"):
        read_sealed_json(tmp_path / "x.json")
    seal = hashlib.sha256(b'{"threshold":Infinity}').hexdigest()
    (tmp_path / "x.json").write_text(f'{{"sha256": "{seal}", "content": {{"threshold": 1e999}}}}')
    with pytest.raises(UserError, match="not finite"):
        read_sealed_json(tmp_path / "x.json")


def test_a_record_is_read_without_torch():
    code = "import sys, cowbird.storage; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
