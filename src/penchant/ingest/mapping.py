"""How each source's columns become the columns of the contract; see data/events.yaml for a complete example."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from phonenumbers import SUPPORTED_REGIONS
from pydantic import Field, field_validator, model_validator

from penchant.config import Settings, load, suggestion

EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
"""Times before this are mistakes, such as the 0 of a clock that was never set."""


class Column(Settings):
    """Where one field of the contract comes from. A bare text in the mapping is short for `column`."""

    column: str | None = None
    """Name of the source's column; `a.b` looks inside nested JSON."""
    constant: str | None = None
    """A fixed value instead of a column."""
    values: dict[str, str] | None = None
    """Source value → contract value; a value that isn't listed rejects its row."""
    format: str | None = None
    """Of times: a strptime format, `epoch_s` or `epoch_ms`; absent: ISO 8601."""
    timezone: str | None = None
    """Of times without an offset; absent: the mapping's."""
    range: tuple[float, float] | None = None
    """Of ratings: the source's lowest and highest value, put on 1 to 5; absent: it is 1 to 5 already."""

    @model_validator(mode="before")
    @classmethod
    def short_form(cls, value: Any) -> Any:
        """Accept `user_id: customer` for `user_id: {column: customer}`."""
        return {"column": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def one_origin(self) -> "Column":
        """A value comes from a column or is constant."""
        if (self.column is None) == (self.constant is None):
            raise ValueError("give either 'column' or 'constant'")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError(f"range {list(self.range)}: the lowest value comes first")
        return self

    @field_validator("format")
    @classmethod
    def usable_format(cls, value: str | None) -> str | None:
        """Refuse a format that can't even read what it writes."""
        if value is not None and value not in ("epoch_s", "epoch_ms"):
            moment = datetime(2026, 3, 31, 18, 5, 9, tzinfo=UTC)
            try:
                read = datetime.strptime(moment.strftime(value), value)  # noqa: DTZ007 - only whether it reads
            except ValueError as error:
                raise ValueError(f"no strptime format ({error}); write it like %d.%m.%Y %H:%M:%S, or epoch_s or epoch_ms") from None
            if read.date() != moment.date():
                raise ValueError("names no full date; write it like %d.%m.%Y %H:%M:%S, or epoch_s or epoch_ms")
        return value

    @field_validator("timezone")
    @classmethod
    def known_zone(cls, value: str | None) -> str | None:
        """Refuse a time zone that this machine's database lacks."""
        return known_timezone(value) if value is not None else None


class Columns(Settings):
    """The contract's fields."""

    event_id: Column | None = None
    """Unique within the source; absent: a stable hash of the other identifying fields."""
    user_id: Column
    """Who."""
    occurred_at: Column
    """When."""
    action: Column
    """What was done: view, click, like, share, save, unsave, search, review, post, purchase…"""
    title: Column | None = None
    """Short text; one of title and body is needed."""
    body: Column | None = None
    """Long text."""
    item_id: Column | None = None
    """What it was done to."""
    rating: Column | None = None
    """1 to 5."""
    amount: Column | None = None
    """Money spent, not negative."""
    currency: Column | None = None
    """ISO 4217 code of `amount`."""
    language: Column | None = None
    """BCP 47 tag of the text."""

    @model_validator(mode="after")
    def some_text(self) -> "Columns":
        """An event without a text can't be tagged."""
        if self.title is None and self.body is None:
            raise ValueError("map 'title' or 'body': without a text there is nothing to tag")
        return self


class Join(Settings):
    """A second file whose columns join the rows, as `item.<column>`: a catalogue beside a log."""

    file: Path
    """Relative to the mapping file."""
    key: str
    """The column, of that name in both files, that matches."""


class Source(Settings):
    """One place that events come from."""

    files: tuple[str, ...] = Field(min_length=1)
    """Paths or patterns, relative to the mapping file."""
    columns: Columns
    """Field → column."""
    items: Join | None = None
    """A catalogue to join."""


class Mapping(Settings):
    """All sources of one ingest."""

    sources: dict[str, Source] = Field(min_length=1)
    """By the name that events carry as `source`."""
    timezone: str = "UTC"
    """IANA name; of times without an offset."""
    phone_region: str | None = "US"
    """ISO 3166 alpha-2: where phone numbers without a country code are dialled, for masking."""
    earliest: datetime = EARLIEST
    """Events before are rejected: a clock that says 1970 was never set."""
    latest: datetime | None = None
    """Events after are rejected; absent: a day after the moment of the run."""

    @field_validator("timezone")
    @classmethod
    def known_zone(cls, value: str) -> str:
        """Refuse a time zone that this machine's database lacks."""
        return known_timezone(value)

    @field_validator("phone_region")
    @classmethod
    def known_region(cls, value: str | None) -> str | None:
        """Refuse a region without a numbering plan: its numbers would stay unmasked."""
        if value is not None and value not in SUPPORTED_REGIONS:
            raise ValueError("no ISO 3166 alpha-2 region with telephone numbers, such as US or GB")
        return value

    @field_validator("earliest", "latest")
    @classmethod
    def with_offset(cls, value: datetime | None) -> datetime | None:
        """Times without an offset are UTC."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value

    @model_validator(mode="after")
    def in_order(self) -> "Mapping":
        """An empty range would reject every event."""
        if self.latest is not None and self.latest <= self.earliest:
            raise ValueError(f"latest {self.latest:%Y-%m-%d} is not after earliest {self.earliest:%Y-%m-%d}")
        return self


def known_timezone(name: str) -> str:
    """The name itself, if it is an IANA time zone."""
    if name not in available_timezones():
        raise ValueError(f"unknown time zone{suggestion(name, sorted(available_timezones()))}")
    return str(ZoneInfo(name))


def load_mapping(path: Path) -> Mapping:
    """Read a mapping file; `ConfigError` lists every mistake."""
    return load(Mapping, path)
