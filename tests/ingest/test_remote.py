"""Addresses: what is behind them is copied and read; what can't be is told without secrets.

The servers here are fsspec's own, in memory: no server of S3 runs in these tests.
"""

import importlib.util
from pathlib import Path

import fsspec
import polars as pl
import pytest

from cowbird.errors import UserError
from cowbird.ingest import places, remote
from cowbird.ingest.options import ReadOptions, use_options
from cowbird.scanning.reading import open_catalog


@pytest.fixture
def bucket(monkeypatch):
    """Give a store behind addresses such as `memory://shop/items.csv`."""
    monkeypatch.setattr(places, "REMOTE_SCHEMES", ("memory",))
    places._copy_remote.cache_clear()
    store = fsspec.filesystem("memory")
    yield store
    store.store.clear()
    places._copy_remote.cache_clear()


def read(address):
    return [(row.id, row.title) for row in open_catalog(Path(address)).read_rows()]


def test_a_file_behind_an_address(bucket):
    bucket.pipe("/shop/items.csv", b"id;title\n1;Red\n")
    assert read("memory://shop/items.csv") == [("1", "Red")]
    first = places.fingerprint(Path("memory://shop/items.csv"))
    bucket.pipe("/shop/items.csv", b"gone")
    assert places.fingerprint(Path("memory://shop/items.csv")) == first, "it is copied once"


def test_a_folder_behind_an_address(bucket):
    bucket.pipe("/shop/items/country=DE/a.csv", b"id,title\n1,Red\n")
    bucket.pipe("/shop/items/country=FR/a.csv", b"id,title\n2,Blue\n")
    assert read("memory://shop/items") == [("1", "Red"), ("2", "Blue")]


def test_nothing_behind_an_address(bucket):
    with pytest.raises(UserError, match="there is nothing") as error:
        read("memory://shop/no.csv")
    assert error.value.hint


def test_no_name_leads_out_of_the_folder():
    class Store:
        def find(self, root):
            return [f"{root}/a/b.csv", f"{root}/../evil.csv", f"{root}/a/../../evil.csv", root]

    assert [inside for _, inside in remote.list_remote(Store(), "shop/items")] == ["a/b.csv"]


@pytest.mark.parametrize(("address", "library"), [("s3://shop/items.csv", "s3fs"), ("gs://shop/items.csv", "gcsfs")])
def test_a_library_that_is_missing_is_named(address, library):
    if importlib.util.find_spec(library):
        pytest.skip("it is installed")
    with pytest.raises(UserError, match=library) as error:
        read(address)
    assert "cowbird[remote]" in error.value.hint


def test_a_database_behind_an_address(monkeypatch):
    asked = []

    def answer(query, uri):
        asked.append((query, uri))
        if "no such" in query:
            raise RuntimeError(f"can't connect to {uri}")
        return pl.DataFrame({"id": [1], "title": ["Red"]})

    monkeypatch.setattr(pl, "read_database_uri", answer)
    address = "mysql://me:secret@host/shop"
    with pytest.raises(UserError, match="Which table of mysql://host/shop"):
        read(address)
    with use_options(ReadOptions(table='my "items')):
        assert read(address) == [("1", "Red")]
    assert asked == [('SELECT * FROM "my ""items"', address)]
    with use_options(ReadOptions(table="no such")), pytest.raises(UserError) as error:
        read(address)
    assert "secret" not in str(error.value)
