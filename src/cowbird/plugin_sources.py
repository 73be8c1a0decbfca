"""Cowbird's own plug-ins, found in its source: a list of them loads none of the libraries that they need.

A module's classes, where the names of their bases are imported from, and which methods are abstract stand in its text.
That tells which classes are plug-ins, and what they say of themselves, as the classes would if they were imported.
"""

import ast
import inspect
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).parent
_PACKAGE = __name__.partition(".")[0]


class ShippedPlugin(NamedTuple):
    """A plug-in of Cowbird's own."""

    name: str
    """What a spec calls it."""
    summary: str
    """The first line of its docstring."""


class _Class(NamedTuple):
    """A class as its source shows it."""

    bases: tuple[tuple[str, str], ...]
    """Module and name of each base that is Cowbird's own."""
    members: dict[str, bool]
    """What it defines, and whether that is abstract."""
    doc: str
    """Its docstring."""


class _Source(NamedTuple):
    """A module as its source shows it."""

    classes: dict[str, _Class]
    """The classes that it defines."""
    imported: dict[str, tuple[str, str]]
    """Module and name of what it imports from Cowbird."""


def list_shipped(module: str, base: str) -> list[ShippedPlugin]:
    """Return the plug-ins that a module of Cowbird holds.

    Args:
        module: The module's path.
        base: What they derive from, as `module:Class`.
    """
    owner, _, name = base.partition(":")
    wanted = _follow(owner, name)
    found: list[ShippedPlugin] = []
    for each in _read(module).classes:
        line = list(_list_ancestors(module, each))
        if (module, each) == wanted or wanted not in line:
            continue
        members: dict[str, bool] = {}
        for place in reversed(line):
            members |= _get(*place).members
        if not any(members.values()):
            doc = next((told for place in line if (told := _get(*place).doc)), "")
            found.append(ShippedPlugin(module.rpartition(".")[2], inspect.cleandoc(doc).partition("\n")[0]))
    return found


def _list_ancestors(module: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield a class and those that it derives from, itself first."""
    yield module, name
    for base in _get(module, name).bases:
        yield from _list_ancestors(*base)


def _get(module: str, name: str) -> _Class:
    return _read(module).classes[name]


def _follow(module: str, name: str) -> tuple[str, str]:
    """Return where a class is defined that a module imports, perhaps from another that does."""
    source = _read(module)
    while name not in source.classes and name in source.imported:
        module, name = source.imported[name]
        source = _read(module)
    return module, name


@lru_cache(maxsize=512)
def _read(module: str) -> _Source:
    """Read the source of one of Cowbird's modules."""
    place = _ROOT.joinpath(*module.split(".")[1:])
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    source = _Source({}, {})
    for part in ast.parse(path.read_bytes()).body:
        if isinstance(part, ast.ImportFrom) and (part.module or "").partition(".")[0] == _PACKAGE:
            source.imported.update(
                {alias.asname or alias.name: (part.module or "", alias.name) for alias in part.names}
            )
        elif isinstance(part, ast.ClassDef):
            source.classes[part.name] = _describe(module, part, source)
    return source


def _describe(module: str, part: ast.ClassDef, source: _Source) -> _Class:
    names = [base.value if isinstance(base, ast.Subscript) else base for base in part.bases]
    bases = [base.id for base in names if isinstance(base, ast.Name)]
    known = [(module, name) if name in source.classes else _follow(*source.imported[name])
             for name in bases if name in source.classes or name in source.imported]  # fmt: skip
    members: dict[str, bool] = {}
    for member in part.body:
        if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
            members[member.name] = any(
                isinstance(each, ast.Name) and each.id == "abstractmethod" for each in member.decorator_list
            )
        elif isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name) and member.value is not None:
            members[member.target.id] = False
        elif isinstance(member, ast.Assign):
            members |= {target.id: False for target in member.targets if isinstance(target, ast.Name)}
    return _Class(tuple(known), members, ast.get_docstring(part, clean=False) or "")
