"""Ids to int32 codes, as they arrive and in the order of their first appearance.

Ids that are plain whole numbers, as most are, are looked up in an array; all others in a hash join. Both share one
numbering, and `7`, `07` and `+7` are three ids.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cowbird.data.types import Int32Array

_TABLE_LIMIT = 1 << 25
"""Whole numbers below this are looked up in an array."""
_POWERS = 10 ** np.arange(1, 9, dtype=np.int64)


def parse_whole_numbers(ids: pl.Series) -> NDArray[np.int64] | None:
    """Return ids as numbers if all of them are written as plain whole numbers that are not too large."""
    numbers = ids.cast(pl.Int64, strict=False)
    if numbers.null_count():
        return None
    values = numbers.to_numpy()
    if len(values) and (values.min() < 0 or values.max() >= _TABLE_LIMIT):
        return None
    digits = np.searchsorted(_POWERS, values, side="right") + 1
    return values if np.array_equal(digits, ids.str.len_bytes().to_numpy()) else None


class Encoder:
    """Numbers ids in the order of their first appearance."""

    def __init__(self) -> None:
        self._known = pl.DataFrame(schema={"id": pl.String, "code": pl.Int32, "line": pl.Int64})
        self._table: Int32Array = np.full(1 << 10, -1, dtype=np.int32)

    def __len__(self) -> int:
        return self._known.height

    @property
    def ids(self) -> pl.Series:
        """The ids by code."""
        return self._known["id"]

    @property
    def lines(self) -> pl.Series:
        """The line where each id first stood, by code."""
        return self._known["line"]

    def encode(self, ids: pl.Series, lines: pl.Series) -> Int32Array:
        """Return the code of each id, shape `[ids]`; unknown ids get new codes.

        Args:
            ids: The ids, none of them null.
            lines: The line of each.
        """
        numbers = parse_whole_numbers(ids)
        codes = self._look_up(ids, numbers)
        unknown = codes < 0
        if unknown.any():
            fresh = pl.DataFrame({"id": ids, "line": lines}).filter(pl.Series(unknown))
            self._learn(fresh.unique("id", keep="first", maintain_order=True))
            codes[unknown] = self._look_up(
                ids.filter(pl.Series(unknown)), None if numbers is None else numbers[unknown]
            )
        return codes

    def _learn(self, fresh: pl.DataFrame) -> None:
        """Give codes to ids that have none yet."""
        start = self._known.height
        codes = np.arange(start, start + fresh.height, dtype=np.int32)
        numbered = fresh.with_columns(code=pl.Series(codes)).select("id", "code", "line")
        self._known = pl.concat([self._known, numbered], rechunk=True)
        numbers = fresh["id"].cast(pl.Int64, strict=False)
        plain = (numbers.cast(pl.String) == fresh["id"]) & (numbers >= 0) & (numbers < _TABLE_LIMIT)
        keep = plain.fill_null(False)
        places = numbers.filter(keep).to_numpy()
        self._grow(places)
        self._table[places] = codes[keep.to_numpy()]

    def _grow(self, numbers: NDArray[np.int64]) -> None:
        """Make the table long enough for some numbers."""
        needed = int(numbers.max()) + 1 if len(numbers) else 0
        if needed > len(self._table):
            size = min(max(needed, 2 * len(self._table)), _TABLE_LIMIT)
            more = np.full(size - len(self._table), -1, dtype=np.int32)
            self._table = np.concatenate([self._table, more])

    def _look_up(self, ids: pl.Series, numbers: NDArray[np.int64] | None) -> Int32Array:
        """Return the code of each id, -1 where it is unknown."""
        if numbers is not None:
            self._grow(numbers)
            return self._table[numbers]
        known = self._known.select("id", "code")
        joined = pl.DataFrame({"id": ids}).join(known, on="id", how="left", maintain_order="left")
        return joined["code"].fill_null(-1).to_numpy(writable=True)
