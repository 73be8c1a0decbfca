"""Files of any form, opened: the end of a name says what a file is, and its beginning how it is laid out."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from cowbird.errors import UserError
from cowbird.ingest.blobs import from_file, split_compression
from cowbird.ingest.database import DatabaseRows
from cowbird.ingest.delimited import TextTable
from cowbird.ingest.folders import FolderRows, check_kinds, list_parts
from cowbird.ingest.json_table import JsonTable
from cowbird.ingest.options import ReadOptions, get_options
from cowbird.ingest.parquet_rows import ParquetRows
from cowbird.ingest.places import locate
from cowbird.ingest.rows import RowTable
from cowbird.ingest.skips import Skips
from cowbird.ingest.sniffing import sniff_layout

TEXT_ENDINGS = (".csv", ".tsv", ".txt", ".tab", ".dat", ".item", ".inter", ".user")
"""Endings of delimited text."""
ATOMIC_ENDINGS = (".item", ".inter", ".user")
"""Endings of RecBole's files: tabs, no quotes, names with types."""
LINES_ENDINGS, JSON_ENDINGS = (".jsonl", ".ndjson"), (".json",)
"""Endings of JSON Lines, and of JSON of either kind."""
PARQUET_ENDINGS = (".parquet", ".pq")
"""Endings of Parquet."""
DATABASE_ENDINGS = (".db", ".sqlite", ".sqlite3")
"""Endings of SQLite's databases."""


def find_kind(name: str) -> str:
    """Return what the end of a name says: `text`, `lines`, `json`, `parquet`, `database`, or nothing."""
    plain, compression = split_compression(name)
    ending = Path(plain).suffix.lower()
    kinds = {"text": TEXT_ENDINGS, "lines": LINES_ENDINGS, "json": JSON_ENDINGS}
    if not compression:
        kinds |= {"parquet": PARQUET_ENDINGS, "database": DATABASE_ENDINGS}
    return next((kind for kind, endings in kinds.items() if ending in endings), "")


def open_rows(path: Path, options: ReadOptions | None = None, skips: Skips | None = None) -> RowTable:
    """Open a file whose rows are read one by one.

    Args:
        path: The file.
        options: How it is to be read; by default as `use_options` says.
        skips: Where rows are counted that can't be used, if frames of it are read.

    Raises:
        UserError: If the file is missing, empty, or not what its name says.
    """
    wanted = options or get_options()
    asked, path = path, locate(path)
    if path != asked and wanted.table is not None and find_kind(path.name) == "parquet":
        wanted = replace(wanted, table=None)  # the server was asked for it
    try:
        if path.is_dir():
            parts = list_parts(path)
            check_kinds(path, parts, [find_kind(part.path.name) for part in parts])
            return FolderRows(path, parts, partial(open_rows, options=wanted))
        blob = from_file(path)
    except OSError as error:  # a name that no file can have
        raise UserError(f"{path} can't be read: {error.strerror}.", "Give the path of a file.") from None
    kind = find_kind(path.name)
    ending = Path(split_compression(path.name)[0]).suffix.lower()
    if kind == "text":
        atomic = ending in ATOMIC_ENDINGS
        layout = sniff_layout(blob, wanted, tabs=atomic or ending in (".tsv", ".tab"), atomic=atomic)
        return TextTable(blob, layout, skips or Skips())
    if kind in ("lines", "json"):
        return JsonTable(blob, wanted, lines=kind == "lines")
    if kind == "database":
        return DatabaseRows(path, wanted)
    if kind == "parquet":
        return ParquetRows(path, wanted)
    raise UserError(
        f"{path.name} should be CSV, TSV, JSON, Parquet or SQLite, and its name does not end like one.",
        "Name it .csv, .tsv, .jsonl (one JSON object a line) or .json, each perhaps with .gz, .zst, .bz2 or .xz, "
        "or .parquet or .db.",
    )
