"""Texts and rows that must not be flagged: a text file, or a table of fragments, titles, brands and ids.

A title is allowed if it is such a text, or if its suspicious span lies within such a text. Texts are compared letter by
letter, so a look-alike letter or a hidden character in a word that is allowed is still flagged. Only U+FFFD
stands for any control character as well, for findings in CSV show them so.

A table may name rows of the catalogue by their ids. The texts beside an id are allowed in rows of that id alone. An id
without a text allows its rows whatever their titles say, so a title that its seller changes later is allowed too.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from cowbird.errors import UserError
from cowbird.files import hash_texts, read_plain_file
from cowbird.ingest.blobs import split_compression
from cowbird.ingest.json_table import is_text
from cowbird.ingest.open import open_rows
from cowbird.ingest.options import ReadOptions, replace_option_hints
from cowbird.ingest.rows import CellValue
from cowbird.path_hints import suggest_close_paths
from cowbird.text import replace_controls

MAX_ALLOW_FILE_BYTES = 1 << 24
"""Largest file of allowed texts, in bytes, and most characters of the texts and ids in a table."""
MAX_ALLOWED_ROWS = 1 << 20
"""Most rows of a table of allowed texts."""
ALLOWED_TEXT_COLUMNS = ("fragment", "title", "text", "brand")
"""Columns of a table that hold allowed texts; all that are there count."""
ALLOWED_ID_COLUMNS = ("id", "item_id")
"""Columns of a table that hold ids of the catalogue; the first that is there counts."""
ALLOW_TABLE_ENDS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")
"""How the names of tables end, but for that of their compression; any other file is text."""

_HINT = (
    "Give --allow a text file in UTF-8 with a fragment or a whole title in each line, or a table (CSV, TSV, JSON Lines "
    f"or Parquet) with a column {', '.join(ALLOWED_TEXT_COLUMNS)} or {' or '.join(ALLOWED_ID_COLUMNS)}."
)


class TextMatcher:
    """Some texts, and whether one of them stands around a span; the time that takes does not grow with their number."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(dict.fromkeys(texts))
        self._known = frozenset(self.texts)
        self._lengths = sorted({len(text) for text in self.texts})
        self._replaced = any("\N{REPLACEMENT CHARACTER}" in text for text in self.texts)

    def allow(self, title: str, start: int, end: int) -> bool:
        """Tell whether they allow a title or a span of it; see `AllowList.allows`."""
        if self._find(title, start, end):
            return True
        shown = replace_controls(title) if self._replaced else title
        return shown != title and self._find(shown, start, end)

    def _find(self, title: str, start: int, end: int) -> bool:
        if title.strip() in self._known:
            return True
        span = title[start:end] if 0 <= start < end else ""
        if not span.strip():
            return False
        first = start + len(span) - len(span.lstrip())
        last = first + len(span.strip())
        return span.strip() in self._known or any(each in self._known for each in self._list_around(title, first, last))

    def _list_around(self, title: str, first: int, last: int) -> Iterator[str]:
        """Yield all pieces of a title that hold some of its characters and are as long as one of the texts."""
        for length in self._lengths:
            for at in range(max(0, last - length), min(first, len(title) - length) + 1):
                yield title[at : at + length]


class AllowList:
    """Texts and rows that must not be flagged.

    Args:
        texts: Fragments and whole titles; white space around them does not count, and empty ones are passed over.
        rows: Ids of rows, each with a text that is allowed there; an empty one stands for any.
    """

    def __init__(self, texts: Iterable[str] = (), rows: Iterable[tuple[str, str]] = ()) -> None:
        self._everywhere = TextMatcher(text.strip() for text in texts if text.strip())
        by_id: dict[str, list[str]] = {}
        for id_, text in rows:
            by_id.setdefault(id_, []).append(text.strip())
        self._by_id = {id_: TextMatcher(texts) for id_, texts in by_id.items()}

    def __len__(self) -> int:
        return len(self._everywhere.texts) + sum(len(each.texts) for each in self._by_id.values())

    @property
    def texts(self) -> tuple[str, ...]:
        """What is allowed in all rows."""
        return self._everywhere.texts

    def list_entries(self) -> list[tuple[str | None, str]]:
        """Return each id, `None` for any row, with a text that is allowed there; empty for any text."""
        everywhere: list[tuple[str | None, str]] = [(None, text) for text in self.texts]
        return everywhere + [(id_, text) for id_, held in self._by_id.items() for text in held.texts]

    @property
    def names_ids(self) -> bool:
        """Whether rows are named by ids."""
        return bool(self._by_id)

    @property
    def key(self) -> str:
        """Tells this list from others."""
        rows = (part for id_, held in self._by_id.items() for part in (id_, str(len(held.texts)), *held.texts))
        return hash_texts([str(len(self.texts)), *self.texts, *rows]) if len(self) else ""

    def allows(self, title: str, start: int, end: int, id_: str | None = None) -> bool:
        """Tell whether a title must not be flagged for a span.

        Args:
            title: The title.
            start: First character of the span, -1 where there is none.
            end: The character after its last one.
            id_: Id of the row; `None` where it has none.
        """
        if self._everywhere.allow(title, start, end):
            return True
        held = None if id_ is None else self._by_id.get(id_)
        return held is not None and ("" in held.texts or held.allow(title, start, end))


def read_allow_list(path: Path | None) -> AllowList:
    """Read a text file or a table of what must not be flagged; `None` allows nothing.

    The end of the name says which it is: see `ALLOW_TABLE_ENDS`.

    Raises:
        UserError: If it can't be read, is no ordinary file, no text in UTF-8 or no such table, is too large, or holds
            nothing.
    """
    if path is None:
        return AllowList()
    data = _read_file(path)  # a table is opened by its name, once it is known to be a file of that size
    if Path(split_compression(path.name)[0]).suffix.lower() in ALLOW_TABLE_ENDS:
        found = _read_table(path)
    else:
        try:
            found = AllowList(data.decode("utf-8-sig").split("\n"))
        except UnicodeDecodeError:
            raise UserError(f"'{path}' is no text in UTF-8.", _HINT) from None
    if not len(found):
        raise UserError(f"'{path}' names nothing that is allowed.", _HINT)
    return found


def _read_file(path: Path) -> bytes:
    """Return the bytes of a file; a pipe or a device is not waited for, unless the shell opened it for this command."""
    try:
        return read_plain_file(path, MAX_ALLOW_FILE_BYTES, shell=True)
    except FileNotFoundError:
        raise UserError(f"There is no file '{path}'.", f"{suggest_close_paths(path)} {_HINT}".strip()) from None
    except (OSError, ValueError) as error:  # a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"'{path}' can't be read: {reason}.", _HINT) from None


def _read_table(path: Path) -> AllowList:
    """Read a table: texts, or texts and ids, or ids."""
    with replace_option_hints(f"Save it in another form. {_HINT}"):  # options are about the catalogue alone
        table = open_rows(path, ReadOptions())
    columns = [name for name in ALLOWED_TEXT_COLUMNS if name in table.names]
    id_column = next((name for name in ALLOWED_ID_COLUMNS if name in table.names), None)
    if not columns and id_column is None:
        have = ", ".join(f"'{name[:60]}'" for name in table.names[:20])
        raise UserError(f"'{path}' should name what is allowed, and its columns are {have}.", _HINT)
    places = [table.find_text(name) for name in columns]
    id_place = None if id_column is None else table.find_id(id_column)
    texts, rows, held = list[str](), list[tuple[str, str]](), 0
    for row in table.read_rows(places if id_place is None else [*places, id_place]):
        problem = row.problem or ("" if all(map(is_text, row.cells[: len(places)])) else "a value is not text")
        if problem:
            raise UserError(f"Row {row.number:,} of '{path}' can't be read: {problem}.", _HINT)
        cells = [_decode_cell(cell, row.number, path) for cell in row.cells]
        id_ = "" if id_place is None else cells.pop()
        found = [text for text in cells if text]
        held += sum(map(len, found)) + len(id_)
        if row.number > MAX_ALLOWED_ROWS or held > MAX_ALLOW_FILE_BYTES:
            raise UserError(
                f"'{path}' has more than {MAX_ALLOWED_ROWS:,} rows or {MAX_ALLOW_FILE_BYTES:,} characters.", _HINT
            )
        if id_:
            rows += [(id_, text) for text in found or [""]]
        else:
            texts += found
    return AllowList(texts, rows)


def _decode_cell(cell: CellValue, number: int, path: Path) -> str:
    """Return what a cell holds as text without white space around it; empty for nothing."""
    try:
        return (cell.decode() if isinstance(cell, bytes) else str(cell or "")).strip()
    except UnicodeDecodeError:
        raise UserError(f"Row {number:,} of '{path}' is not valid UTF-8.", _HINT) from None
