"""Findings that are damaged, or none: told in words, whatever their format, and never read as something else."""

import json
import random

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowbird.errors import UserError
from cowbird.review.store import ReviewStore
from cowbird.scanning.findings_file import read_reviewed
from cowbird.text import escape_csv, replace_controls, unescape_csv
from doubles.command import call_command
from doubles.findings import write_findings

GOOD = {"row": 1, "title": "x", "flagged": True}
BAD_LINES = {
    "list cells": ({"row": [1], "title": ["x"], "flagged": True}, "should hold"),
    "object as title": (GOOD | {"title": {"a": 1}}, "title"),
    "number as title": (GOOD | {"title": 5}, "title"),
    "object as flag": (GOOD | {"flagged": {"a": [1]}}, "flagged"),
    "word as flag": (GOOD | {"flagged": "perhaps"}, "'perhaps'"),
    "no flag": (GOOD | {"flagged": None}, "nothing"),
    "list as start": (GOOD | {"start": [1], "end": [2]}, "start"),
    "flag as start": (GOOD | {"start": True, "end": 2}, "start"),
    "part of a character": (GOOD | {"start": 0.5, "end": 1}, "numbers"),
    "object as id": (GOOD | {"id": {}}, "id"),
    "list as reason": (GOOD | {"reason": ["r"]}, "reason"),
    "word as row": (GOOD | {"row": "z"}, "numbers"),
}


@pytest.mark.parametrize("place", ["alone", "first", "last"])
@pytest.mark.parametrize("name", BAD_LINES)
def test_lines_that_no_scan_writes_are_refused(tmp_path, name, place):
    bad, said = BAD_LINES[name]
    good = json.dumps(GOOD)
    lines = {"alone": [json.dumps(bad)], "first": [json.dumps(bad), good], "last": [good, json.dumps(bad)]}[place]
    path = tmp_path / "f.jsonl"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=said if place == "alone" else None) as caught:
        read_reviewed(path)
    assert "--out" in caught.value.hint


@pytest.mark.parametrize(
    "lines",
    [
        ['{"row": 1, "title": "x", "title": "y", "flagged": true}'],
        [json.dumps(GOOD), '{"row": 1, "title": "x", "flagged": false, "flagged" : true}'],
        [json.dumps(GOOD | {"reason": "r"}), '{"row": 2, "title": "x", "flagged": true, "title": "r"}'],
        [json.dumps(GOOD)[:-9]],
        [json.dumps(GOOD | {"more": 1}).replace("1", "[" * 5000 + "]" * 5000)],
    ],
)
def test_lines_with_a_column_twice_or_cut_are_refused(tmp_path, lines):
    path = tmp_path / "f.jsonl"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match="can't be read as findings"):
        read_reviewed(path)


@pytest.mark.parametrize("title", ["1984", "[live]", "{1}", "true", 'a "b": c', '"title":'])
def test_honest_titles_that_look_like_other_cells_are_read(tmp_path, title):
    rows = [(1, title, None, None, "flagged", "r"), (2, "Mug", None, None, "review", "r")]
    for suffix in (".jsonl", ".csv", ".parquet"):
        assert [each.title for each in read_reviewed(write_findings(tmp_path, rows, suffix))] == [title, "Mug"]


@pytest.mark.parametrize("header", ["row,title,title,flagged", "row,title,flagged,flagged"])
def test_a_column_twice_in_csv_is_refused(tmp_path, header):
    (tmp_path / "f.csv").write_text(f"{header}\n1,a,true,true\n")
    with pytest.raises(UserError, match=r"one column '(title|flagged)', and it has several"):
        read_reviewed(tmp_path / "f.csv")


@pytest.mark.parametrize("line", ["1,a", "1,a,perhaps", '1,"a'])
def test_a_line_of_csv_that_is_cut_or_odd_is_refused(tmp_path, line):
    (tmp_path / "f.csv").write_text(f"row,title,flagged\n1,b,true\n{line}\n")
    with pytest.raises(UserError):
        read_reviewed(tmp_path / "f.csv")


BAD_COLUMNS = {
    "title": pa.array([b"\xff\xfe"]),
    "start": pa.array([[1]]),
    "flagged": pa.array([[True]]),
    "row": pa.array([{"a": 1}]),
    "score": pa.array([b"\xff"]),
    "tier": pa.array([7]),
}


@pytest.mark.parametrize("name", BAD_COLUMNS)
def test_a_parquet_file_of_other_types_is_refused(tmp_path, name):
    columns = {"row": pa.array([1]), "title": pa.array(["x"]), "flagged": pa.array([True])} | {name: BAD_COLUMNS[name]}
    pq.write_table(pa.table(columns), tmp_path / "f.parquet")
    with pytest.raises(UserError) as caught:
        read_reviewed(tmp_path / "f.parquet")
    assert caught.value.hint


def test_a_column_twice_in_parquet_is_refused(tmp_path):
    columns = [pa.array([1]), pa.array(["x"]), pa.array(["y"]), pa.array([True])]
    pq.write_table(pa.table(columns, names=["row", "title", "title", "flagged"]), tmp_path / "f.parquet")
    with pytest.raises(UserError, match="can't be read"):
        read_reviewed(tmp_path / "f.parquet")


def test_a_parquet_file_is_read_or_refused_whatever_happened_to_it(tmp_path):
    path = write_findings(tmp_path, suffix=".parquet")
    whole, chance = path.read_bytes(), random.Random(11)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.choice([len(data), chance.randrange(len(data))])])
        try:
            read_reviewed(path)
        except UserError as error:
            assert error.hint


@pytest.fixture
def folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.jsonl").write_text(
        "".join(json.dumps({"id": n, "title": f"Pot {n}\u200b"}) + "\n" for n in range(5))
    )
    words = "scan", "c.jsonl", "--out", "parts", "--detector", "character_rules", "-q"
    assert call_command(monkeypatch, capsys, *words)[0] == 1
    return tmp_path / "parts"


def test_a_folder_with_a_damaged_part_is_refused(folder, monkeypatch, capsys):
    assert len(read_reviewed(folder)) == 5
    part = folder / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-40])
    words = "scan", "c.jsonl", "--out", "f.jsonl", "--detector", "character_rules", "-q", "--baseline", "parts"
    for line in (words, ("review", "parts")):
        code, _, err = call_command(monkeypatch, capsys, *line)
        assert code == 2 and "can't be read as findings" in " ".join(err.split()) and "Traceback" not in err
    pl.DataFrame({"row": [1]}).write_parquet(part)
    with pytest.raises(UserError, match="no column"):
        ReviewStore(folder)


@given(st.text(alphabet="'=+-@;\t\n\r \"a\x00\x0b\x1b\x85\u200b\ud800＝", max_size=12))
def test_controls_are_replaced_as_in_csv(text):
    assert replace_controls(text) == unescape_csv(escape_csv(text))
