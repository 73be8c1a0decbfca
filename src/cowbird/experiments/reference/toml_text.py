"""Values and tables written as TOML."""

from collections.abc import Mapping
from typing import Any, cast

import tomlkit

MAX_INLINE_LENGTH = 90
"""Longest line of a nested table; longer ones get lines of their own."""


def format_value(value: object) -> str:
    """Return a plain JSON value as TOML on one line; `None`, for which TOML has no word, as `none`."""
    if isinstance(value, dict):
        fields = [f"{key} = {format_value(inner)}" for key, inner in cast("dict[str, Any]", value).items()]
        return f"{{ {', '.join(fields)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(format_value, cast('list[Any]', value)))}]"
    return "none" if value is None else tomlkit.item(value).as_string()


def drop_empty(value: Any) -> Any:
    """Return a plain JSON value without what TOML can't say (`None`), and without empty texts, lists and tables."""
    if isinstance(value, dict):
        inside = {key: drop_empty(inner) for key, inner in cast("dict[str, Any]", value).items()}
        return {key: inner for key, inner in inside.items() if inner not in (None, "", [], {})}
    return [drop_empty(inner) for inner in cast("list[Any]", value)] if isinstance(value, list) else value


def format_tables(tables: Mapping[str, Any]) -> str:
    """Return tables as the lines of a TOML file; short nested tables stand on one line."""
    lines: list[str] = []
    for name, value in tables.items():
        for table in cast("list[Mapping[str, Any]]", value) if isinstance(value, list) else [value]:
            lines.append(f"[[{name}]]" if isinstance(value, list) else f"[{name}]")
            lines += _format_fields(cast("Mapping[str, Any]", table), name)
    return "\n".join(lines) + "\n"


def _format_fields(table: Mapping[str, Any], path: str) -> list[str]:
    lines: list[str] = []
    below: dict[str, Mapping[str, Any]] = {}
    for key, value in table.items():
        line = f"{key} = {format_value(value)}"
        if isinstance(value, dict) and len(line) > MAX_INLINE_LENGTH:
            below[key] = cast("Mapping[str, Any]", value)
        else:
            lines.append(line)
    for key, value in below.items():
        lines += [f"[{path}.{key}]", *_format_fields(value, f"{path}.{key}")]
    return lines
