"""Findings read back from a file that `cowbird scan` wrote: those that are flagged or up for review."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from cowbird.errors import UserError
from cowbird.scanning.parts_folder import list_finding_files
from cowbird.text import unescape_csv

MAX_TITLE_LENGTH = 1 << 20
"""Characters of a title that are kept."""
_COLUMNS = ("row", "id", "title", "score", "flagged", "start", "end", "tier", "reason")
_TEXT_COLUMNS = ("id", "title", "tier", "reason")
_TOLD_KINDS = {"text": "text", "flag": "true or false", "number": "numbers"}
_NO_TEXT = r"^(?:[\[{]|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?$|true$|false$)"
"""What polars may have made of a cell that is no text."""
_HINT = (
    "Give what cowbird scan wrote with --out: .csv, .jsonl, .parquet or a folder. If it is damaged or was edited, "
    "scan again."
)


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
    _check_columns(path, table)
    try:
        shown = _select_reviewed(path, table)
    except pl.exceptions.PolarsError:
        raise UserError(
            f"'{path}' should hold findings of a scan, and a row's numbers or bytes can't be read.", _HINT
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


def _check_columns(path: Path, table: pl.DataFrame) -> None:
    """Refuse columns that are missing, twice there, or of a type that no scan writes.

    Raises:
        UserError: If there is one.
    """
    missing = [name for name in ("row", "title", "flagged") if name not in table.columns]
    if missing:
        raise UserError(f"'{path}' should hold findings of a scan, and it has no column '{missing[0]}'.", _HINT)
    for name in _COLUMNS:
        if path.suffix.lower() == ".csv" and f"{name}_duplicated_0" in table.columns:  # as polars reads it
            raise UserError(f"'{path}' should have one column '{name}', and it has several.", _HINT)
        kind = table.schema.get(name, pl.String())
        text = isinstance(kind, pl.String | pl.Binary | pl.Null | pl.Categorical | pl.Enum)
        number = kind.is_numeric() and name not in ("title", "tier", "reason")
        if text or number or (name == "flagged" and kind == pl.Boolean):
            continue
        told = _TOLD_KINDS["text" if name in _TEXT_COLUMNS else "flag" if name == "flagged" else "number"]
        raise UserError(
            f"Column '{name}' of '{path}' should hold {told}, and it holds {str(kind).lower()[:60]}.", _HINT
        )


def _select_reviewed(path: Path, table: pl.DataFrame) -> pl.DataFrame:
    """Return the findings that somebody should look at, with numbers as numbers.

    Raises:
        UserError: If a value of `flagged` is neither true nor false.
        polars.exceptions.PolarsError: If another value can't be read.
    """
    absent = [pl.lit(None, dtype=pl.String).alias(name) for name in _COLUMNS if name not in table.columns]
    text = table.with_columns(absent).select(pl.col(name).cast(pl.String).fill_null("") for name in _COLUMNS)
    said = text["flagged"].str.to_lowercase()
    odd = said.filter(~said.is_in(["true", "1", "false", "0"]))
    if len(odd):
        got = f"'{odd[0][:40]}'" if odd[0] else "nothing"
        raise UserError(f"Column 'flagged' of '{path}' should hold true or false, and a row has {got}.", _HINT)
    text = text.with_columns(
        pl.when(said.is_in(["true", "1"])).then(pl.lit("flagged")).otherwise(pl.col("tier")).alias("tier")
    )
    text = text.filter(pl.col("tier").is_in(["flagged", "review"]))
    numbers = text.with_columns(
        pl.col("row").cast(pl.Int64),
        *(pl.col(name).replace("", None).cast(pl.Float64) for name in ("score", "start", "end")),
    )
    if not numbers.select(pl.all_horizontal(pl.col("start", "end").floor() == pl.col("start", "end")).all()).item():
        raise pl.exceptions.InvalidOperationError("a part of a character")
    return numbers.with_columns(pl.col("start", "end").cast(pl.Int64))


def _read_table(path: Path) -> pl.DataFrame:
    suffix = path.suffix.lower()
    if not path.is_dir() and not path.is_file():
        raise UserError(f"'{path}' is no file.", _HINT)
    try:
        if path.is_dir():
            return pl.concat([_read_parquet(part) for part in list_finding_files(path)])
        if suffix in (".csv", ".jsonl", ".ndjson"):
            _check_end(path)
        if suffix == ".csv":
            return pl.read_csv(path, infer_schema=False)
        if suffix in (".jsonl", ".ndjson"):
            return _read_lines(path)
        if suffix == ".parquet":
            return _read_parquet(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise UserError(f"'{path}' can't be read as findings: {reason}.", _HINT) from None
    raise UserError(f"'{path}' ends in no known way.", _HINT)


def _check_end(path: Path) -> None:
    """Look whether text ends with a whole row, as all that a scan writes does.

    Raises:
        ValueError: If it does not, so that more rows may be missing.
    """
    with path.open("rb") as file:
        file.seek(0, 2)
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                raise ValueError("it ends within a row, so that this one and those behind it are missing")


def _read_parquet(path: Path) -> pl.DataFrame:
    """Read a Parquet file by pyarrow: a damaged one can end the process of polars.

    Raises:
        ValueError: If it is damaged.
    """
    faults, reader = import_module("pyarrow.lib"), import_module("pyarrow.parquet")
    try:
        table: Any = reader.read_table(path, partitioning=None)
        table.validate(full=True)
    except faults.ArrowException as error:
        raise ValueError(str(error)) from None
    return pl.DataFrame(table)


def _read_lines(path: Path) -> pl.DataFrame:
    """Read JSON Lines.

    Raises:
        ValueError: If a cell is none that a scan writes, which polars would take for text, or stands twice in a line.
    """
    if path.stat().st_size == 0:  # what --only-flagged writes where nothing is flagged
        return pl.DataFrame(schema=dict.fromkeys(_COLUMNS, pl.String))
    table = pl.read_ndjson(path, infer_schema_length=None)
    data = path.read_bytes()
    texts = [pl.col(name) for name in _TEXT_COLUMNS if table.schema.get(name) == pl.String()]
    odd = table.select(pl.any_horizontal(pl.lit(False), *(each.str.contains(_NO_TEXT) for each in texts)).any()).item()
    several = data.count(b'":') != table.height * table.width or any(
        data.count(b'"%s":' % name) > table.height for name in (b"row", b"title", b"flagged")
    )
    if odd or several or b" :" in data or b"\t:" in data:  # a title may hold these, too
        _check_lines(data)  # takes longer than reading, and is hardly ever needed
    return table


def _check_lines(data: bytes) -> None:
    """Look at each cell of JSON Lines; see `_read_lines`."""
    decoder = json.JSONDecoder(object_pairs_hook=list)
    for number, line in enumerate((each for each in data.split(b"\n") if each.strip()), 1):
        try:
            cells: list[tuple[str, Any]] = decoder.decode(line.decode("utf-8-sig"))
        except RecursionError:
            raise ValueError(f"row {number:,} is nested too deeply") from None
        names = {name for name, _ in cells}
        if len(names) < len(cells):
            raise ValueError(f"row {number:,} has a column twice")
        for name, value in cells:
            if name in _COLUMNS and isinstance(value, list):
                raise ValueError(f"'{name}' of row {number:,} should be one value, and it is a list or an object")
            if name in _TEXT_COLUMNS and name != "id" and not isinstance(value, str | None):
                raise ValueError(f"'{name}' of row {number:,} should be text, and it is {json.dumps(value)[:40]}")
