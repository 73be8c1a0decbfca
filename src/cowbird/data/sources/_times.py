"""Times of interactions, and histories that stand in one row."""

import numpy as np
import polars as pl

from cowbird.data.sources._events import EventLog
from cowbird.errors import UserError
from cowbird.ingest.rows import LINE_COLUMN
from cowbird.ingest.values import read_times


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
    seconds, failed = read_times(frame["time"], log.file, column, form, option)
    return log.reject(frame.with_columns(time=seconds), failed, "time is neither a number nor a date")


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
