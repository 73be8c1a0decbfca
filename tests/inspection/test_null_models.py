import os

import numpy as np
import pytest
import torch

from cowbird.errors import UserError
from cowbird.inspection import null_models
from cowbird.inspection.null_models import NullSettings, fit_null_models
from cowbird.inspection.null_workers import fit_beside_each_other
from cowbird.inspection.probes import make_single_histories
from cowbird.victims.sequential.gru4rec import GRU4Rec
from cowbird.victims.sequential.sasrec import SASRec
from inspection.conftest import ITEMS

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COWBIRD_CACHE", str(tmp_path))
    return tmp_path / "inspection"


def test_they_are_fitted_once(log, cache, monkeypatch):
    settings, probes, told = NullSettings(count=3, epochs=1), [make_single_histories(ITEMS)], []
    shape = GRU4Rec(hidden=8)

    def fit(seed=0, probes=probes):
        return fit_null_models(log.select_learnable(), shape, settings, probes, seed, CPU, lambda *a: told.append(a))

    first = fit()
    assert len(first) == 3 and told[-1] == (3, 3, "")
    assert all(counts["single"][0].sum() == 10 * ITEMS for counts in first)
    assert any(not np.array_equal(first[0]["single"], other["single"]) for other in first[1:])
    fits = []
    honest = GRU4Rec.fit
    monkeypatch.setattr(GRU4Rec, "fit", lambda self, *a, **k: fits.append(1) or honest(self, *a, **k))
    again = fit()
    assert not fits and all(np.array_equal(a["single"], b["single"]) for a, b in zip(first, again, strict=True))
    damaged = sorted(cache.iterdir())[0]
    damaged.write_bytes(b"x")
    fit()
    assert len(fits) == 1, "what is damaged is made anew"


def test_a_strangers_sizes_are_bounded():
    made = NullSettings().shape_recommender(
        SASRec(hidden=4096, layers=64, heads=64, max_length=10**6, epochs=10**9), 1000
    )
    assert (made.hidden, made.layers, made.max_length, made.epochs) == (256, 4, 50, 20)
    assert NullSettings().shape_recommender(None, 10).batch_size == 16
    assert isinstance(NullSettings().shape_recommender(GRU4Rec(hidden=16), 10_000), GRU4Rec)


def test_the_cache_knows_what_decides_a_fit(log, cache):
    users, probes = log.select_learnable(), [make_single_histories(ITEMS)]
    spec = SASRec()
    one = null_models._name_file(users, spec, probes, 0, CPU)
    others = [
        null_models._name_file(users, spec, probes, 1, CPU),
        null_models._name_file(users, SASRec(hidden=32), probes, 0, CPU),
        null_models._name_file(users, spec, [make_single_histories(ITEMS - 1)], 0, CPU),
        null_models._name_file(users.shorten(5), spec, probes, 0, CPU),
    ]
    assert len({one, *others}) == 5


@pytest.mark.slow
def test_processes_make_what_one_makes(log, cache):
    settings, probes, told = NullSettings(count=3, epochs=1), [make_single_histories(ITEMS)], []
    given = log.select_learnable(), GRU4Rec(hidden=8), settings, probes, 0, CPU

    beside = fit_null_models(*given, lambda *a: told.append(a), workers=2)
    assert [done for done, _, remark in told if not remark][:4] == [0, 1, 2, 3], "each is told of, and then read"
    assert len(list(cache.glob("*.safetensors"))) == 3
    for path in cache.glob("*.safetensors"):
        path.unlink()
    alone = fit_null_models(*given, lambda *a: None)
    assert all(np.array_equal(a["single"][0], b["single"][0]) for a, b in zip(beside, alone, strict=True))


class Maker:
    """Makes a file, or does what it is told instead."""

    def __init__(self, path, act=""):
        self.path, self.act = path, act

    def make_shared(self):
        if self.act == "die":
            os._exit(1)
        if self.act == "raise":
            raise UserError("No user has three events.")
        self.path.write_text("made")


@pytest.mark.slow
def test_a_process_that_dies_leaves_its_work_to_the_caller(tmp_path):
    fit_beside_each_other([Maker(tmp_path / "a", "die"), Maker(tmp_path / "b", "die")], 2, lambda done: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_one_raises_is_raised(tmp_path):
    with pytest.raises(UserError, match="three events"):
        fit_beside_each_other([Maker(tmp_path / "a"), Maker(tmp_path / "b", "raise")], 2, lambda done: None)
