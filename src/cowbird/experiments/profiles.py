"""Profiles of a spec: what a smaller run, or another one, changes in its tables."""

import json
import re
from typing import Any, cast

from cowbird import plugins
from cowbird.errors import UserError


def apply_profile(table: dict[str, Any], profile: str, where: str = "spec") -> dict[str, Any]:
    """Return the tables of a spec as one of its profiles changes them.

    A profile holds what differs: a table changes the keys it names, in every entry if the spec has a list there (so
    `[profile.quick.victims] epochs = 3` is for all victims, and `[profile.quick.victims.sasrec]` for the one with that
    label or name); a plug-in of another name replaces the whole table; any other value replaces the spec's. The
    experiment's name gets the profile's after it.

    Args:
        table: The tables of a TOML file.
        profile: A key of its `profile` table; empty for none.
        where: What to call the spec in errors.

    Raises:
        UserError: If there is no such profile.
    """
    known = _as_table(table.get("profile", {}))
    if known is None or any(_as_table(changes) is None for changes in known.values()):
        raise UserError(f"{where}: 'profile' must be a table of tables.", "Write [profile.NAME] above what it changes.")
    plain = {key: value for key, value in table.items() if key != "profile"}
    if not profile:
        return plain
    changes = _as_table(known.get(profile))
    if changes is None:
        raise UserError(f"{where} has no profile '{profile}'.", _suggest_profile(plain, profile, list(known)))
    return _merge(plain, {"name": f"{plain.get('name', '')}-{profile}"} | changes)


def _suggest_profile(table: dict[str, Any], profile: str, known: list[str]) -> str:
    """Write the lines to add to a spec without profiles, or which ones it has."""
    if known:
        return f"Its profiles: {', '.join(known)}."
    name = profile if re.fullmatch(r"[A-Za-z0-9_-]+", profile) else json.dumps(profile)
    lines = f"[profile.{name}], and below it what such a run changes, such as: seeds = [0]"
    if _take_epochs(table.get("victims")):
        lines += " and, in a line of its own, victims = { epochs = 1 }"
    return f"It has none. Add a line at its end: {lines}."


def _take_epochs(victims: object) -> bool:
    """Tell whether all victims of a spec have a field `epochs`."""
    tables = [_as_table(each) or {} for each in cast("list[object]", victims)] if isinstance(victims, list) else []
    shipped = plugins.list_plugins("victim")
    names = [str(table.get("name")) for table in tables]
    return bool(names) and all(
        name in shipped and "epochs" in plugins.find_plugin("victim", name).model_fields for name in names
    )


def _merge(table: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(table)
    for key, value in changes.items():
        before, change = _as_table(merged.get(key)), _as_table(value)
        if change is not None and isinstance(merged.get(key), list):
            merged[key] = _merge_entries(cast("list[object]", merged[key]), change)
        elif change is not None and before is not None:
            merged[key] = _merge_part(before, change)
        else:
            merged[key] = value
    return merged


def _merge_part(table: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Merge into a plug-in's table, or replace it by that of another plug-in."""
    same = changes.get("name", table.get("name")) == table.get("name")
    return _merge(table, changes) if same else changes


def _merge_entries(entries: list[object], changes: dict[str, Any]) -> list[object]:
    """Change all tables of a list, and those named after a label (or name) by what stands under it as well."""
    tables = [(entry, _as_table(entry)) for entry in entries]
    titles = {str(table.get("label") or table.get("name")) for _, table in tables if table is not None}
    common = {key: value for key, value in changes.items() if key not in titles or _as_table(value) is None}
    merged: list[object] = []
    for entry, table in tables:
        if table is None:
            merged.append(entry)
        else:
            own = _as_table(changes.get(str(table.get("label") or table.get("name"))))
            merged.append(_merge_part(_merge_part(table, common), own or {}))
    return merged


def _as_table(value: object) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None
