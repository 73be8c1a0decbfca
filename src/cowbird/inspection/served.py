"""Models that answer from outside: a Python function, or a process that is spoken to over pipes.

Both get histories and return a score for each item, larger is better. Neither has weights here, so they are inspected
and not changed. Both run code of the person who names them, so they need `allow_plugins`.

A process reads requests from its standard input and writes answers to its standard output. A message is the length of
its header in four bytes (little-endian), a header in JSON, and numbers in little-endian order::

    hello     {"protocol": "cowbird-score-1", "items": 1682}
    request   {"histories": n, "events": m}    offsets, int64 [n + 1]; then items, int32 [m]
    answer    {"histories": n, "items": 1682}  scores, float32 [n, items]

The process says hello once, with `"empty": true` if it has an answer to a history without events. Request and answer
alternate until standard input ends. History `i` is `items[offsets[i]:offsets[i + 1]]`, oldest first. Whatever the
process prints to standard error is shown if it fails.
"""

import ctypes
import importlib
import json
import os
import selectors
import shlex
import signal
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import IntArray
from cowbird.errors import UserError
from cowbird.plugin_errors import describe_failure, is_blamable
from cowbird.text import escape_terminal

PROTOCOL = "cowbird-score-1"
MAX_HEADER_BYTES = 1 << 16
"""Longest header of a message."""
MAX_ITEMS = 100_000_000
"""Most items of a served model."""
MAX_SCORES_ASKED = 1 << 22
"""Scores asked for in one request."""
HELLO_SECONDS, ANSWER_SECONDS = 120.0, 300.0
"""How long a process may take to say hello, and to answer a request."""
KEPT_ERROR_LINES = 5
"""Last lines of a process's standard error that are shown."""
_SET_PARENT_DEATH_SIGNAL = 1
_HINT = "docs/how-to/foreign_models.md has a whole script that serves a model."

ScoringFunction = Callable[[list[NDArray[np.int64]]], Any]
"""A person's function: histories in, scores of shape `[histories, items]` out."""


class FunctionModel:
    """A Python function as a `RankingModel`.

    Args:
        function: Takes a list of histories and returns scores, shape `[histories, items]`.
        title: What to call it in messages.
        package: Top-level name of its module.
    """

    def __init__(self, function: ScoringFunction, title: str, package: str = "") -> None:
        self._function, self.title, self._package = function, title, package
        self.answers_empty: bool = getattr(function, "answers_empty", False) is True
        """Whether it has an answer to an empty history: the function says so by an attribute of this name."""
        self.items = self._call([np.array([0])]).shape[1]
        """Size of the catalogue: as many scores as the function gives to item 0 alone."""

    def score(self, histories: Sequence[IntArray]) -> NDArray[np.float32]:
        """Score all items; see `RankingModel.score`."""
        _check_histories(histories, self.items, self.answers_empty)
        parts = [self._call(part) for part in _split_histories(histories, self.items)]
        return np.concatenate(parts) if parts else np.empty((0, self.items), dtype=np.float32)

    def _call(self, histories: Sequence[IntArray]) -> NDArray[np.float32]:
        asked = [np.array(history, dtype=np.int64) for history in histories]
        try:
            found: Any = self._function(asked)
            if hasattr(found, "detach"):  # a tensor of torch
                found = found.detach().cpu()
            scores = np.asarray(found, dtype=np.float32)
        except BaseException as error:  # somebody else's code, which may fail in any way
            if not is_blamable(error):
                raise
            raise describe_failure(error, f"The {self.title} raised", {self._package}) from error
        items: int | None = getattr(self, "items", None)
        if scores.ndim != 2 or len(scores) != len(asked) or not scores.shape[1] or items not in (None, scores.shape[1]):
            expected = f"[{len(asked)}, {'items' if items is None else items}]"
            raise UserError(f"The {self.title} should return scores {expected}, and they are {scores.shape}.", _HINT)
        return _check_finite(scores, self.title)


def open_function(name: str, allow_plugins: bool) -> FunctionModel:
    """Return the model behind `module:function`.

    Args:
        name: A module that can be imported, also from the current folder, and a function in it.
        allow_plugins: Whether it may be imported, which runs its code.

    Raises:
        UserError: If it is not there, may not be imported, or returns no scores.
    """
    module, _, function = name.partition(":")
    if not all(part.isidentifier() for part in module.split(".")) or not function.isidentifier():
        raise UserError(f"'{name[:80]}' does not name a function.", "Write function:package.module:function.")
    _require_permission(allow_plugins, f"function:{name}", f"import the Python module '{module}'")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    title = f"function '{name}'"
    try:
        found: Any = getattr(importlib.import_module(module), function)
    except BaseException as error:  # somebody else's code, which may fail in any way
        if not is_blamable(error):
            raise
        raise describe_failure(error, f"The {title} can't be loaded:", {module.partition(".")[0]}) from error
    if not callable(found):
        raise UserError(f"The {title} is not a function.", _HINT)
    return FunctionModel(found, title, module.partition(".")[0])


class ProcessModel:
    """A process as a `RankingModel`. It ends with this one, with the object, or with `close`.

    Args:
        command: What is started, without a shell.
        start_seconds: How long it may take to say hello.
        answer_seconds: How long it may take to answer a request.

    Raises:
        UserError: If it can't be started, or does not speak the protocol.
    """

    def __init__(
        self,
        command: Sequence[str],
        start_seconds: float = HELLO_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self.title = f"process '{escape_terminal(shlex.join(command), 80)}'"
        self._answer_seconds = answer_seconds
        self._told: deque[str] = deque(maxlen=KEPT_ERROR_LINES)
        self._process = self._start(command)
        self._finalizer = weakref.finalize(self, _end_process, self._process)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        for pipe in (self._input, self._output):
            os.set_blocking(pipe.fileno(), False)
        hello = self._read_header(time.monotonic() + start_seconds)
        items = hello.get("items")
        if hello.get("protocol") != PROTOCOL or type(items) is not int or not 1 <= items <= MAX_ITEMS:
            self._fail(f"did not say hello as {PROTOCOL} with a number of items")
        self.items: int = items
        """Size of the catalogue, as the process says."""
        self.answers_empty: bool = hello.get("empty") is True
        """Whether it has an answer to an empty history, as the process says."""

    def _start(self, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        try:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise UserError(f"The {self.title} can't be started: {reason}.", "Check the command.") from None
        threading.Thread(target=_keep_lines, args=(process.stderr, self._told), daemon=True, name="stderr").start()
        return process

    def score(self, histories: Sequence[IntArray]) -> NDArray[np.float32]:
        """Score all items; see `RankingModel.score`.

        Raises:
            UserError: If the process is gone, too slow, or answers otherwise than asked.
        """
        _check_histories(histories, self.items, self.answers_empty)
        parts = [self._ask(part) for part in _split_histories(histories, self.items)]
        return np.concatenate(parts) if parts else np.empty((0, self.items), dtype=np.float32)

    def close(self) -> None:
        """End the process."""
        self._finalizer()

    def _ask(self, histories: Sequence[IntArray]) -> NDArray[np.float32]:
        if not self._finalizer.alive:
            raise UserError(f"The {self.title} was ended.", "Open the model anew.")
        offsets = np.cumsum([0, *map(len, histories)])
        header = json.dumps({"histories": len(histories), "events": int(offsets[-1])}).encode()
        flat = np.concatenate([np.asarray(history, dtype="<i4") for history in histories])
        deadline = time.monotonic() + self._answer_seconds
        self._write(
            struct.pack("<I", len(header)) + header + offsets.astype("<i8").tobytes() + flat.tobytes(), deadline
        )
        answer = self._read_header(deadline)
        if answer.get("histories") != len(histories) or answer.get("items") != self.items:
            self._fail(f"answered otherwise than for {len(histories)} histories and {self.items} items")
        data = self._read(4 * len(histories) * self.items, deadline)
        scores = np.frombuffer(data, dtype="<f4").astype(np.float32).reshape(len(histories), self.items)
        return _check_finite(scores, self.title)

    def _read_header(self, deadline: float) -> dict[str, Any]:
        size = struct.unpack("<I", self._read(4, deadline))[0]
        if size > MAX_HEADER_BYTES:
            self._fail(f"sent a header of {size} bytes, and {MAX_HEADER_BYTES} are allowed")
        try:
            header: Any = json.loads(self._read(size, deadline))
        except (ValueError, RecursionError):
            header = None
        if not isinstance(header, dict):
            self._fail("sent a header that is not a JSON object")
        return header  # pyright: ignore[reportUnknownVariableType]

    def _wait(self, pipe: IO[bytes], event: int, deadline: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, event)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                self._fail("took too long")

    def _read(self, size: int, deadline: float) -> bytes:
        held = bytearray()
        while len(held) < size:
            self._wait(self._output, selectors.EVENT_READ, deadline)
            try:
                data = os.read(self._output.fileno(), min(size - len(held), 1 << 20))
            except BlockingIOError:
                continue
            if not data:
                self._fail("ended")
            held += data
        return bytes(held)

    def _write(self, data: bytes, deadline: float) -> None:
        left = memoryview(data)
        while left:
            self._wait(self._input, selectors.EVENT_WRITE, deadline)
            try:
                left = left[os.write(self._input.fileno(), left[: 1 << 16]) :]
            except BlockingIOError:
                continue
            except OSError:
                self._fail("ended")

    def _fail(self, what: str) -> NoReturn:
        """End the process and say what it did, with the last lines that it wrote of errors."""
        time.sleep(0.05)  # its last words
        self.close()
        told = " / ".join(escape_terminal(line, 200) for line in self._told)
        raise UserError(f"The {self.title} {what}." + (f" It said: {told}" if told else ""), _HINT)


def open_process(command: str, allow_plugins: bool) -> ProcessModel:
    """Start a process that serves a model.

    Args:
        command: A program and its arguments as a shell splits them; no shell runs them.
        allow_plugins: Whether it may be started.

    Raises:
        UserError: If it may not or can't be started, or does not speak the protocol.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(
            f"The command '{command[:80]}' can't be split into words: {error}.", "Check its quotes."
        ) from None
    if not words:
        raise UserError("The command of the process is empty.", 'Write "process:python serve.py".')
    _require_permission(allow_plugins, f"process:{command}", f"start the program '{words[0]}'")
    return ProcessModel(words)


def _require_permission(allowed: bool, name: str, act: str) -> None:
    if not allowed:
        raise UserError(
            f"The model '{name[:80]}' would {act}, and that runs its code.",
            "If you trust it, say so: --allow-plugins on the command line, allow_plugins=True in Python.",
        )


def _check_histories(histories: Sequence[IntArray], items: int, answers_empty: bool) -> None:
    for history in histories:
        if not len(history):
            if answers_empty:
                continue
            raise UserError("A history to score is empty.", "Score histories with one event or more.")
        if not 0 <= np.min(history) <= np.max(history) < items:
            raise UserError(f"A history has an item that is none of the model's {items}.", "Number them from 0 on.")


def _split_histories(histories: Sequence[IntArray], items: int) -> list[Sequence[IntArray]]:
    size = max(1, MAX_SCORES_ASKED // items)
    return [histories[start : start + size] for start in range(0, len(histories), size)]


def _check_finite(scores: NDArray[np.float32], title: str) -> NDArray[np.float32]:
    if not np.isfinite(scores).all():
        raise UserError(f"The {title} gives scores that are not finite.", "Give a large negative number instead.")
    return scores


def _end_with_parent() -> None:
    """Have the system end this new process when the one that started it is gone."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0)


def _keep_lines(pipe: IO[bytes], kept: "deque[str]") -> None:
    """Read what a process says of errors, and keep the last lines."""
    with suppress(OSError, ValueError):
        while line := pipe.readline(1 << 12):
            kept.append(line.decode("utf-8", "replace").strip())


def _end_process(process: "subprocess.Popen[bytes]") -> None:
    """End a process and those that it started."""
    with suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
    with suppress(OSError, subprocess.TimeoutExpired):
        process.wait(5)
    for pipe in (process.stdout,):
        if pipe is not None:
            pipe.close()
