"""Files that are elsewhere: on standard input, behind an address, or in a database's server.

Each is copied once into a folder of this process, for a scan reads it twice, and read as any other file. The folder
goes when the process ends. What is copied has no time of its own, so an interrupted scan of the same bytes goes on.
"""

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cowbird.errors import OutageError, UserError
from cowbird.faults import explain_outage
from cowbird.ingest.blobs import from_file
from cowbird.ingest.folders import list_parts
from cowbird.ingest.options import get_options

STANDARD_INPUT = "-"
"""The name of standard input."""
REMOTE_SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "https", "http")
"""Addresses that fsspec reads."""
DATABASE_SCHEMES = ("postgresql", "postgres", "mysql", "mssql", "oracle", "redshift", "snowflake", "bigquery", "sqlite")
"""Addresses of databases; polars reads them, and `sqlite` is a file."""
FINGERPRINT_BYTES = 1 << 20
"""Bytes of a file that tell it from others, beside its size and time."""

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
    scheme, rest = found["scheme"], found["rest"]
    if scheme == "sqlite":
        return Path(f"/{rest}") if str(path).startswith("sqlite:/") and Path(f"/{rest}").exists() else Path(rest)
    if scheme.partition("+")[0] in DATABASE_SCHEMES:
        return _copy_table(f"{scheme}://{rest}", get_options().table)
    if scheme in REMOTE_SCHEMES:
        return _copy_remote(f"{scheme}://{rest}")
    return path


@cache
def _make_folder() -> "tempfile.TemporaryDirectory[str]":
    """Return a folder for copies, which goes when the process ends."""
    return tempfile.TemporaryDirectory(prefix="cowbird-")


def _reserve(name: str) -> Path:
    """Return the path of a new file of a name."""
    folder = Path(tempfile.mkdtemp(dir=_make_folder().name))
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


def hide_secrets(address: str) -> str:
    """Return an address without user names, passwords and what follows a question mark."""
    return re.sub(r"//[^/@]*@", "//", address).partition("?")[0]


@cache
def _copy_remote(address: str) -> Path:
    """Copy a file or a folder behind an address."""
    shown = hide_secrets(address)
    try:
        import fsspec  # noqa: PLC0415
    except ImportError:
        raise _make_missing(shown, "fsspec") from None
    made: Any = fsspec
    try:
        files, root = made.core.url_to_fs(address)
        name = PurePosixPath(hide_secrets(address)).name
        target = _reserve(name)
        if files.isfile(root):
            with files.open(root, "rb") as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
            return _forget_time(target)
        parts = list(_list_remote(files, root))
        if not parts:
            raise UserError(f"Expected a file or a folder at {shown}, and there is nothing.", "Check the address.")
        for part, inside in parts:
            place = target / inside
            place.parent.mkdir(parents=True, exist_ok=True)
            with files.open(part, "rb") as source, place.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
            _forget_time(place)
        return target
    except UserError:
        raise
    except ImportError as error:
        raise _make_missing(shown, str(error)) from None
    except Exception as error:
        raise _explain_remote(shown, error) from None


def _list_remote(files: Any, root: str) -> Iterator[tuple[str, str]]:
    """Yield the files below a folder elsewhere, and their paths in it; none leads out of it."""
    for part in sorted(files.find(root)):
        inside = PurePosixPath(str(part)[len(root.rstrip("/")) :].lstrip("/"))
        if ".." not in inside.parts and inside.name and not inside.is_absolute():
            yield str(part), str(inside)


def _make_missing(shown: str, what: str) -> UserError:
    return UserError(
        f"{shown} can't be read: a library is missing ({what.partition(chr(10))[0][:200]}).",
        "Install it: pip install 'cowbird[remote]'.",
    )


def _explain_remote(shown: str, error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"Expected a file or a folder at {shown}, and there is nothing.", "Check the address.")
    reason = hide_secrets(str(error).partition("\n")[0])[:200] or type(error).__name__
    message = f"{shown} can't be read: {reason}."
    if explain_outage(error) is not None or "Connect" in type(error).__name__:
        return OutageError(message, "Is the server up, and the network? Try again.")
    return UserError(message, "Check the address and your credentials; see fsspec's documentation of this scheme.")


@cache
def _copy_table(address: str, table: str | None) -> Path:
    """Copy a table of a database's server."""
    shown = hide_secrets(address)
    if table is None:
        raise UserError(f"Which table of {shown} is read is not said.", "Name it: --table (table in specs).")
    import polars as pl  # noqa: PLC0415

    doubled = table.replace('"', '""')
    target = _reserve(f"{table.replace('/', '_')}.parquet")
    try:
        found = pl.read_database_uri(f'SELECT * FROM "{doubled}"', address)
        found.write_parquet(target)
    except ImportError as error:  # polars says ModuleNotFoundError
        raise UserError(
            f"{shown} can't be read: {str(error).partition(chr(10))[0][:200]}.",
            "Install connectorx, or the ADBC driver of the database.",
        ) from None
    except Exception as error:
        raise _explain_remote(shown, error) from None
    return _forget_time(target)


def fingerprint(path: Path) -> tuple[int, int, str]:
    """Return what tells a file or a folder from another or an older one: size, time and a hash of its beginning."""
    place = locate(path)
    if not place.is_dir():
        return _fingerprint_file(place)
    parts = [part.path for part in list_parts(place)]
    found = [_fingerprint_file(part) for part in parts]
    names = [str(part.relative_to(place)) for part in parts]
    digest = hashlib.sha256(repr(list(zip(names, found, strict=True))).encode("utf-8", "surrogatepass"))
    return sum(size for size, _, _ in found), max(time for _, time, _ in found), digest.hexdigest()


def _fingerprint_file(path: Path) -> tuple[int, int, str]:
    known = path.stat()
    with path.open("rb") as file:
        return known.st_size, known.st_mtime_ns, hashlib.sha256(file.read(FINGERPRINT_BYTES)).hexdigest()
