"""What `cowbird inspect` wrote about a model, as a page shows it.

The file is JSON. Of its keys, `verdict` and lists of sentences are shown as words, `suspects` as a table, and plain
values as facts. Keys that a later version adds are shown in the same way.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from cowbird.errors import UserError
from cowbird.report.formats import ReportTable, make_report_table
from cowbird.report.run_files import MAX_JSON_BYTES

INSPECTION_HINT = "Give a file that `cowbird inspect --out` wrote."
MAX_SHOWN_SUSPECTS = 50
"""Suspects that are shown."""
SUSPECTS_KEY = "suspects"
"""The list of suspected items, in the order of the file."""
VERDICT_KEYS = ("verdict", "reason", "summary")
"""Texts that are shown as sentences."""


@dataclass(frozen=True, slots=True)
class InspectionSummary:
    """What one inspection found."""

    label: str
    """The file's name."""
    words: tuple[str, ...]
    """The verdict, and what was checked and what was not."""
    suspects: ReportTable | None
    """The suspected items; `None` if there are none."""
    facts: ReportTable
    """All plain values of the file."""


def read_inspection_file(path: Path) -> InspectionSummary:
    """Read what `cowbird inspect` wrote.

    Raises:
        UserError: If the file can't be read, or is no such file.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UserError(f"'{path}' is larger than {MAX_JSON_BYTES:,} bytes.", INSPECTION_HINT)
        held = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"'{path}' can't be read: {error.strerror}.", INSPECTION_HINT) from None
    except (ValueError, RecursionError):
        raise UserError(f"'{path}' is not JSON.", INSPECTION_HINT) from None
    if not isinstance(held, dict) or SUSPECTS_KEY not in held:
        raise UserError(f"'{path}' has no list 'suspects', so no inspection wrote it.", INSPECTION_HINT)
    record = cast("dict[str, Any]", held)
    words = [str(record[key]) for key in VERDICT_KEYS if isinstance(record.get(key), str)]
    for key, value in record.items():
        if isinstance(value, list) and key != SUSPECTS_KEY:
            texts = [each for each in cast("list[object]", value) if isinstance(each, str)]
            words += [f"{key.replace('_', ' ')}: {text}" for text in texts]
    facts = [(name, text) for name, text in _flatten(record) if name not in VERDICT_KEYS]
    return InspectionSummary(
        path.name, tuple(words), _tabulate(record[SUSPECTS_KEY]), make_report_table(("fact", "value"), facts)
    )


def _flatten(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return the plain values of an object and of objects in it."""
    found: list[tuple[str, str]] = []
    for key, value in record.items():
        if isinstance(value, dict) and prefix.count(".") < 3:
            found += _flatten(cast("dict[str, Any]", value), f"{prefix}{key}.")
        elif isinstance(value, str | int | float | bool):
            found.append((f"{prefix}{key}", _format_plain(value)))
    return found


def _format_plain(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)


def _tabulate(suspects: object) -> ReportTable | None:
    """Return suspects as a table: a column for each key with plain values."""
    listed = cast("list[object]", suspects)[:MAX_SHOWN_SUSPECTS] if isinstance(suspects, list) else []
    rows = [cast("dict[str, Any]", each) if isinstance(each, dict) else {"item": each} for each in listed]
    plain = (str, int, float, bool)
    names = list(dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, plain)))
    if not names:
        return None
    numeric = [
        nth for nth, name in enumerate(names) if all(isinstance(row.get(name, 0), int | float | None) for row in rows)
    ]
    cells = [
        [_format_plain(row.get(name)) if isinstance(row.get(name), plain) else "" for name in names] for row in rows
    ]
    return make_report_table([name.replace("_", " ") for name in names], cells, numeric)
