"""What a scan comes to: fragments, exit codes, and a summary that no title can dress up."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from cowbird.errors import ExitCode
from cowbird.scanning import summary as module
from cowbird.scanning.findings import Finding
from cowbird.scanning.summary import (
    FindingTally,
    ScanSummary,
    SharedFragment,
    UnreadRows,
    choose_exit_code,
    normalize_span,
    render_summary,
)

PLAIN = ScanSummary("catalog.csv", Path("found.csv"), 1000, 3, 0, (), None, (), (), 0, 2.0, 498.5)
SKIPPED = (UnreadRows("is not JSON", 12, tuple(range(1, 11))), UnreadRows("title is not text", 1, (77,)))


def changed(**fields):
    return dataclasses.replace(PLAIN, **fields)


def printed(summary, width=100):
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True, color_system=None, highlight=True).print(
        render_summary(summary)
    )
    return out.getvalue()


def flagged(title, start, end, row=1):
    return Finding(row, None, title, 0.9, True, start, end, None)


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ("XQ", "xq"),
        (" Xq \t now ", "xq now"),
        ("ＸＱ", "xq"),
        ("Straße", "strasse"),
        ("\u200b", "\u200b"),
        ("  ", "  "),
        ("x" * 1000, "x" * 200),
        ("ﷺ" * 1000, normalize_span("ﷺ" * 12)[:200]),
    ],
)
def test_spans_as_they_are_compared(span, expected):
    assert normalize_span(span) == expected


def test_fragments_that_recur():
    tally = FindingTally()
    for title in ("A xq", "A xq", "B XQ", "C xQ", "D xq", "E zz", "F zz", "G once"):
        tally.add(flagged(title, 2, len(title)))
    tally.add(Finding(9, None, "H xq", 0.1, False, 2, 4, "H xq"))
    tally.add(flagged("no span", None, None))
    assert tally.list_fragments() == (
        SharedFragment("xq", 5, ("A xq", "B XQ", "C xQ")),
        SharedFragment("zz", 2, ("E zz", "F zz")),
    )
    assert tally.flagged == 9


def test_rows_for_review_are_counted_with_what_others_were_flagged_for():
    tally = FindingTally()
    tally.add(flagged("A xq", 2, 4))
    for row, (title, tier) in enumerate([("B xq", "review"), ("C XQ", "review"), ("D xq", ""), ("E zz", "review")]):
        tally.add(Finding(row + 2, None, title, 0.1, False, 2, 4, None, tier))
    expected = (SharedFragment("xq", 1, ("A xq",), 2),)
    assert tally.list_fragments() == expected
    assert FindingTally.from_record(json.loads(json.dumps(tally.to_record()))).list_fragments() == expected
    other = FindingTally()
    other.merge(tally)
    other.merge(tally)
    assert other.list_fragments() == (SharedFragment("xq", 2, ("A xq",), 4),)


def test_fragments_are_counted_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(module, "MAX_DISTINCT_FRAGMENTS", 10)
    tally = FindingTally()
    for nth in range(1000):
        tally.add(flagged(f"{nth:04}", 0, 4))
        if nth % 2:
            tally.add(flagged("common", 0, 6))
        assert len(tally._counts) <= 10
        assert tally._examples.keys() == tally._counts.keys()
    assert tally.list_fragments() == (SharedFragment("common", 500, ("common",)),)


def test_long_titles_are_no_long_examples():
    tally = FindingTally()
    for _ in range(2):
        tally.add(flagged("x" * 10_000, 0, 10_000))
    assert tally.list_fragments() == (SharedFragment("x" * 200, 2, ("x" * 200,)),)


def test_at_most_twenty_fragments_most_common_first():
    tally = FindingTally()
    for nth in range(30):
        for _ in range(nth + 2):
            tally.add(flagged(f"{nth:02}", 0, 2))
    assert [each.count for each in tally.list_fragments()] == list(range(31, 11, -1))


def test_rows_that_cannot_be_read():
    tally = FindingTally()
    tally.add_skip(4, "title is not text")
    for row in range(10, 25):
        tally.add_skip(row, "is not JSON")
    assert tally.list_unread() == (
        UnreadRows("is not JSON", 15, tuple(range(10, 20))),
        UnreadRows("title is not text", 1, (4,)),
    )
    assert [str(each) for each in tally.list_unread()] == [
        "15 × is not JSON (row 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, …)",
        "1 × title is not text (row 4)",
    ]


@pytest.mark.parametrize(
    ("flags", "unread", "code"),
    [
        (0, (), ExitCode.CLEAN),
        (2, (), ExitCode.FINDINGS),
        (0, SKIPPED, ExitCode.INCOMPLETE),
        (2, SKIPPED, ExitCode.FINDINGS),
    ],
)
def test_exit_codes(flags, unread, code):
    assert choose_exit_code(changed(flagged=flags, unread=unread)) is code


def test_counts_of_a_summary():
    assert changed(unread=SKIPPED).skipped == 13
    assert changed(unread=SKIPPED).judged == 1000 - 3 - 13


def test_the_summary_says_what_was_checked():
    text = printed(PLAIN)
    assert "Checked 997 titles of catalog.csv: 0 flagged (0.00%)." in text
    assert "Without a title: 3 rows." in text
    assert "2.0 s, 498 titles a second." in text
    assert "found.csv" in text
    assert "Not checked" not in text
    assert "before the interruption" not in text
    text = printed(changed(flagged=2, unread=SKIPPED, skipped_file=Path("found.csv.skipped.csv"), resumed=512))
    assert "Checked 984 titles of catalog.csv: 2 flagged (0.20%)." in text
    assert "Not checked, because they can't be read: 13 rows." in text
    assert "12 × is not JSON (row 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …)" in text
    assert "found.csv.skipped.csv" in text
    assert "Rows up to 512" in text
    nothing = printed(changed(rows=3))
    assert "Checked 0 titles of catalog.csv: 0 flagged." in nothing
    for each in (text, nothing, printed(PLAIN)):
        assert not {"safe", "secure", "clean"} & set(each.lower().replace(".", " ").replace(",", " ").split())


def test_no_title_dresses_up_the_summary():
    hostile = "[red]x[/red] \x1b[31m \u202e evil \u200b\u00a0\r\n[link=file:///x]y[/link]\ud800"
    fragments = (SharedFragment(hostile, 3, (hostile, "x" * 500, "\U000e0041\ufe0f\u3164")),)
    text = printed(changed(flagged=3, fragments=fragments, catalog="[bold]\x1b]0;owned\x07.csv"), width=200)
    assert "[red]x[/red] <U+001B>[31m <U+202E> evil <U+200B><U+00A0><U+000D><U+000A>" in text
    assert "[bold]<U+001B>]0;owned<U+0007>.csv" in text
    assert "<U+E0041><U+FE0F><U+3164>" in text
    assert "x" * 100 not in text
    assert not [c for c in text if not c.isprintable() and c not in "\n\x1b"]
    assert "\x1b[31m" not in text
    assert "\x1b]" not in text


def test_the_most_suspicious_rows_one_of_each_fragment():
    tally = FindingTally()
    for nth, (title, score) in enumerate([("A xq", 3.0), ("B XQ", 5.0), ("C zz", 4.0), ("C xq", 5.0)], 1):
        tally.add(flagged(title, 2, 4, nth)._replace(score=score))
    tally.add(Finding(8, None, "H uu", 9.0, False, 2, 4, "H uu"))
    tally.add(flagged("no span", None, None, 9)._replace(score=1.0))
    assert [finding.row for finding in tally.worst] == [2, 3, 9]
    for nth in range(100):
        tally.add(flagged(f"{nth}", 0, 1, nth)._replace(score=100.0 + nth))
    assert len(tally.worst) == module.MAX_WORST_FINDINGS
    assert tally.worst[0].row == 99
