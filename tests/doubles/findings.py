"""Findings of a scan in the formats that a scan writes."""

import json

import polars as pl

from cowbird.text import escape_csv

ROWS = [
    (1, "Mug 5v", 4, 6, "flagged", "2 titles share '5v'; log-odds 3.1"),
    (2, "Pot 5V", 4, 6, "flagged", "2 titles share '5v'; log-odds 9.7"),
    (3, "Plain", None, None, "review", "no words"),
    (4, "Fine", None, None, "", ""),
    (5, "a\u200bb <b>", 1, 2, "flagged", "hidden characters"),
    (6, "two\nlines", None, None, "flagged", "odd"),
]


def write_findings(folder, rows=ROWS, suffix=".jsonl"):
    records = [
        {
            "row": row, "id": f"i{row}", "title": title, "score": 10.0 - row, "flagged": tier == "flagged",
            "start": start,
            "end": end, "clean_title": None, "tier": tier, "reason": reason, "threshold": 1.0, "scanner": "x",
        }
        for row, title, start, end, tier, reason in rows
    ]  # fmt: skip
    path = folder / f"findings{suffix}"
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps(each) + "\n" for each in records))
        return path
    frame = pl.DataFrame(records, infer_schema_length=None)
    if suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.with_columns(pl.col("title", "reason").map_elements(escape_csv, pl.String)).write_csv(path)
    return path
