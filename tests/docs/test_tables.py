"""The tables of the results pages are those that the result files make."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def load_script(name: str):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_tables = load_script("make_tables")


@pytest.mark.parametrize("page", make_tables.PAGES)
def test_tables_are_up_to_date(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert make_tables.fill_tables(text) == text, "run: python docs/make_tables.py"


def test_every_table_stands_in_a_page():
    text = "".join((DOCS / page).read_text(encoding="utf-8") for page in make_tables.PAGES)
    assert sorted(name for _, name, _ in make_tables.MARKED.findall(text)) == sorted(make_tables.TABLES)
