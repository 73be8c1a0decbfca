"""The folder beside findings in which a scan keeps what it found until all is there, so that it can be resumed."""

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Self

from cowbird.faults import explain_write_errors
from cowbird.files import sweep_partials
from cowbird.locks import lock_folder
from cowbird.ownership import make_scratch_folder

SCAN_KEPT_HINT = "What was scanned is kept; scan again to go on."
"""What is said where findings can't be written."""


def explain_scan_errors(path: Path) -> AbstractContextManager[None]:
    """Say of errors of the system what can be done about them, and that nothing is lost."""
    return explain_write_errors(path, SCAN_KEPT_HINT)


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
        self.out, self.folder = out, out.with_name(f"{out.name}.partial")
        self._key = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        self._resume, self._warn, self._open = resume, warn, ExitStack()

    def __enter__(self) -> Self:
        with self._open, explain_scan_errors(self.out):
            make_scratch_folder(self.folder)
            hint = "Wait for it, or choose another place for the findings: --out."
            self._open.enter_context(lock_folder(self.folder, "scan", hint, self._warn))
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
