"""Allowed texts and rows: text files and tables of every kind, what can't be used, and rows that are named by ids."""

import csv
import gzip
import json
import os
import shutil
import socket
import time
from pathlib import Path

import polars as pl
import pytest

from cowbird.errors import UserError
from cowbird.scanning import allow_list, unmatched_entries
from cowbird.scanning.allow_list import AllowList, read_allow_list
from cowbird.scanning.scan import ScanForm, scan_catalog
from cowbird.scanning.scan_parts import scan_in_parts

TABLE = pl.DataFrame({"fragment": ["5v", None], "brand": ["Acme & Söhne", "Bolt, Inc."]})
WRITERS = {
    "allow.csv": lambda frame, path: frame.write_csv(path),
    "allow.tsv": lambda frame, path: frame.write_csv(path, separator="\t"),
    "allow.jsonl": lambda frame, path: frame.write_ndjson(path),
    "allow.parquet": lambda frame, path: frame.write_parquet(path),
    "allow.csv.gz": lambda frame, path: path.write_bytes(gzip.compress(frame.write_csv().encode())),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_names_fragments_and_brands(tmp_path, name):
    WRITERS[name](TABLE, tmp_path / name)
    allow = read_allow_list(tmp_path / name)
    assert set(allow.texts) == {"5v", "Acme & Söhne", "Bolt, Inc."}
    assert not allow.names_ids
    assert allow.allows("Lamp 5v", 5, 7)
    assert allow.allows("Lamp by Acme & Söhne", 8, 12)
    assert not allow.allows("Lamp 6v", 5, 7)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("column", ["id", "item_id"])
def test_a_table_names_rows_by_numbers(tmp_path, name, column):
    WRITERS[name](pl.DataFrame({column: [7, 12]}), tmp_path / name)
    allow = read_allow_list(tmp_path / name)
    assert allow.names_ids
    assert allow.allows("Lamp 5v", 5, 7, "12")
    assert not allow.allows("Lamp 5v", 5, 7, "8")
    assert not allow.allows("Lamp 5v", 5, 7)


def test_a_text_beside_an_id_is_allowed_in_its_rows_alone(tmp_path):
    frame = pl.DataFrame({"id": [7, None, 9], "title": ["Lamp 5v", "Desk 5v", None]})
    frame.write_parquet(tmp_path / "allow.pq")
    allow = read_allow_list(tmp_path / "allow.pq")
    assert len(allow) == 3
    assert allow.allows("Lamp 5v", 5, 7, "7")
    assert not allow.allows("Lamp 6v", 5, 7, "7")  # the seller has changed it
    assert not allow.allows("Lamp 5v", 5, 7, "8")
    assert allow.allows("Desk 5v", 5, 7, "8")
    assert allow.allows("anything", 0, 3, "9")


def test_lists_that_allow_different_things_have_different_keys():
    lists = [
        AllowList(),
        AllowList(["a"]),
        AllowList(["a", "b"]),
        AllowList([], [("a", "b")]),
        AllowList([], [("a", "")]),
    ]
    lists += [AllowList(["c"], [("a", "b")]), AllowList([], [("a", "b"), ("a", "c")]), AllowList([], [("b", "a")])]
    assert len({each.key for each in lists}) == len(lists)
    assert AllowList(["a"]).key == AllowList([" a", "a "]).key


def test_rows_that_are_allowed_by_their_ids(tmp_path, jsonl, finds):
    catalog = jsonl(*({"id": nth, "title": title} for nth, title in enumerate(["a xq", "a xq", "b xq", "c"])))
    (tmp_path / "allow.csv").write_text("id,fragment\n1,xq\n2,other\n3,c\n")
    out = tmp_path / "out.csv"
    found = scan_catalog(catalog, out, finds(), form=ScanForm(allow=read_allow_list(tmp_path / "allow.csv")))
    rows = list(csv.DictReader(out.open(newline="")))
    assert [row["tier"] for row in rows] == ["flagged", "allowed", "flagged", ""]
    assert [row["clean_title"] for row in rows] == ["a", "a xq", "b", "c"]
    assert (found.flagged, found.allowed) == (2, 1)


def test_ids_are_of_no_use_where_the_catalogue_has_none(tmp_path, finds):
    catalog = tmp_path / "catalog.csv"
    catalog.write_text("number,title\n1,a xq\n")
    with pytest.raises(UserError, match=r"has no column of ids.*--id-column"):
        scan_catalog(catalog, tmp_path / "out.csv", finds(), form=ScanForm(allow=AllowList([], [("1", "")])))
    found = scan_catalog(
        catalog, tmp_path / "out.csv", finds(), form=ScanForm(id_column="number", allow=AllowList([], [("1", "")]))
    )
    assert (found.flagged, found.allowed) == (0, 1)


ENTRIES = AllowList(
    ["xq", "Acmee", "Desk\N{REPLACEMENT CHARACTER}Lamp", "  ", "A whole title"],
    [("1", "xq"), ("2", "gone"), ("9", ""), ("0", "")],
)
TITLES = ["a xq", "b xq", "Desk\x01Lamp xq", " A whole title "]


def take_notes(found):
    return [note for note in found.notes if "--allow" in note]


@pytest.mark.parametrize("at_once", [1, 1 << 18])
def test_entries_that_match_nothing_are_told(tmp_path, jsonl, finds, monkeypatch, at_once):
    monkeypatch.setattr(unmatched_entries, "CHARACTERS_AT_ONCE", at_once)
    catalog = jsonl(*({"id": nth, "title": title} for nth, title in enumerate(TITLES)))
    found = scan_catalog(catalog, tmp_path / "out.csv", finds(), form=ScanForm(allow=ENTRIES))
    said = "Of the entries of --allow, 3 match nothing in the catalogue: 'Acmee', id '2' with 'gone', id '9'."
    assert take_notes(found) == [f"{said} Are they spelled as there?"]
    assert not take_notes(scan_catalog(catalog, tmp_path / "out.csv", finds(), form=ScanForm(allow=AllowList(["xq"]))))


def test_workers_tell_the_same_entries(tmp_path, jsonl, finds):
    catalog = jsonl(*({"id": nth, "title": title} for nth, title in enumerate(TITLES * 3)))
    form = ScanForm(allow=ENTRIES, chunk=2)
    sent = scan_in_parts(catalog, tmp_path / "sent", finds(), form=form)
    (tmp_path / "files").mkdir()
    for nth in range(3):
        shutil.copy(catalog, tmp_path / "files" / f"{nth}.jsonl")
    read = scan_in_parts(tmp_path / "files", tmp_path / "read", finds(), form=form, file_rows=[12] * 3)
    assert len(take_notes(sent)) == 1 and "id '2' with 'gone'" in take_notes(sent)[0]
    assert take_notes(read) == take_notes(sent)


def test_few_of_many_entries_that_match_nothing_are_named(tmp_path, jsonl, finds, monkeypatch):
    catalog = jsonl({"title": "a xq"})
    for many, said in ((1, "Of the entries of --allow, 1 matches nothing"), (5000, "Of the first 1,000 entries of")):
        allow = AllowList("x" * (60 + nth) for nth in range(many))
        (note,) = take_notes(scan_catalog(catalog, tmp_path / f"{many}.csv", finds(), form=ScanForm(allow=allow)))
        assert note.startswith(said) and len(note) < 300
        assert note.count("…") == min(many, 3) + (many > 3)


def test_a_scan_that_goes_on_tells_entries_of_all_rows(tmp_path, jsonl, finds):
    catalog = jsonl({"title": "Acme xq"}, *({"title": f"b {nth}"} for nth in range(40)))
    form = ScanForm(allow=AllowList(["Acme", "Bolt"]), chunk=10)

    def stop(done, total, remark):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_catalog(catalog, tmp_path / "out.csv", finds(), form=form, report=stop)
    found = scan_catalog(catalog, tmp_path / "out.csv", finds(), form=form)
    assert found.resumed == 10
    assert [note.count("'Acme'") + 2 * note.count("'Bolt'") for note in take_notes(found)] == [2]


BAD_TABLES = {
    "other.csv": b"name,price\na,1\n",
    "empty.csv": b"fragment\n",
    "blank.csv": b"id,title\n,\n",
    "bytes.csv": b"fragment\n\xff\xfe\n",
    "quote.csv": b'fragment\n"never closed\n',
    "wide.csv": b"id,title\n1,a,b\n",
    "twice.csv": b"title,title\na,b\n",
    "number.jsonl": b'{"fragment": 5}\n',
    "list.jsonl": b"[1]\n",
    "damaged.parquet": b"PAR1 no PAR1",
    "damaged.csv.gz": b"no gzip",
    "binary.tsv": b"\0\1\2" * 100,
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_table_that_cannot_be_used_is_told_in_words(tmp_path, name):
    (tmp_path / name).write_bytes(BAD_TABLES[name])
    with pytest.raises(UserError) as found:
        read_allow_list(tmp_path / name)
    assert found.value.hint
    assert "Errno" not in str(found.value)


def test_a_parquet_table_of_numbers_names_no_texts(tmp_path):
    pl.DataFrame({"fragment": [5]}).write_parquet(tmp_path / "allow.parquet")
    with pytest.raises(UserError, match="should hold text"):
        read_allow_list(tmp_path / "allow.parquet")
    pl.DataFrame({"id": [[5]]}).write_parquet(tmp_path / "allow.parquet")
    with pytest.raises(UserError, match="should hold ids"):
        read_allow_list(tmp_path / "allow.parquet")


def test_a_table_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    (tmp_path / "allow.csv.gz").write_bytes(gzip.compress(b"fragment\n" + b"abcdefgh\n" * 300))
    monkeypatch.setattr(allow_list, "MAX_ALLOW_FILE_BYTES", 2000)
    with pytest.raises(UserError, match="more than"):
        read_allow_list(tmp_path / "allow.csv.gz")
    monkeypatch.setattr(allow_list, "MAX_ALLOW_FILE_BYTES", 1 << 20)
    monkeypatch.setattr(allow_list, "MAX_ALLOWED_ROWS", 299)
    with pytest.raises(UserError, match="more than 299 rows"):
        read_allow_list(tmp_path / "allow.csv.gz")


@pytest.mark.parametrize("name", ["allow.txt", "allow.csv", "allow.parquet"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, name, kind):
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(UserError, match="can't be read") as found:
        read_allow_list(path)
    assert "--allow" in found.value.hint


def test_many_texts_take_no_longer_than_few():
    allow = AllowList(f"brand {nth}" for nth in range(200_000))
    began = time.process_time()
    assert allow.allows("A lamp by brand 199999, new", 16, 22)
    assert not any(allow.allows(f"A lamp by brnad {nth}, new", 16, 22) for nth in range(1000))
    assert time.process_time() - began < 2


def test_json_tables_may_lack_a_value(tmp_path):
    rows = [{"id": "x"}, {"fragment": "5v"}, {"id": "y", "fragment": "6v"}]
    (tmp_path / "allow.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    allow = read_allow_list(tmp_path / "allow.jsonl")
    assert allow.allows("any", 0, 2, "x")
    assert allow.allows("a 5v", 2, 4, "z")
    assert not allow.allows("a 6v", 2, 4, "x 2")


def test_the_table_in_the_docs_does_what_they_say(tmp_path):
    page = (Path(__file__).parents[2] / "docs/for/trust_engineer.md").read_text(encoding="utf-8")
    (block,) = [part.partition("```")[0] for part in page.split("```text\n") if part.startswith("id,fragment")]
    (tmp_path / "allow.csv").write_text(block, encoding="utf-8")
    allow = read_allow_list(tmp_path / "allow.csv")
    assert allow.texts == ("Acme & Söhne",)
    assert allow.allows("Lamp 5v", 5, 7, "8812")
    assert not allow.allows("Lamp 5v", 5, 7, "8813")
    assert allow.allows("Any title", 0, 3, "9107")
