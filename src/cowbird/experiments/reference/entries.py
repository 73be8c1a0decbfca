"""What there is to put into a spec, by kind and name: lists of it, and all about one entry."""

import difflib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, get_args

from pydantic import BaseModel

from cowbird import plugins
from cowbird.attacks.triggers import TRIGGERS, Trigger
from cowbird.errors import UserError
from cowbird.experiments.reference.examples import make_example, make_trigger_example, plant_in_example_title
from cowbird.experiments.reference.fields import JsonObject, TableReference, describe_model, join_lines
from cowbird.experiments.reference.shipped_specs import list_shipped_specs
from cowbird.experiments.scenarios import AnyScenario, Scenario
from cowbird.experiments.spec_labels import find_shipped_spec
from cowbird.experiments.tasks import list_measures

SHIPPED_ORIGIN = "Cowbird"
"""Where entries come from that no other package brings."""
PLUGIN_SECTIONS = {"attack": "attacks", "defense": "defenses", "victim": "victims", "dataset": "dataset"}
"""Kinds of plug-ins, and the key of a spec that holds them."""
KINDS = (*PLUGIN_SECTIONS, "scenario", "trigger", "metric", "spec")
"""Kinds of entries, in the order in which they are told."""


MAX_NAMES_IN_HINT = 20
"""Most names that a hint lists."""


METRIC_NOTE = (
    "It is the `metric` of rows in results.jsonl. With several seeds, rows whose metric ends in _over_seeds hold its "
    "mean over them."
)
"""What is told of every metric."""


class ListedEntry(NamedTuple):
    """One line of a list."""

    name: str
    """What a spec (or `cowbird run`) calls it."""
    origin: str
    """`Cowbird`, or the package that it comes from."""
    summary: str
    """What it is, in a line."""


@dataclass(frozen=True)
class Entry:
    """All about one thing that a spec may name."""

    kind: str
    """One of `KINDS`."""
    name: str
    """Its name."""
    origin: str
    """`Cowbird`, or the package that it comes from."""
    summary: str
    """What it is, in a line."""
    text: str
    """More about it; may be empty."""
    tables: tuple[TableReference, ...]
    """Its fields, and those of tables that stand in it."""
    example: str
    """TOML that holds it, with what it needs and its defaults; may be empty."""

    def to_record(self) -> JsonObject:
        """Return the entry as plain JSON values."""
        return vars(self) | {"tables": [table.to_record() for table in self.tables]}


def find_scenarios() -> dict[str, type[Scenario]]:
    """Return the scenarios by the name that a spec gives them."""
    classes: tuple[type[Scenario], ...] = get_args(get_args(AnyScenario)[0])
    return {str(get_args(scenario.model_fields["name"].annotation)[0]): scenario for scenario in classes}


def list_entries(kind: str, allow_plugins: bool = False) -> list[ListedEntry]:
    """List what there is of one kind, sorted by name (triggers and scenarios in their own order).

    Args:
        kind: One of `KINDS`.
        allow_plugins: Whether files of the current folder may be imported, which runs their code; they come last.
    """
    if kind in PLUGIN_SECTIONS:
        local = plugins.describe_local_plugins(kind) if allow_plugins else []
        return [ListedEntry(*entry) for entry in [*plugins.describe_plugins(kind), *local]]
    return _LISTS[kind]()


def _list_scenarios() -> list[ListedEntry]:
    return [
        ListedEntry(name, SHIPPED_ORIGIN, plugins.summarize_plugin(model)) for name, model in find_scenarios().items()
    ]


def _list_triggers() -> list[ListedEntry]:
    return [ListedEntry(name, SHIPPED_ORIGIN, _summarize_trigger(name)) for name in TRIGGERS]


def _list_metrics() -> list[ListedEntry]:
    return [
        ListedEntry(measure.name, SHIPPED_ORIGIN, f"{measure.title} ({measure.unit}). {measure.doc}")
        for measure in list_measures()
    ]


def _list_specs() -> list[ListedEntry]:
    return [ListedEntry(name, SHIPPED_ORIGIN, text) for name, text in list_shipped_specs().items()]


_LISTS: dict[str, Callable[[], list[ListedEntry]]] = {
    "scenario": _list_scenarios,
    "trigger": _list_triggers,
    "metric": _list_metrics,
    "spec": _list_specs,
}


def _summarize_trigger(name: str) -> str:
    trigger = TRIGGERS[name]
    return f"{trigger.level}, family {trigger.family}: {plant_in_example_title(name)}"


def describe_entry(kind: str, name: str, allow_plugins: bool = False) -> Entry:
    """Return all about one entry.

    Args:
        kind: One of `KINDS`.
        name: Its name; for a plug-in also a dotted path.
        allow_plugins: Whether a dotted path may be imported, which runs its code.

    Raises:
        UserError: If there is no such entry; the hint lists the ones there are, or those spelled alike.
    """
    if kind in PLUGIN_SECTIONS:
        origins = {entry.name: entry.origin for entry in plugins.describe_plugins(kind)}
        return _describe_model(kind, name, plugins.find_plugin(kind, name, allow_plugins), origins.get(name, name))
    known = {entry.name: entry for entry in list_entries(kind)}
    if name not in known:
        raise UserError(f"There is no {kind} named '{name}'.", _suggest_names(kind, name, list(known)))
    if kind == "scenario":
        return _describe_model(kind, name, find_scenarios()[name])
    if kind == "metric":
        return Entry(kind, name, known[name].origin, known[name].summary, METRIC_NOTE, (), "")
    tables = describe_model(Trigger) if kind == "trigger" else ()
    example = make_trigger_example(name) if kind == "trigger" else find_shipped_spec(name).read_text(encoding="utf-8")
    return Entry(kind, name, known[name].origin, known[name].summary, "", tables, example)


def _suggest_names(kind: str, name: str, known: list[str]) -> str:
    if len(known) <= MAX_NAMES_IN_HINT:
        return f"Known: {', '.join(known)}."
    close = difflib.get_close_matches(name, known, 5)
    return (f"Do you mean {', '.join(close)}? " if close else "") + f"cowbird list {kind}s names all {len(known)}."


def _describe_model(kind: str, name: str, model: type[BaseModel], origin: str = SHIPPED_ORIGIN) -> Entry:
    summary, _, more = (inspect.getdoc(model) or "").partition("\n")
    module = sys.modules[model.__module__].__doc__ if kind in PLUGIN_SECTIONS else ""
    text = "\n\n".join(part for part in (join_lines(more.strip()), join_lines((module or "").strip())) if part)
    section = PLUGIN_SECTIONS.get(kind, "scenarios")
    return Entry(kind, name, origin, summary, text, describe_model(model), make_example(section, name, model))
