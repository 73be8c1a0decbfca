"""Parquet files: as frames, block by block, with row numbers for lines."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from cowbird.errors import UserError
from cowbird.ingest.columns import find_column
from cowbird.ingest.pages import (
    MAX_EXPANDED_BYTES,
    MAX_EXPANSION,
    MAX_PAGE_BYTES,
    read_pages,
    sum_sizes,
)
from cowbird.ingest.rows import LINE_COLUMN
from cowbird.ingest.sampling import limit_block, limit_frames

ROWS_PER_BLOCK = 2_000_000
"""Rows read at once."""

SAMPLED_ROWS_PER_BLOCK = 100_000
"""Rows read at once where only a sample is read."""
_UNREADABLE: Any = (pa.ArrowException, OSError, ValueError)
_BROKEN = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


class ParquetTable:
    """One Parquet file.

    Args:
        path: The file.

    Raises:
        UserError: If it is missing or is not Parquet.
    """

    def __init__(self, path: Path) -> None:
        self.file = path.name
        try:
            with path.open("rb") as stream:
                self._schema = pl.read_parquet_schema(stream)
        except _BROKEN as error:
            raise self._make_error(error) from error
        self._path = path
        self.names = list(self._schema)

    def _check_sizes(self, columns: Sequence[str]) -> None:
        """Refuse columns that come to many times the file: strings of a gigabyte fit into kilobytes."""
        try:
            parquet: Any = pq
            metadata: Any = parquet.read_metadata(self._path)
            groups = range(int(metadata.num_row_groups))
            pages = [page for nth in groups for name in columns for page in read_pages(self._path, metadata, nth, name)]
            most = max(MAX_EXPANDED_BYTES, MAX_EXPANSION * self._path.stat().st_size)
        except _UNREADABLE as error:
            raise self._make_error(error) from error
        if sum_sizes(pages) > most or any(page.size > MAX_PAGE_BYTES for page in pages):
            raise UserError(
                f"{self.file} comes to more than {most:,} bytes, or to more than {MAX_PAGE_BYTES:,} in one page.",
                "Is a text in it far too long? Otherwise write it with smaller pages and row groups.",
            )

    def _make_error(self, error: BaseException) -> UserError:
        reason = str(error).partition("\n")[0]
        return UserError(
            f"{self.file} should be a Parquet file, and it can't be read: {reason}.",
            "Check that the file is complete, or write it again.",
        )

    def read_frames(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Yield the rows, block by block.

        Args:
            columns: Names of the columns wanted, each once.

        Yields:
            Frames with these columns and `LINE_COLUMN`, the row number from 1. Dates become seconds since 1970;
            numbers, strings and lists of them stay; other values become strings.
        """
        self._check_sizes([self.names[find_column(column, self.names, self.file)] for column in columns])
        chosen = [self._select_column(self.names[find_column(column, self.names, self.file)]) for column in columns]
        return limit_frames(self.file, self._read_blocks(chosen))

    def _read_blocks(self, chosen: Sequence[pl.Expr]) -> Iterator[pl.DataFrame]:
        start, size = 0, limit_block(ROWS_PER_BLOCK, SAMPLED_ROWS_PER_BLOCK)
        while True:
            try:
                lazy = pl.scan_parquet(self._path, glob=False).slice(start, size).select(chosen)
                frame = lazy.collect()
            except _BROKEN as error:
                raise self._make_error(error) from error
            if frame.height or not start:
                yield frame.with_columns((pl.int_range(pl.len(), dtype=pl.Int64) + (start + 1)).alias(LINE_COLUMN))
            if frame.height < size:
                return
            start += size

    def _select_column(self, name: str) -> pl.Expr:
        """Return the expression that reads a column."""
        dtype = self._schema[name]
        column = pl.col(name)
        if isinstance(dtype, pl.Datetime | pl.Date):
            return column.cast(pl.Datetime("us")).dt.epoch("us") / 1e6
        if dtype.is_numeric() or dtype == pl.String:
            return column
        if isinstance(dtype, pl.List):
            return column.cast(pl.List(pl.String))
        if isinstance(dtype, pl.Boolean | pl.Categorical | pl.Enum | pl.Null):
            return column.cast(pl.String)
        raise UserError(
            f"Column '{name}' of {self.file} should hold text, numbers or dates, and it holds {dtype}.",
            "Convert the column, or name another.",
        )


def refuse_lists(values: pl.Series, file: str = "the table") -> pl.Series:
    """Return a column that holds one value a row.

    Raises:
        UserError: If the values are lists.
    """
    if isinstance(values.dtype, pl.List | pl.Array):
        raise UserError(
            f"Column '{values.name}' of {file} should hold one value a row, and it holds lists.",
            "Write a row for each value, or name another column.",
        )
    return values


def as_text(values: pl.Series) -> pl.Series:
    """Return ids as strings; whole numbers that were stored as floats lose their `.0`.

    Raises:
        UserError: If the values are lists.
    """
    refuse_lists(values)
    if values.dtype.is_float() and (values.is_null() | (values == values.round(0))).all():
        values = values.cast(pl.Int64, strict=False)
    return values.cast(pl.String)
