"""The victims that rank a catalogue, discovered."""

import pytest

from cowbird.plugins import find_plugin, list_plugins
from cowbird.victims.base import Recommender


def _is_made_from_nothing(cls):
    return not any(field.is_required() for field in cls.model_fields.values())


RANKERS = [
    name
    for name in list_plugins("victim")
    if issubclass(find_plugin("victim", name), Recommender) and _is_made_from_nothing(find_plugin("victim", name))
]
"""Names of all but those that start from a file (`tests/foreign`)."""

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
