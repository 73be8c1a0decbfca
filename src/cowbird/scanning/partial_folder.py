"""The folder beside findings in which a scan keeps what it found until all is there, so that it can be resumed."""

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

from cowbird.faults import explain_write_errors
from cowbird.files import sweep_partials
from cowbird.locks import lock_folder
from cowbird.ownership import make_scratch_folder

SCAN_KEPT_HINT = "What was scanned is kept; scan again to go on."
"""What is said where findings can't be written."""
_held: dict[Path, ExitStack] = {}
"""Locks that were taken before the scans began to write for which they are, by their folders."""


def explain_scan_errors(path: Path) -> AbstractContextManager[None]:
    """Say of errors of the system what can be done about them, and that nothing is lost."""
    return explain_write_errors(path, SCAN_KEPT_HINT)


@contextmanager
def hold_output(out: Path, warn: Callable[[str], None] = warnings.warn) -> Generator[None]:
    """Hold the place of findings from before models are loaded; the scan that then writes there takes the lock over.

    Args:
        out: What the findings become: a file or a folder.
        warn: Told if the file system knows no locks.

    Raises:
        UserError: If another process scans there, or the place can't be written.
    """
    folder = _name_folder(out)
    _held[folder] = _lock_output(out, warn)
    try:
        yield
    finally:
        left = _held.pop(folder, None)
        if left is not None:  # nothing was written
            left.close()
            with suppress(OSError):
                folder.rmdir()  # which does nothing to a folder that holds anything


def _name_folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")


def _lock_output(out: Path, warn: Callable[[str], None]) -> ExitStack:
    """Make the folder in which a scan keeps what it found, and return what lets its lock go."""
    hint = "Wait for it, or choose another place for the findings: --out."
    with ExitStack() as stack, explain_scan_errors(out):
        make_scratch_folder(_name_folder(out))
        stack.enter_context(lock_folder(_name_folder(out), f"scan to '{out}'", hint, warn))
        return stack.pop_all()


class PartialFolder(ABC):
    """`OUT.partial/`, which one process at a time works in; a context manager.

    Args:
        out: What the findings become: a file or a folder.
        key: What is scanned, and how. An earlier scan to the same place is resumed if its key is the same.
        resume: Whether to resume; otherwise what an earlier scan left is dropped.
        warn: Told if the file system knows no locks.

    Raises:
        UserError: On entering, if the folder can't be written or another process scans there.
    """

    def __init__(self, out: Path, key: str, resume: bool = True, warn: Callable[[str], None] = warnings.warn) -> None:
        self.out, self.folder = out, _name_folder(out)
        self._key = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        self._resume, self._warn, self._open = resume, warn, ExitStack()

    def __enter__(self) -> Self:
        with self._open, explain_scan_errors(self.out):
            self._open.push(_held.pop(self.folder, None) or _lock_output(self.out, self._warn))
            sweep_partials(self.folder)
            self._begin()
            self._open = self._open.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # what a full disk did not take is not part of what is kept
            self._open.close()

    @abstractmethod
    def _begin(self) -> None:
        """Take up what an earlier scan left, or begin anew."""

    @abstractmethod
    def discard(self) -> None:
        """Remove what is kept."""
