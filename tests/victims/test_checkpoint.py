"""Checkpoint files: whole or passed over, two of them, never unpickled."""

import hashlib
import json
import os
import pickle

import pytest
import safetensors.torch
import torch

from cowbird.errors import UserError
from cowbird.files import PARTIAL_SUFFIX
from cowbird.storage import read_tensors, write_tensors
from cowbird.victims import checkpoint
from cowbird.victims.checkpoint import load_latest, save


def tensors(step):
    return {"weight.a": torch.arange(6.0).view(2, 3) * step, "adam.step.a": torch.tensor(float(step))}


def state(step):
    return {"key": "k", "history": [[1, 0.25], [2, 0.1 * step]]}


@pytest.fixture
def two(tmp_path):
    """Return a folder with checkpoints of steps 5 and 9."""
    for step in (5, 9):
        save(tmp_path, step, state(step), tensors(step))
    return tmp_path


def check(found, step):
    assert found.step == step
    assert found.state == state(step)
    assert found.tensors.keys() == tensors(step).keys()
    assert all(found.tensors[name].equal(tensor) for name, tensor in tensors(step).items())


def newest(folder, suffix):
    return folder / f"step-000000009.{suffix}"


def refuse(text):
    pytest.fail(f"warned: {text}")


def test_round_trip(two):
    check(load_latest(two, refuse), 9)


def test_no_folder_and_empty_folder(tmp_path):
    assert load_latest(tmp_path / "none", refuse) is None
    assert load_latest(tmp_path, refuse) is None
    assert not (tmp_path / "none").exists()


def test_two_are_kept(two):
    for step in (12, 100, 1001):
        save(two, step, state(step), tensors(step))
    assert sorted(path.name for path in two.iterdir()) == [
        f"step-{step:09d}.{suffix}" for step in (100, 1001) for suffix in ("json", "safetensors")
    ]
    check(load_latest(two, refuse), 1001)


def test_later_steps_of_an_earlier_fit_do_not_push_out_new_ones(two):
    """A fit that starts over counts from one again; what it saves must outlive leftovers of step 9."""
    save(two, 2, state(2), tensors(2))
    check(load_latest(two, refuse), 2)
    save(two, 3, state(3), tensors(3))
    check(load_latest(two, refuse), 3)
    assert len(list(two.iterdir())) == 4


def damages():
    def cut(path, keep):
        path.write_bytes(path.read_bytes()[:keep])

    def flip(path, place):
        raw = bytearray(path.read_bytes())
        raw[place] ^= 1
        path.write_bytes(raw)

    for suffix in ("json", "safetensors"):
        yield f"{suffix} cut to nothing", suffix, lambda path: cut(path, 0)
        yield f"{suffix} cut short", suffix, lambda path: cut(path, -7)
        yield f"{suffix} cut in half", suffix, lambda path: cut(path, path.stat().st_size // 2)
        yield f"{suffix} flipped", suffix, lambda path: flip(path, 60)
        yield f"{suffix} grown", suffix, lambda path: path.write_bytes(path.read_bytes() + b"x")
    yield "safetensors flipped at the end", "safetensors", lambda path: flip(path, -1)
    yield "safetensors missing", "safetensors", lambda path: path.unlink()
    yield "safetensors of another step", "safetensors", lambda path: safetensors.torch.save_file(tensors(5), path)
    for text in ("garbage", "[]", "3", "null", "{}", '{"step": null, "sha256": 1, "state": 2}', "\x00", "[" * 60):
        yield f"json {text[:20]!r}", "json", lambda path, text=text: path.write_text(text)
    yield "json not UTF-8", "json", lambda path: path.write_bytes(b"\xff\xfe\x00{")
    yield "json a folder", "json", lambda path: (path.unlink(), path.mkdir())


DAMAGES = {name: (suffix, spoil) for name, suffix, spoil in damages()}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_is_told_and_the_one_before_used(two, damage):
    suffix, spoil = DAMAGES[damage]
    spoil(newest(two, suffix))
    told = []
    check(load_latest(two, told.append), 5)
    assert len(told) == 1
    assert "step-000000009" in told[0]


def test_all_damaged_is_starting_over(two):
    for path in two.glob("*.safetensors"):
        path.write_bytes(b"")
    told = []
    assert load_latest(two, told.append) is None
    assert len(told) == 2


@pytest.mark.slow
def test_no_flipped_bit_goes_unnoticed(two):
    """Whatever byte of either file changes, the answer is the checkpoint as written or the one before it."""
    for suffix in ("json", "safetensors"):
        path = newest(two, suffix)
        whole = path.read_bytes()
        for place in range(len(whole)):
            raw = bytearray(whole)
            raw[place] ^= 1
            path.write_bytes(raw)
            found = load_latest(two, lambda text: None)
            check(found, found.step)
        path.write_bytes(whole)
    check(load_latest(two, refuse), 9)


@pytest.mark.parametrize("error", [RuntimeError, OSError(28, "No space left on device"), KeyboardInterrupt])
@pytest.mark.parametrize("which", ["tensors", "json"])
def test_an_exception_while_writing_leaves_the_others_whole(two, monkeypatch, error, which):
    def fail(*args, **kwargs):
        if which == "tensors":
            args[1].write_bytes(b"half")
        raise error

    if which == "tensors":
        monkeypatch.setattr(safetensors.torch, "save_file", fail)
    else:
        monkeypatch.setattr(checkpoint, "write_text", fail)
    with pytest.raises((UserError, RuntimeError, OSError, KeyboardInterrupt)):
        save(two, 11, state(11), tensors(11))
    monkeypatch.undo()
    assert not list(two.glob(".*"))
    check(load_latest(two, refuse), 9)
    save(two, 12, state(12), tensors(12))
    check(load_latest(two, refuse), 12)


def test_leftovers_of_a_kill_are_removed(two):
    left = two / f".step-000000010.safetensors.abc{PARTIAL_SUFFIX}"
    left.mkdir()
    (left / "step-000000010.safetensors").write_bytes(b"half")
    check(load_latest(two, refuse), 9)
    assert not list(two.glob(".*"))


def test_tensors_without_their_json_are_not_a_checkpoint(two):
    write_tensors(two / "step-000000020.safetensors", tensors(20))
    check(load_latest(two, refuse), 9)


def test_clear(two):
    (two / "model.safetensors").write_bytes(b"kept")
    checkpoint.clear(two)
    assert [path.name for path in two.iterdir()] == ["model.safetensors"]


class Bomb:
    def __reduce__(self):
        return (os.abort, ())


def test_nothing_is_unpickled(two, monkeypatch):
    """A pickle in place of the tensors, with a record that vouches for it, is passed over and not run."""
    import builtins

    bomb = newest(two, "safetensors")
    bomb.write_bytes(pickle.dumps(Bomb()))
    record = json.loads(newest(two, "json").read_text())
    record["sha256"] = hashlib.sha256(bomb.read_bytes()).hexdigest()
    newest(two, "json").write_text(json.dumps(record))
    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (builtins, "eval"), (builtins, "exec")):
        monkeypatch.setattr(module, name, lambda *args, **kwargs: pytest.fail("something was unpickled or run"))
    check(load_latest(two, lambda text: None), 5)
    with pytest.raises(UserError):
        read_tensors(bomb)
