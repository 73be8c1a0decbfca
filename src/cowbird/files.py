"""Writing files so that they are whole or not there: a temporary name first, then a rename."""

import hashlib
import os
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from cowbird.errors import UserError


@contextmanager
def replace_atomically(path: Path) -> Generator[Path]:
    """Give a temporary path beside `path`, and rename it over `path` if the block ends well.

    Raises:
        UserError: If the folder can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        os.close(handle)
    except OSError as error:
        raise UserError(f"'{path.parent}' can't be written: {error.strerror}.", "Choose another folder.") from None
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"'{path}' can't be written: {error.strerror}.", "Is the disk full or read-only?") from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


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
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_texts(texts: Iterable[str]) -> str:
    """Return the SHA-256 of some texts, half surrogates and all; it tells where one ends and the next begins."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d " % len(data) + data)
    return digest.hexdigest()
