"""Plug-ins by file: `attacks/basic_replacement.py` is the attack `basic_replacement`.

There is no registry to edit. A kind is a package and a base class; every module of the package that defines a
concrete subclass is a plug-in named after the module. Somebody else's plug-in is named by its dotted path,
`their_package.module`, or `their_package.module:ClassName`.
"""

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any, NamedTuple

from cowbird.errors import UserError


class PluginKind(NamedTuple):
    """Where the plug-ins of one kind live: packages, and the class they derive from."""

    packages: tuple[str, ...]
    base: str


PLUGIN_KINDS = {
    "attack": PluginKind(("cowbird.attacks",), "cowbird.attacks.base:Attack"),
    "defense": PluginKind(("cowbird.defenses",), "cowbird.defenses.base:Defense"),
    "victim": PluginKind(("cowbird.victims.sequential", "cowbird.victims.language"), "cowbird.victims.base:Victim"),
    "dataset": PluginKind(("cowbird.data.sources",), "cowbird.data.sources.base:Source"),
}
"""Every kind of plug-in: the packages searched for it and the class it must derive from."""


def _find_base(kind: str) -> type[Any]:
    if kind not in PLUGIN_KINDS:
        raise UserError(f"'{kind}' is not a kind of plug-in.", f"Use one of {', '.join(PLUGIN_KINDS)}.")
    module, _, name = PLUGIN_KINDS[kind].base.partition(":")
    return getattr(importlib.import_module(module), name)


def _find_concrete(module: ModuleType, base: type[Any]) -> list[type[Any]]:
    return [
        member
        for member in vars(module).values()
        if inspect.isclass(member)
        and issubclass(member, base)
        and member is not base
        and not inspect.isabstract(member)
        and member.__module__ == module.__name__
    ]


def list_plugins(kind: str) -> list[str]:
    """List the names of the plug-ins that ship with Cowbird, sorted."""
    base = _find_base(kind)
    return sorted(
        path.rpartition(".")[2] for path in _list_modules(kind) if _find_concrete(importlib.import_module(path), base)
    )


def _list_modules(kind: str) -> list[str]:
    """Return the paths of all modules in the packages of a kind."""
    found: list[str] = []
    for name in PLUGIN_KINDS[kind].packages:
        package = importlib.import_module(name)
        found += [
            f"{name}.{info.name}" for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_")
        ]
    return found


def find_plugin(kind: str, name: str) -> type[Any]:
    """Return the class of one plug-in.

    Args:
        kind: A key of `PLUGIN_KINDS`.
        name: A shipped plug-in's name, or a dotted path to somebody else's module (`package.module[:Class]`).

    Raises:
        UserError: If there is no such plug-in; the hint lists the ones there are.
    """
    base = _find_base(kind)
    path, _, wanted = name.partition(":")
    shipped = {module.rpartition(".")[2]: module for module in _list_modules(kind)}
    full = path if "." in path else shipped.get(path, f"{PLUGIN_KINDS[kind].packages[0]}.{path}")
    try:
        if not all(part.isidentifier() for part in full.split(".")):
            raise ModuleNotFoundError(name=full)
        module = importlib.import_module(full)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{full}.".startswith(f"{error.name}."):
            raise
        raise UserError(f"There is no {kind} named '{name}'.", f"Known: {', '.join(list_plugins(kind))}.") from None
    found = _find_concrete(module, base)
    if wanted:
        found = [cls for cls in found if cls.__name__ == wanted]
    if len(found) != 1:
        raise UserError(
            f"'{name}' should define one {base.__name__}, and it defines {len(found)}.",
            f"Name the class as '{path}:ClassName', or use one of {', '.join(list_plugins(kind))}.",
        )
    return found[0]


def summarize_plugin(cls: type[Any]) -> str:
    """Return the first line of a plug-in's docstring."""
    return (inspect.getdoc(cls) or "").partition("\n")[0]
