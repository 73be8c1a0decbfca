"""Texts that must not be flagged: a file of fragments and whole titles, one a line.

A title is allowed if it is such a text, or if its suspicious span lies within such a text. Texts are compared letter by
letter, so a look-alike letter or a hidden character in a word that is allowed is still flagged.
"""

from collections.abc import Iterable
from pathlib import Path

from cowbird.errors import UserError
from cowbird.files import hash_texts

MAX_ALLOW_FILE_BYTES = 1 << 24
"""Largest file of allowed texts, in bytes."""


class AllowList:
    """Texts that must not be flagged.

    Args:
        texts: Fragments and whole titles; white space around them does not count, and empty ones are passed over.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.texts = tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))
        self._known = frozenset(self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def key(self) -> str:
        """Tells these texts from others."""
        return hash_texts(self.texts) if self.texts else ""

    def allows(self, title: str, start: int, end: int) -> bool:
        """Tell whether a title must not be flagged for a span.

        Args:
            title: The title.
            start: First character of the span, -1 where there is none.
            end: The character after its last one.
        """
        if title.strip() in self._known:
            return True
        span = title[start:end] if 0 <= start < end else ""
        if not span.strip():
            return False
        first = start + len(span) - len(span.lstrip())
        last = first + len(span.strip())
        return span.strip() in self._known or any(_covers(text, title, first, last) for text in self.texts)


def _covers(text: str, title: str, first: int, last: int) -> bool:
    """Tell whether a text stands in a title around some of its characters."""
    return title.find(text, max(0, last - len(text)), first + len(text)) >= 0 if len(text) >= last - first else False


def read_allow_list(path: Path | None) -> AllowList:
    """Read a file of texts that must not be flagged, one a line; `None` allows nothing.

    Raises:
        UserError: If it can't be read, is no text in UTF-8, is too large, or holds no text.
    """
    if path is None:
        return AllowList()
    hint = "Give --allow a text file in UTF-8 with a fragment or a whole title in each line."
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ALLOW_FILE_BYTES + 1)
        if len(data) > MAX_ALLOW_FILE_BYTES:
            raise UserError(f"'{path}' is larger than {MAX_ALLOW_FILE_BYTES:,} bytes.", hint)
        lines = data.decode("utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(f"'{path}' can't be read: {error.strerror or error}.", hint) from None
    except UnicodeDecodeError:
        raise UserError(f"'{path}' is no text in UTF-8.", hint) from None
    found = AllowList(lines)
    if not found:
        raise UserError(f"'{path}' names nothing that is allowed.", hint)
    return found
