"""DuckDB: connections to it, and Parquet files that it writes, of which Delta Lake is then told."""

import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa
from deltalake.transaction import AddAction

from penchant.errors import first_line

MEMORY = "2GB"
"""What DuckDB holds before it writes to a temporary folder."""
CHUNK_ROWS = 65_536
"""Rows of a row group …"""
SORTED_CHUNK_ROWS = 16_384
"""… and where they are sorted, so that a look-up reads few of them."""
NOT_WRITTEN = re.compile(r"Could not write|Async write failed|Failed to create directory|Could not truncate")
"""What DuckDB's error says where a file can't be written."""


def connect() -> Any:
    """A DuckDB connection for Ibis, in memory, whose times are in UTC; what doesn't fit goes to a temporary folder."""
    connection = ibis.duckdb.connect()
    connection.raw_sql("SET TimeZone = 'UTC'")
    connection.raw_sql("SET preserve_insertion_order = false")
    connection.raw_sql("SET enable_progress_bar = false")
    connection.raw_sql("SET parquet_metadata_cache = true")  # files of a store never change, and a look-up reads little else
    connection.raw_sql(f"SET memory_limit = '{MEMORY}'")
    connection.raw_sql(f"SET partitioned_write_flush_threshold = {CHUNK_ROWS // 2}")
    connection.raw_sql(f"SET temp_directory = '{tempfile.gettempdir()}/penchant-duckdb-{os.getuid()}'")
    return connection


def put_aside(connection: Any, rows: ir.Table) -> ir.Table:
    """Rows computed once, as a temporary table that goes with the connection."""
    return connection.create_table(ibis.util.gen_name("penchant"), rows)


def typed(rows: ir.Table, schema: pa.Schema, more: Sequence[str] = ()) -> ir.Table:
    """Rows with the columns of `schema` in its types, and `more` as they are; null where there is no such column."""
    types = ibis.Schema.from_pyarrow(schema)
    columns = {name: rows[name].cast(types[name]) if name in rows.columns else ibis.null(types[name]) for name in schema.names}
    return rows.select(*more, **columns)


@contextmanager
def in_order(connection: Any) -> Iterator[None]:
    """Statements that write their rows in the order that they sort them by."""
    connection.raw_sql("SET preserve_insertion_order = true")
    try:
        yield
    finally:
        connection.raw_sql("SET preserve_insertion_order = false")


def copied(
    connection: Any, rows: ir.Table, target: Path, options: str, place: Mapping[str, str] | None = None, folder: Path | None = None
) -> list[AddAction]:
    """Write rows as Parquet to `target`, a folder to be partitioned or the file of one `place` below `folder`; what is to be committed of each file.

    Raises `OSError` where that fails.
    """
    name = ibis.util.gen_name("penchant")
    connection.create_view(name, rows)
    path = str(target).replace("'", "''")
    rows_of_group = CHUNK_ROWS if place is None else SORTED_CHUNK_ROWS
    settings = f"FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE {rows_of_group}, RETURN_STATS{', ' * bool(options)}{options}"
    try:
        found = connection.con.execute(f"COPY (FROM \"{name}\") TO '{path}' ({settings})").fetchall()
    except duckdb.IOException as error:
        if NOT_WRITTEN.search(str(error)) is None:  # something that is read, then
            raise
        code = re.search(r'"errno":"(\d+)"', str(error))
        raise (OSError(int(code[1]), os.strerror(int(code[1]))) if code is not None else OSError(first_line(error))) from error
    now = int(time.time() * 1000)
    return [
        AddAction(os.path.relpath(file, folder or target), size, dict(place or keys), now, True, statistics(count, columns))
        for file, count, size, _, columns, keys, *_ in found
        if count
    ]


def statistics(count: int, columns: Mapping[str, Mapping[str, str]]) -> str:
    """Of a file, as Delta Lake writes them: how many rows, and when the first and last event occurred."""
    occurred = columns.get('"occurred_at"', {})
    ends = {name: {"occurred_at": utc(occurred[name])} if name in occurred else {} for name in ("min", "max")}
    return json.dumps({"numRecords": count, "minValues": ends["min"], "maxValues": ends["max"], "nullCount": {}})


def utc(moment: str) -> str:
    """DuckDB's text of an instant, in a session whose times are in UTC, as Delta Lake writes it."""
    return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
