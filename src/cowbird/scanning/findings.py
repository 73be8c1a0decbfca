"""Findings of a scan, and the forms of the files that hold them.

Half surrogates, which are no text, become U+FFFD in all formats. JSON Lines and Parquet hold all other text raw. CSV is
opened by spreadsheets and shown on terminals, so text is always quoted there and passes through
`cowbird.text.escape_csv`: control characters become U+FFFD, and an apostrophe keeps text from being a formula. What is
invisible but steers nothing stays, for a title must be found again by what it is, and `start` and `end` count in it.
"""

import json
import json.encoder
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from cowbird.text import escape_csv

MAX_FRAME_BYTES = 1 << 19
"""Bytes of findings that become lines of text at once, or those of one longer finding."""
MAX_GROUP_BYTES = 1 << 23
"""Bytes of findings in a row group of a Parquet file, or those of one longer finding."""
MAX_ROW_GROUP = 1 << 16
"""Rows in a row group of a Parquet file at most."""

_DIFFERENT_COLUMNS = ("row", "id", "title", "clean_title")
"""Columns in which hardly a value is there twice."""
_encode_text: Callable[[str], str] = json.encoder.encode_basestring
"""Writes a text as JSON does that is not kept to ASCII."""

_FRAME_SCHEMA = pl.Schema(
    {
        **{"row": pl.Int64, "id": pl.String, "title": pl.String, "score": pl.Float64, "flagged": pl.Boolean},
        **{"start": pl.Int32, "end": pl.Int32, "clean_title": pl.String, "tier": pl.String, "reason": pl.String},
        **{"threshold": pl.Float64, "scanner": pl.String},
    }
)

_arrow: Any = pa
PARQUET_SCHEMA: Any = _arrow.schema(
    [
        *(("row", _arrow.int64()), ("id", _arrow.string()), ("title", _arrow.string()), ("score", _arrow.float32())),
        *(("flagged", _arrow.bool_()), ("start", _arrow.int32()), ("end", _arrow.int32())),
        *((name, _arrow.string()) for name in ("clean_title", "tier", "reason")),
        *(("threshold", _arrow.float32()), ("scanner", _arrow.string())),
    ]
)
"""Columns of findings in Parquet."""

FLAGGED_TIER, REVIEW_TIER, ALLOWED_TIER = "flagged", "review", "allowed"
"""What becomes of a suspicious title: it is flagged, a person should look, or `--allow` names it."""


class Finding(NamedTuple):
    """What the scan makes of one row; `None` is an empty cell."""

    row: int
    """Number of the row in the catalogue, from 1."""
    id: str | None
    """Id of the item."""
    title: str
    """The title, empty where it is missing."""
    score: float | None
    """How suspicious it is; `None` where there was nothing to judge."""
    flagged: bool
    """Whether that is enough to be told."""
    start: int | None
    """First character of the most suspicious span."""
    end: int | None
    """The character after its last one."""
    clean_title: str | None
    """The title, without the span if it is flagged; `None` if nothing would be left, or it is unsure what to take."""
    tier: str = ""
    """`flagged`, `review` (a person should look), `allowed` (suspicious, but `--allow` names it) or empty."""
    reason: str = ""
    """Why, in words; what can't be seen stands as its code. Empty for a title without a tier."""
    threshold: float | None = None
    """Score above which titles are flagged; `None` if there is none."""
    scanner: str = ""
    """What judged: its name, and its version or a hash of its weights."""


def encode_finding(finding: Finding) -> str:
    """Return a finding as a line of JSON: what `json` makes of its fields, in a third of the time."""
    row, id_, title, score, flagged, start, end, clean, tier, reason, threshold, scanner = finding
    text = _encode_text(title)
    same = text if clean == title else _encode_or_null(clean)
    return (
        f'{{"row": {row}, "id": {_encode_or_null(id_)}, "title": {text}, "score": {_encode_number(score)}, '
        f'"flagged": {"true" if flagged else "false"}, "start": {_encode_number(start)}, '
        f'"end": {_encode_number(end)}, "clean_title": {same}, "tier": "{tier}", "reason": {_encode_text(reason)}, '
        f'"threshold": {_encode_number(threshold)}, "scanner": {_encode_text(scanner)}}}\n'
    )


def _encode_or_null(text: str | None) -> str:
    return "null" if text is None else _encode_text(text)


def _encode_number(number: float | None) -> str:
    return "null" if number is None else repr(number)


def read_kept_findings(path: Path) -> Iterator[Finding]:
    """Yield findings that `encode_finding` wrote, a line each."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            yield Finding(**json.loads(line))


def _to_jsonl(findings: Path, to: Path) -> None:
    shutil.copyfile(findings, to)


def format_cell(value: str | float | None) -> str:
    """Return a value as a cell of a CSV file that no spreadsheet takes for a formula; see the module."""
    if value is None:
        return ""
    if isinstance(value, str):
        text = escape_csv(value).replace('"', '""')
        return f'"{text}"'
    return str(value).lower()


def _read_frames(path: Path, most: int = MAX_FRAME_BYTES) -> Iterator[pl.DataFrame]:
    """Yield the findings in groups of `MAX_ROW_GROUP`, and of fewer where they are long."""
    lines: list[bytes] = []
    held = 0
    with path.open("rb") as file:
        for line in file:
            lines.append(line)
            held += len(line)
            if len(lines) == MAX_ROW_GROUP or held >= most:
                yield pl.read_ndjson(b"".join(lines), schema=_FRAME_SCHEMA)
                lines, held = [], 0
    if lines:
        yield pl.read_ndjson(b"".join(lines), schema=_FRAME_SCHEMA)


def _to_csv(findings: Path, to: Path) -> None:
    with to.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(Finding._fields) + "\n")
        for frame in _read_frames(findings):
            columns = [_format_column(column) for column in frame]
            file.writelines(map("{}\n".format, map(",".join, zip(*columns, strict=True))))


def _format_column(column: pl.Series) -> list[str]:
    """Return the cells of a column, each different one formatted once where few differ."""
    values = column.to_list()
    if column.name in _DIFFERENT_COLUMNS:
        return list(map(format_cell, values))
    known = {value: format_cell(value) for value in set(values)}
    return [known[value] for value in values]


def _to_parquet(findings: Path, to: Path) -> None:
    writer: Any
    with pq.ParquetWriter(to, PARQUET_SCHEMA, compression="zstd") as writer:
        for frame in _read_frames(findings, MAX_GROUP_BYTES):
            writer.write_table(frame.to_arrow().cast(PARQUET_SCHEMA))


FINDINGS_WRITERS = {".csv": _to_csv, ".jsonl": _to_jsonl, ".ndjson": _to_jsonl, ".parquet": _to_parquet}
"""What writes a file from JSON Lines, by the end of its name."""
