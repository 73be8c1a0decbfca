"""The fields of a model as people read them: type, limits, default and meaning, from the model's own JSON schema."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

JsonObject = dict[str, Any]
MAX_CHOICES_SHOWN = 12
"""Most values of a field that are listed one by one."""
_TYPE_WORDS = {
    "boolean": ("true or false", "true or false"),
    "integer": ("whole number", "whole numbers"),
    "number": ("number", "numbers"),
    "string": ("text", "texts"),
    "path": ("path", "paths"),
}
"""What a type is called, of one value and of several."""


class UntitledSchema(GenerateJsonSchema):
    """JSON schemas without the titles that only repeat a field's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False: names of fields are titles enough."""
        return False


@dataclass(frozen=True)
class FieldReference:
    """One field of a table."""

    name: str
    """Its key."""
    type: str
    """What values it takes, in words."""
    required: bool
    """Whether it must be given."""
    default: Any
    """Its default as a plain JSON value; `None` where it has none."""
    meaning: str
    """What it means: the docstring under it."""

    def to_record(self) -> JsonObject:
        """Return the field as plain JSON values."""
        return dict(vars(self))


@dataclass(frozen=True)
class TableReference:
    """A table of a spec: a plug-in's, or one that stands in it."""

    name: str
    """Name of its class."""
    meaning: str
    """What it stands for."""
    fields: tuple[FieldReference, ...]
    """Its fields, in their order."""

    def to_record(self) -> JsonObject:
        """Return the table as plain JSON values."""
        return {"name": self.name, "meaning": self.meaning, "fields": [field.to_record() for field in self.fields]}


def make_schema(model: type[BaseModel]) -> JsonObject:
    """Return the JSON schema of a model."""
    return model.model_json_schema(schema_generator=UntitledSchema)


def describe_model(model: type[BaseModel]) -> tuple[TableReference, ...]:
    """Return the fields of a model, and after it those of every table that stands in it.

    Args:
        model: Any pydantic model; the fields `name` that only tell plug-ins apart are left out.
    """
    return tuple(_walk_tables(model.__name__, make_schema(model)))


def _walk_tables(name: str, schema: JsonObject) -> Iterator[TableReference]:
    definitions = cast("dict[str, JsonObject]", schema.get("$defs", {}))
    waiting, done = [(name, schema)], {name}
    while waiting:
        title, table = waiting.pop(0)
        yield _describe_table(title, table, definitions)
        for entry in cast("JsonObject", table.get("properties", {})).values():
            for inner in list_references(entry):
                if inner not in done and is_table(definitions[inner]):
                    done.add(inner)
                    waiting.append((inner, definitions[inner]))


def is_table(definition: Mapping[str, Any]) -> bool:
    """Return whether a definition is a table with fields; base classes have none."""
    return bool(definition.get("properties"))


def list_references(entry: object) -> list[str]:
    """Return the names of the definitions that a part of a schema refers to."""
    if isinstance(entry, dict):
        found = cast("JsonObject", entry)
        own = [found["$ref"].rpartition("/")[2]] if isinstance(found.get("$ref"), str) else []
        inside = [value for key, value in found.items() if key not in ("default", "examples", "$ref", "discriminator")]
        return own + [name for value in inside for name in list_references(value)]
    if isinstance(entry, list):
        return [name for value in cast("list[object]", entry) for name in list_references(value)]
    return []


def _describe_table(name: str, table: JsonObject, definitions: Mapping[str, JsonObject]) -> TableReference:
    required = table.get("required", [])
    fields = tuple(
        FieldReference(
            key,
            name_type(entry, definitions),
            key in required,
            None if key in required else trim_default(entry, definitions),
            join_lines(entry.get("description", "")),
        )
        for key, entry in cast("dict[str, JsonObject]", table.get("properties", {})).items()
        if not is_tag(key, entry)
    )
    return TableReference(name, join_lines(table.get("description", "")), fields)


def is_tag(key: str, entry: JsonObject) -> bool:
    """Return whether a field only says which plug-in a table is for."""
    return key == "name" and "const" in entry


def join_lines(text: str) -> str:
    """Return a docstring as one line a paragraph."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def trim_default(entry: JsonObject, definitions: Mapping[str, JsonObject]) -> Any:
    """Return a field's default; of a table, what differs from the defaults of its own fields."""
    names = list_references(entry)
    if "default" not in entry and "$ref" in entry:
        return {}  # made anew for each, by the table itself
    default: Any = entry.get("default")
    if isinstance(default, dict) and names and names[0] in definitions:
        return _subtract_defaults(cast("JsonObject", default), definitions[names[0]], definitions)
    return cast("Any", default)


def _subtract_defaults(values: JsonObject, table: JsonObject, definitions: Mapping[str, JsonObject]) -> JsonObject:
    found: JsonObject = {}
    for key, value in values.items():
        entry = table.get("properties", {}).get(key, {})
        names = list_references(entry)
        if isinstance(value, dict) and names:
            inside = _subtract_defaults(cast("JsonObject", value), definitions[names[0]], definitions)
            own = trim_default(entry, definitions)
            if inside != own:
                found[key] = inside
        elif "default" not in entry or value != entry["default"]:
            found[key] = value
    return found


def name_type(entry: JsonObject, definitions: Mapping[str, JsonObject], several: bool = False) -> str:
    """Return what values a part of a schema takes, in words.

    Args:
        entry: The part.
        definitions: What `$ref` in it may refer to.
        several: Whether the words are for more than one value.
    """
    choices = [part for part in entry.get("anyOf", entry.get("oneOf", [])) if part.get("type") != "null"]
    if choices:
        names = [name_type(part, definitions, several) for part in choices if _can_be_written(part, definitions)]
        return " or ".join(dict.fromkeys(names))
    if "$ref" in entry:
        return f"{'tables' if several else 'table'} {entry['$ref'].rpartition('/')[2]}"
    if "const" in entry or "enum" in entry:
        values = entry.get("enum", [entry.get("const")])
        return f"one of {len(values)} names" if len(values) > MAX_CHOICES_SHOWN else _join_choices(values)
    if entry.get("type") == "array":
        return _name_array(entry, definitions)
    words = _TYPE_WORDS[entry["format"] if entry.get("format") in _TYPE_WORDS else entry.get("type", "string")]
    limits = _name_limits(entry)
    return words[several] + (f" {limits}" if limits else "")


def _can_be_written(part: JsonObject, definitions: Mapping[str, JsonObject]) -> bool:
    return "$ref" not in part or is_table(definitions[part["$ref"].rpartition("/")[2]])


def _join_choices(values: list[Any]) -> str:
    words = [f'"{value}"' for value in values]
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _name_array(entry: JsonObject, definitions: Mapping[str, JsonObject]) -> str:
    parts = entry.get("prefixItems")
    if parts:
        return f"list of {len(parts)}: {', '.join(name_type(part, definitions) for part in parts)}"
    inside = name_type(entry.get("items", {}), definitions, several=True)
    least = f", at least {entry['minItems']}" if entry.get("minItems") else ""
    return f"list of {inside}{least}"


def _name_limits(entry: JsonObject) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {entry[key]:g}" for key, sign in signs.items() if key in entry]
    if "maxLength" in entry:
        limits.append(f"of at most {entry['maxLength']} characters")
    if entry.get("minLength"):
        limits.append("not empty")
    return ", ".join(limits)
