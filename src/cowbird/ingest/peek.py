"""How a file is read and what its first rows hold, without doing anything with it.

More rows than are shown are looked at, as a scan or an experiment reads them, and what those would tell is told.
"""

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from cowbird.errors import UserError
from cowbird.ingest.columns import (
    ID_COLUMNS,
    RATING_COLUMNS,
    TIME_COLUMNS,
    TITLE_COLUMNS,
    USER_COLUMNS,
    find_usual,
)
from cowbird.ingest.delimited import TextTable
from cowbird.ingest.frames import open_frames
from cowbird.ingest.open import open_rows
from cowbird.ingest.options import get_options
from cowbird.ingest.rows import LATE_ID, RowTable, TableRow
from cowbird.ingest.skips import Skips
from cowbird.ingest.values import IdColumn, blank_missing, note_missing_titles, read_decimal_commas, read_times
from cowbird.notices import collect_notices

MAX_PEEK_COLUMNS = 50
"""Columns whose cells are shown at most."""
MAX_PEEKED_ROWS = 10_000
"""Rows that are looked at, if fewer are to be shown."""
MAX_PEEKED_CHARACTERS = 1 << 25
"""Characters of cells at which no more rows are looked at, unless they are to be shown."""
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
    log_remarks: tuple[str, ...] = ()
    """Why an experiment would refuse the file as a log of interactions, and which field of the dataset mends that."""
    sampled: int = 0
    """Rows that were looked at."""
    notes: tuple[str, ...] = ()
    """What a scan or an experiment would tell of these rows."""

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
    with collect_notices():  # of columns; they are told as roles
        table = open_rows(path)
        roles = {
            role: table.names[place]
            for role, usual in _ROLES.items()
            if (place := _find_role(table, role, usual, text_column, id_column)) is not None
        }
        late = not {"id", "user"} & set(roles) and table.find_id(None) == LATE_ID
    places = list(dict.fromkeys([*(table.names.index(name) for name in roles.values()), *range(len(table.names))]))
    places = sorted(places[:MAX_PEEK_COLUMNS])
    with collect_notices() as told:
        sample = _read_sample(table, places, rows)
        title = roles.get("title")
        if title is not None:
            _check_titles(table, sample, places.index(table.names.index(title)))
        log_remarks = tuple(_check_log(path, roles))
    found = sample[:rows]
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
        log_remarks,
        len(sample),
        tuple(map(str, told.list())),
    )


def _read_sample(table: RowTable, places: Sequence[int], rows: int) -> list[TableRow]:
    """Return the first rows: those that are to be shown, and more to look at."""
    sample, held = list[TableRow](), 0
    with closing(_read_all(table, places)) as found:
        for row in found:
            sample.append(row)
            held += sum(len(cell or "") for cell in row.cells)
            if len(sample) >= rows and (len(sample) >= MAX_PEEKED_ROWS or held >= MAX_PEEKED_CHARACTERS):
                break
    return sample


def _read_all(table: RowTable, places: Sequence[int]) -> Generator[TableRow]:
    yield from table.read_rows(places)


def _check_titles(table: RowTable, sample: Sequence[TableRow], place: int) -> None:
    """Tell which titles are taken for missing."""
    null = get_options().null_texts
    titles = [_show(row.cells[place]) for row in sample if not row.problem]
    note_missing_titles(table.file, Counter(title for title in titles if title is not None and title in null))


def _check_log(path: Path, roles: dict[str, str]) -> Iterator[str]:
    """Look at the first rows as an experiment reads interactions: tell of it, and yield why it would refuse them."""
    read = {role: roles[role] for role in ("user", "id", "time", "rating") if role in roles}
    if "user" not in roles:
        return
    options = get_options()
    try:
        table = open_frames(path, options, Skips())
        frame = next(iter(table.read_frames(list(dict.fromkeys(read.values())))), pl.DataFrame()).head(MAX_PEEKED_ROWS)
    except UserError as error:
        yield f"{error.message} {error.hint}"
        return
    commas = isinstance(table, TextTable) and table.layout.separator != ","
    for role, name in read.items() if frame.height else ():
        values = frame[name]
        try:
            if role in ("user", "id"):
                if not isinstance(values.dtype, pl.List | pl.Array):  # a history in a row
                    IdColumn(name, table.file, options.null_texts).clean(values)
            else:
                values = blank_missing(values, options.null_texts)
                values = read_decimal_commas(values, name, table.file) if commas else values
                if role == "time" and values.dtype == pl.String:
                    read_times(values, table.file, name, None, "time_format")
        except UserError as error:
            yield f"{error.message} {error.hint}"


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
