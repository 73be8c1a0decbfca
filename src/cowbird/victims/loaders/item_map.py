"""Which item of a platform is which item of a model: maps that are read from a file.

A map is a text file with an id a line, in the order of the model's items. Or it is a file `*.json`: a list of the same,
or an object from ids to the numbers that the library gives to items. Where padding has the number 0, a map may name it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cowbird.errors import UserError
from cowbird.faults import explain_outages
from cowbird.victims.loaders._archives import open_plain_file
from cowbird.victims.loaders._pickles import is_dict, is_list

MAX_MAP_BYTES = 1 << 30
"""Longest map that is read."""
_HINT = "A map has the id of each item in the order of the model, a line each; or it is JSON, a list or an object."


def read_item_map(path: Path, items: int, first: int) -> tuple[str, ...]:
    """Read the ids of a model's items.

    Args:
        path: The map.
        items: How many items the model has.
        first: The number that the library gives to the first item: 1 if 0 is padding.

    Returns:
        The ids in the order of the model's items, shape `[items]`.

    Raises:
        UserError: If it is no such map, has another length, or names an item twice.
        OutageError: If it can't be read for a passing fault.
    """
    with open_plain_file(path) as file, explain_outages(f"'{path}' can't be read"):
        data = file.read(MAX_MAP_BYTES + 1)
    if len(data) > MAX_MAP_BYTES:
        raise UserError(f"'{path}' is longer than {MAX_MAP_BYTES} bytes.", _HINT)
    try:
        text = data.decode("utf-8-sig")
        given: Any = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except (ValueError, RecursionError):
        kind = "JSON" if path.suffix == ".json" else "text in UTF-8"
        raise UserError(f"'{path}' is not {kind}.", _HINT) from None
    if not is_list(given) and not is_dict(given):
        raise UserError(f"'{path}' is neither a list nor an object.", _HINT)
    ids = _sort_object(given, first, path) if is_dict(given) else [_read_id(each, path) for each in given]
    if first and len(ids) == items + first:
        ids = ids[first:]
    return check_item_ids(ids, items, f"'{path}'")


def check_item_ids(ids: Sequence[str], items: int, what: str) -> tuple[str, ...]:
    """Check that there is one id an item and none twice.

    Raises:
        UserError: If it is otherwise.
    """
    if len(ids) != items:
        raise UserError(f"{what} has ids of {len(ids)} items, and the model has {items}.", _HINT)
    if len(set(ids)) != len(ids):
        raise UserError(f"{what} names an item twice.", _HINT)
    return tuple(ids)


def _read_id(value: Any, path: Path) -> str:
    if isinstance(value, str) or type(value) is int:
        return str(value)
    raise UserError(f"'{path}' has an id that is neither text nor a number.", _HINT)


def _sort_object(given: dict[str, Any], first: int, path: Path) -> list[str]:
    """Return the keys of an object in the order of their numbers, which follow each other."""
    numbers = list(given.values())
    if not all(type(number) is int for number in numbers):
        raise UserError(f"'{path}' maps an id to what is no number.", _HINT)
    ordered = sorted(given, key=lambda key: given[key])
    begin = min(numbers, default=first)
    if begin not in (0, first) or sorted(numbers) != list(range(begin, begin + len(numbers))):
        raise UserError(f"The numbers in '{path}' don't follow each other from {first} on.", _HINT)
    return ordered
