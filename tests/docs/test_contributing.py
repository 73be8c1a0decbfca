"""The attack that CONTRIBUTING.md shows works by copy and paste: as a file in the current folder, and as a package."""

import sys

import pytest

import cowbird
from cowbird.attacks.base import Attack
from cowbird.errors import UserError
from doubles.blocks import list_blocks

SPEC = """
name = "mine"
ks = [10]
dataset = { name = "synthetic", users = 60, items = 40 }
victims = [{ name = "sasrec", hidden = 8, layers = 1, epochs = 1 }]
attacks = [{ name = "last_label", users = 5, targets = { count = 2 } }]
"""
PAGES = ("CONTRIBUTING.md", "docs/how-to/own_attack.md")


@pytest.fixture(params=PAGES)
def example(request, tmp_path, monkeypatch):
    """Stand in an empty folder with a spec that names the attack; give the page's code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.delitem(sys.modules, "last_label", raising=False)
    (tmp_path / "mine.toml").write_text(SPEC)
    (code,) = [block.text for block in list_blocks(request.param, "python") if "class LastLabel(Attack)" in block.text]
    yield code
    sys.modules.pop("last_label", None)


def test_it_works_as_a_file_in_the_current_folder(example, tmp_path):
    (tmp_path / "last_label.py").write_text(example)
    with pytest.raises(UserError, match=r"would import the Python module 'last_label' \(the file last_label\.py\)"):
        cowbird.run("mine.toml", "refused", progress=False)
    results = cowbird.run("mine.toml", "runs", device="cpu", progress=False, allow_plugins=True)
    assert results.complete
    assert not results.errors
    assert "last_label" in set(results.to_polars()["attack"])


def test_it_works_as_an_installed_package(example, tmp_path, monkeypatch):
    installed = tmp_path / "site"
    (installed / "last_label-1.0.dist-info").mkdir(parents=True)
    (installed / "last_label.py").write_text(example)
    (installed / "last_label-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: last_label\nVersion: 1.0\n"
    )
    (installed / "last_label-1.0.dist-info" / "entry_points.txt").write_text(
        "[cowbird.attacks]\nlast_label = last_label:LastLabel\n"
    )
    monkeypatch.syspath_prepend(installed)
    assert issubclass(cowbird.find_plugin("attack", "last_label"), Attack)
    assert cowbird.run("mine.toml", "runs", device="cpu", progress=False).complete
