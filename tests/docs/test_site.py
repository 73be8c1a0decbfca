"""The documentation site builds without a warning, and without a network."""

import subprocess
import sys
from pathlib import Path

import pytest

import cowbird

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.slow
@pytest.mark.long  # CI calls `make docs`
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="pip install 'cowbird[docs]'")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(tmp_path)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    assert (tmp_path / "index.html").is_file()


def test_every_page_is_in_the_table_of_contents():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = {str(page.relative_to(DOCS).with_suffix("")) for page in DOCS.rglob("*.md") if "_build" not in page.parts}
    listed = {line.strip() for line in index.splitlines()}
    assert pages - {"index"} <= listed


def test_every_public_name_is_in_the_api_reference():
    text = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    assert [name for name in cowbird.__all__ if name[0] != "_" and f"cowbird.{name}" not in text] == []
