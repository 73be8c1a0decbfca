"""Bytes of any encoding as UTF-8, in bounded memory, and which encoding a file is in.

What can't be decoded becomes a byte that no UTF-8 has, so that the reader refuses that row and no other. A file counts
as cp1252 only if it has hardly a line of valid UTF-8 beyond ASCII and its odd bytes look like letters: one damaged
title among good ones changes nothing about the others.
"""

import codecs
import io
import re
from typing import IO, NamedTuple

from cowbird.errors import UserError
from cowbird.ingest.blobs import Blob

UTF8, CP1252 = "utf-8", "cp1252"
_CHUNK_BYTES = 1 << 20
_BAD = "cowbird.bad"
_MARKS = (
    (codecs.BOM_UTF8, UTF8),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ODD_LETTERS = frozenset((*range(0x80, 0xFE),)) - {0x81, 0x8D, 0x8F, 0x90, 0x9D}
"""Bytes that are characters of cp1252; the last two are hardly ever written, and mark damage."""
MAX_ODD_SHARE = 0.35
"""Largest share of odd bytes among the letters of text in cp1252, and of those that stand three in a row among odd
bytes; of other alphabets all letters are odd."""
MIN_LETTERS = 50
"""Letters from which the first share is looked at."""
_LINE_END = re.compile(rb"[\r\n]")
_RUN = re.compile(rb"[\x80-\xff]{3,}")


def _mark_bad(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", error.end


codecs.register_error(_BAD, _mark_bad)


class _RecodedStream(io.RawIOBase):
    """A stream in some encoding as UTF-8.

    Args:
        stream: The stream.
        encoding: Its encoding.
        carriage: Whether a CR alone ends a line, too; all lines then end with LF.
    """

    def __init__(self, stream: IO[bytes], encoding: str, carriage: bool) -> None:
        super().__init__()
        self._stream = stream
        self._decoder = None if encoding == UTF8 else codecs.getincrementaldecoder(encoding)(_BAD)
        self._carriage, self._cut = carriage, False
        self._held = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        while not len(self._held) and not self._ended:
            self._held = memoryview(self._read_chunk())
        count = min(len(buffer), len(self._held))
        buffer[:count] = self._held[:count]
        self._held = self._held[count:]
        return count

    def _read_chunk(self) -> bytes:
        raw = self._stream.read(_CHUNK_BYTES)
        self._ended = not raw
        if self._decoder is not None:
            text = self._decoder.decode(raw, final=self._ended)
            raw = _encode(text)
        return self._even_out(raw) if self._carriage else raw

    def _even_out(self, raw: bytes) -> bytes:
        """End all lines with LF; a CR and an LF are one end, also where a chunk ends between them."""
        begin = int(self._cut and raw.startswith(b"\n"))
        self._cut = raw.endswith(b"\r") if raw else self._cut
        return raw[begin:].replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _encode(text: str) -> bytes:
    """Return text as UTF-8; half surrogates, which some encodings can bring, become a bad byte."""
    try:
        return text.encode(UTF8, "surrogateescape")
    except UnicodeEncodeError:
        return b"".join(b"\xff" if "\ud800" <= letter <= "\udfff" else letter.encode() for letter in text)


def recode(blob: Blob, encoding: str, carriage: bool = False) -> Blob:
    """Return a file in some encoding as one in UTF-8.

    Args:
        blob: The file.
        encoding: Its encoding.
        carriage: Whether a CR alone ends a line, too; all lines then end with LF.
    """
    name = normalize_encoding(encoding)
    if name == UTF8 and not carriage:
        return blob
    return Blob(
        blob.name,
        lambda stack: io.BufferedReader(_RecodedStream(blob.opener(stack), name, carriage), _CHUNK_BYTES),
    )


def normalize_encoding(name: str) -> str:
    """Return one name for each encoding."""
    found = codecs.lookup(name).name
    return UTF8 if found in (UTF8, "utf-8-sig") else found


def name_encoding(name: str) -> str:
    """Return an encoding's name for people."""
    found = normalize_encoding(name)
    return found.upper() if found.startswith("utf") else found


class _LineCounts(NamedTuple):
    """What the lines of a sample hold beyond ASCII."""

    utf8: int
    """Lines that are valid UTF-8."""
    other: int
    """Lines that are not."""
    letters: int
    """Letters of the lines that are not."""
    odd: int
    """Odd bytes of these lines."""
    runs: int
    """Odd bytes with another one on both sides, or at the edge of three in a row."""
    damaged: int
    """Lines that are not, and hold bytes that are no letters of cp1252."""


def sniff_unicode(sample: bytes) -> str:
    """Return which of Unicode's encodings text is in, by its mark or its zeros; UTF-8 if nothing tells."""
    return next((name for mark, name in _MARKS if sample.startswith(mark)), "") or _sniff_wide(sample) or UTF8


def sniff_encoding(sample: bytes, whole: bool, file: str) -> str:
    """Return the encoding that a file is in.

    Args:
        sample: Its first bytes.
        whole: Whether these are all.
        file: Its name, for messages.

    Raises:
        UserError: If most lines beyond ASCII are in an encoding that can't be told from others.
    """
    found = sniff_unicode(sample)
    if found != UTF8 or sample.isascii() or sample.startswith(codecs.BOM_UTF8):
        return found
    lines = sample.split(b"\n")
    counts = _count_lines(lines if whole else lines[:-1] or lines)
    if counts.other <= 10 * counts.utf8 or 10 * counts.damaged > counts.other:
        return UTF8
    few = counts.letters < MIN_LETTERS or counts.odd <= MAX_ODD_SHARE * counts.letters
    if few and counts.runs <= MAX_ODD_SHARE * counts.odd:
        return CP1252
    if 2 * counts.other >= sum(bool(line.strip()) for line in lines) - 1:
        raise UserError(
            f"{file} is not in UTF-8, and which other encoding it is in can't be told.",
            "Name it: --encoding cp1251, shift_jis, gb18030, euc_kr … (a field 'encoding' in specs).",
        )
    return UTF8


def _sniff_wide(sample: bytes) -> str:
    """Return the kind of UTF-16 of text without a mark, by where its zeros are; an empty string if it is none.

    The first line, which is the header's, must have some: a title that is full of zeros says nothing of the file.
    """
    head = sample[: 1 << 12]
    pairs = len(head) // 2
    if pairs < 4 or b"\0" not in _LINE_END.split(head.lstrip(b"\r\n\0"), 1)[0]:
        return ""
    even, odd = head[0 : 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    if odd > 0.3 * pairs and even < 0.02 * pairs:
        return "utf-16-le"
    if even > 0.3 * pairs and odd < 0.02 * pairs:
        return "utf-16-be"
    return ""


def _count_lines(lines: list[bytes]) -> _LineCounts:
    utf8 = other = letters = odd = runs = damaged = 0
    for line in lines:
        if line.isascii():
            continue
        try:
            line.decode()
        except UnicodeDecodeError:
            other += 1
            strange = [byte for byte in line if byte >= 0x80]
            odd += len(strange)
            runs += sum(map(len, _RUN.findall(line)))
            letters += len(strange) + sum(65 <= byte <= 90 or 97 <= byte <= 122 for byte in line)
            damaged += not _ODD_LETTERS.issuperset(strange)
        else:
            utf8 += 1
    return _LineCounts(utf8, other, letters, odd, runs, damaged)
