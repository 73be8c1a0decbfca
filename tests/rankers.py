"""The victims that rank a catalogue, discovered."""

import pytest

from cowbird.plugins import find_plugin, list_plugins
from cowbird.victims.base import Recommender

RANKERS = [name for name in list_plugins("victim") if issubclass(find_plugin("victim", name), Recommender)]

in_each_precision = pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("sasrec", "float32"),
        pytest.param("sasrec", "bfloat16", marks=pytest.mark.slow),
        ("gru4rec", "float32"),
        pytest.param("gru4rec", "bfloat16", marks=pytest.mark.slow),
    ],
)
"""Marks tests of what is learned, whatever the victim and its number format."""
