"""The JSON schema of a spec file, with every plug-in in it, for editors and for other programs.

A spec file is flatter than the `Spec` that it becomes: a plug-in's fields stand beside its `name`. The schema describes
the file.
"""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from cowbird import plugins
from cowbird.experiments.reference.fields import JsonObject, UntitledSchema
from cowbird.experiments.spec import LISTED_PARTS, SINGLE_PARTS, Spec, VictimPart

SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"
MODE: JsonSchemaMode = "validation"


def make_spec_schema() -> JsonObject:
    """Return the JSON schema of spec files.

    A plug-in that does not ship is named by a dotted path; its fields are not checked.
    """
    kinds = SINGLE_PARTS | LISTED_PARTS
    classes = {kind: {name: plugins.find_plugin(kind, name) for name in plugins.list_plugins(kind)} for kind in
               kinds.values()}  # fmt: skip
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (model, MODE) for found in classes.values() for model in found.values()
    ]
    parts: list[tuple[type[BaseModel], JsonSchemaMode]] = [(Spec, MODE), (VictimPart, MODE)]
    references, whole = models_json_schema([*parts, *models], schema_generator=UntitledSchema)
    definitions: dict[str, JsonObject] = whole["$defs"]
    named = {key: schema["$ref"].rpartition("/")[2] for key, schema in references.items()}
    spec = definitions.pop(named[Spec, MODE])
    label = definitions[named[VictimPart, MODE]]["properties"]["label"]
    for kind, found in classes.items():
        for name, model in found.items():
            definitions[f"{kind}:{name}"] = _add_name(definitions[named[model, MODE]], name, label)
    for key, kind in kinds.items():
        entry = {"oneOf": [*({"$ref": f"#/$defs/{kind}:{name}"} for name in classes[kind]), _make_foreign(label)]}
        meaning = {"description": spec["properties"][key]["description"]}
        spec["properties"][key] = (
            entry | meaning if key in SINGLE_PARTS else {"type": "array", "items": entry, "minItems": 1} | meaning
        )
    spec["properties"]["profile"] = _make_profiles(list(spec["properties"]))
    used = _find_used(spec, definitions)
    return {
        "$schema": SCHEMA_DIALECT,
        "title": "Cowbird experiment",
        **{key: value for key, value in spec.items() if key != "title"},
        "$defs": {name: definitions[name] for name in sorted(used)},
    }


def _add_name(plugin: JsonObject, name: str, label: JsonObject) -> JsonObject:
    """Return the schema of a plug-in's table in a spec file."""
    fields = {"name": {"const": name, "description": "Name of the plug-in."}, "label": label}
    return plugin | {
        "properties": fields | {key: value for key, value in plugin.get("properties", {}).items() if key != "name"},
        "required": ["name", *(key for key in plugin.get("required", []) if key != "name")],
    }


def _make_foreign(label: JsonObject) -> JsonObject:
    """Return the schema of a table for somebody else's plug-in."""
    path = {"type": "string", "pattern": r"\.", "description": "Dotted path of a plug-in that does not ship."}
    return {"type": "object", "properties": {"name": path, "label": label}, "required": ["name"]}


def _make_profiles(keys: list[str]) -> JsonObject:
    """Return the schema of profiles: tables that name what they change."""
    return {
        "type": "object",
        "description": "Profiles: what differs from the rest of the file when `--profile NAME` is given.",
        "additionalProperties": {"type": "object", "propertyNames": {"enum": keys}},
    }


def _find_used(schema: Any, definitions: dict[str, JsonObject]) -> set[str]:
    """Return the names of all definitions that a schema needs."""
    used: set[str] = set()
    waiting: list[Any] = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            name = str(part.get("$ref", "")).removeprefix("#/$defs/")  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
            if name in definitions and name not in used:
                used.add(name)
                waiting.append(definitions[name])
        waiting += part.values() if isinstance(part, dict) else part if isinstance(part, list) else []  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    return used
