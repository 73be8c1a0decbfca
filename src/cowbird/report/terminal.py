"""Untrusted text for rich: no markup is read in it, and what can't be seen stands as its code."""

from rich.text import Text

from cowbird.text import escape_terminal


def sanitize_text(text: str, limit: int = 60) -> Text:
    """Return untrusted text as it may be shown in a terminal (`cowbird.text.escape_terminal`), without markup."""
    return Text(escape_terminal(text, limit))
