"""Parquet files whose pages are far larger than they are: refused by the sizes in page headers, before decoding."""

import random
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cowbird.data.sources.tabular import Tabular
from cowbird.errors import UserError
from cowbird.ingest import pages as sizes
from cowbird.ingest.pages import Page, choose_batch_rows, read_pages, sum_sizes
from cowbird.scanning.reading import open_catalog

pytestmark = pytest.mark.slow

MEBI = 1 << 20
PEAK = """
import sys
from pathlib import Path
from cowbird.errors import UserError
from cowbird.scanning.reading import open_catalog
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) >> 10
before = peak()
counts = {}
for row in open_catalog(Path(sys.argv[1])).read_rows():
    counts[row.problem] = counts.get(row.problem, 0) + 1
print(peak() - before, sum(counts.values()), counts.get("", 0))
"""


def write(path, titles, **options):
    ids = [str(nth) for nth in range(len(titles))]
    pq.write_table(pa.table({"id": ids, "title": titles}), path, compression="zstd", **options)
    return path


def read(path):
    """Read a catalogue in a process of its own: mebibytes that it took beyond its start, rows, and readable ones."""
    done = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True)
    return tuple(map(int, done.stdout.split()))


def repeated(value, count):
    return pa.DictionaryArray.from_arrays(pa.array([0, 1] * (count // 2), pa.int32()), pa.array([value, "short"]))


@pytest.mark.slow
@pytest.mark.long
def test_a_string_of_half_a_gigabyte_costs_its_row_group(tmp_path):
    """In a file of 20 kilobytes. It took three times as much before."""
    path = tmp_path / "a.parquet"
    titles = pa.array(["Red", "y" * (512 * MEBI), "Blue"], pa.large_string())
    schema = pa.schema({"id": pa.string(), "title": pa.large_string()})
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for part in (pa.array(["One"]).cast(pa.large_string()), titles, pa.array(["Last"]).cast(pa.large_string())):
            writer.write_table(pa.table([pa.array(["1"] * len(part)), part], schema=schema))
    assert path.stat().st_size < 100_000
    taken, rows, readable = read(path)
    assert (rows, readable) == (5, 2)
    assert taken < 200
    rows = list(open_catalog(path).read_rows())
    assert [row.number for row in rows] == [1, 2, 3, 4, 5]
    assert [row.title for row in rows] == ["One", "", "", "", "Last"]
    assert "Parquet page of more than 134,217,728 bytes" in rows[1].problem


@pytest.mark.slow
def test_a_long_string_that_is_named_often_is_decoded_in_bounds(tmp_path):
    """A valid file: 400 rows name 8 mebibytes. They were decoded all at once before, or refused."""
    path = write(tmp_path / "a.parquet", repeated("a" * 8 * MEBI, 400))
    assert path.stat().st_size < 5000
    taken, rows, readable = read(path)
    assert (rows, readable) == (400, 400)
    assert taken < 700


@pytest.mark.slow
def test_strings_that_repeat_the_start_of_the_one_before_are_decoded_in_bounds(tmp_path):
    titles = ["p" * 4 * MEBI + str(nth) for nth in range(200)]
    path = write(tmp_path / "a.parquet", titles, use_dictionary=False, column_encoding={"title": "DELTA_BYTE_ARRAY"})
    del titles
    taken, rows, readable = read(path)
    assert (rows, readable) == (200, 200)
    assert taken < 700


def test_a_small_dictionary_is_read(tmp_path):
    """A valid file of a kilobyte, that was refused."""
    path = write(tmp_path / "a.parquet", repeated("Red Harbor", 12))
    assert [row.title for row in open_catalog(path).read_rows()] == ["Red Harbor", "short"] * 6


def test_logs_are_refused_before_they_are_decoded(tmp_path):
    path, items = tmp_path / "log.parquet", tmp_path / "items.parquet"
    pq.write_table(pa.table({"user_id": ["1"] * 4, "item_id": ["1", "2"] * 2, "timestamp": [1, 2, 3, 4]}), path)
    titles = pa.array(["x", "y" * (200 * MEBI)])
    pq.write_table(pa.table({"item_id": ["1", "2"], "title": titles}), items, compression="zstd", use_dictionary=False)
    with pytest.raises(UserError, match=r"items\.parquet comes to more than") as error:
        Tabular(path=path, item_path=items).load()
    assert error.value.hint
    items.unlink()
    pq.write_table(pa.table({"item_id": ["1", "2"], "title": ["x", "y"]}), items)
    assert Tabular(path=path, item_path=items).load().items.titles == ("x", "y")


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_headers_say_what_pyarrow_says(tmp_path, version, compression, dictionary):
    path = tmp_path / "a.parquet"
    titles = [f"title {nth % 700} {'x' * (nth % 90)}" for nth in range(30_000)]
    table = pa.table({"id": list(range(30_000)), "title": titles, "nested": [{"title": "x"}] * 30_000})
    pq.write_table(
        table,
        path,
        compression=compression,
        data_page_version=version,
        use_dictionary=dictionary,
        row_group_size=11_000,
        data_page_size=20_000,
        write_page_index=True,
    )
    metadata = pq.read_metadata(path)
    for group in range(3):
        pages = read_pages(path, metadata, group, "title")
        assert sum(page.values for page in pages if not page.is_dictionary) == metadata.row_group(group).num_rows
        assert any(page.is_dictionary for page in pages) == dictionary
        told = metadata.row_group(group).column(1)
        slack = 200 * len(pages)
        assert (
            told.total_uncompressed_size - slack
            <= sum_sizes(pages)
            <= max(told.total_uncompressed_size, told.total_compressed_size)
        )
        rows = choose_batch_rows(pages, 256)
        assert rows >= 128
        assert sizes._bound_batch(pages, rows) <= sizes.MAX_BATCH_BYTES
        assert rows == 256 or sizes._bound_batch(pages, 2 * rows) > sizes.MAX_BATCH_BYTES


def slowly(pages, rows):
    """Bound a batch by trying all places where it may begin."""
    data = [page for page in pages if not page.is_dictionary]
    owner = [nth for nth, page in enumerate(data) for _ in range(page.values)]
    starts = range(max(1, len(owner) - rows + 1))
    return max((sum(data[nth].size for nth in set(owner[at : at + rows])) for at in starts), default=0)


def test_no_batch_is_larger_than_the_bound():
    draw = random.Random(0)
    for _ in range(300):
        pages = [Page(draw.randint(1, 50), draw.randint(1, 9), False, 0) for _ in range(draw.randint(1, 12))]
        for rows in (1, 2, 3, 8, 40):
            assert sizes._bound_batch(pages, rows) == slowly(pages, rows)


def test_what_a_row_may_repeat_bounds_the_rows(monkeypatch):
    monkeypatch.setattr(sizes, "MAX_BATCH_BYTES", 1000)
    monkeypatch.setattr(sizes, "MAX_PAGE_BYTES", 800)
    assert choose_batch_rows([Page(100, 2, True, 0), Page(9, 500, False, 8)], 256) == 8
    assert choose_batch_rows([Page(100, 500, False, 7)], 256) == 2
    assert choose_batch_rows([Page(100, 500, False, 0)], 256) == 256
    assert choose_batch_rows([Page(800, 1, False, 0)] * 9, 256) == 1
    assert choose_batch_rows([Page(801, 1, False, 0)], 256) == 0
    assert choose_batch_rows([], 256) == 256


def test_many_pages_cost_no_time():
    begun = time.process_time()
    choose_batch_rows([Page(1 << 20, 1, False, 0)] * 200_000, 256)
    assert time.process_time() - begun < 10


@pytest.mark.parametrize("seed", range(20))
def test_damaged_headers_are_told(tmp_path, seed):
    path = write(tmp_path / "a.parquet", [f"title {nth}" for nth in range(2000)])
    raw, draw = bytearray(path.read_bytes()), random.Random(seed)
    for _ in range(30):
        raw[draw.randrange(4, len(raw) - 700)] ^= 1 << draw.randrange(8)
    path.write_bytes(raw)
    try:
        assert len(list(open_catalog(path).read_rows())) == 2000
    except UserError as error:
        assert error.hint
