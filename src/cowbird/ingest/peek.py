"""How a file is read and what its first rows hold, without doing anything with it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cowbird.errors import UserError
from cowbird.ingest.columns import (
    ID_COLUMNS,
    RATING_COLUMNS,
    TIME_COLUMNS,
    TITLE_COLUMNS,
    USER_COLUMNS,
    find_usual,
)
from cowbird.ingest.open import open_rows
from cowbird.ingest.rows import LATE_ID, RowTable

MAX_PEEK_COLUMNS = 50
"""Columns whose cells are shown at most."""
_ROLES = {
    "title": TITLE_COLUMNS,
    "id": ID_COLUMNS,
    "user": USER_COLUMNS,
    "time": TIME_COLUMNS,
    "rating": RATING_COLUMNS,
}


@dataclass(frozen=True, slots=True)
class Peek:
    """What was seen of a file."""

    file: str
    """Its name."""
    form: str
    """How it is read, in a few words."""
    columns: tuple[str, ...]
    """All of its columns."""
    roles: dict[str, str]
    """Columns that are taken for something, by what that is; those that are not found are not among them."""
    shown: tuple[str, ...]
    """The columns of `rows`: the first `MAX_PEEK_COLUMNS`."""
    rows: tuple[tuple[str | None, ...], ...]
    """Cells of the first rows that can be read; `None` where one is empty."""
    unread: tuple[tuple[int, str], ...]
    """Numbers of rows among the first that can't be read, and why."""
    late_id: str = ""
    """Where ids are taken from that the first rows lack; empty if these have some, or there are none."""
    remarks: tuple[str, ...] = ()
    """Why a scan would refuse the columns of titles or ids as they are, and which option mends that."""

    def describe(self) -> str:
        """Say in one line how the file is read."""
        found = [f"{role} = '{name}'" for role, name in self.roles.items()]
        found += [f"id = {self.late_id}"] if self.late_id else []
        return f"{self.file}: {self.form}; {', '.join(found) or 'no column has a name that is known'}."


def peek_file(path: Path, rows: int = 5, text_column: str | None = None, id_column: str | None = None) -> Peek:
    """Look at a file.

    Args:
        path: The file; see `cowbird.ingest.open.open_rows`.
        rows: Rows looked at, at most.
        text_column: The column of titles; `None` looks for a usual one.
        id_column: The column of ids; `None` looks for a usual one.

    Raises:
        UserError: If the file can't be read, or lacks a column that is named.
    """
    table = open_rows(path)
    roles = {
        role: table.names[place]
        for role, usual in _ROLES.items()
        if (place := _find_role(table, role, usual, text_column, id_column)) is not None
    }
    late = not {"id", "user"} & set(roles) and table.find_id(None) == LATE_ID
    places = list(dict.fromkeys([*(table.names.index(name) for name in roles.values()), *range(len(table.names))]))
    places = sorted(places[:MAX_PEEK_COLUMNS])
    found = list(islice(table.read_rows(places), rows))
    return Peek(
        table.file,
        table.describe(),
        tuple(table.names),
        roles,
        tuple(table.names[place] for place in places),
        tuple(tuple(_show(cell) for cell in row.cells) for row in found if not row.problem),
        tuple((row.number, row.problem) for row in found if row.problem),
        table.get_name(LATE_ID) if late else "",
        tuple(_check_roles(table, roles)),
    )


def _check_roles(table: RowTable, roles: dict[str, str]) -> Iterator[str]:
    """Yield why the columns of titles and ids can't be read as such; that a log has no titles is no fault."""
    title = roles.get("title") or (None if "user" in roles else TITLE_COLUMNS[0])
    for name, find in ((title, table.find_text), (roles.get("id"), table.find_id)):
        if name is not None:
            try:
                find(name)
            except UserError as error:
                yield f"{error.message} {error.hint}"


def _find_role(
    table: RowTable, role: str, usual: tuple[str, ...], text_column: str | None, id_column: str | None
) -> int | None:
    wanted = {"title": text_column, "id": id_column}.get(role)
    if wanted is None:
        return find_usual(usual, table.names)
    if role == "title":
        return table.find_text(wanted)
    return table.find_id(wanted)


def _show(cell: bytes | str | None) -> str | None:
    return cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell
