"""Files that are elsewhere: on standard input, behind an address, or in a database's server.

Each is copied once into a folder of this process, for a scan reads it twice, and read as any other file. The folder
goes when the process ends. What is copied has no time of its own, so an interrupted scan of the same bytes goes on.
"""

import atexit
import errno
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO, TypeAlias

from cowbird.errors import UserError
from cowbird.files import hold_temporary_folder
from cowbird.ingest.addresses import hide_secrets, name_address, show_name
from cowbird.ingest.blobs import from_file
from cowbird.ingest.folders import list_parts
from cowbird.ingest.options import get_options
from cowbird.ingest.remote import REMOTE_SCHEMES, copy_remote
from cowbird.ingest.servers import copy_table, find_database, is_database, is_query

STANDARD_INPUT = "-"
"""The name of standard input."""
FINGERPRINT_BYTES = 1 << 20
"""Bytes of a file that tell it from others, beside its size and time."""
FileSeal: TypeAlias = tuple[int, int, str]
"""What tells a file or a folder from another or an older one: size, time, and a hash of its beginning."""

_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+]*):/+(?P<rest>.*)", re.DOTALL)
_MAGIC = ((b"PAR1", ".parquet"), (b"SQLite format 3\0", ".db"))
_PACKED = ((b"\x1f\x8b", ".gz"), (b"\x28\xb5\x2f\xfd", ".zst"), (b"BZh", ".bz2"), (b"\xfd7zXZ", ".xz"))


def locate(path: Path) -> Path:
    """Return where a file can be read: its path, or that of a copy of what is elsewhere.

    Args:
        path: A path, `-` for standard input, or an address, of which `Path` has made one slash of two.

    Raises:
        UserError: If an address can't be read.
        OutageError: If its server can't be reached.
    """
    if str(path) == STANDARD_INPUT:
        return _copy_input()
    found = _ADDRESS.fullmatch(str(path))
    if found is None or path.exists():
        return path
    scheme, address = found["scheme"], f"{found['scheme']}://{found['rest']}"
    if scheme == "sqlite" and not is_query(get_options().table):
        return find_database(address)
    if is_database(scheme):
        return _copy_table(address, get_options().table)
    if scheme in REMOTE_SCHEMES:
        return _copy_remote(address)
    return path


@cache
def _make_folder() -> Path:
    """Return a folder for copies, which goes when the process ends."""
    held = ExitStack()
    atexit.register(held.close)
    return held.enter_context(hold_temporary_folder("cowbird-copies"))


def _reserve(name: str) -> Path:
    """Return the path of a new file of a name."""
    folder = Path(tempfile.mkdtemp(dir=_make_folder()))
    return folder / (PurePosixPath(name).name or "file")


def _forget_time(path: Path) -> Path:
    os.utime(path, (0, 0))
    return path


@cache
def _copy_input() -> Path:
    """Copy standard input, and name it after what it holds."""
    stream: IO[bytes] = sys.stdin.buffer
    plain = _reserve("stdin")
    with plain.open("wb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)
    with plain.open("rb") as file:
        head = file.read(16)
    if not head:
        raise UserError("Standard input should hold a file, and it is empty.", "Such as: zcat items.csv.gz | … -")
    packed = next((ending for magic, ending in _PACKED if head.startswith(magic)), "")
    named = plain.rename(plain.with_name(f"stdin{packed}"))
    with from_file(named).open_stream() as stream:
        head = stream.read(4096)
    return _forget_time(named.rename(named.with_name(f"stdin{_guess_ending(head)}{packed}")))


def _guess_ending(head: bytes) -> str:
    """Return the ending of a file that begins so."""
    for magic, ending in _MAGIC:
        if head.startswith(magic):
            return ending
    begun = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return ".json" if begun[:1] in (b"{", b"[") else ".csv"


@cache
def _copy_remote(address: str) -> Path:
    """Copy a file or a folder behind an address."""
    target = _reserve(name_address(address))
    for path in copy_remote(address, target):
        _forget_time(path)
    return target


@cache
def _copy_table(address: str, table: str | None) -> Path:
    """Copy a table of a database."""
    name = re.sub(r"\W+", "-", table or "").strip("-")[:60] or "table"
    target = _reserve(f"{name}.parquet")
    copy_table(address, table, target)
    if not target.exists():
        raise UserError(f"{hide_secrets(address)} gave no rows.", "Is the table or the query (--table) right?")
    return _forget_time(target)


def fingerprint(path: Path) -> FileSeal:
    """Return what tells a file or a folder from another or an older one."""
    place = locate(path)
    if not place.is_dir():
        return _fingerprint_file(place)
    parts = [part.path for part in list_parts(place)]
    found = [_fingerprint_file(part) for part in parts]
    names = [str(part.relative_to(place)) for part in parts]
    digest = hashlib.sha256(repr(list(zip(names, found, strict=True))).encode("utf-8", "surrogatepass"))
    return sum(size for size, _, _ in found), max(time for _, time, _ in found), digest.hexdigest()


def _fingerprint_file(path: Path) -> FileSeal:
    known = path.stat()
    if not stat.S_ISREG(known.st_mode):  # who opens a pipe waits
        raise OSError(errno.EINVAL, "It is a pipe or a device, and a file was expected", str(path))
    with path.open("rb") as file:
        return known.st_size, known.st_mtime_ns, hashlib.sha256(file.read(FINGERPRINT_BYTES)).hexdigest()


def check_unchanged(path: Path, seal: FileSeal) -> None:
    """Check that a file or a folder is still the one that it was.

    Args:
        path: The file or the folder.
        seal: What `fingerprint` said of it before.

    Raises:
        UserError: If it is another one, or is not there any more.
    """
    with suppress(OSError):
        if fingerprint(path) == seal:
            return
    raise UserError(f"{show_name(path)} was changed while it was read.", "Give a copy that nobody writes.")


@contextmanager
def refuse_changes(*paths: Path | None) -> Generator[None]:
    """Check at the end of a block that reads files that they are still those from its beginning.

    Args:
        paths: The files. What is not there, or is elsewhere and so copied before it is read, is passed over.

    Raises:
        UserError: If one was changed.
    """
    seals = {path: fingerprint(path) for path in paths if path is not None and path.exists()}
    yield
    for path, seal in seals.items():
        check_unchanged(path, seal)
