"""Databases' servers, real ones: PostgreSQL, DuckDB and SQLite; what can't be read is told without passwords."""

import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
from pathlib import Path

import pytest

from cowbird.data.sources.tabular import Tabular
from cowbird.errors import OutageError, UserError
from cowbird.experiments.field_errors import explain_errors
from cowbird.ingest import places, servers
from cowbird.ingest.addresses import hide_secrets, redact_reason, show_name, show_path
from cowbird.ingest.options import ReadOptions, use_options
from cowbird.ingest.servers import make_query
from cowbird.scanning.reading import open_catalog

PASSWORD = "s3cret/w@rd"
POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)


@pytest.fixture(autouse=True)
def forget_copies():
    yield
    places._copy_table.cache_clear()


def read(address, table="items"):
    with use_options(ReadOptions(table=table)):
        return [(row.id, row.title) for row in open_catalog(Path(address)).read_rows()]


@pytest.mark.parametrize(
    ("address", "shown", "secret"),
    [
        ("postgresql://me:hidden@host/shop", "postgresql://host/shop", "hidden"),
        (f"postgresql://me:{PASSWORD}@host/shop", "postgresql://host/shop", PASSWORD),
        ("postgresql://me:a%40b%2Fc@host/shop", "postgresql://host/shop", "a@b/c"),
        ("https://host/a.csv?X-Amz-Signature=abcdef", "https://host/a.csv", "abcdef"),
    ],
)
def test_addresses_are_shown_without_secrets(address, shown, secret):
    assert hide_secrets(address) == shown
    for said in (f"can't connect to {address}", f"the server says no to {secret}", f"{shown} password=xy {secret}"):
        told = redact_reason(said, address)
        assert told
        assert secret not in told
        assert "xy" not in told
    path = Path(address)  # of two slashes it keeps one
    assert secret not in f"{show_path(path)} {show_name(path)}"
    assert show_name(Path("https://me:hidden@host")) == "host"
    assert show_name(Path("a/what?.csv")) == "what?.csv"


def test_a_spec_holds_no_password():
    with pytest.raises(ValueError, match="PGPASSWORD") as error:
        Tabular(path=f"postgresql://me:{PASSWORD}@host/shop")
    assert PASSWORD not in explain_errors(error.value)
    assert Tabular(path="postgresql://me@host/shop").path


def test_a_table_may_have_a_schema_or_be_a_query():
    assert make_query("items") == 'SELECT * FROM "items"'
    assert make_query('shop.my "items') == 'SELECT * FROM "shop"."my ""items"'
    assert make_query("select id from items") == "select id from items"


def test_a_query_of_sqlite(tmp_path):
    pytest.importorskip("adbc_driver_sqlite", reason="needs adbc-driver-sqlite")
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as base:
        base.execute("create table items (id integer, title text)")
        base.executemany("insert into items values (?, ?)", [(1, "Red"), (2, "Blue"), (3, None)])
    query = "select id, title from items order by id desc"
    assert read(f"sqlite://{path}", query) == [("3", ""), ("2", "Blue"), ("1", "Red")]
    assert read(f"sqlite://{path}") == [("1", "Red"), ("2", "Blue"), ("3", "")]
    with pytest.raises(UserError, match="can't be read") as error:
        read(f"sqlite://{path}", "select * from nothing")
    assert error.value.hint
    with pytest.raises(UserError, match="there is nothing"):
        read("sqlite:///nowhere/shop.db", query)


@pytest.mark.slow
def test_a_table_of_duckdb(tmp_path):
    duckdb = pytest.importorskip("duckdb", reason="needs duckdb")
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(str(path)) as base:
        base.execute("create table items as select range as id, 'Title ' || range as title from range(40000)")
    found = read(f"duckdb://{path}", "select * from items order by id")
    assert found == [(str(nth), f"Title {nth}") for nth in range(40_000)]
    assert len(read(f"duckdb://{path}")) == 40_000
    with pytest.raises(UserError, match="can't be read"):
        read(f"duckdb://{path}", "with x as (select 1) insert into items select 1, 'a'")


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """A server of PostgreSQL with a password, on a port of its own; gives its address without the user."""
    pytest.importorskip("adbc_driver_postgresql", reason="needs adbc-driver-postgresql")
    if POSTGRES is None:
        pytest.skip("PostgreSQL's server is not installed")
    folder = Path(shutil.copy(__file__, tmp_path_factory.mktemp("pg"))).parent
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    secret = folder / "secret"
    secret.write_text(PASSWORD)
    as_user = []
    if os.geteuid() == 0:  # the server refuses to run as root
        above = [place for place in folder.parents if place.is_relative_to(tempfile.gettempdir())][:-1]
        for place in (folder, secret, *above):
            place.chmod(0o755)
        shutil.chown(folder, "postgres")
        shutil.chown(secret, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    data, tools = folder / "data", POSTGRES.parent

    def call(tool, *words):
        subprocess.run([*as_user, str(tools / tool), *map(str, words)], check=True, capture_output=True, cwd=folder)

    call("initdb", "-D", data, "-U", "me", "-A", "scram-sha-256", "--pwfile", secret, "--no-sync")
    settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    call("pg_ctl", "-D", data, "-o", settings, "-l", folder / "log", "-w", "start")
    yield f"127.0.0.1:{port}/postgres"
    call("pg_ctl", "-D", data, "-m", "immediate", "stop")


@pytest.mark.slow
def test_a_table_of_postgresql(postgres, monkeypatch, capfd):
    from adbc_driver_postgresql import dbapi

    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    address = f"postgresql://me@{postgres}"
    with dbapi.connect(address) as link, link.cursor() as cursor:
        cursor.execute("create schema if not exists shop")
        cursor.execute("create table shop.items (id bigint, title text, price numeric, tags text[])")
        cursor.execute(
            "insert into shop.items select n, 'Title ' || n, n / 2.0, '{a}' from generate_series(1, 50000) n"
        )
        cursor.execute("insert into shop.items values (50001, null, null, null), (50002, E'Süß\\t\"q\"', 1, null)")
        link.commit()
    found = read(address, "shop.items")
    assert found == [*((str(n), f"Title {n}") for n in range(1, 50_001)), ("50001", ""), ("50002", 'Süß\t"q"')]
    assert read(address, "select id, title from shop.items where id = 7") == [("7", "Title 7")]
    with pytest.raises(UserError, match="read-only"):
        read(address, "with x as (insert into shop.items values (1, 'a') returning id, title) select * from x")
    monkeypatch.delenv("PGPASSWORD")
    quoted = PASSWORD.replace("/", "%2F").replace("@", "%40")
    assert len(read(address.replace("me@", f"me:{quoted}@"), "shop.items")) == 50_002
    for wrong in (
        address.replace("me@", "me:wr0ng-pass@"),
        address.replace("me@", f"me:{quoted}@").replace("127", "0127"),
    ):
        with pytest.raises(UserError) as error:
            read(wrong, "shop.items")
        told = f"{error.value.message} {error.value.hint}"
        assert all(secret not in told for secret in ("wr0ng-pass", quoted, PASSWORD))
    assert PASSWORD not in "".join(capfd.readouterr())


@pytest.mark.slow
def test_a_server_that_is_not_there():
    pytest.importorskip("adbc_driver_postgresql", reason="needs adbc-driver-postgresql")
    with pytest.raises(OutageError, match="can't be read") as error:
        read("postgresql://me:hidden-word@127.0.0.1:1/shop")
    assert "hidden-word" not in error.value.message


@pytest.mark.parametrize(
    ("said", "outage"),
    [
        ('connection to server failed: FATAL: password authentication failed for user "me"', False),
        ('Failed to connect: FATAL: database "other" does not exist', False),
        ("connection to server failed: Connection refused", True),
        ("server closed the connection unexpectedly", True),
    ],
)
def test_what_a_server_refuses_is_not_told_as_an_outage(monkeypatch, tmp_path, said, outage):
    def read_nothing(stack, address, query):
        raise RuntimeError(said)

    monkeypatch.setattr(servers, "_choose_reader", lambda address: read_nothing)
    with pytest.raises(UserError) as error:
        servers.copy_table("postgresql://me@127.0.0.1/shop", "items", tmp_path / "items.parquet")
    assert isinstance(error.value, OutageError) is outage
    assert ("PGPASSWORD" in error.value.hint) is not outage
