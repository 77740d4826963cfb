"""A snapshot on disk: profile state, and what it was made with."""

import glob
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from penchant import __version__
from penchant import taxonomy as taxonomies
from penchant.config import parse
from penchant.errors import DataError
from penchant.files import holds_only, read_json, write_json, written_aside
from penchant.ingest.contract import parquet_of, read_text_table
from penchant.ingest.readers import sniff
from penchant.profiles.fold import SURFACE_KEY, contributions, fold, frequent_surfaces, surfaces
from penchant.profiles.policy import Policy
from penchant.profiles.view import view
from penchant.records import EVENTS, TAGS, state_schema
from penchant.taxonomy import Taxonomy

log = logging.getLogger(__name__)
FILES = ("state.parquet", "surfaces.parquet", "snapshot.json")


@dataclass(frozen=True)
class Snapshot:
    """Profiles as they were at an instant."""

    state: ir.Table
    policy: Policy
    taxonomy: Taxonomy
    as_of: datetime
    about: dict[str, Any]
    surfaces: ir.Table | None = None
    """How values of spans are written; see `penchant.profiles.fold.surfaces`."""

    @property
    def profiles(self) -> ir.Table:
        """The view of all users."""
        return view(self.state, self.policy)

    @cached_property
    def forms(self) -> dict[tuple[str, str], str]:
        """The most frequent form of each (dimension, value) that spans found."""
        rows = frequent_surfaces(self.surfaces).to_pyarrow().to_pylist() if self.surfaces is not None else []
        return {(row["dimension"], row["value"]): row["surface"] for row in rows}

    def label(self, dimension: str, value: str, language: str | None = None) -> str:
        """What people read for a value: an interest's name, in `language` where it has one, or the form most events write it in."""
        if dimension == "interest":
            return self.taxonomy.label(value, language)
        return self.forms.get((dimension, value), value)


def connect() -> Any:
    """A DuckDB connection for Ibis, in memory, whose times are in UTC."""
    connection = ibis.duckdb.connect()
    connection.raw_sql("SET TimeZone = 'UTC'")
    return connection


def read_inputs(connection: Any, events: Path, tags: Path, taxonomy: Path | Taxonomy | None) -> tuple[ir.Table, ir.Table, Taxonomy, str]:
    """The events and tags as tables, the taxonomy, and the fingerprint of the bundle that made the tags."""
    event_rows = contract_table(connection, events / "events.parquet" if events.is_dir() else events, EVENTS, "penchant ingest")
    tag_rows = contract_table(connection, tags, TAGS, "penchant tag")
    wrong = tag_rows.filter(~tag_rows.score.between(0, 1)).limit(1).to_pyarrow().to_pylist()
    if wrong:
        raise DataError(f"{tags}: score {wrong[0]['score']} of {wrong[0]['value']!r} is not between 0 and 1")
    placed = ((tag_rows.start >= 0) & (tag_rows.end > tag_rows.start)).fill_null(False)
    misplaced = tag_rows.filter((tag_rows.start.notnull() | tag_rows.end.notnull()) & ~placed).limit(1).to_pyarrow().to_pylist()
    if misplaced:
        start, end, value = (misplaced[0][name] for name in ("start", "end", "value"))
        raise DataError(f"{tags}: start {start}, end {end} of {value!r} are no offsets; expected 0 ≤ start < end, or neither")
    metadata = (pq.read_schema(tags).metadata or {}) if sniff(tags) == "parquet" else {}
    if taxonomy is not None:
        nodes = taxonomy if isinstance(taxonomy, Taxonomy) else taxonomies.load(taxonomy)
    elif b"penchant.taxonomy" in metadata:
        nodes = parse(Taxonomy, json.loads(metadata[b"penchant.taxonomy"]), str(tags))
    else:
        raise DataError(f"{tags}: doesn't say which taxonomy its tags belong to; give --taxonomy")
    return event_rows, tag_rows, nodes, metadata.get(b"penchant.bundle", b"unknown").decode()


def contract_table(connection: Any, path: Path, schema: pa.Schema, maker: str) -> ir.Table:
    """A file of any of our formats that holds the columns of a contract; Parquet is scanned where it lies."""
    if parquet_of(path, schema, maker):
        table = scan(connection, path)
        absent = {name: kind for name, kind in ibis.Schema.from_pyarrow(schema).items() if name not in table.columns}
        return table.mutate(**{name: ibis.null(kind) for name, kind in absent.items()})
    return ibis.memtable(read_text_table(path, schema, maker))


def scan(connection: Any, path: Path) -> ir.Table:
    """A Parquet file where it lies: DuckDB reads neither a pattern from its name nor a column from its folders (`source=shop/`)."""
    return connection.read_parquet(glob.escape(str(path)), hive_partitioning=False)


def build(
    events: Path, tags: Path, policy: Policy, output: Path, taxonomy: Path | None = None, as_of: datetime | None = None
) -> dict[str, Any]:
    """Fold all events into `output/state.parquet` and `surfaces.parquet`, and say in `snapshot.json` what with; that text as a dictionary.

    `as_of` defaults to the last event's time.
    """
    holds_only(output, FILES)
    connection = connect()
    event_rows, tag_rows, nodes, bundle = read_inputs(connection, events, tags, taxonomy)
    if as_of is None:
        last = event_rows.occurred_at.max().to_pyarrow().as_py()
        if last is None:
            raise DataError(f"{events}: no events")
        as_of = last
    assert as_of is not None
    as_of = as_of.astimezone(UTC)
    if tag_rows.count().to_pyarrow().as_py() and not event_rows.semi_join(tag_rows, "text_key").count().to_pyarrow().as_py():
        log.warning("%s: not one of its tags is of a text in %s; were they made from other events?", tags, events)
    unknown = sorted(set(policy.allowed_sensitive) - set(nodes.by_id))
    for each in unknown:
        nodes.get(each, "allowed_sensitive")
    if policy.allowed_sensitive:
        log.warning("sensitive interests let in by the policy: %s", ", ".join(policy.allowed_sensitive))
    state = fold(contributions(event_rows, tag_rows, policy, nodes), policy, as_of)
    forms = surfaces(event_rows, tag_rows, policy, nodes, as_of)
    with written_aside(output) as aside:
        aside.mkdir()
        try:
            state.order_by("user_id", "dimension", "value").to_parquet(aside / "state.parquet", compression="zstd")
            forms.order_by(*SURFACE_KEY).to_parquet(aside / "surfaces.parquet", compression="zstd")
        except duckdb.Error as error:
            raise DataError(f"the fold failed: {error}") from error
        table = scan(connection, aside / "state.parquet")
        about = {
            "as_of": as_of.isoformat(),
            "users": int(table.user_id.nunique().to_pyarrow().as_py()),
            "attributes": int(table.count().to_pyarrow().as_py()),
            "policy": policy.model_dump(mode="json"),
            "policy_fingerprint": policy.fingerprint,
            "bundle_fingerprint": bundle,
            "taxonomy": nodes.model_dump(mode="json"),
            "penchant": __version__,
        }
        write_json(aside / "snapshot.json", about)
    return about


def load(folder: Path) -> Snapshot:
    """Open a snapshot. Raises `DataError` when the folder is none, or was made by other formulas than these."""
    if not (folder / "snapshot.json").exists():
        raise DataError(f"{folder}: no snapshot (it has no snapshot.json); make one with: penchant profile build")
    about = read_json(folder / "snapshot.json")
    origin = str(folder / "snapshot.json")
    try:
        policy, taxonomy = parse(Policy, about["policy"], origin), parse(Taxonomy, about["taxonomy"], origin)
        as_of, fingerprint = datetime.fromisoformat(about["as_of"]), about["policy_fingerprint"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{origin}: damaged or edited by hand ({type(error).__name__}: {error}); build the profiles again") from error
    if policy.fingerprint != fingerprint:
        raise DataError(f"{folder}: its policy was edited or belongs to another version of Penchant; build the profiles again")
    connection = connect()
    state = part(connection, folder / "state.parquet", tuple(state_schema(policy.horizons).names), "profile state")
    forms = None
    if (folder / "surfaces.parquet").exists():
        forms = part(connection, folder / "surfaces.parquet", (*SURFACE_KEY, "events"), "table of surface forms")
    return Snapshot(state, policy, taxonomy, as_of, about, forms)


def part(connection: Any, path: Path, columns: tuple[str, ...], what: str) -> ir.Table:
    """A table of a snapshot. Raises `DataError` when the file is missing or damaged, or holds other columns."""
    try:
        table = scan(connection, path)
    except duckdb.Error as error:
        raise DataError(f"{path}: missing or damaged: {str(error).splitlines()[0]}") from error
    if table.columns != columns:
        raise DataError(f"{path}: holds {', '.join(table.columns)}, which is no {what}; build the profiles again")
    return table


def user_profile(snapshot: Snapshot, user: str, language: str | None = None) -> list[dict[str, Any]]:
    """One user's attributes of all dimensions by falling weight, each with its `label` in `language`. Raises `DataError` for a user without any."""
    profiles = snapshot.profiles
    found: list[dict[str, Any]] = (
        profiles.filter(profiles.user_id == user)
        .order_by(profiles.weight.desc(), profiles.value, profiles.dimension)
        .to_pyarrow()
        .to_pylist()
    )
    if not found:
        known = profiles.select("user_id").distinct().order_by("user_id").limit(3).to_pyarrow()["user_id"].to_pylist()
        others = f"users who have one: {', '.join(map(repr, known))} …" if known else "nobody has one"
        raise DataError(f"no profile for user {user!r}; {others}")
    return [{"label": snapshot.label(row["dimension"], row["value"], language)} | row for row in found]
