"""Events, tags and snapshots made by hand, as the contracts want them."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penchant.ingest.clean import text_key
from penchant.profiles.policy import Policy
from penchant.profiles.snapshot import Snapshot, build, load
from penchant.records import EVENTS, TAGS
from penchant.taxonomy import Node, Taxonomy

NOON = datetime(2026, 3, 1, 12, 0, 0, 123_457, tzinfo=UTC)
TAXONOMY = Taxonomy(
    name="by hand",
    nodes=(
        Node(id="sports", name="Sports"),
        Node(id="sports.running", name="Running", parent="sports"),
        Node(id="sports.football", name="Football", parent="sports"),
        Node(id="pets", name="Pets"),
        Node(id="pets.cats", name="Cats", parent="pets"),
        Node(id="society", name="Society"),
        Node(id="society.theatre", name="Theatre", parent="society"),
        Node(id="society.faith", name="Faith", parent="society", sensitive=True),
        Node(id="society.faith.choir", name="Church choir", parent="society.faith"),
    ),
)
SENSITIVE = ("society.faith", "society.faith.choir")
WORDS = {"run": "sports.running", "goal": "sports.football", "cat": "pets.cats", "stage": "society.theatre", "choir": "society.faith.choir"}
"""The texts of the events below, and what each is tagged with."""


def event(number: int, text: str, user: str, days_ago: float = 0.0, **more: Any) -> dict[str, Any]:
    """One event with every column of the contract: a click in the shop unless said otherwise, which is worth 1."""
    base = {field.name: None for field in EVENTS} | {"title": text, "text_key": text_key(text), "source": "shop", "action": "click"}
    return base | {"event_id": f"e{number}", "user_id": user, "occurred_at": NOON - timedelta(days=days_ago)} | more


def tag(text: str, value: str, score: float = 1.0, dimension: str = "interest") -> dict[str, Any]:
    """One tag of a text."""
    return {"text_key": text_key(text), "dimension": dimension, "value": value, "score": score, "start": None, "end": None}


def span(text: str, surface: str, value: str, dimension: str = "brand", score: float = 1.0) -> dict[str, Any]:
    """One tag of the first place in a text where `surface` stands."""
    start = text.index(surface)
    return tag(text, value, score, dimension) | {"start": start, "end": start + len(surface)}


def write_inputs(
    folder: Path, events: list[dict[str, Any]], tags: list[dict[str, Any]] | None = None, taxonomy: Taxonomy = TAXONOMY
) -> tuple[Path, Path]:
    """`events.parquet` and `tags.parquet` as ingest and tag write them; the tags are those of `WORDS` unless given."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"penchant.taxonomy": json.dumps(taxonomy.model_dump(mode="json")), "penchant.bundle": "by hand"}
    tags = tags if tags is not None else [tag(text, value) for text, value in WORDS.items()]
    pq.write_table(pa.Table.from_pylist(events, EVENTS), folder / "events.parquet")
    pq.write_table(pa.Table.from_pylist(tags, TAGS).replace_schema_metadata(metadata), folder / "tags.parquet")
    return folder / "events.parquet", folder / "tags.parquet"


def snapshot_of(
    folder: Path, events: list[dict[str, Any]], policy: Policy | None = None, tags: list[dict[str, Any]] | None = None
) -> Snapshot:
    """The profiles of `events` as of `NOON`, built and opened."""
    build(*write_inputs(folder, events, tags), policy or Policy(), folder / "profiles", as_of=NOON)
    return load(folder / "profiles")
