"""Passing faults: what the disk, the memory, a GPU or the network did, told from what the work itself can't do.

The same work may succeed when it is tried again. So such a fault is no result, nothing is deleted for it, and nothing
that was only unreadable for a moment counts as damaged. Libraries raise these faults in many ways, some of them as
plain exceptions whose text alone tells; torch is not imported to find out.
"""

import errno
import re
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from cowbird.errors import OutageError

_OUTAGE_NAMES = """
    ENOSPC EDQUOT EFBIG EIO EROFS EACCES EPERM EBUSY ETXTBSY EMFILE ENFILE ENOMEM EAGAIN ENOLCK ESTALE
    ETIMEDOUT ECONNREFUSED ECONNRESET ECONNABORTED EPIPE EHOSTUNREACH ENETUNREACH ENETDOWN ENETRESET EHOSTDOWN
    EREMOTEIO ENOTCONN ENOTEMPTY
"""
FULL_DISK_ERRNOS = frozenset(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EROFS") if hasattr(errno, name))
"""What the system says where there is no room."""
OUTAGE_ERRNOS = frozenset(getattr(errno, name) for name in _OUTAGE_NAMES.split() if hasattr(errno, name))
"""What the system says of a fault that may pass; another process that was faster (`ENOTEMPTY`) is among them."""
_OUTAGE_TEXT = re.compile(
    r"no space left|disk quota|input/output error|read-only file system|too many open files"
    r"|out of memory|can't allocate memory|cannot allocate memory|unable to mmap|cuda error|cudaerror|cublas|cudnn"
    r"|cusolver|nccl|no cuda gpus|found no nvidia driver|nvml|couldn't connect|connection error|connection refused"
    r"|timed out|temporary failure in name resolution|offline mode|error writing|i/o error",
    re.IGNORECASE,
)
"""What libraries write that hide the system's number."""
_OS_ERROR = re.compile(r"os error (\d+)")
"""How libraries in Rust write the system's number."""
_OUTAGE_TYPES = frozenset(
    {
        *("MemoryError", "OutOfMemoryError", "AcceleratorError"),
        *("ConnectError", "ConnectTimeout", "ReadTimeout", "LocalEntryNotFoundError", "OfflineModeIsEnabled"),
    }
)
"""Names of such errors, of libraries that are not imported for them."""
FULL_DISK_HINT = "Is the disk full or the folder read-only?"


def _list_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from."""
    known: set[int] = set()
    here: BaseException | None = error
    while here is not None and id(here) not in known:
        known.add(id(here))
        yield here
        here = here.__cause__ or (None if here.__suppress_context__ else here.__context__)


def explain_outage(error: BaseException, writing: bool = False) -> str | None:
    """Return the reason of a passing fault in a few words; `None` if the error is none.

    Args:
        error: What was caught.
        writing: Whether something was written. Then all that the system says is one: a folder that is gone, too.
    """
    for each in _list_causes(error):
        if isinstance(each, OutageError):
            return each.message.rstrip(".")
        first = str(each).partition("\n")[0].rstrip(".")
        if isinstance(each, OSError) and each.errno in OUTAGE_ERRNOS:
            return each.strerror or first
        if type(each).__name__ in _OUTAGE_TYPES:
            return first or "memory ran out"
        if isinstance(each, OSError | RuntimeError) or type(each).__name__ in ("Exception", "SafetensorError"):
            told = _OS_ERROR.search(str(each))
            if told is not None and (writing or int(told[1]) in OUTAGE_ERRNOS):
                return first
            if _OUTAGE_TEXT.search(str(each)):
                return first
    return None


def raise_outage(error: BaseException, what: str) -> None:
    """Raise an `OutageError` if an error is a passing fault; otherwise do nothing.

    Args:
        error: What was caught.
        what: What could not be done, the beginning of a sentence, such as `'model' can't be read`.

    Raises:
        OutageError: If it is one.
    """
    if isinstance(error, OutageError):
        raise error
    reason = explain_outage(error)
    if reason is not None:
        raise OutageError(f"{what}: {reason}.", "Mend that and try again.") from None


@contextmanager
def explain_outages(what: str, hint: str = "", *, writing: bool = False) -> Generator[None]:
    """Turn what the system and libraries say of a passing fault into one line for people.

    Args:
        what: What can't be done then, the beginning of a sentence.
        hint: What is kept, and how to go on: sentences. They follow the hint of an error that says what to mend.
        writing: See `explain_outage`.

    Raises:
        OutageError: If there was one. Other errors are passed on as they are.
    """
    try:
        yield
    except OutageError as error:
        if hint in error.hint:
            raise
        raise OutageError(error.message, f"{error.hint} {hint}") from None
    except Exception as error:
        reason = explain_outage(error, writing)
        if reason is None and isinstance(error, OSError):
            reason = error.strerror or str(error)
        if reason is None:
            raise
        full = (
            f"{FULL_DISK_HINT} " if writing or (isinstance(error, OSError) and error.errno in FULL_DISK_ERRNOS) else ""
        )
        raise OutageError(f"{what}: {reason.rstrip('.')}.", f"{full}{hint}".strip()) from None


def explain_write_errors(path: Path, hint: str = "") -> AbstractContextManager[None]:
    """Turn what goes wrong while a file or folder is written into an `OutageError`; see `explain_outages`."""
    return explain_outages(f"'{path}' can't be written", hint, writing=True)
