"""One way to keep what is expensive to make: models, answers, verdicts, searches, evidence.

Whatever is kept is a file or a folder of files. What can't be read for a passing fault is left as it is. Beside it lies
its seal, written last: the SHA-256 of each file, and a digest of what it was made of. Without a seal there is nothing;
so an interrupted run makes it again. What is damaged, or was made of something else, is told and made again, too.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cowbird.errors import OutageError, UserError
from cowbird.experiments.store.digests import hash_parts
from cowbird.faults import raise_outage
from cowbird.files import hash_file
from cowbird.storage import read_sealed_json, write_sealed_json

Kept = TypeVar("Kept")


@dataclass
class SealedStore:
    """Keeps things in a folder.

    Names are paths in it, with the file's ending. A label may have a dot, so a name without an ending is a folder's.
    """

    folder: Path
    """Where it keeps them."""
    warn: Callable[[str], None]
    """Told of what can't be used."""
    other: str = "of something else"
    """What a thing is that was made of something else, such as `of another catalogue`."""
    again: str = "Making it again."
    """What happens then, a sentence."""
    _known: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])

    def find(self, name: str, origin: str, read: Callable[[Path], Kept]) -> Kept | None:
        """Return what is kept under a name, or `None` if there is nothing that can be used.

        Args:
            name: Its path.
            origin: Digest of what it is made of.
            read: Reads it.
        """
        self._known.pop(name, None)
        if self.find_digest(name, origin) is None:
            return None
        path = self.folder / name
        try:
            return read(path)
        except (UserError, OSError, ValueError, KeyError, TypeError) as error:
            raise_outage(error, f"'{path}' can't be read")
            reason = str(error).partition("\n")[0].rstrip(".")
            self.warn(f"'{path}' is damaged: {reason}. {self.again}")
        self._remove_seal(name)
        return None

    def find_digest(self, name: str, origin: str) -> str | None:
        """Return the digest of what is kept under a name, or `None` if there is nothing that can be used.

        The files are hashed once; `find` hashes them anew. Arguments as there.
        """
        path, seal = self.folder / name, self._seal_path(name)
        if name in self._known and self._known[name][0] == origin:
            return self._known[name][1]
        if not seal.exists() or not path.exists():
            return None
        try:
            record: dict[str, Any] = read_sealed_json(seal)
            files, made_of = dict(record["files"]), str(record["origin"])
        except OutageError:  # it may be whole
            raise
        except (UserError, KeyError, TypeError, ValueError):
            self.warn(f"'{seal}' is damaged. {self.again}")
        else:
            if files != hash_files(path):
                self.warn(f"'{path}' is damaged: its SHA-256 is not the recorded one. {self.again}")
            elif made_of != origin:
                self.warn(f"'{path}' is {self.other}. {self.again}")
            else:
                self._known[name] = origin, hash_parts(files, made_of)
                return self._known[name][1]
        self._remove_seal(name)
        return None

    def peek_origin(self, name: str) -> str | None:
        """Return the digest of what a kept thing was made of, as its seal tells; `None` if there is none.

        Nothing is hashed, told or removed: whoever uses the thing finds out whether it is whole.
        """
        try:
            return str(read_sealed_json(self._seal_path(name))["origin"]) if (self.folder / name).exists() else None
        except (UserError, KeyError, TypeError, ValueError):
            return None

    def keep(self, name: str, origin: str, write: Callable[[Path], object]) -> None:
        """Write a thing and seal it; arguments as in `find`."""
        path = self.folder / name
        self._remove_seal(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        files = hash_files(path)
        write_sealed_json(self._seal_path(name), {"origin": origin, "files": files})
        self._known[name] = origin, hash_parts(files, origin)

    def make(
        self,
        name: str,
        origin: str,
        read: Callable[[Path], Kept],
        make: Callable[[], Kept],
        write: Callable[[Path, Kept], object],
    ) -> Kept:
        """Return what is kept under a name; or make it, and keep it. Arguments as in `find`."""
        found = self.find(name, origin, read)
        if found is None:
            found = make()
            made = found
            self.keep(name, origin, lambda path: write(path, made))
        return found

    def _seal_path(self, name: str) -> Path:
        path = self.folder / name
        return path.with_name(f"{path.stem}.sha256") if path.suffix else path.with_name(f"{path.name}.sha256")

    def _remove_seal(self, name: str) -> None:
        self._known.pop(name, None)
        self._seal_path(name).unlink(missing_ok=True)


def hash_files(path: Path) -> dict[str, str]:
    """Return the SHA-256 of a file, or of each file in a folder, by name."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name: hash_file(file) for file in files if file.is_file()}
