"""Where the bytes of a source come from: a file, a compressed file, a folder, or a member of a zip archive.

Everything is streamed. Nothing is ever extracted to disk, so a member's path means nothing beyond its last part.
"""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import pyarrow as pa

from cowbird.errors import UserError
from cowbird.path_hints import list_names, suggest_names

COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
"""Endings of compressed files, in letters of any case."""
_DAMAGE = (EOFError, OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
_UNOPENABLE = (*_DAMAGE, RuntimeError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that can be read from the start as often as needed."""

    name: str
    """Name of the file, for messages."""
    opener: Callable[[ExitStack], IO[bytes]]
    """Opens the stream; what it opens on the way goes onto the stack."""

    @contextmanager
    def open_stream(self) -> Generator[IO[bytes]]:
        """Open the bytes for reading.

        Raises:
            UserError: If they can't be opened, or turn out damaged while they are read.
        """
        with ExitStack() as stack:
            try:
                opened = self.opener(stack)
            except _UNOPENABLE as error:
                raise self._make_error(error) from error
            try:
                yield opened
            except _DAMAGE as error:
                raise self._make_error(error) from error

    def _make_error(self, error: Exception) -> UserError:
        return UserError(
            f"{self.name} can't be read: {str(error) or type(error).__name__}.",
            "Check that the file is complete, not encrypted and may be read, or download it again.",
        )


def split_compression(name: str) -> tuple[str, str]:
    """Return a file's name without the ending of its compression, and that ending in small letters or nothing."""
    ending = PurePosixPath(name).suffix.lower()
    return (name[: -len(ending)], ending) if ending in COMPRESSIONS else (name, "")


def from_file(path: Path) -> Blob:
    """Return the bytes of one file, unpacked if its name ends as one of `COMPRESSIONS` does.

    Raises:
        UserError: If there is no such file; the hint names the ones in its folder that are spelled alike.
    """
    if not path.is_file():
        if path.exists() and not path.is_dir():
            raise UserError(
                f"{path} is a pipe or a device, and no file.",
                "Send its rows to standard input and give '-' for it, or write them to a file and give that.",
            )
        if path.is_symlink() and not path.exists():
            raise UserError(
                f"Expected a file at {path}, and there is a link that leads to none.",
                "Make the link anew, or give the file itself.",
            )
        found = "a folder" if path.is_dir() else "nothing"
        raise UserError(
            f"Expected a file at {path}, and there is {found}.", suggest_names(path.name, list_names(path.parent))
        )
    compression = split_compression(path.name)[1]
    return Blob(path.name, lambda stack: stack.enter_context(_open_file(path, compression)))


def _open_file(path: Path, compression: str) -> IO[bytes]:
    """Open a file, unpacked as it is read."""
    match compression:
        case ".gz":
            return cast("IO[bytes]", gzip.open(path, "rb"))
        case ".bz2":
            return cast("IO[bytes]", bz2.open(path, "rb"))
        case ".xz":
            return cast("IO[bytes]", lzma.open(path, "rb"))
        case ".zst":
            arrow: Any = pa
            return io.BufferedReader(arrow.input_stream(str(path), compression="zstd"), 1 << 18)
        case _:
            return path.open("rb")


def from_folder(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Blob]:
    """Find files by name in a folder or a zip archive.

    Args:
        path: The folder (where `name.gz` serves as `name`) or the archive (where folders inside don't matter).
        required: Names that have to be there.
        optional: Names that may be there.

    Raises:
        UserError: If the path or a required file is missing, or the archive is damaged.
    """
    if path.is_dir():
        found = _find_in_folder(path, [*required, *optional])
        listing = list_names(path)
    elif path.is_file():
        found, listing = _find_in_archive(path, [*required, *optional])
    else:
        raise UserError(
            f"Expected a folder or a zip archive at {path}, and there is nothing.",
            suggest_names(path.name, list_names(path.parent)),
        )
    missing = [name for name in required if name not in found]
    if missing:
        raise UserError(
            f"{path} should hold {', '.join(required)}, and {', '.join(missing)} can't be found.",
            suggest_names(missing[0], listing),
        )
    return found


def _find_in_folder(path: Path, names: Sequence[str]) -> dict[str, Blob]:
    """Return the blobs of the names that a folder holds, plain or gzipped."""
    found: dict[str, Blob] = {}
    for name in names:
        for candidate in (path / name, path / f"{name}.gz"):
            if candidate.is_file():
                found[name] = from_file(candidate)
                break
    return found


def _find_in_archive(path: Path, names: Sequence[str]) -> tuple[dict[str, Blob], list[str]]:
    """Return the blobs of the names that an archive holds, and the base names of all its members."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info.filename for info in archive.infolist() if not info.is_dir()]
    except _UNOPENABLE as error:
        raise UserError(
            f"{path} should be a folder or a zip archive, and it is neither: {error}.",
            "Give the folder with the unpacked files, or download the archive again.",
        ) from error
    by_name: dict[str, str] = {}
    for member in members:
        if not member.startswith("__MACOSX/"):
            by_name.setdefault(PurePosixPath(member).name, member)
    return {name: _make_member(path, by_name[name]) for name in names if name in by_name}, list(by_name)


def _make_member(path: Path, member: str) -> Blob:
    """Return the bytes of one member of an archive."""

    def open_member(stack: ExitStack) -> IO[bytes]:
        return stack.enter_context(stack.enter_context(zipfile.ZipFile(path)).open(member))

    return Blob(PurePosixPath(member).name, open_member)
