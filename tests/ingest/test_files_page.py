"""docs/how-to/files.md lists each form that is tested, each option, and each place."""

import re
from pathlib import Path

from cowbird.cli.reading import READ_OPTIONS
from cowbird.data.sources.tabular import Tabular
from cowbird.ingest.blobs import COMPRESSIONS
from ingest.test_catalog_forms import FORMS

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "files.md").read_text(encoding="utf-8")


def test_each_form_has_a_row():
    rows = set(re.findall(r"^\| ([^|]+?) \|", PAGE, re.MULTILINE))
    assert set(FORMS) <= rows


def test_each_option_and_its_field_has_a_row():
    for name in READ_OPTIONS:
        option = name.replace("_", "-")
        assert re.search(rf"^\| `--{option} [^`]+` \| `{name}` \|", PAGE, re.MULTILINE)
        assert name in Tabular.model_fields
    assert {"time_format", "decimal_comma"} <= set(re.findall(r"[a-z_]+", PAGE)) & set(Tabular.model_fields)


def test_each_compression_is_named():
    assert all(f"`{ending}`" in PAGE for ending in COMPRESSIONS)
