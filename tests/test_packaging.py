"""What a package index shows, and which addresses the project gives."""

import importlib.util
import re
import tomllib

import pytest

from doubles.blocks import REPOSITORY

pytest.importorskip("hatchling")
TABLE = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("hatch_build", REPOSITORY / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_long_description_has_no_link_that_leads_nowhere(build):
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert re.search(r"\]\(docs/", readme), "links of the repository's page are relative"
    text = build.make_long_description(readme)
    assert [link for link in re.findall(r"\]\(([^)]*)\)", text) if not link.startswith("https://")] == []
    assert "![" not in text
    assert "the example" in text, "the words of a link stay"
    assert text.count("\n```") == readme.count("\n```")
    assert build.make_long_description("[a](b.md) [c](https://d) ![e](f.svg)").startswith("a [c](https://d)\n")


def test_the_build_uses_it(build):
    assert TABLE["project"]["dynamic"] == ["readme"]
    assert "custom" in TABLE["tool"]["hatch"]["metadata"]["hooks"]
    metadata = {}
    build.ReadmeHook(str(REPOSITORY), {}).update(metadata)
    assert metadata["readme"]["content-type"] == "text/markdown"
    assert metadata["readme"]["text"].startswith("# Cowbird\n")


def test_no_address_is_made_up():
    """None is known; whoever learns one changes this test."""
    assert "urls" not in TABLE["project"]
    for page in ("README.md", "CONTRIBUTING.md", "SECURITY.md"):
        text = (REPOSITORY / page).read_text(encoding="utf-8")
        assert re.findall(r"https?://\S+|\S+@\S+\.\S+", text) == [], page
    cited = (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    assert all("arxiv.org" in address for address in re.findall(r"https?://\S+", cited))
    assert not re.search(r"^(url|repository\S*):", cited, re.MULTILINE), "addresses of papers alone"
