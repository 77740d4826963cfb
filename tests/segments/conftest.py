"""A snapshot of seventy people whose profiles can be told by eye, folded from events and tags written as tables."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant.profiles.policy import Policy
from penchant.profiles.snapshot import Snapshot, build, load
from penchant.records import EVENTS, TAGS
from tests.snapshots import permits

AS_OF = datetime(2026, 3, 29, 12, 0, 0, 300_000, tzinfo=UTC)

TAXONOMY = """
nodes:
  - {id: sports, name: Sports}
  - {id: sports.running, parent: sports, name: Running}
  - {id: sports.running.trail, parent: sports.running, name: Trail running}
  - {id: sports.football, parent: sports, name: Football}
  - {id: pets, name: Pets}
  - {id: pets.cats, parent: pets, name: Cats}
  - {id: life, name: Life}
  - {id: life.health, parent: life, name: Health, sensitive: true}
  - {id: life.health.sleep, parent: life.health, name: Sleep}
  - {id: life.work, parent: life, name: Work}
  - {id: chess, name: Chess}
"""
"""`chess` interests nobody."""

VALUES = [
    "sports",
    "sports.running",
    "sports.running.trail",
    "sports.football",
    "pets.cats",
    "life.health",
    "life.health.sleep",
    "life.work",
]


def event(n: int, user: str, value: str, days: float, source: str = "shop", action: str = "click") -> dict[str, Any]:
    """An event whose text bears the one tag `value`."""
    return {
        "event_id": f"e{n}",
        "user_id": user,
        "occurred_at": AS_OF - timedelta(days=days),
        "source": source,
        "action": action,
        "title": f"about {value}",
        "text_key": value,
    }


def seventy_people() -> list[dict[str, Any]]:
    """Events of u00 to u69: sixty like running, every third of them football too, and the rest lean elsewhere."""
    found: list[dict[str, Any]] = []

    def add(user: str, value: str, days: float, **more: Any) -> None:
        found.append(event(len(found), user, value, days, **more))

    for n in range(60):
        add(f"u{n:02}", ("sports.running", "sports.running.trail")[n % 2], days=n, source=("shop", "social", "reviews")[n % 3])
        if n % 3 == 0:
            add(f"u{n:02}", "sports.football", days=90 - n, source="social", action="purchase")
        if n % 5 == 0:
            add(f"u{n:02}", "pets.cats", days=2 * n, source="reviews")
        if n % 7 == 0:
            add(f"u{n:02}", "life.health", days=1)
    for n in range(60, 64):
        add(f"u{n}", "life.health.sleep", days=3)  # nothing but what is sensitive
    for n in range(64, 67):
        add(f"u{n}", "life.work", days=n - 60, source="social")
        add(f"u{n}", "life.health", days=1, action="purchase")
    add("u67", "sports.running", days=5, action="unsave")  # evidence against it alone: no profile row
    add("u68", "brand pets.cats", days=5)  # a brand that is called like an interest
    add("u69", "sports", days=10, source="reviews")
    return found


@pytest.fixture(scope="session")
def make_snapshot(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Snapshot]:
    """Fold events into a snapshot and open it."""

    def make(events: list[dict[str, Any]], **policy: Any) -> Snapshot:
        folder = tmp_path_factory.mktemp("segments")
        (folder / "taxonomy.yaml").write_text(TAXONOMY, encoding="utf-8")
        tags = [{"text_key": value, "dimension": "interest", "value": value, "score": 1.0} for value in VALUES]
        tags.append({"text_key": "brand pets.cats", "dimension": "brand", "value": "pets.cats", "score": 1.0})
        pq.write_table(pa.Table.from_pylist(events, EVENTS), folder / "events.parquet")
        pq.write_table(pa.Table.from_pylist(tags, TAGS), folder / "tags.parquet")
        build(folder / "events.parquet", folder / "tags.parquet", Policy(**policy), folder / "out", folder / "taxonomy.yaml", AS_OF)
        return load(folder / "out")

    return make


@pytest.fixture(scope="session")
def snapshot(make_snapshot: Callable[..., Snapshot]) -> Snapshot:
    """The seventy people under the default policy: what is sensitive never entered."""
    return make_snapshot(seventy_people())


@pytest.fixture(scope="session")
def open_snapshot(make_snapshot: Callable[..., Snapshot]) -> Snapshot:
    """The same people under a policy that lets what is sensitive into profiles."""
    return make_snapshot(seventy_people(), allowed_sensitive=permits("life.health", "life.health.sleep"))
