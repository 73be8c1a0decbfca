"""Files of any form as frames: columns by name, in blocks, with the line of each row."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import polars as pl

from cowbird.errors import UserError
from cowbird.ingest.columns import find_column
from cowbird.ingest.delimited import TextTable
from cowbird.ingest.folders import FolderFrames, check_kinds, list_parts
from cowbird.ingest.json_table import JsonValue
from cowbird.ingest.open import find_kind, open_rows
from cowbird.ingest.options import ReadOptions, use_options
from cowbird.ingest.parquet import ParquetTable
from cowbird.ingest.places import locate
from cowbird.ingest.rows import LINE_COLUMN, CellValue, FrameTable, RowTable
from cowbird.ingest.sampling import limit_block, limit_frames
from cowbird.ingest.skips import Skips

FRAME_ROWS = 50_000
"""Rows of a frame that is made of rows read one by one."""


class RowFrames:
    """Rows that are read one by one, as frames of strings; JSON arrays are lists of strings.

    Args:
        table: The rows.
        skips: Where rows that can't be read are counted.
    """

    def __init__(self, table: RowTable, skips: Skips) -> None:
        self.file, self.names = table.file, table.names
        self._table, self._skips = table, skips

    def read_frames(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Yield the rows, block by block; `LINE_COLUMN` is the number of the row."""
        places = [find_column(column, self.names, self.file) for column in columns]
        return limit_frames(self.file, self._read_blocks(places, columns))

    def _read_blocks(self, places: Sequence[int], columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        rows = self._table.read_rows(places)
        first = True
        while block := list(islice(rows, limit_block(FRAME_ROWS, FRAME_ROWS))):
            for row in block:
                if row.problem:
                    self._skips.add(self.file, row.problem, [row.number])
            good = [row for row in block if not row.problem]
            cells = [
                self._make_column(name, [row.cells[at] for row in good], [row.number for row in good])
                for at, name in enumerate(columns)
            ]
            yield pl.DataFrame([*cells, pl.Series(LINE_COLUMN, [row.number for row in good], dtype=pl.Int64)])
            first = False
        if first:
            yield pl.DataFrame(schema=dict.fromkeys(columns, pl.String) | {LINE_COLUMN: pl.Int64})

    def _make_column(self, name: str, cells: list[CellValue], numbers: list[int]) -> pl.Series:
        nested = [isinstance(cell, JsonValue) for cell in cells]
        if not any(nested):
            return pl.Series(name, [_to_text(cell) for cell in cells], dtype=pl.String)
        lists: list[list[str] | None] = []
        for cell, number in zip(cells, numbers, strict=True):
            found: Any = json.loads(cell) if isinstance(cell, JsonValue) else cell
            if found is not None and not isinstance(found, list):
                raise UserError(
                    f"Column '{name}' of {self.file} should hold values or lists of them alike, and row {number} does "
                    "not.",
                    "Name another column, or one that lies in it, such as 'column.part'.",
                )
            values = cast("list[Any] | None", found)
            lists.append(None if values is None else [str(value) for value in values if value is not None])
        return pl.Series(name, lists, dtype=pl.List(pl.String))


def _to_text(cell: CellValue) -> str | None:
    text = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell
    return None if text is None or text == "" else text.encode("utf-8", "replace").decode()


def open_frames(path: Path, options: ReadOptions, skips: Skips) -> FrameTable:
    """Open a file that is read as frames.

    Args:
        path: The file.
        options: How it is to be read; those that say nothing about its form are passed over.
        skips: Where rows that can't be read are counted.

    Raises:
        UserError: If the file is missing, empty, or not what its name says.
    """
    with use_options(options):
        path = locate(path)
    if path.is_dir():
        parts = list_parts(path)
        check_kinds(path, parts, [find_kind(part.path.name) for part in parts])
        return FolderFrames(path, parts, partial(open_frames, options=options, skips=skips))
    kind = find_kind(path.name) if path.is_file() else ""
    if kind == "parquet":
        return ParquetTable(path)
    table = open_rows(path, options.select(kind), skips)
    return table if isinstance(table, TextTable) else RowFrames(table, skips)
