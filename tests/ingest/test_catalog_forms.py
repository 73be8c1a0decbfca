"""Catalogues in forms that people really have: each is read as a person expects, and how is told in one line.

The files are made here, after public reports about other tools. `FORMS` is the list that docs/how-to/files.md tells.
"""

import bz2
import decimal
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cowbird.errors import UserError
from cowbird.ingest.options import ReadOptions, use_options
from cowbird.notices import collect_notices
from cowbird.scanning.reading import open_catalog

ROWS = [("SKU-1", "Cordless Drill 18V"), ("SKU-2", "Wireless Mouse, black"), ("SKU-3", "Water Filter (4-Pack)")]
CSV = "id,title,price\n" + "".join(f'{id_},"{title}",1.50\n' for id_, title in ROWS)
SEMICOLON = "id;title;price\r\n" + "".join(f"{id_};{title};1,50\r\n" for id_, title in ROWS)
UMLAUTS = [(id_, f"Fön {title} für Küche") for id_, title in ROWS]
ARRAY = json.dumps([{"id": id_, "title": title, "tags": ["a]", '"']} for id_, title in ROWS], indent=1)


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(columns):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


LATE = [{"title": f"Garden Hose {nth}"} for nth in range(1001)] + [{"title": "Red", "id": "late-1"}]
LISTS = {"id": [1, 2, 3], "title": [["a drill"], [], None]}
FORMS = {
    # name: (file, bytes, text_column, options, rows wanted, what is told)
    "an empty last cell in each row": (
        "s01.csv", CSV.replace("1.50\n", "1.50,\n").encode(), "title", {}, ROWS, "an empty last cell is ignored"),
    "sep=; in the first line": (
        "s03.csv", b"sep=;\r\n" + SEMICOLON.encode(), "title", {}, ROWS, "';'-separated, header in line 2"),
    "UTF-16 with a mark and tabs": (
        "s04.csv", SEMICOLON.replace(";", "\t").encode("utf-16"), "title", {}, ROWS, "UTF-16, tab-separated"),
    "cp1252 with semicolons": (
        "s05.csv", SEMICOLON.replace(";C", ";Fön C").replace(";W", ";Fön W").replace(";1,50", " für Küche;1,50")
        .encode("cp1252"), "title", {}, UMLAUTS, "read as cp1252, ';'-separated"),
    "ids that first appear in row 1,002": (
        "s06.jsonl", lines(LATE), "title", {}, [*[(None, row["title"]) for row in LATE[:-1]], ("late-1", "Red")],
        "id = id or alike where a row has it"),
    "a title inside of an object": (
        "s07.jsonl", lines({"id": id_, "product": {"title": title}} for id_, title in ROWS), "product.title", {}, ROWS,
        "title = 'product.title'"),
    "a JSON array": ("s08.json", ARRAY.encode(), "title", {}, ROWS, "read as a JSON array in UTF-8"),
    "a JSON array inside of an object": (
        "s08b.json", f'{{"n": [1], "data": {{"x": "]", "items": {ARRAY}}}}}'.encode(), "title",
        {"json_path": "data.items"}, ROWS, "a JSON array at 'data.items'"),
    ".zst": ("s09.csv.zst", zstd(CSV.encode()), "title", {}, ROWS, "read as UTF-8"),
    ".GZ": ("s09b.csv.GZ", gzip.compress(CSV.encode()), "title", {}, ROWS, "read as UTF-8"),
    ".bz2": ("s09c.csv.bz2", bz2.compress(CSV.encode()), "title", {}, ROWS, "read as UTF-8"),
    ".xz": ("s09d.JSON.xz", lzma.compress(ARRAY.encode()), "title", {}, ROWS, "JSON array"),
    "a backslash before quotes": (
        "s10.csv", b'id,title,price\n1,"TV 50\\" OLED",10\n2,"He said \\"hi\\", twice",11\n3,Plain,12\n', "title", {},
        [("1", 'TV 50" OLED'), ("2", 'He said "hi", twice'), ("3", "Plain")], "a backslash stands before quotes"),
    "NULL, \\N, nan and None for titles": (
        "s11.csv", b"id,title\n0,Drill\n1,NULL\n2,\\N\n3,nan\n4,None\n5,NULL\n", "title", {},
        [("0", "Drill"), *[(str(nth), "") for nth in range(1, 6)]], "that are 'NULL' are taken for missing: 2"),
    "types in the names of columns": (
        "s14.item", b'item_id:token\ttitle:token_seq\n0\tThe "Drill"\n1\t"Mouse\n', "title", {},
        [("0", 'The "Drill"'), ("1", '"Mouse')], "id = 'item_id'"),
    "names with spaces and capitals": (
        "s15.csv", b"\xef\xbb\xbf" + CSV.replace("id,title,", "SKU, Title ,").encode(), "title", {}, ROWS,
        "title = 'Title', id = 'SKU'"),
    "a space before quotes": (
        "s17.csv", b'id, title, price\n1, "Mouse, black", 10\n2, "Shoes, blue", 11\n', "title", {},
        [("1", "Mouse, black"), ("2", "Shoes, blue")], "spaces around quotes are ignored"),
    "a header in the middle": (
        "s19.csv", (CSV + CSV).encode(), "title", {}, ROWS + ROWS,
        "Rows of s19.csv that repeat its header are left out: 1."),
    "lines that end with CR": ("s02.csv", CSV.replace("\n", "\r").encode(), "title", {}, ROWS, "lines end with CR"),
    "lines that end with LF, CRLF and CR by turns": (
        "s02.csv", CSV.replace("\n", "\r", 2).encode(), "title", {}, ROWS, "lines end with CR",
    ),
    "quotes that are letters, between tabs": (
        "s12.tsv", b'id\ttitle\n1\t5" nail\n2\t"Deluxe" nail\n3\tPlain\n', "title", {},
        [("1", '5" nail'), ("2", '"Deluxe" nail'), ("3", "Plain")], "quotes are ordinary letters"),
    "no header": (
        "s13.csv", b"SKU-1,Drill\nSKU-2,Mouse\n", "column_2", {"header_row": 0},
        [(None, "Drill"), (None, "Mouse")], "without a header"),
    "lines before the header": (
        "s16.csv", b"Export of May\n\nid;title\n1;Drill\n2;Mouse\n", "title", {}, [("1", "Drill"), ("2", "Mouse")],
        "header in line 3"),
    "a usual name of the title": (
        "s18.csv", b"sku,name\n1,Drill\n", "title", {}, [("1", "Drill")], "title = 'name', id = 'sku'"),
    "the first of a list of titles": (
        "p01.parquet", parquet(LISTS), "title[0]", {}, [("1", "a drill"), ("2", ""), ("3", "")], "title = 'title[0]'"),
    "a title inside of a struct": (
        "p02.parquet", parquet({"id": [1], "product": [{"names": ["x", "Drill"]}]}), "product.names[1]", {},
        [("1", "Drill")], "product.names[1]"),
    "decimals as ids": (
        "p03.parquet", parquet({"id": [decimal.Decimal("7.10"), None], "title": ["a", "b"]}), "title", {},
        [("7.10", "a"), (None, "b")], "read as Parquet"),
    "uint64 as ids, titles in a dictionary": (
        "p04.parquet", parquet({"id": pa.array([2**63, 2**64 - 1], pa.uint64()),
                                "title": pa.array(["a", "a"]).dictionary_encode()}), "title", {},
        [(str(2**63), "a"), (str(2**64 - 1), "a")], "read as Parquet"),
    "dates as ids, a dot in a name": (
        "p07.parquet", parquet({"id": pa.array([19723], pa.date32()), "item.title": ["a drill"]}), "item.title", {},
        [("2024-01-01", "a drill")], "title = 'item.title'"),
}  # fmt: skip


def read(path, column="title", options=None):
    """Return ids and titles of rows that can be read, reasons of those that can't, and what is told."""
    with use_options(ReadOptions(**options or {})), collect_notices() as told:
        rows = list(open_catalog(path, column).read_rows())
    good = [(row.id, row.title) for row in rows if not row.problem]
    return good, [row.problem for row in rows if row.problem], " ".join(map(str, told.list()))


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_read_and_told(tmp_path, name):
    file, data, column, options, wanted, said = FORMS[name]
    (tmp_path / file).write_bytes(data)
    rows, problems, told = read(tmp_path / file, column, options)
    assert rows == wanted
    assert not problems
    assert said in told


@pytest.mark.parametrize(
    ("file", "data", "options", "said"),
    [
        ("p01.parquet", parquet(LISTS), {}, "--text-column 'title[0]'"),
        ("a.json", f'{{"items": {ARRAY}}}'.replace("[", "\n[").encode(), {}, "--json-path"),
        ("a.json", b'{"items": 3}', {"json_path": "items"}, "there is none at 'items'"),
        ("a.json", b'{"rows": [1], "x": {}}', {"json_path": "items"}, "the keys there are 'rows', 'x'"),
        ("a.json", b'[{"title": "a"}, {"titl', {}, "damaged"),
        ("a.csv", "id,title\n1,Дрель\n2,Мышь\n".encode("cp1251"), {}, "--encoding cp1251"),
        ("a.csv", CSV.encode(), {"json_path": "items"}, "--json-path says nothing"),
        ("a.json", ARRAY.encode(), {"separator": ";"}, "--separator says nothing"),
        ("a.parquet", parquet(LISTS), {"encoding": "cp1252"}, "--encoding says nothing"),
        ("a.csv", CSV.encode(), {"header_row": 99}, "--header-row names line 99"),
        ("a.csv", b"1,Drill\n2,Mouse\n", {}, "--header-row 0"),
        ("a.csv.zst", zstd(CSV.encode())[:-20], {}, "can't be read"),
        ("a.csv.xz", lzma.compress(CSV.encode())[:-20], {}, "can't be read"),
        ("a.csv.bz2", b"id,title\n", {}, "can't be read"),
    ],
)
def test_what_can_t_be_told_names_the_option_that_mends_it(tmp_path, file, data, options, said):
    (tmp_path / file).write_bytes(data)
    with pytest.raises(UserError) as error:
        read(tmp_path / file, options=options)
    assert said in str(error.value)
    assert error.value.hint


@pytest.mark.parametrize(
    "options",
    [
        {"encoding": "no-such"},
        {"encoding": "undefined"},
        {"separator": ";;"},
        {"separator": "§"},
        {"quote": "quote"},
        {"quote": ";", "separator": ";"},
        {"header_row": -1},
    ],
)
def test_options_that_can_t_be_meant(options):
    with pytest.raises(UserError) as error:
        ReadOptions(**options)
    assert error.value.hint


def test_named_options_go_before_what_is_sniffed(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("x\nid|title\n1|'Дрель|2'\n".encode("cp1251"))
    options = {"encoding": "cp1251", "separator": "|", "quote": "'", "header_row": 2, "null": ("Дрель|3",)}
    assert read(path, options=options)[0] == [("1", "Дрель|2")]
    options["null"] = ("Дрель|2", "x")
    assert read(path, options=options)[0] == [("1", "")]


def test_titles_that_are_taken_for_missing_are_counted(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,title\n1,NULL\n2,Red\n3,NA\n4,NA\n")
    told = read(path, options={"null": ("NULL", "NA")})[2]
    assert "Titles of a.csv that are 'NULL' are taken for missing: 1" in told
    assert "Titles of a.csv that are 'NA' are taken for missing: 2" in told


def test_a_damaged_title_changes_nothing_about_the_others(tmp_path):
    """A seller who writes a byte that is no UTF-8 must not make the catalogue cp1252."""
    good = [f"{nth},Fön {nth} für Küche".encode() for nth in range(20)]
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,title\n" + b"\n".join([*good, b"20,Caf\xe9"]))
    rows, problems, told = read(path)
    assert rows == [(str(nth), f"Fön {nth} für Küche") for nth in range(20)]
    assert problems == ["is not valid UTF-8"]
    assert "read as UTF-8" in told


def test_a_title_changes_nothing_about_how_cells_are_wrapped(tmp_path):
    """A well-formed file has a form in which all rows are read, whatever its titles hold."""
    path = tmp_path / "a.csv"
    titles = ['a \\" b', '\\"', ' "x', "sep=;", 'x" ,"', "id,title"]
    path.write_text(
        "id,title\n" + "".join('{},"{}"\n'.format(nth, t.replace('"', '""')) for nth, t in enumerate(titles))
    )
    rows, problems, told = read(path)
    assert [title for _, title in rows] == titles
    assert not problems
    assert "backslash" not in told


def test_bytes_that_an_encoding_lacks_cost_their_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,title\n1,Caf\xe9\n2,a\x81b\n3,na\xefve\n4,c\x93d\n")
    rows, problems, _ = read(path, options={"encoding": "cp1252"})
    assert rows == [("1", "Café"), ("3", "naïve"), ("4", "c“d")]
    assert problems == ["is not valid cp1252"]
    half = b"\x00\xd8"  # the first of two code units that make a character
    path.write_bytes(b"\xff\xfe" + "id,title\n1,a\n2,b".encode("utf-16-le") + half + "\n3,c\n".encode("utf-16-le"))
    rows, problems, _ = read(path)
    assert rows == [("1", "a"), ("3", "c")]
    assert problems == ["is not valid UTF-16"]


def test_values_of_an_array_that_are_no_objects_cost_their_row(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"title": "a"}, 3, "x", [1], {"title": "b\\u0041"}, {"title": 1e5}]')
    rows, problems, _ = read(path)
    assert [title for _, title in rows] == ["a", "bA"]
    assert problems == ["is not a JSON object"] * 3 + ["title is not text"]


def test_a_value_of_an_array_that_is_too_long_is_lost_alone(tmp_path, monkeypatch):
    from cowbird.ingest import records

    monkeypatch.setattr(records, "MAX_ROW_BYTES", 1 << 17)
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"title": "a"}, {"title": "x" * (1 << 18)}, {"title": "b"}]))
    rows, problems, _ = read(path)
    assert [title for _, title in rows] == ["a", "b"]
    assert len(problems) == 1
