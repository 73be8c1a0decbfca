"""`cowbird peek`, and the options about the form of files."""

import json
import os
from pathlib import Path

import polars as pl
import pytest

from doubles.command import call_command
from hostile import PAYLOAD, find_raw


@pytest.fixture
def call(monkeypatch, capsys):
    """Call the command in this process: exit code, output, errors."""
    return lambda *words: call_command(monkeypatch, capsys, *words)


def test_peek_tells_the_form_and_shows_rows(call, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("sep=;\nsku;name;event_time\n1;Café;5\n".encode("cp1252") + b"2;Tea;6\n" * 9)
    before = path.read_bytes()
    code, out, err = call("peek", path)
    assert (code, err) == (0, "")
    told = "a.csv: read as cp1252, ';'-separated, header in line 2; title = 'name', id = 'sku', time = 'event_time'."
    assert told in out
    assert "Café" in out
    assert out.count("Tea") == 4
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["a.csv"]


def test_peek_for_programs(call, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,title\n1,Drill\n2\n3,\n")
    code, out, err = call("peek", path, "--json", "--rows", 3)
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "file": "a.csv",
        "form": "read as UTF-8, ','-separated, header in line 1",
        "columns": ["id", "title"],
        "roles": {"title": "title", "id": "id"},
        "shown": ["id", "title"],
        "rows": [["1", "Drill"], ["3", ""]],
        "unread": [{"row": 2, "reason": "wrong number of columns (expected 2)"}],
        "late_id": None,
        "remarks": [],
    }


def test_peek_shows_of_many_columns_those_that_are_known(call, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(",".join([f"x{nth}" for nth in range(60)] + ["title"]) + "\n" + ",".join(["1"] * 60) + ",Drill\n")
    code, out, _ = call("peek", path)
    assert code == 0
    assert "Drill" in out
    assert "53 more columns are not shown" in out
    assert len(json.loads(call("peek", path, "--json")[1])["shown"]) == 50


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.csv"], "there is nothing"),
        (["a.csv", "--text-column", "naam"], "should have a column 'naam'"),
        (["a.csv", "--encoding", "xx"], "'xx' is no encoding"),
        (["a.csv", "--separator", "::"], "A separator is one"),
        (["a.csv", "--rows", "0"], "--rows"),
    ],
)
def test_peeks_that_can_t_be(call, tmp_path, monkeypatch, words, said):
    (tmp_path / "a.csv").write_text("id,name\n1,Drill\n")
    monkeypatch.chdir(tmp_path)
    code, out, err = call("peek", *words)
    assert (code, out) == (2, "")
    assert said in " ".join(err.split())


@pytest.mark.parametrize(
    "words", [("peek",), ("scan", "--detector", "character_rules", "--out", "o.csv"), ("inspect",)]
)
def test_a_pipe_is_called_so_and_not_waited_for(call, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    code, _, err = call(words[0], "pipe", *words[1:])
    assert code == 2
    assert "a pipe or a device" in " ".join(err.split())
    assert not Path("o.csv").exists()


@pytest.mark.parametrize("name", ["x" * 300 + ".csv", "sep.csv"])
def test_files_that_hold_no_rows_are_told(call, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("sep.csv").write_text("sep=;")
    code, _, err = call("peek", name)
    assert code == 2
    assert "too long" in err or "there are none" in err


def test_hostile_cells_and_names_are_shown_as_codes(call, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"title": PAYLOAD, PAYLOAD: "x"}) + "\n")
    for words in ((), ("--json",)):
        code, out, err = call("peek", path, *words)
        assert code == 0
        assert not find_raw(out + err)


def test_a_scan_tells_how_a_file_was_read(call, tmp_path):
    path, out_path = tmp_path / "a.csv", tmp_path / "found.csv"
    rows = [f"{nth};Tür {nth}" for nth in range(30)]
    path.write_bytes(("sku;name\n" + "\n".join([*rows, "30;NULL"])).encode("cp1252"))
    words = ("scan", path, "--out", out_path, "--detector", "character_rules", "--device", "cpu")
    code, out, err = call(*words)
    assert code == 0
    assert "note" not in err
    said = " ".join(out.split())
    assert "a.csv: read as cp1252, ';'-separated, header in line 1; title = 'name', id = 'sku'." in said
    assert "1 title of a.csv is 'NULL' and was taken for missing" in said
    notes = json.loads(call(*words, "--json", "--null", "")[1])["notes"]
    assert any("read as cp1252" in note for note in notes)
    assert not any("NULL" in note for note in notes)
    code, _, err = call(*words, "--separator", "|")
    assert code == 2
    assert "should have a column 'title'" in err


def test_peek_says_what_a_scan_would_refuse_and_where_ids_come_later(call, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"id": 1, "product": {"title": "Red"}}) + "\n")
    code, out, _ = call("peek", path)
    assert code == 0
    assert "A scan would refuse this: a.jsonl should have a column 'title'" in out
    assert "Did you mean 'product.title'? Set --text-column" in out
    assert "refuse" not in call("peek", path, "--text-column", "product.title")[1]
    rows = [{"title": f"Hose {nth}"} for nth in range(1001)] + [{"title": "Red", "id": "late"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "title = 'title', id = id or alike where a row has it." in call("peek", path)[1]
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id\n1,2\n")
    assert "refuse" not in call("peek", path)[1], "a log has no titles"


def test_titles_that_are_lists_are_told_with_the_option_that_mends_it(call, tmp_path):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"id": ["1", "2"], "title": [["Red", "Blue"], ["Green"]]}).write_parquet(path)
    code, out, _ = call("peek", path)
    assert code == 0
    assert "A scan would refuse this: Column 'title' of a.parquet holds lists of text." in out
    assert "--text-column 'title[0]'" in out
    assert len(json.loads(call("peek", path, "--json")[1])["remarks"]) == 1
    assert "refuse" not in call("peek", path, "--text-column", "title[0]")[1]


def test_peek_names_the_option_for_rows_inside_an_object(call, tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"page": 1, "data": {"items": [{"id": 1, "title": "Heat"}, {"id": 2, "title": "Tea"}]}}\n')
    code, out, _ = call("peek", path)
    assert code == 0
    assert "--json-path data.items" in " ".join(out.split())
    code, out, _ = call("peek", path, "--json-path", "data.items")
    assert code == 0 and "title = 'title'" in out and "Tea" in out
    path.write_text('{"id": 1, "parts": [{"a": 1}]}\n{"id": 2, "parts": [{"a": 2}]}\n')
    code, out, _ = call("peek", path)
    assert "--json-path" not in out and "--text-column" in out
