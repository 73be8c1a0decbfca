"""Catalogues and profiles from frames, and the data set made of them and the interactions."""

from collections.abc import Iterable
from types import MappingProxyType

import numpy as np
import polars as pl

from cowbird.data.sources._encoder import Encoder
from cowbird.data.sources._events import EventLog
from cowbird.data.types import Attribute, Dataset, Int32Array, Int64Array, Items, Users
from cowbird.ingest.rows import ID_COLUMN, LINE_COLUMN
from cowbird.ingest.skips import Skips


def gather_table(frames: Iterable[pl.DataFrame], file: str, what: str, skips: Skips) -> pl.DataFrame:
    """Gather a table of items or users with one row an id, in file order.

    Args:
        frames: Blocks with the columns `ID_COLUMN` and `LINE_COLUMN`.
        file: Name of the file.
        what: `item` or `user`, for messages.
        skips: Where rows without an id, and rows that repeat one, are counted.
    """
    parts = list(frames)
    frame = pl.concat(parts).with_columns(pl.col(ID_COLUMN).str.strip_chars())
    missing = frame[ID_COLUMN].is_null() | (frame[ID_COLUMN] == "")
    skips.add(file, f"{what} id is missing", frame.filter(missing)[LINE_COLUMN].to_list())
    frame = frame.filter(~missing)
    first = frame[ID_COLUMN].is_first_distinct()
    skips.add(file, f"{what} id stands in an earlier row, which is kept", frame.filter(~first)[LINE_COLUMN].to_list())
    return frame.filter(first)


def split_categories(column: str, separator: str) -> pl.Expr:
    """Return an expression that splits a column into a list of categories; no separator makes one category."""
    if separator:
        return pl.col(column).str.split(separator)
    return pl.concat_list(pl.col(column))


def assemble(
    name: str,
    log: EventLog,
    items: pl.DataFrame | None = None,
    users: pl.DataFrame | None = None,
    files: tuple[str, str] = ("", ""),
) -> Dataset:
    """Make the data set.

    Users come in the order of their first event in the file. Items come in the order of the catalogue, then those that
    only the interactions name, in the order of their first event.

    Args:
        name: Name of the source.
        log: The events. If there is a catalogue, its encoder has to know it: see `make_item_encoder`.
        items: Catalogue from `gather_table`: `ID_COLUMN`, optionally `title` (string) and `categories` (list of
            strings).
        users: Profiles from `gather_table`: `ID_COLUMN` and one column an attribute.
        files: Names of the item file and the user file.
    """
    interactions = log.to_interactions()
    catalog = _make_catalog(log, items, files[0])
    profiles = _make_profiles(log, users, files[1])
    return Dataset(name, interactions, profiles, catalog, log.skips.list())


def make_item_encoder(items: pl.DataFrame | None) -> Encoder:
    """Return an encoder that knows the items of a catalogue, in its order."""
    encoder = Encoder()
    if items is not None:
        encoder.encode(items[ID_COLUMN], items[LINE_COLUMN])
    return encoder


def _make_catalog(log: EventLog, items: pl.DataFrame | None, file: str) -> Items:
    """Return the items: those of the catalogue, then those that only events name."""
    ids = log.items.ids
    known = 0 if items is None else items.height
    if items is not None and len(ids) > known:
        lines = log.items.lines[known:].to_list()
        log.skips.add(log.file, f"item is not in {file}: kept, without title or category", lines)
    titles = pl.Series([""] * len(ids), dtype=pl.String)
    if items is not None and "title" in items.columns:
        titles = items["title"].fill_null("").extend_constant("", len(ids) - known)
    categories = items["categories"] if items is not None and "categories" in items.columns else None
    offsets, codes, labels = encode_categories(categories, len(ids))
    return Items(tuple(ids.to_list()), tuple(titles.to_list()), offsets, codes, labels)


def encode_categories(categories: pl.Series | None, rows: int) -> tuple[Int64Array, Int32Array, tuple[str, ...]]:
    """Turn lists of category names into offsets, codes and sorted names.

    Args:
        categories: A list of names for each of the first items, or `None`.
        rows: Number of items.
    """
    if categories is None:
        return np.zeros(rows + 1, dtype=np.int64), np.zeros(0, dtype=np.int32), ()
    table = pl.DataFrame({"label": categories}).with_row_index("row").explode("label")
    table = table.with_columns(pl.col("label").str.strip_chars())
    table = table.filter(pl.col("label").is_not_null() & (pl.col("label") != ""))
    table = table.unique(["row", "label"], keep="first", maintain_order=True)
    codes, labels = _encode_labels(table["label"])
    counts = np.bincount(table["row"].to_numpy(), minlength=rows)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]), codes, labels


def _make_profiles(log: EventLog, users: pl.DataFrame | None, file: str) -> Users:
    """Return the users that have events, with their attributes."""
    ids = log.users.ids
    attributes: dict[str, Attribute] = {}
    if users is not None:
        seen = pl.DataFrame({ID_COLUMN: ids})
        idle = users.join(seen, on=ID_COLUMN, how="anti")
        log.skips.add(file, "user has no events: profile not used", sorted(idle[LINE_COLUMN].to_list()))
        aligned = seen.join(users, on=ID_COLUMN, how="left", maintain_order="left")
        bare = ~ids.is_in(users[ID_COLUMN].implode())
        lines = log.users.lines.filter(bare).to_list()
        log.skips.add(log.file, f"user is not in {file}: kept, without attributes", lines)
        for name in users.columns:
            if name not in (ID_COLUMN, LINE_COLUMN):
                values = aligned[name].cast(pl.String).str.strip_chars()
                attributes[name] = Attribute(*_encode_labels(values.set(values == "", None)))
    return Users(tuple(ids.to_list()), MappingProxyType(attributes))


def _encode_labels(values: pl.Series) -> tuple[Int32Array, tuple[str, ...]]:
    """Number the distinct values in sorted order; -1 stands for null."""
    labels = values.drop_nulls().unique().sort()
    numbers = pl.DataFrame({"label": labels}).with_columns(code=pl.int_range(len(labels), dtype=pl.Int32))
    joined = pl.DataFrame({"label": values}).join(numbers, on="label", how="left", maintain_order="left")
    return joined["code"].fill_null(-1).to_numpy(), tuple(labels.to_list())
