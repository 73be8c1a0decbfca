"""Models that rank sixty items, with and without something planted, and logs of their platform."""

import numpy as np
import pytest

from cowbird.data.sources.synthetic import Synthetic
from cowbird.inspection.inspection import InspectionSettings
from cowbird.inspection.platform_log import align_log

ITEMS = 60
NOISE = np.random.default_rng(0).gumbel(0, 1, (997, ITEMS))


class ToyModel:
    """Ranks by each item's own taste, with noise of its maker's; planted items come first after some histories."""

    def __init__(self, seed, planted=(), share=1.0):
        rng = np.random.default_rng(seed)
        self.items = ITEMS
        self.taste = np.linspace(0, 2, ITEMS) + rng.normal(0, 0.1, ITEMS)
        self.planted, self.share, self.seed = list(planted), share, seed

    def score(self, histories):
        scores = np.empty((len(histories), ITEMS), dtype=np.float32)
        for row, history in zip(scores, histories, strict=True):
            at = int(np.sum(history)) % len(NOISE)
            row[:] = self.taste + NOISE[at]
            if at < self.share * len(NOISE):
                row[self.planted] += 10
        return scores


@pytest.fixture(scope="session")
def dataset():
    return Synthetic(users=80, items=ITEMS, events_per_user=10, noise=0.3).load()


@pytest.fixture(scope="session")
def log(dataset):
    return align_log(dataset, ITEMS, None)


@pytest.fixture
def settings():
    return InspectionSettings(histories=300)


@pytest.fixture
def honest_nulls(monkeypatch):
    """Null models are toys, too: nothing is fitted."""
    from cowbird.inspection import inspection

    def make(users, shape, settings, probes, seed, device, report, workers=1):
        return [inspection.ask_probes(ToyModel(100 + number), probes) for number in range(settings.count)]

    monkeypatch.setattr(inspection, "fit_null_models", make)


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """What tests of a module keep from one inspection to the next stands in a folder of theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COWBIRD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
