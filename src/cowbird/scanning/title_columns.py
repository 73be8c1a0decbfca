"""Other columns of a catalogue's file, for the titles of a sample: brands, categories, languages, sellers."""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from cowbird.defenses.p_scanner.column_evidence import TitleColumns
from cowbird.ingest.columns import find_column
from cowbird.ingest.open import open_rows
from cowbird.ingest.rows import CellValue
from cowbird.notices import collect_notices
from cowbird.scanning.reading import open_catalog


class ColumnNames(NamedTuple):
    """Columns that a scan reads beside the titles."""

    explain: tuple[str, ...] = ()
    """Those that explain what titles share."""
    seller: str | None = None
    """The one of sellers."""

    def __bool__(self) -> bool:
        return bool(self.explain) or self.seller is not None


NO_COLUMNS = ColumnNames()
"""None."""


def read_catalog_columns(
    catalog: Path, text_column: str, names: ColumnNames, titles: Collection[str]
) -> TitleColumns | None:
    """Read other columns of the rows with some titles; of a title that stands in several rows, what the first says.

    Args:
        catalog: The catalogue; see `cowbird.scanning.reading.open_catalog`.
        text_column: Its column of titles.
        names: The other columns.
        titles: The titles.

    Returns:
        The columns; `None` if none are wanted.

    Raises:
        UserError: If the catalogue can't be read, or a column is missing.
    """
    if not names:
        return None
    with collect_notices():  # the scan reads it once more, and tells how
        table = open_rows(catalog)
        wanted = [*names.explain, *(() if names.seller is None else (names.seller,))]
        options = [*("--explain" for _ in names.explain), "--seller-column"]
        places = [
            find_column(name, table.names, table.file, option) for name, option in zip(wanted, options, strict=False)
        ]
        text, values, sellers = table.find_text(text_column), dict[str, tuple[str, ...]](), dict[str, str]()
        for row in table.read_rows([text, *places]):
            title, *cells = (_decode(cell) for cell in row.cells) if row.cells and not row.problem else ("",)
            if title in titles and title not in values:
                values[title] = tuple(cells[: len(names.explain)])
                if names.seller is not None:
                    sellers[title] = cells[-1]
    return TitleColumns(names.explain, values, None if names.seller is None else sellers)


def list_other_columns(catalog: Path, text_column: str) -> tuple[str, ...]:
    """Return the names of a catalogue's columns but those of titles and ids; none where columns have no names.

    Args:
        catalog: The catalogue; see `cowbird.scanning.reading.open_catalog`.
        text_column: Its column of titles.

    Raises:
        UserError: If the catalogue can't be read.
    """
    with collect_notices():
        table = open_catalog(catalog, text_column)
    names = table.table.names
    return tuple(name for place, name in enumerate(names) if place not in (table.text, table.id))


def _decode(cell: CellValue) -> str:
    """Return what a cell says; titles are compared whole, so nothing is cut."""
    return cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell or ""
