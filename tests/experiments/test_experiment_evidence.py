"""Evidence files: what is written is read, and what is not evidence is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cowbird.errors import UserError
from cowbird.experiments.store import to_tensors
from cowbird.experiments.tasks.ranking import RankingTask
from cowbird.experiments.tasks.ranking.rows import RANKING_ARRAYS, RankingEvidence
from cowbird.storage import write_tensors
from doubles.evidence import read_record, write_record


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


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(records())
def test_what_is_saved_is_loaded(tmp_path_factory, before):
    path = tmp_path_factory.mktemp("evidence") / "deep" / "evidence.safetensors"
    write_record(path, RankingTask, before)
    after = read_record(path, RankingTask, (before.scenario, before.attack, before.defense))
    assert (before.scenario, before.attack, before.defense) == (after.scenario, after.attack, after.defense)
    for name in RANKING_ARRAYS:
        one, two = getattr(before, name), getattr(after, name)
        assert one.dtype == two.dtype
        assert one.shape == two.shape
        assert np.array_equal(one, two)
    write_record(path.with_name("again"), RankingTask, after)
    assert path.read_bytes() == path.with_name("again").read_bytes()
    assert {file.name for file in path.parent.iterdir()} == {"evidence.safetensors", "again"}


def record():
    flat, wide = np.arange(1, 4, dtype=np.int32), np.ones((3, 2), dtype=np.int32)
    return RankingEvidence("s", "a", "d", flat, flat, wide, wide, wide > 1, flat > 1)


def test_strided_arrays_are_saved_by_value(tmp_path):
    base = np.arange(1, 13, dtype=np.int32)
    wide = base.reshape(6, 2).T[:, ::2].T
    ranks = base[::4], base[::4], wide, wide
    write_record(tmp_path / "e", RankingTask, RankingEvidence("s", "a", "d", *ranks, wide > 3, base[::4] > 1))
    again = read_record(tmp_path / "e", RankingTask)
    assert again.clean_rank.tolist() == [1, 5, 9]
    assert np.array_equal(again.clean_exposure, wide)


@pytest.mark.parametrize("wrong", [{"other": torch.zeros(2)}, {"seen": torch.zeros(2)}, {"seen": torch.zeros(3, 1)}])
def test_tensors_that_are_not_ours(tmp_path, wrong):
    whole = to_tensors(RankingTask.encode_record(record())) if "seen" in wrong else {}
    write_tensors(tmp_path / "e", whole | wrong)
    with pytest.raises(UserError, match="does not hold the evidence"):
        read_record(tmp_path / "e", RankingTask)


@pytest.mark.parametrize("name", RANKING_ARRAYS)
def test_an_array_of_other_users(tmp_path, name):
    whole = to_tensors(RankingTask.encode_record(record()))
    write_tensors(tmp_path / "e", whole | {name: whole[name][:2]})
    with pytest.raises(UserError, match="do not align"):
        read_record(tmp_path / "e", RankingTask)


@pytest.mark.parametrize("missing", RANKING_ARRAYS)
def test_a_missing_array(tmp_path, missing):
    tensors = {f"{name}": torch.from_numpy(getattr(record(), name)) for name in RANKING_ARRAYS if name != missing}
    write_tensors(tmp_path / "e", tensors)
    with pytest.raises(UserError, match=missing):
        read_record(tmp_path / "e", RankingTask)


def test_every_cut_is_noticed(tmp_path):
    write_record(tmp_path / "e", RankingTask, record())
    whole = (tmp_path / "e").read_bytes()
    for length in [*range(0, 20), *range(20, len(whole), 37), len(whole) - 1]:
        (tmp_path / "e").write_bytes(whole[:length])
        with pytest.raises(UserError, match="'"):
            read_record(tmp_path / "e", RankingTask)


def test_missing_or_a_folder(tmp_path):
    for path in (tmp_path / "gone", tmp_path):
        with pytest.raises(UserError, match="not a readable"):
            read_record(path, RankingTask)
