"""What a command writes never replaces what it reads, nor something else that it writes."""

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

from cowbird.errors import UserError
from cowbird.files import check_replaceable

GivenPaths = Path | str | Sequence[Path | str] | None
"""Paths of one option. A text may also be a name, such as a dataset's, and is a path only if something lies there."""


class _NamedPath(NamedTuple):
    """A path, and which option gave it."""

    option: str
    path: Path

    @property
    def real(self) -> Path:
        """The path without links and `..`."""
        return Path(os.path.realpath(self.path))


def check_outputs(outputs: Mapping[str, GivenPaths], inputs: Mapping[str, GivenPaths]) -> None:
    """Check before anything is written that no file would be lost.

    Files are compared without links and `..`, and as the system knows them, so hard links count as the same file.

    Args:
        outputs: What is written, by option; first what the option names, then what is written beside that.
        inputs: What is read, by option or argument.

    Raises:
        UserError: If an output is an input or another output, lies in a folder that is read or in one that is written,
            is a folder in which an input lies, lies below a file, or is no file's name, such as `-` and `/dev/stdout`.
    """
    read, written = list(_list_paths(inputs)), list(_list_paths(outputs))
    for output in written:
        check_replaceable(output.path)
        file = next((place for place in output.path.parents if _is_file(place)), None)
        if file is not None:
            raise UserError(
                f"{output.option} would write '{output.path}', and '{file}' is a file, no folder.",
                f"Choose another folder with {output.option}.",
            )
    for output in written:
        for given in read:
            _check_input(output, given)
    for one, other in combinations(written, 2):
        if one.option != other.option:
            _check_output(one, other)


def check_writable(files: Mapping[str, GivenPaths], others: Mapping[str, GivenPaths] | None = None) -> None:
    """Check before long work that it can be written in the end; nothing is left where that is tried.

    Args:
        files: Files that are written, by option.
        others: What else is written, such as folders.

    Raises:
        UserError: If a file is a folder, or nothing can be written where one of them goes.
    """
    for output in _list_paths(files):
        if _is_folder(output.path):
            raise UserError(
                f"{output.option} should name a file, and '{output.path}' is a folder.",
                f"Name a file in it, or another one, with {output.option}.",
            )
    for output in _list_paths({**files, **(others or {})}):
        place = next((each for each in output.path.absolute().parents if _is_folder(each)), None)
        try:
            with TemporaryFile(dir=place):
                pass
        except OSError as error:
            raise UserError(
                f"{output.option} would write '{output.path}', and nothing can be written in '{place}': "
                f"{error.strerror or error}.",
                f"Choose another place with {output.option}, or make that one writable.",
            ) from None


def _list_paths(given: Mapping[str, GivenPaths]) -> Iterator[_NamedPath]:
    for option, paths in given.items():
        for path in () if paths is None else (paths,) if isinstance(paths, str | Path) else paths:
            if isinstance(path, Path) or os.path.lexists(path):
                yield _NamedPath(option, Path(path))


def _check_input(output: _NamedPath, given: _NamedPath) -> None:
    hint = f"Give another name with {output.option}."
    if _is_same(output, given):
        raise UserError(
            f"{output.option} would replace '{output.path}', and {given.option} reads that file ('{given.path}').", hint
        )
    if given.path.is_dir() and given.real in output.real.parents:
        raise UserError(
            f"{output.option} would write '{output.path}', and that lies in the folder that {given.option} reads "
            f"('{given.path}').",
            f"Choose a place outside of it with {output.option}.",
        )
    if output.real in given.real.parents:
        raise UserError(
            f"{output.option} would replace the folder '{output.path}', and what {given.option} reads lies in it "
            f"('{given.path}').",
            f"Choose another folder with {output.option}.",
        )


def _check_output(one: _NamedPath, other: _NamedPath) -> None:
    if _is_same(one, other):
        raise UserError(
            f"{one.option} and {other.option} would both write '{other.path}', and one would replace the other.",
            f"Give another name with {other.option}.",
        )
    for inner, outer in ((one, other), (other, one)):
        if outer.real in inner.real.parents:
            raise UserError(
                f"{inner.option} would write '{inner.path}', and that lies in what {outer.option} writes "
                f"('{outer.path}').",
                f"Choose a place outside of it with {inner.option}.",
            )


def _is_file(path: Path) -> bool:
    """Tell whether a file lies there; not where its name is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def _is_folder(path: Path) -> bool:
    """Tell whether a folder lies there; likewise, and not below a folder that may not be looked into."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _is_same(one: _NamedPath, other: _NamedPath) -> bool:
    """Tell whether two paths are one file or folder; what is not there yet is told by its path alone."""
    if one.real == other.real:
        return True
    try:
        return one.path.samefile(other.path)
    except OSError:
        return False
