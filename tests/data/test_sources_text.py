"""The shared reader of delimited text: exact skips with line numbers, on hostile bytes and any block size."""

import csv
import gzip
import io
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cowbird.data.sources._encoder import Encoder
from cowbird.data.sources._events import order_events
from cowbird.errors import UserError
from cowbird.ingest import delimited
from cowbird.ingest.blobs import from_file
from cowbird.ingest.block import MAX_LINE_BYTES
from cowbird.ingest.delimited import TextTable
from cowbird.ingest.layout import TextLayout
from cowbird.ingest.rows import LINE_COLUMN
from cowbird.ingest.skips import Skips


def read(path: Path, data: bytes, form: TextLayout | None = None, columns: list[str] | None = None):
    path.write_bytes(data)
    skips = Skips()
    table = TextTable(from_file(path), form or TextLayout(), skips)
    columns = columns or table.names
    rows = [row for frame in table.read_frames(columns) for row in frame.select([*columns, LINE_COLUMN]).rows()]
    return rows, {skip.reason: (skip.count, skip.lines) for skip in skips.list()}


@pytest.fixture(params=[7, 64, 1 << 20])
def block(request, monkeypatch):
    monkeypatch.setattr(delimited, "BYTES_PER_BLOCK", request.param)
    return request.param


def test_reads_rows_with_lines(tmp_path, block):
    rows, skips = read(tmp_path / "a.csv", b"a,b\n1,2\n\n3,\n")
    assert rows == [("1", "2", 2), ("3", None, 4)]
    assert not skips


def test_bom_crlf_and_no_final_newline(tmp_path, block):
    rows, skips = read(tmp_path / "a.csv", b'\xef\xbb\xbfa,b\r\n1,2\r\n\r\n"x",y\r\n3,4')
    assert rows == [("1", "2", 2), ("x", "y", 4), ("3", "4", 5)]
    assert not skips


def test_bom_without_header(tmp_path, block):
    rows, _ = read(tmp_path / "a.csv", b"\xef\xbb\xbf1,2\n3,4\n", TextLayout(names=("a", "b")))
    assert rows == [("1", "2", 1), ("3", "4", 2)]


@pytest.mark.slow
def test_ragged_nul_invalid_and_long_lines(tmp_path, block):
    long = b"x" * (MAX_LINE_BYTES + 5)
    body = [b"a,b", b"1,2", b"1", b"1,2,3", b"n\0,2", b"\xff,2", b"\xc3\xa9,2", long + b",1", b"5,6"]
    rows, skips = read(tmp_path / "a.csv", b"\n".join(body) + b"\n")
    assert rows == [("1", "2", 2), ("é", "2", 7), ("5", "6", 9)]
    assert skips == {
        "wrong number of columns (expected 2)": (2, (3, 4)),
        "contains a NUL byte": (1, (5,)),
        "is not valid UTF-8": (1, (6,)),
        "line is longer than 131,072 bytes": (1, (8,)),
    }


def test_quotes_exactly(tmp_path, block):
    data = (
        b'a,b\n"plain","x"\n"com,ma",y\n"new\nline",z\n"dou""ble",w\n"bad"x,1\nq"uote,2\n"n\0l",3\n'
        b'"\xff",4\n"1","2","3"\n"",5\n"cr",6\r\n'
    )
    rows, skips = read(tmp_path / "a.csv", data)
    assert rows == [
        ("plain", "x", 2),
        ("com,ma", "y", 3),
        ("new\nline", "z", 4),
        ('dou"ble', "w", 6),
        ('q"uote', "2", 8),
        (None, "5", 12),
        ("cr", "6", 13),
    ]
    assert skips == {
        "quotes are malformed": (1, (7,)),
        "contains a NUL byte": (1, (9,)),
        "is not valid UTF-8": (1, (10,)),
        "wrong number of columns (expected 2)": (1, (11,)),
    }


def test_quote_never_closed_costs_one_line(tmp_path, block):
    lines = [b"a,b", b'"open,1', *[b"%d,x" % number for number in range(300)]]
    rows, skips = read(tmp_path / "a.csv", b"\n".join(lines))
    assert skips == {"a quote is not closed within 100 lines": (1, (2,))}
    assert [row[2] for row in rows] == list(range(3, 303))


def test_quote_never_closed_at_the_end(tmp_path, block):
    rows, skips = read(tmp_path / "a.csv", b'a,b\n1,2\n"open,1\n3,4\n')
    assert [row[2] for row in rows] == [2, 4]
    assert skips == {"a quote is not closed within 100 lines": (1, (3,))}


@pytest.mark.parametrize("block", [pytest.param(7, marks=pytest.mark.slow), 64, 1 << 20], indirect=True)
def test_open_quote_before_a_huge_line(tmp_path, block):
    rows, skips = read(tmp_path / "a.csv", b'a,b\n"open\n' + b"y" * 140_000 + b"\n3,4\n")
    assert rows == [("3", "4", 4)]
    assert sum(count for count, _ in skips.values()) == 2


def test_one_column(tmp_path, block):
    rows, skips = read(tmp_path / "a.csv", b"a\n1\n2,3\n4\n")
    assert rows == [("1", 2), ("4", 4)]
    assert skips == {"wrong number of columns (expected 1)": (1, (3,))}


def test_long_separator(tmp_path, block):
    form = TextLayout("::", quoted=False, encoding="latin-1", names=("a", "b"))
    rows, skips = read(tmp_path / "a.dat", b'1::caf\xe9 "x"\n2:3\n\x01::\x02\n', form)
    assert rows == [("1", 'café "x"', 1), ("\x01", "\x02", 3)]
    assert skips == {"wrong number of columns (expected 2)": (1, (2,))}


def test_duplicate_names_matter_only_where_wanted(tmp_path):
    rows, _ = read(tmp_path / "a.csv", b"a,b,b\n1,2,3\n", columns=["a"])
    assert rows == [("1", 2)]
    with pytest.raises(UserError, match="one column 'b', and it has 2"):
        read(tmp_path / "a.csv", b"a,b,b\n1,2,3\n", columns=["b"])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"PK\x03\x04aaaa",
        b"PAR1....",
        b"\xff\xfea\0,\0",
        bytes(range(256)) * 4,
        b"a" * 200_000,
        b"a\0,b\n",
    ],
)
def test_what_is_not_text_is_refused(tmp_path, data):
    with pytest.raises(UserError) as caught:
        read(tmp_path / "a.csv", data)
    assert "a.csv" in caught.value.message
    assert caught.value.hint


def test_damaged_gzip_is_refused(tmp_path):
    whole = gzip.compress(b"a,b\n" + b"1,2\n" * 5000)
    with pytest.raises(UserError, match="can't be read"):
        read(tmp_path / "a.csv.gz", whole[: len(whole) // 2])


CELL = st.text(alphabet=string.ascii_letters + '",\n é;\t', max_size=8)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(CELL, CELL, CELL), max_size=25), st.sampled_from([5, 40, 1 << 20]), st.booleans())
def test_written_csv_comes_back(tmp_path, monkeypatch, rows, size, everything):
    monkeypatch.setattr(delimited, "BYTES_PER_BLOCK", size)
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL if everything else csv.QUOTE_MINIMAL, lineterminator="\n")
    writer.writerow(["a", "b", "c"])
    writer.writerows(rows)
    found, skips = read(tmp_path / "a.csv", buffer.getvalue().encode())
    assert [tuple(cell or "" for cell in row[:3]) for row in found] == rows
    assert not skips


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from([3, 50, 1 << 20]))
def test_any_bytes_are_rows_or_skips_at_any_block_size(tmp_path, monkeypatch, data, size):
    whole = read(tmp_path / "a.csv", b"a,b\n" + data)
    monkeypatch.setattr(delimited, "BYTES_PER_BLOCK", size)
    assert read(tmp_path / "a.csv", b"a,b\n" + data) == whole
    rows, skips = whole
    taken = {row[2] for row in rows} | {line for _, lines in skips.values() for line in lines}
    assert all(2 <= line <= data.count(b"\n") + 2 for line in taken)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(['"', ",", "x", "\n", "\r\n", '""', '"a",', "1,2\n"]), max_size=40))
def test_any_block_size_gives_the_same_on_nasty_quotes(tmp_path, monkeypatch, parts):
    data = b"a,b\n" + "".join(parts).encode()
    monkeypatch.setattr(delimited, "BYTES_PER_BLOCK", 1 << 20)
    whole = read(tmp_path / "a.csv", data)
    monkeypatch.setattr(delimited, "BYTES_PER_BLOCK", 6)
    assert read(tmp_path / "a.csv", data) == whole


IDS = st.lists(
    st.sampled_from(["7", "07", "+7", "0", "-0", "10", "99999999999", "33554432", "a", "1.0", "１"]), max_size=20
)


@pytest.mark.slow
@given(st.lists(IDS, max_size=4))
def test_encoder_numbers_by_first_appearance(blocks):
    import polars as pl

    encoder = Encoder()
    known: dict[str, int] = {}
    for block in blocks:
        codes = encoder.encode(pl.Series(block, dtype=pl.String), pl.Series(range(len(block)), dtype=pl.Int64))
        assert codes.tolist() == [known.setdefault(name, len(known)) for name in block]
    assert encoder.ids.to_list() == list(known)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 1.0, 2.5, -3.0, 1e17, 1e300, 1.7e18])), max_size=30))
def test_order_is_stable_by_user_and_time(events):
    user = np.array([row[0] for row in events], dtype=np.int32)
    time = np.array([row[1] for row in events], dtype=np.float64)
    assert order_events(user, time).tolist() == sorted(range(len(events)), key=lambda row: events[row])
    assert order_events(user, None).tolist() == sorted(range(len(events)), key=lambda row: events[row][0])
