"""What a fold reads: events and tags in any format, checked, and what can't be used listed."""

import csv
import glob
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from penchant import taxonomy as taxonomies
from penchant.config import parse
from penchant.errors import DataError
from penchant.files import written_aside
from penchant.ingest.contract import parquet_of, read_text_table
from penchant.ingest.mapping import EARLIEST
from penchant.ingest.readers import sniff
from penchant.profiles.fold import instant
from penchant.records import EVENTS, TAGS
from penchant.taxonomy import Taxonomy

log = logging.getLogger(__name__)
SPARK_SCHEMA = b"org.apache.spark.sql.parquet.row.metadata"
"""Where Spark keeps the metadata of columns in a Parquet footer."""
CLOCK_SKEW = timedelta(days=1)
"""How far after now an event may lie."""


@dataclass(frozen=True)
class Inputs:
    """Events and tags as tables, and whose tags they are."""

    events: ir.Table
    tags: ir.Table
    taxonomy: Taxonomy
    bundle: str
    """Fingerprint of the bundle (or bundles) that made the tags; `unknown` where the file doesn't say."""


def read_inputs(connection: Any, events: Path, tags: Path, taxonomy: Path | Taxonomy | None, known: Taxonomy | None = None) -> Inputs:
    """Open events and tags; see `read_tags`. Raises `DataError` for what breaks their contracts."""
    rows = contract_table(
        connection, events / "events.parquet" if (events / "events.parquet").exists() else events, EVENTS, "penchant ingest"
    )
    return Inputs(rows, *read_tags(connection, tags, taxonomy, known))


def read_tags(
    connection: Any, tags: Path, taxonomy: Path | Taxonomy | None, known: Taxonomy | None = None
) -> tuple[ir.Table, Taxonomy, str]:
    """Tags as a table, their taxonomy and the fingerprint of the bundle behind them.

    The taxonomy is the one given, else the one written in the tags, else the one `known` from before.
    """
    rows = contract_table(connection, tags, TAGS, "penchant tag")
    wrong = rows.filter(~rows.score.between(0, 1)).limit(1).to_pyarrow().to_pylist()
    if wrong:
        raise DataError(f"{tags}: score {wrong[0]['score']} of {wrong[0]['value']!r} is not between 0 and 1")
    placed = ((rows.start >= 0) & (rows.end > rows.start)).fill_null(False)
    misplaced = rows.filter((rows.start.notnull() | rows.end.notnull()) & ~placed).limit(1).to_pyarrow().to_pylist()
    if misplaced:
        start, end, value = (misplaced[0][name] for name in ("start", "end", "value"))
        raise DataError(f"{tags}: start {start}, end {end} of {value!r} are no offsets; expected 0 ≤ start < end, or neither")
    said = said_of_itself(tags)
    if taxonomy is not None:
        nodes = taxonomy if isinstance(taxonomy, Taxonomy) else taxonomies.load(taxonomy)
    elif "penchant.taxonomy" in said:
        nodes = parse(Taxonomy, json.loads(said["penchant.taxonomy"]), str(tags))
    elif known is not None:
        nodes = known
    else:
        raise DataError(f"{tags}: doesn't say which taxonomy its tags belong to; give --taxonomy")
    return rows, nodes, said.get("penchant.bundle", "unknown")


def said_of_itself(tags: Path) -> dict[str, str]:
    """What a table of tags says of its bundle and taxonomy: in its footer, or, as Spark writes it, beside the column `text_key`."""
    if tags.is_dir():
        footer = pq.read_schema(parts_of(tags)[0]).metadata or {}
        fields = json.loads(footer.get(SPARK_SCHEMA, b'{"fields": []}'))["fields"]
        return {name: str(value) for each in fields if each["name"] == "text_key" for name, value in each["metadata"].items()}
    if sniff(tags) != "parquet":
        return {}
    return {name.decode(): value.decode() for name, value in (pq.read_schema(tags).metadata or {}).items() if name.startswith(b"penchant.")}


def parts_of(folder: Path) -> list[Path]:
    """The Parquet files that Spark wrote into a folder. Raises `DataError` where there are none, or the job didn't end."""
    parts = sorted(folder.glob("*.parquet"))
    if not parts:
        raise DataError(f"{folder}: a folder without Parquet files; name a file, or a folder as Spark writes it")
    if any(each.name.startswith("part-") for each in parts) and not (folder / "_SUCCESS").exists():
        raise DataError(f"{folder}: has no _SUCCESS: the job that wrote it didn't end; run it again")
    return parts


def contract_table(connection: Any, path: Path, schema: pa.Schema, maker: str) -> ir.Table:
    """A file of any of our formats that holds the columns of a contract, or a folder of Parquet; Parquet is scanned where it lies."""
    files = parts_of(path) if path.is_dir() else [path]
    found = [parquet_of(each, schema, maker) for each in files]
    if all(found):
        table = scan(connection, files)
        columns = {}
        for name, kind in ibis.Schema.from_pyarrow(schema).items():
            column = table[name] if name in table.columns else ibis.null(kind)
            columns[name] = column.cast(kind) if column.type().is_unknown() else column  # ibis doesn't know times in nanoseconds
        return table.select(**columns)
    if path.is_dir():
        raise DataError(f"{files[found.index(False)]}: not a Parquet file; make it with: {maker}")
    return ibis.memtable(read_text_table(path, schema, maker))


def scan(connection: Any, paths: Sequence[Path]) -> ir.Table:
    """Parquet files where they lie: DuckDB reads neither a pattern from their names nor a column from their folders (`source=shop/`).

    A column that the first of several lacks is read from the others.
    """
    return connection.read_parquet([glob.escape(str(each)) for each in paths], hive_partitioning=False, union_by_name=len(paths) > 1)


def faults(events: ir.Table, latest: datetime) -> dict[str, ir.BooleanValue]:
    """What makes an event unusable, by reason: it would be a wrong weight, or nobody's."""
    return {
        "event_id: missing": events.event_id.isnull() | (events.event_id == ""),
        "user_id: missing": events.user_id.isnull() | (events.user_id == ""),
        "text_key: missing": events.text_key.isnull(),
        "source or action: missing": events.source.isnull() | events.action.isnull(),
        f"occurred_at: missing, or outside {EARLIEST:%Y-%m-%d} to now": (
            events.occurred_at.isnull() | (events.occurred_at < instant(EARLIEST)) | (events.occurred_at > instant(latest))
        ),
        "rating: outside 1 to 5": events.rating.isnan() | ~events.rating.between(1, 5),
        "amount: not a finite number of 0 or more (a refund is an action)": events.amount.isnan()
        | events.amount.isinf()
        | (events.amount < 0),
    }


def broken(reasons: dict[str, ir.BooleanValue]) -> ir.BooleanValue:
    """Whether an event has any of these faults."""
    return reduce(or_, (each.fill_null(False) for each in reasons.values()))


def usable(events: ir.Table, rejects: Path | None) -> ir.Table:
    """The events that can be folded; the others are counted, and listed in `rejects` (CSV: event_id, reason), where that is a file's name.

    An event later than a day from now has a wrong clock.
    """
    reasons = faults(events, datetime.now(UTC) + CLOCK_SKEW)
    named = events.filter(broken(reasons)).select(
        "event_id", reason=ibis.cases(*((each.fill_null(False), name) for name, each in reasons.items()))
    )
    found = named.to_pyarrow().to_pylist()
    if rejects is not None:
        write_rejects(rejects, found)
    if not found:
        return events
    for reason, count in Counter(row["reason"] for row in found).most_common():
        log.warning("%d events left out: %s", count, reason)
    if rejects is not None:
        log.warning("they are listed in %s", rejects)
    return events.filter(~broken(reasons))


def write_rejects(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Replace the list of rejects; without any there is no file."""
    if not rows:
        if path.exists():
            path.unlink()
        return
    with written_aside(path) as aside, aside.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["event_id", "reason"])
        writer.writeheader()
        writer.writerows(rows)
