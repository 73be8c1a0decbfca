"""The rows of a catalogue: what is read, what can't be, and under which number."""

import csv
import gzip
import io
import json
import subprocess
import sys

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cowbird.errors import UserError
from cowbird.ingest import records
from cowbird.ingest.blobs import from_file
from cowbird.ingest.delimited import TextTable
from cowbird.ingest.options import ReadOptions
from cowbird.ingest.records import MAX_RECORD_LINES, TOO_LONG_REASON, DelimitedRecords, read_lines
from cowbird.ingest.skips import Skips
from cowbird.ingest.sniffing import sniff_layout
from cowbird.scanning.reading import open_catalog

COLUMNS = "wrong number of columns (expected 2)"


def read(path, data=None, **options):
    if data is not None:
        path.write_bytes(data)
    return [tuple(row) for row in open_catalog(path, **options).read_rows()]


def good(rows):
    return [(number, id_, title) for number, id_, title, problem in rows if not problem]


def bad(rows):
    return {number: problem for number, _, _, problem in rows if problem}


def refused(path, data=None, **options):
    with pytest.raises(UserError) as error:
        read(path, data, **options)
    assert error.value.hint
    return str(error.value)


def test_csv_rows_are_numbered_from_the_first_below_the_header(tmp_path):
    data = b'\xef\xbb\xbf\r\nid,title\r\n7,Red\r\n\r\n"8","two\r\nlines, ""quoted"""\r\n,Blue\r\n9,\n10,last'
    assert good(read(tmp_path / "a.csv", data)) == [
        (1, "7", "Red"),
        (2, "8", 'two\r\nlines, "quoted"'),
        (3, None, "Blue"),
        (4, "9", ""),
        (5, "10", "last"),
    ]


def test_csv_rows_that_cannot_be_read_keep_their_numbers_and_stop_nothing(tmp_path):
    rows = [b"id,title", b'"1",i"j', b"2", b"3,c,d", b'"4"x,d', b"5,\xff", b'6,"open', b"7,g", b"\xff,h"]
    found = read(tmp_path / "a.csv", b"\n".join(rows) + b"\n")
    assert good(found) == [(1, "1", 'i"j'), (7, "7", "g"), (8, "\ufffd", "h")]
    assert bad(found) == {
        2: COLUMNS,
        3: COLUMNS,
        4: "quotes are malformed",
        5: "is not valid UTF-8",
        6: "a quote is not closed within 100 lines",
    }


def test_odd_bytes_elsewhere_are_no_reason_to_leave_a_title_unread(tmp_path):
    assert good(read(tmp_path / "a.csv", b"title,x\nRed\0xq,\xff\n")) == [(1, None, "Red\0xq")]


def test_an_open_quote_swallows_no_catalogue(tmp_path):
    rows = [b'"open', *(b"x%d" % nth for nth in range(MAX_RECORD_LINES))]
    data = b"title\n" + b"\n".join([*rows, b'end"'])
    found = read(tmp_path / "a.csv", data)
    assert bad(found) == {1: "a quote is not closed within 100 lines"}
    assert len(good(found)) == MAX_RECORD_LINES + 1
    whole = b"title\n" + b"\n".join([*rows[: MAX_RECORD_LINES - 1], b'end"', b"next"])
    first, second = good(read(tmp_path / "a.csv", whole))
    assert first[2].startswith("open\nx0\n")
    assert second == (2, None, "next")


@pytest.mark.parametrize("quote", [b"", b'"'])
def test_a_line_that_is_too_long_is_lost_alone(tmp_path, monkeypatch, quote):
    monkeypatch.setattr(records, "MAX_ROW_BYTES", 50)
    long = quote + b"x" * 200 + quote
    found = read(tmp_path / "a.csv", b"id,title\n1,a\n2," + long + b'\n3,c\n4,"open\n' + long + b"\n5,e\n")
    assert good(found) == [(1, "1", "a"), (3, "3", "c"), (6, "5", "e")]
    assert bad(found) == {2: TOO_LONG_REASON, 4: "a quote is not closed within 100 lines", 5: TOO_LONG_REASON}


def test_a_quote_is_followed_no_further_than_the_longest_row(monkeypatch):
    monkeypatch.setattr(records, "MAX_ROW_BYTES", 12)
    assert list(DelimitedRecords(iter([b'"12345', b"67890", b'1"']), b",")) == [
        "a quote is not closed within 100 lines",
        [b"67890"],
        [b'1"'],
    ]
    monkeypatch.setattr(records, "MAX_ROW_BYTES", 13)
    assert list(DelimitedRecords(iter([b'"12345', b"67890", b'1"']), b",")) == [[b"12345\n67890\n1"]]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=6), st.sampled_from(["\n", "\r\n"]))
def test_what_is_written_as_csv_is_read_back(rows, ending):
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=ending).writerows(rows)
    found = DelimitedRecords(read_lines(io.BytesIO(text.getvalue().encode())), b",")
    assert [tuple(field.decode() for field in record) for record in found] == rows


@pytest.mark.slow
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.text('a",\n', max_size=24))
def test_the_same_rows_as_the_sources_read(tmp_path, body):
    assume('""' not in body.split("\n"))  # the sources pass over such a line; here it is a row with too few columns
    path = tmp_path / "a.csv"
    path.write_text(f"id,title\n{body}")
    skips = Skips()
    frames = TextTable(from_file(path), sniff_layout(from_file(path), ReadOptions()), skips).read_frames(
        ["id", "title"]
    )
    theirs = [(id_, title or "") for frame in frames for id_, title in frame.select("id", "title").rows()]
    ours = read(path)
    assert [(id_, title) for _, id_, title in good(ours)] == theirs
    assert len(bad(ours)) == sum(skip.count for skip in skips.list())


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.tsv", b"id\ttitle\n1\ta,b\n"),
        ("a.csv", b"id;title\n1;a,b\n"),
        ("a.TXT", b"id|title\n1|a,b\n"),
        ("a.csv.gz", gzip.compress(b'id,title\n1,"a,b"\n', mtime=0)),
        ("a.ndjson.gz", gzip.compress(b'{"id": 1, "title": "a,b"}', mtime=0)),
    ],
)
def test_kinds_of_text_files(tmp_path, name, data):
    assert good(read(tmp_path / name, data)) == [(1, "1", "a,b")]


def test_jsonl_rows(jsonl):
    found = read(
        jsonl(
            b'\xef\xbb\xbf{"title": "a", "id": "x"}',
            b"",
            {"id": 12345678901234567890, "title": None},
            {"id": None},
            {"id": 1.0, "title": "half \ud800 \0 \u202e"},
            {"id": [1], "title": "e"},
            b'{"id": ' + b"9" * 5000 + b', "title": "f"}\r',
        )
    )
    assert good(found) == [
        (1, "x", "a"),
        (2, "12345678901234567890", ""),
        (3, None, ""),
        (4, "1.0", "half \ud800 \0 \u202e"),
        (5, '["1"]', "e"),
        (6, "9" * 5000, "f"),
    ]
    assert not bad(found)


def test_jsonl_rows_that_cannot_be_read(jsonl):
    found = read(
        jsonl(
            {"title": "a"},
            b'{"title": "b"',
            ["title"],
            {"title": 3},
            {"title": {"en": "x"}},
            b'{"title": "a", "title": "b"}',
            b'{"title": "\xff"}',
            b"[" * 100_000,
            b'{"title": ' + b"9" * 5000 + b"}",
            b'{"title": "raw \x01"}',
            {"title": "z"},
        )
    )
    assert good(found) == [(1, None, "a"), (11, None, "z")]
    assert bad(found) == {
        2: "is not JSON",
        3: "is not a JSON object",
        4: "title is not text",
        5: "title is not text",
        6: "has a name twice",
        7: "is not valid UTF-8",
        8: "holds more than 20,000 values",
        9: "title is not text",
        10: "is not JSON",
    }


def test_parquet_rows(tmp_path):
    path = tmp_path / "a.parquet"
    titles = ["a", None, "", "half \0 \u202e"]
    for dtype in (pl.String, pl.Categorical, pl.Binary):
        column = pl.Series(
            [None if t is None else t.encode() for t in titles] if dtype == pl.Binary else titles, dtype=dtype
        )
        pl.DataFrame({"title": column, "item_id": [1.0, 2.5, None, 4.0]}).write_parquet(path)
        assert good(read(path)) == [(1, "1", "a"), (2, "2.5", ""), (3, None, ""), (4, "4", "half \0 \u202e")]


def test_parquet_strings_that_are_none(tmp_path):
    path = tmp_path / "a.parquet"
    offsets, data = pa.py_buffer(bytes([0, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0])), pa.py_buffer(b"ok\xff\xfez")
    pq.write_table(pa.table({"title": pa.Array.from_buffers(pa.string(), 3, [None, offsets, data])}), path)
    found = read(path)
    assert good(found) == [(1, None, "ok"), (3, None, "z")]
    assert bad(found) == {2: "is not valid UTF-8"}


def test_parquet_rows_over_batches_and_row_groups(tmp_path):
    titles = [f"t{nth}" for nth in range(1000)]
    frame = pl.DataFrame({"id": range(1000), "title": titles, "other": [[1]] * 1000})
    frame.write_parquet(tmp_path / "a.parquet", row_group_size=300)
    expected = [(nth + 1, str(nth), title) for nth, title in enumerate(titles)]
    assert good(read(tmp_path / "a.parquet")) == expected
    assert open_catalog(tmp_path / "a.parquet").count_rows() == 1000


def test_a_megabyte_is_a_title(tmp_path, jsonl):
    long = "x" * (1 << 20) + '"q'
    for name in ("a.csv", "b.csv"):
        with (tmp_path / name).open("w") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL if name == "a.csv" else csv.QUOTE_MINIMAL).writerows(
                [["title"], [long]]
            )
        assert good(read(tmp_path / name)) == [(1, None, long)]
    assert good(read(jsonl({"title": long}))) == [(1, None, long)]
    pl.DataFrame({"title": [long]}).write_parquet(tmp_path / "a.parquet")
    assert good(read(tmp_path / "a.parquet")) == [(1, None, long)]


def test_the_column_of_ids(tmp_path):
    data = b"item_id,sku,title\n1,2,a\n"
    assert good(read(tmp_path / "a.csv", data)) == [(1, "1", "a")]
    assert good(read(tmp_path / "a.csv", data, id_column="sku")) == [(1, "2", "a")]
    assert good(read(tmp_path / "a.csv", data, text_column="sku", id_column="sku")) == [(1, "2", "2")]
    assert "'item_id', 'sku', 'title'" in refused(tmp_path / "a.csv", data, id_column="asin")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_column_that_is_not_there(tmp_path, name):
    frame = pl.DataFrame({"id": [1], "Titel": ["a"]})
    path = tmp_path / name
    {".csv": frame.write_csv, ".jsonl": frame.write_ndjson, ".parquet": frame.write_parquet}[path.suffix](path)
    message = refused(path)
    assert "should have a column 'title'" in message
    assert "'id', 'Titel'" in message
    assert "--text-column" in message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_another_encoding(tmp_path, name, encoding):
    text = "id,title\n1,Red Garden\n" if name == "a.csv" else '{"id": 1, "title": "Red Garden"}\n'
    assert good(read(tmp_path / name, text.encode(encoding))) == [(1, "1", "Red Garden")]
    assert encoding.upper() in open_catalog(tmp_path / name).describe()


def test_files_that_are_none_of_it(tmp_path, jsonl):
    for name in ("a.csv", "a.tsv.gz", "a.jsonl"):
        empty = gzip.compress(b"") if name.endswith("gz") else b""
        assert "empty" in refused(tmp_path / name, empty)
    assert "files of one kind" in refused(tmp_path)
    assert "nothing" in refused(tmp_path / "missing.csv")
    assert "a.csv" in refused(tmp_path / "b.csv")
    for data in (b"", b"PAR1", b"title\na\n", b"PAR1" + bytes(100) + b"PAR1"):
        assert "should be a Parquet file" in refused(tmp_path / "a.parquet", data)
    assert "Parquet" in refused(tmp_path / "a.csv", b"PAR1\x15")
    assert "gzip" in refused(tmp_path / "a.csv", gzip.compress(b"title\na\n"))
    assert "gzip" in refused(tmp_path / "a.csv.gz", b"title\na\n").lower()
    assert "does not end" in refused(tmp_path / "a.xlsx", b"x")
    assert "row 1 is not a JSON object" in refused(jsonl(b"[1]", b"x"))


def test_a_gzip_file_cut_short_is_told_before_the_work(tmp_path):
    whole = gzip.compress(b"title\n" + b"".join(b"title %d\n" % nth for nth in range(5000)))
    (tmp_path / "a.csv.gz").write_bytes(whole[:-200])
    with pytest.raises(UserError, match=r"a\.csv\.gz can't be read"):
        open_catalog(tmp_path / "a.csv.gz").count_rows()


def test_a_parquet_file_damaged_inside(tmp_path):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"title": [f"title {nth}" for nth in range(5000)]}).write_parquet(path, compression="zstd")
    data = bytearray(path.read_bytes())
    data[100:2000] = bytes(1900)
    assert "can't be read" in refused(path, bytes(data))


def test_parquet_columns_that_hold_no_text(tmp_path):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"title": [1], "id": [[1]], "name": ["a"]}).write_parquet(path)
    assert "should hold text, and it holds int64" in refused(path)
    assert "should hold ids" in refused(path, text_column="name")
    assert "should hold text" in refused(path, text_column="id", id_column="name")


def write_rows_of_many_values(path, keys, brackets):
    """Write three rows of many names, one of many lists, and two that hold few values."""
    many = json.dumps({"title": "x"} | {f"k{nth}": nth for nth in range(keys)})
    lists = '{"title": "x", "a": ' + "[" * 900 + "]" * 900 + ', "b": [' + "[]," * brackets + "0]}"
    long = json.dumps({"title": 'a, "b": [{' * 100_000})
    few = json.dumps({"title": "y"} | {f"k{nth}": nth for nth in range(5000)})
    path.write_text("\n".join([*[many] * 3, lists, long, few]) + "\n")
    return path


@pytest.mark.parametrize("times", [1, pytest.param(30, marks=pytest.mark.slow)])
def test_rows_of_very_many_values_are_refused(tmp_path, times):
    """A title with as many commas is a title."""
    path = write_rows_of_many_values(tmp_path / "a.jsonl", 20_001 * times, 66_667 * times)
    rows = list(open_catalog(path).read_rows())
    assert [row.problem for row in rows] == ["holds more than 20,000 values"] * 4 + ["", ""]
    assert (rows[4].title, rows[5].title) == ('a, "b": [{' * 100_000, "y")


@pytest.mark.slow
def test_rows_of_very_many_values_are_refused_before_they_are_read(tmp_path):
    """Rows of 900,000 names took a gigabyte."""
    path = write_rows_of_many_values(tmp_path / "a.jsonl", 600_000, 2_000_000)
    code = (
        "import sys, pathlib; from cowbird.scanning.reading import open_catalog\n"
        "def peak(): return int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])\n"
        "before = peak(); list(open_catalog(pathlib.Path(sys.argv[1])).read_rows()); print((peak() - before) >> 10)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200


@pytest.mark.slow
def test_names_of_many_rows_are_kept_to_a_number(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [json.dumps({"title": "x"} | {f"k{nth} {at}": 0 for at in range(900)}) for nth in range(100)]
    path.write_text("\n".join(rows))
    found = open_catalog(path)
    assert 19_000 < len(found.names) <= 20_000
    assert len(list(found.read_rows())) == 100


@pytest.mark.parametrize(("text", "rows"), [("title\na\nb\n", 2), ("title\na\nb", 2), ("title\n", 0), ("title", 0)])
def test_a_header_is_no_row(tmp_path, text, rows):
    (tmp_path / "a.csv").write_text(text)
    assert open_catalog(tmp_path / "a.csv").count_rows() == rows
