"""Sources to one table of clean, unique events, and one of what was rejected and why."""

import csv
import functools
import glob
import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penchant.config import suggestion
from penchant.errors import ConfigError, DataError, problems
from penchant.files import holds_only, write_json, written_aside
from penchant.ingest import convert
from penchant.ingest.clean import clean, document, mask, text_key
from penchant.ingest.mapping import Mapping, Source
from penchant.ingest.readers import BadRow, Row, rows, sniff
from penchant.progress import progress
from penchant.records import EVENTS, REJECTS

log = logging.getLogger(__name__)
BATCH_ROWS = 16384
SHOWN_CHARACTERS = 80
IDENTIFYING = ("user_id", "occurred_at", "action", "item_id", "rating", "amount", "text_key")


class Rejected(Exception):  # noqa: N818 - control flow inside this file, never seen outside
    """One row that becomes no event."""

    def __init__(self, column: str, value: Any, reason: str) -> None:
        super().__init__(reason)
        self.column, self.value, self.reason = column, value, reason


class Ingest:
    """Turns the rows of a mapping's sources into events, each once."""

    def __init__(self, mapping: Mapping, folder: Path) -> None:
        self.mapping, self.folder = mapping, folder
        self.latest = mapping.latest or datetime.now(UTC) + timedelta(days=1)
        self.seen: set[bytes] = set()
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in mapping.sources}
        self.prepared = functools.lru_cache(maxsize=100_000)(lambda text: mask(clean(text), mapping.phone_region) or None)

    def files(self, name: str) -> list[Path]:
        """The files of a source, in a fixed order; a pattern that matches nothing is an error."""
        found: list[Path] = []
        for pattern in self.mapping.sources[name].files:
            path = self.folder / pattern
            matched = [path] if path.exists() else sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207 - Path.glob takes no absolute pattern
            if not matched:
                raise ConfigError(f"source {name!r}: no file matches {path}")
            found += matched
        return found

    def catalogue(self, source: Source) -> dict[str, Row]:
        """Rows of the joined file by their key."""
        if source.items is None:
            return {}
        path = self.folder / source.items.file
        table: dict[str, Row] = {}
        for place, row in rows(path):
            if isinstance(row, BadRow) or source.items.key not in row:
                raise DataError(f"{path}:{place}: {row.reason if isinstance(row, BadRow) else f'no column {source.items.key!r}'}")
            try:
                key = item_key(row, source.items.key)
            except convert.Unusable as error:
                raise DataError(f"{path}:{place}: {source.items.key}: {error}") from None
            if key is not None:
                table[key] = row
        return table

    def run(self, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield ("event", …) and ("reject", …) for every row of a source, in file order."""
        source = self.mapping.sources[name]
        catalogue = self.catalogue(source)
        seen: set[str] = set()
        for path in self.files(name):
            unchecked = sniff(path) != "jsonl"  # where each row may have keys of its own
            for place, row in rows(path):
                seen |= row.keys() if not isinstance(row, BadRow) else set()
                if unchecked and not isinstance(row, BadRow):
                    require_mapped(path, name, source, row, catalogue)
                    unchecked = False
                self.counts[name]["rows"] += 1
                try:
                    if isinstance(row, BadRow):
                        raise Rejected("", row.text, row.reason)
                    if source.items is not None:
                        event = self.event(name, source, joined(row, source.items.key, catalogue))
                    else:
                        event = self.event(name, source, row)
                except Rejected as bad:
                    self.counts[name][f"rejected: {bad.reason}"] += 1
                    text = str(bad.value if bad.value is not None else "")[:500]
                    shown = mask(clean(text), self.mapping.phone_region)[:SHOWN_CHARACTERS]
                    yield (
                        "reject",
                        {"source": name, "file": path.name, "row": place, "column": bad.column, "value": shown, "reason": bad.reason},
                    )
                    continue
                self.counts[name]["events"] += 1
                yield "event", event
        for field, column in mapped(source) if seen else ():
            if column not in seen and column.split(".")[0] not in seen | ({"item"} if catalogue else set()):
                log.warning("source %r: %s: no row has a column %r%s", name, field, column, suggestion(column, sorted(seen)))

    def event(self, name: str, source: Source, row: Row) -> dict[str, Any]:
        """One row as an event. Raises `Rejected`."""
        columns = source.columns
        event: dict[str, Any] = {"source": name}
        for field in ("user_id", "action", "item_id", "currency", "language"):
            event[field] = self.field(row, columns, field, convert.to_text)
        for field in ("title", "body"):
            text = self.field(row, columns, field, convert.to_text)
            event[field] = self.prepared(text) if text else None
        event["rating"] = self.field(row, columns, "rating", lambda value: convert.to_rating(value, columns.rating))
        event["amount"] = self.field(row, columns, "amount", convert.to_amount)
        event["occurred_at"] = self.field(
            row,
            columns,
            "occurred_at",
            lambda value: convert.to_instant(value, columns.occurred_at, self.mapping.timezone, self.mapping.earliest, self.latest),
        )
        for needed in ("user_id", "action"):
            if not event[needed]:
                raise Rejected(needed, event[needed], f"{needed}: missing")
        event["action"] = event["action"].lower()
        text = document(event["title"], event["body"])
        if not text:
            raise Rejected("title", None, "text: missing")
        event["text_key"] = text_key(text)
        own_id = self.field(row, columns, "event_id", convert.to_text)
        event["event_id"] = f"{name}:{own_id or stable_id(event)}"
        digest = hashlib.blake2b(event["event_id"].encode(), digest_size=12).digest()
        if digest in self.seen:
            raise Rejected("event_id", event["event_id"], "duplicate event")
        self.seen.add(digest)
        return event

    @staticmethod
    def field(row: Row, columns: Any, field: str, convert_value: Any) -> Any:
        """One converted value; an unusable one rejects the row with the field's name in the reason."""
        column = getattr(columns, field)
        value: Any = None
        try:
            value = convert.raw_value(row, column)
            result = convert_value(value)
        except convert.Unusable as error:
            shown = value if value is not None else convert.lookup(row, column.column) if column.column else None
            raise Rejected(column.column or field, shown, f"{field}: {error}") from None
        if isinstance(result, str):
            try:
                result.encode()
            except UnicodeEncodeError:
                raise Rejected(column.column or field, result, f"{field}: not UTF-8 text") from None
        return result


def mapped(source: Source) -> list[tuple[str, str]]:
    """Fields that the mapping reads from a column, and these."""
    return [(field, column.column) for field, column in source.columns if column is not None and column.column is not None]


def require_mapped(path: Path, name: str, source: Source, row: Row, catalogue: dict[str, Row]) -> None:
    """Raise a `ConfigError` that lists the columns which the mapping names and a table lacks, each with the nearest there is."""
    known = set(row) | ({f"item.{each}" for each in next(iter(catalogue.values()))} if catalogue else set())
    mistakes = [
        f"{field}: no column {column!r}{suggestion(column, sorted(known))}"
        for field, column in mapped(source)
        if column not in known and column.split(".")[0] not in row
    ]
    if mistakes:
        raise ConfigError(problems(f"source {name!r}: {path}", mistakes))


def joined(row: Row, key: str, catalogue: dict[str, Row]) -> Row:
    """The row with its catalogue entry as `item`."""
    try:
        own = item_key(row, key)
    except convert.Unusable as error:
        raise Rejected(key, row.get(key), f"{key}: {error}") from None
    item = catalogue.get(own) if own is not None else None
    if item is None:
        raise Rejected(key, row.get(key), "no such item in the catalogue")
    return row | {"item": item}


def item_key(row: Row, name: str) -> str | None:
    """What joins a row and its catalogue entry; None where it is absent or empty. Raises `convert.Unusable`."""
    return (convert.to_text(row.get(name)) or "").strip() or None


def stable_id(event: dict[str, Any]) -> str:
    """The event id of a source that gives none: 24 hex digits from the identifying fields."""
    parts = [str(event[field]) for field in IDENTIFYING]
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=12).hexdigest()


def ingest(mapping: Mapping, folder: Path, output: Path) -> dict[str, dict[str, int]]:
    """Write `output/events.parquet`, `output/rejects.csv` and `output/summary.json`; the counts per source.

    `folder` is what the mapping's files are relative to. Guarantee: rows = events + rejected, for every source.
    """
    holds_only(output, ("events.parquet", "rejects.csv", "summary.json"))
    work = Ingest(mapping, folder)
    for name in mapping.sources:
        work.files(name)
    with written_aside(output) as aside:
        aside.mkdir()
        with (
            (aside / "rejects.csv").open("w", encoding="utf-8", newline="") as rejects_file,
            pq.ParquetWriter(aside / "events.parquet", EVENTS, compression="zstd") as events_file,
        ):
            rejects = csv.DictWriter(rejects_file, REJECTS.names)
            rejects.writeheader()
            for name in mapping.sources:
                pending: list[dict[str, Any]] = []
                with progress(f"ingest {name}", None, "events") as advance:
                    for kind, row in work.run(name):
                        if kind == "reject":
                            rejects.writerow(row)
                            continue
                        pending.append(row)
                        if len(pending) == BATCH_ROWS:
                            events_file.write_table(pa.Table.from_pylist(pending, EVENTS))
                            advance(len(pending))
                            pending = []
                events_file.write_table(pa.Table.from_pylist(pending, EVENTS))
                log.info("%s: %s", name, ", ".join(f"{count:,} {what}" for what, count in work.counts[name].items()))
        summary = {name: dict(counts) for name, counts in work.counts.items()}
        write_json(aside / "summary.json", summary)
    return summary
