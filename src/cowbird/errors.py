"""The errors meant for people, and the exit codes of the command line.

Everything a user can cause (a wrong path, a misspelled key, a damaged file) is raised as `UserError` with a message
that says what was expected and what was found, and a hint that says what to do. The command line prints both and
exits; it never shows a traceback for them.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a `cowbird` process returns to the shell."""

    CLEAN = 0
    """The work was done and nothing was found."""
    FINDINGS = 1
    """The work was done and something was found (scanners only)."""
    ERROR = 2
    """The work could not be done; the message says why."""
    INCOMPLETE = 3
    """Part of the work was done; run again with `--resume`."""


class UserError(Exception):
    """Something the user can mend.

    Args:
        message: What was expected and what was found.
        hint: What to do about it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def __reduce__(self) -> tuple[type["UserError"], tuple[str, str]]:
        """Travel whole between processes."""
        return type(self), (self.message, self.hint)


class OutageError(UserError):
    """A passing fault: the disk, the memory, a GPU, the network or a server failed, or a part is not installed.

    It says nothing about what was asked, so it is never recorded as a result: the same work is tried again.
    """


class PluginError(UserError):
    """Somebody else's plug-in raised what it should not; the message says which plug-in, what, and in which line.

    What it raised is the `__cause__`, with its traceback.
    """
