"""The most suspicious titles of a scan, as a person reads them: the title, the span marked, and the reason."""

from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

from cowbird.scanning.findings import Finding
from cowbird.text import escape_terminal

CONTEXT_LENGTH = 60
"""Characters shown before a span and behind it."""
MAX_SPAN_LENGTH = 80
"""Characters shown of a span."""


def mark_span(title: str, start: int | None, end: int | None) -> Text:
    """Return a title for a terminal, its suspicious span between » and «; what can't be seen is shown as its code."""
    if start is None or end is None:
        return Text(escape_terminal(title, CONTEXT_LENGTH + MAX_SPAN_LENGTH))
    before, span, after = title[:start], title[start:end], title[end:]
    if len(before) > CONTEXT_LENGTH:
        before = "…" + before[-CONTEXT_LENGTH:]
    marked = Text(f"»{escape_terminal(span, MAX_SPAN_LENGTH)}«", style="bold red")
    return Text.assemble(_keep_spaces(before), marked, _keep_spaces(after))


def _keep_spaces(text: str) -> Text:
    """Escape what stands beside a span; single spaces there are seen well enough."""
    return Text(text if text == " " else escape_terminal(text, CONTEXT_LENGTH + 1))


def render_findings(findings: Sequence[Finding], heading: str = "most suspicious") -> Group:
    """Return the most suspicious titles, a line each with the reason below it.

    Args:
        findings: Flagged rows, or those for review.
        heading: What stands above them.
    """
    parts: list[Text] = []
    if findings:
        parts.append(Text(heading, style="italic"))
    for each in findings:
        parts.append(Text(f"row {each.row:,}  ").append_text(mark_span(each.title, each.start, each.end)))
        if each.reason:
            parts.append(Text(f"  {escape_terminal(each.reason, None)}", style="dim"))
    return Group(*parts)
