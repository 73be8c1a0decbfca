"""Interactions gathered block by block into flat arrays; memory holds numbers only."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cowbird.data.sources._encoder import Encoder, parse_whole_numbers
from cowbird.data.types import Float64Array, Int32Array, Interactions
from cowbird.errors import UserError
from cowbird.ingest.parquet import refuse_lists
from cowbird.ingest.rows import LINE_COLUMN
from cowbird.ingest.skips import Skips
from cowbird.notices import NoticeRank, note


def order_events(user: Int32Array, time: Float64Array | None) -> NDArray[np.int64]:
    """Return the stable order of events by user and time, shape `[events]`."""
    if time is None or not len(time):
        return np.argsort(user, kind="stable")
    since = time - time.min()
    span = int(since.max()) + 1
    if span * (int(user.max()) + 1) < 2**62 and np.array_equal(np.floor(since), since):
        key = user.astype(np.int64)
        key *= span
        key += since.astype(np.int64)
        return np.argsort(key, kind="stable")
    return np.lexsort((time, user))


class EventLog:
    """Collects events; rows that can't be used are counted.

    Args:
        file: Name of the interactions file.
        skips: Where unusable rows are counted.
        items: Encoder of items, which may know the catalogue already.
    """

    def __init__(self, file: str, skips: Skips, items: Encoder | None = None) -> None:
        self.file = file
        self.skips = skips
        self._unrated = 0
        self._listed: dict[str, int] = {}
        self.users = Encoder()
        self.items = items or Encoder()
        self._parts: list[pl.DataFrame] = []

    def add(self, frame: pl.DataFrame) -> None:
        """Add a block of events.

        Args:
            frame: Columns `user` and `item` (strings), optionally `time` and `rating` (strings or numbers) and `mark`
                (a number that tells otherwise equal events apart), and `LINE_COLUMN`.
        """
        for name in ("user", "item"):
            if parse_whole_numbers(frame[name]) is not None:
                continue
            frame = frame.with_columns(pl.col(name).str.strip_chars())
            missing = frame[name].is_null() | (frame[name] == "")
            frame = self.reject(frame, missing, f"{name} id is missing")
        for name, dtype in (("time", pl.Float64), ("rating", pl.Float32)):
            if name in frame.columns:
                frame = self._parse_numbers(frame, name, dtype)
        lines = frame[LINE_COLUMN]
        user = pl.Series("user", self.users.encode(frame["user"], lines))
        item = pl.Series("item", self.items.encode(frame["item"], lines))
        self._parts.append(frame.with_columns(user, item))

    def reject(self, frame: pl.DataFrame, rows: pl.Series, reason: str) -> pl.DataFrame:
        """Count some rows as skipped, and return the others."""
        if not rows.any():
            return frame
        self.skips.add(self.file, reason, frame.filter(rows)[LINE_COLUMN].to_list())
        return frame.filter(~rows)

    def _parse_numbers(self, frame: pl.DataFrame, name: str, dtype: type[pl.DataType]) -> pl.DataFrame:
        """Turn a column into finite numbers; rows where that fails are skipped."""
        texts = refuse_lists(frame[name], self.file)
        if texts.dtype == pl.String:
            texts = texts.str.strip_chars()
            missing = texts.is_null() | (texts == "")
        else:
            missing = texts.is_null()
        values = texts.cast(pl.Float64, strict=False).cast(dtype, strict=False)
        bad = ~values.is_finite().fill_null(False)
        if name == "rating" and missing.any():  # few victims read ratings, so the event stays
            self._unrated += int(missing.sum())
            values, bad = values.set(missing, np.nan), bad & ~missing
        frame = frame.with_columns(values.alias(name))
        if not bad.any():
            return frame
        self.reject(frame, missing & bad, f"{name} is missing")
        self.reject(frame, bad & ~missing, f"{name} is not a finite number")
        return frame.filter(~bad)

    def tell_lists(self, column: str, count: int) -> None:
        """Note that interactions come out of lists, each of which is a history in order."""
        self._listed[column] = self._listed.get(column, 0) + count

    def _note_columns(self) -> None:
        """Tell what the columns hold otherwise than a reader may think."""
        text = f"{{n}} interactions of {self.file} have no rating; victims that read ratings leave them out."
        one = f"1 interaction of {self.file} has no rating; victims that read ratings leave it out."
        note(NoticeRank.CHANGE, text, self._unrated, one)
        for column, count in self._listed.items():
            text = f"Column '{column}' of {self.file} holds lists, each a history in order:"
            note(NoticeRank.CHOICE, f"{text} {{n}} interactions in all.", count, f"{text} 1 interaction in all.")

    def to_interactions(self) -> Interactions:
        """Sort the events by user and time and return them.

        Raises:
            UserError: If there is no usable event.
        """
        frame = pl.concat(self._parts, rechunk=True) if self._parts else pl.DataFrame()
        self._parts.clear()
        if frame.is_empty():
            worst = self.skips.list()
            why = f" Most rows failed: {worst[0]}." if worst else ""
            raise UserError(f"{self.file} should hold interactions, and none can be used.{why}", "Check the columns.")
        self._note_columns()
        dated = "time" in frame.columns
        frame = frame[order_events(frame["user"].to_numpy(), frame["time"].to_numpy() if dated else None)]
        if dated:
            frame = self._drop_repeats(frame)
            self._note_ties(frame)
        else:
            said = (
                f"{self.file} has no column of times that was read: the order of its rows is taken for the order in "
                "time, and repeats stay. This is about"
            )
            end = "'time_column' names a column."
            note(NoticeRank.ORDER, f"{said} {{n}} interactions; {end}", frame.height, f"{said} 1 interaction; {end}")
        rating = frame["rating"].to_numpy() if "rating" in frame.columns else None
        counts = np.bincount(frame["user"].to_numpy(), minlength=len(self.users))
        return Interactions(
            frame["item"].to_numpy(),
            np.concatenate([[0], np.cumsum(counts)]),
            None if rating is None or np.isnan(rating).all() else rating,
            frame["time"].to_numpy() if dated else None,
        )

    def _note_ties(self, frame: pl.DataFrame) -> None:
        user, time = frame["user"].to_numpy(), frame["time"].to_numpy()
        ties = int(np.count_nonzero((user[1:] == user[:-1]) & (time[1:] == time[:-1])))
        before = "the time of the one before"
        text = f"{{n}} interactions of {self.file} have {before}: their order is that of the rows."
        one = f"1 interaction of {self.file} has {before}: its order is that of the rows."
        note(NoticeRank.CHANGE, text, ties, one)

    def _drop_repeats(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Drop events that repeat another of the same user, item and time (and rating and mark)."""
        user, time = frame["user"].to_numpy(), frame["time"].to_numpy()
        same = (user[1:] == user[:-1]) & (time[1:] == time[:-1])
        if not same.any():
            return frame
        tied = np.zeros(frame.height, dtype=bool)
        tied[1:] |= same
        tied[:-1] |= same
        places = np.flatnonzero(tied)
        keys = [name for name in frame.columns if name != LINE_COLUMN]
        repeats = places[~frame[places].select(pl.struct(keys).is_first_distinct()).to_series().to_numpy()]
        if not len(repeats):
            return frame
        self.skips.add(self.file, "repeats an earlier event exactly", sorted(frame[repeats][LINE_COLUMN].to_list()))
        keep = np.ones(frame.height, dtype=bool)
        keep[repeats] = False
        return frame.filter(pl.Series(keep))
