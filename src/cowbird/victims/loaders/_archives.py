"""The zip archive of a torch checkpoint, read strictly and changed in place.

torch writes its entries as they are, uncompressed, one after the other. So the strictest reading is enough: whatever is
compressed, encrypted, a link, named twice, named to lie elsewhere, or overlaps another entry is refused, and no entry
is longer than the file. A new checkpoint is a copy of the old one with other bytes where the numbers of its tensors
lie, and new check sums; all else (optimizer, configuration, names) stays byte for byte.
"""

import io
import os
import shutil
import stat
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from cowbird.errors import UserError
from cowbird.faults import explain_outages, raise_outage
from cowbird.files import replace_atomically
from cowbird.notices import NoticeRank, note
from cowbird.victims.loaders._pickles import MAX_PICKLE_BYTES

MAX_ENTRIES = 65_000
"""Most entries of an archive: a tensor is one."""
MAX_DIRECTORY_BYTES = 32 << 20
"""Longest list of entries."""
_END, _END_64, _LOCATOR_64 = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_ENTRY, _LOCAL, _DESCRIPTOR = b"PK\1\2", b"PK\3\4", b"PK\7\x08"
_FULL_16, _FULL_32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED, _DESCRIBED = 1, 8
_CHUNK = 1 << 20
_HINT = "A checkpoint that torch.save, RecBole, RePlay or RecTools wrote was expected. Was it cut short?"


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """One entry of an archive."""

    name: str
    """Its path in the archive, without the archive's own folder."""
    start: int
    """Where its bytes begin."""
    size: int
    """How many they are."""
    crc: int
    """The check sum that the list of entries gives."""
    sums: tuple[int, ...]
    """Where check sums of it stand."""


class TorchArchive:
    """An archive as torch writes it.

    Args:
        path: The file; or the file that holds the archive's bytes.
        start: Where the archive begins in it.
        size: How many bytes it has; `None` is all that follow.

    Raises:
        UserError: If it is not such an archive, or one that hides something.
        OutageError: If it can't be read for a passing fault.
    """

    def __init__(self, path: Path, start: int = 0, size: int | None = None) -> None:
        self.path = path
        self._start = start
        with self._open() as file:
            file.seek(0, os.SEEK_END)
            self._size = file.tell() - start if size is None else size
            try:
                self.entries = self._read_entries(file)
            except (struct.error, ValueError, IndexError):
                self._refuse("its list of entries is damaged")

    def read_pickle_bytes(self) -> bytes:
        """Return the pickle that says what the checkpoint holds."""
        return self.read("data.pkl", MAX_PICKLE_BYTES)

    def read(self, name: str, limit: int) -> bytes:
        """Return the bytes of one entry.

        Args:
            name: The entry.
            limit: Most bytes that it may have.
        """
        entry = self.entries.get(name)
        if entry is None:
            self._refuse(f"it has no entry '{name}'")
        if entry.size > limit:
            self._refuse(f"its entry '{name}' has {entry.size} bytes, and {limit} were expected at most")
        with self._open() as file:
            data = self._read_bytes(file, entry.start, entry.size)
        if zlib.crc32(data) != entry.crc:
            note(NoticeRank.CHANGE, f"A check sum in '{self.path}' is wrong. The file may be damaged.")
        return data

    def write(self, path: Path, changed: Mapping[str, bytes]) -> None:
        """Write a copy with other bytes in some entries.

        Args:
            path: The new file; it appears once it is whole.
            changed: New bytes by name of the entry, as many as it has.

        Raises:
            OutageError: If it can't be written.
        """
        with replace_atomically(path) as partial:
            shutil.copyfile(self.path, partial)
            with partial.open("r+b") as file:
                for name, data in changed.items():
                    entry = self.entries[name]
                    if len(data) != entry.size:
                        raise ValueError(f"{len(data)} bytes for {entry.size}")
                    file.seek(self._start + entry.start)
                    file.write(data)
                    for place in entry.sums:
                        file.seek(self._start + place)
                        file.write(struct.pack("<I", zlib.crc32(data)))

    # Reading the list of entries

    def _open(self) -> IO[bytes]:
        return open_plain_file(self.path)

    def _read_bytes(self, file: IO[bytes], start: int, size: int) -> bytes:
        if start < 0 or size < 0 or start + size > self._size:
            self._refuse("an entry lies outside of the file")
        with explain_outages(f"'{self.path}' can't be read"):
            file.seek(self._start + start)
            data = file.read(size)
        if len(data) != size:
            self._refuse("it is shorter than it says")
        return data

    def _refuse(self, reason: str) -> NoReturn:
        raise UserError(f"'{self.path}' can't be read as a checkpoint: {reason}.", _HINT)

    def _find_directory(self, file: IO[bytes]) -> tuple[int, int, int]:
        """Return how many entries there are, and size and place of their list."""
        if self._size < 22:
            self._refuse(f"it has {self._size} bytes")
        end = self._read_bytes(file, self._size - 22, 22)
        if end[:4] != _END:
            self._refuse("it does not end as an archive of torch does")
        count, size, start = struct.unpack("<10xHII2x", end)
        if _FULL_16 in (count,) or _FULL_32 in (size, start):
            locator = self._read_bytes(file, self._size - 42, 20)
            if locator[:4] != _LOCATOR_64:
                self._refuse("its list of entries is not where it says")
            record = self._read_bytes(file, struct.unpack("<8xQ4x", locator)[0], 56)
            if record[:4] != _END_64:
                self._refuse("its list of entries is not where it says")
            count, size, start = struct.unpack("<32xQQQ", record)
        if count > MAX_ENTRIES or size > MAX_DIRECTORY_BYTES:
            self._refuse(f"it has {count} entries in a list of {size} bytes")
        return count, size, start

    def _read_entries(self, file: IO[bytes]) -> dict[str, ArchiveEntry]:
        count, size, start = self._find_directory(file)
        listed, place = self._read_bytes(file, start, size), 0
        found: dict[str, ArchiveEntry] = {}
        for _ in range(count):
            if listed[place : place + 4] != _ENTRY:
                self._refuse("its list of entries is damaged")
            fields = struct.unpack_from("<8xHH4xIIIHHH4xII", listed, place)
            flags, method, crc, packed, whole, name_size, extra_size, comment_size, attributes, header = fields
            raw = listed[place + 46 : place + 46 + name_size]
            extra = listed[place + 46 + name_size : place + 46 + name_size + extra_size]
            whole, packed, header = _widen(extra, whole, packed, header)
            self._check_entry(raw, flags, method, packed, whole, attributes)
            name = raw.decode("utf-8")
            if name in found:
                self._refuse(f"two entries are named {name[:80]!r}")
            begin, sums = self._check_local(file, raw, header, whole, flags)
            found[name] = ArchiveEntry(name, begin, whole, crc, (start + place + 16, *sums))
            place += 46 + name_size + extra_size + comment_size
        self._check_places(found, start)
        return self._strip_folder(found)

    def _check_entry(self, raw: bytes, flags: int, method: int, packed: int, whole: int, attributes: int) -> None:
        parts = raw.split(b"/")
        if parts[1:2] in ([b"code"], [b"constants.pkl"]):
            self._refuse("it is a compiled program (TorchScript), which holds code")
        if b"" in parts or b".." in parts or b"." in parts or b"\\" in raw or b":" in raw or b"\0" in raw:
            self._refuse(f"the name of an entry leads elsewhere: {raw[:80]!r}")
        if flags & _ENCRYPTED:
            self._refuse("an entry is encrypted")
        if method != 0 or packed != whole:
            self._refuse("an entry is compressed, which torch never does")
        if stat.S_ISLNK(attributes >> 16):
            self._refuse("an entry is a link")

    def _check_local(
        self, file: IO[bytes], raw: bytes, header: int, size: int, flags: int
    ) -> tuple[int, tuple[int, ...]]:
        """Return where the bytes of an entry begin, and where its other check sums stand."""
        local = self._read_bytes(file, header, 30)
        name_size, extra_size = struct.unpack("<26xHH", local)
        if local[:4] != _LOCAL or self._read_bytes(file, header + 30, name_size) != raw:
            self._refuse(f"an entry is not where the list says: {raw[:80]!r}")
        begin = header + 30 + name_size + extra_size
        if begin + size > self._size:
            self._refuse("an entry is longer than the file")
        if not flags & _DESCRIBED:
            return begin, (header + 14,)
        behind = self._read_bytes(file, begin + size, 4) if begin + size + 8 <= self._size else b""
        return begin, (begin + size + 4,) if behind == _DESCRIPTOR else ()

    def _check_places(self, found: Mapping[str, ArchiveEntry], directory: int) -> None:
        before = 0
        for entry in sorted(found.values(), key=lambda entry: (entry.start, entry.size)):
            if entry.start < before or entry.start + entry.size > directory:
                self._refuse("entries overlap")
            before = entry.start + entry.size

    def _strip_folder(self, found: Mapping[str, ArchiveEntry]) -> dict[str, ArchiveEntry]:
        folders = {name.partition("/")[0] for name in found}
        if len(folders) != 1 or not all("/" in name for name in found):
            self._refuse("its entries don't lie in one folder")
        held = {name.partition("/")[2]: entry for name, entry in found.items()}
        if "data.pkl" not in held:
            self._refuse("it has no data.pkl")
        return held


def open_plain_file(path: Path) -> IO[bytes]:
    """Open a file for reading; a pipe or device is refused.

    Raises:
        UserError: If it is not there, or not a file.
        OutageError: If it can't be opened for a passing fault.
    """
    try:
        # A pipe without a writer would wait.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise_outage(error, f"'{path}' can't be opened")
        reason = error.strerror if isinstance(error, OSError) else "no file has such a name"
        raise UserError(f"'{path}' can't be opened: {reason}.", "Give the path of a checkpoint.") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UserError(f"'{path}' is not a file.", "Give the path of a checkpoint.")
    return os.fdopen(handle, "rb")


def _widen(extra: bytes, *values: int) -> tuple[int, ...]:
    """Return sizes and places that are too large for 32 bits from an entry's extra field (zip64)."""
    place, wide = 0, list(values)
    while place + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, place)
        if kind == 1:
            held = io.BytesIO(extra[place + 4 : place + 4 + size])
            for index, value in enumerate(wide):
                if value == _FULL_32:
                    wide[index] = struct.unpack("<Q", held.read(8))[0]
            break
        place += 4 + size
    return tuple(wide)
