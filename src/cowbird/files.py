"""Writing files so that they are whole or not there: a temporary name first, then a rename.

Folders may be shared with people who are not trusted, such as `/tmp`. So temporary names can't be guessed, folders of
known names are used only if they are ours, links in them are not followed, and what is written has the permissions that
the user's umask gives to new files.
"""

import errno
import hashlib
import os
import secrets
import stat
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal

import platformdirs

from cowbird.errors import UserError


@contextmanager
def replace_atomically(path: Path) -> Generator[Path]:
    """Give a temporary path beside `path`, and rename it over `path` if the block ends well.

    Raises:
        UserError: If the folder can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = _probe_mode(path.parent)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        os.close(handle)
    except OSError as error:
        raise UserError(f"'{path.parent}' can't be written: {error.strerror}.", "Choose another folder.") from None
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.chmod(mode)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"'{path}' can't be written: {error.strerror}.", "Is the disk full or read-only?") from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _probe_mode(folder: Path) -> int:
    """Return the permissions that a new file gets in a folder: the umask, or what the folder says instead of it."""
    probe = folder / f".{secrets.token_hex(8)}.partial"
    handle = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(handle).st_mode)
    finally:
        os.close(handle)
        probe.unlink(missing_ok=True)


def share_folder(folder: Path) -> None:
    """Give a folder and all in it the permissions that new ones have; some libraries write for the owner alone."""
    mode = _probe_mode(folder)
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(mode | (mode & 0o444) >> 2 if path.is_dir() else mode)


def make_scratch_folder(folder: Path) -> None:
    """Make a folder in which work can be resumed, for its owner alone; or take the one that earlier work left.

    Its name can be guessed, so somebody may have put another folder there, full of links to files of ours.

    Raises:
        UserError: If what is there is a link, or belongs to somebody else.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or not _is_own(found):
        raise UserError(
            f"'{folder}' is where unfinished work is kept, and it is a link or belongs to another user.",
            "Remove it, or choose a folder that others can't write to.",
        )
    folder.chmod(0o700)


def open_own_file(path: Path, mode: Literal["ab", "r+b"]) -> IO[bytes]:
    """Open a file of a scratch folder for writing, or make it; no link is followed.

    Raises:
        UserError: If it is a link, has another name too, or belongs to somebody else.
    """
    refused = UserError(f"'{path}' is a link, or belongs to another user.", "Remove it, or choose another file.")
    flags = os.O_APPEND | os.O_WRONLY if mode == "ab" else os.O_RDWR
    try:
        handle = os.open(path, flags | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise refused from None
        raise
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or not _is_own(found):
        os.close(handle)
        raise refused
    return os.fdopen(handle, mode)


def _is_own(found: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or found.st_uid == os.geteuid()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replace_atomically(path) as partial:
        partial.write_text(text, encoding="utf-8")


def get_cache_folder() -> Path:
    """Return where fetched assets and converted models are kept: `COWBIRD_CACHE`, or `cowbird` in the user's cache."""
    chosen = os.environ.get("COWBIRD_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("cowbird", appauthor=False)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_texts(texts: Iterable[str]) -> str:
    """Return the SHA-256 of some texts, half surrogates and all; it tells where one ends and the next begins."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d " % len(data) + data)
    return digest.hexdigest()
