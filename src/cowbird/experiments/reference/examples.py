"""Examples: TOML that holds a plug-in with what it needs and its defaults, and that a spec may hold as it is."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from pydantic import BaseModel

from cowbird.attacks.triggers import Trigger, plant
from cowbird.experiments.reference.fields import JsonObject, is_tag, list_references, make_schema
from cowbird.experiments.reference.toml_text import drop_empty, format_tables

EXAMPLE_TITLE = "Quiet Harbor at Night (1999)"
"""An ordinary title."""
LISTS = ("attacks", "defenses", "victims", "scenarios")
"""Keys of a spec that hold lists of tables."""


def make_example(section: str, name: str, model: type[BaseModel]) -> str:
    """Return TOML that holds a plug-in.

    Args:
        section: The key of a spec that holds it.
        name: What a spec calls it.
        model: Its class.
    """
    schema = make_schema(model)
    table = {"name": name} | _fill_table(schema, schema.get("$defs", {}))
    return format_tables({section: [table] if section in LISTS else table})


def _fill_table(table: JsonObject, definitions: Mapping[str, JsonObject]) -> dict[str, Any]:
    """Return values for a table: examples or placeholders of what it needs, and its defaults."""
    required = table.get("required", [])
    found: dict[str, Any] = {}
    for key, entry in cast("dict[str, JsonObject]", table.get("properties", {})).items():
        if is_tag(key, entry):
            continue
        value = _make_placeholder(key, entry, definitions) if key in required else drop_empty(entry.get("default"))
        if value not in (None, "", [], {}):
            found[key] = value
    return found


def _make_placeholder(key: str, entry: JsonObject, definitions: Mapping[str, JsonObject]) -> Any:
    if entry.get("examples"):
        return entry["examples"][0]
    names = list_references(entry)
    if names:
        return _fill_table(definitions[names[0]], definitions)
    if entry.get("format") == "path":
        return "path/to/data"
    if "enum" in entry:
        return entry["enum"][0]
    kinds: dict[str, Any] = {
        "integer": entry.get("minimum", 1),
        "number": entry.get("minimum", 0.5),
        "boolean": True,
        "array": [],
    }
    return kinds.get(entry.get("type", ""), key)


def make_trigger_example(name: str) -> str:
    """Return TOML of an attack with a shipped trigger."""
    trigger = Trigger(kind=name).model_dump(mode="json", include={"kind", "position", "field"})
    return format_tables({"attacks": [{"name": "badrec", "trigger": trigger}]})


def plant_in_example_title(name: str) -> str:
    """Return an ordinary title with a shipped trigger at its end; hostile text, for some triggers hide characters."""
    return plant(EXAMPLE_TITLE, Trigger(kind=name), np.random.default_rng(0)).title
