"""Your own logs as tables in memory: polars or pandas frames, or dicts of columns."""

import warnings
from collections.abc import Sequence

import polars as pl

from cowbird.data.sources._events import EventLog
from cowbird.data.sources._tables import assemble, gather_table, make_item_encoder, split_categories
from cowbird.data.sources._times import parse_dates
from cowbird.data.tables import get_column, to_polars
from cowbird.data.types import Dataset
from cowbird.ingest.parquet import as_text, refuse_lists
from cowbird.ingest.rows import ID_COLUMN, LINE_COLUMN
from cowbird.ingest.skips import Skips
from cowbird.notices import collect_notices


def make_dataset(
    interactions: object,
    items: object = None,
    users: object = None,
    *,
    name: str = "frames",
    user_column: str = "user_id",
    item_column: str = "item_id",
    time_column: str | None = "timestamp",
    rating_column: str | None = "rating",
    title_column: str | None = "title",
    category_column: str | None = "category",
    category_separator: str = "|",
    attribute_columns: Sequence[str] | None = None,
) -> Dataset:
    """Make a dataset of tables in memory.

    Rows that can't be used, such as those without an item, are left out. They stand in `skips` of the result, and a
    warning names them. Warnings also say where the order of rows stands in for the order in time.

    Args:
        interactions: One row an event: a polars or pandas frame, or a dict of columns.
        items: The catalogue, one row an item; `None` for items without titles.
        users: Profiles, one row a user; `None` for none.
        name: Name of the dataset in result rows.
        user_column: Column of user ids in `interactions` and `users`.
        item_column: Column of item ids in `interactions` and `items`.
        time_column: Column of times: seconds, dates as text, or a type of time. `timestamp` is read if it is there;
            without times, the order of the rows is the order in time.
        rating_column: Column of ratings; `rating` is read if it is there.
        title_column: Column of titles in `items`; `title` is read if it is there.
        category_column: Column of categories in `items`, as text or lists; `category` is read if it is there.
        category_separator: What stands between the categories of an item; an empty string if each item has one.
        attribute_columns: Columns of `users` to keep; all by default.

    Raises:
        UserError: If a table is no table, a column that you named is missing, or no event can be used.
    """
    skips = Skips()
    catalog = None
    if items is not None:
        catalog = _read_items(items, item_column, title_column, category_column, category_separator, skips)
    profiles = None if users is None else _read_users(users, user_column, attribute_columns, skips)
    log = EventLog("interactions", skips, make_item_encoder(catalog))
    frame = to_polars(interactions, "interactions")
    for column, option in ((user_column, "user_column"), (item_column, "item_column")):
        get_column(frame, column, "interactions", option)
    roles = {"user": user_column, "item": item_column}
    for role, column, option in (
        ("time", time_column, "time_column"),
        ("rating", rating_column, "rating_column"),
    ):
        if _is_wanted(frame, column, role, "interactions", option):
            roles[role] = str(column)
    chosen = frame.select(*(pl.col(column).alias(role) for role, column in roles.items()), _number_rows())
    chosen = chosen.with_columns(as_text(chosen["user"]), as_text(chosen["item"]))
    if "time" in roles:
        chosen = parse_dates(_convert_times(chosen), log, str(time_column))
    log.add(chosen)
    with collect_notices() as told:
        made = assemble(name, log, catalog, profiles, ("items", "users"))
    for notice in told.list():
        warnings.warn(str(notice), UserWarning, stacklevel=2)
    for skip in made.skips:
        warnings.warn(str(skip).replace("(line ", "(row "), UserWarning, stacklevel=2)
    return made


_DEFAULT_COLUMNS = {"time": "timestamp", "rating": "rating", "title": "title", "category": "category"}


def _is_wanted(frame: pl.DataFrame, column: str | None, role: str, table: str, option: str) -> bool:
    """Return whether a column is read: it is there, or it was named and must be."""
    if column is None or (column not in frame.columns and column == _DEFAULT_COLUMNS[role]):
        return False
    get_column(frame, column, table, option)
    return True


def _number_rows() -> pl.Expr:
    return pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias(LINE_COLUMN)


def _convert_times(frame: pl.DataFrame) -> pl.DataFrame:
    """Turn a column of polars' types of time into seconds since 1970 (UTC where they name no zone)."""
    if not frame.schema["time"].is_temporal():
        return frame
    times = pl.col("time")
    if isinstance(frame.schema["time"], pl.Date):
        times = times.cast(pl.Datetime("us"))
    return frame.with_columns(time=times.dt.epoch("us").cast(pl.Float64) / 1e6)


def _read_items(
    table: object, item_column: str, title_column: str | None, category_column: str | None, separator: str, skips: Skips
) -> pl.DataFrame:
    frame = to_polars(table, "items")
    columns = [as_text(get_column(frame, item_column, "items", "item_column")).alias(ID_COLUMN)]
    columns.append(frame.select(_number_rows()).to_series())
    if title_column is not None and _is_wanted(frame, title_column, "title", "items", "title_column"):
        columns.append(refuse_lists(frame[title_column]).cast(pl.String).alias("title"))
    if category_column is not None and _is_wanted(frame, category_column, "category", "items", "category_column"):
        found = frame[category_column]
        if not isinstance(found.dtype, pl.List):
            texts = frame.select(pl.col(category_column).cast(pl.String))
            found = texts.select(split_categories(category_column, separator)).to_series()
        columns.append(found.alias("categories"))
    return gather_table([pl.DataFrame(columns)], "items", "item", skips)


def _read_users(table: object, user_column: str, names: Sequence[str] | None, skips: Skips) -> pl.DataFrame:
    frame = to_polars(table, "users")
    ids = as_text(get_column(frame, user_column, "users", "user_column")).alias(ID_COLUMN)
    kept = [name for name in frame.columns if name != user_column] if names is None else list(names)
    attributes = [as_text(get_column(frame, name, "users", "attribute_columns")) for name in kept]
    return gather_table(
        [pl.DataFrame([ids, frame.select(_number_rows()).to_series(), *attributes])], "users", "user", skips
    )
