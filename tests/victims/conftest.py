"""Small synthetic data and small victims."""

import pytest

from cowbird.data.sources.synthetic import Synthetic
from cowbird.data.split import Split
from cowbird.plugins import find


@pytest.fixture(scope="session")
def parts():
    """Few users, for tests of mechanics."""
    data = Synthetic(users=30, items=24, events_per_user=8, categories=4).load()
    return Split(cold_fraction=0.2).apply(data, 0)


@pytest.fixture(scope="session")
def learnable():
    """Enough users to learn which item follows which."""
    data = Synthetic(users=300, items=64, events_per_user=12, noise=0.1).load()
    return Split(cold_fraction=0.2).apply(data, 0)


@pytest.fixture(scope="session")
def tiny():
    """Return a function that makes a victim whose fit takes milliseconds."""

    def make(name, **fields):
        given = {
            "hidden": 8,
            "max_length": 4,
            "epochs": 4,
            "batch_size": 10,
            "learning_rate": 1e-2,
            "precision": "float32",
            "patience": None,
        }
        return find("victim", name)(**(given | fields))

    return make


@pytest.fixture(scope="session")
def learned(learnable):
    """Return a function that fits a victim on `learnable` once a session."""
    known = {}

    def fit(name):
        if name not in known:
            spec = find("victim", name)(
                hidden=32, max_length=10, epochs=9, batch_size=32, learning_rate=8e-3, dropout=0.1, precision="float32"
            )
            known[name] = spec.fit(learnable.pretrain.training(), learnable.pretrain.validation(), 0)
        return known[name]

    return fit
