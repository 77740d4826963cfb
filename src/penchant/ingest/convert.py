"""Source values to contract values, one at a time, with a reason when it can't be done."""

import math
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from penchant.ingest.mapping import Column
from penchant.ingest.readers import Row


class Unusable(ValueError):  # noqa: N818 - caught per row, never seen outside
    """A value that rejects its row."""


def lookup(row: Row, name: str) -> Any:
    """The value of a column, or of a path through nested objects; None where there is none."""
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def raw_value(row: Row, column: Column | None) -> Any:
    """What the source says, after `values`; empty text counts as nothing."""
    if column is None:
        return None
    if column.constant is not None:
        return column.constant
    assert column.column is not None
    value = lookup(row, column.column)
    if isinstance(value, str):
        value = value.strip()
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if column.values is not None:
        if str(value) not in column.values:
            raise Unusable(f"not one of {', '.join(column.values)}")
        return column.values[str(value)]
    return value


def to_text(value: Any) -> str | None:
    """Any scalar as text; whole floats without `.0`, so that an id read as a number stays itself."""
    if isinstance(value, dict | list):
        raise Unusable("expected one value, found a list or an object")
    if isinstance(value, bytes):
        raise Unusable("expected text, found bytes")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return None if value is None else str(value)


def to_number(value: Any) -> float | None:
    """A finite number; thousands separators and currency signs are refused, not guessed."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):  # the last for a whole number of over 308 digits
        raise Unusable("not a number") from None
    if not math.isfinite(number):
        raise Unusable("not a finite number")
    return number


def to_rating(value: Any, column: Column | None) -> float | None:
    """A rating on 1 to 5, from the column's own range."""
    number = to_number(value)
    if number is None:
        return None
    low, high = column.range if column is not None and column.range is not None else (1.0, 5.0)
    if not low <= number <= high:
        raise Unusable(f"outside {low:g} to {high:g}")
    return 1 + 4 * (number - low) / (high - low)


def to_amount(value: Any) -> float | None:
    """An amount of money, not negative (a refund is an action of its own)."""
    number = to_number(value)
    if number is not None and number < 0:
        raise Unusable("negative; map refunds to an action such as refund")
    return number


def to_instant(value: Any, column: Column, default_zone: str, earliest: datetime, latest: datetime) -> datetime:
    """A moment in UTC between `earliest` and `latest`."""
    if value is None:
        raise Unusable("missing")
    moment = parse_instant(value, column)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(column.timezone or default_zone))
    try:
        moment = moment.astimezone(UTC)
        within = earliest <= moment <= latest
    except OverflowError:  # the years 1 and 9999, which say "never" in many exports
        within = False
    if not within:
        raise Unusable(f"outside {earliest:%Y-%m-%d} to {latest:%Y-%m-%d}")
    return moment


def parse_instant(value: Any, column: Column) -> datetime:
    """A `datetime` from what the source has: one already, an epoch number, or text in the column's format."""
    try:
        if isinstance(value, datetime):
            return value
        if column.format in ("epoch_s", "epoch_ms"):
            return datetime.fromtimestamp(float(value) / (1000 if column.format == "epoch_ms" else 1), UTC)
        if column.format is not None:
            return datetime.strptime(str(value), column.format)  # noqa: DTZ007 - the zone comes from the mapping
        return datetime.fromisoformat(str(value))
    except (ValueError, OverflowError, OSError, TypeError):
        raise Unusable(f"not a time in {column.format or 'ISO 8601'}") from None


def as_labels(value: Any) -> list[str] | None:
    """A list of ids from a list, from text that separates them by `;` or spaces, or from nothing; None for what is neither."""
    if isinstance(value, str):
        return value.replace(";", " ").split()
    if value is None or isinstance(value, list | tuple):
        return [str(each) for each in value or []]
    return None
