"""Where an audience goes, and in which form; see configs/destinations.yaml for a complete example."""

import csv
import json
import math
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from phonenumbers import SUPPORTED_REGIONS
from pydantic import Field, field_validator, model_validator

from penchant.config import Settings, suggestion
from penchant.errors import ConfigError
from penchant.segments.customer_list import Listing, customer_list
from penchant.segments.identity import COLUMNS, KEYS, Identities
from penchant.segments.openrtb import Bidstream, user_object
from penchant.segments.platforms import Destination, Google, LinkedIn, Meta, TikTok

NAMES = ("csv", "parquet", "jsonl", "openrtb", "google", "meta", "tiktok", "linkedin")
NEEDS_IDENTITIES = frozenset({"google", "meta", "tiktok", "linkedin"})
PLAIN = ("user_id", "weight", "last_at")
NO_INTEREST = "no interest of the outside taxonomy"


class OpenRtb(Destination, Bidstream):
    """OpenRTB user objects, one a line."""


class Provider(Settings):
    """Who hands audiences on, for the labels beside them."""

    name: str = ""
    """Your company."""
    contact: str = ""
    """Whom to ask."""
    geography: str = ""
    """Where the people live, such as GB."""


class Destinations(Settings):
    """Every destination's settings, and how the identity table is read."""

    provider: Provider = Provider()
    """Who hands audiences on."""
    default_region: str | None = None
    """ISO 3166 alpha-2: where numbers without a country code are dialled and postal codes belong, unless the person's own country says."""
    columns: dict[str, str] = {}
    """Column of the identity table → what your table calls it, where it isn't called the same."""
    birth_date_format: str | None = None
    """strptime format of dates of birth; absent: ISO 8601."""
    rejected_share: float = Field(0.5, ge=0, le=1)
    """With more malformed identifiers to match by than this share of those present, nothing is written."""
    csv: Destination = Destination()
    """user_id, weight, last_at as CSV."""
    parquet: Destination = Destination()
    """The same as Parquet."""
    jsonl: Destination = Destination()
    """The same as JSON Lines."""
    openrtb: OpenRtb = OpenRtb()
    """OpenRTB 2.6 user objects, one a line."""
    google: Google = Google()
    """Google Ads Customer Match."""
    meta: Meta = Meta()
    """Meta customer list custom audience."""
    tiktok: TikTok = TikTok()
    """TikTok customer file."""
    linkedin: LinkedIn = LinkedIn()
    """LinkedIn contact list."""

    @field_validator("default_region")
    @classmethod
    def known_region(cls, value: str | None) -> str | None:
        """Refuse a region without a numbering plan."""
        if value is not None and value not in SUPPORTED_REGIONS:
            raise ValueError("no ISO 3166 alpha-2 region with telephone numbers, such as US or GB")
        return value

    @model_validator(mode="after")
    def known_columns(self) -> Self:
        """Refuse columns that an identity table hasn't."""
        unknown = [f"{each!r}{suggestion(each, COLUMNS)}" for each in self.columns if each not in COLUMNS]
        if unknown:
            raise ValueError(f"columns: no column of an identity table: {', '.join(unknown)}")
        return self


def listing(name: str, settings: Destinations, people: pa.Table, identities: Identities | None = None) -> Listing:
    """What goes to a destination. `people` has user_id, weight and last_at; for google also ad_consent, for openrtb interests.

    Raises `ConfigError` for an unknown destination, missing identities and a bidstream without a provider, and `DataError` for an
    identity table that looks wrong.
    """
    if name not in NAMES:
        raise ConfigError(f"unknown destination {name!r}{suggestion(name, NAMES)}")
    if name == "openrtb":
        return bidstream(settings.openrtb, people)
    if name not in NEEDS_IDENTITIES:
        return Listing(people.select(PLAIN), people["user_id"].combine_chunks())
    if identities is None:
        raise ConfigError(f"{name}: needs an identity table, with user_id and at least one of {', '.join(KEYS)}")
    destination: Any = getattr(settings, name)
    return customer_list(
        name,
        destination.header,
        destination.forms(settings.birth_date_format),
        people["user_id"].to_pylist(),
        identities,
        default_region=settings.default_region,
        rejected_share=settings.rejected_share,
        consent_region=frozenset(settings.google.consent_region) if name == "google" else (),
        consenting=granting(people) if name == "google" else (),
    )


def granting(people: pa.Table) -> frozenset[str]:
    """Users whose `ad_consent` is true; nobody without that column."""
    if "ad_consent" not in people.column_names:
        return frozenset()
    return frozenset(people.filter(people["ad_consent"])["user_id"].to_pylist())  # null isn't true


def bidstream(settings: OpenRtb, people: pa.Table) -> Listing:
    """One column of lines. Who has no interest in the outside taxonomy has nothing to say there.

    Without a column of interests they are to be removed: each line says that the person has no segments any more.
    """
    if settings.provider is None:
        raise ConfigError("openrtb: set openrtb.provider to your domain, which buyers see as the source of the data")
    if "interests" not in people.column_names:
        lines = pa.array([user_object(settings, user, []) for user in people["user_id"].to_pylist()], pa.string())
        return Listing(pa.table({"user": lines}), people["user_id"].combine_chunks())
    some = pc.fill_null(pc.greater(pc.list_value_length(people["interests"]), 0), False)
    kept = people.filter(some)
    pairs = zip(kept["user_id"].to_pylist(), kept["interests"].to_pylist(), strict=True)
    lines = pa.array([user_object(settings, user, interests) for user, interests in pairs], pa.string())
    dropped = Counter({("person", NO_INTEREST): len(people) - len(kept)})
    return Listing(pa.table({"user": lines}), kept["user_id"].combine_chunks(), +dropped)


def write(name: str, settings: Destinations, listing: Listing, path: Path) -> None:  # noqa: ARG001 - a form may come to need them
    """Write a listing in the destination's form, text in UTF-8, in place: give a path that is renamed afterwards."""
    if name == "parquet":
        pq.write_table(listing.table, path)
        return
    columns = [[printable(each) for each in column.to_pylist()] for column in listing.table.columns]
    with path.open("w", encoding="utf-8", newline="") as stream:
        if name == "openrtb":
            stream.writelines(f"{line}\n" for line in columns[0])
        elif name == "jsonl":
            lines = (dict(zip(listing.table.column_names, row, strict=True)) for row in zip(*columns, strict=True))
            stream.writelines(f"{json.dumps(line, ensure_ascii=False, allow_nan=False)}\n" for line in lines)
        else:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(listing.table.column_names)
            writer.writerows(zip(*columns, strict=True))


def printable(value: Any) -> Any:
    """A cell as text files have it: times in ISO 8601, no number that isn't one."""
    if isinstance(value, datetime):
        return value.isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value
