"""Your own logs: interactions as CSV, TSV (either may be gzipped) or Parquet, with optional item and user files."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from cowbird.data.sources._events import EventLog
from cowbird.data.sources._tables import assemble, gather_table, make_item_encoder, split_categories
from cowbird.data.sources.base import Source, catch_problem
from cowbird.data.types import Dataset
from cowbird.errors import UserError
from cowbird.ingest.blobs import Blob, from_file
from cowbird.ingest.block import MAX_LINE_BYTES
from cowbird.ingest.columns import find_column
from cowbird.ingest.delimited import TextTable
from cowbird.ingest.layout import TextLayout
from cowbird.ingest.parquet import ParquetTable, as_text, refuse_lists
from cowbird.ingest.rows import ID_COLUMN, LINE_COLUMN
from cowbird.ingest.skips import Skips
from cowbird.notices import NoticeRank, note

_SEPARATORS = (",", "\t", ";", "|")
_USUAL_SEPARATORS = {".csv": ",", ".tsv": "\t"}
"""Separators that nobody wonders at, by the ending of a file."""
_ABSENCES = {
    "rating_column": "interactions have no ratings",
    "title_column": "items have no titles",
    "category_column": "items have no categories",
}
"""What follows where a column that is read by default is not there; of times `EventLog` tells."""
_DATES = ("%Y-%m-%d %H:%M:%S%.f%:z", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")


class Tabular(Source):
    """CSV, TSV or Parquet files with named columns.

    Users come in the order of their first event, items in the order of the item file and then of their first event.
    Spaces around ids are taken off; titles stay as they are. Events that equal another in user, item, time and rating
    are skipped where there is a time column; without one, the order of the file is the order in time, and repeats stay.
    """

    path: Path = Field(examples=["data/interactions.csv"])
    """Interactions: `.csv`, `.tsv`, `.txt`, each also with `.gz`, or `.parquet`."""
    item_path: Path | None = None
    """Catalogue, with the column of item ids and columns of titles and categories."""
    user_path: Path | None = None
    """Profiles, with the column of user ids and one column an attribute."""
    user_column: str = "user_id"
    """Column of user ids, in the interactions and the user file."""
    item_column: str = "item_id"
    """Column of item ids, in the interactions and the item file."""
    time_column: str | None = "timestamp"
    """Column of times: numbers, or dates such as `2024-05-01 12:30:00`; `timestamp` is read only if it is there."""
    rating_column: str | None = "rating"
    """Column of ratings; `rating` is read only if it is there."""
    title_column: str | None = "title"
    """Column of titles in the item file; `title` is read only if it is there."""
    category_column: str | None = "category"
    """Column of categories in the item file; `category` is read only if it is there."""
    category_separator: str = "|"
    """What stands between the categories of an item; an empty string if each item has one."""
    attribute_columns: tuple[str, ...] | None = None
    """Columns of the user file to keep as attributes; all of them by default."""
    separator: str | None = Field(default=None, pattern=r"^[\x01-\x09\x0b\x0c\x0e-!#-\x7f]+$")
    """What stands between columns of text files; by default whichever of `,` tab `;` `|` the first line uses most."""
    quoted: bool = True
    """Whether double quotes wrap fields in text files; never where the separator is longer than one character."""
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    """Encoding of text files."""

    def load(self) -> Dataset:
        """Read the files."""
        skips = Skips()
        items = self._read_items(skips)
        users = self._read_users(skips)
        log = self._read_events(EventLog(self.path.name, skips, make_item_encoder(items)))
        files = tuple(path.name if path else "" for path in (self.item_path, self.user_path))
        return assemble(self.path.name.partition(".")[0], log, items, users, (files[0], files[1]))

    def find_problems(self) -> list[UserError]:
        """Return what keeps `load` from reading each of the files; see `Source.find_problems`."""
        problems: list[UserError] = []
        skips = Skips()
        try:
            table = self._open_table(self.path, skips)
        except UserError as error:
            problems.append(error)
        else:
            for field in ("user_column", "item_column"):
                problems += catch_problem(partial(find_column, getattr(self, field), table.names, table.file, field))
            for field in ("time_column", "rating_column"):
                problems += catch_problem(partial(self._find_optional, field, table))
        for read in (self._read_items, self._read_users):
            problems += catch_problem(partial(read, skips))
        return problems

    def _find_roles(self, table: TextTable | ParquetTable) -> dict[str, str]:
        """Return which columns of the interactions are read, by what they are."""
        roles = {"user": self.user_column, "item": self.item_column}
        for role in ("user", "item"):
            find_column(roles[role], table.names, table.file, f"{role}_column")
        for role in ("time", "rating"):
            column = self._find_optional(f"{role}_column", table)
            if column is not None:
                roles[role] = column
        return roles

    def _open_table(self, path: Path, skips: Skips) -> TextTable | ParquetTable:
        """Open one file."""
        blob = from_file(path)
        if path.suffix in (".parquet", ".pq"):
            return ParquetTable(path)
        separator = self.separator or _sniff(blob)
        if self.separator is None and separator != _USUAL_SEPARATORS.get(path.suffixes[0] if path.suffixes else ""):
            text = f"The columns of {path.name} are taken to be separated by {separator!r}; 'separator' names another."
            note(NoticeRank.CHOICE, text)
        if self.quoted and len(separator) > 1:
            text = f"Quotes of {path.name} are letters as others, for its separator is longer than one character."
            note(NoticeRank.CHANGE, text)
        return TextTable(blob, TextLayout(separator, self.quoted and len(separator) == 1, self.encoding), skips)

    def _find_optional(self, field: str, table: TextTable | ParquetTable) -> str | None:
        """Return the column that a field names; `None` if it is the default and the file lacks it."""
        column: str | None = getattr(self, field)
        if column is None:
            return None
        if column not in table.names and column == type(self).model_fields[field].default:
            if field in _ABSENCES:
                text = f"{table.file} has no column '{column}', so {_ABSENCES[field]}; '{field}' names another."
                note(NoticeRank.CHANGE, text)
            return None
        return table.names[find_column(column, table.names, table.file, field)]

    def _read_events(self, log: EventLog) -> EventLog:
        """Read the interactions."""
        table = self._open_table(self.path, log.skips)
        roles = self._find_roles(table)
        for frame in table.read_frames(_drop_duplicates(roles.values())):
            chosen = frame.select(*(pl.col(column).alias(role) for role, column in roles.items()), LINE_COLUMN)
            chosen = chosen.with_columns(as_text(chosen["user"]), as_text(chosen["item"]))
            log.add(parse_dates(chosen, log) if "time" in roles else chosen)
        return log

    def _read_items(self, skips: Skips) -> pl.DataFrame | None:
        """Read the catalogue."""
        if self.item_path is None:
            return None
        table = self._open_table(self.item_path, skips)
        find_column(self.item_column, table.names, table.file, "item_column")
        title, category = self._find_optional("title_column", table), self._find_optional("category_column", table)
        columns = _drop_duplicates(name for name in (self.item_column, title, category) if name is not None)
        parts: list[pl.DataFrame] = []
        for frame in table.read_frames(columns):
            chosen = [as_text(frame[self.item_column]).alias(ID_COLUMN), frame[LINE_COLUMN]]
            if title is not None:
                chosen.append(refuse_lists(frame[title]).cast(pl.String).alias("title"))
            if category is not None:
                chosen.append(self._split_categories(frame, category))
            parts.append(pl.DataFrame(chosen))
        return gather_table(parts, table.file, "item", skips)

    def _split_categories(self, frame: pl.DataFrame, column: str) -> pl.Series:
        """Return the lists of categories of some items."""
        if isinstance(frame.schema[column], pl.List):
            return frame[column].alias("categories")
        texts = frame.select(pl.col(column).cast(pl.String))
        return texts.select(split_categories(column, self.category_separator)).to_series().alias("categories")

    def _read_users(self, skips: Skips) -> pl.DataFrame | None:
        """Read the profiles."""
        if self.user_path is None:
            return None
        table = self._open_table(self.user_path, skips)
        find_column(self.user_column, table.names, table.file, "user_column")
        names = self.attribute_columns
        if names is None:
            names = tuple(name for name in table.names if name != self.user_column)
        for name in names:
            find_column(name, table.names, table.file, "attribute_columns")
        frames = (
            pl.DataFrame(
                [
                    as_text(frame[self.user_column]).alias(ID_COLUMN),
                    frame[LINE_COLUMN],
                    *(as_text(frame[name]) for name in names),
                ]
            )
            for frame in table.read_frames(_drop_duplicates([self.user_column, *names]))
        )
        return gather_table(frames, table.file, "user", skips)


def _drop_duplicates(names: Iterable[str]) -> list[str]:
    """Return names in their order, each once."""
    return list(dict.fromkeys(names))


def _sniff(blob: Blob) -> str:
    """Return the separator that the first line of a file uses most."""
    with blob.open_stream() as stream:
        line = stream.readline(MAX_LINE_BYTES)
    return max(_SEPARATORS, key=lambda separator: line.count(separator.encode()))


def parse_dates(frame: pl.DataFrame, log: EventLog) -> pl.DataFrame:
    """Turn times written as dates into seconds since 1970 (UTC where they name no zone)."""
    if frame.schema["time"] != pl.String:
        return frame
    texts = frame["time"].str.strip_chars()
    numbers = texts.cast(pl.Float64, strict=False)
    written = numbers.is_null() & texts.is_not_null() & (texts != "")
    if not written.any():
        return frame.with_columns(time=numbers)
    spaced = pl.col("time").str.strip_chars().str.replace(r"^(\S{10})T", "$1 ").str.replace(r"Z$", "+00:00")
    seconds = [
        spaced.str.to_datetime(form, strict=False, time_unit="us").dt.epoch("us").cast(pl.Float64) / 1e6
        for form in _DATES
    ]
    frame = frame.with_columns(time=pl.coalesce(numbers, *seconds))
    zoned = texts.str.contains(r"([+-]\d\d:?\d\d|Z)$")
    count = int((written & ~zoned & frame["time"].is_not_null()).sum())
    note(NoticeRank.CHOICE, f"{log.file} holds dates without a time zone: they are taken for UTC.", count or 0)
    return log.reject(frame, written & frame["time"].is_null(), "time is neither a number nor a date")
