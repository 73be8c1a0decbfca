"""RecBole atomic files: tab-separated text with typed column names such as `user_id:token`.

The format is described in RecBole's documentation, "Atomic Files". A `token_seq` holds tokens separated by spaces, and
a `float_seq` numbers; quotes are ordinary characters. The genre `Children's` is one token, and so is `Sci-Fi`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from cowbird.data.sources._ages import bracket_ages
from cowbird.data.sources._events import EventLog
from cowbird.data.sources._histories import join_histories
from cowbird.data.sources._tables import assemble, gather_table, make_item_encoder, split_categories
from cowbird.data.types import Dataset
from cowbird.errors import UserError
from cowbird.ingest.blobs import Blob, from_file
from cowbird.ingest.columns import TIME_COLUMNS, find_column, find_usual
from cowbird.ingest.delimited import TextTable
from cowbird.ingest.layout import TextLayout
from cowbird.ingest.rows import ID_COLUMN, LINE_COLUMN
from cowbird.ingest.skips import Skips
from cowbird.notices import NoticeRank, note

ATOMIC_TITLES = ("movie_title", "title", "name", "item_name")
"""Names under which titles are looked for."""
CATEGORY_COLUMNS = ("genre", "genres", "class", "categories", "category", "tags")
"""Names under which categories are looked for."""

_TAB = TextLayout(separator="\t", quoted=False)


class AtomicColumns(NamedTuple):
    """Names of the columns, without their types; `None` looks for the usual ones."""

    user: str = "user_id"
    item: str = "item_id"
    time: str | None = "timestamp"
    rating: str | None = "rating"
    title: str | None = None
    category: str | None = None


class _TypedTable:
    """A table whose header says the type of each column."""

    def __init__(self, blob: Blob, skips: Skips) -> None:
        self.table = TextTable(blob, _TAB, skips)
        self.file = blob.name
        parts = [name.partition(":") for name in self.table.names]
        if not any(kind for _, _, kind in parts):
            raise UserError(
                f"{self.file} should name its columns as in 'user_id:token', and they are "
                f"{', '.join(repr(name[:60]) for name in self.table.names[:10])}.",
                "For plain CSV or TSV files use the source 'tabular'.",
            )
        self.names = [name for name, _, _ in parts]
        self._kinds = [kind for _, _, kind in parts]
        for name in self.names:
            find_column(name, self.names, self.file)

    def find_raw_name(self, name: str, field: str = "") -> str:
        """Return a column's name as the header writes it."""
        return self.table.names[find_column(name, self.names, self.file, field)]

    def find_name(self, wanted: str | None, usual: Sequence[str], field: str) -> str | None:
        """Return the name of the column wanted, or the first usual one that is there."""
        if wanted is not None:
            find_column(wanted, self.names, self.file, field)
            return wanted
        found = next((name for name in usual if name in self.names), None)
        what = {"title_column": "titles", "category_column": "categories"}[field]
        if found is None:
            note(NoticeRank.CHANGE, f"{self.file} has no known column of {what}; '{field}' names one.")
        else:
            text = f"The {what} of {self.file} are taken from its column '{found}'; '{field}' names another."
            note(NoticeRank.CHOICE, text)
        return found

    def is_sequence(self, name: str) -> bool:
        """Tell whether a column holds tokens separated by spaces."""
        return self._kinds[self.names.index(name)].endswith("_seq")


def find_atomic_files(folder: Path, stem: str | None) -> dict[str, Blob]:
    """Find the atomic files in a folder.

    Args:
        folder: The folder.
        stem: Their name without the ending; `None` if the folder holds one `.inter` file.

    Returns:
        The files by ending: `inter`, and `item` and `user` where they exist.
    """
    if not folder.is_dir():
        raise UserError(f"Expected a folder with atomic files at {folder}, and there is none.", "Check the path.")
    stems = sorted(path.stem for path in folder.glob("*.inter"))
    if stem is None and len(stems) != 1:
        found = f"holds {len(stems)}: {', '.join(stems[:10])}" if stems else "holds none"
        raise UserError(
            f"{folder} should hold one .inter file, and it {found}.",
            "Name it with the field 'stem'." if stems else "Give the folder with the .inter, .item and .user files.",
        )
    stem = stem or stems[0]
    blobs = {"inter": from_file(folder / f"{stem}.inter")}
    for ending in ("item", "user"):
        path = folder / f"{stem}.{ending}"
        if path.is_file():
            blobs[ending] = from_file(path)
    return blobs


def read_atomic(name: str, blobs: dict[str, Blob], columns: AtomicColumns) -> Dataset:
    """Read atomic files.

    Args:
        name: Name of the source.
        blobs: The files by ending.
        columns: Names of the columns.
    """
    skips = Skips()
    items = _read_items(_TypedTable(blobs["item"], skips), columns, skips) if "item" in blobs else None
    users = _read_users(_TypedTable(blobs["user"], skips), columns, skips) if "user" in blobs else None
    log = _read_events(
        _TypedTable(blobs["inter"], skips), columns, EventLog(blobs["inter"].name, skips, make_item_encoder(items))
    )
    files = tuple(blobs[ending].name if ending in blobs else "" for ending in ("item", "user"))
    return assemble(name, log, items, users, (files[0], files[1]))


def list_atomic_checks(blobs: dict[str, Blob], columns: AtomicColumns) -> list[Callable[[], object]]:
    """Return functions that check one file each; what they raise is what is wrong with it; see `read_atomic`."""
    skips = Skips()
    checks: list[Callable[[], object]] = [lambda: _find_event_columns(_TypedTable(blobs["inter"], skips), columns)]
    if "item" in blobs:
        checks.append(lambda: _read_items(_TypedTable(blobs["item"], skips), columns, skips))
    if "user" in blobs:
        checks.append(lambda: _read_users(_TypedTable(blobs["user"], skips), columns, skips))
    return checks


def _find_event_columns(table: _TypedTable, columns: AtomicColumns) -> dict[str, str]:
    """Return which columns of the interactions are read, and as what."""
    wanted = {
        table.find_raw_name(columns.user, "user_column"): "user",
        table.find_raw_name(columns.item, "item_column"): "item",
    }
    defaults = AtomicColumns()
    for role in ("time", "rating"):
        column: str | None = getattr(columns, role)
        if role == "time" and column == defaults.time and column not in table.names:
            found = find_usual(TIME_COLUMNS, table.names)
            if found is not None:
                column = table.names[found]
                text = f"{table.file} has no column 'timestamp', so '{column}' is read; 'time_column' names another."
                note(NoticeRank.CHOICE, text)
        if column is not None and (column in table.names or column != getattr(defaults, role)):
            wanted[table.find_raw_name(column, f"{role}_column")] = role
    return wanted


def _read_events(table: _TypedTable, columns: AtomicColumns, log: EventLog) -> EventLog:
    """Add the interactions to a log."""
    wanted = _find_event_columns(table, columns)
    history = f"{columns.item}_list"
    if history in table.names:
        raw = table.find_raw_name(history)
        frames = [frame.rename(wanted | {raw: "history"}) for frame in table.table.read_frames([*wanted, raw])]
        log.add(join_histories(pl.concat(frames), log, history))
        return log
    for frame in table.table.read_frames(list(wanted)):
        log.add(frame.rename(wanted))
    return log


def _read_items(table: _TypedTable, columns: AtomicColumns, skips: Skips) -> pl.DataFrame:
    """Read the catalogue."""
    title = table.find_name(columns.title, ATOMIC_TITLES, "title_column")
    category = table.find_name(columns.category, CATEGORY_COLUMNS, "category_column")
    exprs = [pl.col(table.find_raw_name(columns.item, "item_column")).alias(ID_COLUMN), pl.col(LINE_COLUMN)]
    if title is not None:
        exprs.append(pl.col(table.find_raw_name(title)).alias("title"))
    if category is not None:
        separator = " " if table.is_sequence(category) else ""
        exprs.append(split_categories(table.find_raw_name(category), separator).alias("categories"))
    names = dict.fromkeys(table.find_raw_name(name) for name in (columns.item, title, category) if name is not None)
    frames = (frame.select(exprs) for frame in table.table.read_frames(list(names)))
    return gather_table(frames, table.file, "item", skips)


def _read_users(table: _TypedTable, columns: AtomicColumns, skips: Skips) -> pl.DataFrame:
    """Read the profiles; every column but the id is an attribute."""
    own = find_column(columns.user, table.names, table.file, "user_column")
    rename = {raw: ID_COLUMN if place == own else table.names[place] for place, raw in enumerate(table.table.names)}
    frame = gather_table(
        (part.rename(rename) for part in table.table.read_frames(list(rename))), table.file, "user", skips
    )
    wanted = "age" in frame.columns and "age_group" not in frame.columns
    return frame.with_columns(bracket_ages("age")) if wanted else frame
