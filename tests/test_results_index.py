"""Evidence: every result file has a row in the index, and every row and link a file."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"


def test_the_index_names_the_results_that_are_there():
    rows = [line for line in (RESULTS / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`([\w.]+)`", row.split(" | ")[0])]
    assert sorted(named) == sorted(path.name for path in RESULTS.iterdir() if path.name != "README.md")


def test_links_to_files_lead_to_files():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for link in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).is_file(), f"{page.name}: {link}"
