"""JSON documents as a stream: the elements of an array one by one, of which none is held longer than a row may be."""

import json
import re
from collections.abc import Iterator
from typing import IO

from cowbird.errors import UserError
from cowbird.ingest import records

_CHUNK_BYTES = 1 << 16
_MARK = re.compile(rb'["\[\]{}]')
_STRING_MARK = re.compile(rb'["\\]')
_SCALAR_END = re.compile(rb"[\s,\]}:]")
_SPACE = b" \t\r\n"


class JsonReader:
    """Reads a document value by value.

    Args:
        stream: The document in UTF-8.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._buffer = stream.read(_CHUNK_BYTES).removeprefix(b"\xef\xbb\xbf")
        self._at = 0

    def _fill(self) -> bool:
        """Read on; tell whether there was more."""
        chunk = self._stream.read(_CHUNK_BYTES)
        self._buffer = self._buffer[self._at :] + chunk
        self._at = 0
        return bool(chunk)

    def peek(self) -> bytes:
        """Return the next byte that is no white space; an empty one at the end."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._buffer):
                return self._buffer[self._at : self._at + 1]
            if not self._fill():
                return b""

    def take(self, wanted: bytes) -> bool:
        """Pass over the next byte if it is the one wanted; tell whether it was."""
        found = self.peek() == wanted
        self._at += found
        return found

    def read_value(self) -> bytes | None:
        """Return the next value as it is written, whether or not it is JSON inside; `None` if it is too long."""
        nested = self.peek() in (b"{", b"[", b'"')
        pieces: list[bytes] = []
        size = depth = 0
        quoted, ended = False, False
        while not ended:
            if nested:
                stop, depth, quoted, ended = self._find_end(depth, quoted)
            else:
                found = _SCALAR_END.search(self._buffer, self._at)
                stop, ended = (len(self._buffer), False) if found is None else (found.start(), True)
            size += stop - self._at
            if size <= records.MAX_ROW_BYTES:
                pieces.append(self._buffer[self._at : stop])
            else:
                pieces.clear()
            self._at = stop
            if not ended and not self._fill():
                break
        return None if size > records.MAX_ROW_BYTES else b"".join(pieces)

    def _find_end(self, depth: int, quoted: bool) -> tuple[int, int, bool, bool]:
        """Return how far a value goes in the buffer, how deep it is nested there, and whether that is in a string."""
        at, text = self._at, self._buffer
        while True:
            found = (_STRING_MARK if quoted else _MARK).search(text, at)
            if found is None:
                return len(text), depth, quoted, False
            sign = found[0]
            if sign == b"\\":
                if found.end() == len(text):
                    return found.start(), depth, quoted, False
                at = found.end() + 1
                continue
            at = found.end()
            if sign == b'"':
                quoted = not quoted
            else:
                depth += 1 if sign in b"[{" else -1
            if not quoted and depth <= 0:
                return at, depth, quoted, True


def read_elements(stream: IO[bytes], path: str, file: str) -> Iterator[bytes | None]:
    """Yield the elements of an array as they are written; `None` for one that is too long.

    Args:
        stream: The document.
        path: Keys that lead to the array, with dots between them; empty if the document is the array.
        file: Name of the file, for messages.

    Raises:
        UserError: If there is no such array, or the document ends in it.
    """
    reader = JsonReader(stream)
    for key in path.split(".") if path else ():
        _enter_key(reader, key, file)
    if not reader.take(b"["):
        where = f"at '{path}'" if path else "in it"
        raise UserError(
            f"{file} should hold a JSON array of rows, and there is none {where}.",
            "Name the keys that lead to it: --json-path data.items (json_path in specs).",
        )
    if reader.take(b"]"):
        return
    while True:
        yield reader.read_value()
        if reader.take(b"]"):
            return
        if not reader.take(b","):
            raise UserError(
                f"{file} should hold a JSON array, and it ends in the middle or is damaged.",
                "Check that the file is complete.",
            )


def _enter_key(reader: JsonReader, wanted: str, file: str) -> None:
    """Go on to the value of a key of an object."""
    known: list[str] = []
    if reader.take(b"{"):
        while reader.peek() == b'"':
            raw = reader.read_value()
            try:
                key = json.loads(raw or b"null")
            except ValueError:
                key = None
            if not isinstance(key, str) or not reader.take(b":"):
                break
            if key == wanted:
                return
            known.append(key[:60])
            reader.read_value()
            if not reader.take(b","):
                break
    shown = ", ".join(repr(key) for key in known[:20]) or "none"
    raise UserError(
        f"{file} should have the key '{wanted}' (--json-path), and the keys there are {shown}.",
        "Name the keys that lead to the array of rows, with dots between them.",
    )
