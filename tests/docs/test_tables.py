"""The tables of the results pages are those that the result files make."""

import pytest

from doubles.doc_scripts import DOCS, load_script

make_tables = load_script("make_tables")


@pytest.mark.parametrize("page", make_tables.PAGES)
def test_tables_are_up_to_date(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert make_tables.fill_tables(text) == text, "run: python docs/make_tables.py"


def test_every_table_stands_in_a_page():
    text = "".join((DOCS / page).read_text(encoding="utf-8") for page in make_tables.PAGES)
    assert sorted(name for _, name, _ in make_tables.MARKED.findall(text)) == sorted(make_tables.TABLES)
