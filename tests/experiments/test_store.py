"""Columns that are kept: what is written is read, and nothing else is."""

import dataclasses

import numpy as np
import pytest
import torch

from cowbird.data.types import Interactions, Items
from cowbird.experiments.store import ColumnStore, SealedStore, hash_parts
from cowbird.storage import read_tensors, write_tensors

COLUMNS = {"score": np.float32([1, np.nan, -np.inf]), "b": np.int32([[1, 2]]), "c": np.array([True]), "d": np.zeros(0)}


def keeper(folder, told):
    return ColumnStore(folder, told.append, "of another cat", "Purring again.")


def test_what_is_written_is_read(tmp_path):
    told = []
    mine = keeper(tmp_path / "deep", told)
    assert mine.read("a/b", "cat") is None
    mine.write("a/b", "cat", COLUMNS)
    found = mine.read("a/b", "cat")
    assert found.keys() == COLUMNS.keys()
    for name, column in COLUMNS.items():
        assert found[name].dtype == column.dtype
        np.testing.assert_array_equal(found[name], column)
    before = (tmp_path / "deep/a/b.safetensors").read_bytes()
    mine.write("a/b", "cat", found)
    assert (tmp_path / "deep/a/b.safetensors").read_bytes() == before
    assert not told


def test_what_was_made_of_something_else_is_told(tmp_path):
    told = []
    mine = keeper(tmp_path, told)
    mine.write("a", "cat", COLUMNS)
    assert mine.read("a", "dog") is None
    (warning,) = told
    assert warning.endswith("is of another cat. Purring again.")


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + b"x", lambda data: b""])
def test_damage_is_told(tmp_path, damage):
    told = []
    mine = keeper(tmp_path, told)
    mine.write("a", "cat", COLUMNS)
    path = tmp_path / "a.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    assert mine.read("a", "cat") is None
    assert "Purring again." in told[0]


def test_other_tensors_are_told(tmp_path):
    told = []
    mine = keeper(tmp_path, told)
    for more in ({"more": torch.ones(1)}, {"b": torch.ones(1).bfloat16()}):
        mine.write("a", "cat", COLUMNS)
        tensors, header = read_tensors(tmp_path / "a.safetensors")
        write_tensors(tmp_path / "a.safetensors", tensors | more, header)
        assert mine.read("a", "cat") is None
    assert len(told) == 2


def test_what_can_t_be_read_is_told(tmp_path):
    """Its seal is right, but what it holds is no columns."""
    told = []
    mine = keeper(tmp_path, told)
    mine.keep("a.safetensors", "cat", lambda path: write_tensors(path, {"b": torch.ones(1).bfloat16()}))
    assert mine.read("a", "cat") is None
    assert told[0].endswith("Purring again.")


def test_without_a_seal_there_is_nothing(tmp_path):
    """An interrupt fell between the file and its seal."""
    told = []
    mine = keeper(tmp_path, told)
    mine.write("a", "cat", COLUMNS)
    (tmp_path / "a.sha256").unlink()
    assert mine.read("a", "cat") is None
    assert not told
    (tmp_path / "a.sha256").write_text("{")
    assert keeper(tmp_path, told).read("a", "cat") is None
    assert "a.sha256' is damaged" in told[0]


def test_a_folder_is_kept_and_found(tmp_path):
    store, made = SealedStore(tmp_path, pytest.fail), []

    def write(path, text):
        path.mkdir(exist_ok=True)
        (path / "part.1").write_text(text)

    def make():
        made.append(1)
        return "text"

    for _ in range(2):
        found = store.make("v1.2/model", "", lambda path: (path / "part.1").read_text(), make, write)
        assert found == "text"
    assert made == [1]
    assert (tmp_path / "v1.2/model.sha256").exists()
    assert SealedStore(tmp_path, pytest.fail).find_digest("v1.2/model", "") == store.find_digest("v1.2/model", "")


def test_labels_with_dots_do_not_share_a_seal(tmp_path):
    mine = keeper(tmp_path, [])
    for number, name in enumerate(("v1.1", "v1.2", "v1")):
        mine.write(name, "cat", {"n": np.array([number])})
    assert [mine.read(name, "cat")["n"].tolist() for name in ("v1.1", "v1.2", "v1")] == [[0], [1], [2]]


def test_digests_tell_values_apart():
    items = Items.from_lists("ab", ["x", "\ud800"], [["c"], []])
    history = Interactions.from_lists([[0, 1], [1]])
    values = [
        *("", "a", 1, "1", 1.0, None, True, [], {}, [[]], ["a", ["b"]], [["a"], "b"], ["a", "b"], {"a": "b"}),
        *(np.int32([1]), np.int64([1]), np.int32([[1]]), np.zeros(0), np.zeros(0, np.int32)),
        *(items, dataclasses.replace(items, titles=("x", "y")), dataclasses.replace(items, categories=("d",))),
        *(history, Interactions.from_lists([[0], [1, 1]]), Interactions.from_lists([[0, 1], [0]])),
    ]
    told = [hash_parts(value) for value in values] + [hash_parts("a", "b", "c"), hash_parts(["a", "b"], "c")]
    # A mapping is told as the list of its names and values.
    assert len(set(told)) == len(told) - 2
    assert hash_parts({}) == hash_parts([])
    assert hash_parts({"a": "b"}) == hash_parts(["a", "b"])
    assert hash_parts({"a": 1, "b": 2}) == hash_parts({"b": 2, "a": 1})
    assert hash_parts(np.arange(6).reshape(2, 3).T) == hash_parts(np.ascontiguousarray(np.arange(6).reshape(2, 3).T))


def test_what_has_no_digest_is_refused():
    with pytest.raises(TypeError, match="a set has no digest"):
        hash_parts([{1}])
