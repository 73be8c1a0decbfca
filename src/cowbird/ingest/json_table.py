"""JSON as a table: an object a line (JSON Lines), or an array of objects; columns may lie deeper, as `product.title`.

Only what is asked for is taken from each row. A row that is no object, has a name twice, or holds very many values is
told with the reason, and the next is read.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, cast

from cowbird.errors import UserError
from cowbird.ingest.blobs import Blob
from cowbird.ingest.columns import ID_COLUMNS, TITLE_COLUMNS, choose_column, find_usual, match_column
from cowbird.ingest.delimited import refuse_binary
from cowbird.ingest.encodings import UTF8, name_encoding, normalize_encoding, recode, sniff_unicode
from cowbird.ingest.json_text import JsonReader, read_elements
from cowbird.ingest.options import JSON_OPTIONS, ReadOptions
from cowbird.ingest.paths import follow_path, split_path
from cowbird.ingest.records import TOO_LONG_REASON, read_lines
from cowbird.ingest.rows import LATE_ID, CellValue, RowTable, TableRow
from cowbird.ingest.sniffing import SAMPLE_BYTES

SAMPLE_ROWS = 1000
"""Rows that tell which columns there are, unless one is looked for that they lack."""
MAX_JSON_VALUES = 20_000
"""Names, values and places in lists of a row at most."""
MAX_NAME_DEPTH = 3
"""How deep columns lie whose names are told; deeper ones can be named."""

_MANY_VALUES = f"holds more than {MAX_JSON_VALUES:,} values"
_JSON_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)


class _NumberText(str):
    """A number as JSON writes it, of any length; not a title."""

    __slots__ = ()


class _DuplicateNameError(ValueError):
    """A JSON object has a name twice."""


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; with a name twice, what the scan reads would not be what another reader sees."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _DuplicateNameError
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_make_object, parse_int=_NumberText, parse_float=_NumberText)


class JsonTable(RowTable):
    """Objects of a JSON file.

    Args:
        blob: The file.
        options: How it is to be read.
        lines: Whether its name says that each line holds an object; otherwise its beginning tells.

    Raises:
        UserError: If there is no object in it.
    """

    def __init__(self, blob: Blob, options: ReadOptions, lines: bool) -> None:
        self.file = blob.name
        options.refuse_others(blob.name, "JSON", *JSON_OPTIONS)
        with blob.open_stream() as stream:
            raw = stream.read(SAMPLE_BYTES)
        self._encoding = normalize_encoding(options.encoding or sniff_unicode(raw))  # JSON is in no other
        if self._encoding == UTF8:
            refuse_binary(raw, blob.name)
        self._blob = recode(blob, self._encoding)
        self._path = options.json_path or ""
        self._is_array = bool(options.json_path) or not (lines or self._find_lines())
        self._names: dict[str, None] = {}
        self._lists: dict[str, None] = {}
        problem, rows = "", 0
        for number, found in islice(self._read_objects(), SAMPLE_ROWS):
            rows = number
            if isinstance(found, dict):
                self._add_names(found)
            else:
                problem = problem or f"row {number} {found}"
        if not self._names:
            raise UserError(
                f"{self.file} should hold a JSON object a line, and none is found: {problem or 'it has no rows'}.",
                'Write one object a line, such as {"title": "…"}, in UTF-8; or name the array: --json-path items.',
            )
        self.names = list(self._names)
        if rows > 1:  # then the objects themselves are the rows
            self._lists.clear()

    def _find_lines(self) -> bool:
        """Tell whether each line holds an object, by the first one."""
        with self._blob.open_stream() as stream:
            if JsonReader(stream).peek() == b"[":
                return False
        with self._blob.open_stream() as stream:
            first = next((line for line in read_lines(stream) if line is None or line.strip()), None)
        if first is not None and isinstance(_parse_object(first), dict):
            return True
        raise UserError(
            f"{self.file} holds one JSON object over several lines, and where its rows are is not said.",
            "Name the keys that lead to the array of rows: --json-path data.items (json_path in specs).",
        )

    def _add_names(self, found: dict[str, Any], prefix: str = "", depth: int = 1) -> None:
        for name, value in found.items():
            if len(self._names) >= MAX_JSON_VALUES:
                return
            self._names.setdefault(prefix + name)
            if isinstance(value, list) and any(isinstance(each, dict) for each in cast("list[Any]", value)):
                self._lists.setdefault(prefix + name)
            if isinstance(value, dict) and depth < MAX_NAME_DEPTH:
                self._add_names(cast("dict[str, Any]", value), f"{prefix}{name}.", depth + 1)

    def describe(self) -> str:
        """Say in a few words how it is read."""
        where = f" at '{self._path}'" if self._path else ""
        form = f"a JSON array{where}" if self._is_array else "JSON Lines"
        return f"read as {form} in {name_encoding(self._encoding)}"

    def count_rows(self) -> int:
        """Return about how many rows there are; of an array, not more is known than that it is whole."""
        count = 0
        with self._blob.open_stream() as stream:
            while block := stream.read(1 << 20):
                count += block.count(b"\n")
        return 0 if self._is_array else count

    def _read_objects(self) -> Iterator[tuple[int, dict[str, Any] | str]]:
        """Yield the number of each row, and its object or why there is none."""
        number = 0
        with self._blob.open_stream() as stream:
            lines = read_elements(stream, self._path, self.file) if self._is_array else read_lines(stream)
            for line in lines:
                if line is None or line.strip():
                    number += 1
                    yield number, TOO_LONG_REASON if line is None else _parse_object(line, self._encoding)

    def read_rows(self, places: Sequence[int]) -> Iterator[TableRow]:
        """Yield all rows in order; what is neither text nor a number is given as JSON."""
        keys = [ID_COLUMNS if place == LATE_ID else (self.names[place],) for place in places]
        columns = [(names, split_path(names[0])) for names in keys]
        for number, found in self._read_objects():
            if isinstance(found, str):
                yield TableRow(number, (None,) * len(columns), found)
            else:
                yield TableRow(number, tuple([_get_cell(found, keys, steps) for keys, steps in columns]))

    def find_text(self, wanted: str) -> int:
        """Return the position of a column of titles, which may lie deeper, as `product.title` or `titles[0]`."""
        try:
            return self._find(wanted, "--text-column", TITLE_COLUMNS)
        except UserError as error:
            if not self._lists:
                raise
            path = next(iter(self._lists))
            hint = f"'{path}' holds a list of objects. If those are the rows, name it: --json-path {path}."
            raise UserError(error.message, hint) from None

    def find_id(self, wanted: str | None) -> int | None:
        """Return the position of a column of ids; of those not named, the first that a row has, however late."""
        if wanted is not None:
            return self._find(wanted, "--id-column")
        found = find_usual(ID_COLUMNS, self.names)
        if found is None:
            return LATE_ID
        return found

    def get_name(self, place: int) -> str:
        """Return a column's name for people."""
        return f"{ID_COLUMNS[0]} or alike where a row has it" if place == LATE_ID else super().get_name(place)

    def _find(self, wanted: str, field: str, usual: Sequence[str] = ()) -> int:
        known = wanted in self.names or match_column(wanted, self.names) is not None
        if not known and (not usual or wanted != usual[0] or find_usual(usual, self.names) is None):
            late = self._look_for((wanted,))
            if late:
                return self._add(late)
        return choose_column(wanted, self.names, self.file, field, usual)

    def _add(self, name: str) -> int:
        self.names.append(name)
        return len(self.names) - 1

    def _look_for(self, wanted: Sequence[str]) -> str | None:
        """Return the first of some names that any row has; all rows are read for it."""
        paths = [(name, split_path(name)) for name in wanted]
        for _, found in self._read_objects():
            if isinstance(found, dict):
                for name, steps in paths:
                    if name in found or (len(steps) > 1 and follow_path(found, steps) is not None):
                        return name
        return None


def _get_cell(found: dict[str, Any], keys: Sequence[str], steps: Sequence[str | int]) -> CellValue:
    value = next((found[key] for key in keys if found.get(key) is not None), None)
    if value is None and len(steps) > 1 and keys[0] not in found:
        value = follow_path(found, steps)
    if value is None or isinstance(value, str):
        return value
    return JsonValue(json.dumps(value, ensure_ascii=False))


class JsonValue(str):
    """What is neither text nor a number, as JSON writes it."""

    __slots__ = ()


def is_text(cell: CellValue) -> bool:
    """Tell whether a cell holds text: no number and no list that is only written as one."""
    return not isinstance(cell, _NumberText | JsonValue)


def _parse_object(line: bytes, encoding: str = UTF8) -> dict[str, Any] | str:
    """Return the object of a line, or why there is none."""
    if len(line) > MAX_JSON_VALUES and _count_values(line) > MAX_JSON_VALUES:
        return _MANY_VALUES
    try:
        found = _DECODER.decode(line.decode())
    except UnicodeDecodeError:
        return f"is not valid {name_encoding(encoding)}"
    except _DuplicateNameError:
        return "has a name twice"
    except (ValueError, RecursionError):
        return "is not JSON"
    return cast("dict[str, Any]", found) if isinstance(found, dict) else "is not a JSON object"


def _count_values(line: bytes) -> int:
    """Return how many values a line of JSON may hold at most: an object for each costs many times its bytes."""
    bare = _JSON_STRING.sub(b"", line)
    return sum(bare.count(sign) for sign in (b",", b":", b"[", b"{"))
