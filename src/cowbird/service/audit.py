"""The audit log: a line of JSON for every verdict, on disk before the verdict is answered.

`audit.jsonl` in the log's folder is only ever appended to. A thread writes: all records that wait are written together
and synced once (group commit), so the disk is asked once for many requests. Records are numbered without gaps, across
restarts. A file that has grown to its limit is renamed to `audit-NUMBER.jsonl`, where NUMBER is its first record's, and
no file is ever removed.

A process that is killed may leave half a line at the end. It belongs to a verdict that nobody was answered. It is cut
off when the log is opened again, and the log says so.
"""

import json
import os
import queue
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from cowbird.errors import OutageError, UserError
from cowbird.faults import explain_write_errors
from cowbird.locks import lock_folder
from cowbird.ownership import make_scratch_folder, open_own_file

AUDIT_FILE = "audit.jsonl"
"""Name of the file that is written to."""
_TAIL_BYTES = 1 << 16
_JSON = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))


class _Entry(NamedTuple):
    """Records that belong together, and who waits for them."""

    records: Sequence[Mapping[str, Any]]
    done: "Future[int]"


class AuditLog:
    """An append-only log of verdicts; a context manager.

    Args:
        folder: Its folder, made if it is not there. One process at a time writes there.
        max_bytes: Size at which a file is closed and the next one begun.
        warn: Told if the file system knows no locks.

    Raises:
        UserError: On entering, if another process writes there.
        OutageError: On entering, if the folder can't be written.
    """

    def __init__(self, folder: Path, max_bytes: int, warn: Callable[[str], None] = warnings.warn) -> None:
        self.folder, self.path = folder, folder / AUDIT_FILE
        self.failure: str | None = None
        """Why the last records could not be written; `None` if they were."""
        self.commits = 0
        """How often the disk was asked."""
        self._max_bytes, self._warn = max_bytes, warn
        self._waiting: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="audit log", daemon=True)
        self._open = ExitStack()
        self._number = self._first = 1
        self._size = 0

    def __enter__(self) -> Self:
        with self._open, explain_write_errors(self.folder):
            make_scratch_folder(self.folder, named=True)
            hint = "Wait for it, or give this service a folder of its own."
            self._open.enter_context(lock_folder(self.folder, "service", hint, self._warn))
            torn = self._recover()
            self._open_file()
            self._open = self._open.pop_all()
        self._thread.start()
        if torn:
            self.append([{"event": "recovered", "cut": torn}]).result()
        return self

    def __exit__(self, *_: object) -> None:
        """Write what waits, then close."""
        self._waiting.put(None)
        self._thread.join()
        with suppress(OSError):
            os.close(self._handle)
        self._open.close()

    def append(self, records: Sequence[Mapping[str, Any]]) -> "Future[int]":
        """Have records written, together and in order.

        Args:
            records: Plain JSON values; `number` and `at` are added.

        Returns:
            The number of the first one, once all are on disk. It raises `OutageError` if they can't be written.
        """
        done: Future[int] = Future()
        self._waiting.put(_Entry(records, done))
        return done

    def _recover(self) -> int:
        """Cut off half a line that a killed process left, and find the next number; returns the bytes cut."""
        with open_own_file(self.path, "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            whole = size
            while whole:
                begin = max(0, whole - _TAIL_BYTES)
                file.seek(begin)
                at = file.read(whole - begin).rfind(b"\n")
                whole = begin + at + 1 if at >= 0 else begin
                if at >= 0:
                    break
            if whole < size:
                file.truncate(whole)
                os.fsync(file.fileno())
        numbers = [self._read_number(self.path, last=True)]
        numbers += [self._read_number(path, last=True) for path in sorted(self.folder.glob("audit-*.jsonl"))[-1:]]
        self._number = max(numbers) + 1
        self._first = self._read_number(self.path, last=False) or self._number
        return size - whole

    def _read_number(self, path: Path, last: bool) -> int:
        """Return the number of a file's first or last record; 0 if it has none.

        Raises:
            UserError: If it is damaged.
        """
        with path.open("rb") as file:
            line = file.readline()
            if last and line:
                size = file.seek(0, os.SEEK_END)
                tail, held = b"", size
                while held and tail.count(b"\n") < 2:
                    step = min(_TAIL_BYTES, held)
                    held -= step
                    file.seek(held)
                    tail = file.read(step) + tail
                line = tail.splitlines()[-1]
        if not line:
            return 0
        try:
            return int(json.loads(line)["number"])
        except (ValueError, TypeError, KeyError):
            raise UserError(
                f"'{path}' should be an audit log, and a line of it can't be read.", "Move it away, and start again."
            ) from None

    def _open_file(self) -> None:
        with open_own_file(self.path, "ab") as file:
            self._handle = os.dup(file.fileno())
        self._size = os.fstat(self._handle).st_size
        _sync_folder(self.folder)

    def _run(self) -> None:
        """Write what waits, until there is nothing more to come."""
        ended = False
        while not ended:
            entries = [self._waiting.get()]
            while not self._waiting.empty():
                entries.append(self._waiting.get())
            ended = None in entries
            self._commit([entry for entry in entries if entry is not None])

    def _commit(self, entries: Sequence[_Entry]) -> None:
        """Write some entries and sync once; either all are on disk, or none is and all are told."""
        if not entries:
            return
        number, firsts, lines = self._number, list[int](), list[str]()
        at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        for entry in entries:
            firsts.append(number)
            for record in entry.records:
                lines.append(_JSON.encode({"number": number, "at": at, **record}) + "\n")
                number += 1
        data = "".join(lines).encode()
        try:
            _write_all(self._handle, data)
            os.fsync(self._handle)
        except OSError as error:
            self._undo(error)
            told = OutageError(f"'{self.path}' can't be written: {error.strerror or error}.", "Make room on its disk.")
            for entry in entries:
                entry.done.set_exception(told)
            return
        self._number, self._size, self.failure = number, self._size + len(data), None
        self.commits += 1
        for entry, first in zip(entries, firsts, strict=True):
            entry.done.set_result(first)
        if self._size >= self._max_bytes:
            self._rotate()

    def _undo(self, error: OSError) -> None:
        """Take back what a full disk took in part."""
        self.failure = error.strerror or str(error)
        with suppress(OSError):
            os.ftruncate(self._handle, self._size)

    def _rotate(self) -> None:
        """Close the file under the number of its first record, and begin the next one."""
        try:
            self.path.rename(self.folder / f"audit-{self._first:012}.jsonl")
            before = self._handle
            self._open_file()
            os.close(before)
            self._first = self._number
        except OSError as error:  # the old file goes on growing
            self.failure = error.strerror or str(error)


def _write_all(handle: int, data: bytes) -> None:
    held = memoryview(data)
    while held:
        held = held[os.write(handle, held) :]


def _sync_folder(folder: Path) -> None:
    """Have the folder's list of names on disk, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
