"""Hostile and broken files of any form: an error in words or rows, never a traceback, and no row is lost."""

import importlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cowbird.errors import UserError
from cowbird.ingest.delimited import TextTable
from cowbird.ingest.frames import open_frames
from cowbird.ingest.open import open_rows
from cowbird.ingest.options import ReadOptions
from cowbird.ingest.skips import Skips
from cowbird.scanning.reading import open_catalog

FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
MANY = settings(FEW, max_examples=1500)
PIECES = st.sampled_from(
    [b"id", b"title", b",", b";", b"\t", b"\n", b"\r", b'"', b'""', b"\\", b" ", b"sep=;", b"\xe9", b"\xff",
     b"\xc3\xa9", b"\0", b"NULL", b"7.0", b"4,5", b"id,title", b"\xef\xbb\xbf", b"a", b"\xff\xfe"]
)  # fmt: skip
BYTES = st.lists(PIECES, max_size=40).map(b"".join)
TEXT = BYTES.map(lambda body: b"id,title\n1,a\n" + body) | BYTES
JSON = st.recursive(
    st.none() | st.text(max_size=3) | st.integers() | st.floats(), lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["title", "id", "a", "a.b"]), inner, max_size=3), max_leaves=12,
)  # fmt: skip


def read_all(path):
    """Return how many rows there are in each way to read; `None` if the file is refused in words."""
    try:
        table = open_rows(path)
        rows = list(table.read_rows(range(len(table.names))))
        assert [row.number for row in rows] == list(range(1, len(rows) + 1))
        bad = sum(bool(row.problem) for row in rows)
        skips = Skips()
        frames = open_frames(path, ReadOptions(), skips)
        names = [name for name in dict.fromkeys(frames.names) if frames.names.count(name) == 1]
        height = sum(frame.height for frame in frames.read_frames(names))
    except UserError as error:
        assert error.hint
        return None
    return len(rows) - bad, height, bad, sum(skip.count for skip in skips.list())


def check_text(path, data):
    path.write_bytes(data)
    found = read_all(path)
    if found is not None and b"\0" not in data and b"\xff" not in data and b'""' not in data.split(b"\n"):
        good, height, bad, skipped = found
        assert good + bad == height + skipped, "what one way reads or counts, the other does"
    try:
        list(open_catalog(path).read_rows())
    except UserError as error:
        assert error.hint


def check_json(path, data):
    path.write_bytes(data)
    read_all(path)
    try:
        list(open_catalog(path).read_rows())
    except UserError as error:
        assert error.hint


@pytest.mark.slow
@FEW
@given(data=TEXT)
def test_text(tmp_path, data):
    check_text(tmp_path / "a.csv", data)


@pytest.mark.slow
@FEW
@given(value=JSON, cut=st.integers(0, 30), lines=st.booleans())
def test_json(tmp_path, value, cut, lines):
    data = json.dumps([value, {"title": "a", "x": value}], indent=None if lines else 1).encode()
    check_json(tmp_path / ("a.jsonl" if lines else "a.json"), data[: len(data) - cut] if cut > 15 else data)


@pytest.mark.slow
@pytest.mark.long
@MANY
@given(data=TEXT, ending=st.sampled_from(["csv", "tsv", "item", "jsonl", "json"]))
def test_much_text(tmp_path, data, ending):
    check_json(tmp_path / f"a.{ending}", data)


@pytest.mark.slow
@MANY
@given(data=st.binary(max_size=300), ending=st.sampled_from(["csv", "json", "parquet", "db", "csv.gz", "csv.zst"]))
def test_any_bytes(tmp_path, data, ending):
    check_json(tmp_path / f"a.{ending}", data)


@pytest.fixture
def try_form(monkeypatch):
    """Return what `benchmarks/fuzz_forms.py` does with one input."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("fuzz_forms").try_form


def test_no_row_of_any_form_is_lost_moved_or_changed(tmp_path, try_form):
    """What `benchmarks/fuzz_forms.py` tries on thousands of files, on a few."""
    problems = [try_form(seed, tmp_path)[1] for seed in range(60)]
    assert not any(problems), problems


def test_a_row_that_is_lost_is_noticed(tmp_path, monkeypatch, try_form):
    cut = TextTable._cut_block

    def lose(self, block, places):
        columns = cut(self, block, places)
        return columns and tuple(column[1:] for column in columns)

    monkeypatch.setattr(TextTable, "_cut_block", lose)
    assert any(try_form(seed, tmp_path)[1] for seed in range(20))
