"""Writing files and folders so that they are whole or not there: a temporary name first, then a rename.

A process that is killed leaves a temporary folder behind; it is locked by its maker, so the next one can tell that
nobody is at work on it any more (`sweep_partials`).

Folders may be shared with people who are not trusted, such as `/tmp`. So temporary names can't be guessed, folders of
known names are used only if they are ours (`ownership`), no links are followed, and what is written has the permissions
that the user's umask gives to new files.
"""

import errno
import fnmatch
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from functools import lru_cache
from io import BufferedReader
from pathlib import Path

import platformdirs

from cowbird.errors import UserError
from cowbird.faults import explain_write_errors
from cowbird.ownership import is_owned
from cowbird.processes import hold_interrupts

PARTIAL_SUFFIX = ".cowbird-partial"
"""How the names of folders end in which something is being written; they begin with a dot."""
MAX_RECORD_BYTES = 1 << 26
"""Largest file of settings or records that is read."""
_SHELL_FILE = re.compile(r"/dev/stdin|/dev/fd/\d+|/proc/self/fd/\d+")
"""What the shell calls files that it opened for a command."""
_SYSTEM_FOLDERS = ("/dev", "/proc", "/sys")
"""Where no file of a user lies."""


def check_replaceable(path: Path) -> None:
    """Check that a path is a file's, or nobody's yet.

    `/dev/stdout` looks like a file where a shell sends it into one, and a rename would take its name for good.

    Raises:
        UserError: If it is `-`, a device or a pipe, or lies where the system keeps those.
    """
    if str(path) == "-":
        raise UserError("'-' is no name of a file: here nothing is written to standard output.", "Name a file.")
    place = Path(os.path.realpath(path.parent))
    refused = any(map(place.is_relative_to, _SYSTEM_FOLDERS)) and not place.is_relative_to("/dev/shm")
    with suppress(OSError):  # a name that is too long is told by who writes
        refused = refused or (path.exists() and not path.is_file() and not path.is_dir())
    if refused:
        raise UserError(
            f"'{path}' can't be written: it is a pipe or a device, or lies among the system's.", "Name another file."
        )


@contextmanager
def replace_atomically(path: Path) -> Generator[Path]:
    """Give a temporary path, and rename it over `path` if the block ends well.

    The temporary file lies in a folder of its own beside `path`, with whatever a library writes beside it.

    Raises:
        OutageError: If the file can't be written; what stood there before still stands.
    """
    with explain_write_errors(path):
        check_replaceable(path)
        if path.is_dir():
            raise UserError(f"'{path}' is a folder, and not replaced.", "Name another file.")
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = _probe_mode(path.parent)
        with _make_partial_folder(path) as folder:
            partial = folder / path.name
            partial.touch()
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.chmod(mode)
            partial.replace(path)


@contextmanager
def replace_folder_atomically(folder: Path, keep: bool = False) -> Generator[Path]:
    """Give a temporary folder beside `folder`, and give it that name if the block ends well.

    An older folder of the name goes once the new one stands there.

    Args:
        folder: The folder.
        keep: Whether one that stands there by then stays, since another process made the same and was faster.

    Raises:
        OutageError: If it can't be written; what stood there before still stands.
    """
    with explain_write_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _make_partial_folder(folder) as held:
            partial = held / folder.name
            partial.mkdir()
            yield partial
            share_folder(partial)
            with hold_interrupts():
                if not (keep and folder.exists()):
                    _swap_folders(partial, folder, held / "older")


def _swap_folders(new: Path, folder: Path, aside: Path) -> None:
    """Put a folder in the place of another one, which is moved aside first and put back if that fails."""
    if not folder.exists():
        new.rename(folder)
        return
    folder.rename(aside)
    try:
        new.rename(folder)
    except BaseException:
        aside.rename(folder)
        raise


@contextmanager
def _make_partial_folder(path: Path) -> Generator[Path]:
    """Give a new folder beside a path, locked as long as its maker is at work; it goes at the end."""
    folder: Path | None = None
    handle: int | None = None
    try:
        with hold_interrupts():
            folder, handle = _make_locked_folder(path)
        yield folder
    finally:
        with hold_interrupts():
            if folder is not None:
                _restore_older(folder)
                if path.exists() or not (folder / "older").exists():
                    shutil.rmtree(folder, ignore_errors=True)
            if handle is not None:
                os.close(handle)


def _make_locked_folder(path: Path) -> tuple[Path, int | None]:
    """Return a new folder beside a path, and the handle that holds its lock if there is one."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL_SUFFIX))
        handle = _open_folder(folder)
        if handle is None or (take_lock(handle) is not False and folder.exists()):
            return folder, handle
        os.close(handle)  # who sweeps was faster


@contextmanager
def hold_temporary_folder(name: str) -> Generator[Path]:
    """Give a new folder among the system's temporary ones, for this user alone; it goes at the end.

    What killed processes left there of the same name goes at the beginning.

    Args:
        name: The beginning of its name.
    """
    place = Path(tempfile.gettempdir()) / name
    sweep_partials(place.parent, name)
    with _make_partial_folder(place) as folder:
        yield folder


def _open_folder(folder: Path) -> int | None:
    """Open a folder, to lock it; `None` where that can't be done."""
    try:
        return os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None


def take_lock(handle: int) -> bool | None:
    """Take the lock of an open file, which the system releases when its last holder ends.

    Returns:
        Whether it was free; `None` where the system or the file system has no such locks.
    """
    if sys.platform == "win32":
        return None
    import fcntl  # noqa: PLC0415

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def sweep_partials(folder: Path, name: str = "*", deep: bool = False) -> None:
    """Remove what dead processes left half written in a folder.

    What a living process is at work on is locked and stays. So does what belongs to others, what is a link, and
    everything where the file system has no locks.

    Args:
        folder: The folder. Whoever calls this holds its lock, if it has one.
        name: What was being written, if not everything is swept.
        deep: Whether folders in it are swept, too.
    """
    for path in sorted(_find_folders(folder, f".{name}.*{PARTIAL_SUFFIX}", deep)):
        with suppress(OSError):
            known = path.lstat()
            handle = _open_folder(path) if stat.S_ISDIR(known.st_mode) and is_owned(known) else None
            if handle is None:
                continue
            try:
                if take_lock(handle):
                    _restore_older(path)
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(handle)


def _find_folders(folder: Path, pattern: str, deep: bool) -> list[Path]:
    """Return folders by their names, with one look at each folder: `rglob` takes three times as long. No links."""
    found, waiting = list[Path](), [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                inside = [each for each in entries if each.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        found += [Path(each) for each in inside if fnmatch.fnmatch(each.name, pattern)]
        waiting += [each.path for each in inside] if deep else []
    return found


def _restore_older(partial: Path) -> None:
    """Put back the folder that a killed process had moved aside, if nothing stands in its place."""
    name = partial.name.removeprefix(".").removesuffix(PARTIAL_SUFFIX).rpartition(".")[0]
    aside, place = partial / "older", partial.with_name(name)
    if aside.is_dir() and not place.exists():
        with suppress(OSError):
            aside.rename(place)


def _probe_mode(folder: Path) -> int:
    """Return the permissions that a new file gets in a folder: the umask, or what the folder says instead of it."""
    with suppress(OSError, AttributeError):  # a file without a name, of which a kill leaves nothing
        handle = os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o666)
        try:
            return stat.S_IMODE(os.fstat(handle).st_mode)
        finally:
            os.close(handle)
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


def open_plain_file(path: Path, shell: bool = False) -> BufferedReader:
    """Open a file for reading; a pipe, a socket or a device is refused, and never waited for.

    Args:
        path: The file.
        shell: Whether what the shell opened for this command may be read to its end: `/dev/stdin`, or the `/dev/fd/63`
            of `<(…)`.

    Raises:
        OSError: If it can't be opened or is no file; its `strerror` says so in words.
    """
    given = shell and bool(_SHELL_FILE.fullmatch(str(path)))
    flags = 0 if given else getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | flags)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode) or (given and not stat.S_ISDIR(mode)):
        return os.fdopen(handle, "rb")
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "It is a pipe or a device, and a file was expected", str(path))


def read_plain_file(path: Path, most: int | None = MAX_RECORD_BYTES, shell: bool = False) -> bytes:
    """Read a file whole; see `open_plain_file`.

    Args:
        path: The file.
        most: Most bytes that it may have; `None` for any number.
        shell: See `open_plain_file`.

    Raises:
        OSError: If it can't be read, is no file, or is larger.
    """
    with open_plain_file(path, shell) as file:
        data = file.read(-1 if most is None else most + 1)
    if most is not None and len(data) > most:
        raise OSError(errno.EINVAL, f"It has more than {most:,} bytes", str(path))
    return data


def read_plain_text(path: Path, most: int | None = MAX_RECORD_BYTES, shell: bool = False) -> str:
    """Read a text file in UTF-8 whole; see `read_plain_file`. Line ends come as they are in the file."""
    return read_plain_file(path, most, shell).decode("utf-8")


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
    with open_plain_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_unchanged_file(path: Path) -> str:
    """Return the SHA-256 of a file; it is read once as long as the system tells of no change to it."""
    found = path.stat()
    return _hash_version(path, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@lru_cache(maxsize=256)
def _hash_version(path: Path, *version: int) -> str:
    return hash_file(path)


def hash_texts(texts: Iterable[str]) -> str:
    """Return the SHA-256 of some texts, half surrogates and all; it tells where one ends and the next begins."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d " % len(data) + data)
    return digest.hexdigest()
