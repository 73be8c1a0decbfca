"""Rows of tables of any form."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import polars as pl

from cowbird.ingest.columns import ID_COLUMNS, TITLE_COLUMNS, choose_column, find_usual
from cowbird.notices import NoticeRank, note

LINE_COLUMN = "\0line"
"""Name of the column with line numbers in the frames that tables yield (no header can hold it)."""
ID_COLUMN = "\0id"
"""Name of the column with ids in the frames of items and users."""

LATE_ID = -1
"""The place of ids where the first rows have none: whichever usual column a row has."""
CellValue = bytes | str | None
"""What a cell holds: text as bytes or as characters, or nothing."""


class TableRow(NamedTuple):
    """Some cells of a row."""

    number: int
    """Its number; the first row below the header is 1."""
    cells: tuple[CellValue, ...]
    """What the columns hold that were asked for."""
    problem: str = ""
    """Why the row can't be read; empty if it can."""


class TextRun(NamedTuple):
    """Rows in sequence that can all be read, column by column."""

    first: int
    """Number of the first of them."""
    columns: tuple[list[str] | list[str | None], ...]
    """What the columns hold that were asked for; an empty text and `None` are both an empty cell."""


class FrameTable(Protocol):
    """A file that is read as frames."""

    file: str
    """Its name, for messages."""
    names: list[str]
    """Its columns."""

    def read_frames(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Yield the rows, block by block; see `TextTable.read_frames`."""
        ...


class RowTable(ABC):
    """A file whose rows can be read one by one."""

    file: str
    """Its name, for messages."""
    names: list[str]
    """Its columns."""
    undecodable: str = "is not valid UTF-8"
    """Why a cell that came as bytes can't be read, if it can't be decoded."""

    @abstractmethod
    def describe(self) -> str:
        """Say in a few words how it is read."""

    @abstractmethod
    def count_rows(self) -> int:
        """Return how many rows there are; of a text file about, for it counts lines.

        Raises:
            UserError: If the file is damaged.
        """

    @abstractmethod
    def read_rows(self, places: Sequence[int]) -> Iterator[TableRow]:
        """Yield all rows in order, with the cells of some columns.

        Args:
            places: Positions of these columns in `names`.

        Raises:
            UserError: If the file is damaged.
        """

    def read_runs(self, places: Sequence[int]) -> Iterator[TextRun | list[TableRow]]:
        """Yield all rows in order, in runs: as columns of text where that is quick, and as rows otherwise.

        Args:
            places: Positions of the columns wanted; see `read_rows`.

        Raises:
            UserError: If the file is damaged.
        """
        for row in self.read_rows(places):
            yield [row]

    def get_name(self, place: int) -> str:
        """Return a column's name for people."""
        return f"'{self.names[place]}'"

    def find_text(self, wanted: str) -> int:
        """Return the position of a column of titles.

        Raises:
            UserError: If there is none, or it holds no text.
        """
        return choose_column(wanted, self.names, self.file, "--text-column", TITLE_COLUMNS)

    def find_id(self, wanted: str | None) -> int | None:
        """Return the position of a column of ids; `None` wants a usual one, if there is one.

        Raises:
            UserError: If there is none of the name, or it holds no ids.
        """
        if wanted is None:
            return find_usual(ID_COLUMNS, self.names)
        return choose_column(wanted, self.names, self.file, "--id-column")


class PartedTable(RowTable):
    """Rows that lie in parts which can be read apart, in order."""

    @property
    @abstractmethod
    def parts(self) -> Sequence[object]:
        """The parts."""

    @abstractmethod
    def take_part(self, nth: int) -> RowTable:
        """Return a table of one of the parts alone; its rows are numbered from 1."""


def note_repeats(file: str, count: int) -> None:
    """Say that rows repeat the header and are left out."""
    note(NoticeRank.CHANGE, f"Rows of {file} that repeat its header are left out: {{n}}.", count)
