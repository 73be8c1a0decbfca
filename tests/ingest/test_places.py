"""Folders, partitions, databases and standard input: read as one table, whole, in a known order."""

import gzip
import io
import json
import sqlite3
import sys

import polars as pl
import pytest

from cowbird.data.sources.tabular import Tabular
from cowbird.errors import UserError
from cowbird.ingest import places
from cowbird.ingest.open import open_rows
from cowbird.ingest.options import ReadOptions, use_options
from cowbird.scanning.reading import open_catalog
from doubles.command import call_command


def read(path, column="title", id_column=None):
    return [(row.number, row.id, row.title, row.problem) for row in open_catalog(path, column, id_column).read_rows()]


@pytest.fixture
def hive(tmp_path):
    """Return a folder with a part for each of three countries, one of them without a name."""
    folder = tmp_path / "items"
    for country, ids in (("DE", [1, 2]), ("c%C3%B4te", [3]), ("__HIVE_DEFAULT_PARTITION__", [4])):
        part = folder / f"country={country}"
        part.mkdir(parents=True)
        pl.DataFrame({"id": ids, "title": [f"t{nth}" for nth in ids]}).write_parquet(part / "part-0.parquet")
    (folder / "_SUCCESS").touch()
    (folder / ".hidden.csv").write_text("x")
    return folder


def test_all_parts_are_read_and_partitions_are_columns(hive):
    assert open_rows(hive).names == ["id", "title", "country"]
    assert open_catalog(hive).count_rows() == 4
    assert read(hive) == [(1, "1", "t1", ""), (2, "2", "t2", ""), (3, "4", "t4", ""), (4, "3", "t3", "")]
    assert [row[1] for row in read(hive, id_column="country")] == ["DE", "DE", None, "côte"]
    assert "3 files and column country from the names of folders" in open_catalog(hive).describe()


@pytest.mark.parametrize("target", ["nowhere.csv", "items.csv"], ids=["dangling", "itself"])
def test_a_link_that_leads_nowhere_is_not_said_to_be_meant(tmp_path, target):
    (tmp_path / "items.csv").symlink_to(target)
    with pytest.raises(UserError, match="a link that leads to none") as told:
        open_catalog(tmp_path / "items.csv")
    assert "Did you mean" not in str(told.value)


def test_a_folder_of_one_file_speaks_of_one(tmp_path):
    (tmp_path / "a.csv").write_text("id,title\n1,Red\n")
    said = open_catalog(tmp_path).describe()
    assert "1 file, read as UTF-8" in said
    (tmp_path / "b.csv").write_text("id,title\n2,Blue\n")
    assert "2 files, the first read as UTF-8" in open_catalog(tmp_path).describe()


def test_parts_of_csv_are_numbered_on(tmp_path):
    folder = tmp_path / "items"
    folder.mkdir()
    (folder / "b.csv").write_text("title,id\nRed,1\nbroken\n")
    (folder / "a.csv.gz").write_bytes(gzip.compress("id;title\n2;Blü\n".encode("cp1252")))
    assert read(folder) == [
        (1, "2", "Blü", ""),
        (2, "1", "Red", ""),
        (3, None, "", "wrong number of columns (expected 2)"),
    ]
    (folder / "c.csv").write_text("id,name\n1,Green\n")
    with pytest.raises(UserError, match=r"items/c\.csv should have a column 'title'"):
        read(folder)


def test_folders_that_are_no_table(tmp_path):
    folder = tmp_path / "items"
    folder.mkdir()
    with pytest.raises(UserError, match="holds none"):
        read(folder)
    (folder / "a.csv").write_text("title\nRed\n")
    (folder / "b.jsonl").write_text('{"title": "Red"}\n')
    with pytest.raises(UserError, match=r"files of one kind, and b\.jsonl is not"):
        read(folder)
    (folder / "b.jsonl").rename(folder / "b.exe")
    with pytest.raises(UserError, match=r"b\.exe is not of a known kind"):
        read(folder)
    (folder / "b.exe").unlink()
    (folder / "x=1").mkdir()
    (folder / "x=1" / "c.csv").write_text("title\nRed\n")
    with pytest.raises(UserError, match="name different columns"):
        read(folder)


def test_a_folder_as_a_log(tmp_path):
    folder = tmp_path / "log"
    for day, rows in (("2024-05-01", [("1", "b", 2)]), ("2024-05-02", [("1", "a", 1), ("2", "a", 5)])):
        (folder / f"day={day}").mkdir(parents=True)
        text = "user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows) + "3\n"
        (folder / f"day={day}" / "part.csv").write_text(text)
    data = Tabular(path=folder).load()
    assert data.users.ids == ("1", "2")
    assert [data.items.ids[item] for item in data.interactions.item] == ["a", "b", "a"]
    assert [str(skip) for skip in data.skips] == ["part.csv: 2 × wrong number of columns (expected 3) (line 3, 4)"]
    data = Tabular(path=folder, time_column="day").load()
    assert [data.items.ids[item] for item in data.interactions.item] == ["b", "a", "a"]


@pytest.fixture
def base(tmp_path):
    """Return a database with a catalogue."""
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as made:
        made.execute('CREATE TABLE "my ""items" (sku, title TEXT, user_id, item_id, timestamp REAL)')
        rows = [(7.0, "Red", 1, "a", 2.5), (2**62, None, 1, "b", 1.0), ("x", "Bl\0ue", None, "a", 3.0)]
        made.executemany('INSERT INTO "my ""items" VALUES (?, ?, ?, ?, ?)', rows)
    made.close()
    return path


def test_a_database(base):
    before = base.read_bytes()
    assert read(base, id_column="sku") == [(1, "7", "Red", ""), (2, str(2**62), "", ""), (3, "x", "Bl\0ue", "")]
    assert open_catalog(base).count_rows() == 3
    data = Tabular(path=base).load()
    assert [data.items.ids[item] for item in data.interactions.item] == ["b", "a"]
    assert base.read_bytes() == before
    assert sorted(path.name for path in base.parent.iterdir()) == ["shop.db"]


def test_databases_that_can_t_be_read(base, tmp_path):
    with sqlite3.connect(base) as made:
        made.execute("CREATE TABLE other (title)")
        made.execute("INSERT INTO other VALUES (x'ff'), ('Red')")
    made.close()
    with pytest.raises(UserError, match="one table, and its tables are 'my \"items', 'other'"):
        read(base)
    with use_options(ReadOptions(table="other")):
        assert [row[2:] for row in read(base)] == [("", "is not valid UTF-8"), ("Red", "")]
    with use_options(ReadOptions(table="no; such")), pytest.raises(UserError, match="a table 'no; such'"):
        read(base)
    (tmp_path / "b.db").write_bytes(b"SQLite format 3\0" + b"junk" * 500)
    with pytest.raises(UserError, match="should be a SQLite database"):
        read(tmp_path / "b.db")


@pytest.fixture
def typed(monkeypatch):
    """Give bytes on standard input."""

    def put(data):
        places._copy_input.cache_clear()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    yield put
    places._copy_input.cache_clear()


def parquet(**columns):
    out = io.BytesIO()
    pl.DataFrame(columns).write_parquet(out)
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"id,title\n1,Red\n",
        gzip.compress(b"id\ttitle\n1\tRed\n", mtime=0),
        json.dumps([{"id": 1, "title": "Red"}]).encode(),
        b'\xef\xbb\xbf{"id": 1, "title": "Red"}\n',
        parquet(id=[1], title=["Red"]),
    ],
    ids=["csv", "gzip", "json", "jsonl", "parquet"],
)
def test_standard_input(typed, monkeypatch, capsys, tmp_path, data):
    typed(data)
    code, out, err = call_command(monkeypatch, capsys, "peek", "-", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["rows"] == [["1", "Red"]]
    words = ("--out", tmp_path / "found.csv", "--detector", "character_rules", "--device", "cpu", "--quiet")
    assert call_command(monkeypatch, capsys, "scan", "-", *words)[0] == 0
    assert "Red" in (tmp_path / "found.csv").read_text()


def test_nothing_on_standard_input(typed, monkeypatch, capsys):
    typed(b"")
    code, _, err = call_command(monkeypatch, capsys, "peek", "-")
    assert code == 2
    assert "Standard input should hold a file" in " ".join(err.split())


def test_findings_of_a_folder_lie_elsewhere(hive, monkeypatch, capsys, tmp_path):
    words = ("scan", hive, "--detector", "character_rules", "--device", "cpu", "--out")
    code, _, err = call_command(monkeypatch, capsys, *words, hive / "found.csv")
    assert code == 2
    assert "lies in the folder that the catalogue reads" in " ".join(err.split())
    assert call_command(monkeypatch, capsys, *words, tmp_path / "found.csv")[0] == 0
    assert (tmp_path / "found.csv").read_text().count("\n") == 5


def test_a_folder_that_changed_is_another_catalogue(hive):
    before = places.fingerprint(hive)
    assert places.fingerprint(hive) == before
    (hive / "country=DE" / "part-0.parquet").rename(hive / "country=DE" / "part-1.parquet")
    assert places.fingerprint(hive) != before
