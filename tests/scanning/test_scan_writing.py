"""Findings as files: hostile text comes back from all formats, and nothing half-written has the final name."""

import csv
import errno
import io
import json
import os
import re
import shutil
import stat
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cowbird.errors import UserError
from cowbird.scanning import findings, writing
from cowbird.scanning.findings import Finding, format_cell
from cowbird.scanning.partial_folder import hold_output
from cowbird.scanning.reading import CatalogRow, open_catalog
from cowbird.scanning.writing import FindingsWriter, check_output, group_rows

HOSTILE = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text(
    "=+-@'\t\r\n\",\0＝ \u2028a", max_size=6
)
FOUND = [
    Finding(1, "7", "Red xq", 0.9, True, 4, 6, "Red", "flagged", "says xq", 0.5, "finds 1"),
    Finding(3, None, "", None, False, None, None, ""),
]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def written(out, findings, skipped=(), row=9):
    with FindingsWriter(out, "key", resume=False) as work:
        work.add(findings, skipped, row, empty=0)
        return work.finish()


def parsed(text):
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def raw(text):
    """Undo the guard against formulas as `escape_csv` says: one apostrophe goes where one was put."""
    skipped = r"[^\S\t\r\n]|['\"\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]"
    return re.sub(rf"(\A|(?<=[;\t\r\n]))'(?=(?:{skipped})*[=+\-@＝＋－＠﹢﹣﹦﹫−])|\A'(?='*[\t\r\n])", "", text)


def visible(text):
    """Return a text as CSV holds it: without what would steer a terminal."""
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", "\ufffd", text)


def back(path):
    """Read findings with readers that know nothing of them."""
    if path.suffix == ".csv":
        header, *rows = parsed(path.read_bytes().decode())
        assert header == list(Finding._fields)
        text = {1, 2, 7, 9}
        return [tuple(raw(value) if nth in text else value for nth, value in enumerate(row)) for row in rows]
    frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_ndjson(path, schema=SCHEMA)
    assert frame.schema == SCHEMA
    return frame.rows()


SCHEMA = pl.Schema(
    {
        **{"row": pl.Int64, "id": pl.String, "title": pl.String, "score": pl.Float32},
        **{"flagged": pl.Boolean, "start": pl.Int32, "end": pl.Int32, "clean_title": pl.String},
        **{"tier": pl.String, "reason": pl.String, "threshold": pl.Float32, "scanner": pl.String},
    }
)


def test_csv(tmp_path):
    written(tmp_path / "a.csv", FOUND)
    expected = (
        "row,id,title,score,flagged,start,end,clean_title,tier,reason,threshold,scanner\n"
        '1,"7","Red xq",0.9,true,4,6,"Red","flagged","says xq",0.5,"finds 1"\n'
        '3,,"",,false,,,"","","",,""\n'
    )
    assert (tmp_path / "a.csv").read_text() == expected


def test_jsonl(tmp_path):
    written(tmp_path / "a.jsonl", FOUND)
    assert (tmp_path / "a.jsonl").read_text() == (
        '{"row": 1, "id": "7", "title": "Red xq", "score": 0.9, "flagged": true, "start": 4, "end": 6, '
        '"clean_title": "Red", "tier": "flagged", "reason": "says xq", "threshold": 0.5, "scanner": "finds 1"}\n'
        '{"row": 3, "id": null, "title": "", "score": null, "flagged": false, "start": null, "end": null, '
        '"clean_title": "", "tier": "", "reason": "", "threshold": null, "scanner": ""}\n'
    )


def test_parquet_in_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(findings, "MAX_ROW_GROUP", 3)
    many = [FOUND[0]._replace(row=nth) for nth in range(8)] + [FOUND[1]]
    written(tmp_path / "a.parquet", many)
    assert back(tmp_path / "a.parquet") == pl.DataFrame(many, schema=SCHEMA, orient="row").rows()
    written(tmp_path / "b.parquet", [])
    assert back(tmp_path / "b.parquet") == []


@pytest.mark.slow
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.tuples(HOSTILE, HOSTILE, HOSTILE), max_size=3))
def test_hostile_text_comes_back(tmp_path, texts):
    findings = [
        Finding(nth, id_, title, 0.5, True, 0, 1, clean, "flagged", title)
        for nth, (id_, title, clean) in enumerate(texts)
    ]
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        path = tmp_path / name
        written(path, findings)
        found = [(row[1], row[2], row[7], row[9]) for row in back(path)]
        told = [(id_, title, clean, title) for id_, title, clean in texts]
        assert found == [tuple(visible(text) if name == "a.csv" else text for text in row) for row in told]
    rows = [row.title for row in open_catalog(tmp_path / "a.csv").read_rows()]
    assert [raw(title) for title in rows] == [visible(title) for _, title, _ in texts]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("\n=x", "'\n'=x"),
        ("  =x", "'  =x"),
        ("＝x", "'＝x"),
        ("'=x", "''=x"),
        ("'Tis a title", "'Tis a title"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_no_cell_is_a_formula(text, expected):
    assert parsed(f"{format_cell(text)},x") == [[expected, "x"]]


@given(HOSTILE)
def test_no_cell_begins_like_a_formula(text):
    ((value,),) = parsed(format_cell(text) + "\n") if text else [("",)]
    assert not re.match(r"\s*[=+\-@＝＋－＠]|[\t\r\n]", value)


def test_rows_in_groups_by_number_and_length(monkeypatch):
    rows = [CatalogRow(nth, None, "x" * size) for nth, size in enumerate([1, 1, 1, 9, 50, 1, 1])]
    assert [len(group) for group in group_rows(rows, 3)] == [3, 3, 1]
    monkeypatch.setattr(writing, "MAX_HELD_CHARACTERS", 10)
    assert [[len(row.title) for row in group] for group in group_rows(rows, 3)] == [[1, 1, 1], [9, 50], [1, 1]]
    assert list(group_rows(list[CatalogRow](), 3)) == []


def test_skipped_rows_have_a_table_and_an_old_one_goes(tmp_path):
    out = tmp_path / "a.csv"
    table = written(out, FOUND, [(2, "is not JSON"), (5, "is longer than 16,777,216 bytes")])
    assert table == tmp_path / "a.csv.skipped.csv"
    assert parsed(table.read_text()) == [
        ["row", "reason"],
        ["2", "is not JSON"],
        ["5", "is longer than 16,777,216 bytes"],
    ]
    assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE(table.stat().st_mode) == 0o644
    assert written(out, FOUND) is None
    assert names(tmp_path) == ["a.csv"]


def test_what_was_added_is_there_for_the_next(tmp_path):
    out = tmp_path / "deep" / "a.csv"
    with FindingsWriter(out, "key", resume=True) as work:
        assert (work.row, work.empty) == (0, 0)
        work.add(FOUND, [(2, "is not JSON"), (4, "a, b")], row=4, empty=1)
        work.add([], [], row=6, empty=2)
    with FindingsWriter(out, "key", resume=True) as work:
        assert (work.row, work.empty) == (6, 3)
        assert list(work.read_findings()) == FOUND
        assert list(work.read_skips()) == [(2, "is not JSON"), (4, "a, b")]
    for key, resume in (("key", False), ("another", True)):
        with FindingsWriter(out, "key", resume=True) as work:
            work.add(FOUND, [], row=4, empty=1)
        with FindingsWriter(out, key, resume) as work:
            assert (work.row, list(work.read_findings()), list(work.read_skips())) == (0, [], [])
    assert not out.exists()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"key": 1}', b'{"row": "x"}'])
def test_a_damaged_state_is_a_beginning(tmp_path, damage):
    with FindingsWriter(tmp_path / "a.csv", "key", resume=True) as work:
        work.add(FOUND, [], row=4, empty=1)
    (tmp_path / "a.csv.partial" / "state.json").write_bytes(damage)
    with FindingsWriter(tmp_path / "a.csv", "key", resume=True) as work:
        assert (work.row, list(work.read_findings())) == (0, [])


@pytest.mark.parametrize("change", [("row", -1), ("row", 1.5), ("row", True), ("findings", 10**6), ("more", 1)])
def test_a_state_that_cannot_be_is_a_beginning(tmp_path, change):
    with FindingsWriter(tmp_path / "a.csv", "key", resume=True) as work:
        work.add(FOUND, [], row=4, empty=1)
    path = tmp_path / "a.csv.partial" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | dict([change])))
    with FindingsWriter(tmp_path / "a.csv", "key", resume=True) as work:
        assert work.row == 0


def test_what_a_power_cut_left_behind_the_state_is_cut_off(tmp_path):
    with FindingsWriter(tmp_path / "a.csv", "key", resume=True) as work:
        work.add(FOUND, [(2, "x")], row=4, empty=1)
    for name in ("findings.jsonl", "skipped.csv"):
        with (tmp_path / "a.csv.partial" / name).open("ab") as file:
            file.write(b'{"row": 5, "id')
    with FindingsWriter(tmp_path / "a.csv", "key", resume=True) as work:
        assert list(work.read_findings()) == FOUND
        assert list(work.read_skips()) == [(2, "x")]


def test_findings_that_were_changed_are_an_error(tmp_path):
    with FindingsWriter(tmp_path / "a.csv", "key", resume=True) as work:
        work.add(FOUND, [], row=4, empty=1)
    path = tmp_path / "a.csv.partial" / "findings.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"row"', b'"raw"'))
    with FindingsWriter(tmp_path / "a.csv", "key", resume=True) as work, pytest.raises(UserError, match="damaged"):
        list(work.read_findings())


@pytest.mark.skipif(os.name != "posix", reason="no such locks")
def test_two_scans_do_not_meet(tmp_path):
    with FindingsWriter(tmp_path / "a.csv", "key", resume=True) as work:
        work.add(FOUND, [], row=4, empty=0)
        with pytest.raises(UserError, match="Another scan"), FindingsWriter(tmp_path / "a.csv", "key", resume=False):
            pass
        work.finish()
    assert len(back(tmp_path / "a.csv")) == 2


@pytest.mark.skipif(os.name != "posix", reason="no such locks")
def test_a_place_that_is_held_before_a_scan_is_that_scan_s(tmp_path):
    out = tmp_path / "a.csv"
    with hold_output(out):
        with pytest.raises(UserError, match=r"Another scan to '.*a.csv' is at work"), hold_output(out):
            pass
        with FindingsWriter(out, "key", resume=True) as work:
            work.add(FOUND, [], row=4, empty=0)
            with pytest.raises(UserError, match="Another scan"), FindingsWriter(out, "key", resume=True):
                pass
            work.finish()
        with hold_output(out):  # the first scan has ended
            pass
    assert names(tmp_path) == ["a.csv"]


def test_a_place_that_is_held_for_nothing_is_left_as_it_was(tmp_path):
    with pytest.raises(ZeroDivisionError), hold_output(tmp_path / "a.csv"):
        raise ZeroDivisionError
    assert names(tmp_path) == []
    with FindingsWriter(tmp_path / "a.csv", "key", resume=True) as work:
        work.add(FOUND, [], row=4, empty=0)
    with pytest.raises(ZeroDivisionError), hold_output(tmp_path / "a.csv"):
        raise ZeroDivisionError
    with hold_output(tmp_path / "a.csv"), FindingsWriter(tmp_path / "a.csv", "key", resume=True) as work:
        assert work.row == 4


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_while_findings_are_added(tmp_path, monkeypatch):
    out = tmp_path / "a.csv"
    out.write_text("older")
    with FindingsWriter(out, "key", resume=True) as work:
        work.add(FOUND[:1], [], row=1, empty=0)
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="No space left") as error:
            work.add(FOUND[1:], [], row=3, empty=0)
        monkeypatch.undo()
    assert str(out) in str(error.value)
    assert out.read_text() == "older"
    with FindingsWriter(out, "key", resume=True) as work:
        assert (work.row, list(work.read_findings())) == (1, FOUND[:1])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_full_disk_that_takes_a_part(tmp_path):
    with FindingsWriter(tmp_path / "a.csv", "key", resume=True) as work:
        work.add(FOUND[:1], [], row=1, empty=0)
        work._findings = Path("/dev/full").open("wb")  # noqa: SIM115
        work._open.push(work._findings)
        with pytest.raises(UserError, match="No space left"):
            work.add(FOUND[1:], [], row=3, empty=0)
    with FindingsWriter(tmp_path / "a.csv", "key", resume=True) as work:
        assert (work.row, list(work.read_findings())) == (1, FOUND[:1])


@pytest.mark.parametrize(
    ("name", "module", "call"),
    [
        ("a.csv", findings, "format_cell"),
        ("a.jsonl", shutil, "copyfile"),
        ("a.parquet", findings.pq.ParquetWriter, "write_table"),
    ],
)
def test_a_full_disk_at_the_end(tmp_path, monkeypatch, name, module, call):
    out = tmp_path / name
    out.write_text("older")
    with FindingsWriter(out, "key", resume=True) as work:
        work.add(FOUND, [(2, "x")], row=3, empty=0)
        monkeypatch.setattr(module, call, full)
        with pytest.raises(UserError, match="No space left"):
            work.finish()
        monkeypatch.undo()
    assert out.read_text() == "older"
    assert names(tmp_path) == [name, f"{name}.partial"]
    with FindingsWriter(out, "key", resume=True) as work:
        assert work.row == 3
        work.finish()
    assert len(back(out)) == 2
    assert names(tmp_path) == [name, f"{name}.skipped.csv"]


def test_a_folder_that_refuses(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match="Permission denied"), FindingsWriter(tmp_path / "a.csv", "key", resume=True):
        pass


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="ermission denied"), FindingsWriter(tmp_path / "a.csv", "key", resume=True):
        pass


def test_names_that_cannot_be_written(tmp_path):
    catalog = tmp_path / "catalog.csv"
    catalog.write_text("title\na\n")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "same.csv").symlink_to(catalog)
    (tmp_path / "b.csv.skipped.csv").symlink_to(catalog)
    for name, why in {
        "a.xlsx": "can't be written",
        "a": "can't be written",
        "a.csv.gz": "can't be written",
        "folder.csv": "is a folder",
        "catalog.csv": "the catalogue itself",
        "same.csv": "the catalogue itself",
        "b.csv": "the catalogue itself",
    }.items():
        with pytest.raises(UserError, match=why) as error:
            check_output(tmp_path / name, catalog)
        assert error.value.hint
    check_output(tmp_path / "new" / "A.CSV", catalog)
    with pytest.raises(UserError), FindingsWriter(catalog / "a.csv", "key", resume=True):
        pass


@pytest.mark.parametrize("name", ["findings.jsonl", "skipped.csv", "state.json", "lock", ""])
def test_links_in_a_shared_folder_harm_no_file(tmp_path, name):
    """The scratch folder's name can be guessed: somebody may have put it there before, with links to our files."""
    mine = tmp_path / "mine"
    mine.write_text("precious")
    out = tmp_path / "found.csv"
    folder = out.with_name("found.csv.partial")
    if name:
        folder.mkdir()
        (folder / name).symlink_to(mine)
    else:
        (tmp_path / "theirs").mkdir()
        folder.symlink_to(tmp_path / "theirs")
    try:
        written(out, FOUND, [(2, "is not JSON")])
    except UserError as error:
        assert "link" in error.message
        assert error.hint
    else:
        assert name == "state.json", "which is replaced, and not written to"
    assert mine.read_text() == "precious"
    if not name:
        assert not list((tmp_path / "theirs").iterdir())


def test_findings_are_readable_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        table = written(tmp_path / "a.csv", FOUND, [(2, "is not JSON")])
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "a.csv", table)] == [0o640, 0o640]
