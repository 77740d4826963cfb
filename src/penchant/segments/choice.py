"""One choice of a person, checked, and files of such choices."""

import csv
import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from penchant.config import Settings, suggestion
from penchant.errors import ConfigError, problems
from penchant.files import written_aside
from penchant.ingest import convert
from penchant.ingest.clean import clean, mask
from penchant.ingest.mapping import EARLIEST, Column
from penchant.ingest.readers import BadRow, Row, rows, sniff
from penchant.records import INSTANT

EVERYTHING = "*"
"""Stands in place of a purpose."""
GRANTED, DENIED = "granted", "denied"
SPELLINGS = dict.fromkeys(("granted", "grant", "opt-in"), GRANTED) | dict.fromkeys(
    ("denied", "deny", "revoked", "revoke", "withdrawn", "opt-out"), DENIED
)
"""How a status may be written, in any case."""
PURPOSE = re.compile(r"[a-z0-9_-]+")
"""How a purpose is written."""
FOREVER = datetime.max.replace(tzinfo=UTC)
"""No time is later; whether one has come is judged apart."""
SHOWN_CHARACTERS = 80
"""Of a value that is no good."""
CHOICES = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("purpose", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("at", INSTANT, nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("recorded_at", INSTANT, nullable=False),
    ]
)
"""One row per choice. `at` is when it was made, `recorded_at` when it came here."""
IDENTIFYING = ("user_id", "purpose", "status", "at", "reason")
"""Two choices that are equal in these are one."""
BATCH_ROWS = 16_384
"""Rows held as Python's own objects at once."""


class ChoiceColumns(Settings):
    """Which columns of a file hold what. A bare text is short for `column`."""

    user_id: Column = Column(column="user_id")
    """Who."""
    purpose: Column = Column(column="purpose")
    """For what; absent or empty: for everything."""
    status: Column = Column(column="status")
    """Granted or denied; see `SPELLINGS`."""
    at: Column = Column(column="at")
    """When the choice was made; UTC where there is no offset."""
    reason: Column = Column(column="reason")
    """Why, in words; may be absent."""


NEEDED = ("user_id", "status", "at")
"""Fields that every choice of a file has to give."""


class Rejected(Exception):  # noqa: N818 - control flow inside this file, never seen outside
    """A choice that can't be taken."""

    def __init__(self, field: str, value: Any, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field, self.value = field, value


@dataclass(frozen=True)
class Loaded:
    """What a file of choices holds: the usable ones, each once, and how many rows there are and were rejected."""

    choices: pa.Table
    rows: int
    rejected: int


def read_file(path: Path, columns: ChoiceColumns, now: datetime) -> Loaded:
    """Read the choices of a file, and list what can't be taken in `NAME.rejects.csv` beside it.

    Raises `DataError` and `ConfigError` for a file, or columns, that can't be used at all.
    """
    batches, found, rejects, count = [CHOICES.empty_table()], [], [], 0
    for place, row in given_rows(path, columns):
        count += 1
        try:
            if isinstance(row, BadRow):
                raise Rejected("", row.text, row.reason)
            found.append(checked(partial(row_value, row, columns), columns, now))
        except Rejected as bad:
            column = getattr(columns, bad.field).column or bad.field if bad.field else ""
            rejects.append({"row": place, "column": column, "value": shown(bad.value), "reason": str(bad)})
        if len(found) == BATCH_ROWS:
            batches.append(pa.Table.from_pylist(found, CHOICES))
            found = []
    write_rejects(path.with_name(f"{path.name}.rejects.csv"), rejects)
    return Loaded(distinct(pa.concat_tables([*batches, pa.Table.from_pylist(found, CHOICES)])), count, len(rejects))


def given_rows(path: Path, columns: ChoiceColumns) -> Iterator[tuple[int, Row | BadRow]]:
    """Rows with their places. Raises `ConfigError` for a table without the columns that are needed."""
    unchecked = sniff(path) != "jsonl"  # where each row may have keys of its own
    for place, row in rows(path):
        if unchecked and not isinstance(row, BadRow):
            require_mapped(path, columns, row)
            unchecked = False
        yield place, row


def require_mapped(path: Path, columns: ChoiceColumns, row: Row) -> None:
    """Raise a `ConfigError` that lists the columns which a table lacks, each with the nearest there is."""
    needed = {*NEEDED, *columns.model_fields_set}
    mistakes = [
        f"{field}: no column {column.column!r}{suggestion(column.column, sorted(row))}"
        for field, column in columns
        if field in needed and column.column is not None and column.column not in row and column.column.split(".")[0] not in row
    ]
    if mistakes:
        raise ConfigError(problems(str(path), mistakes))


def row_value(row: Row, columns: ChoiceColumns, field: str) -> Any:
    """What a row has for a field. Raises `convert.Unusable`."""
    column: Column = getattr(columns, field)
    value = convert.raw_value(row, column)
    if field == "purpose" and value is None and (near := misspelt(tuple(row), column.column)):
        raise convert.Unusable(f"missing, but there is a column {near!r}: say that it holds the purpose, or rename it")
    return value


@lru_cache(maxsize=1024)
def misspelt(names: tuple[str, ...], wanted: str) -> str | None:
    """A column that is called almost as wanted: a grant of what it names isn't one of everything, which would lift an opt-out."""
    if wanted in names:
        return None
    near = difflib.get_close_matches(wanted.lower(), [each.lower() for each in names], n=1, cutoff=0.8)
    return next((each for each in names if near and each.lower() == near[0]), None)


def distinct(choices: pa.Table) -> pa.Table:
    """Each choice once."""
    grouped = choices.group_by(list(IDENTIFYING)).aggregate([("recorded_at", "min")])
    return grouped.rename_columns({"recorded_at_min": "recorded_at"}).select(CHOICES.names).cast(CHOICES)


def write_rejects(path: Path, rejects: Sequence[Mapping[str, Any]]) -> None:
    """Replace the list of rejects; without any there is no file."""
    if not rejects:
        path.unlink(missing_ok=True)
        return
    with written_aside(path) as aside, aside.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["row", "column", "value", "reason"])
        writer.writeheader()
        writer.writerows(rejects)


def checked(value: Callable[[str], Any], columns: ChoiceColumns, now: datetime) -> dict[str, Any]:
    """A choice from what `value` gives for each field. Raises `Rejected`."""
    found: dict[str, Any] = {"recorded_at": now}
    ways: dict[str, Callable[[Any], Any]] = {
        "user_id": to_user,
        "purpose": to_purpose,
        "status": to_status,
        "at": partial(to_past, column=columns.at, now=now),
        "reason": to_reason,
    }
    for field, convert_value in ways.items():
        given = None
        try:
            given = value(field)
            found[field] = convert_value(given)
        except convert.Unusable as error:
            raise Rejected(field, given, str(error)) from None
    return found


def to_user(value: Any) -> str:
    """A user id as it is."""
    text = writable(convert.to_text(value))
    if not text:
        raise convert.Unusable("missing")
    return text


def to_purpose(value: Any) -> str:
    """A purpose; everything where there is none."""
    if value is None:
        return EVERYTHING
    if value != EVERYTHING and not (isinstance(value, str) and PURPOSE.fullmatch(value)):
        raise convert.Unusable("no purpose: lower-case letters, digits, - and _ (such as newsletter), or * for everything")
    return str(value)


def to_status(value: Any) -> str:
    """Granted or denied, from any spelling."""
    if value is None:
        raise convert.Unusable("missing")
    text = str(value)[:SHOWN_CHARACTERS].strip().lower()
    if text not in SPELLINGS:
        raise convert.Unusable(f"no status{suggestion(text, list(SPELLINGS))}")
    return SPELLINGS[text]


def to_past(value: Any, column: Column, now: datetime) -> datetime:
    """A moment that has come."""
    moment = convert.to_instant(value, column, "UTC", EARLIEST, FOREVER)
    if moment > now:
        raise convert.Unusable(f"later than now, {now:%Y-%m-%d %H:%M} UTC")
    return moment


def to_reason(value: Any) -> str:
    """What people wrote."""
    return writable(convert.to_text(value)) or ""


def writable(text: str | None) -> str | None:
    """Text that UTF-8 can hold."""
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise convert.Unusable("not UTF-8 text") from None
    return text


def shown(value: Any) -> str:
    """A value as a message or a list of rejects may show it."""
    return mask(clean(str(value if value is not None else "")[:500]))[:SHOWN_CHARACTERS]


def value_of(given: Mapping[str, Any], now: datetime, field: str) -> Any:
    """What a choice that a program records gives for a field. Raises `convert.Unusable` for one with other fields."""
    if unknown := sorted(set(given) - set(ChoiceColumns.model_fields)):
        near = suggestion(unknown[0], list(ChoiceColumns.model_fields))
        raise convert.Unusable(f"stands beside {unknown[0]!r}, which is no field of a choice{near}")
    return now if field == "at" and given.get("at") is None else given.get(field)
