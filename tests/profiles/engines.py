"""DuckDB and Spark as the tests of profiles use them: rows in, rows out."""

from collections.abc import Callable, Hashable
from typing import Any

import ibis.expr.types as ir
import pyarrow as pa

from penchant.profiles.duck import connect

Make = Callable[..., ir.Table]


class Duck:
    """DuckDB as stores use it."""

    def __init__(self) -> None:
        self.connection = connect()
        self.statements: dict[Hashable, tuple[str, pa.Schema]] = {}

    def __call__(self, make: Make, key: Hashable = None, **tables: pa.Table) -> pa.Table:
        """The rows of `make(*tables)`. Of calls with one `key` the first alone makes a statement, which the others repeat with their rows."""
        for name, rows in tables.items():
            self.connection.con.register(name, rows)
        if key is None:
            return self.connection.to_pyarrow(make(*map(self.connection.table, tables)))
        if key not in self.statements:
            made = make(*map(self.connection.table, tables))
            self.statements[key] = self.connection.compile(made), made.schema().to_pyarrow()
        statement, schema = self.statements[key]
        return self.connection.con.sql(statement).to_arrow_table().cast(schema)


class Spark:
    """Spark by its session."""

    def __init__(self, session: Any) -> None:
        import ibis

        self.session, self.connection = session, ibis.pyspark.connect(session)

    def __call__(self, make: Make, key: Hashable = None, **tables: pa.Table) -> pa.Table:
        """The rows of `make(*tables)`; `key` is for DuckDB."""
        for name, rows in tables.items():
            self.session.createDataFrame(rows).createOrReplaceTempView(name)
        return self.session.sql(self.connection.compile(make(*map(self.connection.table, tables)))).toArrow()
