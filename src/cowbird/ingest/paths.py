"""Paths to columns that lie in others, such as `product.titles[0]`."""

import re
from collections.abc import Sequence
from typing import Any, cast

_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d{1,9})\]")


def split_path(name: str) -> list[str | int]:
    """Return the steps that a name such as `product.titles[0]` leads along; none if it is no such name."""
    steps: list[str | int] = []
    at = 0
    for found in _STEP.finditer(name):
        if found.start() != at:
            return []
        steps.append(found[1] if found[1] is not None else int(found[2]))
        at = found.end()
    return steps if at == len(name) else []


def follow_path(value: Any, steps: Sequence[str | int]) -> Any:
    """Return what lies at the end of a path in nested dicts and lists; `None` where it leads nowhere."""
    for step in steps:
        if isinstance(step, int):
            listed = cast("list[Any]", value) if isinstance(value, list) else []
            value = listed[step] if step < len(listed) else None
        else:
            value = cast("dict[str, Any]", value).get(step) if isinstance(value, dict) else None
        if value is None:
            return None
    return value
