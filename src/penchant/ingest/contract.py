"""Tables that already follow a contract (events, tags), from any of the file formats we read."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penchant.errors import DataError, problems
from penchant.ingest.convert import to_text
from penchant.ingest.readers import BadRow, rows, sniff


def parquet_of(path: Path, schema: pa.Schema, maker: str) -> bool:
    """Whether `path` is Parquet, with its columns checked. Raises `DataError` that names `maker`, the command that writes such files."""
    if sniff(path) != "parquet":
        return False
    try:
        found = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: damaged Parquet file ({error}); make it with: {maker}") from error
    require_columns(path, found.names, needed_columns(schema), maker)
    wrong = [
        f"{field.name} is {found.field(field.name).type}, expected {field.type}"
        for field in schema
        if field.name in found.names and not same_kind(found.field(field.name).type, field.type)
    ]
    if wrong:
        raise DataError(f"{path}: {'; '.join(wrong)}; make it with: {maker}")
    return True


def same_kind(found: pa.DataType, expected: pa.DataType) -> bool:
    """Whether a column of one type serves as the other: the same but for the width of offsets, integers and time units."""
    if pa.types.is_timestamp(expected):
        return bool(pa.types.is_timestamp(found) and found.tz is not None)
    if pa.types.is_string(expected):
        return bool(pa.types.is_string(found) or pa.types.is_large_string(found))
    if pa.types.is_integer(expected):
        return bool(pa.types.is_integer(found))
    return bool(found == expected)


def needed_columns(schema: pa.Schema) -> list[str]:
    """Columns a file must have: those that may not be null."""
    return [field.name for field in schema if not field.nullable]


def require_columns(path: Path, names: list[str], needed: list[str], maker: str) -> None:
    """Raise a `DataError` that lists the needed columns a file lacks."""
    missing = [name for name in needed if name not in names]
    if missing:
        raise DataError(f"{path}: has no column {', '.join(missing)}; make it with: {maker}")


def read_text_table(path: Path, schema: pa.Schema, maker: str) -> pa.Table:
    """A CSV, TSV or JSON Lines file as a table of `schema`; columns that may be null may be absent.

    Raises `DataError` that lists the rows that don't fit.
    """
    needed = needed_columns(schema)
    found: list[dict[str, Any]] = []
    mistakes: list[str] = []
    for place, row in rows(path):
        if isinstance(row, BadRow):
            mistakes.append(f"{path}:{place}: {row.reason}")
            continue
        require_columns(path, list(row), needed, maker)
        values: dict[str, Any] = {}
        for field in schema:
            try:
                values[field.name] = typed(row.get(field.name), field)
            except ValueError as error:
                mistakes.append(f"{path}:{place}: {field.name}: {error}")
        found.append(values)
    if mistakes:
        raise DataError(problems(str(path), mistakes))
    return pa.Table.from_pylist(found, schema)


def typed(value: Any, field: pa.Field) -> Any:
    """A text's or JSON's value as the contract's type. Raises `ValueError` with the value in it."""
    if value is None or value == "":
        if not field.nullable:
            raise ValueError("missing")
        return None
    try:
        if pa.types.is_timestamp(field.type):
            moment = datetime.fromisoformat(str(value))
            return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        if pa.types.is_floating(field.type):
            number = float(value)
            if not math.isfinite(number):  # one NaN among the scores would be everybody's weight
                raise ValueError(value)
            return number
        if pa.types.is_integer(field.type):
            if isinstance(value, float) and not value.is_integer():  # Arrow would cut it
                raise ValueError(value)
            return pa.scalar(int(value), field.type).as_py()
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{value!r} is no {field.type}") from None
    text = to_text(value) or ""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{value!r} is not UTF-8 text") from None
    return text
