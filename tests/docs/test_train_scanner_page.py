"""The page on training a tagger names every family, in the group that it is drawn with."""

import re
from pathlib import Path

from cowbird.defenses.p_scanner.triggers import title_edits

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "train_scanner.md"


def read_row(head):
    (line,) = (line for line in PAGE.read_text().splitlines() if line.startswith(f"| {head}"))
    return re.findall(r"`(\w+)`", line)


def test_the_page_names_every_family():
    seldom, slips = read_row("usual, a third as often"), read_row("slips, only if named")
    usual = read_row("usual, drawn often")
    assert sorted(usual + seldom + slips) == sorted(title_edits.list_taught_families())
    drawn = title_edits.DEFAULT_FAMILIES
    assert {drawn.count(name) for name in usual} == {3}
    assert {drawn.count(name) for name in seldom} == {1}
    assert not set(slips) & set(drawn)
