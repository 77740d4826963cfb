"""A small world of events in every format, and the way through it by the command line."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from penchant.cli import main
from penchant.records import INSTANT
from tests.tables import write_rows

RUNNERS = [f"r{n:02}" for n in range(52)]
CAT_PEOPLE = ["c0", "c1", "c2"]
BOLD = "<b>x</b>"
SCRIPT = '<script alert(1)> my oven & "dough"'
LAST = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)

MAPPING = """
timezone: UTC
latest: 2026-07-01
sources:
  shop:
    files: [shop.csv]
    columns:
      user_id: customer_no
      occurred_at: {column: clicked_at, format: "%d.%m.%Y %H:%M:%S", timezone: Europe/Berlin}
      action: {column: event, values: {pdp_view: view, purchase: purchase}}
      title: product_name
  reviews:
    files: [reviews.jsonl]
    columns: {event_id: id, user_id: author.id, occurred_at: posted, action: {constant: review}, body: text, rating: stars}
  social:
    files: [social.parquet]
    columns: {event_id: id, user_id: user, occurred_at: at, action: verb, body: text}
  forum<i>:
    files: [forum.tsv]
    columns: {user_id: member, occurred_at: at, action: {constant: post}, title: subject, body: text}
"""
SEGMENT = """
name: {name}
description: Who <em>likes</em> it
owner: A test & no more
purpose: testing
rule: {{interest: {interest}}}
"""


def write_sources(folder: Path) -> None:
    """58 events and 3 rejects over four sources, with five distinct texts.

    52 runners looked at one product; three cat people wrote the same review; one person wrote two posts, of which the
    first hides what a browser would take for a script behind entities; the first runner wrote in the forum, last of all, in the night the clocks change.
    """
    moment = datetime(2026, 3, 1, 10, 0)  # noqa: DTZ001 - the shop exports local times
    views = [
        {
            "customer_no": user,
            "clicked_at": f"{moment + timedelta(minutes=n):%d.%m.%Y %H:%M:%S}",
            "event": "pdp_view",
            "product_name": "Run in the rain",
        }
        for n, user in enumerate(RUNNERS)
    ]
    bad = [views[0], views[1] | {"event": "hover <3 & stay"}, views[2] | {"clicked_at": "31.02.2026 10:00:00"}]
    lines = [";".join(row.values()) for row in [*views, *bad]]
    (folder / "shop.csv").write_text("\n".join([";".join(views[0]), *lines]) + "\n", encoding="utf-8-sig")
    reviews = [
        {"id": n, "author": {"id": user}, "posted": "2026-03-02T12:00:00+02:00", "text": "A  cat and\nbread", "stars": 5}
        for n, user in enumerate(CAT_PEOPLE)
    ]
    write_rows(folder / "reviews.jsonl", reviews)
    at = datetime(2026, 3, 3, 8, tzinfo=UTC)
    posts = [
        {"id": "p1", "user": BOLD, "at": at, "verb": "post", "text": '&lt;script alert(1)&gt; my oven &amp; "dough"'},
        {"id": "p2", "user": BOLD, "at": at, "verb": "like", "text": "trail 😀 https://shop.example/run"},
    ]
    schema = pa.schema([("id", pa.string()), ("user", pa.string()), ("at", INSTANT), ("verb", pa.string()), ("text", pa.string())])
    write_rows(folder / "social.parquet", posts, schema)
    write_rows(folder / "forum.tsv", [{"member": "r00", "at": "2026-03-29T03:30:00+02:00", "subject": "my shoe", "text": "the, marathon"}])
    (folder / "mapping.yaml").write_text(MAPPING, encoding="utf-8")
    for name, interest in (("sporty", "sports"), ("cats", "pets.cats")):
        (folder / f"{name}.yaml").write_text(SEGMENT.format(name=name, interest=interest), encoding="utf-8")
    truth: list[dict[str, Any]] = [
        {"user_id": "r00", "interests": ["sports.running"]},
        {"user_id": "c0", "interests": ["pets.cats", "food.baking"]},
        {"user_id": BOLD, "interests": ["food.baking", "pets.cats"]},
    ]
    (folder / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in truth), encoding="utf-8")


def go_through(folder: Path, bundle: Path) -> Path:
    """The sources in `folder` through ingest, tagger and fold: `events`, `tags.parquet` and `profiles` in it."""
    write_sources(folder)
    main(["ingest", str(folder / "mapping.yaml"), "-o", str(folder / "events")])
    main(["tag", str(folder / "events"), "--bundle", str(bundle), "-o", str(folder / "tags.parquet")])
    main(["profile", "build", str(folder / "events"), str(folder / "tags.parquet"), "-o", str(folder / "profiles")])
    return folder
