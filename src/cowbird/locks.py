"""Locks on folders that one process at a time writes: a second one is told who is at work there, or waits.

A lock is the system's (`flock`), so it is gone when its holder ends, however that ends. The file in which it lies says
who holds it. Some network file systems know no such locks: work goes on there, and says so.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cowbird.errors import UserError
from cowbird.faults import explain_write_errors
from cowbird.files import read_plain_file, take_lock
from cowbird.ownership import open_own_file

LOCK_FILE = "lock"
"""Name of the file in a folder that is locked."""
SECONDS_FOR_ORPHANS = 5.0
"""How long to wait for the workers of a process that has just ended; they end by themselves."""
SECONDS_BETWEEN_TRIES = 0.05


@contextmanager
def lock_folder(
    folder: Path, work: str, hint: str, warn: Callable[[str], None], patience: float = 0.0
) -> Generator[None]:
    """Hold the lock of a folder while the block runs.

    Args:
        folder: The folder. It is there.
        work: What is done in it, such as `run`.
        hint: What somebody can do who finds it locked.
        warn: Told if the file system knows no locks.
        patience: Seconds to wait for another process that holds it.

    Raises:
        UserError: If another process holds it; says who, and since when.
        OutageError: If the folder can't be written.
    """
    path = folder / LOCK_FILE
    with explain_write_errors(folder):
        handle = _acquire(path, work, hint, warn, patience)
    with _hold(handle, path):
        yield


@contextmanager
def try_lock_folder(folder: Path, warn: Callable[[str], None]) -> Generator[bool]:
    """Hold the lock of a folder while the block runs, if nobody else does; nobody is waited for.

    Args:
        folder: The folder. It is there.
        warn: Told if the file system knows no locks.

    Yields:
        Whether it is held; true, too, where the file system knows no locks.

    Raises:
        OutageError: If the folder can't be written.
    """
    path = folder / LOCK_FILE
    with explain_write_errors(folder):
        handle = _try_once(path, warn)
    if handle is None:
        yield False
        return
    with _hold(handle, path):
        yield True


def is_folder_locked(folder: Path) -> bool:
    """Tell whether a process holds the lock of a folder at the moment; nothing is written."""
    try:
        handle = os.open(folder / LOCK_FILE, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return False
    try:
        return take_lock(handle) is False
    finally:
        os.close(handle)


@contextmanager
def _hold(handle: int, path: Path) -> Generator[None]:
    """Say in the file of a lock who holds it, and release it at the end."""
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"}
    try:
        with suppress(OSError):  # on a full disk the lock holds, and does not say whose it is
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(owner).encode())
        yield
    finally:
        with suppress(OSError):
            if _is_same(handle, path):
                path.unlink()
        os.close(handle)


def _acquire(path: Path, work: str, hint: str, warn: Callable[[str], None], patience: float) -> int:
    """Return the open file of a lock that was taken."""
    began = time.monotonic()
    while True:
        handle = _try_once(path, warn)
        if handle is not None:
            return handle
        owner = _read_owner(path)
        if time.monotonic() - began > max(patience, SECONDS_FOR_ORPHANS if _is_gone(owner) else 0.0):
            who = (
                f": process {owner['pid']} on {owner.get('host')}, since {owner.get('since')}"
                if owner.get("pid")
                else ""
            )
            raise UserError(f"Another {work} is at work in '{path.parent}'{who}.", hint)
        time.sleep(SECONDS_BETWEEN_TRIES)


def _try_once(path: Path, warn: Callable[[str], None]) -> int | None:
    """Return the open file of a lock that was taken; `None` if somebody else holds it."""
    while True:
        with open_own_file(path, "ab") as file:
            handle = os.dup(file.fileno())
        try:
            taken = take_lock(handle)
            if taken is None:
                warn(f"The file system of '{path.parent}' knows no locks. Let no other process write there meanwhile.")
                return handle
            if taken and _is_same(handle, path):  # its last holder may have removed it just now
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if not taken:
            return None


def _is_same(handle: int, path: Path) -> bool:
    """Tell whether a path still names the file that is open."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _read_owner(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, TypeError):
        return dict(json.loads(read_plain_file(path)))
    return {}


def _is_gone(owner: dict[str, Any]) -> bool:
    """Tell whether a holder has ended; its workers still hold the lock for a moment."""
    if owner.get("host") != socket.gethostname() or not isinstance(owner.get("pid"), int):
        return not owner  # it has not written yet, or has just removed it
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
