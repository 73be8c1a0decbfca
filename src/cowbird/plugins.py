"""Plug-ins by file: `attacks/basic_replacement.py` is the attack `basic_replacement`.

There is no registry to edit. A kind is a package and a base class. Every module of the package that defines a concrete
subclass is a plug-in named after the module. One that fills a folder may
stand in the file of the folder's own name instead. Two more places hold plug-ins of other people:

- An installed package names its own in the entry points `cowbird.attacks`, `cowbird.defenses`, `cowbird.victims`,
  `cowbird.datasets`, `cowbird.loaders` or
  `cowbird.tasks`. Who installs a package trusts it, so these need no permission.
- A dotted path, `their_package.module` or `their_package.module:ClassName`, or the name of a file in the current
  folder. To import a file is to run it, and a spec may come from a stranger. So these are refused unless the caller
  passes `allow_paths`, which is `--allow-plugins` on the command line.
"""

import ast
import difflib
import importlib
import inspect
import os
import pkgutil
import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from cowbird.errors import UserError
from cowbird.plugin_errors import describe_failure, is_blamable, register_plugin
from cowbird.plugin_sources import ShippedPlugin, list_shipped


class PluginKind(NamedTuple):
    """Where the plug-ins of one kind live: packages, and the class they derive from."""

    packages: tuple[str, ...]
    base: str


class PluginEntry(NamedTuple):
    """One plug-in, as a list shows it."""

    name: str
    """What a spec calls it."""
    origin: str
    """`Cowbird`, or the name and version of the package that it comes from."""
    summary: str
    """What it does, in a line; or why it can't be loaded."""


PLUGIN_KINDS = {
    "attack": PluginKind(("cowbird.attacks",), "cowbird.attacks.base:Attack"),
    "defense": PluginKind(("cowbird.defenses",), "cowbird.defenses.base:Defense"),
    "victim": PluginKind(("cowbird.victims.sequential", "cowbird.victims.language"), "cowbird.victims.base:Victim"),
    "dataset": PluginKind(("cowbird.data.sources",), "cowbird.data.sources.base:Source"),
    "loader": PluginKind(("cowbird.victims.loaders",), "cowbird.victims.loaders.base:Loader"),
    "task": PluginKind(("cowbird.experiments.tasks",), "cowbird.experiments.tasks.base:Task"),
}
"""Every kind of plug-in: the packages searched for it and the class it must derive from."""
MAX_PLUGIN_FILE_BYTES = 1 << 20
"""Largest Python file of the current folder that is looked at for plug-ins."""


def _find_base(kind: str) -> type[Any]:
    if kind not in PLUGIN_KINDS:
        raise _make_kind_error(kind)
    module, _, name = PLUGIN_KINDS[kind].base.partition(":")
    return getattr(importlib.import_module(module), name)


def _make_kind_error(kind: str) -> UserError:
    return UserError(f"'{kind}' is not a kind of plug-in.", f"Use one of {', '.join(PLUGIN_KINDS)}.")


def _is_concrete(member: object, base: type[Any]) -> bool:
    return (
        inspect.isclass(member) and issubclass(member, base) and member is not base and not inspect.isabstract(member)
    )


def _find_concrete(module: ModuleType, base: type[Any]) -> list[type[Any]]:
    return [
        member
        for member in vars(module).values()
        if _is_concrete(member, base) and member.__module__ == module.__name__
    ]


def list_plugins(kind: str) -> list[str]:
    """List the names of the plug-ins that need no permission, sorted: Cowbird's own and those of installed packages."""
    shipped = (plugin.name for plugin in _list_shipped(kind))
    return sorted({*shipped, *(entry.name for entry in _list_entry_points(kind))})


def _list_shipped(kind: str) -> list[ShippedPlugin]:
    if kind not in PLUGIN_KINDS:
        raise _make_kind_error(kind)
    return sorted(chain.from_iterable(list_shipped(path, PLUGIN_KINDS[kind].base) for path in _list_modules(kind)))


def _list_modules(kind: str) -> tuple[str, ...]:
    """Return the paths of all modules in the packages of a kind."""
    return tuple(chain.from_iterable(map(_list_package, PLUGIN_KINDS[kind].packages)))


def _list_package(name: str) -> tuple[str, ...]:
    package = find_spec(name)  # which loads nothing but the packages around it
    places = package.submodule_search_locations if package else None
    return _read_package(name, tuple(map(_stamp_folder, places or ())))


@lru_cache(maxsize=4 * len(PLUGIN_KINDS))
def _read_package(name: str, places: tuple[tuple[str, int, int, int], ...]) -> tuple[str, ...]:
    """Read what a package holds, once for as long as its folders stay as they are."""
    folders, found = [place for place, *_ in places], list[str]()
    for info in pkgutil.iter_modules(folders):
        if not info.name.startswith("_"):
            inside = any(Path(folder, info.name, f"{info.name}.py").is_file() for folder in folders)
            found.append(f"{name}.{info.name}.{info.name}" if inside else f"{name}.{info.name}")
    return tuple(found)


def _list_entry_points(kind: str) -> list[EntryPoint]:
    """Return what installed packages offer of a kind, without loading it; Cowbird's own names can't be taken."""
    own = {path.rpartition(".")[2] for path in _list_modules(kind)}
    found = _read_entry_points(f"cowbird.{kind}s", tuple(map(_stamp_folder, sys.path)))
    return [entry for entry in found if entry.name not in own]


@lru_cache(maxsize=4 * len(PLUGIN_KINDS))
def _read_entry_points(group: str, places: tuple[tuple[str, int, int, int], ...]) -> tuple[EntryPoint, ...]:
    """Read what all installed packages offer, once for as long as the folders of packages stay as they are."""
    return tuple(entry_points(group=group))


def _stamp_folder(path: str) -> tuple[str, int, int, int]:
    """Return what changes when something is installed in a folder or removed, or when another takes its place."""
    try:
        stat = os.stat(path or os.curdir)  # noqa: PTH116  # of each folder, at every look-up
    except OSError:
        return path, 0, 0, 0
    return path, stat.st_dev, stat.st_ino, stat.st_mtime_ns


def describe_plugins(kind: str) -> list[PluginEntry]:
    """List the plug-ins that need no permission, sorted by name, with where each comes from and what it does.

    A package that can't be loaded does not spoil the list: its line says why.
    """
    found = [PluginEntry(plugin.name, "Cowbird", plugin.summary) for plugin in _list_shipped(kind)]
    for entry in _list_entry_points(kind):
        try:
            summary = summarize_plugin(_load_entry_point(kind, entry))
        except UserError as error:
            summary = error.message
        found.append(PluginEntry(entry.name, _name_origin(entry), summary))
    return sorted(found)


def describe_local_plugins(kind: str) -> list[PluginEntry]:
    """List the plug-ins in Python files of the current folder, sorted by name; this runs the code of those files.

    A file is imported only if its text has a class and imports something of Cowbird, so other scripts do not run. One
    that can't be loaded has a line that says why.
    """
    base, known, found = _find_base(kind), list_plugins(kind), list[PluginEntry]()
    for file in sorted(Path().glob("*.py")):
        name = file.stem
        if name in known or not name.isidentifier() or not _may_hold_plugin(file):
            continue
        try:
            classes = _find_concrete(_import_module(kind, name, allow_paths=True), base)
            if classes:
                summary = summarize_plugin(find_plugin(kind, name, allow_paths=True))
                found.append(PluginEntry(name, f"the file {file}", summary))
        except UserError as error:
            found.append(PluginEntry(name, f"the file {file}", error.message))
    return found


def _may_hold_plugin(file: Path) -> bool:
    """Tell without running it whether a Python file has a class and imports something of Cowbird."""
    try:
        if not file.is_file() or file.stat().st_size > MAX_PLUGIN_FILE_BYTES:
            return False
        parts = ast.parse(file.read_bytes()).body
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return False
    imported = [part.module or "" for part in parts if isinstance(part, ast.ImportFrom)]
    imported += [alias.name for part in parts if isinstance(part, ast.Import) for alias in part.names]
    classes = any(isinstance(part, ast.ClassDef) for part in parts)
    return classes and any(name.partition(".")[0] == "cowbird" for name in imported)


def find_plugin(kind: str, name: str, allow_paths: bool = False) -> type[Any]:
    """Return the class of one plug-in.

    Args:
        kind: A key of `PLUGIN_KINDS`.
        name: The name of a shipped or installed plug-in; or, with `allow_paths`, a dotted path to somebody else's
            module (`package.module[:Class]`) or the name of a Python file in the current folder (`module[:Class]`).
        allow_paths: Whether a module that is no plug-in of Cowbird or of an installed package may be imported. Modules
            are then also looked for in the current folder, after all other places.

    Raises:
        UserError: If there is no such plug-in, which the hint mends by listing the ones there are; or if it would have
            to be imported by its path, and that is not allowed.
    """
    base = _find_base(kind)
    path, _, wanted = name.partition(":")
    offered = [entry for entry in _list_entry_points(kind) if entry.name == name]
    if offered:
        return _load_entry_point(kind, *_refuse_two(kind, offered))
    found = _find_concrete(_import_module(kind, name, allow_paths), base)
    if wanted:
        found = [cls for cls in found if cls.__name__ == wanted]
    if len(found) != 1:
        raise UserError(
            f"'{name}' should define one {base.__name__}, and it defines {len(found)}.",
            f"Name the class as '{path}:ClassName', or use one of {', '.join(list_plugins(kind))}.",
        )
    register_plugin(found[0], f"{kind} '{name}'")
    return found[0]


def _import_module(kind: str, name: str, allow_paths: bool) -> ModuleType:
    """Import the module that a name stands for; see `find_plugin`."""
    full = _locate_module(kind, name, allow_paths)
    try:
        if not all(part.isidentifier() for part in full.split(".")):
            raise ModuleNotFoundError(name=full)
        return importlib.import_module(full)
    except BaseException as error:  # somebody else's code, which may fail in any way
        if _misses_module(error, full):
            raise UserError(f"There is no {kind} named '{name}'.", _suggest_plugin(kind, name)) from None
        if full.startswith("cowbird.") or not is_blamable(error):
            raise
        raise describe_failure(error, f"The {kind} '{name}' can't be loaded:", {full.partition(".")[0]}) from error


def _suggest_plugin(kind: str, name: str) -> str:
    known = list_plugins(kind)
    close = difflib.get_close_matches(name, known, 2)
    return (f"Did you mean {' or '.join(close)}? " if close else "") + f"Known: {', '.join(known)}."


def _misses_module(error: BaseException, path: str) -> bool:
    """Return whether a module or a package around it is not there; what else it misses is a fault of its own."""
    missing = isinstance(error, ModuleNotFoundError) and error.name
    return bool(missing) and f"{path}.".startswith(f"{missing}.")


def _locate_module(kind: str, name: str, allow_paths: bool) -> str:
    """Return the path of the module that a name stands for, unless it may not be imported."""
    path = name.partition(":")[0]
    modules = _list_modules(kind)
    shipped = {module.rpartition(".")[2]: module for module in modules}
    inside = f"{PLUGIN_KINDS[kind].packages[0]}.{path}"
    if path in shipped or not all(part.isidentifier() for part in path.split(".")):
        return shipped.get(path, path if "." in path else inside)
    file = Path(*path.split(".")).with_suffix(".py")
    if path.startswith("cowbird.") and path not in modules:  # other modules of Cowbird do things when imported
        raise UserError(f"There is no {kind} named '{name}'.", f"Known: {', '.join(list_plugins(kind))}.")
    here = _is_file(file)
    if path.startswith("cowbird.") or not ("." in path or here):
        return path if "." in path else inside
    if not allow_paths:
        where = f" (the file {file})" if here else ""
        raise UserError(
            f"The {kind} '{name}' would import the Python module '{path}'{where}, and that runs its code.",
            "If you trust it, say so: --allow-plugins on the command line, allow_plugins=True in Python. "
            f"Known without that: {', '.join(list_plugins(kind))}.",
        )
    current = str(Path.cwd())
    if current not in sys.path and "" not in sys.path:
        sys.path.append(current)  # last, so that no file here stands in for an installed module
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _refuse_two(kind: str, offered: list[EntryPoint]) -> list[EntryPoint]:
    if len(offered) > 1:
        raise UserError(
            f"{len(offered)} installed packages have a {kind} '{offered[0].name}': "
            f"{', '.join(sorted(map(_name_origin, offered)))}.",
            "Uninstall one, or name the module by its dotted path and add --allow-plugins.",
        )
    return offered


def _name_origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an installed package"


def _load_entry_point(kind: str, entry: EntryPoint) -> type[Any]:
    """Return the class that an entry point stands for: a class, or the only one of a module."""
    base = _find_base(kind)
    try:
        loaded: object = entry.load()
    except BaseException as error:  # somebody else's code, which may fail in any way
        if not is_blamable(error):
            raise
        what = f"The {kind} '{entry.name}' of {_name_origin(entry)} can't be loaded:"
        raise describe_failure(error, what, {entry.module.partition(".")[0]}) from error
    found = _find_concrete(loaded, base) if isinstance(loaded, ModuleType) else [loaded]
    if len(found) != 1 or not _is_concrete(found[0], base):
        raise UserError(
            f"The {kind} '{entry.name}' of {_name_origin(entry)} is '{entry.value}', which is not one {base.__name__}.",
            f"Its entry point must name one: '{entry.name} = package.module:ClassName'.",
        )
    cls: type[Any] = found[0]  # pyright: ignore[reportAssignmentType]
    register_plugin(cls, f"{kind} '{entry.name}' of {_name_origin(entry)}")
    return cls


def summarize_plugin(cls: type[Any]) -> str:
    """Return the first line of a plug-in's docstring."""
    return (inspect.getdoc(cls) or "").partition("\n")[0]
