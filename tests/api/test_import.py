"""`import cowbird` is light, and offers each public name once."""

import json
import subprocess
import sys

import pytest

import cowbird

HEAVY = ("numpy", "pandas", "polars", "pyarrow", "pydantic", "rich", "torch", "transformers", "typer")


def run_python(code):
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(found.stdout)


def test_importing_it_loads_no_library():
    code = f"import cowbird, json, sys; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    assert run_python(code) == []


def test_listing_its_names_loads_no_library():
    code = f"import cowbird, json, sys; dir(cowbird); print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    assert run_python(code) == []


@pytest.mark.parametrize("name", cowbird.__all__)
def test_every_public_name_is_there_and_listed(name):
    assert getattr(cowbird, name) is getattr(cowbird, name)
    assert name in dir(cowbird)


def test_the_list_of_names_is_sorted_and_whole():
    assert cowbird.__all__ == sorted(cowbird.__all__)
    assert set(cowbird.__all__) == {*cowbird._HOMES, "UserError", "__version__"}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'scan_everything'"):
        _ = cowbird.scan_everything


def test_all_names_come_by_a_star():
    names = {}
    exec("from cowbird import *", names)
    assert set(cowbird.__all__) <= names.keys()


def test_metrics_offer_each_name_once():
    metrics = cowbird.metrics
    assert metrics.__all__ == sorted(set(metrics.__all__))
    for name in metrics.__all__:
        assert callable(getattr(metrics, name))
        assert getattr(metrics, name).__module__.startswith("cowbird.metrics.")
