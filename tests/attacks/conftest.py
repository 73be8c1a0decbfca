"""Small synthetic data for attacks."""

import pytest

from cowbird.data.sources.synthetic import Synthetic
from cowbird.data.split import Split


@pytest.fixture(scope="session")
def clean():
    """Return clean training data with ages, genders and categories."""
    data = Synthetic(users=80, items=48, events_per_user=9, categories=8, noise=0.3).load()
    return Split(cold_fraction=0).apply(data, 0).pretrain.training()
