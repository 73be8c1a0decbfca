"""Your own logs: interactions in any form that is read, with optional item and user files."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import polars as pl
from pydantic import Field, field_validator

from cowbird.data.sources._events import EventLog
from cowbird.data.sources._tables import assemble, gather_table, make_item_encoder, split_categories
from cowbird.data.sources._times import explode_histories, parse_dates
from cowbird.data.sources.base import Source, catch_problem
from cowbird.data.types import Dataset
from cowbird.errors import UserError
from cowbird.ingest.addresses import has_password
from cowbird.ingest.blobs import from_file
from cowbird.ingest.columns import (
    ITEM_COLUMNS,
    TIME_COLUMNS,
    TITLE_COLUMNS,
    USER_COLUMNS,
    choose_column,
    find_column,
    find_usual,
    match_column,
)
from cowbird.ingest.delimited import TextTable
from cowbird.ingest.frames import open_frames
from cowbird.ingest.layout import TextLayout
from cowbird.ingest.options import NO_QUOTE, ReadOptions
from cowbird.ingest.parquet import refuse_lists
from cowbird.ingest.places import refuse_changes
from cowbird.ingest.rows import ID_COLUMN, LINE_COLUMN, FrameTable
from cowbird.ingest.skips import Skips
from cowbird.ingest.values import IdColumn, blank_missing, read_decimal_commas
from cowbird.notices import NoticeRank, note

_USUAL = {
    "user": USER_COLUMNS,
    "item": ITEM_COLUMNS,
    "time": TIME_COLUMNS,
    "rating": ("rating",),
    "title": TITLE_COLUMNS,
    "category": ("category",),
}
"""Where columns are looked for that nobody named."""
_ABSENCES = {
    "rating_column": "interactions have no ratings",
    "title_column": "items have no titles",
    "category_column": "items have no categories",
}
"""What follows where a column that is read by default is not there; of times `EventLog` tells."""


class Tabular(Source):
    """CSV, TSV, JSON or Parquet files with named columns.

    Users come in the order of their first event, items in the order of the item file and then of their first event.
    Spaces around ids are taken off; titles stay as they are. Events that equal another in user, item, time and rating
    are skipped where there is a time column; without one, the order of the file is the order in time, and repeats stay.
    """

    path: Path = Field(examples=["data/interactions.csv"])
    """Interactions: `.csv`, `.tsv`, `.txt`, `.jsonl`, `.json`, each also with `.gz`, `.zst`, `.bz2` or `.xz`, or
    `.parquet`."""
    item_path: Path | None = None
    """Catalogue, with the column of item ids and columns of titles and categories."""
    user_path: Path | None = None
    """Profiles, with the column of user ids and one column an attribute."""
    user_column: str = "user_id"
    """Column of user ids, in the interactions and the user file."""
    item_column: str = "item_id"
    """Column of item ids, in the interactions and the item file."""
    time_column: str | None = "timestamp"
    """Column of times: numbers, or dates such as `2024-05-01 12:30:00`; where `timestamp` is not there, a usual name
    such as `event_time` is looked for."""
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
    """What stands between columns of text files; sniffed by default."""
    quoted: bool = True
    """Whether quotes wrap fields in text files; never where the separator is longer than one character."""
    quote: str | None = None
    """What wraps fields: one character, or `backslash` for `"` with a backslash before one inside; sniffed by
    default."""
    encoding: str | None = None
    """Encoding of text files, such as `cp1252`; sniffed by default."""
    header_row: int | None = Field(default=None, ge=0)
    """Line of the column names in text files; 0 if there are none, and columns are `column_1`, `column_2` …"""
    null: tuple[str, ...] | None = None
    """Texts that stand for a missing value, instead of `NULL`, `\\N`, `nan`, `None` and alike."""
    json_path: str | None = None
    """Where in a JSON document the array of rows is, such as `data.items`."""
    table: str | None = None
    """Table of a database."""
    time_format: str | None = None
    """How dates are written, such as `%m/%d/%Y`; by default forms that mean one thing alone, such as
    `2024-05-01 12:30:00`."""
    decimal_comma: bool | None = None
    """Whether `4,5` is 4.5; by default in text files whose separator is no comma."""

    @field_validator("path", "item_path", "user_path")
    @classmethod
    def _refuse_password(cls, path: Path | None) -> Path | None:
        """Refuse an address with a password: specs are kept in the folders of runs."""
        if path is not None and has_password(str(path)):
            raise ValueError("an address in a spec holds no password; leave it out, and set PGPASSWORD or alike")
        return path

    def load(self) -> Dataset:
        """Read the files."""
        skips = Skips()
        with refuse_changes(self.path, self.item_path, self.user_path):
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
            problems += catch_problem(partial(self._refuse_histories, table))
            for role in ("user", "item", "time", "rating"):
                problems += catch_problem(partial(self._find, role, table))
        known = len(problems)
        for read in (self._read_items, self._read_users):
            problems += catch_problem(partial(read, skips))
        if problems and not known:  # otherwise `load` reads the events, which finds dates that can't be read
            alone = EventLog(self.path.name, Skips(), make_item_encoder(None))
            problems = [*catch_problem(partial(self._read_events, alone)), *problems]
        return problems

    def _open_table(self, path: Path, skips: Skips) -> FrameTable:
        """Open one file, and tell how it is read if that is not the usual way."""
        if self.separator is not None and len(self.separator) > 1:
            text = f"Quotes of {path.name} are letters as others, for its separator is longer than one character."
            note(NoticeRank.CHANGE, text if self.quoted else "", 1 if self.quoted else 0)
            return TextTable(from_file(path), TextLayout(self.separator, False, self.encoding or "utf-8"), skips)
        table = open_frames(path, self._make_options(), skips)
        if isinstance(table, TextTable) and not table.layout.is_usual:
            text = f"{table.file}: {table.describe()}; 'encoding', 'separator', 'quote' and 'header_row' say otherwise."
            note(NoticeRank.CHOICE, text)
        return table

    def _make_options(self) -> ReadOptions:
        quote = self.quote if self.quoted else NO_QUOTE
        separator = self.separator if self.separator is None or len(self.separator) == 1 else None
        return ReadOptions(self.encoding, separator, quote, self.header_row, self.null, self.json_path, self.table)

    def _find(self, role: str, table: FrameTable) -> str | None:
        """Return the column of a role; `None` if it is not wanted, or by default and not there."""
        field = f"{role}_column"
        wanted: str | None = getattr(self, field)
        if wanted is None:
            return None
        usual = _USUAL[role] if wanted == type(self).model_fields[field].default else ()
        optional = role not in ("user", "item") and bool(usual)
        if optional and match_column(wanted, table.names) is None and find_usual(usual, table.names) is None:
            if field in _ABSENCES and wanted not in table.names:
                text = f"{table.file} has no column '{wanted}', so {_ABSENCES[field]}; '{field}' names another."
                note(NoticeRank.CHANGE, text)
            if wanted not in table.names:
                return None
        return table.names[choose_column(wanted, table.names, table.file, field, usual)]

    def _find_roles(self, table: FrameTable) -> dict[str, str]:
        """Return which columns of the interactions are read, by what they are."""
        found = {role: self._find(role, table) for role in ("user", "item", "time", "rating")}
        return {role: column for role, column in found.items() if column is not None}

    def _read_events(self, log: EventLog) -> EventLog:
        """Read the interactions."""
        table = self._open_table(self.path, log.skips)
        self._refuse_histories(table)
        roles = self._find_roles(table)
        null = self._make_options().null_texts
        ids = {role: IdColumn(roles[role], table.file, null) for role in ("user", "item")}
        for frame in table.read_frames(_drop_duplicates(roles.values())):
            chosen = frame.select(*(pl.col(column).alias(role) for role, column in roles.items()), LINE_COLUMN)
            chosen = explode_histories(chosen, log, roles)
            chosen = chosen.with_columns(*(column.clean(chosen[role]).alias(role) for role, column in ids.items()))
            for role in {"time", "rating"} & set(roles):
                chosen = chosen.with_columns(self._clean_numbers(chosen[role], roles[role], table, null))
            log.add(parse_dates(chosen, log, roles["time"], self.time_format) if "time" in roles else chosen)
        return log

    def _refuse_histories(self, table: FrameTable) -> None:
        """Refuse a log whose rows have their history in a column beside the item, as RecBole's benchmark files do.

        Raises:
            UserError: If there is such a column: its events would be left out.
        """
        column = f"{self.item_column}_list"
        if column in table.names:
            raise UserError(
                f"{table.file} has histories in a column '{column}', beside the item of each row.",
                "Read its folder with the source 'atomic', which takes them; or name another item_column.",
            )

    def _clean_numbers(self, values: pl.Series, column: str, table: FrameTable, null: frozenset[str]) -> pl.Series:
        """Return numbers or dates as strings, with points where they have decimal commas."""
        values = blank_missing(values, null)
        own = isinstance(table, TextTable) and table.layout.separator != ","
        return (
            read_decimal_commas(values, column, table.file)
            if (self.decimal_comma or (self.decimal_comma is None and own))
            else values
        )

    def _read_items(self, skips: Skips) -> pl.DataFrame | None:
        """Read the catalogue."""
        if self.item_path is None:
            return None
        table = self._open_table(self.item_path, skips)
        own, title, category = self._find_own("item", table), self._find("title", table), self._find("category", table)
        null = self._make_options().null_texts
        ids = IdColumn(own, table.file, null)
        columns = _drop_duplicates(name for name in (own, title, category) if name is not None)
        parts: list[pl.DataFrame] = []
        for frame in table.read_frames(columns):
            chosen = [ids.clean(frame[own]).alias(ID_COLUMN), frame[LINE_COLUMN]]
            if title is not None:
                texts = refuse_lists(frame[title], table.file).cast(pl.String).alias("title")
                chosen.append(blank_missing(texts, null))
            if category is not None:
                chosen.append(self._split_categories(frame, category, null))
            parts.append(pl.DataFrame(chosen))
        return gather_table(parts, table.file, "item", skips)

    def _find_own(self, role: str, table: FrameTable) -> str:
        """Return the column of ids of a catalogue or of profiles."""
        field = f"{role}_column"
        wanted: str = getattr(self, field)
        usual = (*_USUAL[role], "id") if wanted == type(self).model_fields[field].default else ()
        return table.names[choose_column(wanted, table.names, table.file, field, usual)]

    def _split_categories(self, frame: pl.DataFrame, column: str, null: frozenset[str]) -> pl.Series:
        """Return the lists of categories of some items."""
        if isinstance(frame.schema[column], pl.List):
            return frame[column].alias("categories")
        texts = blank_missing(frame[column].cast(pl.String), null).to_frame()
        return texts.select(split_categories(column, self.category_separator)).to_series().alias("categories")

    def _read_users(self, skips: Skips) -> pl.DataFrame | None:
        """Read the profiles."""
        if self.user_path is None:
            return None
        table = self._open_table(self.user_path, skips)
        own = self._find_own("user", table)
        names = self.attribute_columns
        if names is None:
            names = tuple(name for name in table.names if name != own)
        for name in names:
            find_column(name, table.names, table.file, "attribute_columns")
        null = self._make_options().null_texts
        columns = {name: IdColumn(name, table.file, null) for name in (own, *names)}
        frames = (
            pl.DataFrame(
                [
                    columns[own].clean(frame[own]).alias(ID_COLUMN),
                    frame[LINE_COLUMN],
                    *(columns[name].clean(frame[name]).alias(name) for name in names),
                ]
            )
            for frame in table.read_frames(_drop_duplicates([own, *names]))
        )
        return gather_table(frames, table.file, "user", skips)


def _drop_duplicates(names: Iterable[str]) -> list[str]:
    """Return names in their order, each once."""
    return list(dict.fromkeys(names))
