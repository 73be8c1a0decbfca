"""Files of clones that lie in one folder, which lists of titles are read from."""

import html
import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def clean_text(text: str) -> str:
    """Return a title without entities, control characters and double spaces."""
    text = re.sub(r"[\x00-\x1f\x7f\u200b\ufeff]+", " ", html.unescape(text))
    return re.sub(r" {2,}", " ", text).strip()


class Sources:
    """The folder of sources."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs: dict[str, dict[str, str]] = {}

    def _find_git(self, name: str) -> str:
        found = sorted(self.folder.glob(f"{name}/**/HEAD"), key=lambda path: len(path.parts))
        if not found:
            raise SystemExit(f"there is no clone {name} in {self.folder}")
        return f"--git-dir={found[0].parent}"

    def _list_blobs(self, name: str) -> dict[str, str]:
        """Return the objects of a clone's files."""
        if name not in self.blobs:
            command = ["git", "-c", "core.quotepath=off", self._find_git(name), "ls-tree", "-r", "HEAD"]
            lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
            self.blobs[name] = {line.split("\t", 1)[1]: line.split()[2] for line in lines}
        return self.blobs[name]

    def list_files(self, name: str, under: str = "") -> list[str]:
        """Return the files of a clone."""
        return [path for path in self._list_blobs(name) if path.startswith(under)]

    def find_files(self, name: str, pattern: str) -> list[str]:
        """Return the files of a clone whose path matches."""
        return [path for path in self._list_blobs(name) if re.search(pattern, path)]

    def read_bytes(self, name: str, path: str) -> bytes:
        """Return a file of a clone."""
        out = subprocess.run(["git", self._find_git(name), "show", f"HEAD:{path}"], capture_output=True, check=True)
        return out.stdout

    def read_file(self, name: str, path: str) -> str:
        """Return a text file of a clone."""
        return self.read_bytes(name, path).decode("utf-8", "replace").removeprefix("\ufeff")

    def read_matching(self, name: str, pattern: str) -> Iterator[str]:
        """Yield the files of a clone whose path matches."""
        yield from self.read_files(name, self.find_files(name, pattern))

    def read_files(self, name: str, paths: Iterable[str]) -> Iterator[str]:
        """Yield many files of a clone."""
        command = ["git", self._find_git(name), "cat-file", "--batch"]
        blobs = self._list_blobs(name)
        asked = "".join(f"{blobs[path]}\n" for path in paths).encode()
        data, at = subprocess.run(command, input=asked, capture_output=True, check=True).stdout, 0
        while at < len(data):
            end = data.index(b"\n", at)
            head = data[at:end].split()
            if len(head) < 3:  # a snapshot that lacks the file
                at = end + 1
                continue
            size = int(head[2])
            yield data[end + 1 : end + 1 + size].decode("utf-8", "replace").removeprefix("\ufeff")
            at = end + 2 + size


def list_texts(value: Any) -> Iterator[str]:
    """Yield all texts in nested lists and objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value if isinstance(value, list) else value.values():
            yield from list_texts(part)


def load_json(texts: Iterable[str]) -> Iterator[Any]:
    """Yield what files hold; those that are damaged are left out."""
    for text in texts:
        try:
            yield json.loads(text)
        except ValueError:
            continue


def list_objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list, or none of what isn't a list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []  # pyright: ignore


def unquote(text: str) -> str:
    """Return the text of a scalar in YAML."""
    text = re.sub(r"\s*\n\s+", " ", text).strip()
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('\\"', '"')
    return text
