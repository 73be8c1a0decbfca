"""`cowbird peek`: how a file is read, and its first rows; nothing is changed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from cowbird.cli.options import JsonOption
from cowbird.cli.reading import take_read_options
from cowbird.cli.terminal import out_console, print_json, sanitize_line
from cowbird.report.terminal import sanitize_text

if TYPE_CHECKING:
    from cowbird.ingest.peek import Peek

PEEK_EXAMPLES = ("cowbird peek items.csv", "cowbird peek export.csv --encoding cp1252 --header-row 3")
MAX_SHOWN_COLUMNS = 8
"""Columns that a terminal shows; JSON holds more."""


@take_read_options
def peek(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A catalogue or a log in any form that is read.")],
    rows: Annotated[int, typer.Option(min=1, help="Rows shown.")] = 5,
    text_column: Annotated[str | None, typer.Option(help="The column of titles; looked for by default.")] = None,
    id_column: Annotated[str | None, typer.Option(help="The column of ids; looked for by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell how a file is read, and show its first rows. Nothing is changed.

    Up to 10,000 rows are looked at, for what a scan or an experiment would tell of them.

    Exit codes: 0 it can be read, 2 error.
    """
    from cowbird.ingest.peek import peek_file  # noqa: PLC0415

    found = peek_file(file, rows, text_column, id_column)
    if as_json:
        print_json(_make_record(found))
        return
    out_console.print(sanitize_line(found.describe()), soft_wrap=True)
    out_console.print(_make_table(found))
    for remark in found.remarks:
        out_console.print(Text("A scan would refuse this: ", style="yellow") + sanitize_line(remark), soft_wrap=True)
    for remark in found.log_remarks:
        said = Text("An experiment would refuse this: ", style="yellow") + sanitize_line(remark)
        out_console.print(said, soft_wrap=True)
    for note in found.notes:
        out_console.print(Text("note: ", style="cyan") + sanitize_line(note), soft_wrap=True)
    if found.notes:
        out_console.print(Text(f"Notes are about the first {found.sampled:,} rows."))
    for number, problem in found.unread:
        out_console.print(Text(f"Row {number} can't be read: ", style="yellow") + sanitize_line(problem))
    left_out = len(found.columns) - min(len(found.shown), MAX_SHOWN_COLUMNS)
    if left_out:
        out_console.print(Text(f"{left_out} more columns are not shown; --json tells all names."))


def _make_record(found: "Peek") -> dict[str, Any]:
    return {
        "file": found.file,
        "form": found.form,
        "columns": list(found.columns),
        "roles": found.roles,
        "shown": list(found.shown),
        "rows": [list(row) for row in found.rows],
        "late_id": found.late_id or None,
        "remarks": list(found.remarks),
        "log_remarks": list(found.log_remarks),
        "sampled": found.sampled,
        "notes": list(found.notes),
        "unread": [{"row": number, "reason": problem} for number, problem in found.unread],
    }


def _make_table(found: "Peek") -> Table:
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    places = _choose_places(found)
    for place in places:
        table.add_column(sanitize_text(found.shown[place], 40), overflow="fold", max_width=40)
    for row in found.rows:
        table.add_row(
            *(Text("–", style="dim") if row[at] is None else sanitize_text(row[at] or "", 80) for at in places)
        )
    return table


def _choose_places(found: "Peek") -> list[int]:
    """Return which columns are shown: those that are taken for something first."""
    known = [place for place, name in enumerate(found.shown) if name in found.roles.values()]
    rest = [place for place in range(len(found.shown)) if place not in known]
    return sorted([*known, *rest][:MAX_SHOWN_COLUMNS])
