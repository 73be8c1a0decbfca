"""Findings read back from a file that `cowbird scan` wrote: those that are flagged or up for review."""

from pathlib import Path
from typing import NamedTuple

import polars as pl

from cowbird.errors import UserError
from cowbird.scanning.parts_folder import list_finding_files
from cowbird.text import unescape_csv

MAX_TITLE_LENGTH = 1 << 20
"""Characters of a title that are kept."""
_COLUMNS = ("row", "id", "title", "score", "flagged", "start", "end", "tier", "reason")


class ReviewedFinding(NamedTuple):
    """A finding that somebody should look at."""

    row: int
    """Number of the row in the catalogue."""
    id: str
    """Id of the item, empty where there is none."""
    title: str
    """The title."""
    score: float | None
    """How suspicious it is."""
    start: int | None
    """First character of the span."""
    end: int | None
    """The character after its last one."""
    tier: str
    """`flagged` or `review`."""
    reason: str
    """Why."""


def read_reviewed(path: Path) -> list[ReviewedFinding]:
    """Read what is flagged or up for review, in the order of the file.

    Raises:
        UserError: If the file can't be read, or holds no findings of a scan.
    """
    return list(map(ReviewedFinding._make, read_reviewed_table(path).iter_rows()))


def read_reviewed_table(path: Path) -> pl.DataFrame:
    """Return the same as a table, with the fields of `ReviewedFinding` as columns; see `read_reviewed`."""
    table = _read_table(path)
    missing = [name for name in ("row", "title", "flagged") if name not in table.columns]
    if missing:
        raise UserError(
            f"'{path}' should hold findings of a scan, and it has no column '{missing[0]}'.",
            "Give a file that cowbird scan wrote with --out.",
        )
    absent = [pl.lit(None, dtype=pl.String).alias(name) for name in _COLUMNS if name not in table.columns]
    text = table.with_columns(absent).select(pl.col(name).cast(pl.String).fill_null("") for name in _COLUMNS)
    flagged = pl.col("flagged").str.to_lowercase().is_in(["true", "1"])
    text = text.with_columns(pl.when(flagged).then(pl.lit("flagged")).otherwise(pl.col("tier")).alias("tier"))
    text = text.filter(pl.col("tier").is_in(["flagged", "review"]))
    try:
        shown = text.with_columns(
            pl.col("row").cast(pl.Int64),
            *(pl.col(name).replace("", None).cast(pl.Float64) for name in ("score", "start", "end")),
        )
        shown = shown.with_columns(pl.col("start", "end").cast(pl.Int64))
    except pl.exceptions.PolarsError:
        raise UserError(
            f"'{path}' should hold findings of a scan, and a row's numbers can't be read.",
            "Give a file that cowbird scan wrote with --out.",
        ) from None
    if path.suffix.lower() == ".csv":
        told = [
            pl.Series(name, list(map(unescape_csv, shown[name].to_list())), pl.String)
            for name in ("title", "reason", "id")
        ]
        shown = shown.with_columns(*told)
    shown = shown.with_columns(pl.col("title").str.slice(0, MAX_TITLE_LENGTH))
    start, end, score = pl.col("start"), pl.col("end"), pl.col("score")
    whole = (start >= 0) & (start < end) & (end <= pl.col("title").str.len_chars())
    return shown.select(
        "row", "id", "title", pl.when(score.is_finite()).then(score).alias("score"),
        pl.when(whole).then(start).alias("start"), pl.when(whole).then(end).alias("end"), "tier", "reason",
    )  # fmt: skip


def _read_table(path: Path) -> pl.DataFrame:
    hint = "Give a file that cowbird scan wrote with --out: .csv, .jsonl, .parquet or a folder."
    if path.is_dir():
        return pl.concat([pl.read_parquet(part) for part in list_finding_files(path)])
    if not path.is_file():
        raise UserError(f"'{path}' is no file.", hint)
    try:
        if path.suffix.lower() == ".csv":
            return pl.read_csv(path, infer_schema=False)
        if path.suffix.lower() == ".jsonl":
            return pl.read_ndjson(path, infer_schema_length=None)
        if path.suffix.lower() == ".parquet":
            return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError, ValueError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise UserError(f"'{path}' can't be read as findings: {reason}.", hint) from None
    raise UserError(f"'{path}' ends in no known way.", hint)
