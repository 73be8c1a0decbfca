"""Times of interactions, and histories that stand in one row."""

import numpy as np
import polars as pl

from cowbird.data.sources._events import EventLog
from cowbird.errors import UserError
from cowbird.ingest.rows import LINE_COLUMN
from cowbird.ingest.values import parse_times, propose_formats
from cowbird.notices import NoticeRank, note


def parse_dates(
    frame: pl.DataFrame, log: EventLog, column: str = "time", form: str | None = None, option: str = "time_format"
) -> pl.DataFrame:
    """Turn times written as dates into seconds since 1970 (UTC where they name no zone).

    Args:
        frame: A block of events with the column `time`.
        log: Where rows whose time can't be read are counted.
        column: What the file calls the column.
        form: How dates are written, as in `strptime`; `None` takes those that mean one thing alone.
        option: The parameter that says so.

    Raises:
        UserError: If none of the times can be read.
    """
    if frame.schema["time"] != pl.String:
        return frame
    seconds, written, zoned = parse_times(frame["time"], form)
    if not written.any():
        return frame.with_columns(time=seconds)
    failed = written & seconds.is_null()
    if failed.all():
        raise _make_time_error(frame["time"], log.file, column, form, option)
    count = int((written & ~zoned & ~failed).sum())
    note(NoticeRank.CHOICE, f"{log.file} holds dates without a time zone: they are taken for UTC.", count or 0)
    return log.reject(frame.with_columns(time=seconds), failed, "time is neither a number nor a date")


def _make_time_error(texts: pl.Series, file: str, column: str, form: str | None, option: str) -> UserError:
    shown = str(texts.drop_nulls()[0])[:40]
    message = f"Column '{column}' of {file} should hold times, and none can be read, such as '{shown}'"
    if form is not None:
        return UserError(f"{message}; they are not written as {form}.", f"Change {option}.")
    fitting = propose_formats(texts)
    if not fitting:
        return UserError(f"{message}.", f"Say how they are written: {option} = '%d.%m.%Y %H:%M'.")
    ways = " or ".join(f"{option} = '{way}'" for way in fitting[:3])
    return UserError(f"{message}.", f"Whether the month or the day comes first is not guessed. Set {ways}.")


def explode_histories(frame: pl.DataFrame, log: EventLog, columns: dict[str, str]) -> pl.DataFrame:
    """Return a row for each event of a block in which a row holds the items of a history as a list.

    Args:
        frame: A block of events by role; a block without lists is returned as it is.
        log: Where rows with an empty list are counted.
        columns: What the file calls the columns, by role.

    Raises:
        UserError: If there are lists of something else, or lists of one row differ in length.
    """
    lists = [role for role in columns if isinstance(frame.schema[role], pl.List | pl.Array)]
    if not lists:
        return frame
    if "item" not in lists or "user" in lists:
        name = columns["user" if "user" in lists else lists[0]]
        raise UserError(
            f"Column '{name}' of {log.file} should hold one value a row, and it holds lists.",
            "Write a row for each value, or name another column.",
        )
    sizes = [frame[role].list.len().fill_null(0) for role in lists]
    for role, size in zip(lists, sizes, strict=True):
        uneven = (size != sizes[0]).arg_true()
        if len(uneven):
            line = frame[LINE_COLUMN][int(uneven[0])]
            raise UserError(
                f"Columns '{columns['item']}' and '{columns[role]}' of {log.file} hold lists of unequal length, as in "
                f"row {line}.",
                "Give each item of a list its value.",
            )
    frame = log.reject(frame, sizes[0] == 0, "list of items is empty")
    long = frame.with_columns(mark=pl.int_ranges(0, frame["item"].list.len())).explode([*lists, "mark"])
    log.tell_lists(columns["item"], long.height)
    return long.with_columns(mark=pl.Series("mark", np.asarray(long["mark"].to_numpy(), dtype=np.int64)))
