"""Evidence files: what is written is read, and what is not evidence is refused."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cowbird.errors import UserError
from cowbird.experiments.evidence import RANKING_ARRAYS, RankingEvidence, load, save
from cowbird.storage import write_tensors


@st.composite
def records(draw):
    users, targets = draw(st.integers(0, 4)), draw(st.integers(0, 3))
    ranks = st.integers(1, 2**31 - 1)
    return RankingEvidence(
        *(draw(st.text(st.characters(codec="utf-8"), max_size=6)) for _ in range(3)),
        *(draw(arrays(np.int32, users, elements=ranks)) for _ in range(2)),
        *(draw(arrays(np.int32, (users, targets), elements=ranks)) for _ in range(2)),
        draw(arrays(np.bool_, (users, targets))),
        draw(arrays(np.bool_, users)),
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(records(), max_size=12))
def test_what_is_saved_is_loaded(tmp_path_factory, found):
    path = tmp_path_factory.mktemp("evidence") / "deep" / "evidence.safetensors"
    save(path, found)
    again = load(path)
    assert len(again) == len(found), "also beyond ten, where names no longer sort as numbers"
    for before, after in zip(found, again, strict=True):
        assert (before.scenario, before.attack, before.defense) == (after.scenario, after.attack, after.defense)
        for name in RANKING_ARRAYS:
            one, two = getattr(before, name), getattr(after, name)
            assert one.dtype == two.dtype
            assert one.shape == two.shape
            assert np.array_equal(one, two)
    save(path.with_name("again"), again)
    assert path.read_bytes() == path.with_name("again").read_bytes()
    assert {file.name for file in path.parent.iterdir()} == {"evidence.safetensors", "again"}


def record():
    flat, wide = np.arange(1, 4, dtype=np.int32), np.ones((3, 2), dtype=np.int32)
    return RankingEvidence("s", "a", "d", flat, flat, wide, wide, wide > 1, flat > 1)


def test_strided_arrays_are_saved_by_value(tmp_path):
    base = np.arange(1, 13, dtype=np.int32)
    wide = base.reshape(6, 2).T[:, ::2].T
    save(tmp_path / "e", [RankingEvidence("s", "a", "d", base[::4], base[::4], wide, wide, wide > 3, base[::4] > 1)])
    (again,) = load(tmp_path / "e")
    assert again.clean_rank.tolist() == [1, 5, 9]
    assert np.array_equal(again.clean_exposure, wide)


@pytest.mark.parametrize("header", [None, "", "{", "3", "null", "[3]", '[["s", "a"]]', '[["s", "a", "d", "x"]]'])
def test_a_header_that_is_not_ours(tmp_path, header):
    write_tensors(tmp_path / "e", {"0.seen": torch.zeros(2)}, None if header is None else {"cowbird": header})
    with pytest.raises(UserError, match="does not hold the evidence"):
        load(tmp_path / "e")


@pytest.mark.parametrize("missing", RANKING_ARRAYS)
def test_a_missing_array(tmp_path, missing):
    tensors = {f"0.{name}": torch.from_numpy(getattr(record(), name)) for name in RANKING_ARRAYS if name != missing}
    write_tensors(tmp_path / "e", tensors, {"cowbird": json.dumps([["s", "a", "d"]])})
    with pytest.raises(UserError, match=missing):
        load(tmp_path / "e")


def test_every_cut_is_noticed(tmp_path):
    save(tmp_path / "e", [record()])
    whole = (tmp_path / "e").read_bytes()
    for length in [*range(0, 20), *range(20, len(whole), 37), len(whole) - 1]:
        (tmp_path / "e").write_bytes(whole[:length])
        with pytest.raises(UserError, match="'"):
            load(tmp_path / "e")


def test_missing_or_a_folder(tmp_path):
    for path in (tmp_path / "gone", tmp_path):
        with pytest.raises(UserError, match="not a readable"):
            load(path)
