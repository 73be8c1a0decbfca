"""A whole scan: rows in, findings out, whatever happens on the way."""

import gzip
import io
import json
import os
import sqlite3
import sys
import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from cowbird.errors import UserError
from cowbird.ingest import places
from cowbird.ingest.places import fingerprint
from cowbird.scanning.reading import Catalog
from cowbird.scanning.scan import ScanForm, load_table_titles, scan_catalog
from cowbird.scanning.verdicts import FlaggedSuspicion

ROWS = [
    {"id": "a", "title": "Red Garden"},
    {"id": "b", "title": "Blue xq Harbor"},
    b"not json",
    {"id": "c", "title": None},
    {"id": "d \ud800", "title": "half \ud800 xq"},
    {"id": 7, "title": "Red Garden"},
    {"title": "xq"},
    {"id": "f", "title": ""},
    {"id": "g", "title": 5},
    {"id": "h", "title": "Night \u202e Mirror"},
]
FINDINGS = [
    (1, "a", "Red Garden", 0.1, False, None, None, "Red Garden"),
    (2, "b", "Blue xq Harbor", 0.9, True, 5, 7, "Blue Harbor"),
    (4, "c", "", None, False, None, None, ""),
    (5, "d \ufffd", "half \ufffd xq", 0.9, True, 7, 9, "half \ufffd"),
    (6, "7", "Red Garden", 0.1, False, None, None, "Red Garden"),
    (7, None, "xq", 0.9, True, 0, 2, None),
    (8, "f", "", None, False, None, None, ""),
    (10, "h", "Night \u202e Mirror", 0.9, True, 6, 7, "Night Mirror"),
]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def told(summary):
    """Return what must not depend on interruptions."""
    return (
        *(summary.rows, summary.empty, summary.flagged, summary.judged, summary.unread, summary.skipped),
        *(summary.fragments, summary.skipped_file and summary.skipped_file.name),
    )


def test_every_row_has_its_finding(jsonl, tmp_path, finds):
    scorer, out = finds(), tmp_path / "found.jsonl"
    summary = scan_catalog(jsonl(*ROWS), out, scorer)
    assert [tuple(json.loads(line).values())[:8] for line in out.read_text().splitlines()] == FINDINGS
    assert scorer.asked == [["Red Garden", "Blue xq Harbor", "half \ud800 xq", "xq", "Night \u202e Mirror"]]
    assert (summary.rows, summary.empty, summary.flagged, summary.judged, summary.resumed) == (10, 2, 4, 6, 0)
    assert [(each.reason, each.count, each.rows) for each in summary.unread] == [
        ("is not JSON", 1, (3,)),
        ("title is not text", 1, (9,)),
    ]
    assert summary.skipped_file.read_text() == 'row,reason\n3,"is not JSON"\n9,"title is not text"\n'
    assert [(each.text, each.count, each.examples) for each in summary.fragments] == [
        ("xq", 3, ("Blue xq Harbor", "half \ufffd xq", "xq"))
    ]
    assert summary.seconds > 0
    assert summary.rate == pytest.approx(6 / summary.seconds)
    assert names(tmp_path) == ["catalog.jsonl", "found.jsonl", "found.jsonl.skipped.csv"]


def test_flagged_rows_alone(jsonl, tmp_path, finds):
    summary = scan_catalog(jsonl(*ROWS), tmp_path / "found.parquet", finds(), form=ScanForm(only_flagged=True, chunk=2))
    found = pl.read_parquet(tmp_path / "found.parquet")
    assert set(found["tier"]) == {"flagged"}
    assert found.drop("score", "tier", "reason", "threshold", "scanner").rows() == [
        row[:3] + row[4:] for row in FINDINGS if row[4]
    ]
    assert found["score"].to_list() == pytest.approx([0.9] * 4)
    assert (summary.rows, summary.empty, summary.flagged, summary.judged) == (10, 2, 4, 6)


def test_kinds_of_catalogues_are_scanned_alike(tmp_path, finds):
    frame = pl.DataFrame({"sku": ["a", None], "name": ["Red, xq", "Blue"]})
    frame.write_csv(tmp_path / "a.csv")
    frame.write_csv(tmp_path / "a.tsv", separator="\t")
    frame.write_ndjson(tmp_path / "a.jsonl")
    frame.write_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    outs = []
    for nth, name in enumerate(["a.csv", "a.tsv", "a.jsonl", "a.parquet", "b.csv.gz"]):
        out = tmp_path / f"out{nth}.csv"
        scan_catalog(tmp_path / name, out, finds(), form=ScanForm(text_column="name", id_column="sku"))
        outs.append(out.read_text())
    expected = '1,"a","Red, xq",0.9,true,5,7,"Red,","flagged","",,""\n2,,"Blue",0.1,false,,,"Blue","","",,""\n'
    assert {text.partition("\n")[2] for text in outs} == {expected}


@pytest.mark.parametrize("name", ["found.csv", "found.jsonl", "found.parquet"])
@pytest.mark.parametrize("only_flagged", [False, True])
def test_an_interrupted_scan_ends_in_the_same_bytes(jsonl, tmp_path, finds, name, only_flagged):
    catalog = jsonl(*ROWS, *ROWS)
    whole, out = tmp_path / "whole" / name, tmp_path / "stopped" / name
    scorer = finds()
    expected = scan_catalog(catalog, whole, scorer, form=ScanForm(only_flagged=only_flagged, chunk=3))
    asked = scorer.asked
    seen = []
    for _ in asked[1:]:
        stopping = finds(stop=1)
        with pytest.raises(KeyboardInterrupt):
            scan_catalog(catalog, out, stopping, form=ScanForm(only_flagged=only_flagged, chunk=3))
        assert not out.exists()
        seen += stopping.asked
    summary = scan_catalog(catalog, out, last := finds(), form=ScanForm(only_flagged=only_flagged, chunk=3))
    assert seen + last.asked == asked
    assert told(summary) == told(expected)
    assert (summary.resumed, expected.resumed) == (18, 0)
    for path in (whole, whole.with_name(f"{name}.skipped.csv")):
        assert (out.parent / path.name).read_bytes() == path.read_bytes()
    assert len(names(out.parent)) == 2


def interrupted(catalog, out, finds, **options):
    with pytest.raises(KeyboardInterrupt):
        scan_catalog(catalog, out, finds(stop=1), form=ScanForm(chunk=2), **options)


def test_only_the_same_scan_is_resumed(jsonl, tmp_path, finds):
    catalog, out = jsonl(*ROWS), tmp_path / "found.csv"
    other = finds()
    other.key = "retrained"
    for scorer, options in (
        (other, {"form": ScanForm(chunk=2)}),
        (finds(), {"form": ScanForm(chunk=3)}),
        (finds(), {"form": ScanForm(chunk=2, only_flagged=True)}),
        (finds(), {"form": ScanForm(chunk=2, id_column="title")}),
        (finds(), {"form": ScanForm(chunk=2), "resume": False}),
    ):
        interrupted(catalog, out, finds)
        assert scan_catalog(catalog, out, scorer, **options).resumed == 0
    interrupted(catalog, out, finds)
    times = catalog.stat()
    os.utime(catalog, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert scan_catalog(catalog, out, finds(), form=ScanForm(chunk=2)).resumed == 0
    interrupted(catalog, out, finds)
    times, data = catalog.stat(), catalog.read_bytes()
    catalog.write_bytes(data.replace(b"Red", b"Rot"))
    os.utime(catalog, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert scan_catalog(catalog, out, finds(), form=ScanForm(chunk=2)).resumed == 0
    assert b"Rot" in out.read_bytes()
    interrupted(catalog, out, finds)
    assert scan_catalog(catalog, out, finds(), form=ScanForm(chunk=2)).resumed == 4  # rows 3 and 4 have nothing to ask


def test_a_scan_stopped_before_its_file_was_written(jsonl, tmp_path, finds, monkeypatch):
    from cowbird.scanning import findings

    def stop(*_):
        raise KeyboardInterrupt

    catalog, out = jsonl(*ROWS), tmp_path / "found.csv"
    monkeypatch.setattr(findings, "format_cell", stop)
    with pytest.raises(KeyboardInterrupt):
        scan_catalog(catalog, out, finds())
    monkeypatch.undo()
    assert not out.exists()
    assert not list(tmp_path.glob(".found.csv.*"))
    scorer = finds()
    assert scan_catalog(catalog, out, scorer).resumed == 10
    assert not scorer.asked
    assert len(out.read_text().splitlines()) == 9


def test_titles_of_a_chunk_are_scored_once(jsonl, tmp_path, finds):
    scorer = finds()
    scan_catalog(jsonl(*[{"title": title} for title in "aabbaaca"]), tmp_path / "a.csv", scorer, form=ScanForm(chunk=4))
    assert scorer.asked == [["a", "b"], ["a", "c"]]


def test_progress_is_told(jsonl, tmp_path, finds):
    seen = []
    scan_catalog(
        jsonl(*ROWS), tmp_path / "a.csv", finds(), form=ScanForm(chunk=4), report=lambda *step: seen.append(step)
    )
    assert seen == [(4, 10, "1 flagged"), (8, 10, "3 flagged"), (10, 10, "4 flagged")]
    seen.clear()
    catalog = tmp_path / "lines.csv"
    catalog.write_text("title\n\nRed\nBlue\n", encoding="utf-8")
    scan_catalog(catalog, tmp_path / "b.csv", finds(), report=lambda *step: seen.append(step[:2]))
    assert seen[-1] == (2, 2), "a header and a blank line were counted first"


def test_a_catalogue_in_which_nothing_can_be_read_is_an_error(tmp_path, jsonl, finds):
    (tmp_path / "a.csv").write_bytes(b"title,x\n\xff,\xfe\n\xfe,\xff\n")
    with pytest.raises(UserError, match=r"None of the rows of a\.csv can be read: 2 × is not valid UTF-8 \(row 1, 2\)"):
        scan_catalog(tmp_path / "a.csv", tmp_path / "out.csv", finds())
    (tmp_path / "b.csv").write_text("id,title\n")
    with pytest.raises(UserError, match="no rows"):
        scan_catalog(tmp_path / "b.csv", tmp_path / "out.csv", finds())
    assert names(tmp_path) == ["a.csv", "b.csv"]
    with pytest.raises(UserError, match="None of the rows"):
        load_table_titles(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="chunk"):
        scan_catalog(tmp_path / "b.csv", tmp_path / "out.csv", finds(), form=ScanForm(chunk=0))


def test_a_catalogue_without_titles_is_judged_nowhere(jsonl, tmp_path, finds):
    scorer = finds()
    summary = scan_catalog(jsonl({"title": None}, {"title": ""}), tmp_path / "a.csv", scorer)
    assert (summary.rows, summary.empty, summary.judged, scorer.asked) == (2, 2, 0, [])


def test_a_catalogue_that_changes_meanwhile_is_an_error(jsonl, tmp_path, finds):
    catalog = jsonl(*ROWS)

    def grow(*_):
        with catalog.open("ab") as file:
            file.write(b'{"title": "late"}\n')

    with pytest.raises(UserError, match="changed while"):
        scan_catalog(catalog, tmp_path / "a.csv", finds(), report=grow)
    assert names(tmp_path) == [catalog.name], "nothing is left to go on with"
    seal = fingerprint(catalog)
    grow()
    with pytest.raises(UserError, match="changed while"):
        scan_catalog(catalog, tmp_path / "a.csv", finds(), seal=seal)


def test_titles_of_a_file_that_changes_meanwhile_are_not_learned(jsonl, monkeypatch):
    catalog = jsonl(*ROWS)
    read = Catalog.read_rows

    def grow(self):
        yield from read(self)
        with catalog.open("ab") as file:
            file.write(b'{"title": "late"}\n')

    monkeypatch.setattr(Catalog, "read_rows", grow)
    with pytest.raises(UserError, match="changed while"):
        load_table_titles(catalog)


class Found(NamedTuple):
    score: list
    start: list
    end: list
    flagged: list


class Says:
    key = "says"

    def __init__(self, *scanned):
        self.scanned = scanned

    def scan(self, titles):
        return Found(*self.scanned)


def test_a_span_may_be_unknown_and_a_score_may_be_nothing(jsonl, tmp_path):
    catalog, out = jsonl({"title": "ab"}, {"title": "cd"}, {"title": "ef"}), tmp_path / "a.jsonl"
    scan_catalog(catalog, out, Says([1.0, -np.inf, 0.25], [-1, -1, 0], [-1, -1, 2], [True, False, False]))
    assert [tuple(json.loads(line).values())[3:8] for line in out.read_text().splitlines()] == [
        (1.0, True, None, None, None),
        (None, False, None, None, "cd"),
        (0.25, False, 0, 2, "ef"),
    ]


@pytest.mark.parametrize(
    "scanned",
    [
        ([1.0], [0], [3], [True]),
        ([1.0, 1.0], [0, 0], [1, 1], [True, True]),
        ([], [], [], np.zeros(0, bool)),
        ([1.0], [0], [1], [True, False]),
        ([np.inf], [0], [1], [True]),
        ([np.nan], [0], [1], [True]),
        ([-np.inf], [0], [1], [True]),
        ([1.0], [1], [1], [True]),
    ],
)
def test_verdicts_that_cannot_be(jsonl, tmp_path, scanned):
    with pytest.raises(ValueError, match=r"score|span|flag"):
        scan_catalog(jsonl({"title": "ab"}), tmp_path / "a.csv", Says(*scanned))
    assert not (tmp_path / "a.csv").exists()


def test_titles_to_fit_a_scorer_to(jsonl):
    titles, unread = load_table_titles(jsonl(*ROWS))
    assert titles == [row["title"] or "" for row in ROWS if isinstance(row, dict) and row["title"] != 5]
    assert [(each.reason, each.rows) for each in unread] == [("is not JSON", (3,)), ("title is not text", (9,))]


class Forgets:
    key = "forgets"

    def scan(self, titles):
        none = np.full(len(titles), -1)
        return FlaggedSuspicion(np.zeros(len(titles)), none, none, none > 0)


def catalogue(path, rows, length):
    frame = pl.select(title=pl.format("{} {}", pl.int_range(rows) % 500, pl.lit("x" * length)))
    if path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path, row_group_size=rows)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_no_object_outlives_its_chunk(tmp_path, name):
    catalog, arrow = catalogue(tmp_path / name, 300_000, 100), []
    blocks = [sys.getallocatedblocks()]

    def measure(*_):
        blocks.append(sys.getallocatedblocks())
        arrow.append(pa.total_allocated_bytes())

    scan_catalog(catalog, tmp_path / "o.csv", Forgets(), form=ScanForm(only_flagged=True, chunk=4096), report=measure)
    # 74 chunks; the rows of a CSV file are estimated, and if there are fewer, their number is told once more.
    assert len(blocks) in (1 + 74, 1 + 74 + (name == "a.csv"))
    assert max(blocks) - min(blocks) < 150_000  # one for each row would be 300,000
    assert max(arrow) < 1e6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_memory_holds_a_few_chunks_of_titles(tmp_path, name):
    catalog, arrow = catalogue(tmp_path / name, 2500, 4000), []
    scan_catalog(catalog, tmp_path / "warm.csv", Forgets(), form=ScanForm(only_flagged=True, chunk=25))
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    report = lambda *_: arrow.append(pa.total_allocated_bytes() - before)  # noqa: E731
    scan_catalog(catalog, tmp_path / "o.csv", Forgets(), form=ScanForm(chunk=25), report=report)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6  # of 10 MB of titles
    assert max(arrow) < 8e6  # beside 256 titles, the 500 distinct ones


def test_one_catalogue_in_many_forms_has_one_set_of_findings(tmp_path, finds, monkeypatch):
    frame = pl.DataFrame(
        {"id": [f"{n}" for n in range(40)], "title": [f'Red, Harbor "{n}"{" xq" * (n % 9 == 4)}' for n in range(40)]}
    )
    text = frame.write_csv()
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "semicolons.csv").write_bytes(
        b"sep=;\r\n" + frame.write_csv(separator=";").replace("\n", "\r\n").encode()
    )
    (tmp_path / "wide.csv").write_bytes(text.encode("utf-16"))
    (tmp_path / "a.tsv").write_text(frame.write_csv(separator="\t"))
    (tmp_path / "a.CSV.GZ").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "a.jsonl").write_text(frame.write_ndjson())
    (tmp_path / "a.json").write_text(json.dumps(frame.to_dicts(), indent=1))
    frame.write_parquet(tmp_path / "a.parquet")
    for country, part in (("DE", frame[:25]), ("FR", frame[25:])):
        (tmp_path / "hive" / f"country={country}").mkdir(parents=True)
        part.write_parquet(tmp_path / "hive" / f"country={country}" / "part.parquet")
    with closing(sqlite3.connect(tmp_path / "a.db")) as base:
        base.execute("create table items (id text, title text)")
        base.executemany("insert into items values (?, ?)", frame.rows())
        base.commit()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    forms = sorted(tmp_path.iterdir())
    places._copy_input.cache_clear()
    found = {}
    for catalog in (*forms, Path("-")):
        out = tmp_path / "found" / f"{catalog.name}.jsonl"
        summary = scan_catalog(catalog, out, finds(), form=ScanForm(chunk=16))
        found[catalog.name] = (summary.rows, summary.flagged, out.read_bytes())
    places._copy_input.cache_clear()
    assert len(found) == 11
    assert {(rows, flagged) for rows, flagged, _ in found.values()} == {(40, 4)}
    assert len({written for *_, written in found.values()}) == 1, "byte for byte"
