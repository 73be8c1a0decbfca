"""Files behind addresses, copied piece by piece; a copy that breaks off goes on where it stopped, or is begun anew."""

import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cowbird.errors import OutageError, UserError
from cowbird.faults import explain_outage
from cowbird.ingest.addresses import hide_secrets, redact_reason

REMOTE_SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "https", "http")
"""Addresses that fsspec reads."""
PIECE_BYTES = 1 << 20
"""Bytes copied at once."""
READ_AHEAD_BYTES = 4 << 20
"""Bytes that a library asks for at once."""
MAX_TRIES = 4
"""Times that a file is opened at most."""
_OUTAGE_NAMES = ("Connect", "Timeout", "Payload", "Disconnected", "IncompleteRead", "ReadError")
"""Parts of the names that libraries give to errors of a connection."""
PAUSE_SECONDS = 0.5
"""Pause before the second try; it doubles with each."""


def copy_remote(address: str, target: Path) -> list[Path]:
    """Copy a file or a folder behind an address.

    Args:
        address: The address.
        target: Where the file, or the folder, is to stand.

    Returns:
        The files that were written.

    Raises:
        UserError: If there is nothing, or it can't be read.
        OutageError: If the server can't be reached, or the connection broke off again and again.
    """
    shown = hide_secrets(address)
    try:
        import fsspec  # noqa: PLC0415
    except ImportError:
        raise _make_missing(shown, "fsspec") from None
    made: Any = fsspec
    try:
        files, root = made.core.url_to_fs(address)
        if files.isfile(root):
            _copy_file(files, root, target, address)
            return [target]
        written: list[Path] = []
        for part, inside in list_remote(files, root):
            place = target / inside
            place.parent.mkdir(parents=True, exist_ok=True)
            _copy_file(files, part, place, address)
            written.append(place)
    except UserError:
        raise
    except ImportError as error:
        raise _make_missing(shown, str(error)) from None
    except Exception as error:
        raise _explain_remote(address, error) from None
    if not written:
        raise UserError(f"Expected a file or a folder at {shown}, and there is nothing.", "Check the address.")
    return written


def list_remote(files: Any, root: str) -> Iterator[tuple[str, str]]:
    """Yield the files below a folder elsewhere, and their paths in it; none leads out of it."""
    for part in sorted(files.find(root)):
        inside = PurePosixPath(str(part)[len(root.rstrip("/")) :].lstrip("/"))
        if ".." not in inside.parts and inside.name and not inside.is_absolute():
            yield str(part), str(inside)


def _copy_file(files: Any, root: str, target: Path, address: str) -> None:
    """Copy one file; a connection that breaks is opened again behind what was copied, if the file is the same still."""
    known, ahead = _describe(files, root), READ_AHEAD_BYTES
    with target.open("wb") as file:
        for nth in range(MAX_TRIES):
            try:
                if nth:
                    time.sleep(PAUSE_SECONDS * 2 ** (nth - 1))
                    files.invalidate_cache()
                    if _describe(files, root) != known:
                        raise UserError(
                            f"{hide_secrets(address)} was changed while it was copied.", "Copy what nobody writes."
                        )
                with files.open(root, "rb", block_size=ahead) as source:
                    _go_on(source, file)
                    _copy_rest(source, file)
                size = known[0]
                if size is not None and file.tell() < size:
                    raise ConnectionError(f"{file.tell():,} of {size:,} bytes came")
                return
            except (UserError, FileNotFoundError, PermissionError):
                raise
            except Exception as error:
                whole = "range" in str(error).lower()
                if nth == MAX_TRIES - 1 or not (whole or _is_break(error)):
                    raise _explain_remote(address, error, file.tell()) from None
                if whole:
                    ahead = 0  # a server that sends files from their beginning alone: fsspec then streams them


def _go_on(source: Any, file: IO[bytes]) -> None:
    """Go to where the copy stopped, or begin it anew where a source can't be read from its middle."""
    at = file.tell()
    if not at:
        return
    try:
        source.seek(at)
    except (ValueError, OSError, NotImplementedError):
        file.seek(0)
        file.truncate()


def _copy_rest(source: Any, file: IO[bytes]) -> None:
    while piece := source.read(PIECE_BYTES):
        file.write(piece)


def _describe(files: Any, root: str) -> tuple[int | None, str]:
    """Return a file's size, if it is known, and what tells it from a later one."""
    told: dict[str, Any] = files.info(root)
    size = told.get("size")
    mark = told.get("ETag") or told.get("etag") or told.get("LastModified") or told.get("mtime") or ""
    return size if isinstance(size, int) else None, str(mark)


def _is_break(error: Exception) -> bool:
    """Tell whether another try may help."""
    return isinstance(error, OSError) or _is_outage(error)


def _is_outage(error: Exception) -> bool:
    """Tell whether a server could not be reached, or broke off."""
    name = type(error).__name__
    return explain_outage(error) is not None or any(word in name for word in _OUTAGE_NAMES)


def _make_missing(shown: str, what: str) -> UserError:
    return UserError(
        f"{shown} can't be read: a library is missing ({what.partition(chr(10))[0][:200]}).",
        "Install it: pip install 'cowbird[remote]'.",
    )


def _explain_remote(address: str, error: Exception, done: int = 0) -> UserError:
    shown = hide_secrets(address)
    if isinstance(error, FileNotFoundError):
        return UserError(f"Expected a file or a folder at {shown}, and there is nothing.", "Check the address.")
    reason = redact_reason(str(error), address) or type(error).__name__
    behind = f" behind byte {done:,}" if done else ""
    message = f"{shown} can't be read{behind}: {reason.rstrip('.')}."
    if done or _is_outage(error):
        return OutageError(message, "Is the server up, and the network? Try again.")
    return UserError(message, "Check the address and your credentials; see fsspec's documentation of this scheme.")
