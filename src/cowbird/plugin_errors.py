"""Whose fault an exception is: Cowbird's own, or a plug-in's that somebody else wrote.

A plug-in is code of strangers and may raise anything, anywhere. Its author should see the line, and the person who runs
it should see no traceback. So a plug-in is registered when it is found, and what is raised later is held against the
registered ones: by the modules in the traceback, and by the objects whose methods were at work.
"""

import errno
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from cowbird.errors import PluginError, UserError

TRACEBACK_VARIABLE = "COWBIRD_TRACEBACK"
"""The environment variable that shows whole tracebacks, set to 1."""
MAX_RAISED_LENGTH = 300
"""Most characters shown of what an exception says."""

_OWN_PACKAGE = "cowbird"
_MACHINE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM)
_MACHINE_ERRORS = ("OutOfMemoryError", "AcceleratorError")
"""Names of torch's errors that a GPU raises; torch itself is not imported here."""
_registered: dict[str, str] = {}
"""What plug-ins are called, by module."""


def register_plugin(cls: type[object], title: str) -> None:
    """Remember a plug-in of somebody else; Cowbird's own are passed over.

    Args:
        cls: Its class.
        title: What to call it in messages, such as `attack 'mine'`.
    """
    if _get_package(cls.__module__) != _OWN_PACKAGE:
        _registered.setdefault(cls.__module__, title)


def copy_registry() -> dict[str, str]:
    """Return what plug-ins are called, by module, for another process (`restore_registry`)."""
    return dict(_registered)


def restore_registry(known: Mapping[str, str]) -> None:
    """Remember the plug-ins of another process, whose objects come here without being looked for."""
    _registered.update(known)


def is_blamable(error: BaseException) -> bool:
    """Return whether a plug-in can be blamed for an error: not for errors in words, interrupts and what machines do."""
    if isinstance(error, UserError | KeyboardInterrupt | GeneratorExit | MemoryError):
        return False
    if isinstance(error, OSError) and error.errno in _MACHINE_ERRNOS:
        return False
    return type(error).__name__ not in _MACHINE_ERRORS


def blame_plugin(error: BaseException) -> PluginError | None:
    """Return what to say of an error that a plug-in of somebody else raised; `None` if it is none's.

    The innermost line of a plug-in's package is to blame. Where there is none, as after a method of Cowbird's that
    was handed nonsense, it is the plug-in whose method was at work.
    """
    if not is_blamable(error):
        return None
    places = list(_list_places(error))
    packages = {_get_package(module): title for module, title in reversed(_registered.items())}
    for place in reversed(places):
        title = _registered.get(place.module) or packages.get(_get_package(place.module))
        if title is not None:
            return describe_failure(error, f"The {title} raised", {_get_package(place.module)})
    for place in reversed(places):
        title = _registered.get(place.owner)
        if title is not None:
            return _make_error(error, f"The {title} raised", f"{place.file}:{place.line}")
    return None


@contextmanager
def guard_plugins() -> Generator[None]:
    """Raise what plug-ins of somebody else raise as a `PluginError`; all else passes through.

    Raises:
        PluginError: If a plug-in is to blame.
    """
    try:
        yield
    except BaseException as error:
        told = blame_plugin(error)
        if told is None:
            raise
        raise told from error


def describe_failure(error: BaseException, beginning: str, packages: Collection[str]) -> PluginError:
    """Return what to say of an error in some packages.

    Args:
        error: The error.
        beginning: How the sentence begins; what was raised follows.
        packages: Top-level names of the plug-in's modules. The innermost line in one of them is named.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return _make_error(error, beginning, f"{_shorten_path(error.filename)}:{error.lineno}", error.msg)
    places = [place for place in _list_places(error) if _get_package(place.module) in packages]
    where = f"{places[-1].file}:{places[-1].line}" if places else ""
    return _make_error(error, beginning, where)


class _Place(NamedTuple):
    """One line of a traceback."""

    module: str
    owner: str
    """Module of the class whose method it is in; empty if it is in none."""
    file: str
    line: int


def _list_places(error: BaseException) -> Iterator[_Place]:
    """Yield the lines of a traceback, the innermost last."""
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        module = frame.f_globals.get("__name__")
        file = _shorten_path(frame.f_code.co_filename)
        yield _Place(module if isinstance(module, str) else "", _find_owner(frame), file, trace.tb_lineno)
        trace = trace.tb_next


def _find_owner(frame: FrameType) -> str:
    names = frame.f_code.co_varnames[:1]
    owner = frame.f_locals.get(names[0]) if names and names[0] in ("self", "cls") else None
    if owner is None:
        return ""
    cls: type[object] = owner if isinstance(owner, type) else type(owner)
    return cls.__module__


def _make_error(error: BaseException, beginning: str, where: str, text: str | None = None) -> PluginError:
    said = _read_text(error.__str__) if text is None else text
    said = " ".join(said[:MAX_RAISED_LENGTH].split()).rstrip(".") + ("…" if len(said) > MAX_RAISED_LENGTH else "")
    raised = f"{type(error).__name__}: {said}" if said else type(error).__name__
    place = f" ({where})" if where else ""
    return PluginError(
        f"{beginning} {raised}{place}. It is no part of Cowbird. {TRACEBACK_VARIABLE}=1 shows the whole traceback."
    )


def _read_text(read: Callable[[], object]) -> str:
    """Return what an exception says of itself, which is code of a stranger too."""
    try:
        said = read()
    except Exception:
        return ""
    return said if isinstance(said, str) else ""


def _shorten_path(file: str) -> str:
    """Return a path as seen from the current folder."""
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return file


def _get_package(module: str) -> str:
    return module.partition(".")[0]
