"""What `cowbird inspect` wrote about a model, as a page shows it.

The file is sealed JSON. `verdict` and lists of sentences are shown as words, `ranking` as a table, and plain values as
facts. Keys that a later version adds are shown in the same way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from cowbird.errors import UserError
from cowbird.report.formats import ReportTable, make_report_table
from cowbird.report.run_files import MAX_JSON_BYTES
from cowbird.storage import read_sealed_json

INSPECTION_HINT = "Give a file that `cowbird inspect --out` wrote."
MAX_RANKED_ITEMS = 50
"""Items of an inspection's ranking that are shown."""
RANKING_KEY = "ranking"
"""The list of items, the most suspicious first."""
VERDICT_KEY = "verdict"
"""The verdict in words."""


@dataclass(frozen=True, slots=True)
class InspectionSummary:
    """What one inspection found."""

    label: str
    """The file's name."""
    words: tuple[str, ...]
    """The verdict, and what was checked and what was not."""
    suspects: ReportTable | None
    """The items that stand out most; `None` if there are none."""
    facts: ReportTable
    """All plain values of the file."""


def read_inspection_file(path: Path) -> InspectionSummary:
    """Read what `cowbird inspect` wrote.

    Raises:
        UserError: If the file can't be read, or is no such file.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"'{path}' can't be read: {error.strerror}.", INSPECTION_HINT) from None
    if size > MAX_JSON_BYTES:
        raise UserError(f"'{path}' is larger than {MAX_JSON_BYTES:,} bytes.", INSPECTION_HINT)
    held = read_sealed_json(path, INSPECTION_HINT)
    if not isinstance(held, dict) or not isinstance(cast("dict[str, Any]", held).get(RANKING_KEY), list):
        raise UserError(f"'{path}' has no list '{RANKING_KEY}', so no inspection wrote it.", INSPECTION_HINT)
    record = cast("dict[str, Any]", held)
    words = [str(record[VERDICT_KEY])] if isinstance(record.get(VERDICT_KEY), str) else []
    for key, value in record.items():
        name = key.replace("_", " ").capitalize()
        if key != RANKING_KEY and isinstance(value, list):
            texts = [each for each in cast("list[object]", value) if isinstance(each, str)]
            words += [f"{name}: {text}" for text in texts]
        elif key == "checked" and isinstance(value, dict):
            words += [f"{name}: {kind}. {text}" for kind, text in cast("dict[str, Any]", value).items()]
    facts = [(name, text) for name, text in _flatten(record) if name.split(".")[0] not in (VERDICT_KEY, "checked")]
    return InspectionSummary(
        path.name, tuple(words), _tabulate(record[RANKING_KEY]), make_report_table(("fact", "value"), facts)
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
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _tabulate(ranking: object) -> ReportTable | None:
    """Return a ranking as a table: a column for each plain value of an item, also of objects in it."""
    listed = cast("list[object]", ranking)[:MAX_RANKED_ITEMS] if isinstance(ranking, list) else []
    found = [_flatten(cast("dict[str, Any]", each)) if isinstance(each, dict) else [] for each in listed]
    rows = [dict(each) for each in found]
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:
        return None
    plain = [cast("dict[str, Any]", each) for each in listed if isinstance(each, dict)]
    texts = {name for row in plain for name, value in row.items() if isinstance(value, str | bool)}
    numeric = [nth for nth, name in enumerate(names) if name not in texts]
    header = [name.replace("_", " ").replace(".", ": ") for name in names]
    return make_report_table(header, [[row.get(name, "") for name in names] for row in rows], numeric)
