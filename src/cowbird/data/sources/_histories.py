"""Histories in columns such as `item_id_list`, as RecBole's benchmark files have them.

A row holds what a user did before as a list, and the item that follows. Files that were split for training repeat a
user with each beginning of her history: the longest one is read, and the others are found in it.
"""

import polars as pl

from cowbird.data.sources._events import EventLog
from cowbird.errors import UserError
from cowbird.ingest.rows import LINE_COLUMN


def join_histories(frame: pl.DataFrame, log: EventLog, column: str) -> pl.DataFrame:
    """Return the events of rows with a history and an item that follows it; each history in its order.

    Args:
        frame: Columns `user`, `item` and `history` (items with spaces between them), and `LINE_COLUMN`. Times and
            ratings belong to the last item alone, and are not read.
        log: Told of the lists.
        column: What the file calls the column of histories.

    Raises:
        UserError: If a user has several histories and they do not continue each other.
    """
    whole = frame.select(
        "user",
        pl.concat_list(pl.col("history").fill_null("").str.strip_chars().str.split(" "), "item")
        .list.drop_nulls()
        .alias("item"),
        LINE_COLUMN,
    )
    whole = whole.with_columns(pl.col("item").list.filter(pl.element() != ""))
    longest = whole.sort(pl.col("item").list.len(), descending=True, maintain_order=True)
    longest = longest.unique("user", keep="first", maintain_order=True).sort(LINE_COLUMN)
    both = whole.join(longest.select("user", pl.col("item").alias("longest")), on="user", how="inner")
    begun = both.select(pl.col("longest").list.head(pl.col("item").list.len()) == pl.col("item")).to_series()
    if not begun.all():
        line = both.filter(~begun)[LINE_COLUMN][0]
        raise UserError(
            f"Column '{column}' of {log.file} gives a user several histories that do not continue each other (line "
            f"{line}).",
            "Give a file with an interaction a row, or with one history a user.",
        )
    events = longest.with_columns(mark=pl.int_ranges(0, pl.col("item").list.len())).explode("item", "mark")
    log.tell_lists(column, events.height)
    return events
