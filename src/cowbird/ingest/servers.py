"""Tables of databases' servers, copied batch by batch into a Parquet file; a database is only read.

Drivers of ADBC hand over Arrow batches, so memory holds one of them; DuckDB's library does the same. Databases without
such a driver here are read by connectorx through polars, which holds the whole table.
"""

import importlib
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from cowbird.errors import OutageError, UserError
from cowbird.faults import explain_outage
from cowbird.ingest.addresses import hide_secrets, redact_reason

DATABASE_SCHEMES = (
    *("postgresql", "postgres", "sqlite", "duckdb"),
    *("mysql", "mssql", "oracle", "redshift", "snowflake", "bigquery"),
)
"""Addresses of databases; the first four are read in bounded memory."""
DUCKDB_BATCH_ROWS = 16_384
"""Rows of a batch of DuckDB's; the drivers of ADBC choose by bytes."""
_QUERY = re.compile(r"\s*(select|with)\s", re.IGNORECASE)
_REFUSAL_WORDS = ("authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry")
"""Parts of what a server says that can be reached, and refuses."""
_OUTAGE_WORDS = ("connect", "server closed", "timeout", "terminating", "broken pipe")
_Batches = Iterator[Any]


def is_database(scheme: str) -> bool:
    """Tell whether an address is a database's."""
    return scheme.partition("+")[0] in DATABASE_SCHEMES


def copy_table(address: str, table: str | None, target: Path) -> None:
    """Copy a table into a Parquet file.

    Args:
        address: Where the database is, such as `postgresql://host/shop`. Drivers take a password from the environment
            (PostgreSQL's from `PGPASSWORD`).
        table: The table, perhaps with its schema (`shop.items`), or a query that begins with `select`.
        target: The file.

    Raises:
        UserError: If it can't be read.
        OutageError: If the server can't be reached, or the connection breaks; says at which row.
    """
    shown = hide_secrets(address)
    if table is None:
        raise UserError(f"Which table of {shown} is read is not said.", "Name it: --table (table in specs).")
    rows = 0
    try:
        with ExitStack() as stack:
            batches = _choose_reader(address)(stack, address, make_query(table))
            writer: Any = None
            for batch in batches:
                plain = _drop_extensions(batch)
                writer = writer or stack.enter_context(pq.ParquetWriter(target, plain.schema, compression="zstd"))
                writer.write_batch(plain)
                rows += plain.num_rows
    except UserError:
        raise
    except ImportError as error:
        raise UserError(
            f"{shown} can't be read: {redact_reason(str(error), address)}.",
            "Install the drivers: pip install 'cowbird[databases]'; for other databases connectorx.",
        ) from None
    except Exception as error:
        raise _explain_failure(address, error, rows) from None


def is_query(table: str | None) -> bool:
    """Tell whether what names a table is a query."""
    return table is not None and _QUERY.match(table) is not None


def make_query(table: str) -> str:
    """Return the query of a table, or of what is a query already."""
    if is_query(table):
        return table
    names = (name.replace('"', '""') for name in table.split("."))
    return "SELECT * FROM " + ".".join(f'"{name}"' for name in names)


def _explain_failure(address: str, error: Exception, rows: int) -> UserError:
    reason = redact_reason(str(error), address) or type(error).__name__
    behind = f" behind row {rows:,}" if rows else ""
    message = f"{hide_secrets(address)} can't be read{behind}: {reason.rstrip('.')}."
    answered = any(word in reason.lower() for word in _REFUSAL_WORDS)  # so the server is up
    if not answered and (explain_outage(error) is not None or any(word in reason.lower() for word in _OUTAGE_WORDS)):
        return OutageError(message, "Is the server up, and the network? Try again; all of it is read anew.")
    return UserError(message, "Check the address, the table and your rights; a password may come from PGPASSWORD.")


def _choose_reader(address: str) -> Callable[[ExitStack, str, str], _Batches]:
    """Return what reads a database."""
    scheme = address.partition(":")[0].partition("+")[0]
    if scheme in ("postgresql", "postgres"):
        return _read_postgresql
    return {"sqlite": _read_sqlite, "duckdb": _read_duckdb}.get(scheme, _read_whole)


def _read_postgresql(stack: ExitStack, address: str, query: str) -> _Batches:
    driver: Any = importlib.import_module("adbc_driver_postgresql.dbapi")
    link = stack.enter_context(closing(driver.connect(re.sub(r"^(\w+)\+\w+:", r"\1:", address))))
    with closing(link.cursor()) as setting:
        setting.execute("SET default_transaction_read_only = on")
    link.commit()
    cursor = stack.enter_context(closing(link.cursor()))
    cursor.execute(query)
    yield from cursor.fetch_record_batch()


def _read_sqlite(stack: ExitStack, address: str, query: str) -> _Batches:
    driver: Any = importlib.import_module("adbc_driver_sqlite.dbapi")
    place = find_database(address)
    link = stack.enter_context(closing(driver.connect(f"file:{place}?mode=ro")))
    cursor = stack.enter_context(closing(link.cursor()))
    cursor.execute(query)
    yield from cursor.fetch_record_batch()


def _read_duckdb(stack: ExitStack, address: str, query: str) -> _Batches:
    library: Any = importlib.import_module("duckdb")
    settings = {"memory_limit": "512MB", "enable_external_access": "false"}
    link = stack.enter_context(closing(library.connect(str(find_database(address)), read_only=True, config=settings)))
    found = link.sql(query)
    yield from () if found is None else found.to_arrow_reader(DUCKDB_BATCH_ROWS)


def _read_whole(stack: ExitStack, address: str, query: str) -> _Batches:
    import polars as pl  # noqa: PLC0415

    del stack
    yield from pl.read_database_uri(query, address).to_arrow().to_batches()


def find_database(address: str) -> Path:
    """Return the file of a database that is one.

    Raises:
        UserError: If there is none.
    """
    scheme, _, rest = address.partition(":")
    slashes = len(rest) - len(rest.lstrip("/"))
    place = Path(unquote(rest[slashes:]))
    absolute = Path("/") / place
    if absolute.is_file() and (slashes != 2 or not place.is_file()):
        place = absolute
    if not place.is_file():
        raise UserError(f"Expected a database at {place}, and there is nothing.", f"Such as {scheme}:///data/shop.db.")
    return place


def _drop_extensions(batch: Any) -> Any:
    """Return a batch whose columns are of Arrow's own types, for a driver may bring types of its own."""
    if not any(isinstance(column.type, pa.BaseExtensionType) for column in batch.columns):
        return batch
    columns = [c.storage if isinstance(c.type, pa.BaseExtensionType) else c for c in batch.columns]
    arrow: Any = pa
    return arrow.RecordBatch.from_arrays(columns, names=batch.schema.names)
