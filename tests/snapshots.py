"""Events, tags and snapshots made by hand, as the contracts want them."""

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant.ingest.clean import text_key
from penchant.profiles.policy import Permit, Policy
from penchant.profiles.snapshot import TOLERANCE, Snapshot, build, check, load, update
from penchant.profiles.store import Store
from penchant.records import EVENTS, TAGS
from penchant.taxonomy import Node, Taxonomy
from tests.profiles import reference

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


def permits(*interests: str, purpose: str = "advertising") -> tuple[Permit, ...]:
    """What a policy says to let sensitive interests in."""
    return tuple(Permit(interest=each, purpose=purpose, ground="explicit consent, form 7 of 2026") for each in interests)


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


def updated(profiles: Path | str, folder: Path, events: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Update a store by `events`, whose files go to `folder`; `more` goes to `update`, but for `tags`."""
    return update(*write_inputs(folder, events, more.pop("tags", None)), profiles, **more)


def version(profiles: Path) -> int:
    """The current one."""
    return int(Store(profiles).table().version())


def clean(snapshot: Snapshot) -> bool:
    """Whether a rebuild from the kept events gives the same."""
    found = check(snapshot)
    return bool(found["unequal"] == 0 and found["difference"] <= TOLERANCE)


def kept_ids(profiles: Path | str) -> list[str]:
    """Ids of the kept events, in order."""
    return sorted(load(profiles).kept.event_id.to_pyarrow().to_pylist())


FORMS = {"run in Nike": "Nike", "跑步 👟 NIKE": "NIKE", "stage by Zara": "Zara"}
"""Texts with a brand, in the form it has there."""
USERS = ("ann", "bob", "007", "🐈", "用户 一", "O'Hara; DROP", "%20")


def random_tags(draw: random.Random) -> list[dict[str, Any]]:
    """Tags of `WORDS` and `FORMS`, with scores of three digits."""
    interests = sorted(set(WORDS.values()))
    tags = [tag(text, value, draw.randrange(100, 1000) / 1000) for text, value in WORDS.items()]
    for text, form in FORMS.items():
        tags += [span(text, form, form.lower(), score=draw.randrange(100, 1000) / 1000), tag(text, draw.choice(interests), 0.5)]
    return tags


def random_events(draw: random.Random, count: int, first: int = 0) -> list[dict[str, Any]]:
    """Events of all kinds over forty days before `NOON`, half of them on three of those days."""
    found = []
    for number in range(first, first + count):
        microseconds = draw.randrange(40 * 86_400_000_000)
        if number % 2:
            microseconds = draw.choice((1, 7, 30)) * 86_400_000_000 + microseconds % 7_200_000_000
        action = draw.choice(("click", "view", "like", "purchase", "purchase", "refund", "review", "wave"))
        amount = draw.randrange(20_000) / 100 if action in ("purchase", "refund") else None
        found.append(
            event(
                number,
                draw.choice([*WORDS, *FORMS]),
                draw.choice(USERS),
                occurred_at=NOON - timedelta(microseconds=microseconds),
                source=draw.choice(("shop", "social", "forum, with comma")),
                action=action,
                rating=draw.choice((None, None, 1.0, 2.5, 4.0, 5.0)),
                amount=amount,
                currency=draw.choice(("EUR", "CNY", None)) if amount is not None else None,
            )
        )
    return found


def assert_profiles(snapshot: Snapshot, events: list[dict[str, Any]], tags: list[dict[str, Any]]) -> None:
    """State, population and view are those of the definition: masses to 1e-9 of the size of what was summed."""
    policy = snapshot.policy
    expected = reference.state(reference.terms(events, tags, policy, set(SENSITIVE)), policy, snapshot.as_of)
    found = {(row["user_id"], row["dimension"], row["value"]): row for row in snapshot.state.to_pyarrow().to_pylist()}
    assert len(found) == snapshot.state.count().to_pyarrow().as_py()
    assert set(found) == set(expected)
    totals = reference.population(expected, policy)
    found_totals = {(row["dimension"], row["value"]): row for row in snapshot.totals.to_pyarrow().to_pylist()}
    assert set(found_totals) == set(totals)
    for rows, wanted in ((found, expected), (found_totals, totals)):
        for key, row in wanted.items():
            for name in policy.horizons:
                size = row[f"size_{name}"]
                assert abs(rows[key][f"mass_{name}"] - row[f"mass_{name}"]) <= 1e-9 * size, (key, name)
    for key, row in expected.items():
        for name in ("events", "first_at", "last_at", "last_positive_at", "sources"):
            assert found[key][name] == row[name], (key, name)
    shown = {(row["user_id"], row["dimension"], row["value"]): row for row in snapshot.profiles.to_pyarrow().to_pylist()}
    wanted = reference.view(expected, totals, policy)
    assert set(shown) == set(wanted)
    for key, row in wanted.items():
        for name, value in row.items():
            assert shown[key][name] == (pytest.approx(value, rel=1e-9, abs=1e-9) if value is not None else None), (key, name)
