"""The identity table: which e-mail addresses, telephone numbers and device ids belong to which user. It never enters profiles."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from penchant.config import suggestion
from penchant.errors import ConfigError, DataError, problems
from penchant.ingest import convert
from penchant.ingest.readers import BadRow, Row, rows

KEYS = ("email", "phone", "device_id")
"""What a destination can find a person by."""

COLUMNS = (
    "user_id",
    *KEYS,
    "first_name",
    "last_name",
    "city",
    "state",
    "zip",
    "country",
    "date_of_birth",
    "gender",
    "external_id",
    "job_title",
    "company",
    "value",
)
"""Columns of an identity table: `user_id` and at least one of `KEYS` are needed, the others optional."""

SCHEMA = pa.schema([pa.field("row", pa.int64(), nullable=False), *((name, pa.string()) for name in COLUMNS)])
"""`row` is the line of a text file (its header is line 1) or the 1-based row of a Parquet file; null where a cell is blank."""


@dataclass(frozen=True)
class Identities:
    """An identity table. A user may have several rows."""

    path: Path
    """Where it was read from."""
    table: pa.Table
    """Of `SCHEMA`, in the file's order, values as the file has them."""
    broken: Counter[str]
    """Rows that couldn't be used at all, by reason."""


def read_identities(path: Path, columns: Mapping[str, str] | None = None) -> Identities:
    """Read CSV, TSV, JSON Lines or Parquet; `columns` says how the file calls a column where it isn't called like ours.

    Rows that can't be split, have no `user_id` or hold what isn't text are counted. Raises `DataError` for a file that isn't an
    identity table, with the nearest column names it has, and `ConfigError` for a column in `columns` that isn't ours.
    """
    names = called(columns or {})
    found: dict[str, list[str | int | None]] = {name: [] for name in SCHEMA.names}
    broken: Counter[str] = Counter()
    there: dict[str, None] = {}  # in the file's order
    for place, row in rows(path):
        if isinstance(row, BadRow):
            broken[row.reason] += 1
            continue
        there.update(dict.fromkeys(row))
        try:
            cells = {column: text_of(row, column, names[column]) for column in COLUMNS}
        except convert.Unusable as error:
            broken[str(error)] += 1
            continue
        found["row"].append(place)
        for column, text in cells.items():
            found[column].append(text)
    require_columns(path, names, set(columns or {}), list(there))
    return Identities(path, pa.table(found, SCHEMA), broken)


def called(columns: Mapping[str, str]) -> dict[str, str]:
    """Our column → the file's. Raises `ConfigError` for one that isn't ours."""
    mistakes = [f"unknown column {name!r}{suggestion(name, COLUMNS)}" for name in columns if name not in COLUMNS]
    if mistakes:
        raise ConfigError(problems("columns of the identity table", mistakes))
    return {name: columns.get(name, name) for name in COLUMNS}


def text_of(row: Row, column: str, name: str) -> str | None:
    """A cell as the file has it; None where it is blank. Raises `Unusable`."""
    value = row.get(name)
    if isinstance(value, float) and math.isnan(value):
        value = None
    try:
        text = convert.to_text(value)
        (text or "").encode()
    except convert.Unusable as error:
        raise convert.Unusable(f"{column}: {error}") from None
    except UnicodeEncodeError:
        raise convert.Unusable(f"{column}: not UTF-8 text") from None
    if text is None or not text.strip():
        if column == "user_id":
            raise convert.Unusable("user_id: missing")
        return None
    return text.strip() if column == "user_id" else text  # events' user ids are trimmed too


def require_columns(path: Path, names: Mapping[str, str], mapped: set[str], there: list[str]) -> None:
    """Raise a `DataError` unless the file has the columns that an identity table needs and the mapping names."""
    if not there:
        raise DataError(f"{path}: has no rows; expected a table with user_id and at least one of {', '.join(KEYS)}")
    needed = [column for column in COLUMNS if column == "user_id" or column in mapped]
    mistakes = [
        f"{column}: no column {names[column]!r}{suggestion(names[column], there)}" for column in needed if names[column] not in there
    ]
    if not any(names[key] in there for key in KEYS):
        others = [each for each in there if each != names["user_id"]]
        hints = {key: suggestion(names[key], others) for key in KEYS}
        near = [f"{key}{hint}" for key, hint in hints.items() if "did you mean" in hint]
        mistakes.append(f"none of the columns {', '.join(KEYS)}: {' / '.join(near) or 'it has ' + ', '.join(there[:20])}")
    if mistakes:
        raise DataError(
            problems(f"{path}: not an identity table", mistakes)
            + "\nOther names go under columns in the settings, such as columns: {email: mail}"
        )
