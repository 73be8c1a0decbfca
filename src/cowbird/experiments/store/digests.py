"""Digests of what a thing is made of: texts, numbers, arrays, and data classes, mappings and sequences of such."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cowbird.files import hash_texts


def hash_parts(*parts: object) -> str:
    """Return the SHA-256 of texts, numbers and arrays, and of data classes, mappings and sequences of such.

    Raises:
        TypeError: If something else is among them.
    """
    return hash_texts(_encode_parts(parts))


def _encode_parts(part: object) -> Iterator[str]:
    """Yield what tells a value from others; how many follow is told before them, so that no two are told alike."""
    if part is None or isinstance(part, str | int | float):
        yield f"{type(part).__name__} {part}"
    elif isinstance(part, np.ndarray):
        array = cast("NDArray[Any]", part)
        yield f"{array.dtype.str} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
    elif is_dataclass(part):
        yield from _encode_parts({field.name: getattr(part, field.name) for field in fields(part)})
    elif isinstance(part, Mapping):
        table = cast("Mapping[str, object]", part)
        yield from _encode_parts([inner for name in sorted(table) for inner in (name, table[name])])
    elif isinstance(part, Sequence):
        inside = cast("Sequence[object]", part)
        yield f"{len(inside)}"
        for inner in inside:
            if type(inner) is str:  # titles by the thousand
                yield f"str {inner}"
            else:
                yield from _encode_parts(inner)
    else:
        raise TypeError(f"a {type(part).__name__} has no digest")
