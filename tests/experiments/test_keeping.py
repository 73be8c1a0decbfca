"""Columns that are kept: what is written is read, and nothing else is."""

import dataclasses

import numpy as np
import pytest

from cowbird.data.types import Interactions, Items
from cowbird.experiments.keeping import ColumnStore, hash_parts
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
    assert warning.endswith("is damaged or of another cat. Purring again.")


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
    mine.write("a", "cat", COLUMNS)
    tensors, header = read_tensors(tmp_path / "a.safetensors")
    for wrong in (tensors | {"more": tensors["b"]}, tensors | {"b": tensors["b"].bfloat16()}):
        write_tensors(tmp_path / "a.safetensors", wrong, header)
        assert mine.read("a", "cat") is None
    assert len(told) == 2


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
