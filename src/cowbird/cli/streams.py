"""Standard output and errors that may go away: a closed pipe ends the output and not the work.

In `cowbird scan … | grep -q`, the reader leaves early. What is written after that goes nowhere, and the exit code still
tells what the scan found. Output that a full disk does not take is an error; of errors and remarks nobody could be told
that, so they are lost, and the exit code tells the rest.
"""

import errno
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from cowbird.errors import UserError


class PipeGuard:
    """A text stream whose reader may leave; all else is the stream's own.

    Args:
        stream: The stream.
        lossy: Whether what can't be written is lost without an error, as where errors are told.
    """

    def __init__(self, stream: TextIO, lossy: bool = False) -> None:
        self._stream, self._lossy = stream, lossy
        self._shown = stream.isatty()
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # an encoding without some letter costs that letter and not the verdict
            reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, to nowhere if the reader has left."""
        if text == "":  # a probe, of libraries that go on if it fails
            return 0
        with self._watch():
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is held back."""
        with self._watch():
            self._stream.flush()

    @contextmanager
    def _watch(self) -> Generator[None]:
        try:
            yield
        except BrokenPipeError:
            send_nowhere(self._stream)
        except OSError as error:
            send_nowhere(self._stream)
            if self._lossy or (self._shown and error.errno == errno.EIO):  # or the terminal was closed
                return
            raise UserError(f"The output can't be written: {error.strerror}.", "Is the disk full?") from None


def send_nowhere(stream: TextIO) -> None:
    """Send all that follows on a stream, and what the interpreter flushes at its end, to nowhere."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def guard_streams() -> Generator[None]:
    """Guard both streams while a command runs."""
    before: tuple[TextIO | None, TextIO | None] = sys.stdout, sys.stderr
    out = None if before[0] is None else PipeGuard(before[0])
    err = None if before[1] is None else PipeGuard(before[1], lossy=True)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = cast(TextIO, before[0]), cast(TextIO, before[1])
